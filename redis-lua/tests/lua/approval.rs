//! A call waits for a person, and is made once.

use std::time::Duration;

use portcullis_redis_lua::{
    Admit, AdmitReply, ApprovalKey, ApprovalReply, Decide, DecideReply, Decision, Expected,
    GRANTED, Guard, GuardState, Key, ScriptCall,
};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

const LIFE: Duration = Duration::from_secs(60);

fn decide<'a>(decision: Decision, last: Option<&'a [u8]>, entry: &'a str) -> Decide<'a> {
    let (org, digest, document) = ("acme", "0a1b", b"{}");
    let own = Some("portcullis:{acme}:approvals:k1a2");
    Decide { org, digest, document, own, decision, life: LIFE, last_entry: last, entry }
}

#[test]
fn what_a_person_granted_is_taken_once() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = ApprovalKey::new("acme", "k1a2", "0a1b");
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    let guard =
        Guard { key: approval.key().clone(), expected: Expected::Revision(GRANTED.to_owned()) };
    let admit = Admit { guards: vec![guard], windows: vec![], used: None, intent: None };

    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(None), "nobody asked");
    assert_eq!(admit.decode(ask(&admit.call())), Ok(AdmitReply::Stale(vec![GuardState::Absent])));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Asked));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Pending));
    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(None), "nobody agreed");

    let grant = decide(Decision::Grant, None, "first");
    assert_eq!(Decide::decode(ask(&grant.call())), Ok(DecideReply::Decided));
    let state = Some("granted".to_owned());
    assert_eq!(Decide::decode(ask(&grant.call())), Ok(DecideReply::NotPending { state }));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Granted));
    assert_eq!(admit.decode(ask(&admit.call())), Ok(AdmitReply::Admitted(vec![])));
    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(Some(b"{}".to_vec())));
    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(None), "once");

    let left: usize = connection.zcard(Key::approvals("acme").as_str()).unwrap();
    assert_eq!(left, 0);
    let entries: Vec<String> = connection.lrange(Key::admin("acme").as_str(), 0, -1).unwrap();
    assert_eq!(entries, ["first"]);
}

#[test]
fn a_decision_is_written_only_behind_the_entry_that_was_read() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = ApprovalKey::new("acme", "k1a2", "0a1b");
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    let deny = |last| decide(Decision::Deny, last, "second").call();

    let nothing = DecideReply::NotPending { state: None };
    assert_eq!(Decide::decode(ask(&deny(None))), Ok(nothing));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Asked));
    assert_eq!(Decide::decode(ask(&deny(Some(b"first")))), Ok(DecideReply::Conflict));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Pending));
    assert_eq!(Decide::decode(ask(&deny(None))), Ok(DecideReply::Decided));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask("{}", LIFE))), Ok(ApprovalReply::Denied));
    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(None));

    for key in [Key::approval("acme", "0a1b"), Key::approvals("acme")] {
        let life: i64 = connection.pttl(key.as_str()).unwrap();
        assert!((1..=60_000).contains(&life), "{key}: {life}");
    }
}

/// The same call may be used up and asked for again between a look and a decision.
#[test]
fn a_decision_is_about_the_request_that_was_read() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = ApprovalKey::new("acme", "k1a2", "0a1b");
    let read =
        Decide { document: br#"{"request_id":"first"}"#, ..decide(Decision::Grant, None, "entry") };
    let again = r#"{"request_id":"second"}"#;
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    assert_eq!(ApprovalKey::asked(ask(&approval.ask(again, LIFE))), Ok(ApprovalReply::Asked));
    let state = Some("pending".to_owned());
    assert_eq!(Decide::decode(ask(&read.call())), Ok(DecideReply::NotPending { state }));
    assert_eq!(ApprovalKey::asked(ask(&approval.ask(again, LIFE))), Ok(ApprovalReply::Pending));
    let now = Decide { document: again.as_bytes(), ..read };
    assert_eq!(Decide::decode(ask(&now.call())), Ok(DecideReply::Decided));
    // The call that uses it learns which request asked.
    assert_eq!(ApprovalKey::taken(ask(&approval.take())), Ok(Some(again.as_bytes().to_vec())));
    let entries: Vec<String> = connection.lrange(Key::admin("acme").as_str(), 0, -1).unwrap();
    assert_eq!(entries, ["entry"]);
}

#[test]
fn only_so_many_calls_wait_and_those_that_expired_do_not_count() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut waiting = |number: usize, life: Duration| {
        // No caller asks for more approvals than it may.
        let caller = format!("k{}", number / 50);
        let approval = ApprovalKey::new("acme", &caller, &format!("{number}"));
        ApprovalKey::asked(run(&mut connection, &approval.ask("{}", life))).unwrap()
    };
    for number in 0..1_000 {
        assert_eq!(waiting(number, Duration::from_millis(1_500)), ApprovalReply::Asked);
    }
    assert_eq!(waiting(1_000, LIFE), ApprovalReply::Full);
    std::thread::sleep(Duration::from_millis(1_600));
    assert_eq!(waiting(1_000, LIFE), ApprovalReply::Asked);
}

// Finding 2.4: one caller filled the whole quota of an organisation.
#[test]
fn one_caller_fills_only_its_own_part() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = |caller: &str, number: usize| {
        ApprovalKey::new("acme", caller, &format!("{caller}-{number}"))
    };
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    for number in 0..50 {
        let asked = ask(&approval("eager", number).ask("{}", LIFE));
        assert_eq!(ApprovalKey::asked(asked), Ok(ApprovalReply::Asked), "{number}");
    }
    let full = ask(&approval("eager", 50).ask("{}", LIFE));
    assert_eq!(ApprovalKey::asked(full), Ok(ApprovalReply::CallerFull));
    let again = ask(&approval("eager", 7).ask("{}", LIFE));
    assert_eq!(ApprovalKey::asked(again), Ok(ApprovalReply::Pending));
    let other = ask(&approval("other", 0).ask("{}", LIFE));
    assert_eq!(ApprovalKey::asked(other), Ok(ApprovalReply::Asked));
    // Approvals that were used no longer count.
    let own = Some("portcullis:{acme}:approvals:eager");
    let grant = Decide { digest: "eager-7", own, ..decide(Decision::Grant, None, "first") };
    assert_eq!(Decide::decode(ask(&grant.call())), Ok(DecideReply::Decided));
    let taken = ApprovalKey::taken(ask(&approval("eager", 7).take()));
    assert_eq!(taken, Ok(Some(b"{}".to_vec())));
    let room = ask(&approval("eager", 50).ask("{}", LIFE));
    assert_eq!(ApprovalKey::asked(room), Ok(ApprovalReply::Asked));
}

// Redis keeps a denied call for as long as the denial holds: the places of an organisation bound that, too.
#[test]
fn a_denied_call_keeps_its_place_among_those_of_its_organisation() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = |number: usize| {
        ApprovalKey::new("acme", &format!("k{}", number / 50), &format!("{number:04}"))
    };
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    let asked = |reply| ApprovalKey::asked(reply).unwrap();
    for number in 0..1_000 {
        assert_eq!(asked(ask(&approval(number).ask("{}", LIFE))), ApprovalReply::Asked);
    }
    let own = Some("portcullis:{acme}:approvals:k0");
    let life = Duration::from_millis(500);
    let deny = Decide { digest: "0007", own, life, ..decide(Decision::Deny, None, "first") };
    assert_eq!(Decide::decode(ask(&deny.call())), Ok(DecideReply::Decided));
    assert_eq!(asked(ask(&approval(1_000).ask("{}", LIFE))), ApprovalReply::Full);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(asked(ask(&approval(1_000).ask("{}", LIFE))), ApprovalReply::Asked, "one place");
    assert_eq!(asked(ask(&approval(1_001).ask("{}", LIFE))), ApprovalReply::Full, "not two");
}

// A caller whose 50 calls were all denied could ask for no other call until they would have expired.
#[test]
fn a_denied_call_leaves_its_caller_a_place_and_a_granted_one_keeps_it() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let approval = |number: usize| ApprovalKey::new("acme", "k1a2", &format!("{number:02}"));
    let mut ask = |call: &ScriptCall| run(&mut connection, call);
    let asked = |reply| ApprovalKey::asked(reply).unwrap();
    for number in 0..50 {
        assert_eq!(asked(ask(&approval(number).ask("{}", LIFE))), ApprovalReply::Asked);
    }
    assert_eq!(asked(ask(&approval(50).ask("{}", LIFE))), ApprovalReply::CallerFull);
    let deny = Decide { digest: "07", ..decide(Decision::Deny, None, "first") };
    assert_eq!(Decide::decode(ask(&deny.call())), Ok(DecideReply::Decided));
    assert_eq!(asked(ask(&approval(50).ask("{}", LIFE))), ApprovalReply::Asked, "one place");
    assert_eq!(asked(ask(&approval(51).ask("{}", LIFE))), ApprovalReply::CallerFull, "not two");
    assert_eq!(asked(ask(&approval(7).ask("{}", LIFE))), ApprovalReply::Denied, "it still is");

    let grant = Decide {
        digest: "08",
        life: 2 * LIFE,
        ..decide(Decision::Grant, Some(b"first"), "second")
    };
    assert_eq!(Decide::decode(ask(&grant.call())), Ok(DecideReply::Decided));
    assert_eq!(asked(ask(&approval(51).ask("{}", LIFE))), ApprovalReply::CallerFull);
    let [own, index] = [Key::approvals_of("acme", "k1a2"), Key::approvals("acme")];
    let score = |connection: &mut redis::Connection, key: &Key| -> f64 {
        connection.zscore(key.as_str(), "08").unwrap()
    };
    let scores = [score(&mut connection, &own), score(&mut connection, &index)];
    assert_eq!(scores[0], scores[1], "as long as the grant");
    let life: i64 = connection.pttl(own.as_str()).unwrap();
    assert!((60_001..=120_000).contains(&life), "{life}");
}

/// The field of an older gateway's approval is absent; one that names something else is not followed.
#[test]
fn a_decision_writes_to_no_other_key_than_an_index_of_a_caller() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    for (at, own) in [None, Some("portcullis:{acme}:approvals"), Some("portcullis:{b}:approvals:k")]
        .into_iter()
        .enumerate()
    {
        let digest = format!("{at}");
        let approval = ApprovalKey::new("acme", "k1a2", &digest);
        let asked = run(&mut connection, &approval.ask("{}", LIFE));
        assert_eq!(ApprovalKey::asked(asked), Ok(ApprovalReply::Asked));
        let last: Option<Vec<u8>> = connection.lindex(Key::admin("acme").as_str(), -1).unwrap();
        let last = last.as_deref();
        let deny = Decide { digest: &digest, own, ..decide(Decision::Deny, last, "entry") };
        assert_eq!(deny.call().keys.len(), 3);
        assert_eq!(
            Decide::decode(run(&mut connection, &deny.call())),
            Ok(DecideReply::Decided),
            "{own:?}"
        );
    }
    let noted: Option<String> =
        connection.hget(Key::approval("acme", "0").as_str(), "own").unwrap();
    assert_eq!(noted.as_deref(), Some(Key::approvals_of("acme", "k1a2").as_str()));
}
