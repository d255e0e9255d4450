//! Bodies as several readers take them: whatever the strict reader accepts, all of them find the same members in.
//!
//! Owns the models: how Python and JavaScript (the last of two members counts), some C and Rust readers (the first),
//! Go (names without case, the last one counts) and .NET (without case, an exact name first) look for a member, and which
//! numbers they round.

use std::fmt;

use portcullis_core::json::{canonical, canonical_exact, is_same_number, parse_strict};
use portcullis_core::mcp::{Message, Operation, Sender};
use serde_json::{Deserializer, Number, Value};

/// The input is the body.
pub fn check(body: &[u8]) {
    let Ok(message) = Message::parse(body) else {
        return;
    };
    let text = std::str::from_utf8(body).expect("a message is UTF-8");
    let tree = Tree::read(text).expect("every reader takes it");
    for reader in [Reader::Last, Reader::First, Reader::Folding, Reader::FoldingExactFirst] {
        is_read(&message, &tree, reader);
    }
    let strict = parse_strict(body).expect("a message is strict JSON");
    numbers_are_kept(&strict, &tree);
    let exact = canonical_exact(&strict);
    assert_eq!(canonical_exact(&parse_strict(exact.as_bytes()).expect("strict JSON")), exact);
    let rounded = canonical(&strict);
    assert_eq!(canonical(&parse_strict(rounded.as_bytes()).expect("strict JSON")), rounded);
}

/// A document with every member that stands in it.
#[derive(Debug)]
enum Tree {
    Object(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Text(String),
    /// As it is written.
    Number(String),
    Other,
}

/// How a member is looked for.
#[derive(Clone, Copy, Debug)]
enum Reader {
    Last,
    First,
    Folding,
    FoldingExactFirst,
}

impl Tree {
    /// Reads text; a scanner of its own would be one reader more, so the tokens are those of `serde_json`.
    fn read(text: &str) -> Option<Self> {
        let mut values = Deserializer::from_str(text).into_iter::<Raw>();
        let Raw(tree) = values.next()?.ok()?;
        Some(tree)
    }

    fn member(&self, name: &str, reader: Reader) -> Option<&Tree> {
        let Self::Object(members) = self else { return None };
        let exact = |(known, _): &&(String, Tree)| known == name;
        let folded = |(known, _): &&(String, Tree)| equal_fold(known, name);
        let found = match reader {
            Reader::Last => members.iter().rfind(exact),
            Reader::First => members.iter().find(exact),
            Reader::Folding => members.iter().rfind(folded),
            Reader::FoldingExactFirst => {
                members.iter().find(exact).or_else(|| members.iter().find(folded))
            }
        };
        found.map(|(_, value)| value)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Go's `strings.EqualFold`, as far as names of MCP go.
fn equal_fold(one: &str, other: &str) -> bool {
    let fold = |text: &str| {
        let letters = text.chars().map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        });
        letters.collect::<String>()
    };
    fold(one) == fold(other)
}

struct Raw(Tree);

impl<'de> serde::Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk).map(Raw)
    }
}

struct Walk;

impl<'de> serde::de::Visitor<'de> for Walk {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(Raw(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some((name, Raw(value))) = members.next_entry::<String, Raw>()? {
            // How `serde_json` hands over a number; nothing that is accepted has such a member.
            if let ("$serde_json::private::Number", Tree::Text(digits)) = (name.as_str(), &value) {
                return Ok(Tree::Number(digits.clone()));
            }
            all.push((name, value));
        }
        Ok(Tree::Object(all))
    }
}

/// What was understood is what this reader finds.
fn is_read(message: &Message, tree: &Tree, reader: Reader) {
    let text = |tree: Option<&Tree>| tree.and_then(Tree::text).map(str::to_owned);
    assert_eq!(text(tree.member("jsonrpc", reader)).as_deref(), Some("2.0"));
    let method = text(tree.member("method", reader)).unwrap_or_default();
    assert_eq!(method, message.method, "{reader:?}");
    match (&message.sender, tree.member("id", reader)) {
        (Sender::Request(Value::String(id)), Some(Tree::Text(read))) => assert_eq!(id, read),
        (Sender::Request(Value::Number(id)), Some(Tree::Number(read))) => {
            let read: f64 = read.parse().expect("a number");
            assert_eq!(id.as_f64(), Some(read), "a reader rounds the id");
        }
        (Sender::Request(id), read) => panic!("{reader:?}: {id} is {read:?}"),
        (Sender::NoReplyExpected, _) => {}
        (Sender::Unknown, _) => panic!("a message without a sender"),
    }
    let params = tree.member("params", reader);
    let named = |name: &str| text(params.and_then(|params| params.member(name, reader)));
    let inside = |object: &str, name: &str| {
        params.and_then(|params| params.member(object, reader)?.member(name, reader))
    };
    let version = text(inside("_meta", "io.modelcontextprotocol/protocolVersion"));
    if !message.method.is_empty() {
        assert_eq!(version, message.claimed_version, "{reader:?}");
    }
    let listed = |name: &str| match inside("notifications", name) {
        Some(Tree::List(items)) => items.iter().map(|it| text(Some(it)).expect("a text")).collect(),
        _ => Vec::new(),
    };
    match &message.operation {
        Operation::CallTool(call) => {
            assert_eq!(named("name").as_deref(), Some(call.name.as_str()), "{reader:?}");
            let arguments = params.and_then(|params| params.member("arguments", reader));
            let count = match arguments {
                Some(Tree::Object(members)) => members.len(),
                None | Some(Tree::Other) => 0,
                Some(other) => panic!("{reader:?}: arguments are {other:?}"),
            };
            assert_eq!(count, call.arguments.len(), "{reader:?}");
        }
        Operation::Prompt(name) if method == "prompts/get" => {
            assert_eq!(named("name").as_ref(), Some(name), "{reader:?}");
        }
        Operation::Prompt(name) => {
            assert_eq!(text(inside("ref", "type")).as_deref(), Some("ref/prompt"), "{reader:?}");
            assert_eq!(text(inside("ref", "name")).as_ref(), Some(name), "{reader:?}");
        }
        Operation::Resource(uri) if method == "completion/complete" => {
            assert_eq!(text(inside("ref", "type")).as_deref(), Some("ref/resource"), "{reader:?}");
            assert_eq!(text(inside("ref", "uri")).as_ref(), Some(uri), "{reader:?}");
        }
        Operation::Resource(uri) => assert_eq!(named("uri").as_ref(), Some(uri), "{reader:?}"),
        Operation::Task(id) => assert_eq!(named("taskId").as_ref(), Some(id), "{reader:?}"),
        Operation::Subscriptions { resources, tasks } => {
            assert_eq!(*resources, listed("resourceSubscriptions"), "{reader:?}");
            assert_eq!(*tasks, listed("taskIds"), "{reader:?}");
        }
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession
        | Operation::Unknown => {}
    }
}

/// No digit is lost, and no reader finds infinity where another finds a number.
fn numbers_are_kept(value: &Value, tree: &Tree) {
    match (value, tree) {
        (Value::Number(number), Tree::Number(digits)) => {
            let written: Number = digits.parse().expect("a number");
            assert!(is_same_number(number, &written), "{number} was {digits}");
            let double: f64 = digits.parse().expect("a number");
            let is_zero = !digits
                .split(['e', 'E'])
                .next()
                .unwrap_or_default()
                .contains(|it| ('1'..='9').contains(&it));
            assert!(double.is_finite() && (double != 0.0 || is_zero), "{digits}");
        }
        (Value::Array(values), Tree::List(trees)) => {
            assert_eq!(values.len(), trees.len());
            values.iter().zip(trees).for_each(|(value, tree)| numbers_are_kept(value, tree));
        }
        (Value::Object(values), Tree::Object(trees)) => {
            assert_eq!(values.len(), trees.len());
            for (name, tree) in trees {
                numbers_are_kept(values.get(name).expect("a member"), tree);
            }
        }
        (Value::String(text), Tree::Text(read)) => assert_eq!(text, read),
        (Value::Null | Value::Bool(_), Tree::Other) => {}
        (value, tree) => panic!("{value} is {tree:?}"),
    }
}
