//! What a server's answer says, read whole and read in passing.
//!
//! Owns answers in which what matters is there, missing, twice, or of another type.

use portcullis_core::mcp::{outcome, skim};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::{cases, json};

/// A JSON object in text, so that members may occur twice.
fn object(names: &'static [&'static str], value: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let member = (select(names), value).prop_map(|(name, value)| format!("{name:?}:{value}"));
    vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))).boxed()
}

fn other() -> BoxedStrategy<String> {
    let small = select(vec![json!(1), json!("task"), json!("t"), json!(true), json!([1, [2], {}])]);
    prop_oneof![3 => small, 1 => json::value()].prop_map(|value| value.to_string()).boxed()
}

fn answer() -> impl Strategy<Value = String> {
    let listed = prop_oneof![object(&["rows", "items", "data", "x"], other()), other()].boxed();
    let text = listed.clone().prop_map(|text| Value::from(text).to_string()).boxed();
    let content = object(&["text", "type"], prop_oneof![text, other()].boxed());
    let content = vec(content, 0..3).prop_map(|items| format!("[{}]", items.join(","))).boxed();
    let member = prop_oneof![
        2 => (Just("structuredContent"), prop_oneof![listed, other()]),
        2 => (Just("content"), prop_oneof![3 => content, 1 => other()]),
        1 => (Just("task"), prop_oneof![object(&["taskId"], other()), other()]),
        2 => (select(vec!["isError", "resultType", "taskId", "x"]), other()),
    ];
    let member = member.prop_map(|(name, value)| format!("{name:?}:{value}"));
    let result = vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")));
    let member = prop_oneof![
        6 => (Just("result"), prop_oneof![8 => result.boxed(), 1 => other()]),
        1 => (Just("error"), prop_oneof![object(&["code"], other()), other()]),
        1 => (Just("id"), other()),
    ];
    let member = member.prop_map(|(name, value)| format!("{name:?}:{value}"));
    vec(member, 0..4).prop_map(|members| {
        let id = "\"id\":1".to_owned();
        format!("{{{}}}", [vec![id], members].concat().join(","))
    })
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: A15, A29
    #[test]
    fn reading_in_passing_finds_what_reading_whole_does(
        text in prop_oneof![9 => answer(), 1 => other()],
    ) {
        let whole: Value = serde_json::from_str(&text).unwrap();
        let passing = skim::message(text.as_bytes()).unwrap();
        for id in [json!(1), json!("t")] {
            prop_assert_eq!(outcome::of(&passing, &id), outcome::of(&whole, &id));
        }
        prop_assert_eq!(outcome::task(&passing), outcome::task(&whole));
    }

    #[test]
    fn what_is_no_json_is_nothing(bytes in json::document()) {
        let whole: Result<Value, _> = serde_json::from_slice(&bytes);
        prop_assert!(whole.is_err() || skim::message(&bytes).is_some());
    }
}
