//! `audit anchor`, and what a log has to contain because of it.

use ed25519_compact::{KeyPair, Seed};
use portcullis_core::audit::{Chain, Entry};
use portcullis_redis_lua::{ChainEnd, Checkpoint, Key};
use redis::Commands as _;

use crate::harness::{Operator, Said, Scratch, issue, run};
use crate::valkey;

/// A gateway's chain, and the operator's files.
struct Trial {
    operator: Operator,
    chain: Chain,
    lines: Vec<String>,
    noted: ChainEnd,
    key: Scratch,
    public_key: Scratch,
    anchors: Scratch,
}

impl Trial {
    fn new() -> Self {
        let operator = Operator::with_policy();
        issue(&operator, &[]);
        let pair = KeyPair::from_seed(Seed::new([7; 32]));
        Self {
            operator,
            chain: Chain::new("worker-a".into()),
            lines: Vec::new(),
            noted: ChainEnd::default(),
            key: Scratch::new("anchor.key", &pair.sk.to_pem()),
            public_key: Scratch::new("anchor.pub", &pair.pk.to_pem()),
            anchors: Scratch::nowhere("anchors.jsonl"),
        }
    }

    /// The gateway writes so many entries and notes it in Redis.
    fn writes(&mut self, entries: u64) {
        for latency_ms in 0..entries {
            let timestamp = format!("2026-11-29T10:00:{:02}Z", self.lines.len());
            let entry = Entry { latency_ms, timestamp, ..Entry::default() };
            self.lines.push(self.chain.append(&entry));
        }
        let (chain, last, end) = ("worker-a".into(), self.noted.clone(), self.chain.end());
        let checkpoint = Checkpoint { chain, last, end: end.clone(), build: "b" };
        let reply = valkey::run(&mut self.operator.redis(), &checkpoint.call());
        assert!(Checkpoint::decode(reply).is_ok());
        self.noted = end;
        // Long ago: what was noted a moment ago may be in a proxy's buffer.
        self.noted_at("worker-a", "1795946460");
    }

    /// When Redis noted the end of the chain, in seconds since 1970.
    fn noted_at(&self, chain: &str, time: &str) {
        let key = Key::checkpoint(chain);
        let _: () = self.operator.redis().hset(key.as_str(), "time", time).unwrap();
    }

    fn anchors(&self) -> Said {
        let anchor = ["audit", "anchor", "--log", self.anchors.path(), "--key", self.key.path()];
        run(&anchor, &[("PORTCULLIS_REDIS", self.operator.valkey.url())], "")
    }

    fn verifies(&self, lines: &[String]) -> Said {
        let (anchors, key) = (self.anchors.path(), self.public_key.path());
        let verify = ["audit", "verify", "-", "--anchors", anchors, "--public-key", key];
        run(&verify, &[], &(lines.join("\n") + "\n"))
    }
}

// Issue 16: a cut end of a chain was found only with an anchor that was typed by hand.
// Proves: A17, A18, X1
#[test]
fn a_cut_end_is_found_by_signed_anchors() {
    let mut trial = Trial::new();
    trial.writes(5);
    let said = trial.anchors();
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stdout.starts_with("2 chains anchored, 0 unchanged"), "{said:?}");
    trial.writes(3);
    let said = trial.anchors();
    assert!(said.stdout.starts_with("1 chains anchored, 1 unchanged"), "{said:?}");
    let whole = trial.verifies(&trial.lines);
    assert_eq!(whole.status, 0, "{whole:?}");
    assert!(
        whole.stdout.contains("anchors: 2 found; 2 entries")
            && whole.stdout.contains("signatures hold")
    );
    let cut = trial.verifies(&trial.lines[..6]);
    assert_eq!(cut.status, 1, "{cut:?}");
    let told = "chain worker-a ends with entry 6, before the expected entry 8";
    assert!(cut.stdout.contains(told), "{cut:?}");
    // The admin chains are anchored too, and are verified where they are.
    let admin = [
        "audit",
        "verify",
        "--admin",
        "--anchors",
        trial.anchors.path(),
        "--public-key",
        trial.public_key.path(),
    ];
    let redis = [("PORTCULLIS_REDIS", trial.operator.valkey.url())];
    let said = run(&admin, &redis, "");
    assert_eq!(said.status, 0, "{said:?}");
    let checkpoints = ["audit", "verify", "-", "--checkpoints"];
    let said = run(&checkpoints, &redis, &(trial.lines[..6].join("\n") + "\n"));
    assert!(said.status == 1 && said.stdout.contains(told), "{said:?}");
}

// Proves: A17, X1
#[test]
fn a_forged_anchor_is_found_and_a_chain_that_went_back_is_refused() {
    let mut trial = Trial::new();
    trial.writes(5);
    assert_eq!(trial.anchors().status, 0);
    // Whoever may write to Redis takes the checkpoint back.
    let key = Key::checkpoint("worker-a");
    let end = Chain::after(&trial.lines[2]).unwrap().end();
    redis::cmd("HSET")
        .arg(key.as_str())
        .arg(&["seq", "3", "hash", &end.hash])
        .exec(&mut trial.operator.redis())
        .unwrap();
    let said = trial.anchors();
    assert!(said.status == 1 && said.stdout.contains("it went back"), "{said:?}");
    // Whoever may write to the log of anchors changes one.
    let log = std::fs::read_to_string(trial.anchors.path()).unwrap();
    std::fs::write(trial.anchors.path(), log.replace("\"seq\":5", "\"seq\":4")).unwrap();
    let said = trial.verifies(&trial.lines);
    assert!(said.status == 1 && said.stdout.contains("ANCHORS NOT INTACT"), "{said:?}");
    let refusal = trial.anchors();
    assert!(refusal.status == 1 && refusal.stderr.contains("go on with a new file"), "{refusal:?}");
}

/// A program that may write to Redis removes the record of what the operators of an organisation did.
// Proves: A17, X1
#[test]
fn the_chain_of_an_organisation_that_is_gone_is_refused() {
    let trial = Trial::new();
    assert_eq!(trial.anchors().status, 0);
    let admin = Key::admin("acme");
    redis::cmd("DEL").arg(admin.as_str()).exec(&mut trial.operator.redis()).unwrap();
    for _ in 0..2 {
        let said = trial.anchors();
        assert!(said.status == 1 && said.stdout.contains("chain admin:acme: it was"), "{said:?}");
    }
}

// Proves: A17, X1
#[test]
fn an_end_that_was_noted_a_moment_ago_is_open() {
    let mut trial = Trial::new();
    trial.writes(5);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let redis = [("PORTCULLIS_REDIS", trial.operator.valkey.url())];
    let verify = ["audit", "verify", "-", "--checkpoints", "--output", "json"];
    let log = trial.lines[..3].join("\n") + "\n";
    trial.noted_at("worker-a", &now.as_secs().to_string());
    let said = run(&verify, &redis, &log);
    assert_eq!(said.status, 0, "{said:?}");
    let found = said.json();
    assert_eq!((&found["anchors"]["open"], &found["intact"]), (&1.into(), &true.into()));
    let said = run(&verify[..4], &redis, &log);
    assert!(said.stdout.contains("1 chains go on after the log"), "{said:?}");
    // A time that never comes excuses nothing.
    for time in [now.as_secs() - 60, now.as_secs() + 3_600] {
        trial.noted_at("worker-a", &time.to_string());
        let said = run(&verify, &redis, &log);
        assert_eq!(said.status, 1, "{said:?}");
    }
    // Nor is another entry in its place on its way.
    trial.noted_at("worker-a", &now.as_secs().to_string());
    let mut other = Chain::new("worker-a".into());
    let other: Vec<String> =
        (0..5).map(|_| other.append(&Entry { latency_ms: 99, ..Entry::default() })).collect();
    let said = run(&verify, &redis, &(other.join("\n") + "\n"));
    assert_eq!(said.status, 1, "{said:?}");
}

// Proves: A17, X1
#[test]
fn a_head_that_was_cut_off_is_found_by_what_was_noted_after_the_log_begins() {
    let mut trial = Trial::new();
    trial.writes(5);
    let timestamp = "2026-11-29T10:00:00Z".to_owned();
    let entry = Entry { timestamp, ..Entry::default() };
    let mut lines = vec![Chain::new("worker-b".into()).append(&entry)];
    for latency_ms in 0..2 {
        let timestamp = "2026-11-29T14:00:00Z".to_owned();
        lines.push(trial.chain.append(&Entry { latency_ms, timestamp, ..Entry::default() }));
    }
    let redis = [("PORTCULLIS_REDIS", trial.operator.valkey.url())];
    let verify = ["audit", "verify", "-", "--checkpoints", "--start", "anywhere"];
    let verified = || run(&verify, &redis, &(lines.join("\n") + "\n"));
    // Entry 5 was noted a minute, and then three hours after the log begins.
    assert_eq!(verified().status, 0);
    trial.noted_at("worker-a", "1795957200");
    let said = verified();
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.stdout.contains("entry 5 of chain worker-a is not in what was read"), "{said:?}");
}

// Proves: A17, X1
#[test]
fn an_empty_log_of_anchors_vouches_for_nothing() {
    let mut trial = Trial::new();
    trial.writes(5);
    std::fs::write(trial.anchors.path(), "").unwrap();
    let said = trial.verifies(&trial.lines);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.stdout.contains("no entries: nothing is anchored"), "{said:?}");
}

/// The warnings of a run that went well.
fn warnings(said: &Said) -> Vec<&str> {
    assert_eq!(said.status, 0, "{said:?}");
    said.stderr.lines().collect()
}

// Finding of an outside tester: after a full disk, each further `audit anchor` failed. Proves: A17, X1
#[test]
fn a_line_that_was_cut_off_is_named_and_the_log_goes_on_after_it() {
    let mut trial = Trial::new();
    trial.writes(2);
    assert_eq!(trial.anchors().status, 0);
    trial.writes(2);
    assert_eq!(trial.anchors().status, 0);
    let whole = std::fs::read(trial.anchors.path()).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // The second line at any length: nothing of it, a part, all but its end.
    let lengths = (first..whole.len()).step_by(7).chain([first + 1, whole.len() - 2]);
    for length in lengths {
        std::fs::write(trial.anchors.path(), &whole[..length]).unwrap();
        let place = format!("{}:2", trial.anchors.path());
        let is_cut = length > first;
        // Until the next anchor, the line is a fault: it is no anchor.
        let pending = trial.verifies(&trial.lines);
        assert_eq!(pending.status, i32::from(is_cut), "{length}: {pending:?}");
        let named =
            pending.stdout.contains(&format!("{place}: the line is cut off: it is no anchor"));
        assert_eq!(named, is_cut, "{length}: {pending:?}");
        let said = trial.anchors();
        let warned = warnings(&said);
        assert_eq!(warned.len(), usize::from(is_cut), "{length}: {said:?}");
        let expected = format!("warning: {place}: the line is cut off: ");
        assert!(warned.iter().all(|it| it.starts_with(&expected)), "{said:?}");
        assert!(said.stdout.starts_with("1 chains anchored, 1 unchanged"), "{said:?}");
        // Nothing is lost, and the entry after it says that it was there.
        let now = std::fs::read(trial.anchors.path()).unwrap();
        assert!(now.starts_with(&whole[..length]));
        let verified = trial.verifies(&trial.lines);
        assert_eq!(verified.status, 0, "{length}: {verified:?}");
        let named = format!("; lines that are cut off, as the entries after them say: 1 ({place})");
        assert_eq!(verified.stdout.contains(&named), is_cut, "{verified:?}");
        let cut = trial.verifies(&trial.lines[..3]);
        assert!(cut.status == 1 && cut.stdout.contains("before the expected entry 4"), "{cut:?}");
    }
    // It goes on from there, and says no more of it.
    trial.writes(1);
    assert!(warnings(&trial.anchors()).is_empty());
    assert_eq!(trial.verifies(&trial.lines).status, 0);
}

// Proves: A17, X1
#[test]
fn the_first_ten_cut_lines_are_named_for_operators_and_all_for_scripts() {
    let mut trial = Trial::new();
    trial.writes(1);
    assert_eq!(trial.anchors().status, 0);
    let path = trial.anchors.path().to_owned();
    let append = |text: &str| {
        let log = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, log + text).unwrap();
    };
    // Lines 2 to 10, then an entry in line 11, then lines 12 to 14.
    for lines in [9, 3] {
        append(&"{\"chain\":\n".repeat(lines));
        trial.writes(1);
        assert_eq!(warnings(&trial.anchors()).len(), lines);
    }
    let verified = trial.verifies(&trial.lines);
    assert_eq!(verified.status, 0, "{verified:?}");
    let lines: Vec<u64> = (2..=10).chain(12..=14).collect();
    let places: Vec<_> = lines[..10].iter().map(|line| format!("{path}:{line}")).collect();
    let named = format!("say: 12 ({}, 2 more)", places.join(", "));
    assert!(verified.stdout.contains(&named), "{verified:?}");
    let verify = ["audit", "verify", "-", "--anchors", &path, "--output", "json"];
    let found = run(&verify, &[], &(trial.lines.join("\n") + "\n")).json();
    let places: Vec<_> =
        lines.iter().map(|line| serde_json::json!({ "file": path, "line": line })).collect();
    assert_eq!(found["anchors"]["cut_lines"], 12);
    assert_eq!(found["anchors"]["cut_places"], serde_json::json!(places));
}

// Proves: A17, X1
#[test]
fn an_entry_without_its_line_end_stays_an_entry() {
    let mut trial = Trial::new();
    trial.writes(2);
    assert_eq!(trial.anchors().status, 0);
    let whole = std::fs::read(trial.anchors.path()).unwrap();
    std::fs::write(trial.anchors.path(), &whole[..whole.len() - 1]).unwrap();
    trial.writes(1);
    let said = trial.anchors();
    assert!(warnings(&said).is_empty(), "{said:?}");
    let verified = trial.verifies(&trial.lines);
    assert!(
        verified.status == 0 && verified.stdout.contains("; 2 entries of them"),
        "{verified:?}"
    );
}

// Proves: A17, X1
#[test]
fn cut_lines_that_no_entry_names_are_a_fault() {
    let mut trial = Trial::new();
    for _ in 0..3 {
        trial.writes(1);
        assert_eq!(trial.anchors().status, 0);
    }
    let whole = std::fs::read_to_string(trial.anchors.path()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let log = |lines: &[&str]| {
        std::fs::write(trial.anchors.path(), lines.join("\n") + "\n").unwrap();
        let said = trial.verifies(&trial.lines);
        assert_eq!(said.status, 1, "{said:?}");
        let refused = trial.anchors();
        assert_eq!(refused.status, 1, "{refused:?}");
        said.stdout
    };
    // An entry is made a cut line, or one is put between entries.
    let made = log(&[lines[0], &lines[1][..99], lines[2]]);
    assert!(made.contains(":3: "), "{made}");
    let put = log(&[lines[0], "{\"chain\":\"", lines[1], lines[2]]);
    assert!(put.contains(":3: the entry names other cut lines before it than there are"), "{put}");
    // One that an entry names is taken away, or has another length.
    std::fs::write(trial.anchors.path(), lines[..2].join("\n") + "\n{\"chain\":").unwrap();
    assert_eq!(warnings(&trial.anchors()).len(), 1);
    let whole = std::fs::read_to_string(trial.anchors.path()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for other in [None, Some("{\"chain\"")] {
        let kept: Vec<&str> = lines[..2].iter().copied().chain(other).chain([lines[3]]).collect();
        let said = log(&kept);
        assert!(
            said.contains("the entry names other cut lines before it than there are"),
            "{said}"
        );
    }
}
