//! Hand-written documents: the policy, the plugin configuration, key records.
//!
//! Owns the mutation of valid documents: almost valid ones break readers.

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::config::Config;
use portcullis_core::decode::Faults;
use portcullis_core::policy::{compile, version_of};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::{cases, fixtures, json};

/// One change: the position of a value, and its replacement; `None` removes it.
type Edit = (Index, Option<Value>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let near = prop_oneof![
        Just(json!(0)),
        Just(json!(1.5)),
        Just(json!("1s")),
        Just(json!("")),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"limit": 1, "window": "1d"})),
        json::value(),
    ];
    vec((any::<Index>(), proptest::option::of(near)), 0..4)
}

/// The JSON pointers of all values in `value`, the whole included.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            pointers(value, &format!("{at}/{name}"), out);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
            pointers(value, &format!("{at}/{index}"), out);
        }),
        _ => {}
    }
}

fn edited(mut document: Value, edits: Vec<Edit>) -> Value {
    for (at, replacement) in edits {
        let mut all = Vec::new();
        pointers(&document, "", &mut all);
        let pointer = &all[at.index(all.len())];
        match (replacement, pointer.rsplit_once('/')) {
            (Some(value), _) => *document.pointer_mut(pointer).unwrap() = value,
            (None, Some((parent, name))) => match document.pointer_mut(parent).unwrap() {
                Value::Object(members) => {
                    members.shift_remove(&name.replace("~1", "/").replace("~0", "~"));
                }
                Value::Array(items) => drop(items.remove(name.parse().unwrap())),
                _ => {}
            },
            (None, None) => document = Value::Null,
        }
    }
    document
}

fn is_told(faults: &Faults) -> bool {
    !faults.is_empty()
        && faults.iter().all(|fault| !fault.found.is_empty() && !fault.expected.is_empty())
}

fn configuration() -> Value {
    json!({
        "redis": {"cluster": "r", "timeout_ms": 250},
        "vault": {"cluster": "v", "timeout_ms": 2_000, "cache_seconds": 60},
        "audit": {"input_max_bytes": 4_096}, "request": {"max_body_bytes": 1_048_576}
    })
}

/// A record with every field.
fn record() -> Value {
    let mut record = fixtures::record("analyst", "1g");
    let more = json!({
        "connectors": ["demo"], "tools": ["query_*", "get_user"], "read_only": true,
        "sources": ["10.0.0.0/8", "::1"], "certificate": "c0".repeat(32),
        "not_before": 1, "expires_at": 9_999_999_999_u64,
        "rotated": {"at": 5, "by": "ops", "reason": "monthly", "overlap_until": 9},
        "revoked": {"at": 7, "by": "ops", "reason": "leak"},
    });
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    assert!(KeyRecord::parse(record.to_string().as_bytes()).is_ok());
    record
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: B2
    #[test]
    fn a_policy_compiles_or_its_faults_are_told(
        name in proptest::sample::select(fixtures::POLICIES.to_vec()),
        edits in edits(),
    ) {
        let document = edited(fixtures::document(name), edits);
        match compile(&document) {
            Err(faults) => prop_assert!(is_told(&faults), "{document}: {faults:?}"),
            Ok(policy) => {
                let paths = policy.connectors.values().map(|connector| &connector.path);
                let distinct: std::collections::BTreeSet<_> = paths.collect();
                prop_assert_eq!(distinct.len(), policy.connectors.len());
                let granted = policy.roles.values().flat_map(|role| role.connectors.keys());
                prop_assert!(granted.into_iter().all(|name| policy.connectors.contains_key(name)));
                // The version is the same for a reader of the written document.
                let again = serde_json::from_str(&document.to_string()).unwrap();
                prop_assert_eq!(version_of(&again), version_of(&document));
                prop_assert!(version_of(&document).is_some());
            }
        }
    }

    // Proves: B2
    #[test]
    fn any_value_is_a_document_or_told_what_is_wrong(value in json::value()) {
        prop_assert!(is_told(&compile(&value).unwrap_err()));
        prop_assert!(is_told(&Config::parse(&value).unwrap_err()));
        prop_assert!(KeyRecord::parse(value.to_string().as_bytes()).is_err());
    }

    #[test]
    fn a_configuration_is_within_bounds_or_its_faults_are_told(edits in edits()) {
        let document = edited(configuration(), edits);
        match Config::parse(&document) {
            Err(faults) => prop_assert!(is_told(&faults), "{document}: {faults:?}"),
            Ok(config) => {
                let minute = 1..=60_000;
                prop_assert!((1_024..=16 << 20).contains(&config.max_body_bytes));
                prop_assert!(config.redis.is_some() || config.policy.is_some());
                if let Some(redis) = config.redis {
                    prop_assert!(minute.contains(&redis.timeout.as_millis()));
                    prop_assert!(!redis.cluster.is_empty());
                }
                if let Some(vault) = config.vault {
                    prop_assert!(minute.contains(&vault.timeout.as_millis()));
                    prop_assert!(!vault.cluster.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_record_reads_back_or_is_refused(edits in edits()) {
        let document = edited(record(), edits);
        if let Ok(record) = KeyRecord::parse(document.to_string().as_bytes()) {
            let written = serde_json::to_vec(&record).unwrap();
            prop_assert_eq!(KeyRecord::parse(&written).unwrap(), record);
        }
    }
}
