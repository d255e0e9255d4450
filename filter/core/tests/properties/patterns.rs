//! Regular expressions in conditions against another engine, the `regex` crate, where both take the same ones; and of any
//! form: an evaluation ends.
//!
//! Owns the dialect that both have: ASCII, no look-around, no references.

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::policy::condition::{Condition, Facts};
use portcullis_core::time::UnixTime;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, json};

use crate::cases;

fn holds(condition: &Condition, text: &str) -> Option<bool> {
    let name = |name: &str| PolicyName::new(name).unwrap();
    let principal = Principal {
        org: OrgId::new("acme").unwrap(),
        identity: IdentityKind::Key(KeyId::new("k1a2").unwrap()).into(),
        name: "bot".into(),
        role: name("analyst"),
        tier: name("free"),
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    };
    let arguments = json!({ "q": text });
    let (claims, connector) = (Map::new(), name("demo"));
    let facts = Facts {
        principal: &principal,
        claims: &claims,
        connector: &connector,
        tool: "query",
        arguments: arguments.as_object().unwrap(),
        now: UnixTime::from_micros(0),
        source: "192.0.2.7",
    };
    condition.holds(&facts).ok()
}

/// Patterns that mean the same to both.
fn common() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "a", "b", "-", " ", r"\.", ".", "[ab]", "[^a]", "[a-c]", "[-a]", "[^b-]", "^", "$", "(?:)",
        r"\/", "é",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(5, 24, 4, |inner| {
        let repeated = select(vec!["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?", "??"]);
        prop_oneof![
            3 => vec(inner.clone(), 1..4).prop_map(|all| all.concat()),
            2 => vec(inner.clone(), 2..4).prop_map(|all| format!("(?:{})", all.join("|"))),
            2 => (inner.clone(), repeated).prop_map(|(it, times)| format!("(?:{it}){times}")),
            1 => inner.prop_map(|it| format!("({it})")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "c", "-", " ", ".", "/", "é", "\n", "^"]), 0..12)
        .prop_map(|letters| letters.concat())
}

proptest! {
    #![proptest_config(cases(400))]

    // Proves: C3
    #[test]
    fn a_pattern_in_a_condition_matches_what_another_engine_matches(
        pattern in common(),
        texts in vec(text(), 1..6),
    ) {
        let oracle = regex::Regex::new(&pattern.replace(r"\/", "/"));
        let condition = Condition::compile(&format!("arguments.q.matches(r'{pattern}')"));
        // What one of them does not take, such as an empty group that is repeated, is not compared.
        let (Ok(oracle), Ok(condition)) = (oracle, condition) else { return Ok(()) };
        for text in texts {
            prop_assert_eq!(
                holds(&condition, &text), Some(oracle.is_match(&text)), "{} {:?}", pattern, text
            );
        }
    }

    #[test]
    fn a_pattern_of_any_form_is_refused_or_decided_in_bounded_work(
        pattern in r#"[ab.()|*+?{}0-9\[\]^$\\dwsbBkpc1<=!:,-]{0,24}"#,
        text in "[ab0-9 .-]{0,200}",
    ) {
        if let Ok(condition) = Condition::compile(&format!("arguments.q.matches(r'{pattern}')")) {
            let decided = holds(&condition, &text);
            // Again from the compiled ones: the same.
            prop_assert_eq!(holds(&condition, &text), decided, "{}", pattern);
        }
    }
}
