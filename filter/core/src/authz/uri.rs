//! Resource URIs as a server may read them.
//!
//! Owns what a URI may also mean once it is unescaped. Opens nothing.

/// Whether `uri` has a `..` segment: a server that resolves it opens another resource than a pattern matched.
pub(super) fn climbs(uri: &str) -> bool {
    plain(&uri.to_ascii_lowercase()).split(['/', '\\', '?', '#']).any(|segment| segment == "..")
}

/// `uri` without escapes of plain characters, and without segments that mean nothing: what is denied
/// must not be open under another spelling. Escaped once or more often: who knows how many times it
/// is unescaped.
pub(super) fn plain(uri: &str) -> String {
    let (mut plain, mut rest) = (Vec::with_capacity(uri.len()), uri);
    while let Some((before, escaped)) = rest.split_once('%') {
        plain.extend_from_slice(before.as_bytes());
        let code = unescaped_percent(escaped);
        let byte = code.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii_graphic) {
            Some(byte) => plain.push(byte),
            None => plain.extend_from_slice(b"%"),
        }
        rest = match byte.filter(u8::is_ascii_graphic) {
            Some(_) => code.get(2..).unwrap_or_default(),
            None => code,
        };
    }
    plain.extend_from_slice(rest.as_bytes());
    let mut plain = String::from_utf8_lossy(&plain).into_owned();
    while plain.contains("/./") {
        plain = plain.replace("/./", "/");
    }
    plain
}

/// What follows a percent sign, once the sign itself is not escaped any more: `2525 2e` is `2e`.
fn unescaped_percent(escaped: &str) -> &str {
    escaped.trim_start_matches("25")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: C3
    #[test]
    fn uris_that_climb_are_told_from_those_that_only_have_dots() {
        for uri in [
            "file:///a/../b",
            "file:///a/..",
            "..",
            "file:///a/%2E./b",
            "file:///a/.%252e/b",
            "file:///a%2f..%2Fb",
            "file:///a/..\\b",
            "file:///a/%25252e%2e%255cb",
            "note://../b",
            "file:///a/..?x",
            "file:///a/..#x",
        ] {
            assert!(climbs(uri), "{uri}");
        }
        for uri in [
            "file:///a/...",
            "file:///a..b/c",
            "file:///.a/./b",
            "note://a%2520..",
            "a%",
            "a%2",
            "%e9/%25",
        ] {
            assert!(!climbs(uri), "{uri}");
        }
    }

    // Proves: C3
    #[test]
    fn another_spelling_of_a_uri_is_the_same_uri() {
        for uri in [
            "note://secret/a",
            "note://%73ecret/a",
            "note://%2573e%63ret%2Fa",
            "note://secret/././a",
        ] {
            assert_eq!(plain(uri), "note://secret/a", "{uri}");
        }
        for uri in ["a%", "a%2", "%e9/", "a%20b", "a%zz", "a%é"] {
            assert_eq!(plain(uri), uri);
        }
    }
}
