//! How long `policy check` takes for a large policy: 5,000 pinned tools, 500 roles, conditions with types.
//!
//! With a path, the policy is written there, for the command itself:
//! `cargo run --release -p portcullis-core --example check -- large.json && time portcullis policy check large.json`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::time::Instant;

use portcullis_core::policy;
use serde_json::{Map, Value, json};

fn main() {
    let property = json!({"type": "string", "maxLength": 200});
    let properties: Map<_, _> =
        (0..8).map(|at| (format!("field_{at}"), property.clone())).collect();
    let schema = json!({"type": "object", "properties": properties, "required": ["field_0"]});
    let tools: Map<String, Value> = (0..5_000)
        .map(|at| {
            let tool = json!({
                "description": "Looks for records.", "input_schema": schema, "read_only": true,
                "arguments": {"field_0": {"pattern": "^[a-z]{1,40}$"}},
                "conditions": [{"when": "arguments.field_1 != 'x' || time.hour < 8"}],
            });
            (format!("query_records_{at}"), tool)
        })
        .collect();
    let roles: Map<String, Value> = (0..500)
        .map(|at| {
            let role = json!({"crm": {
                "allow": ["query_*", format!("query_records_{at}")], "deny": [format!("query_records_{}", at + 1)],
                "conditions": [{"when": "time.hour >= 8 && arguments.field_2.size() < 9", "tools": ["query_*"]}],
                "tools": {
                    "query_records_*": {"arguments": {"field_3": {"enum": ["a", "b"]}}},
                    format!("query_records_{at}"): {"approval": "required", "conditions": [{"when": "arguments.field_4.matches('^a')"}]},
                },
            }});
            (format!("role-{at}"), role)
        })
        .collect();
    let document = json!({
        "version": 1, "organisations": ["acme"], "roles": roles, "tiers": {"std": {"limits": {}}},
        "connectors": {"crm": {"path": "/crm/mcp", "tools": tools}},
    });
    let text = document.to_string();
    println!("{} bytes", text.len());
    if let Some(path) = std::env::args_os().nth(1) {
        std::fs::write(path, &text).unwrap();
    }
    let start = Instant::now();
    let policy = policy::compile(&document).unwrap();
    println!("compiled after {:?}", start.elapsed());
    let faults = policy.review().iter().count();
    println!("reviewed after {:?}: {faults} faults", start.elapsed());
    let warnings = policy.warnings().len();
    println!("warned after {:?}: {warnings} warnings", start.elapsed());
}
