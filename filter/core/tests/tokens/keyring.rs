//! How often an issuer is asked, and the behaviour when it does not answer.

use std::time::Duration;

use jwt_simple::prelude::Ed25519KeyPair;
use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::token::issuer::{Issuer, IssuerId};
use portcullis_core::auth::token::jws::PresentedToken;
use portcullis_core::auth::token::keyring::{Keyring, Verification};
use portcullis_core::driver::call::CallFailure;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::MOST;
use crate::mint::{
    ISS, KEYS, RESOURCE, SECRET, START, at, claims, claims_with, headed, issuers, jwks, remote,
    shared, signed, signed_by, token,
};

/// The set with another key under the name `ed`, and a token of that key.
fn replaced() -> (Value, String) {
    let key = KEYS.stranger.clone().with_key_id("ed");
    let mut set = without("ed");
    let jwk = serde_json::from_str(&key.public_key().to_jwk()).unwrap();
    set["keys"].as_array_mut().unwrap().push(jwk);
    let header = r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#;
    (set, signed_by(&key, header, &claims().to_string()))
}

/// Finding 10.7: tokens of the new key were 401 and the old key was accepted for `refresh_seconds`.
// Proves: A3, B18
#[test]
fn a_key_that_was_replaced_under_its_name_is_fetched_and_the_old_one_proves_nothing() {
    let mut bench = Bench::new(remote(json!({})));
    let (set, new) = replaced();
    let old = signed("EdDSA");
    assert!(is_good(&bench.request(&old, Ok(&jwks()))));
    bench.now += 30;
    assert!(is_good(&bench.request(&new, Ok(&set))));
    let refused = bench.verify(&old);
    assert!(matches!(refused, Verification::Refused(AuthFailure::BadSignature, _)), "{refused:?}");
    // Forged tokens do not cause more fetches, and do not count as a failure of the issuer.
    for second in 0..90 {
        bench.now += 1;
        let refused = bench.request(&old, Err(CallFailure::TimedOut));
        let forged = matches!(refused, Verification::Refused(AuthFailure::BadSignature, None));
        assert!(forged, "{second}: {refused:?}");
    }
    assert!(bench.fetches <= 6, "{}", bench.fetches);
}

/// Finding 10.8: 16 RSA keys without `alg` filled the set, and of one name four keys were tried.
// Proves: A3
#[test]
fn sixty_four_keys_serve_whatever_they_are_fit_for_and_all_of_one_name() {
    let mut key = jwks()["keys"][3].clone();
    key.as_object_mut().unwrap().shift_remove("alg");
    let mut keys: Vec<Value> = (0..63)
        .map(|number| {
            let mut key = key.clone();
            key["kid"] = json!(format!("rsa{number}"));
            key
        })
        .collect();
    keys.push(jwks()["keys"][0].clone());
    let mut bench = Bench::new(remote(json!({})));
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&json!({"keys": keys})))));
    assert_eq!(bench.keyring.left_out(&IssuerId::new(ISS)), 0);

    keys.extend([key.clone(), key]);
    bench.answer(Ok(&json!({"keys": keys})));
    assert_eq!(bench.keyring.left_out(&IssuerId::new(ISS)), 2);

    let mut of_name: Vec<Value> = (0..5)
        .map(|_| {
            let pair = Ed25519KeyPair::generate().with_key_id("ed");
            serde_json::from_str(&pair.public_key().to_jwk()).unwrap()
        })
        .collect();
    of_name.push(jwks()["keys"][0].clone());
    bench.answer(Ok(&json!({"keys": of_name})));
    assert!(is_good(&bench.verify(&signed("EdDSA"))));
}

/// A worker under test: its clock, and an issuer that may answer.
struct Bench {
    keyring: Keyring,
    issuers: Vec<Issuer>,
    now: u64,
    fetches: u32,
}

impl Bench {
    fn new(issuer: Value) -> Self {
        Self { keyring: Keyring::new(7), issuers: issuers(&[issuer]), now: START, fetches: 0 }
    }

    fn verify(&mut self, token: &str) -> Verification {
        let token = PresentedToken::parse(token.as_bytes(), MOST).unwrap();
        self.keyring.verify(&token, &self.issuers, Some(RESOURCE), at(self.now))
    }

    fn answer(&mut self, outcome: Result<&Value, CallFailure>) {
        self.fetches += 1;
        let body = outcome.map(|set| set.to_string().into_bytes());
        let outcome = body.as_deref().map_err(|why| *why);
        self.keyring.fetched(&IssuerId::new(ISS), &self.issuers, at(self.now), outcome);
    }

    /// A request: verifies, fetches once if necessary, verifies again.
    fn request(&mut self, token: &str, outcome: Result<&Value, CallFailure>) -> Verification {
        match self.verify(token) {
            Verification::Fetch(id) => {
                assert_eq!(id.as_str(), ISS);
                self.answer(outcome);
                self.verify(token)
            }
            other => other,
        }
    }

    fn due(&mut self) -> usize {
        self.keyring.due(&self.issuers, at(self.now)).len()
    }
}

fn is_good(verification: &Verification) -> bool {
    matches!(verification, Verification::Verified(_))
}

fn without(kid: &str) -> Value {
    let mut set = jwks();
    set["keys"].as_array_mut().unwrap().retain(|jwk| jwk["kid"] != kid);
    set
}

// Proves: A3
#[test]
fn keys_are_fetched_when_they_are_needed_and_not_again() {
    let mut bench = Bench::new(remote(json!({})));
    assert_eq!(bench.due(), 0, "nobody asked");
    for _ in 0..5 {
        assert!(is_good(&bench.request(&signed("ES256"), Ok(&jwks()))));
    }
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&jwks()))));
    assert_eq!(bench.fetches, 1);
}

#[test]
fn a_rotated_key_is_fetched_once_it_is_used() {
    let mut bench = Bench::new(remote(json!({})));
    assert!(is_good(&bench.request(&signed("ES256"), Ok(&without("ed")))));
    bench.now += 30;
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&jwks()))));
    assert_eq!(bench.fetches, 2);
}

// Proves: B18
#[test]
fn names_of_keys_that_do_not_exist_cannot_hammer_the_issuer() {
    let mut bench = Bench::new(remote(json!({})));
    for second in 0..120 {
        bench.now = START + second;
        for n in 0..20 {
            let token = headed(json!({"kid": format!("garbage-{second}-{n}")}));
            let refused = bench.request(&token, Ok(&jwks()));
            assert!(
                matches!(refused, Verification::Refused(AuthFailure::UnknownSigner, None)),
                "{refused:?}"
            );
        }
    }
    assert_eq!(bench.fetches, 4, "one at first, then one each 30 seconds");
}

// Proves: B18
#[test]
fn a_key_that_is_taken_back_proves_nothing_any_more() {
    let mut bench = Bench::new(remote(json!({})));
    let token = signed("EdDSA");
    assert!(is_good(&bench.request(&token, Ok(&jwks()))));
    assert_eq!(bench.keyring.remembered(), 1);
    bench.answer(Ok(&without("ed")));
    let refused = bench.verify(&token);
    assert!(matches!(refused, Verification::Refused(AuthFailure::UnknownSigner, _)), "{refused:?}");
    assert_eq!(bench.keyring.remembered(), 0);
}

// Proves: B7
#[test]
fn a_remembered_token_is_still_judged_each_time() {
    let mut bench = Bench::new(remote(json!({})));
    let good = token(&claims());
    assert!(is_good(&bench.request(&good, Ok(&jwks()))));
    let presented = PresentedToken::parse(good.as_bytes(), MOST).unwrap();
    let elsewhere =
        bench.keyring.verify(&presented, &bench.issuers, Some("https://mcp.example/b"), at(START));
    let Verification::Refused(AuthFailure::WrongAudience, Some(owner)) = elsewhere else {
        panic!("{elsewhere:?}");
    };
    assert_eq!(owner.credential.principal.name, "agent-1");
    bench.now = START + 330;
    let expired = bench.verify(&good);
    assert!(matches!(expired, Verification::Refused(AuthFailure::Expired, Some(_))), "{expired:?}");
    assert_eq!(bench.fetches, 1);
}

#[test]
fn keys_are_refreshed_before_they_are_old_by_workers_that_use_them() {
    let mut bench = Bench::new(remote(json!({})));
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&jwks()))));
    bench.now = START + 269;
    assert_eq!(bench.due(), 0);
    bench.now = START + 300;
    assert_eq!(bench.due(), 1);
    assert_eq!(bench.due(), 0, "one at a time");
    bench.answer(Ok(&jwks()));
    bench.now = START + 700;
    assert_eq!(bench.due(), 0, "nobody used them since");
    let token = token(&claims_with(json!({"exp": START + 3_600})));
    assert!(is_good(&bench.verify(&token)), "old keys serve until the new ones are here");
    assert_eq!(bench.due(), 1);
}

#[test]
fn keys_serve_on_while_the_issuer_is_down_but_not_for_ever() {
    let stale =
        json!({"cluster": "idp", "path": "/jwks", "refresh_seconds": 300, "stale_seconds": 600});
    let mut bench = Bench::new(remote(json!({"jwks": stale, "max_lifetime_seconds": 7200})));
    let token = token(&claims_with(json!({"exp": START + 3_600})));
    assert!(is_good(&bench.request(&token, Ok(&jwks()))));
    bench.now = START + 300;
    assert_eq!(bench.due(), 1);
    bench.answer(Err(CallFailure::TimedOut));
    assert_eq!(bench.due(), 0, "a second of patience");
    bench.now += 1;
    assert_eq!(bench.due(), 1);
    bench.answer(Err(CallFailure::Status(503)));
    bench.now = START + 599;
    assert!(is_good(&bench.verify(&token)));
    bench.now = START + 600;
    let down = bench.request(&token, Err(CallFailure::Refused));
    assert!(matches!(down, Verification::Unavailable(CallFailure::Refused)), "{down:?}");
    bench.now += 60;
    assert!(is_good(&bench.request(&token, Ok(&jwks()))), "and back");
}

/// An unknown result is not a wrong credential.
// Proves: B2
#[test]
fn an_issuer_that_was_never_reached_is_unavailable() {
    let mut bench = Bench::new(remote(json!({})));
    for n in 0..50 {
        let down = bench.request(&signed("EdDSA"), Err(CallFailure::TimedOut));
        assert!(matches!(down, Verification::Unavailable(CallFailure::TimedOut)), "{n}: {down:?}");
    }
    assert_eq!(bench.fetches, 1, "and is left alone for a moment");
    for body in [json!("upstream connect error"), json!({"keys": {}}), json!({"error": "x"})] {
        bench.now += 60;
        let down = bench.request(&signed("EdDSA"), Ok(&body));
        assert!(matches!(down, Verification::Unavailable(CallFailure::Unreadable)), "{down:?}");
    }
}

/// A body that is not a key set removes no key.
#[test]
fn an_error_page_is_not_a_key_set() {
    let mut bench = Bench::new(remote(json!({})));
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&jwks()))));
    bench.now += 300;
    bench.answer(Ok(&json!({"message": "be right back"})));
    assert!(is_good(&bench.verify(&signed("EdDSA"))));
    bench.answer(Ok(&json!({"keys": []})));
    assert!(!is_good(&bench.verify(&signed("EdDSA"))), "an empty set is the issuer's word");
}

/// The secret is in Vault, and never part of a public key set.
// Proves: A3
#[test]
fn a_shared_secret_proves_only_its_own() {
    let mut bench = Bench::new(shared());
    let reply = json!({"data": {"data": {"hmac": SECRET}}});
    assert!(is_good(&bench.request(&signed("HS256"), Ok(&reply))));
    let other = bench.verify(&signed("EdDSA"));
    assert!(matches!(other, Verification::Refused(AuthFailure::TokenAlgorithm, None)), "{other:?}");
    let mut short = Bench::new(shared());
    let reply = json!({"data": {"data": {"hmac": "hunter2"}}});
    let refused = short.request(&signed("HS256"), Ok(&reply));
    assert!(matches!(refused, Verification::Unavailable(CallFailure::Unreadable)), "{refused:?}");
    let shown = format!("{:?} {:?}", bench.keyring, bench.issuers);
    assert!(!shown.contains("shared secret of forty"), "{shown}");
}

#[test]
fn a_set_is_read_up_to_a_bound() {
    let jwk = jwks()["keys"][0].clone();
    let many = json!({"keys": vec![jwk; 100]});
    let mut bench = Bench::new(remote(json!({})));
    assert!(is_good(&bench.request(&signed("EdDSA"), Ok(&many))));
    let mut bench = Bench::new(remote(json!({})));
    let huge = json!({"keys": [], "pad": "x".repeat(300_000)});
    assert!(matches!(bench.request(&signed("EdDSA"), Ok(&huge)), Verification::Unavailable(_)));
}

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Good,
    Garbage(u8),
    Due,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..40_u64).prop_map(Op::Wait),
        Just(Op::Good),
        any::<u8>().prop_map(Op::Garbage),
        Just(Op::Due),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// For all tokens, with or without answers of the issuer: it is never asked more often than the retries and the
    /// refresh allow, invalid tokens are never accepted, and no valid token is refused while there are keys.
    // Proves: B18
    #[test]
    fn an_issuer_is_asked_only_so_often(ops in proptest::collection::vec((op(), any::<bool>()), 1..60)) {
        let mut bench = Bench::new(remote(json!({"max_lifetime_seconds": 86_400})));
        let good = token(&claims_with(json!({"exp": START + 80_000})));
        let mut had_keys = false;
        for (op, up) in ops {
            let outcome = if up { Ok(jwks()) } else { Err(CallFailure::TimedOut) };
            let before = bench.fetches;
            match op {
                Op::Wait(seconds) => bench.now += seconds,
                Op::Good => {
                    let seen = bench.request(&good, outcome.as_ref().map_err(|why| *why));
                    had_keys |= bench.fetches > before && up;
                    prop_assert_eq!(is_good(&seen), had_keys, "{:?}", seen);
                }
                Op::Garbage(n) => {
                    let token = headed(json!({"kid": format!("garbage-{n}")}));
                    let seen = bench.request(&token, outcome.as_ref().map_err(|why| *why));
                    had_keys |= bench.fetches > before && up;
                    prop_assert!(!is_good(&seen));
                }
                Op::Due => {
                    for _ in 0..bench.due() {
                        bench.answer(outcome.as_ref().map_err(|why| *why));
                    }
                }
            }
            prop_assert!(bench.fetches <= before + 1);
        }
        // Failures are repeated after 1, 2, 4 … seconds; the next fetch after a success is 30 or 270 seconds later.
        let span = Duration::from_secs(bench.now - START).as_secs();
        prop_assert!(u64::from(bench.fetches) <= 2 + span, "{} in {span} s", bench.fetches);
    }
}
