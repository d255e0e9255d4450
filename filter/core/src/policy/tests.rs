//! The document form: its meaning, and the message of each fault.

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

fn golden(name: &str, expected: &str, faults: &PolicyErrors) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let file = format!("{}/src/policy/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(file, format!("{faults}\n")).unwrap();
    } else {
        assert_eq!(format!("{faults}\n"), expected);
    }
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
    golden("tests.golden.txt", include_str!("tests.golden.txt"), &faults);
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
                    "approval": "maybe",
                    "arguments": {
                        "a": {"pattern": "(", "minimum": "1"}, "b": {}, "c": {"max": 5},
                        "d": {"pattern": "x", "maximum": 5}, "e": {"min_length": 5, "max_length": 4},
                        "f": {"enum": []}, "g": {"enum": [[1]]}, "h": {"items": {"items": {"maximum": 1}}},
                        "i": 7, "j": {"required": false}
                    }
                }},
                "conditions": [{"when": "now() > 1", "enforcement": "trial", "message": ""}]
            },
            "allow_write": {"path": "/w"}
        },
        "roles": {"analyst": {
            "demo": {"tools": {"query_*": {}, "pay": {"max_rows": 5}, "x": []}, "deny": "x", "prompts": {"alow": []}, "resources": 7, "allow_write": "no"},
            "allow_write": 0, "conditions": {}
        }},
        "tiers": {},
        "enforcement": "off",
        "shadow": ["limits", "auth"]
    }))
    .unwrap_err();
    golden("tests.rules.golden.txt", include_str!("tests.rules.golden.txt"), &faults);
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
    assert_eq!(pay.rules.approval.as_ref().unwrap().expires, Duration::from_secs(900));
    assert_eq!(pay.rules.conditions[0].name, "connectors.demo.tools.pay.conditions[0]");
    assert_eq!(pay.rules.conditions[0].enforcement, Enforcement::Shadow);
    let cap = tools["query_users"].rules.max_records.as_ref().unwrap();
    assert_eq!((cap.max, cap.on_excess), (50, OnExcess::Clamp));
    let enforced = |check| policy.enforcement(check, Enforcement::Enforce);
    assert_eq!(enforced(Check::Caps), Enforcement::Shadow);
    assert_eq!(enforced(Check::Conditions), Enforcement::Enforce);
}

#[test]
fn a_stored_policy_is_what_was_pushed_with_its_schemas_unread() {
    let mut document = document();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    document["connectors"]["demo"]["tools"] = json!({"query_users": {
        "input_schema": schema, "output_schema": {"type": "object"}, "description": "d",
        "annotations": {"readOnlyHint": true},
    }});
    let version = version_of(&document).unwrap();
    let (pushed, canonical) = (compile(&document).unwrap(), json::canonical_exact(&document));
    // In any spelling; only the canonical form is read without parsing the schemas.
    for stored in [canonical.clone(), serde_json::to_string_pretty(&document).unwrap()] {
        let loaded = load(stored.as_bytes(), &version).unwrap();
        let demo = |policy: &Policy| policy.connectors[&PolicyName::new("demo").unwrap()].clone();
        let (tools, loaded_tools) = (demo(&pushed).tools, demo(&loaded).tools);
        assert_eq!(loaded_tools, tools);
        assert!(loaded_tools["query_users"].reads_only());
        let pin = loaded_tools["query_users"].pin.as_ref().unwrap();
        assert_eq!(pin.member("inputSchema"), Some(&schema));
        assert!(load(stored.as_bytes(), &version_of(&json!({})).unwrap()).is_none());
    }
    let of = |text: &str| version_of_canonical(text.as_bytes()).unwrap();
    for (from, to) in [
        (r#""input_schema":{"#, r#""input_schema":[{"#),
        (r#""version":1"#, r#""version":1,"version":1"#),
        (r#"{"connectors":{"#, r#"{"connectors":[],"x":{"#),
        (r#""query_users":{"#, r#""query_users":{"title":7,"#),
        (r#""description":"d","#, r#""description":"d","description":"d","#),
    ] {
        let faulty = canonical.replacen(from, to, 1);
        assert_ne!(faulty, canonical, "{from}");
        assert!(load(faulty.as_bytes(), &of(&faulty)).is_none(), "{to}");
    }
    // This document was not checked before it was stored: no call passes, see `Schemas::of`.
    let twice = canonical.replacen(r#""type":"integer""#, r#""type":"integer","type":"null""#, 1);
    let loaded = load(twice.as_bytes(), &of(&twice)).unwrap();
    let demo = &loaded.connectors[&PolicyName::new("demo").unwrap()];
    let pin = demo.tools["query_users"].pin.as_ref().unwrap();
    assert_eq!(pin.member("inputSchema"), Some(&Value::Null));
}
