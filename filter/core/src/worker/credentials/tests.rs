//! What a worker keeps, renews and gives back.

use serde_json::json;

use super::*;
use crate::audit::Chain;
use crate::config::Config;
use std::rc::Rc;

use crate::id::PolicyName;
use crate::secret::Secret;
use crate::token_exchange::{Exchange, GrantType, SubjectTokenType, TokenKind, TokenRef};
use crate::vault::SecretRef;

fn worker() -> Worker {
    let config = json!({"redis": {"cluster": "r"}, "vault": {"cluster": "v"}});
    Worker::new(Config::parse(&config).unwrap(), Chain::new("c".into()))
}

fn org(name: &str) -> OrgId {
    OrgId::new(name).unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_micros(seconds * 1_000_000)
}

// Proves: X21, C2
#[test]
fn what_another_vault_or_authorization_server_gave_is_not_used_on() {
    let config = |cluster: &str, client: &str| {
        let secret = "vault://gateway/idp#client_secret";
        let server = json!({"cluster": "idp", "path": "/token", "client_id": client, "client_secret": secret});
        Config::parse(&json!({
            "redis": {"cluster": "r"}, "vault": {"cluster": cluster}, "authorization_servers": {"corp": server},
        }))
        .unwrap()
    };
    let exchange = Exchange {
        server: PolicyName::new("corp").unwrap(),
        grant: GrantType::ClientCredentials,
        audience: None,
        resource: None,
        scopes: Vec::new(),
        subject_token_type: SubjectTokenType::default(),
        redeem: None,
    };
    let connector = PolicyName::new("crm").unwrap();
    let token = TokenRef {
        exchange,
        kind: TokenKind::Access,
        org: org("acme"),
        connector,
        subject: None,
        owner: None,
    };
    let token = CredentialRef::Token(Rc::new(token));
    let secret = SecretRef::parse("vault://secret/crm#key").unwrap();
    let secret = CredentialRef::Secret(Rc::new(secret));
    for (next, left) in [
        (config("v", "gateway"), [true, true]),
        (config("v", "another"), [true, false]),
        (config("w", "gateway"), [false, false]),
    ] {
        let mut worker = Worker::new(config("v", "gateway"), Chain::new("c".into()));
        let now = UnixTime::from_micros(0);
        for reference in [&secret, &token] {
            let values = vec![Secret::new("s3cret".into())];
            let cached = CachedSecret::new(values, now, Duration::from_secs(60));
            worker.cache_secret(reference.clone(), cached, now);
        }
        worker.reconfigure(next);
        let found = [&secret, &token].map(|it| worker.cached_secret(it).is_some());
        assert_eq!(found, left);
    }
}

// Proves: C2, X12
#[test]
fn a_refused_credential_is_read_once_and_goes_to_nobody_meanwhile() {
    let mut worker = worker();
    let secret = SecretRef::parse("vault://secret/crm#key").unwrap();
    let secret = CredentialRef::Secret(Rc::new(secret));
    let put = |worker: &mut Worker, now| {
        let values = vec![Secret::new("s3cret".into())];
        let cached = CachedSecret::new(values, now, Duration::from_secs(60));
        worker.cache_secret(secret.clone(), cached, now);
    };
    let live = |worker: &mut Worker, now| {
        worker.cached_secret(&secret).is_some_and(|cached| cached.is_live(now))
    };
    assert_eq!(worker.credential_refused(&secret, at(0), at(0)), Refusal::TooSoon);
    put(&mut worker, at(0));
    assert_eq!(worker.credential_refused(&secret, at(0), at(0)), Refusal::TooSoon);
    assert!(live(&mut worker, at(2)));
    assert_eq!(worker.credential_refused(&secret, at(0), at(2)), Refusal::ReadAgain);
    assert!(!live(&mut worker, at(2)));
    // No word of another one.
    worker.keep_refused(&secret);
    assert!(live(&mut worker, at(2)));
    put(&mut worker, at(2));
    assert_eq!(worker.credential_refused(&secret, at(0), at(4)), Refusal::Replaced);
    assert!(live(&mut worker, at(4)));
}

/// The user of a database, made at `now` for `seconds`.
fn make(worker: &mut Worker, number: u32, seconds: u64, now: UnixTime) -> CredentialRef {
    let reference = SecretRef::parse(&format!("vault://database/creds/{number}#password"));
    let reference = CredentialRef::Secret(Rc::new(reference.unwrap()));
    assert_eq!(worker.secret_read(&reference, Ok(&made(number, seconds)), now), Ok(()));
    reference
}

fn made(number: u32, seconds: u64) -> Vec<u8> {
    let id = format!("database/creds/{number}/x");
    let reply = json!({
        "lease_id": id, "lease_duration": seconds, "renewable": true,
        "data": {"password": format!("password-of-{number}")},
    });
    reply.to_string().into_bytes()
}

fn is_live(worker: &mut Worker, reference: &CredentialRef, now: UnixTime) -> bool {
    worker.cached_secret(reference).is_some_and(|cached| cached.is_live(now))
}

fn note_use(worker: &mut Worker, reference: &CredentialRef) {
    worker.cached_secret(reference).unwrap().note_use();
}

// Proves: X12
#[test]
fn a_user_in_use_is_renewed_and_replaced_before_any_call_waits() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 100, at(0));
    let (mut renewals, mut replacements, mut left) = (0, 0, 300);
    for second in 0..1_000 {
        assert!(is_live(&mut worker, &secret, at(second)), "{second}");
        note_use(&mut worker, &secret);
        while let Some(call) = worker.due_lease(at(second)) {
            // Three hundred seconds in all: the last renewal gives less.
            let reply = match &call {
                LeaseCall::Renew(..) => {
                    renewals += 1;
                    let more = left.min(100);
                    left -= more;
                    made(1, more.max(1))
                }
                LeaseCall::Replace(_) => {
                    (replacements, left) = (replacements + 1, 300);
                    made(1 + replacements, 100)
                }
                LeaseCall::Revoke(_) => panic!("it is in use"),
            };
            let outcome = worker.lease_answered(call, Ok(&reply), at(second));
            assert_ne!(outcome, LeaseOutcome::Failed);
        }
    }
    assert!((8..=20).contains(&renewals) && replacements >= 2, "{renewals} {replacements}");
}

#[test]
fn a_vault_without_a_word_or_with_a_no_costs_no_user_before_its_end() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 100, at(0));
    let mut asked = 0;
    for second in 0..100 {
        note_use(&mut worker, &secret);
        while let Some(call) = worker.due_lease(at(second)) {
            asked += 1;
            worker.lease_answered(call, Err(CallFailure::TimedOut), at(second));
        }
        let cached = worker.cached_secret(&secret).unwrap();
        assert!(cached.is_usable(at(second), None), "{second}");
    }
    assert!((3..=12).contains(&asked), "{asked}");
    assert_eq!(worker.due_lease(at(101)), None, "it has ended");
    // A Vault that renews nothing makes another one; the operator reads why.
    let secret = make(&mut worker, 2, 100, at(200));
    note_use(&mut worker, &secret);
    let Some(call @ LeaseCall::Renew(..)) = worker.due_lease(at(261)) else { panic!() };
    worker.lease_answered(call, Err(CallFailure::Status(403)), at(261));
    let Some(LeaseCall::Replace(_)) = worker.due_lease(at(261)) else { panic!() };
    assert!(worker.take_alarms()[0].contains("renew leases (403)"));
}

// Proves: X12
#[test]
fn what_nobody_wants_any_more_is_revoked_and_what_is_replaced_in_time_is_not() {
    let mut worker = worker();
    let revoked = |worker: &mut Worker, now| {
        let mut ids = Vec::new();
        while let Some(call) = worker.due_lease(now) {
            let LeaseCall::Revoke(revocation) = &call else { panic!("{call:?}") };
            ids.push(revocation.id.clone());
            worker.lease_answered(call, Ok(b""), now);
        }
        ids
    };
    let id = |number: u32| LeaseId::new(&format!("database/creds/{number}/x")).unwrap();
    // No call had it: it ends by itself.
    make(&mut worker, 1, 100, at(0));
    assert_eq!(revoked(&mut worker, at(66)), []);
    assert_eq!(revoked(&mut worker, at(110)), []);
    // Another one in its place, or its server refused it: others may have it still.
    let secret = make(&mut worker, 2, 1_000, at(100));
    let put = |worker: &mut Worker, number, now| {
        assert_eq!(worker.secret_read(&secret, Ok(&made(number, 1_000)), now), Ok(()));
    };
    put(&mut worker, 3, at(110));
    assert_eq!(revoked(&mut worker, at(200)), []);
    assert_eq!(worker.credential_refused(&secret, at(110), at(210)), Refusal::ReadAgain);
    put(&mut worker, 4, at(210));
    assert_eq!(revoked(&mut worker, at(220)), []);
    // No policy names it: a call of some organisation brought another policy.
    worker.credentials.policy_moved(&org("acme"));
    assert_eq!(revoked(&mut worker, at(230)), []);
    assert_eq!(revoked(&mut worker, at(236)), [id(4)]);
    // The worker ends.
    make(&mut worker, 5, 1_000, at(300));
    assert_eq!(worker.last_leases(at(300)), [id(5)]);
    // Nothing of a Vault that is another one now.
    worker.reconfigure(
        Config::parse(&json!({"redis": {"cluster": "r"}, "vault": {"cluster": "w"}})).unwrap(),
    );
    assert_eq!(worker.last_leases(at(300)), []);
}

// Proves: X12, A8
#[test]
fn who_is_revoked_while_another_user_is_made_gets_none() {
    let mut worker = worker();
    let (secret, id) = (make(&mut worker, 1, 100, at(0)), LeaseId::new("database/creds/9/x"));
    note_use(&mut worker, &secret);
    let Some(call) = worker.due_lease(at(60)) else { panic!() };
    worker.lease_answered(call, Err(CallFailure::Status(400)), at(60));
    let Some(call @ LeaseCall::Replace(_)) = worker.due_lease(at(60)) else { panic!() };
    let _ = worker.credentials.take(&secret);
    worker.lease_answered(call, Ok(&made(9, 100)), at(61));
    assert!(worker.cached_secret(&secret).is_none());
    let Some(LeaseCall::Revoke(revocation)) = worker.due_lease(at(61)) else { panic!() };
    assert_eq!(Some(revocation.id), id);
}

#[test]
fn a_secret_that_a_policy_names_is_kept_when_policies_move() {
    let mut worker = worker();
    let document = |secret: &str| {
        let credential =
            json!({"secret": secret, "header": "authorization", "template": "Bearer {secret}"});
        json!({
            "version": 1, "organisations": ["acme"], "roles": {}, "tiers": {},
            "connectors": {"crm": {"path": "/crm/mcp", "credential": credential}},
        })
    };
    for (secret, kept, second) in [
        ("vault://database/creds/1#password", true, 1),
        ("vault://database/creds/2#password", false, 6),
    ] {
        let reference = make(&mut worker, 1, 100, at(0));
        let bytes = serde_json::to_vec(&document(secret)).unwrap();
        let version = crate::policy::version_of(&document(secret)).unwrap();
        worker.policy_read(&version, Some(&bytes), at(0));
        assert!(worker.policy(&version).is_some(), "{secret}");
        worker.set_good(&org("acme"), &version);
        assert_eq!(worker.due_lease(at(second)), None);
        assert_eq!(is_live(&mut worker, &reference, at(second)), kept, "{secret}");
    }
}

// A key over its window had Vault make a user for each of its calls, which was not kept.
#[test]
fn a_user_that_nobody_waits_for_any_more_is_kept_for_the_next_call() {
    let mut worker = worker();
    let secret = SecretRef::parse("vault://database/creds/1#password").unwrap();
    let secret = CredentialRef::Secret(Rc::new(secret));
    let reply = Reply::vault(made(1, 100));
    worker.take_answer(&secret, Some(&reply), (at(0), at(2)));
    assert!(is_live(&mut worker, &secret, at(2)));
    // Its time counts from the question on, also for one who comes late.
    assert_eq!(worker.secret_read(&secret, Ok(&made(1, 100)), at(9)), Ok(()));
    let cached = worker.cached_secret(&secret).unwrap();
    assert!(cached.is_usable(at(99), None) && !cached.is_usable(at(100), None));
}

// An organisation that used up its share of questions had Vault count as dead for all.
#[test]
fn a_question_that_was_not_asked_is_no_failure_of_vault() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 100, at(0));
    for _ in 0..10 {
        let _ = worker.secret_read(&secret, Err(CallFailure::NotAsked), at(1));
    }
    assert!(worker.vault.lets_pass(at(1), &secret.breaker(), Duration::ZERO));
}

// A refusal by the server of what one of those who shared the read got is none of a later one.
#[test]
fn who_waited_for_the_same_read_does_not_make_it_a_later_one() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 100, at(0));
    let later = UnixTime::from_micros(500_000);
    assert_eq!(worker.secret_read(&secret, Ok(&made(1, 100)), later), Ok(()));
    assert_eq!(worker.cached_secret(&secret).unwrap().read_at(), at(0));
    assert_eq!(worker.credential_refused(&secret, at(0), at(2)), Refusal::ReadAgain);
    assert_eq!(worker.secret_read(&secret, Ok(&made(1, 100)), at(2)), Ok(()));
    assert!(is_live(&mut worker, &secret, at(2)), "the same, and the server has to take it");
}

// Proves: X12
#[test]
fn credentials_take_a_bounded_part_of_the_memory() {
    let mut worker = worker();
    for number in 0..3_000 {
        let reference = SecretRef::parse(&format!("vault://secret/{number}#key")).unwrap();
        let reference = CredentialRef::Secret(Rc::new(reference));
        let values = vec![Secret::new("v".repeat(8_192))];
        let cached = CachedSecret::new(values, at(0), Duration::from_secs(60));
        worker.cache_secret(reference, cached, at(0));
    }
    let (cached, weight) = (&worker.credentials.cached, worker.credentials.weight);
    assert_eq!(cached.iter().map(|(_, it)| it.weight()).sum::<usize>(), weight);
    assert_eq!(weight, MAX_SECRET_WEIGHT);
}

// Proves: X12, B2
#[test]
fn leases_wait_for_a_vault_that_gives_no_word_and_nothing_else_does() {
    let mut worker = worker();
    let secrets: Vec<_> = (1..=4).map(|number| make(&mut worker, number, 3_600, at(0))).collect();
    for secret in &secrets[..3] {
        worker.credentials.give_back(secret, at(0));
    }
    // Five minutes without a word.
    let mut asked = 0;
    for second in 5..305 {
        while let Some(call) = worker.due_lease(at(second)) {
            asked += 1;
            worker.lease_answered(call, Err(CallFailure::TimedOut), at(second));
        }
    }
    assert!((30..=190).contains(&asked), "{asked}");
    // Of reads of these secrets, nothing is known.
    let reads = secrets[0].breaker();
    assert!(worker.vault.lets_pass(at(305), &reads, Duration::ZERO));
    // Nor is Vault asked about leases where reads get no word.
    (0..4).for_each(|_| worker.vault.failed(at(400), &reads));
    let now = UnixTime::from_micros(400_000_001);
    let mut revoked = Vec::new();
    while let Some(call) = worker.due_lease(now) {
        let LeaseCall::Revoke(revocation) = &call else { panic!("{call:?}") };
        revoked.push(revocation.breaker.to_string());
        worker.lease_answered(call, Ok(b""), now);
    }
    assert_eq!(revoked.len(), 2, "{revoked:?}");
    assert!(!revoked.contains(&reads));
    let Some(call @ LeaseCall::Revoke(_)) = worker.due_lease(at(410)) else { panic!() };
    assert_eq!(worker.lease_answered(call, Ok(b""), at(410)), LeaseOutcome::Revoked);
    assert_eq!(worker.due_lease(at(420)), None);
}

// An engine that cannot drop a user answers 500 on and on.
#[test]
fn a_lease_that_vault_cannot_revoke_is_left_to_end() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 3_600, at(0));
    worker.credentials.give_back(&secret, at(0));
    let mut asked = 0;
    for second in 5..3_000 {
        while let Some(call) = worker.due_lease(at(second)) {
            asked += 1;
            worker.lease_answered(call, Err(CallFailure::Status(500)), at(second));
        }
    }
    assert_eq!(asked, 5);
    assert!(worker.vault.lets_pass(at(3_000), &secret.breaker(), Duration::ZERO));
}

// Each change of a policy had all policies searched.
#[test]
fn policies_are_compared_with_leases_every_five_seconds_at_most() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 3_600, at(0));
    worker.credentials.policy_moved(&org("acme"));
    assert_eq!(worker.due_lease(at(1)), None);
    assert!(worker.cached_secret(&secret).is_none());
    let secret = make(&mut worker, 2, 3_600, at(2));
    worker.credentials.policy_moved(&org("acme"));
    for (second, kept) in [(2, true), (5, true), (6, false)] {
        let _ = worker.credentials.revocations.take();
        let _ = worker.due_lease(at(second));
        assert_eq!(worker.cached_secret(&secret).is_some(), kept, "{second}");
    }
}

// Five users that a database could not drop kept the users of all from being renewed.
// Proves: X12
#[test]
fn a_lease_that_vault_cannot_revoke_keeps_no_other_from_being_renewed() {
    for (why, renewed) in [(CallFailure::Status(500), true), (CallFailure::Status(503), false)] {
        let mut worker = worker();
        let secret = make(&mut worker, 1, 100, at(0));
        for number in 0..10 {
            let id = LeaseId::new(&format!("database/creds/1/{number}")).unwrap();
            let gone = revocation(&id, &secret, at(100));
            worker.credentials.revocations.add_at_once(gone);
        }
        for _ in 0..10 {
            let Some(call @ LeaseCall::Revoke(_)) = worker.due_lease(at(49)) else { break };
            let outcome = worker.lease_answered(call, Err(why), at(49));
            assert_eq!(outcome, LeaseOutcome::Failed);
        }
        // Of a Vault that is sealed, which says 503, nothing is asked.
        let is_open = worker.vault.is_open(at(49), &leases_of(&secret.breaker()));
        assert_eq!(is_open, !renewed, "{why}");
        note_use(&mut worker, &secret);
        let asked = worker.due_lease(at(60));
        assert!(matches!(asked, Some(LeaseCall::Renew(..))) || !renewed, "{why}: {asked:?}");
    }
}

// Proves: X12
#[test]
fn the_operator_reads_of_leases_that_found_no_room_once_a_minute_and_each_is_counted() {
    let mut worker = worker();
    let secret = make(&mut worker, 1, 3_600, at(0));
    let drop_some = |worker: &mut Worker, now| {
        for number in 0..2_000 {
            let id = LeaseId::new(&format!("database/creds/1/{number}")).unwrap();
            worker.credentials.revocations.add(revocation(&id, &secret, at(3_600)), now);
        }
        assert_eq!(worker.due_lease(now), None);
        worker.take_alarms()
    };
    let [first] = &drop_some(&mut worker, at(0))[..] else { panic!() };
    assert!(first.starts_with("1488 leases") && !first.contains("  "), "{first}");
    assert_eq!([worker.take_dropped_leases(), worker.take_dropped_leases()], [1_488, 0]);
    let _ = worker.credentials.revocations.take();
    assert!(drop_some(&mut worker, at(59)).is_empty());
    assert_eq!(worker.take_dropped_leases(), 1_488);
    let _ = worker.credentials.revocations.take();
    let [second] = &drop_some(&mut worker, at(60))[..] else { panic!() };
    assert!(second.starts_with("2976 leases"), "{second}");
}

// Proves: X12
#[test]
fn an_organisation_reads_once_how_many_of_its_leases_are_not_revoked() {
    let mut worker = worker();
    for number in 0..600 {
        let id = LeaseId::new(&format!("database/creds/acme/{number}")).unwrap();
        let revocation = Revocation::new(id, (OrgId::new("acme"), "crm"), at(3_600));
        worker.credentials.revocations.add_at_once(revocation);
    }
    assert!(worker.due_lease(at(0)).is_some());
    assert_eq!(worker.take_dropped_leases_of(&org("globex")), None);
    assert_eq!(worker.take_dropped_leases_of(&org("acme")), Some(88));
    assert_eq!(worker.take_dropped_leases_of(&org("acme")), None);
}
