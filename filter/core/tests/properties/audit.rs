//! The audit log: its allowed content, its length, and its verification.
//!
//! Owns random arguments that carry marked secrets.

use portcullis_core::audit::{Chain, Entry, Redaction, Start, Verifier, redact};
use portcullis_core::json::{canonical, parse_strict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{cases, json};

/// Part of every value that must not be logged, and of no other.
const MARK: &str = "CANARY";
/// Names from a policy.
const NAMES: [&str; 2] = ["ssn", "Date-of-Birth"];

/// A name whose value must not be logged, in common spellings.
fn secret_name() -> impl Strategy<Value = String> {
    let fragment = select(vec![
        "api key",
        "password",
        "passwd",
        "passphrase",
        "token",
        "secret",
        "authorization",
        "credential",
        "private key",
        "cookie",
        "session",
        "card number",
    ]);
    let around = ("[a-z]{0,3}", fragment, "[a-z]{0,3}").prop_map(|(a, b, c)| [&a, b, &c].concat());
    let whole = select(vec!["cvv", "pin", "ssn", "date of birth"]).prop_map(str::to_owned);
    (prop_oneof![around, whole], select(vec!["", "_", "-", " ", "."]), any::<u64>()).prop_map(
        |(name, separator, upper)| {
            let name = name.replace(' ', separator);
            let letters = name.chars().enumerate();
            letters
                .map(|(at, c)| if upper >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
                .collect()
        },
    )
}

/// Arguments with marked secrets at any depth.
fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let marked = prop_oneof![
        Just(json!(MARK)),
        Just(json!([{"a": [MARK]}, MARK])),
        Just(json!({"CANARY": {"CANARY": 1}})),
    ];
    let value = json::value().prop_recursive(6, 24, 4, move |inner| {
        let plain = ("[a-z]{1,2}", inner.clone());
        let secret = (secret_name(), marked.clone());
        let member = prop_oneof![plain, secret];
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            vec(member, 0..4).prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    });
    value.prop_map(|value| Map::from_iter([("a".to_owned(), value)]))
}

/// Arguments that make an entry long: one value many times, deeply nested.
fn bulky() -> impl Strategy<Value = Map<String, Value>> {
    let items = prop_oneof![
        json::value(),
        select(vec![json!([]), json!({}), json!(""), json!({"aaaaaaaaaa": 1}), json!({"pin": 1})]),
    ];
    (items, 0_usize..500, 0_usize..20).prop_map(|(item, times, depth)| {
        let mut value = Value::from(vec![item; times]);
        for _ in 0..depth {
            value = json!([value]);
        }
        Map::from_iter([("a".to_owned(), value)])
    })
}

fn redacted(arguments: &Map<String, Value>, max_bytes: usize) -> String {
    let names = NAMES.map(str::to_owned);
    redact(arguments, Redaction { names: &names, paths: &[], max_bytes }).canonical()
}

proptest! {
    #![proptest_config(cases(256))]

    // Proves: C6, B14
    #[test]
    fn nothing_under_a_secret_name_is_logged(arguments in arguments(), max_bytes in 0_usize..4_096) {
        let logged = redacted(&arguments, max_bytes);
        prop_assert!(!logged.contains(MARK), "{logged}");
    }

    // Proves: A16
    #[test]
    fn what_is_logged_is_bounded_whatever_comes(
        arguments in prop_oneof![arguments(), bulky()],
        max_bytes in 0_usize..600,
    ) {
        // A control character takes six bytes in JSON; each open list or object may end in a mark.
        let bound = 6 * max_bytes + 1_024;
        let logged = redacted(&arguments, max_bytes);
        prop_assert!(logged.len() <= bound, "{} bytes, at most {bound}: {logged}", logged.len());
    }

    // Proves: A18
    #[test]
    fn every_entry_verifies_whatever_it_says(entries in vec(entry(), 1..6)) {
        let (mut chain, mut verifier) = (Chain::new("c".into()), Verifier::new(Start::Genesis));
        for entry in entries {
            let line = chain.append(&entry);
            prop_assert_eq!(verifier.line(&line), Ok(()), "{}", line);
            prop_assert!(!line.contains('\n'));
            let mut members = parse_strict(line.as_bytes()).unwrap();
            members.as_object_mut().unwrap().remove("hash");
            let text = serde_json_canonicalizer::to_string(&members).unwrap();
            let digest = base16ct::lower::encode_string(&Sha256::digest(text.as_bytes()));
            prop_assert!(line.ends_with(&format!(",\"hash\":\"{digest}\"}}")), "{}", line);
            let raw = ['\u{7f}', '\u{85}', '\u{200b}', '\u{202e}', '\u{2028}'];
            prop_assert!(!line.contains(raw), "raw");
        }
    }

    // Proves: A17, A18
    #[test]
    fn a_mangled_line_is_named_unless_it_still_says_the_same(
        entry in entry(),
        mangled in any::<Index>(),
        byte in prop_oneof![any::<u8>(), select(b"0123456789abcdef\" ".to_vec())],
    ) {
        let line = Chain::new("c".into()).append(&entry);
        let mut bytes = line.clone().into_bytes();
        let at = mangled.index(bytes.len());
        bytes[at] = byte;
        let Ok(forged) = String::from_utf8(bytes) else { return Ok(()) };
        if Verifier::new(Start::Genesis).line(&forged).is_ok() {
            let meaning = |line: &str| canonical(&parse_strict(line.as_bytes()).unwrap());
            prop_assert_eq!(meaning(&forged), meaning(&line));
        }
    }

    #[test]
    fn any_line_is_an_entry_or_a_fault(
        line in prop_oneof![
            json::document().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            any::<String>(),
        ],
    ) {
        prop_assert!(Verifier::new(Start::Anywhere).line(&line).is_err());
    }
}

prop_compose! {
    fn entry()(
        arguments in arguments(),
        texts in [json::text(), json::text(), json::text(), json::text()],
        numbers in any::<(u64, Option<i64>, Option<u64>)>(),
    ) -> Entry {
        let [principal, mcp_method, path, user_agent] = texts;
        let (latency_ms, error_code, rows_returned) = numbers;
        let mut entry = Entry { path, latency_ms, error_code, rows_returned, ..Entry::default() };
        entry.principal = Some(principal);
        entry.mcp_method = Some(mcp_method);
        entry.user_agent = Some(user_agent);
        let names = NAMES.map(str::to_owned);
        entry.note_input(&arguments, Redaction { names: &names, paths: &[], max_bytes: 256 });
        entry
    }
}
