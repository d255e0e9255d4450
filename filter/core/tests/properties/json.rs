//! JSON: random values and texts for all modules here, and the properties of the strict reader.
//!
//! Owns the strategies for JSON. Other modules own the meaning of documents.

use portcullis_core::json::{MAX_DEPTH, canonical, canonical_exact, parse_strict};
use portcullis_core::mcp::{Message, Sender};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::cases;

/// Texts that break readers: quotes, escapes, control and non-BMP characters, long blanks.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_]{0,8}",
        2 => any::<String>(),
        1 => "[ !\"#~a\\\\\u{7f}\u{e9}\u{e000}\u{ffff}\u{1f600}]{1,3}",
        1 => "[\u{0}-\u{1f}\"\\\\/\u{7f}\u{e9}\u{2028}\u{fb33}\u{1f600}]{0,6}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        ((1_u64 << 53) - 3..(1 << 53) + 3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

/// Any JSON value of modest size.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            object(inner).prop_map(Value::from)
        ]
    })
}

fn object(
    inner: impl Strategy<Value = Value>,
) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    btree_map(text(), inner, 0..6).prop_map(|members| members.into_iter().collect())
}

/// `bytes` with pieces cut out, repeated, or replaced: almost valid, like an attack.
pub(crate) fn mangled(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        "[\\[\\]{}:,\"0-9eE.+-]{1,3}".prop_map(String::into_bytes),
        Just(Vec::new()),
    ];
    let edits = vec((any::<Index>(), 0_usize..4, piece, any::<bool>()), 0..4);
    (bytes, edits).prop_map(|(mut bytes, edits)| {
        for (at, length, piece, repeat) in edits {
            let from = at.index(bytes.len() + 1);
            let to = (from + length).min(bytes.len());
            let piece = if repeat { [&bytes[from..to], &bytes[from..to]].concat() } else { piece };
            bytes.splice(from..to, piece);
        }
        bytes
    })
}

/// Almost JSON, or nothing like it.
pub(crate) fn document() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => mangled(value().prop_map(|value| value.to_string().into_bytes())),
        1 => vec(any::<u8>(), 0..64),
        1 => (0..2 * MAX_DEPTH, "[\\[{]|\\{\"a\":").prop_map(|(depth, open)| {
            open.repeat(depth).into_bytes()
        }),
    ]
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: B2
    #[test]
    fn whatever_is_accepted_means_the_same_to_another_reader(document in document()) {
        if let Ok(strict) = parse_strict(&document) {
            let lenient: Value = serde_json::from_slice(&document).unwrap();
            prop_assert_eq!(strict, lenient);
        }
    }

    #[test]
    fn every_plain_document_is_accepted(value in value()) {
        prop_assert_eq!(parse_strict(value.to_string().as_bytes()), Ok(value));
    }

    // Proves: A18
    #[test]
    fn the_canonical_form_reads_back_to_itself(value in value()) {
        let once = canonical(&value);
        let again = parse_strict(once.as_bytes());
        prop_assert!(again.is_ok(), "{once:?}: {again:?}");
        prop_assert_eq!(canonical(&again.unwrap()), once);
        let once = canonical_exact(&value);
        prop_assert_eq!(canonical_exact(&parse_strict(once.as_bytes()).unwrap()), once);
    }

    // Proves: A18
    #[test]
    fn the_canonical_form_is_that_of_another_writer(value in value()) {
        let value = in_doubles(value);
        prop_assert_eq!(canonical(&value), serde_json_canonicalizer::to_string(&value).unwrap());
    }

    // Proves: A18
    #[test]
    fn numbers_that_differ_are_written_differently(one in any::<u64>(), other in 1_u64..4) {
        let text = |number: u64| canonical_exact(&Value::from(number));
        prop_assert_ne!(text(one), text(one.wrapping_add(other)));
    }

    // Proves: B2
    #[test]
    fn any_bytes_are_a_message_or_a_refusal(document in mangled(message())) {
        match Message::parse(&document) {
            Ok(Message { sender: Sender::Request(id), .. }) => {
                prop_assert!(id.is_string() || id.is_i64(), "{id}");
            }
            Ok(_) => {}
            Err(malformed) => {
                let code = portcullis_core::denial::Denial::from(malformed.fault).code(portcullis_core::mcp::Era::Legacy);
                prop_assert!([-32_600, -32_602, -32_700].contains(&code), "{code}");
            }
        }
    }
}

/// The value with its numbers rounded: RFC 8785 changes other numbers.
fn in_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(in_doubles).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, in_doubles(value))).collect()
        }
        other => other,
    }
}

/// Mostly JSON-RPC.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof!["tools/(call|list)", "ping", "notifications/initialized", text()];
    (method, value(), value(), any::<bool>()).prop_map(|(method, id, arguments, meta)| {
        let mut message = serde_json::json!({
            "jsonrpc": "2.0", "id": id, "method": method,
            "params": {"name": "x", "arguments": arguments}
        });
        if meta {
            message["params"]["_meta"] = id;
        }
        message.to_string().into_bytes()
    })
}
