//! Which windows, at what cost, and how clients learn of them.

use std::time::Duration;

use portcullis_redis_lua::WindowState;
use serde_json::{Value, json};

use super::*;
use crate::auth::{Restrictions, Scopes};
use crate::denial::LimitCause;
use crate::id::{KeyId, OrgId};
use crate::policy::{Policy, compile};
use crate::time::UnixTime;

fn policy(limits: Value, keys: Value) -> Policy {
    let mut document = json!({
        "version": 1,
        "organisations": ["acme"],
        "connectors": {"demo": {
            "path": "/demo/mcp",
            "price": 2,
            "tools": {"query": {"price": 10, "row_price": 3}, "free": {"price": 0}},
        }},
        "roles": {},
        "tiers": {"free": {"limits": {
            "calls": {"limit": 5, "window": "1s"},
            "credits": {"limit": 100, "window": "1h", "cost": "credits"},
        }}},
    });
    document["limits"] = limits;
    document["keys"] = keys;
    compile(&document).unwrap()
}

fn principal(key: &str, tier: &str) -> Principal {
    Principal {
        org: OrgId::new("acme").unwrap(),
        identity: IdentityKind::Key(KeyId::new(key).unwrap()).into(),
        name: "cursor".into(),
        role: PolicyName::new("analyst").unwrap(),
        tier: PolicyName::new(tier).unwrap(),
        scopes: Scopes::default(),
        agent: None,
        restrictions: Restrictions::default(),
    }
}

fn quotas(policy: &Policy, principal: &Principal, tool: &str) -> Vec<Quota> {
    let connector = PolicyName::new("demo").unwrap();
    Called { connector: &connector, method: CALL, tool, opens: false, bytes: 700 }
        .quotas(policy, principal)
}

fn shown(quotas: &[Quota]) -> Vec<String> {
    let show = |quota: &Quota| {
        let window = &quota.window;
        let alert = window.alert.as_ref().map_or(0, |alert| alert.from);
        format!(
            "{} {}/{} cost {} alert {alert}",
            window.key, window.limit, window.length_us, window.cost
        )
    };
    quotas.iter().map(show).collect()
}

// Proves: A8, A14, B11, C4
#[test]
fn every_dimension_has_its_own_count() {
    let one = |per: Value| json!({"limit": 9, "window": "1m", "per": per});
    let policy = policy(
        json!({
            "a": one(json!(["global"])),
            "b": one(json!(["org"])),
            "c": one(json!(["key"])),
            "d": one(json!(["role"])),
            "e": one(json!(["tier"])),
            "f": one(json!(["tool"])),
            "g": one(json!(["tool", "key"])),
            "h": one(json!(["connector"])),
            "i": one(json!(["tool", "global"])),
        }),
        json!({}),
    );
    let quotas = quotas(&policy, &principal("k1a2", "none"), "query");
    let keys: Vec<String> = quotas.iter().map(|quota| quota.window.key.to_string()).collect();
    let expected = [
        "portcullis:global:window:limits.a~9-60000000-0-calls:",
        "portcullis:{acme}:window:limits.b:org=acme",
        "portcullis:{acme}:window:limits.c:key=k1a2",
        "portcullis:{acme}:window:limits.d:role=analyst",
        "portcullis:{acme}:window:limits.e:tier=none",
        "portcullis:{acme}:window:limits.f:tool=query",
        "portcullis:{acme}:window:limits.g:key=k1a2,tool=query",
        "portcullis:{acme}:window:limits.h:connector=demo",
        "portcullis:global:window:limits.i~9-60000000-0-calls:tool=query",
    ];
    assert_eq!(keys, expected);
}

// Proves: X9
#[test]
fn a_call_costs_one_its_price_or_its_bytes() {
    let one = |cost: &str| json!({"limit": 9, "window": "1m", "per": ["org"], "cost": cost});
    let limits = json!({"a": one("calls"), "b": one("credits"), "c": one("bytes")});
    let policy = policy(limits, json!({}));
    let costs = |tool| {
        let quotas = quotas(&policy, &principal("k1a2", "none"), tool);
        quotas.iter().map(|quota| quota.window.cost).collect::<Vec<_>>()
    };
    assert_eq!(costs("query"), [1, 10, 700]);
    assert_eq!(costs("free"), [1, 0, 700]);
    assert_eq!(costs("other"), [1, 2, 700]);
}

// Proves: A11
#[test]
fn a_key_may_have_windows_in_the_place_of_its_tiers() {
    let keys = json!({"k1a2": {"limits": {
        "calls": {"limit": 1_000, "window": "1s"},
        "day": {"limit": 1_000_000, "window": "1d", "cost": "credits", "alert": 50},
    }}});
    let policy = policy(json!({}), keys);
    let credits = "portcullis:{acme}:window:tiers.free.credits:key=";
    assert_eq!(
        shown(&quotas(&policy, &principal("k1a2", "free"), "query")),
        [
            "portcullis:{acme}:window:keys.k1a2.calls:key=k1a2 1000/1000000 cost 1 alert 0".to_owned(),
            "portcullis:{acme}:window:keys.k1a2.day:key=k1a2 1000000/86400000000 cost 10 alert 500000".to_owned(),
            format!("{credits}k1a2 100/3600000000 cost 10 alert 80"),
        ]
    );
    assert_eq!(
        shown(&quotas(&policy, &principal("k9z9", "free"), "query")),
        [
            "portcullis:{acme}:window:tiers.free.calls:key=k9z9 5/1000000 cost 1 alert 0"
                .to_owned(),
            format!("{credits}k9z9 100/3600000000 cost 10 alert 80"),
        ]
    );
}

#[test]
fn only_large_windows_are_dated_coarsely_unless_asked() {
    let grain = |limit: u64, precision: Option<&str>| {
        let mut storm = json!({"limit": limit, "window": "1h", "per": ["org"]});
        if let Some(precision) = precision {
            storm["precision"] = precision.into();
        }
        let policy = policy(json!({"storm": storm}), json!({}));
        quotas(&policy, &principal("k1a2", "none"), "query")[0].window.grain_us
    };
    assert_eq!(grain(100_000, None), 0);
    assert_eq!(grain(100_001, None), 3_600_000);
    assert_eq!(grain(10, Some("1m")), 60_000_000);
    assert_eq!(grain(1_000_000, Some("1s")), 1_000_000);
}

// Proves: X11
#[test]
fn windows_are_told_as_structured_fields() {
    let limits = json!({
        "burst": {"limit": 9, "window": "500ms", "per": ["org"]},
        "upload": {"limit": 1_000_000, "window": "1m", "per": ["key"], "cost": "bytes"},
        "month": {"limit": 5_000, "window": "30d", "per": ["org"], "cost": "credits"},
    });
    let policy = policy(limits, json!({}));
    let quotas = quotas(&policy, &principal("k1a2", "free"), "query");
    let state = |remaining, reset_ms| WindowState {
        remaining,
        reset: Duration::from_millis(reset_ms),
        raised: false,
        redated: false,
    };
    let states =
        [state(0, 1), state(90, 3_600_000), state(8, 499), state(999_300, 0), state(4_990, 1_000)];
    let told = fields::RateLimitHeaders::of(&quotas, &states);
    assert_eq!(
        told.headers,
        [
            (
                "ratelimit-policy",
                "\"tiers.free.calls\";q=5;w=1, \"tiers.free.credits\";q=100;qu=\"credits\";w=3600, \
                 \"limits.burst\";q=9, \"limits.upload\";q=1000000;qu=\"content-bytes\";w=60, \
                 \"limits.month\";q=5000;qu=\"credits\";w=2592000"
                    .to_owned()
            ),
            (
                "ratelimit",
                "\"tiers.free.calls\";r=0;t=1, \"tiers.free.credits\";r=90;t=3600, \
                 \"limits.burst\";r=8;t=1, \"limits.upload\";r=999300;t=0, \"limits.month\";r=4990;t=1"
                    .to_owned()
            ),
            ("x-portcullis-credits-remaining", "90".to_owned()),
        ]
    );
    assert_eq!(told.violated, ["tiers.free.calls"]);
    assert_eq!(fields::RateLimitHeaders::of(&[], &[]), fields::RateLimitHeaders::default());
}

#[test]
fn a_problem_is_sent_only_to_whom_asks_for_it_by_name() {
    for (accept, expected) in [
        ("application/problem+json", true),
        ("application/json, text/event-stream, Application/Problem+JSON;q=0.5", true),
        ("application/problem+json;q=0", false),
        ("application/problem+json ; q=0.000", false),
        ("application/problem+json;q=0.001", true),
        ("*/*", false),
        ("application/json, text/event-stream", false),
        ("application/problem+jsonx", false),
        ("", false),
    ] {
        assert_eq!(fields::accepts_problem(&[accept.as_bytes()]), expected, "{accept}");
    }
    assert!(fields::accepts_problem(&[b"text/html", b"application/problem+json"]));
}

// Finding 12.6: a global window meant what the last caller's policy said of its name.
#[test]
fn another_definition_of_a_global_window_is_another_window() {
    let defined = |limit: Value| {
        let policy = policy(json!({"shared": limit}), json!({}));
        let key = quotas(&policy, &principal("k1a2", "free"), "query").pop().unwrap().window.key;
        key.to_string()
    };
    let one = defined(json!({"limit": 5, "window": "1m", "per": ["global"]}));
    assert_eq!(one, defined(json!({"window": "60s", "limit": 5, "per": ["global"]})));
    for other in [
        json!({"limit": 6, "window": "1m", "per": ["global"]}),
        json!({"limit": 5, "window": "1ms", "per": ["global"]}),
        json!({"limit": 5, "window": "1m", "per": ["global"], "cost": "bytes"}),
        json!({"limit": 5, "window": "1m", "per": ["global"], "precision": "1s"}),
    ] {
        assert_ne!(one, defined(other));
    }
}

// Finding 2.7: each made-up tool name had a key of its own in Redis.
#[test]
fn names_that_the_policy_does_not_name_share_a_fixed_number_of_windows() {
    let policy = policy(json!({"storm": {"limit": 5, "window": "1m", "per": ["tool"]}}), json!({}));
    let key = |tool: &str| {
        quotas(&policy, &principal("k1a2", "free"), tool).pop().unwrap().window.key.to_string()
    };
    assert_eq!(key("query"), "portcullis:{acme}:window:limits.storm:tool=query");
    let made_up: std::collections::BTreeSet<_> =
        (0..10_000).map(|number| key(&format!("made-up-{number}"))).collect();
    assert_eq!(made_up.len(), usize::try_from(UNNAMED).unwrap());
    assert_eq!(key("made-up-1"), key("made-up-1"));
}

// Findings 2.3 and 12.4: nothing but calls of tools drew from a window.
#[test]
fn a_limit_counts_the_methods_that_it_names() {
    let limits = json!({
        "reads": {"limit": 5, "window": "1m", "per": ["key"], "match": {"methods": ["resources/*", "GET"]}},
        "all": {"limit": 9, "window": "1m", "per": ["key"], "match": {"methods": ["*"]}},
        "calls": {"limit": 7, "window": "1m", "per": ["key"]},
    });
    let policy = policy(limits, json!({}));
    let connector = PolicyName::new("demo").unwrap();
    let drawn = |method: &str, tool: &str| {
        let called = Called { connector: &connector, method, tool, opens: false, bytes: 1 };
        let quotas = called.quotas(&policy, &principal("k1a2", "none"));
        quotas.into_iter().map(|quota| quota.name).collect::<Vec<_>>()
    };
    assert_eq!(drawn("resources/read", ""), ["limits.reads", "limits.all"]);
    assert_eq!(drawn("GET", ""), ["limits.reads", "limits.all"]);
    assert_eq!(drawn("initialize", ""), ["limits.all"]);
    assert_eq!(drawn(CALL, "query"), ["limits.all", "limits.calls"]);
    let called =
        Called { connector: &connector, method: "initialize", tool: "", opens: true, bytes: 1 };
    let opening = called.opening(&policy, &principal("k1a2", "none")).unwrap();
    assert_eq!(
        opening.window.key.to_string(),
        "portcullis:{acme}:window:sessions.per_caller:key=k1a2"
    );
    // Its refusal counts sessions, too.
    let cause = LimitCause::window(&opening, UnixTime::from_micros(0));
    assert_eq!(cause, LimitCause::Window("6000 sessions an hour".into()));
}
