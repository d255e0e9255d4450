//! A policy of megabytes: read by every worker while many callers wait for it.

use portcullis_tests::{Case, World, cases};
use serde_json::{Map, Value, json};

const CALLERS: usize = 16;
const TOOLS: usize = 2_000;

pub(crate) fn cases() -> Vec<Case> {
    cases!["policy_size": a_large_policy_is_read_while_many_wait_for_it]
}

/// Tools of a kilobyte and a half each, on servers that no client calls.
pub(crate) fn large(mut policy: Value) -> Value {
    for server in 0..10 {
        let tool = |nth: usize| {
            let text = format!("What the caller looks for in records of kind {nth}. ").repeat(5);
            let field = json!({"type": "string", "description": text, "maxLength": 200});
            let fields: Map<_, _> =
                (0..5).map(|at| (format!("field_{at}"), field.clone())).collect();
            let schema =
                json!({"type": "object", "properties": fields, "additionalProperties": false});
            (format!("tool_{nth}"), json!({"description": text, "input_schema": schema}))
        };
        let tools: Map<_, _> = (0..TOOLS / 10).map(tool).collect();
        policy["connectors"][format!("large{server}")] =
            json!({"path": format!("/large{server}/mcp"), "tools": tools});
    }
    policy
}

fn a_large_policy_is_read_while_many_wait_for_it(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let call = || org.call(&key, "get_dashboard_metrics", json!({}));
    let before = call().audit()["policy_version"].clone();
    let policy = large(org.standard_policy());
    assert!(policy.to_string().len() > 2_500_000);
    org.push(&policy);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        for call in calls {
            let answer = call.join().expect("an answer");
            assert_eq!(answer.rows().len(), 6, "{}", answer.text());
            assert_ne!(answer.audit()["policy_version"], before);
        }
    });
}
