//! Conditions: what compiles can be decided, in bounded time, on any arguments.
//!
//! Owns the bound, in time: a thousand times what the dearest honest condition takes. The input is an expression
//! and, after a line of its own with `---`, arguments and claims as one JSON object.

use std::time::{Duration, Instant};

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::json;
use portcullis_core::policy::condition::{Condition, Facts};
use portcullis_core::time::UnixTime;
use serde_json::{Map, Value};

/// A build for fuzzing counts every branch.
const LONGEST: Duration = Duration::from_secs(1);

pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (expression, facts) = text.split_once("\n---\n").unwrap_or((&text, "{}"));
    let started = Instant::now();
    if let Ok(condition) = Condition::compile(expression) {
        decided(&condition, facts);
    }
    assert!(started.elapsed() < LONGEST, "{:?} for {expression}", started.elapsed());
}

fn decided(condition: &Condition, facts: &str) {
    let Ok(Value::Object(values)) = json::parse_strict(facts.as_bytes()) else { return };
    let principal = principal();
    let holds = |arguments: &Map<String, Value>, claims: &Map<String, Value>, source: &str| {
        let decided = condition.holds(&Facts {
            principal: &principal,
            claims,
            connector: &name("demo"),
            tool: "query",
            arguments,
            now: UnixTime::from_micros(1_795_212_000_000_000),
            source,
        });
        // CEL's words about a map have its members in any order.
        decided.map_err(|why| std::mem::discriminant(&why))
    };
    let nothing = Map::new();
    let first = holds(&values, &nothing, "10.1.2.3");
    assert_eq!(first, holds(&values, &nothing, "10.1.2.3"), "decided otherwise the second time");
    if !condition.asks_for_arguments() {
        assert_eq!(first, holds(&nothing, &nothing, "10.1.2.3"), "the arguments counted");
    }
    let _ = holds(&nothing, &values, "no address");
    // What stands for itself compiles to itself.
    assert_eq!(Condition::compile(condition.text()).as_ref(), Ok(condition));
}

fn name(text: &str) -> PolicyName {
    PolicyName::new(text).expect("a name")
}

fn principal() -> Principal {
    Principal {
        org: OrgId::new("acme").expect("an organisation"),
        identity: IdentityKind::Key(KeyId::new("k1a2").expect("an id")).into(),
        name: "cursor".into(),
        role: name("analyst"),
        tier: name("free"),
        scopes: Scopes::Granted(["crm:read".to_owned()].into()),
        agent: Some("bot-7".to_owned()),
        restrictions: Restrictions::default(),
    }
}
