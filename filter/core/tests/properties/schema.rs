//! Schemas and values of any form: a check terminates, and has the same result for equal values.
//!
//! Owns schemas that a hostile server might publish.

use portcullis_core::pin::Definition;
use portcullis_core::schema;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::{cases, json};

/// Mostly schemas: known keywords with known forms, some with any value.
fn schema_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => select(vec!["string", "integer", "object", "array", "null"]).prop_map(|kind| json!({"type": kind})),
        2 => select(vec!["#", "#/$defs/a", "#/properties/a", "#x", "http://example.com/"]).prop_map(|to| json!({"$ref": to})),
        2 => select(vec!["^a+$", "(a|a)*b", "(?=a)", "[", r"\\d"]).prop_map(|it| json!({"pattern": it})),
        1 => any::<bool>().prop_map(Value::from),
        2 => json::value(),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        let list = ["allOf", "anyOf", "oneOf", "prefixItems"];
        let map = ["properties", "patternProperties", "$defs", "dependentSchemas"];
        let one = [
            "items",
            "not",
            "if",
            "then",
            "else",
            "contains",
            "additionalProperties",
            "unevaluatedItems",
            "unevaluatedProperties",
        ];
        prop_oneof![
            (select(list.to_vec()), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(key, it)| json!({key: it})),
            (select(map.to_vec()), inner.clone(), inner.clone())
                .prop_map(|(key, a, b)| json!({key: {"a": a, "b": b}})),
            (select(one.to_vec()), inner.clone(), inner)
                .prop_map(|(key, a, b)| json!({key: a, "properties": {"a": b}})),
        ]
    })
}

proptest! {
    #![proptest_config(cases(300))]

    // Proves: X6
    #[test]
    fn every_check_ends_and_tells_at_most_five_faults(schema in schema_like(), value in json::value()) {
        if let Ok(compiled) = schema::compile(&schema)
            && let Err(violations) = compiled.check(&value)
        {
            prop_assert!((1..=5).contains(&violations.len()), "{schema} {value}: {violations:?}");
            prop_assert!(violations.iter().all(|it| it.to_string().len() < 4_000));
        }
    }

    // Proves: X5
    #[test]
    fn what_is_the_same_has_not_drifted(one in schema_like(), other in schema_like()) {
        let tool = |schema: &Value| json!({"name": "t", "description": "d", "inputSchema": schema});
        let pin = Definition::of(&tool(&one));
        prop_assert_eq!(pin.drift(&tool(&one)), None);
        let same = schema::same(&one, &other) || one.is_null() && other.is_null();
        prop_assert_eq!(pin.drift(&tool(&other)).is_none(), same, "{} {}", one, other);
    }
}
