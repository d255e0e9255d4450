//! Tests of the arguments that are sent and of the replies that are accepted.

use super::*;
use crate::Scope;

fn admit() -> Admit {
    let guard = |id: &str, expected| Guard { key: Key::record("acme", id), expected };
    let window = |limit: &str, cost| Window {
        key: Key::window(Scope::Org("acme"), limit, &[]),
        limit: 5,
        length_us: 1_000_000,
        grain_us: 1,
        cost,
        alert: None,
    };
    Admit {
        guards: vec![
            guard("a", Expected::Revision("7".into())),
            guard("b", Expected::Absent),
            guard("c", Expected::Unknown),
        ],
        windows: vec![window("calls", 1), window("credits", u64::MAX)],
        used: None,
        intent: None,
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn ints(numbers: &[i64]) -> Value {
    Value::Array(numbers.iter().copied().map(Value::Int).collect())
}

#[test]
fn command_lists_guards_then_windows() {
    let call = admit().call();
    let words = call.evalsha();
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
    assert_eq!(
        words.join(" "),
        format!(
            "EVALSHA {} 5 portcullis:{{acme}}:key:a portcullis:{{acme}}:key:b \
             portcullis:{{acme}}:key:c portcullis:{{acme}}:window:calls: \
             portcullis:{{acme}}:window:credits: 3 7 - ? 5 1000000 1 1 0 5 1000000 1 9007199254740991 0",
            ADMIT.sha1
        )
    );
}

#[test]
fn a_use_is_the_last_key() {
    let used = |field: &str| Admit {
        used: Some(Use { key: Key::used("acme", "a"), field: field.into() }),
        ..admit()
    };
    let call = used("s1").call();
    assert_eq!(call.keys.last(), Some(&Key::used("acme", "a")));
    assert_eq!(call.args.last(), Some(&b"s1".to_vec()));
    assert_eq!(used("").call(), admit().call(), "a use without a name is none");
}

#[test]
fn marks_stand_between_the_windows_and_the_use() {
    let mut admit = admit();
    let mark = Key::mark(Scope::Org("acme"), "credits", &[]);
    admit.windows[1].alert = Some(Alert { mark: mark.clone(), from: 0 });
    admit.used = Some(Use { key: Key::used("acme", "a"), field: "s1".into() });
    let call = admit.call();
    assert_eq!(call.keys[5..], [mark, Key::used("acme", "a")]);
    assert_eq!(call.args[13..], [b"1".to_vec(), b"s1".to_vec()], "an alert at 0 would be none");
}

#[test]
fn an_overdraft_has_no_limit_and_no_alert() {
    let call = Window::overdraw(admit().windows);
    let args: Vec<_> = call.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
    let most = LARGEST_EXACT;
    assert_eq!(args.join(" "), format!("0 {most} 1000000 1 1 0 {most} 1000000 1 {most} 0"));
}

#[test]
fn eval_carries_the_source() {
    let call = admit().call();
    let words = call.eval();
    assert_eq!(words[..2], [b"EVAL".to_vec(), ADMIT.source.as_bytes().to_vec()]);
}

#[test]
fn decodes_moved_guards() {
    let reply = Value::Array(vec![
        Value::Int(0),
        bulk("8"),
        bulk("{}"),
        bulk("-"),
        Value::Nil,
        bulk("-"),
        Value::Nil,
    ]);
    assert_eq!(
        admit().decode(reply),
        Ok(AdmitReply::Stale(vec![
            GuardState::Present { rev: "8".into(), doc: b"{}".to_vec() },
            GuardState::Current,
            GuardState::Absent,
        ]))
    );
}

#[test]
fn decodes_windows() {
    let half = WindowState {
        remaining: 4,
        reset: Duration::from_micros(500_000),
        raised: false,
        redated: false,
    };
    let full =
        WindowState { remaining: 0, reset: Duration::from_micros(9), raised: true, redated: false };
    assert_eq!(
        admit().decode(ints(&[1, 4, 500_000, 0, 0, 9, 1])),
        Ok(AdmitReply::Admitted(vec![half, full]))
    );
    for (retry_us, retry_after) in [(-1, None), (9, Some(Duration::from_micros(9)))] {
        assert_eq!(
            admit().decode(ints(&[2, retry_us, 1, 4, 500_000, 0, 0, 9, 1])),
            Ok(AdmitReply::Limited { retry_after, window: 1, windows: vec![half, full] })
        );
    }
}

#[test]
fn refuses_every_other_form() {
    let moved = |pairs: &[Value]| {
        Value::Array(std::iter::once(Value::Int(0)).chain(pairs.iter().cloned()).collect())
    };
    let current = [bulk("7"), Value::Nil, bulk("-"), Value::Nil];
    for (reply, expected) in [
        (Value::Nil, "an array"),
        (ints(&[]), "0, 1 or 2"),
        (ints(&[3]), "0, 1 or 2"),
        (ints(&[1, 4, 500_000, 0]), "remaining units"),
        (ints(&[1, 4, 500_000, 0, -1, 9, 0]), "remaining units"),
        (ints(&[1, 4, 500_000, 0, 0, -9, 0]), "reset_us of at least 0"),
        (ints(&[1, 4, 500_000, 0, 0, 9, 1, 9]), "a time"),
        (ints(&[1, 4, 500_000, 0, 0, 9, 1, -9, 9]), "a generation"),
        (ints(&[1, 4, 500_000, 0, 0, 9, 1, 9, 9, 9]), "the end of the array"),
        (ints(&[1, 4, 500_000, 4, 0, 9, 1]), "0 to 3 for the alert and the clock"),
        (ints(&[2, -2, 0, 4, 500_000, 0, 9]), "retry_after_us of at least -1"),
        (ints(&[2, 5, 2, 4, 500_000, 0, 9]), "the index of a window of the call"),
        (moved(&current), "a revision or `-`"),
        (moved(&[bulk("8"), Value::Nil]), "a document with each record that moved"),
        (moved(&[bulk("7"), bulk("{}")]), "a document only for a record that is there and moved"),
    ] {
        assert_eq!(admit().decode(reply), Err(ReplyError::Malformed { expected }));
    }
}

#[test]
fn refuses_a_move_in_which_nothing_moved() {
    let admit =
        Admit { guards: admit().guards[..1].to_vec(), windows: vec![], used: None, intent: None };
    let reply = Value::Array(vec![Value::Int(0), bulk("7"), Value::Nil]);
    assert_eq!(admit.decode(reply), Err(ReplyError::Malformed { expected: "a guard that moved" }));
}

#[test]
fn passes_on_the_error_of_redis() {
    let error = Value::Error("NOSCRIPT No matching script.".into());
    assert!(error.is_noscript());
    assert_eq!(
        admit().decode(error),
        Err(ReplyError::Redis("NOSCRIPT No matching script.".into()))
    );
}
