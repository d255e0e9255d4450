//! Schemas of strangers: reading one and checking any value by it ends, and says the same each time.
//!
//! Owns the bound, in time. The input is a schema and, after a line of its own with `---`, a value.

use std::time::{Duration, Instant};

use portcullis_core::json;
use portcullis_core::pin::Definition;
use portcullis_core::schema;
use serde_json::{Value, json};

/// A build for fuzzing counts every branch; a check has 100,000 steps, of which a pattern may take many.
const LONGEST: Duration = Duration::from_secs(5);

pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (schema, value) = text.split_once("\n---\n").unwrap_or((&text, "{}"));
    let Ok(document) = json::parse_strict(schema.as_bytes()) else { return };
    let value = json::parse_strict(value.as_bytes()).unwrap_or_default();
    let started = Instant::now();
    checked(&document, &value);
    assert!(started.elapsed() < LONGEST, "{:?} for {text}", started.elapsed());
}

fn checked(document: &Value, value: &Value) {
    let mirrors = schema::mirrors(document);
    if let Value::Object(arguments) = value {
        mirrors.iter().for_each(|mirror| _ = mirror.argument(arguments));
    }
    let tool = |schema: &Value| json!({"name": "t", "description": "d", "inputSchema": schema});
    let pin = Definition::of(&tool(document));
    assert_eq!(pin.drift(&tool(document)), None, "a tool drifted from itself");
    let _ = pin.drift(&tool(value));
    match schema::compile(document) {
        Err(fault) => assert!(!fault.found.is_empty() && !fault.expected.is_empty()),
        Ok(schema) => {
            let first = schema.check(value);
            assert_eq!(first, schema.check(value), "checked otherwise the second time");
            if let Err(violations) = first {
                assert!((1..=5).contains(&violations.len()), "{violations:?}");
                assert!(violations.iter().all(|one| placed(document, &one.rule)), "{violations:?}");
            }
        }
    }
}

/// A rule is named by where it stands, with `/false` where that is a schema of this one word, unless it is the budget.
fn placed(document: &Value, rule: &str) -> bool {
    const CUT: usize = 100;
    let place = rule.strip_suffix("/false").unwrap_or(rule);
    // Long ones are cut.
    rule == "budget"
        || rule.len() > CUT
        || document.pointer(rule).or(document.pointer(place)).is_some()
}
