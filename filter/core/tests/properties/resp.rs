//! RESP2 with any bytes and any chunks.
//!
//! Owns random replies and their encoding. The redis-lua crate owns their meaning.

use portcullis_core::redis::resp::{Decoder, ProtocolError};
use portcullis_redis_lua::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{cases, json};

/// Any reply of scripts and plain reads, with their nesting.
pub(crate) fn reply() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Nil),
        any::<i64>().prop_map(Value::Int),
        (0_i64..4).prop_map(Value::Int),
        vec(any::<u8>(), 0..12).prop_map(Value::Bulk),
        "[ -~]{0,8}".prop_map(Value::Status),
        "(ERR|NOSCRIPT) [ -~]{0,8}".prop_map(Value::Error),
    ];
    scalar.prop_recursive(2, 12, 6, |inner| vec(inner, 0..6).prop_map(Value::Array))
}

/// The reply as Redis sends it.
pub(crate) fn encoded(reply: &Value) -> Vec<u8> {
    match reply {
        Value::Nil => b"$-1\r\n".to_vec(),
        Value::Int(number) => format!(":{number}\r\n").into_bytes(),
        Value::Status(text) => format!("+{text}\r\n").into_bytes(),
        Value::Error(text) => format!("-{text}\r\n").into_bytes(),
        Value::Bulk(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        Value::Array(items) => {
            let mut bytes = format!("*{}\r\n", items.len()).into_bytes();
            bytes.extend(items.iter().flat_map(encoded));
            bytes
        }
    }
}

fn decoded(bytes: &[u8], cuts: &[Index]) -> Result<Vec<Value>, ProtocolError> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut decoder, mut replies, mut from) = (Decoder::default(), Vec::new(), 0);
    for end in ends {
        replies.extend(decoder.feed(&bytes[from..end])?);
        from = end;
    }
    Ok(replies)
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn replies_read_back_whatever_the_chunks(
        replies in vec(reply(), 0..12),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let bytes: Vec<u8> = replies.iter().flat_map(encoded).collect();
        prop_assert_eq!(decoded(&bytes, &cuts), Ok(replies));
    }

    // Proves: B2
    #[test]
    fn any_bytes_are_replies_or_the_end_of_the_stream(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..64),
            json::mangled(vec(reply(), 0..6).prop_map(|all| all.iter().flat_map(encoded).collect())),
            "([*$:+-](-?[0-9]{0,20})?(\r\n){0,2}){0,12}".prop_map(String::into_bytes),
        ],
        cuts in vec(any::<Index>(), 0..4),
    ) {
        let _ = decoded(&bytes, &cuts);
    }
}

/// A stack overflow cannot be caught, and ends the whole worker.
#[test]
fn nesting_is_bounded_wherever_it_stands() {
    for level in ["*1\r\n", "*2\r\n:1\r\n", "*2\r\n$2\r\n\r\n\r\n", "*3\r\n*0\r\n*-1\r\n"] {
        let deep = level.repeat(200_000).into_bytes();
        assert_eq!(decoded(&deep, &[]), Err(ProtocolError), "{level:?}");
    }
}
