//! The media type of a request's body (RFC 9110 §8.3.1).
//!
//! Owns which ones are JSON in UTF-8. Parameters are parsed by their grammar (§5.6.6): unknown ones have no effect, and
//! an unreadable one may hide a `charset`.

/// Whether `value` is JSON in UTF-8, with any other parameters.
pub(crate) fn is_json(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    media.trim_matches(SPACE).eq_ignore_ascii_case("application/json") && are_harmless(parameters)
}

/// Optional white space (§5.6.3).
const SPACE: [char; 2] = [' ', '\t'];

/// `parameters = *( OWS ";" OWS [ parameter ] )`, after the first semicolon.
fn are_harmless(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches(SPACE);
        if let Some(behind) = rest.strip_prefix(';') {
            rest = behind;
            continue;
        }
        if rest.is_empty() {
            return true;
        }
        let Some((name, behind)) = rest.split_once('=').filter(|(name, _)| is_token(name)) else {
            return false;
        };
        let Some((value, behind)) = value(behind) else {
            return false;
        };
        let charset = name.eq_ignore_ascii_case("charset");
        if charset && !["utf-8", "utf8"].iter().any(|utf8| value.eq_ignore_ascii_case(utf8)) {
            return false;
        }
        rest = behind.trim_start_matches(SPACE);
        if !rest.is_empty() && !rest.starts_with(';') {
            return false;
        }
    }
}

/// A token or a quoted string (§5.6.4) at the start, and the rest.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end =
            text.find(|letter| letter == ';' || SPACE.contains(&letter)).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return is_token(token).then(|| (token.to_owned(), rest));
    };
    let (mut value, mut letters) = (String::new(), quoted.chars());
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(letters.next()?),
            letter if letter.is_control() && letter != '\t' => return None,
            letter => value.push(letter),
        }
    }
}

/// §5.6.2.
fn is_token(text: &str) -> bool {
    let of_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(of_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 4.4.
    #[test]
    fn json_in_utf_8_is_known_whatever_parameters_stand_beside() {
        for value in [
            "application/json",
            "Application/JSON ",
            "application/json;",
            "application/json ; ;charset=utf-8;",
            "application/json;charset=UTF8",
            r#"application/json; charset="u\tf-8""#,
            r#"application/json; profile="a;charset=x\""; v=1"#,
            "application/json; odata.metadata=minimal",
        ] {
            assert!(is_json(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "application/jsonl",
            "text/json",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=latin1",
            "application/json; charset",
            "application/json; charset =utf-8",
            r#"application/json; a="b"#,
            r#"application/json; a="b"c"#,
            "application/json; a=b c",
            "application/json; =b",
        ] {
            assert!(!is_json(value.as_bytes()), "{value}");
        }
    }
}
