//! The document form: what it says, and what each fault says.

use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "version": 1,
        "organisations": ["acme"],
        "connectors": {
            "demo": {
                "path": "/demo/mcp",
                "credential": {
                    "secret": "vault://secret/connectors/demo#api_key",
                    "header": "authorization",
                    "template": "Bearer {secret}"
                }
            },
            "python": {"path": "/python/mcp"}
        },
        "roles": {"analyst": {"demo": {"allow": ["query_*"], "show": ["create_note"]}}},
        "tiers": {"free": {"limits": {"calls": {"limit": 5, "window": "1s"}}}},
        "limits": {"storm": {
            "limit": 10, "window": "1m", "per": ["tool", "key", "tool"],
            "match": {"tools": ["create_note"]}
        }}
    })
}

// Proves: C3, A11
#[test]
fn a_policy_compiles_to_what_it_says() {
    let policy = compile(&document()).unwrap();
    let (name, connector) = policy.connector_at("/demo/mcp").unwrap();
    assert!(connector.credential.is_some());
    assert!(policy.connector_at("/demo/mcp/").is_none());
    let grant = policy.access(&PolicyName::new("analyst").unwrap(), name).unwrap();
    assert!(grant.allow.matches("query_users") && !grant.allow.matches("create_note"));
    assert!(grant.show.matches("create_note"));
    assert_eq!(policy.limits[0].per, [Dimension::Key, Dimension::Tool]);
    assert_eq!(policy.limits[0].window, Duration::from_secs(60));
    assert_eq!(policy.tiers[&PolicyName::new("free").unwrap()][0].name, "tiers.free.calls");
}

#[test]
fn a_version_is_the_content_not_the_spelling() {
    let version = version_of(&document()).unwrap();
    let reordered: Value = serde_json::from_str(&document().to_string()).unwrap();
    assert_eq!(version_of(&reordered).unwrap(), version);
    let mut other = document();
    other["organisations"][0] = json!("other");
    assert_ne!(version_of(&other).unwrap(), version);
}

#[test]
fn every_fault_is_told_at_once_with_its_path() {
    let faults = compile(&json!({
        "version": 2,
        "organisations": ["Acme"],
        "connectors": {
            "demo": {"path": "demo", "price": -1, "tools": {"query": {"row_price": 0.5}}},
            "twin": {"path": "/same"}, "twin2": {"path": "/same"},
            "bad name": {"path": "/x"},
            "keyed": {"path": "/k/../mcp", "credential": {
                "secret": "secret/demo", "header": ":path", "template": "Bearer"}}
        },
        "roles": {"analyst": {"dmeo": {"alow": ["x"]}}},
        "tiers": {"free": {"limits": {"calls": {"limit": 0, "window": "1 s"}}}},
        "limits": {
            "storm": {"limit": 1, "window": "1s", "per": ["user"], "match": {"tool": []}},
            "fast": {"limit": 1_000_000_000_000_u64, "window": "1s", "per": ["org"]},
            "fine": {"limit": 5, "window": "1m", "per": ["org"], "precision": "2m"},
            "leased": {"limit": 5, "window": "1m", "per": ["org"], "lease": 6},
            "odd": {"limit": 5, "window": "1m", "per": ["global", "key"], "cost": "money", "alert": 101}
        },
        "keys": {"k1": {"limits": {}}, "k1a2": {"limit": 5}},
        "color": "red"
    }))
    .unwrap_err();
    let golden = include_str!("tests.golden.txt");
    assert_eq!(format!("{faults}\n"), golden);
}

// Proves: C9
#[test]
fn every_fault_of_a_rule_is_told_with_its_place() {
    let faults = compile(&json!({
        "version": 1,
        "organisations": ["acme"],
        "connectors": {
            "demo": {
                "path": "/demo/mcp",
                "tools": {"pay": {
                    "conditions": [
                        {"when": "arguments.amount <= "},
                        {"when": "argument.amount < 1", "tools": ["x"]},
                        {"message": "no"}
                    ],
                    "max_records": {"argument": "", "max": 0, "on_excess": "drop"},
                    "approval": "maybe"
                }},
                "conditions": [{"when": "now() > 1", "enforcement": "trial", "message": ""}]
            },
            "allow_write": {"path": "/w"}
        },
        "roles": {"analyst": {
            "demo": {"deny": "x", "prompts": {"alow": []}, "resources": 7, "allow_write": "no"},
            "allow_write": 0, "conditions": {}
        }},
        "tiers": {},
        "enforcement": "off",
        "shadow": ["limits", "auth"]
    }))
    .unwrap_err();
    let golden = include_str!("tests.rules.golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/tests.rules.golden.txt");
        std::fs::write(file, format!("{faults}\n")).unwrap();
    } else {
        assert_eq!(format!("{faults}\n"), golden);
    }
}

#[test]
fn rules_compile_to_what_they_say() {
    let mut document = document();
    document["connectors"]["demo"]["tools"] = json!({
        "pay": {"approval": "required", "conditions": [{"when": "true", "enforcement": "shadow"}]},
        "query_users": {"read_only": true, "max_records": {"argument": "limit", "max": 50}},
    });
    document["roles"]["analyst"]["demo"]["prompts"] = json!(["weekly_*"]);
    document["shadow"] = json!(["caps"]);
    let policy = compile(&document).unwrap();
    let tools = &policy.connectors[&PolicyName::new("demo").unwrap()].tools;
    let pay = &tools["pay"];
    assert_eq!(pay.approval.unwrap().expires, Duration::from_secs(900));
    assert_eq!(pay.conditions[0].name, "connectors.demo.tools.pay.conditions[0]");
    assert_eq!(pay.conditions[0].enforcement, Enforcement::Shadow);
    let cap = tools["query_users"].max_records.as_ref().unwrap();
    assert_eq!((cap.max, cap.on_excess), (50, OnExcess::Clamp));
    let enforced = |check| policy.enforcement(check, Enforcement::Enforce);
    assert_eq!(enforced(Check::Caps), Enforcement::Shadow);
    assert_eq!(enforced(Check::Conditions), Enforcement::Enforce);
}
