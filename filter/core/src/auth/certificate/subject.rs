//! Distinguished names as text (RFC 4514; RFC 2253 as BoringSSL prints it).
//!
//! Owns the search for the common name, and never guesses: an ambiguous name has none. Knows no other attribute, and
//! nothing of certificates.

/// The common name, when the whole of `name` is well-formed and has exactly one, which is printable text. A value that
/// contains `,CN=` does not count as a common name.
#[must_use]
pub fn common_name(name: &str) -> Option<String> {
    let mut found = attributes(name)?.into_iter().filter(|attribute| attribute.is_common_name());
    match (found.next(), found.next()) {
        (Some(only), None) => only.text(),
        (Some(_) | None, _) => None,
    }
}

/// `type=value`; the value is `None` for a dump of DER (`#0c05…`), which is not decoded here.
struct Attribute<'a> {
    kind: &'a str,
    value: Option<Vec<u8>>,
}

impl Attribute<'_> {
    /// RFC 4514 §3: `CN`, in any case, or its OID, which must not pass for another attribute.
    fn is_common_name(&self) -> bool {
        self.kind.eq_ignore_ascii_case("CN")
            || self.kind.eq_ignore_ascii_case("commonName")
            || self.kind == "2.5.4.3"
    }

    fn text(self) -> Option<String> {
        let text = String::from_utf8(self.value?).ok()?;
        (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
    }
}

/// Every attribute, in order; the attributes of a multi-valued RDN (`+`) are separate.
fn attributes(name: &str) -> Option<Vec<Attribute<'_>>> {
    let mut found = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (kind, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        found.push(Attribute { kind: is_type(kind).then_some(kind)?, value });
        rest = match after.strip_prefix([',', '+']) {
            // A separator must be followed by another attribute.
            Some(next) => (!next.is_empty()).then_some(next)?,
            None => after,
        };
    }
    Some(found)
}

/// RFC 4514 §3: `descr` or `numericoid`.
fn is_type(text: &str) -> bool {
    let descriptor = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = |arc: &str| {
        let plain = !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit());
        plain && (arc == "0" || !arc.starts_with('0'))
    };
    descriptor || text.split('.').all(number)
}

type Value<'a> = (Option<Vec<u8>>, &'a str);

/// The value at the start of `text`, and the rest: empty, or `,` or `+` and more.
fn value(text: &str) -> Option<Value<'_>> {
    if let Some(dump) = text.strip_prefix('#') {
        let end = dump.find([',', '+']).unwrap_or(dump.len());
        let (digits, rest) = dump.split_at_checked(end)?;
        let hex = digits.len() >= 2 && digits.len() % 2 == 0;
        return (hex && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some((None, rest));
    }
    let mut bytes = Vec::new();
    let mut rest = text;
    // A space at either end must be escaped, so the end of the value is unambiguous.
    let mut bare_space = text.starts_with(' ');
    if bare_space {
        return None;
    }
    loop {
        let mut letters = rest.chars();
        match letters.next() {
            None | Some(',' | '+') => break,
            Some('\\') => {
                let (byte, after) = escaped(letters.as_str())?;
                bytes.push(byte);
                rest = after;
                bare_space = false;
            }
            Some('"' | ';' | '<' | '>' | '\0') => return None,
            Some(letter) => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = letters.as_str();
                bare_space = letter == ' ';
            }
        }
    }
    (!bare_space).then_some((Some(bytes), rest))
}

/// The byte that a backslash escapes: one of the special characters, or two hex digits.
fn escaped(text: &str) -> Option<(u8, &str)> {
    let first = text.bytes().next()?;
    if b" \"#+,;<=>\\".contains(&first) {
        return Some((first, text.get(1..)?));
    }
    let digits = text.get(..2).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some((u8::from_str_radix(digits, 16).ok()?, text.get(2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: B8
    #[test]
    fn the_one_common_name_is_found() {
        for (name, expected) in [
            ("CN=agent-1", "agent-1"),
            ("O=acme,CN=agent-1", "agent-1"),
            ("CN=agent-1,OU=bots,O=acme", "agent-1"),
            ("cn=agent-1", "agent-1"),
            ("2.5.4.3=agent-1", "agent-1"),
            ("OU=a+CN=agent-1,O=acme", "agent-1"),
            (r"CN=agent\, of O\=acme", "agent, of O=acme"),
            (r#"CN=\"quoted\" \\ \+ \#"#, r#""quoted" \ + #"#),
            (r"CN=J\C3\BCrgen", "Jürgen"),
            ("CN=Jürgen", "Jürgen"),
            (r"CN=\ a\ ", " a "),
            ("CN=a=b", "a=b"),
            ("1.2.3.4=#0c0161,CN=a", "a"),
        ] {
            assert_eq!(common_name(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_value_that_looks_like_an_attribute_is_none() {
        assert_eq!(common_name(r"O=acme\,CN=admin"), None);
        assert_eq!(common_name(r"O=acme\2CCN\3Dadmin"), None);
        assert_eq!(common_name(r"O=acme\,CN=admin,CN=agent").as_deref(), Some("agent"));
        assert_eq!(common_name(r"O=a\\,CN=b").as_deref(), Some("b"));
    }

    #[test]
    fn what_is_ambiguous_or_unreadable_has_no_common_name() {
        for name in [
            "",
            "O=acme",
            "CN=",
            "CN",
            "=a",
            "CN=a,",
            "CN=a+",
            ",CN=a",
            "CN=a,,O=b",
            // Two common names, in hidden forms.
            "CN=a,CN=b",
            "CN=a+CN=b",
            "CN=a,cn=b",
            "CN=a,2.5.4.3=b",
            "CN=a,CN=#0c0162",
            "CN=a,commonName=b",
            // Encodings that are not text.
            "CN=#0c0161",
            "CN=#0c016",
            "CN=#",
            "CN=#0c01zz",
            r"CN=\FF",
            r"CN=a\00b",
            r"CN=a\0Ab",
            "CN=a\u{7}",
            // Another form.
            "CN=\"a\"",
            "CN=a;O=b",
            "CN=a<b",
            " CN=a",
            "CN =a",
            "CN= a",
            "CN=a ",
            "CN=a ,O=b",
            r"CN=a\",
            r"CN=a\x",
            r"CN=\4",
            "OID.2.5.4.3=a",
            "2.5.4.03=a",
            "2..3=a",
            "/CN=a",
            "CN=a, O=b",
        ] {
            assert_eq!(common_name(name), None, "{name:?}");
        }
    }
}
