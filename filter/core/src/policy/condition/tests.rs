//! What holds, what does not, what cannot be said, and what is no condition.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::auth::{IdentityKind, Principal, Restrictions, Scopes};
use crate::id::{KeyId, OrgId, PolicyName};
use crate::time::UnixTime;

fn principal() -> Principal {
    Principal {
        org: OrgId::new("acme").unwrap(),
        identity: IdentityKind::Key(KeyId::new("k1a2").unwrap()).into(),
        name: "cursor".into(),
        role: PolicyName::new("analyst").unwrap(),
        tier: PolicyName::new("free").unwrap(),
        scopes: Scopes::Granted(BTreeSet::from(["crm:read".to_owned()])),
        agent: Some("bot-7".to_owned()),
        restrictions: Restrictions::default(),
    }
}

fn decide_with(text: &str, arguments: &Value) -> Result<bool, Undecided> {
    let condition = Condition::compile(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    let claims = json!({"team": "sales", "level": 3}).as_object().unwrap().clone();
    condition.holds(&Facts {
        principal: &principal(),
        claims: &claims,
        connector: &PolicyName::new("demo").unwrap(),
        tool: "transfer",
        arguments: arguments.as_object().unwrap(),
        // A Friday.
        now: UnixTime::from_micros(1_795_212_000_000_000),
        source: "10.1.2.3",
    })
}

fn decide(text: &str) -> Result<bool, Undecided> {
    let arguments = json!({
        "amount": 50, "rate": 0.5, "big": u64::MAX, "to": "Ops@acme.example", "dry": null,
        "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 3}], "nested": {"deep": {"er": true}}
    });
    decide_with(text, &arguments)
}

// Finding 4.2: Go and .NET take `Amount` for `amount`, and what they read was not decided upon.
// Proves: C9
#[test]
fn a_member_in_another_case_decides_nothing() {
    for (text, arguments) in [
        ("arguments.amount <= 100", json!({"amount": 5, "Amount": 5000})),
        ("!has(arguments.amount) || arguments.amount <= 100", json!({"AMOUNT": 5000})),
        ("arguments['amount'] <= 100", json!({"amount": 5, "amOunt": 5000})),
        ("!('limit' in arguments)", json!({"Limit": 1})),
        ("arguments.to.iban == 'x'", json!({"to": {"iban": "x", "IBAN": "y"}})),
        ("arguments.lines.all(l, l.n < 4)", json!({"lines": [{"n": 1, "N": 9}]})),
        ("arguments.task == 1", json!({"task": 1, "tas\u{212a}": 2})),
    ] {
        assert_eq!(decide_with(text, &arguments), Err(Undecided::Misspelt), "{text}");
    }
    for (text, arguments) in [
        ("principal.role == 'analyst' && arguments.a == 1", json!({"a": 1, "Role": 2})),
        ("arguments.a == 1 && arguments.A == 2", json!({"a": 1, "A": 2})),
        ("arguments.a == 'Key'", json!({"a": "Key", "key": 1, "KEY": 2})),
    ] {
        assert_eq!(decide_with(text, &arguments), Ok(true), "{text}");
    }
}

// Finding 4.3: what was compared was a rounded number.
// Proves: C9
#[test]
fn a_number_that_is_rounded_decides_nothing() {
    let read = |text: &str| crate::json::parse_strict(text.as_bytes()).unwrap();
    for amount in ["100000000000000000000001", "0.10000000000000000001", "-9223372036854775809"] {
        let arguments = read(&format!(r#"{{"amount":{amount}}}"#));
        for text in
            ["arguments.amount > 0", "arguments.amount <= 1e23 || true", "arguments.amount != null"]
        {
            assert_eq!(decide_with(text, &arguments), Err(Undecided::Inexact), "{text} {amount}");
        }
    }
    for (text, amount) in [
        ("arguments.amount == 9007199254740993", "9007199254740993"),
        ("arguments.amount == 1e21", "1000000000000000000000"),
        ("arguments.amount == 0.1", "1.0e-1"),
    ] {
        assert_eq!(
            decide_with(text, &read(&format!(r#"{{"amount":{amount}}}"#))),
            Ok(true),
            "{text}"
        );
    }
}

// Proves: C9
#[test]
fn conditions_speak_of_everything_that_is_known_of_a_call() {
    for text in [
        "arguments.amount <= 50 && arguments.amount > 49.5",
        "arguments.rate == 0.5 && arguments.big > 9223372036854775807",
        "arguments.to.lowerAscii().endsWith('@acme.example')",
        "has(arguments.amount) && !has(arguments.missing)",
        "!has(arguments.missing) || arguments.missing < 5",
        "arguments.dry == null",
        "arguments['nested']['deep'].er",
        "arguments.lines.all(line, line.n < 4) && arguments.lines.exists(line, line.sku == 'b')",
        "size(arguments.lines) == 2 && arguments.lines[0].sku in ['a', 'b']",
        "principal.org == 'acme' && principal.role == 'analyst' && principal.tier == 'free'",
        "principal.method == 'api_key' && principal.name == 'cursor'",
        "principal.agent == 'bot-7' && principal.agent.startsWith('bot-')",
        "'crm:read' in principal.scopes && !('crm:write' in principal.scopes)",
        "claims.team == 'sales' && claims.level >= 3",
        "tool == 'transfer' && connector == 'demo'",
        "time.weekday == 'fri' && time.hour == 22 && time.date == '2026-11-20'",
        "time.unix == 1795212000 && time.year == 2026 && time.month == 11 && time.day == 20",
        "inRange(source.address, '10.0.0.0/8') && !inRange(source.address, '192.0.2.0/24')",
        "string(arguments.amount) == '50' && int(arguments.rate) == 0",
    ] {
        assert_eq!(decide(text), Ok(true), "{text}");
    }
    assert_eq!(decide("arguments.amount < 50"), Ok(false));
}

// Proves: C9
#[test]
fn what_cannot_be_decided_is_not_true() {
    for (text, why) in [
        ("arguments.missing < 5", "No such key: missing"),
        ("arguments.to < 5", "found no matching overload for '_<_' applied to '(string, int)'"),
        ("arguments.amount", "it is neither true nor false"),
        ("arguments.amount / 0 == 1", "Division by zero of Int(50)"),
        ("arguments.lines[7].n == 1", "Index out of bounds: Int(7)"),
    ] {
        assert_eq!(decide(text).unwrap_err().to_string(), why, "{text}");
    }
}

#[test]
fn no_condition_is_compiled_that_could_never_be_decided() {
    let deep = format!("{}true{}", "(".repeat(400), ")".repeat(400));
    let long = format!("tool == '{}'", "x".repeat(LONGEST));
    let wide = format!("tool in [{}'']", "'',".repeat(300));
    for (text, found) in [
        ("argument.amount < 5", "the unknown name argument at 1:1"),
        ("tool == 'a' &&\n replace(tool, 'a')", "the unknown function replace at 2:2"),
        ("tool.matches(arguments.pattern)", "a pattern that is not written out"),
        ("tool.matches('(a')", "the pattern \"(a\""),
        ("tool.matches('\\\\p{Letter}')", "a pattern with \\p"),
        ("tool.reverse() == ''", "the unknown function reverse at 1:6"),
        ("inRange(source.address, '10.0.0.1/8')", "\"10.0.0.1/8\""),
        ("[1].all(x, [2].all(y, x == y))", "all, exists, map or filter inside another"),
        ("google.Type{a: 1}.a == 1", "a message literal"),
        ("", "mismatched input"),
        ("tool ==", "mismatched input"),
        ("tool = 'a'", "mismatched input"),
        ("tool == 'a' tool", "mismatched input 'tool' expecting <EOF> at 1:13"),
        (&deep, "brackets within brackets"),
        (&"!".repeat(900), ""),
        (&format!("tool{} == 1", ".a".repeat(400)), "a larger expression"),
        (&format!("{}1", "true ? 1 : ".repeat(90)), ""),
        (&long, "an expression of 1034 bytes"),
        (&wide, ""),
    ] {
        let fault = Condition::compile(text).expect_err(text);
        assert!(fault.found.contains(found), "{text}: {fault:?}");
        assert!(!fault.expected.is_empty(), "{text}");
    }
}

#[test]
fn lists_are_walked_up_to_a_bound_and_read_beyond_it() {
    let arguments = |items: usize, text: usize| json!({"ids": vec![1; items], "text": "x".repeat(text), "path": "/tmp/a"});
    let walk = "arguments.ids.all(id, id > 0) && arguments.path.startsWith('/tmp/')";
    let read = "arguments.path.startsWith('/tmp/') && 1 in arguments.ids";
    assert_eq!(decide_with(walk, &arguments(900, 60_000)), Ok(true));
    assert_eq!(decide_with(walk, &arguments(1_001, 0)), Err(Undecided::TooLarge));
    assert_eq!(decide_with(walk, &arguments(1, 70_000)), Err(Undecided::TooLarge));
    assert_eq!(decide_with(read, &arguments(5_000, 900_000)), Ok(true));
}

// Issue 14: a pattern could be stated in the pin only.
// Proves: C3
#[test]
fn a_regular_expression_matches_as_in_a_schema_and_on_a_budget() {
    let query = |text: &str| json!({ "query": text, "ids": vec![text; 900] });
    let plain = "arguments.query.matches('^[A-Za-z0-9 @.-]{1,40}$')";
    assert_eq!(decide_with(plain, &query("ann smith")), Ok(true));
    assert_eq!(decide_with(plain, &query("a' OR 1=1")), Ok(false));
    assert_eq!(decide_with("matches(arguments.query, 'n+')", &query("ann")), Ok(true));
    assert_eq!(decide_with(r"!arguments.query.matches(r'\d')", &query("٤")), Ok(true));
    // What is no text is not decided, nor what is longer than is read.
    assert!(decide_with(plain, &json!({"query": 5})).is_err());
    let long = json!({"query": "a".repeat(65_537)});
    assert!(decide_with("arguments.query.matches('a')", &long).is_err());
    assert!(decide_with("!arguments.query.matches('a')", &long).is_err());
    // Nine hundred matches that each look around: together more than one evaluation may take.
    let around = r"arguments.ids.all(id, id.matches('^(a|a)*\\1b$'))";
    assert!(decide_with(around, &query(&"a".repeat(60))).is_err());
}

#[test]
fn only_conditions_on_arguments_say_so() {
    let asks = |text: &str| Condition::compile(text).unwrap().asks_for_arguments();
    assert!(asks("arguments.a == 1") && asks("tool == 'x' && has(arguments.a)"));
    assert!(!asks("time.hour > 8") && !asks("'arguments' == tool"));
}

proptest::proptest! {
    /// A policy that brings down the VM would be worse than one that cannot be read.
    #[test]
    fn no_text_makes_the_compiler_panic(
        text in r#"[-()\[\]{}!.,?:=<>&|+*/%'"a-c0-9 \\@`rbxé]{0,200}"#,
    ) {
        let _ = Condition::compile(&text);
    }

    #[test]
    fn no_words_make_it_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..40),
    ) {
        for between in ["", " "] {
            if let Ok(condition) = Condition::compile(&words.join(between)) {
                let _ = decide(condition.text());
            }
        }
    }
}

const WORDS: [&str; 48] = [
    "tool",
    "arguments",
    ".",
    "a",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "==",
    "&&",
    "||",
    "!",
    "-",
    "?",
    ":",
    "1",
    "2.5",
    "1u",
    "0x",
    "9223372036854775808",
    "'t'",
    "\"",
    "'''",
    "r'",
    "b'x'",
    "\\u12",
    "in",
    "has",
    "all",
    "exists",
    "map",
    "filter",
    "x",
    "@",
    "true",
    "null",
    "//",
    "\n",
    "%",
    "*",
    "as",
    "function",
    "size",
    "lines",
    "string",
];
