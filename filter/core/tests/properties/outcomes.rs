//! The outcome in a server's response, read as a whole and in chunks.
//!
//! Owns responses whose relevant members are present, missing, repeated, or of another type; and a simple reader for
//! the whole response at once.

use portcullis_core::mcp::Listing;
use portcullis_core::mcp::filter::{MessageFilter, Reader, Seen, Shown, Unreadable};
use portcullis_core::mcp::outcome::ToolOutcome;
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

/// The outcome in the whole message.
fn outcome(message: &Value) -> Option<ToolOutcome> {
    if let Some(error) = message.get("error") {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        return Some(ToolOutcome::ProtocolError(code));
    }
    let result = message.get("result")?;
    if result.get("isError").and_then(Value::as_bool) == Some(true) {
        return Some(ToolOutcome::ToolError);
    }
    Some(match rows(result) {
        None if is_task(message) => ToolOutcome::Task,
        rows => ToolOutcome::Result { rows },
    })
}

fn is_task(message: &Value) -> bool {
    message.pointer("/result/resultType").and_then(Value::as_str) == Some("task")
        || message.pointer("/result/task/taskId").is_some_and(Value::is_string)
}

fn rows(result: &Value) -> Option<u64> {
    match result.get("structuredContent") {
        Some(structured) => listed(structured),
        None => match result.get("content")?.as_array()?.as_slice() {
            [only] => listed(&serde_json::from_str(only.get("text")?.as_str()?).ok()?),
            _ => None,
        },
    }
}

fn listed(value: &Value) -> Option<u64> {
    const LISTS: [&str; 6] = ["rows", "items", "results", "records", "data", "result"];
    let list = match value {
        Value::Array(list) => list,
        Value::Object(members) => {
            LISTS.iter().find_map(|name| members.get(*name).and_then(Value::as_array))?
        }
        _ => return None,
    };
    u64::try_from(list.len()).ok()
}

fn task(message: &Value) -> Option<&str> {
    let result = message.get("result")?;
    let flat = result.get("resultType").and_then(Value::as_str) == Some("task");
    let task = if flat { result } else { result.get("task")? };
    task.get("taskId")?.as_str()
}

#[derive(Default)]
struct Heard(Vec<Seen>);

impl Reader for Heard {
    fn item(&mut self, _: Listing, _: &[u8]) -> Shown {
        Shown::Yes
    }
    fn unreadable(&mut self, _: Listing, _: Unreadable) {}
    fn message(&mut self, seen: Seen) {
        self.0.push(seen);
    }
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: A15, A29
    #[test]
    fn reading_in_passing_finds_what_reading_whole_does(
        text in prop_oneof![9 => answer().boxed(), 1 => other()],
        size in 1_usize..40,
    ) {
        let whole: Value = serde_json::from_str(&text).unwrap();
        let (mut filter, mut heard, mut out) = (MessageFilter::default(), Heard::default(), Vec::new());
        let mut chunks = text.as_bytes().chunks(size);
        let read = chunks.all(|chunk| filter.feed(chunk, &mut out, &mut heard).is_ok());
        prop_assert_eq!(read && filter.is_complete(), whole.is_object() || whole.is_array());
        if !read {
            return Ok(());
        }
        prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        if whole.is_object() {
            let [seen] = heard.0.as_slice() else { panic!("{:?}", heard.0) };
            prop_assert_eq!(seen.id.as_ref(), whole.get("id").filter(|id| !id.is_array() && !id.is_object()));
            prop_assert_eq!(seen.outcome, outcome(&whole));
            prop_assert_eq!(seen.task.as_deref(), task(&whole));
        }
    }

    // Complete JSON passes; a text that is not JSON is never taken for complete, except for its numbers and words.
    #[test]
    fn what_is_json_is_read(bytes in json::document()) {
        let whole: Result<Value, _> = serde_json::from_slice(&bytes);
        let (mut filter, mut heard, mut out) = (MessageFilter::default(), Heard::default(), Vec::new());
        let read = filter.feed(&bytes, &mut out, &mut heard).is_ok() && filter.is_complete();
        prop_assert!(read || !whole.is_ok_and(|whole| whole.is_object() || whole.is_array()));
    }
}
