//! Tokens of a real authorization server (`oidc-provider`): client credentials, rotation, storms of unknown keys, outages.

use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::node::{node, said};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::tokens::{CLIENT, Idp, Mint};
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Answer, Case, World, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["tokens_idp":
        client_credentials_from_the_challenge_to_the_call,
        keys_rotate_without_a_refused_call,
        unknown_keys_do_not_hammer_the_issuer,
        issuer_that_is_down_stops_nobody_it_has_proven,
    ]
}

/// An organisation, its authorization server, and an Envoy that takes its tokens.
struct Setting {
    org: Organisation,
    idp: Idp,
    own: OwnEnvoy,
}

impl Setting {
    fn new(
        world: &World<'_>,
        workers: Workers,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Self {
        let org = Organisation::with_policy(world.stack(), change);
        let idp = Idp::start(node(world.workspace()), &world.dir(), &org.name);
        let own = world.envoy_named_by_itself(workers, |settings| {
            settings
                .idp(idp.address())
                .set("ISSUERS", idp.configuration())
                .set("SLOWDOWN_FAILURES", 100_000)
                .set("SCOPES_SUPPORTED", json!(["tools:use"]))
        });
        let org = org.through(&own.gateway);
        Self { org, idp, own }
    }

    fn resource(&self) -> String {
        format!("{}{DEMO}", self.own.gateway.url())
    }

    fn token(&self) -> String {
        self.idp.token(&self.resource(), "tools:use")
    }

    fn query(&self, token: &str) -> Answer {
        self.org.call(token, "query_users", json!({"limit": 2}))
    }
}

// Proves: A3
fn client_credentials_from_the_challenge_to_the_call(world: &World<'_>) {
    let setting = Setting::new(world, Workers::Two, |policy| {
        policy["connectors"]["demo"]["tools"] =
            json!({"query_users": {"scopes": ["tools:use", "users:read"]}});
    });
    let mut client = node(world.workspace()).script("oauth-client.mjs");
    client.args([&setting.resource(), CLIENT.0, CLIENT.1, "query_users", r#"{"limit": 2}"#]);
    let said = said("oauth-client.mjs", client);
    assert_eq!(said["tools"].as_array().map(Vec::len), Some(4), "{said}");
    let rows = said["call"]["structuredContent"]["rows"].as_array();
    assert_eq!(rows.map(Vec::len), Some(2), "{said}");
    // It was refused, got a token, learnt of a further scope, got another token, and called.
    let seen = || {
        let entries = setting.own.gateway.audit().entries();
        let rules = entries.iter().filter_map(|entry| entry["decision"]["rule"].as_str());
        let rules: Vec<String> = rules.map(str::to_owned).collect();
        let called = entries
            .iter()
            .any(|entry| entry["tool_name"] == "query_users" && entry["status"] == "success");
        called.then_some(rules)
    };
    let rules = ready::eventually("the call in the audit log", Duration::from_secs(10), seen);
    let rules = rules.unwrap();
    assert!(rules.contains(&"auth.no_credential".to_owned()), "{rules:?}");
    assert!(rules.contains(&"credential.scopes".to_owned()), "{rules:?}");
    let upstream = setting.own.gateway.recorded();
    assert!(upstream.iter().all(|request| !request.to_string().contains("eyJ")), "a token went up");
}

fn keys_rotate_without_a_refused_call(world: &World<'_>) {
    let mut setting = Setting::new(world, Workers::Two, |_| {});
    let old = setting.token();
    for _ in 0..4 {
        assert_eq!(setting.query(&old).status(), 200);
    }
    let asked = setting.idp.key_requests();
    assert!((1..=2).contains(&asked), "once for each worker that was asked, not {asked}");
    setting.idp.come_back(node(world.workspace()), 2);
    // The set that the workers have is younger than they may ask again for; both learn the new key then.
    let new = setting.token();
    let learnt = || {
        assert_eq!(setting.query(&old).status(), 200, "the old key is still published");
        let statuses: Vec<u16> = (0..8).map(|_| setting.query(&new).status()).collect();
        statuses.iter().all(|status| *status == 200).then_some(())
    };
    ready::eventually("the new key on both workers", Duration::from_secs(15), learnt).unwrap();
    assert!(setting.idp.key_requests() <= 4, "{}", setting.idp.key_requests());
}

// Proves: B18
fn unknown_keys_do_not_hammer_the_issuer(world: &World<'_>) {
    let setting = Setting::new(world, Workers::One, |_| {});
    let good = setting.token();
    assert_eq!(setting.query(&good).status(), 200);
    assert_eq!(setting.idp.key_requests(), 1);
    let mint = Mint::of(world.stack()).named(&setting.idp.issuer());
    let started = std::time::Instant::now();
    for n in 0..150 {
        let garbage = mint.forged(&format!("garbage-{n}")).token(&setting.org.name, json!({}));
        let answer = setting.query(&garbage);
        assert_eq!(answer.status(), 401, "{}", answer.text());
    }
    assert_eq!(setting.query(&good).status(), 200, "whoever is known is not disturbed");
    let most = 2 + usize::try_from(started.elapsed().as_secs() / 2).unwrap();
    assert!(setting.idp.key_requests() <= most, "{} > {most}", setting.idp.key_requests());
    setting
        .query(&mint.forged("one-more").token(&setting.org.name, json!({})))
        .assert_refused(401, -31_401);
}

// Proves: B2
fn issuer_that_is_down_stops_nobody_it_has_proven(world: &World<'_>) {
    let mut setting = Setting::new(world, Workers::One, |_| {});
    let (first, second) = (setting.token(), setting.idp.token(&setting.resource(), "users:read"));
    setting.idp.go_down();
    let unavailable = setting.query(&first);
    unavailable.assert_refused(503, -31_503);
    let rule = unavailable.audit()["decision"]["rule"].clone();
    assert!(rule.as_str().unwrap().starts_with("unavailable.issuer."), "{rule}");
    assert!(unavailable.header("retry-after").is_some());
    setting.idp.come_back(node(world.workspace()), 1);
    let back = || (setting.query(&first).status() == 200).then_some(());
    ready::eventually("the keys", Duration::from_secs(10), back).unwrap();
    setting.idp.go_down();
    // One that was seen before, and one that was not: the keys are here.
    assert_eq!(setting.query(&first).status(), 200);
    assert_eq!(setting.query(&second).status(), 200);
}
