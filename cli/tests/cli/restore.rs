//! `portcullis redis accept-restore`: said once for each organisation, and noted.

use portcullis_redis_lua::{Generation, Key};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, issue};

fn generation(operator: &Operator, org: &str) -> Generation {
    let number: Option<u64> =
        operator.redis().hget(Key::policy(org).as_str(), "generation").unwrap();
    Generation::new(number.unwrap_or_default())
}

/// Finding 9.5.
#[test]
fn a_restore_that_is_accepted_exceeds_all_that_gateways_saw_and_is_in_the_admin_chain() {
    let operator = Operator::with_policy();
    assert_eq!(generation(&operator, "acme"), Generation::new(1), "the push");
    let id = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    operator.says(&["key", "revoke", &id, "--reason", "left"]).json();
    let before = generation(&operator, "acme");
    assert_eq!(before, Generation::new(3));

    let accept = ["redis", "accept-restore", "--org", "acme", "--reason", "backup of Monday"];
    assert_eq!(operator.says(&accept).json(), json!({"accepted": ["acme"]}));
    let after = generation(&operator, "acme");
    assert!(after.is_restored_since(before), "{after}");
    let last: String = operator.redis().lindex(Key::admin("acme").as_str(), -1).unwrap();
    let entry: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&entry["action"], &entry["reason"]),
        (&json!("restore.accept"), &json!("backup of Monday"))
    );
    operator.says(&["audit", "verify", "--admin"]).json();

    let all = ["redis", "accept-restore", "--all", "--reason", "again"];
    assert_eq!(operator.says(&all).json(), json!({"accepted": ["acme"]}));
    let unknown = ["redis", "accept-restore", "--org", "globex", "--reason", "x"];
    assert_eq!(operator.says(&unknown).refusal()["found"], "no such organisation");
    assert_eq!(generation(&operator, "globex"), Generation::default());
    assert_eq!(operator.says(&["redis", "accept-restore", "--reason", "x"]).status, 2);
}
