//! Names of members and labels whose values are secret.
//!
//! Owns the list, and when two names are the same: only letters and digits count, not case, width or separators.

use std::borrow::Cow;

/// Parts of names; a name that contains one is secret.
const PARTS: [&str; 26] = [
    "accesskey",
    "accountkey",
    "apikey",
    "authorization",
    "bearer",
    "cardnumber",
    "connectionstring",
    "cookie",
    "credential",
    "encryptionkey",
    "jwt",
    "masterkey",
    "mfacode",
    "onetimecode",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "securitycode",
    "session",
    "signature",
    "signingkey",
    "sshkey",
    "token",
];
/// Names too short for a search inside other names: "compass" contains "pass", "author" contains "auth".
const WHOLE: [&str; 35] = [
    "adminpass",
    "assertion",
    "auth",
    "authcode",
    "authheader",
    "authkey",
    "basicauth",
    "cardcvc",
    "cardcvv",
    "cardpin",
    "cvc",
    "cvv",
    "dbpass",
    "emailpass",
    "ftppass",
    "hmac",
    "httpauth",
    "mailpass",
    "mfa",
    "otp",
    "otpcode",
    "pass",
    "pin",
    "pincode",
    "privkey",
    "proxyauth",
    "pw",
    "redisauth",
    "rootpass",
    "sig",
    "smtppass",
    "totp",
    "userpass",
    "userpin",
    "xauth",
];
/// Names of numbers of tokens and sessions, which are no secrets.
const COUNTS: [&str; 14] = [
    "completiontokens",
    "inputtokens",
    "maxcompletiontokens",
    "maxinputtokens",
    "maxoutputtokens",
    "maxtokens",
    "mintokens",
    "numtokens",
    "outputtokens",
    "prompttokens",
    "tokenbudget",
    "tokencount",
    "tokenlimit",
    "totaltokens",
];
/// Longer ones are no names.
const LONGEST: usize = 256;

/// The first index in [`PARTS`], which is sorted, for each letter.
const BEGIN: [usize; 27] = begin();

#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "runs when the crate is compiled, where overflow and a wrong index are errors"
)]
const fn begin() -> [usize; 27] {
    let (mut begin, mut letter) = ([0; 27], 0);
    while letter < 26 {
        let mut at = begin[letter];
        while at < PARTS.len() && (PARTS[at].as_bytes()[0] - b'a') as usize == letter {
            at += 1;
        }
        letter += 1;
        begin[letter] = at;
    }
    assert!(begin[26] == PARTS.len(), "the parts are in order");
    begin
}

/// The parts that start with `letter`.
fn parts_from(letter: u8) -> &'static [&'static str] {
    let nth = usize::from(letter.wrapping_sub(b'a'));
    let span = BEGIN.get(nth..).and_then(|rest| rest.first_chunk());
    span.and_then(|[from, to]| PARTS.get(*from..*to)).unwrap_or_default()
}

/// For each first letter of [`PARTS`], their second letters: one bit each.
const SECOND: [u32; 26] = second();

#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "runs when the crate is compiled, where overflow and a wrong index are errors"
)]
const fn second() -> [u32; 26] {
    let (mut second, mut at) = ([0; 26], 0);
    while at < PARTS.len() {
        let part = PARTS[at].as_bytes();
        second[(part[0] - b'a') as usize] |= 1 << (part[1] - b'a');
        at += 1;
    }
    second
}

/// Whether one of [`PARTS`] starts with these two letters.
fn begins_part(letter: u8, second: u8) -> bool {
    let letters = SECOND.get(usize::from(letter.wrapping_sub(b'a'))).copied().unwrap_or_default();
    let bit = 1_u32.checked_shl(second.wrapping_sub(b'a').into()).unwrap_or_default();
    letters & bit != 0
}

/// Whether the value under `name` is secret; of `names`, further secret names, the whole name must match.
pub(super) fn is_secret(name: &str, names: &[String]) -> bool {
    let plain = plain(name);
    !plain.is_empty() && (has_part(&plain) || WHOLE.contains(&&*plain) || is_one_of(&plain, names))
}

/// Whether `name` is one of `names`.
pub(super) fn is_named(name: &str, names: &[String]) -> bool {
    is_one_of(&plain(name), names)
}

fn is_one_of(plain: &str, names: &[String]) -> bool {
    names.iter().any(|secret| plain == self::plain(secret))
}

/// Whether both are the same name.
pub(super) fn same(one: &str, other: &str) -> bool {
    plain(one) == plain(other)
}

/// Whether a number under `name` is a count.
pub(super) fn is_count(name: &str) -> bool {
    COUNTS.contains(&&*plain(name))
}

/// Whether one of [`PARTS`] stands anywhere in `plain`. Names are short: one walk that looks at two letters is cheaper
/// than a search for each part.
fn has_part(plain: &str) -> bool {
    let mut rest = plain.as_bytes();
    while let [letter, behind @ ..] = rest {
        if behind.first().is_some_and(|second| begins_part(*letter, *second))
            && parts_from(*letter).iter().any(|part| rest.starts_with(part.as_bytes()))
        {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether the name denotes a name, whose value is a neighbour: a header, a variable, a field of a form.
pub(super) fn is_label(name: &str) -> bool {
    ["name", "key", "header", "field", "param", "parameter", "variable", "label"]
        .contains(&&*plain(name))
}

/// Whether the name denotes the value that belongs to a label.
pub(super) fn is_value(name: &str) -> bool {
    ["value", "values", "val", "v", "content", "data", "text", "default"].contains(&&*plain(name))
}

/// The letters and digits of a name, in lower case and of ordinary width.
fn plain(name: &str) -> Cow<'_, str> {
    let name = super::start(name, LONGEST);
    if name.bytes().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9')) {
        return Cow::Borrowed(name);
    }
    if name.is_ascii() {
        let mut plain = String::with_capacity(name.len());
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        letters.for_each(|letter| plain.push(char::from(letter.to_ascii_lowercase())));
        return Cow::Owned(plain);
    }
    let letters = name.chars().map(narrow).filter(|letter| letter.is_alphanumeric());
    Cow::Owned(letters.flat_map(char::to_lowercase).collect())
}

/// The letter that a compatibility form stands for: full width, mathematical, circled (of NFKC, what a
/// reader sees as the same word).
fn narrow(letter: char) -> char {
    let code = u32::from(letter);
    let nth = |first: u32, within: u32| code.saturating_sub(first).checked_rem(within).unwrap_or(0);
    let ascii = |first: u8, nth: u32| {
        u8::try_from(nth).map_or(letter, |nth| char::from(first.saturating_add(nth)))
    };
    let cased = |nth: u32| match nth {
        ..26 => ascii(b'A', nth),
        _ => ascii(b'a', nth.saturating_sub(26)),
    };
    match code {
        0xff01..=0xff5e => ascii(b'!', nth(0xff01, 94)),
        0x1d400..=0x1d6a3 => cased(nth(0x1d400, 52)),
        0x1d7ce..=0x1d7ff => ascii(b'0', nth(0x1d7ce, 10)),
        0x24b6..=0x24e9 => cased(nth(0x24b6, 52)),
        _ => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 6.2: these stood in clear.
    // Proves: C6
    #[test]
    fn a_secret_name_is_known_in_every_spelling() {
        for name in [
            "pwd",
            "pass",
            "bearer",
            "jwt",
            "access_key",
            "auth",
            "otp",
            "mfa_code",
            "sshKey",
            "signature",
            "connection_string",
            "cvc",
            "pin_code",
            "api:key",
            "pass/word",
            "ａｐｉ＿ｋｅｙ",
            "pass\u{200b}word",
            "to\u{200d}ken",
            "p\u{ad}assword",
            "𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝",
            "ⓣⓞⓚⓔⓝ",
            "API key",
            "x-auth",
            "Set-Cookie",
            "clientSecret",
            "ＰＩＮ",
            "ssn",
            "S.S.N.",
        ] {
            assert!(is_secret(name, &["ssn".to_owned()]), "{name}");
        }
        for name in [
            "compass",
            "author",
            "shipping",
            "limit",
            "spin",
            "",
            "-",
            "key",
            "passenger",
            "total",
            "design",
            "assign",
            "significant",
        ] {
            assert!(!is_secret(name, &["".to_owned()]), "{name}");
        }
    }
}
