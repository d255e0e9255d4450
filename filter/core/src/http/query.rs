//! The query of a URL as the most lenient server reads it: no spelling may hide a parameter.
//!
//! Owns the reading of names. Its users know the names' meaning.

use crate::glob::Globs;

/// One `name=value`.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    /// As written.
    pub(crate) name: &'a [u8],
    /// As a lenient server may read it: unescaped, only letters and digits, in lower case, an array item like the
    /// array.
    pub(crate) letters: Vec<u8>,
    pub(crate) value: Option<&'a [u8]>,
}

/// All pairs, in order.
pub(crate) fn pairs(query: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    query.split(|b| matches!(b, b'&' | b';')).map(|pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let name = parts.next().unwrap_or_default();
        Pair { name, letters: letters(name), value: parts.next() }
    })
}

/// Names of the session in the query of a POST to an HTTP+SSE server; SDKs use either.
pub(crate) const SESSION: [&[u8]; 2] = [b"sessionId", b"session_id"];

/// Whether servers may read `name` as a session, although it is neither of these: such a request is refused.
pub(crate) fn is_misnamed_session(name: &[u8]) -> bool {
    letters(name) == b"sessionid" && !SESSION.contains(&name)
}

/// Whether every parameter is a session or one of `named`, by its name as written: servers agree on no other spelling. An
/// empty one is not: Envoy writes it behind a query that the operator's route sets, and changes that one's last value.
pub(crate) fn is_named(query: &[u8], named: &Globs) -> bool {
    query.is_empty()
        || pairs(query).all(|Pair { name, .. }| {
            SESSION.contains(&name)
                || std::str::from_utf8(name)
                    .is_ok_and(|name| !name.is_empty() && named.matches(name))
        })
}

/// A name as a lenient server may read it.
pub(crate) fn letters(name: &[u8]) -> Vec<u8> {
    let mut letters = Vec::new();
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after.split_at_checked(2)) {
            (b'%', Some((digits, behind))) => match std::str::from_utf8(digits) {
                Ok(digits) => (u8::from_str_radix(digits, 16).unwrap_or(b'%'), behind),
                Err(_) => (b'%', after),
            },
            _ => (*byte, after),
        };
        match byte {
            // What stands in brackets is a part of the parameter; in front of a name they are none to Express 4.
            b'[' if !letters.is_empty() => break,
            byte if byte.is_ascii_alphanumeric() => letters.push(byte.to_ascii_lowercase()),
            _ => {}
        }
        rest = after;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding F14.
    // Proves: B2
    #[test]
    fn what_is_not_named_is_seen_in_any_spelling() {
        let globs = |names: &[&str]| {
            let mut globs = Globs::default();
            names.iter().for_each(|name| globs.insert(name));
            globs
        };
        let named = globs(&["toolsets", "x_*"]);
        for query in [
            "",
            "toolsets=all&x_1=2;x_2",
            "toolsets=a&toolsets=b",
            "sessionId=abc&toolsets",
            "session_id=abc",
        ] {
            assert!(is_named(query.as_bytes(), &named), "{query}");
        }
        for query in [
            "read_only=false",
            "toolsets=all&read_only=false",
            "toolsets=all;read_only=false",
            "Toolsets=all",
            "tool%73ets=all",
            "toolsets[]=all",
            "toolsets%5B%5D=all",
            "+toolsets=all",
            "=x",
            "&",
            ";&",
            "toolsets=all&",
            "&toolsets=all",
            "x%5F1=2",
        ] {
            assert!(!is_named(query.as_bytes(), &named), "{query}");
        }
        for query in [&b"\xff=1"[..], b"=1", b"&"] {
            assert!(!is_named(query, &globs(&["*"])), "{query:?}");
        }
    }

    // Proves: B2
    #[test]
    fn names_are_read_as_leniently_as_by_anyone() {
        let read = |query: &str| {
            let pairs = pairs(query.as_bytes());
            let named = pairs.map(|pair| String::from_utf8(pair.letters).unwrap());
            named.collect::<Vec<_>>()
        };
        assert_eq!(read("a=1&b;c=2"), ["a", "b", "c"]);
        for name in [
            "sessionId",
            "session_id",
            "session%49d",
            "%73ESSION-id",
            "sessionId[]",
            "sessionId%5B0%5d",
            "[sessionId]",
            "%5bsession_id%5D",
            "[[sessionId",
        ] {
            assert_eq!(read(&format!("{name}=x")), ["sessionid"], "{name}");
        }
        assert_eq!(read("100%=x&%4=y&%zz=z"), ["100", "4", ""]);
    }
}
