//! Secrets inside of texts.
//!
//! Owns the forms by which they are known: after a secret name (`password=…`, `Authorization: …`), before
//! the host of a URL, tokens by their form, private keys. A text is read once, from start to end, and no
//! further than what is shown of it and a little more.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::name::is_secret;
use super::number;

/// Stands for a secret.
pub(super) const REDACTED: &str = "[redacted]";
/// Stands for a number that is secret by itself until names were looked for: a letter for private use.
const NUMBER: char = '\u{f8ff}';
/// Longer words before `=` or `:` are no names.
const LONGEST_NAME: usize = 64;
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
/// The word of it that nothing else begins with.
const BEHIND_PRIVATE: &str = "KEY-----";
/// How tokens of services that many use begin; a token is longer.
const TOKENS: [&str; 32] = [
    "pck_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "hf_",
    "npm_",
    "pypi-",
    "hvs.",
    "hvb.",
    "AKIA",
    "ASIA",
    "AIza",
    "AGE-SECRET-KEY-",
    "dapi",
    "dop_v1_",
    "glrt-",
    "SG.",
    "shpat_",
    "whsec_",
    "xoxa-",
    "ya29.",
];
const SHORTEST_TOKEN: usize = 20;

/// `text` without secrets.
pub(super) fn masked<'t>(text: &'t str, names: &[String]) -> Cow<'t, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    match without_numbers(text) {
        Some(text) => Cow::Owned(masked_forms(&text, names).replace(NUMBER, REDACTED)),
        None => masked_forms(text, names),
    }
}

/// A text with [`NUMBER`] for each number that is secret by itself; `None` if it has none. A number is no end of what
/// stands under a name: `password=4111…-x` is one value.
fn without_numbers(text: &str) -> Option<String> {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((from, to)) = number::find(rest) {
        kept.push_str(rest.get(..from).unwrap_or_default());
        kept.push(NUMBER);
        rest = rest.get(to..).unwrap_or_default();
    }
    (!kept.is_empty()).then(|| kept + rest)
}

/// The same, where no number is secret by itself.
fn masked_forms<'t>(text: &'t str, names: &[String]) -> Cow<'t, str> {
    if let Some((before, behind)) = text.split_once(PRIVATE_KEY) {
        let before = before.rsplit_once("-----BEGIN").map_or(before, |(before, _)| before);
        let after = behind.split_once(PRIVATE_KEY).map_or("", |(_, after)| after);
        let (before, after) = (masked_words(before, names), masked_forms(after, names));
        return Cow::Owned(format!("{before}{REDACTED}{after}"));
    }
    Cow::Owned(masked_words(text, names))
}

/// Whether one look tells that nothing in `text` is a secret: no name has a value, no word is as long as a token or goes
/// before a credential. Most arguments are such texts.
fn is_harmless(text: &str) -> bool {
    let (mut word, mut digits) = (0, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'/' => {}
            b'0'..=b'9' => digits = digits.saturating_add(1),
            b' ' | b',' => {
                if !is_plain(text.get(word..at).unwrap_or_default()) {
                    return false;
                }
                word = at.saturating_add(1);
            }
            _ => return false,
        }
    }
    is_plain(text.get(word..).unwrap_or_default()) && digits < number::FEWEST_DIGITS
}

/// Whether a word of letters, digits and `-_./` is no secret, and says of no other one that it is.
fn is_plain(word: &str) -> bool {
    word.len() < SHORTEST_TOKEN
        && !is_scheme(word)
        && !word.starts_with(BEHIND_PRIVATE)
        && !word.starts_with("--")
}

/// Whether a credential stands behind the word, in a header.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn masked_words(text: &str, names: &[String]) -> String {
    let mut masked = String::with_capacity(text.len());
    let (mut rest, mut next) = (text, Next::Anything);
    while !rest.is_empty() {
        let start = rest.find(|letter| !is_delimiter(letter)).unwrap_or(rest.len());
        let (between, behind) = rest.split_at_checked(start).unwrap_or_default();
        masked.push_str(between);
        let end = behind.find(is_delimiter).unwrap_or(behind.len());
        let (word, behind) = behind.split_at_checked(end).unwrap_or_default();
        rest = behind;
        if !word.is_empty() {
            let tag = between.ends_with('<') && !word.starts_with('/');
            next = push(word, next, names, &mut masked);
            if tag && is_secret(word, names) {
                (rest, next) = element(word, rest, names, &mut masked);
            }
        }
    }
    masked
}

/// What stands in `<password>…</password>`, attributes or not: secret to its end, and the next word without one. In
/// `login <password> <host>` nothing stands in it.
fn element<'t>(
    word: &str,
    rest: &'t str,
    names: &[String],
    masked: &mut String,
) -> (&'t str, Next) {
    let Some((attributes, inner)) = rest.split_once('>') else { return (rest, Next::Separator) };
    if attributes.contains('<') {
        return (rest, Next::Separator);
    }
    let closing = format!("</{word}");
    let ends = |(at, found): &(usize, &str)| {
        let behind = inner.get(at.saturating_add(found.len())..).unwrap_or_default();
        behind.is_empty()
            || behind.starts_with(|letter: char| letter == '>' || letter.is_whitespace())
    };
    let end = inner.match_indices(&closing).find(ends).map(|(at, _)| at);
    // Of one that is cut off, what stands before the next.
    let cut = || (!attributes.is_empty()).then(|| inner.find('<').unwrap_or(inner.len()));
    if let Some(end) = end.or_else(cut) {
        masked.extend([&*masked_words(attributes, names), ">"]);
        if end > 0 {
            masked.push_str(REDACTED);
        }
        return (inner.get(end..).unwrap_or_default(), Next::Anything);
    }
    let is_form = inner.is_empty() || inner.trim_start().starts_with('<');
    (rest, if is_form { Next::Separator } else { Next::Secret })
}

/// What is known of the next word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// A secret.
    Secret,
    /// A secret, if it looks like one: people write "bearer" and "basic" in sentences, too.
    Credential,
    /// A secret, if a separator comes first.
    Separator,
    /// A name and a password with a colon between them.
    User,
}

fn is_delimiter(letter: char) -> bool {
    matches!(
        letter,
        '"' | '\''
            | '`'
            | ','
            | ';'
            | '&'
            | '<'
            | '>'
            | '('
            | ')'
            | '{'
            | '}'
            | '['
            | ']'
            | '|'
            | '\\'
    ) || letter.is_whitespace()
}

/// Writes one word; says what the next one is.
fn push(word: &str, next: Next, names: &[String], masked: &mut String) -> Next {
    if matches!(word, "-u" | "--user") && next == Next::Anything {
        masked.push_str(word);
        return Next::User;
    }
    if let (Next::User, Some((user, password))) = (next, word.split_once(':'))
        && !is_no_password(user, password)
    {
        masked.extend([user, ":", REDACTED]);
        return Next::Anything;
    }
    if next == Next::Separator && matches!(word, "=" | ":" | ":=" | "=>") {
        masked.push_str(word);
        return Next::Secret;
    }
    if is_scheme(word) {
        masked.push_str(word);
        return if next == Next::Secret { next } else { Next::Credential };
    }
    if next == Next::Secret || (next == Next::Credential && is_odd(word)) || is_token(word) {
        masked.push_str(REDACTED);
        return Next::Anything;
    }
    // What stands behind a secret name and a colon is secret as a whole.
    if word.contains('%')
        && named(word, ':', names).is_none_or(|(before, _)| before.contains(['%', '=']))
        && let Some(encoded) = within_encoded(&without_user(word), names)
    {
        masked.push_str(&without_tokens(&encoded));
        return Next::Anything;
    }
    match named(word, '=', names).or_else(|| named(word, ':', names)) {
        Some((before, "")) => {
            masked.push_str(&without_tokens(&without_user(before)));
            Next::Secret
        }
        Some((before, _)) => {
            masked.push_str(&without_tokens(&without_user(before)));
            masked.push_str(REDACTED);
            Next::Anything
        }
        None => {
            masked.push_str(&without_tokens(&without_user(word)));
            match is_secret(word, names) {
                // `--password …`, and `password = …`.
                true if word.starts_with("--") => Next::Secret,
                true => Next::Separator,
                false => Next::Anything,
            }
        }
    }
}

/// Whether what follows `-u` is a URL, or the numbers of a user and a group.
fn is_no_password(user: &str, password: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    password.starts_with("//") || (is_number(user) && is_number(password) && !user.is_empty())
}

/// A word without tokens that are a segment of its path or a value of its query.
fn without_tokens(word: &str) -> Cow<'_, str> {
    const BETWEEN: [char; 6] = ['/', '?', '=', ':', '#', '@'];
    if word.len() < SHORTEST_TOKEN || !word.split(BETWEEN).any(is_token) {
        return Cow::Borrowed(word);
    }
    let mut kept = String::with_capacity(word.len());
    for part in word.split_inclusive(BETWEEN) {
        let inner = part.strip_suffix(BETWEEN).unwrap_or(part);
        let separator = part.get(inner.len()..).unwrap_or_default();
        kept.push_str(if is_token(inner) { REDACTED } else { inner });
        kept.push_str(separator);
    }
    Cow::Owned(kept)
}

/// A word without the secret values of a query that was percent-encoded: `next=https%3A%2F%2Fa%2F%3Ftoken%3D…`, or one
/// whose name was. `None` if it has none.
fn within_encoded(word: &str, names: &[String]) -> Option<String> {
    let (mut masked, mut rest) = (String::with_capacity(word.len()), word);
    let mut found = false;
    while let Some((before, separator, behind)) = encoded_separator(rest) {
        let name = percent_decoded(before);
        let name = name.rsplit(['?', '&', '/', '#', ';', '=']).next().unwrap_or_default();
        masked.extend([before, separator]);
        rest = behind;
        if name.len() <= LONGEST_NAME && is_secret(name, names) {
            // Behind a plain `=`, `%26` is part of the value.
            let end = match separator {
                "=" => behind.find('&'),
                _ => [behind.find("%26"), behind.find('&')].into_iter().flatten().min(),
            };
            let end = end.unwrap_or(behind.len());
            masked.push_str(REDACTED);
            rest = behind.get(end..).unwrap_or_default();
            found = true;
        }
    }
    masked.push_str(rest);
    found.then_some(masked)
}

/// The next `=` of a text, in clear or encoded, and what stands around it.
fn encoded_separator(text: &str) -> Option<(&str, &str, &str)> {
    let plain = text.find('=').map(|at| (at, 1));
    let encoded = ["%3D", "%3d"].map(|escape| text.find(escape).map(|at| (at, escape.len())));
    let (at, length) = plain.into_iter().chain(encoded.into_iter().flatten()).min()?;
    let (before, rest) = text.split_at_checked(at)?;
    let (separator, behind) = rest.split_at_checked(length)?;
    Some((before, separator, behind))
}

/// As a server reads it, once; what is no escape stays.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        let escape = behind.first_chunk::<2>().filter(|_| *byte == b'%');
        let escaped = escape.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands before a secret value, separator included, and the value.
fn named<'w>(word: &'w str, separator: char, names: &[String]) -> Option<(&'w str, &'w str)> {
    let at = word.find(separator)?.checked_add(separator.len_utf8())?;
    let (before, value) = word.split_at_checked(at)?;
    if value.starts_with("//") {
        return None;
    }
    let name = before.trim_end_matches(separator);
    let name = name.rsplit(['?', '/', '#']).next().unwrap_or_default();
    (name.len() <= LONGEST_NAME && is_secret(name, names)).then_some((before, value))
}

/// A URL without a password before its host, and without a user name that may be one; other words as they are.
fn without_user(word: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = word.split_once("://") else {
        return Cow::Borrowed(word);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
    let Some((user, host)) = authority.rsplit_once('@') else {
        return Cow::Borrowed(word);
    };
    let user = match user.split_once(':') {
        Some((user, _)) => format!("{user}:{REDACTED}"),
        None if user.len() >= SHORTEST_TOKEN => REDACTED.to_owned(),
        None => user.to_owned(),
    };
    Cow::Owned(format!("{scheme}://{user}@{host}{path}"))
}

/// Whether a token or a private key stands in `text` for certain: by its form, with the digits and capitals of what a
/// program drew. Examples of documentation are none.
pub(super) fn has_token(text: &str) -> bool {
    const BETWEEN: [char; 8] = ['/', '?', '=', ':', '#', '@', '%', '!'];
    let is_example = |word: &str| {
        let lower = word.to_ascii_lowercase();
        ["example", "xxxx", "0123456789", "123456789"].iter().any(|part| lower.contains(part))
    };
    let words = || text.split(is_delimiter).flat_map(|word| word.split(BETWEEN));
    text.len() >= SHORTEST_TOKEN
        && (text.contains(PRIVATE_KEY)
            || words()
                // The end of a sentence.
                .map(|word| word.trim_end_matches('.'))
                .any(|word| is_token(word) && is_drawn(word) && !is_example(word)))
}

/// Whether a token looks drawn: an access key of a cloud has 20 capitals and digits, every other one all three kinds.
fn is_drawn(token: &str) -> bool {
    let is_access_key =
        token.len() == 20 && token.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let count = |kind: fn(&u8) -> bool| token.bytes().filter(kind).count();
    let mixed = count(u8::is_ascii_digit) > 2
        && count(u8::is_ascii_uppercase) > 1
        && count(u8::is_ascii_lowercase) > 1;
    match token.starts_with("AKIA") || token.starts_with("ASIA") {
        true => is_access_key && count(u8::is_ascii_digit) > 0,
        false => mixed,
    }
}

/// No word of a sentence.
fn is_odd(word: &str) -> bool {
    let is_pair =
        |word: &str| BASE64.decode(word).is_ok_and(|pair| pair.is_ascii() && pair.contains(&b':'));
    word.len() >= SHORTEST_TOKEN
        || is_pair(word)
        || (word.len() >= 8 && word.bytes().any(|b| b.is_ascii_digit() || b"=._~+/-".contains(&b)))
}

/// Whether a word is a token by its form. What has neither digit nor capital is a name: `npm_package_vulnerabilities`.
fn is_token(word: &str) -> bool {
    let of_token = |b: u8| b.is_ascii_alphanumeric() || b"._~+/=-".contains(&b);
    if word.len() < SHORTEST_TOKEN || !word.bytes().all(of_token) {
        return false;
    }
    let is_jwt = word.starts_with("eyJ") && word.bytes().filter(|b| *b == b'.').count() == 2;
    let is_drawn = |rest: &str| rest.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    is_jwt || TOKENS.iter().any(|start| word.strip_prefix(*start).is_some_and(is_drawn))
}

#[cfg(test)]
mod tests {
    use super::super::cases::{INNOCENT, SECRETS};
    use super::*;

    #[test]
    fn a_token_is_certain_and_a_name_is_none() {
        for text in [
            "claims.t != \"ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX\"",
            "ask AKIAQ3EGHTJ5ZK7PL2WM.",
            "api_key=sk-live4f9aK2mQ8xT1vB7nC3",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(has_token(text), "{text}");
        }
        for text in [
            "ASIA_PACIFIC_SOUTHEAST",
            "ASIAPACIFICSOUTHEAST",
            "sk-learn-classifier-v2",
            "npm_package_vulnerabilities",
            "AKIAIOSFODNN7EXAMPLE",
            "hf_transformers_bert_base_uncased_v2",
            "Authorization: Bearer <token>",
        ] {
            assert!(!has_token(text), "{text}");
        }
    }

    // Finding 6.2.
    // Proves: C6
    #[test]
    fn secrets_in_texts_are_known_by_their_form() {
        for (text, expected) in SECRETS {
            assert_eq!(masked(text, &[]), expected);
            assert!(!is_harmless(text), "{text}");
        }
        for text in INNOCENT {
            assert_eq!(masked(text, &[]), text);
            assert_eq!(masked_words(text, &[]), text);
        }
    }
}
