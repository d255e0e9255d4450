//! Replaces an argument of a call.
//!
//! Owns the rewriting of a body. Everything but the one value stays byte for byte: no number is rounded, and the server
//! reads what was judged.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

/// The body of a request. It has no debug output: only [`crate::audit`] knows its secret parts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body(Vec<u8>);

impl Body {
    /// This body.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// The body of a `tools/call` with the argument `name` set to `value`; `None` when it is no such call.
#[must_use]
pub fn amend(body: &[u8], name: &str, value: u64) -> Option<Vec<u8>> {
    let params = match member(body, start(body, 0)?, "params")? {
        Found::At(params) => params,
        Found::Absent(_) => return None,
    };
    let argument = format!("{}:{value}", Value::from(name));
    match member(body, params.start, "arguments")? {
        Found::At(arguments) if body.get(arguments.clone())? == b"null" => {
            splice(body, arguments, &format!("{{{argument}}}"))
        }
        Found::At(arguments) => match member(body, arguments.start, name)? {
            Found::At(old) => splice(body, old, &value.to_string()),
            Found::Absent(members) => members.put(body, &argument),
        },
        Found::Absent(members) => members.put(body, &format!(r#""arguments":{{{argument}}}"#)),
    }
}

enum Found {
    /// The member's value.
    At(Range<usize>),
    Absent(Members),
}

/// The position where a member can be inserted.
struct Members {
    /// After the opening brace.
    place: usize,
    others: Others,
}

enum Others {
    None,
    Some,
}

impl Members {
    fn put(&self, body: &[u8], member: &str) -> Option<Vec<u8>> {
        let place = self.place..self.place;
        match self.others {
            Others::None => splice(body, place, member),
            Others::Some => splice(body, place, &format!("{member},")),
        }
    }
}

fn splice(body: &[u8], place: Range<usize>, text: &str) -> Option<Vec<u8>> {
    let (before, after) = (body.get(..place.start)?, body.get(place.end..)?);
    Some([before, text.as_bytes(), after].concat())
}

/// Finds the member `name` of the object that starts at `at`.
fn member(body: &[u8], at: usize, name: &str) -> Option<Found> {
    let behind_brace = behind(body, at, b'{')?;
    let (mut at, mut others) = (start(body, behind_brace)?, Others::None);
    while body.get(at) != Some(&b'}') {
        let (key, end) = read::<String>(body, at)?;
        let value = start(body, behind(body, start(body, end)?, b':')?)?;
        let (_, end) = read::<IgnoredAny>(body, value)?;
        if key == name {
            return Some(Found::At(value..end));
        }
        others = Others::Some;
        at = start(body, end)?;
        if body.get(at) == Some(&b',') {
            at = start(body, at.checked_add(1)?)?;
        }
    }
    Some(Found::Absent(Members { place: behind_brace, others }))
}

/// The value at `at`, and its end.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8], at: usize) -> Option<(T, usize)> {
    let mut values = Deserializer::from_slice(body.get(at..)?).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, at.checked_add(values.byte_offset())?))
}

/// The first byte at or after `at` that is not white space.
fn start(body: &[u8], at: usize) -> Option<usize> {
    let rest = body.get(at..)?;
    at.checked_add(rest.iter().position(|byte| !byte.is_ascii_whitespace())?)
}

fn behind(body: &[u8], at: usize, byte: u8) -> Option<usize> {
    if *body.get(at)? == byte { at.checked_add(1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amended(body: &str) -> Option<String> {
        amend(body.as_bytes(), "limit", 50).map(|body| String::from_utf8(body).unwrap())
    }

    // Proves: X8
    #[test]
    fn only_the_argument_changes() {
        let body = r#" {"jsonrpc":"2.0", "id":1e0,"params" : {"_meta":{"limit":[1.0]},"name":"t", "arguments" :
            { "n":{"limit":1},"big":123456789012345678901234567890 , "lim\u0069t" : OLD , "t":"\u00e9" } },"method":"m"} "#;
        for old in ["5000", "-1", "null", "1e9", "\"x\"", "[1,{\"limit\":2}]"] {
            let body = body.replace("OLD", old);
            assert_eq!(amended(&body).unwrap(), body.replace(&format!(" {old} ,"), " 50 ,"));
        }
    }

    // Proves: X8
    #[test]
    fn an_absent_argument_is_put_in() {
        for (params, expected) in [
            (r#"{"name":"t"}"#, r#"{"arguments":{"limit":50},"name":"t"}"#),
            (r#"{"arguments":{ }}"#, r#"{"arguments":{"limit":50 }}"#),
            (r#"{"arguments":{"a":1}}"#, r#"{"arguments":{"limit":50,"a":1}}"#),
            (r#"{}"#, r#"{"arguments":{"limit":50}}"#),
            (r#"{"arguments": null ,"name":"t"}"#, r#"{"arguments": {"limit":50} ,"name":"t"}"#),
        ] {
            let body = format!(r#"{{"params":{params}}}"#);
            assert_eq!(amended(&body).unwrap(), format!(r#"{{"params":{expected}}}"#));
        }
        for bad in ["[]", "", "{", r#"{"params":[]}"#, r#"{"params":{"arguments":[]}}"#, "{}"] {
            assert_eq!(amended(bad), None, "{bad}");
        }
    }
}
