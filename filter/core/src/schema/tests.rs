//! Cases outside the official suite: bounds, texts, references out of the document.

use serde_json::{Value, json};

use super::*;

fn told(schema: &Value, value: &Value) -> Vec<String> {
    let violations = compile(schema).unwrap().check(value).err().unwrap_or_default();
    violations.iter().map(ToString::to_string).collect()
}

// Proves: X6
#[test]
fn violations_name_path_and_rule_and_never_the_value() {
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["limit"], "properties": {
        "limit": {"type": "integer", "maximum": 50},
        "plan": {"enum": ["free", "pro"]},
        "who": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
    }});
    assert_eq!(
        told(&schema, &json!({"limit": 5000, "plan": "hunter2", "who": "secret", "x/y": 1})),
        [
            "/limit: expected at most 50 (rule /properties/limit/maximum)",
            "/plan: expected one of \"free\", \"pro\" (rule /properties/plan/enum)",
            "/who: expected one of 2 alternatives, none fits: (/who: expected at most 3 characters (rule /properties/who/anyOf/0/maxLength)) (/who: expected null (rule /properties/who/anyOf/1/type)) (rule /properties/who/anyOf)",
            "/x~1y: expected no such member; known are limit, plan, who (rule /additionalProperties)",
        ]
    );
    assert_eq!(
        told(&schema, &json!({"plan": null})),
        [
            "the arguments: expected the required members limit (rule /required)",
            "/plan: expected one of \"free\", \"pro\" (rule /properties/plan/enum)",
        ]
    );
    assert!(told(&schema, &json!({"limit": 50.0, "who": null})).is_empty());
}

/// A server might publish this; `boon` 0.6 takes 31 s for 20 levels of this, each level twice the last.
fn conditions() -> Value {
    let of = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}, "of": {"$ref": "#/$defs/t"}}, "required": ["kind", "of"]});
    json!({"$ref": "#/$defs/t", "$defs": {"t": {"anyOf": [of("and"), of("or"), {"type": "string"}]}}})
}

// Proves: X6
#[test]
fn a_crafted_value_is_refused_within_the_budget() {
    let schema = compile(&conditions()).unwrap();
    let nested =
        |depth, leaf: Value| (0..depth).fold(leaf, |inner, _| json!({"kind": "or", "of": inner}));
    assert_eq!(schema.check(&nested(20, json!("leaf"))), Ok(()));
    assert!(schema.check(&nested(60, json!(7))).is_err());
    let twins = json!({"$defs": {"t": {"oneOf": [
        {"properties": {"a": {"$ref": "#/$defs/t"}}}, {"properties": {"a": {"$ref": "#/$defs/t"}}}
    ]}}, "$ref": "#/$defs/t"});
    let deep = (0..60).fold(json!(7), |inner, _| json!({"a": inner}));
    let violations = compile(&twins).unwrap().check(&deep).unwrap_err();
    assert_eq!(violations[0].rule, "budget");
    let loops = json!({"$ref": "#"});
    assert_eq!(compile(&loops).unwrap().check(&json!(1)).unwrap_err()[0].rule, "budget");
    // A value that is compared with every other costs no more than its own length.
    let wide = json!({"type": "array", "uniqueItems": true});
    let items: Vec<_> = (0..20_000).collect();
    assert_eq!(compile(&wide).unwrap().check(&json!(items)), Ok(()));
}

// Finding 3.3: each match had a budget of its own, and 20,000 of them took 1.9 s.
// Proves: X6
#[test]
fn one_budget_is_for_all_patterns_of_a_check() {
    let texts = |count: usize, text: &str| json!(vec![text; count]);
    let of =
        |pattern: &str| compile(&json!({"items": {"type": "string", "pattern": pattern}})).unwrap();
    let costly = of(r"^(a|a)*\1b$");
    let violations = costly.check(&texts(20_000, &"a".repeat(40))).unwrap_err();
    assert_eq!(violations[0].rule, "budget");
    assert_eq!(costly.check(&texts(1, &"a".repeat(9))).unwrap_err()[0].rule, "/items/pattern");
    let email = of(
        r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
    );
    assert_eq!(email.check(&texts(3_000, "somebody.else@mail.example.com")), Ok(()));
    assert_eq!(of("^[a-z ]+$").check(&texts(20_000, "plain words")), Ok(()));
}

// Finding 4.3: numbers were compared as doubles.
// Proves: X6
#[test]
fn numbers_are_checked_by_every_digit() {
    let read = |text: &str| crate::json::parse_strict(text.as_bytes()).unwrap();
    for (schema, good, bad) in [
        (r#"{"const":9007199254740993}"#, "9007199254740993.0", "9007199254740992"),
        (r#"{"maximum":9223372036854775807}"#, "9223372036854775807", "9223372036854775808"),
        (r#"{"maximum":0.3}"#, "0.3", "0.30000000000000000001"),
        (
            r#"{"exclusiveMinimum":100000000000000000000001}"#,
            "100000000000000000000002",
            "1.00000000000000000000001e23",
        ),
        (
            r#"{"enum":[100000000000000000000001]}"#,
            "100000000000000000000001",
            "100000000000000000000009",
        ),
        (r#"{"type":"integer"}"#, "100000000000000000000001.0", "100000000000000000000001.5"),
        (r#"{"multipleOf":2}"#, "100000000000000000000002", "100000000000000000000001"),
        (r#"{"uniqueItems":true}"#, "[9007199254740992,9007199254740993]", "[1,1.0]"),
    ] {
        let compiled = compile(&read(schema)).unwrap();
        assert_eq!(compiled.check(&read(good)), Ok(()), "{schema} {good}");
        assert!(compiled.check(&read(bad)).is_err(), "{schema} {bad}");
    }
}

// Finding 4.2: Go and .NET take `Limit` for `limit`, and what they read was not checked.
// Proves: X6
#[test]
fn a_property_in_another_case_is_a_violation_whatever_else_holds() {
    let schema = json!({"properties": {"limit": {"maximum": 50}, "A": {}, "a": {}}});
    for twin in ["Limit", "LIMIT"] {
        assert_eq!(
            told(&schema, &json!({"limit": 5, twin: 5000})),
            [format!("/{twin}: expected limit, spelled exactly so (rule /properties)")]
        );
    }
    assert!(told(&schema, &json!({"limit": 5, "A": 1, "a": 2, "other": 3, "Other": 4})).is_empty());
    for (schema, rule) in [
        (json!({"dependentSchemas": {"limit": true}}), "dependentSchemas"),
        (json!({"required": ["limit"]}), "required"),
    ] {
        let expected = format!("/Limit: expected limit, spelled exactly so (rule /{rule})");
        assert!(told(&schema, &json!({"Limit": 1})).contains(&expected), "{schema}");
    }
    let inside = json!({"items": {"anyOf": [{"properties": {"limit": {"maximum": 50}}}, true]}});
    assert!(!told(&inside, &json!([{"Limit": 5000}])).is_empty());
    let negated = json!({"not": {"required": ["limit"], "properties": {"limit": {"const": 1}}}});
    assert!(!told(&negated, &json!({"Limit": 1})).is_empty());
}

#[test]
fn what_is_no_usable_schema_is_named() {
    for (schema, place, found) in [
        (json!(7), "", "7"),
        (json!({"type": "strin"}), "/type", "\"strin\""),
        (json!({"properties": {"a": {"minLength": -1}}}), "/properties/a/minLength", "-1"),
        (json!({"properties": []}), "/properties", "a list of 0"),
        (
            json!({"properties": {"a": {"pattern": "("}}}),
            "/properties/a/pattern",
            "the pattern \"(\"",
        ),
        (
            json!({"$ref": "https://example.com/x"}),
            "/$ref",
            "a reference to \"https://example.com/x\"",
        ),
        (json!({"$ref": "#/$defs/missing"}), "/$defs/missing", "a reference to nothing"),
        (
            json!({"$schema": "http://json-schema.org/draft-04/schema#"}),
            "/$schema",
            "\"http://json-schema.org/draft-04/schema#\"",
        ),
        (json!({"multipleOf": 0}), "/multipleOf", "0"),
        (json!({"allOf": {}}), "/allOf", "an object of 0"),
    ] {
        let fault = compile(&schema).err().map(|fault| (fault.place, fault.found));
        assert_eq!(fault, Some((place.to_owned(), found.to_owned())), "{schema}");
    }
    assert!(compile(&json!({"description": "x".repeat(MAX_SCHEMA_BYTES)})).is_err());
}

#[test]
fn headers_repeat_only_what_the_specification_lets_them() {
    let schema = json!({"properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "inner": {"type": "object", "properties": {"on": {"type": "boolean", "x-mcp-header": "On"}}},
        "number": {"type": "number", "x-mcp-header": "Number"},
        "blank": {"type": "string", "x-mcp-header": "a b"},
        "one": {"type": "string", "x-mcp-header": "Twice"}, "two": {"type": "string", "x-mcp-header": "twice"},
        "list": {"type": "array", "items": {"type": "string", "x-mcp-header": "Item"}},
    }});
    let found = mirrors(&schema);
    let headers: Vec<_> = found.iter().map(|mirror| mirror.header.as_str()).collect();
    assert_eq!(headers, ["mcp-param-region", "mcp-param-on"]);
    let arguments = json!({"region": "eu", "inner": {"on": true}});
    let argument = |index: usize| found[index].argument(arguments.as_object().unwrap());
    assert!(
        Mirror::agrees(argument(0).unwrap(), b"eu") && !Mirror::agrees(argument(0).unwrap(), b"EU")
    );
    assert!(Mirror::agrees(argument(1).unwrap(), b"true"));
    assert!(Mirror::agrees(&json!(42), b"42.0") && !Mirror::agrees(&json!(42), b"43"));
    assert_eq!(found[0].argument(json!({"region": null}).as_object().unwrap()), None);
}
