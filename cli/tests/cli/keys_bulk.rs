//! `key rotate --older-than`: the monthly rotation.

use portcullis_core::auth::api_key::PresentedKey;
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, authenticate, issue, record};

/// A key whose secret is as many days old.
fn aged(operator: &Operator, days: u64, more: &[&str]) -> Value {
    let issued = issue(operator, more).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let name = Key::record("acme", id);
    let (_, mut record) = record(operator, "acme", id);
    record.created_at -= days * 86_400;
    record.secrets[0].issued_at = Some(record.created_at);
    let doc = serde_json::to_string(&record).unwrap();
    let _: () = operator.redis().hset(name.as_str(), "doc", doc).unwrap();
    issued
}

fn id(issued: &Value) -> &str {
    issued["record"]["id"].as_str().unwrap()
}

fn rotate(operator: &Operator, more: &[&str]) -> Said {
    operator.says(&[&["key", "rotate", "--older-than", "30d"], more].concat())
}

/// The report, whatever the exit status; progress goes to standard error.
fn report(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

fn ids(report: &Value, list: &str) -> Vec<String> {
    let mut ids: Vec<String> = report[list]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

fn sorted(mut ids: Vec<&str>) -> Vec<String> {
    ids.sort_unstable();
    ids.into_iter().map(str::to_owned).collect()
}

// Proves: A24, C2
#[test]
fn every_old_key_is_rotated_and_no_other() {
    let operator = Operator::with_policy();
    let [old, older] = [aged(&operator, 31, &[]), aged(&operator, 90, &[])];
    let young = aged(&operator, 29, &[]);
    let revoked = aged(&operator, 90, &[]);
    operator.says(&["key", "revoke", id(&revoked), "--reason", "r"]).json();
    let expired = aged(&operator, 90, &[]);
    operator.says(&["key", "set", id(&expired), "--expires", "0s"]).json();
    let others = [&young, &revoked, &expired].map(|issued| record(&operator, "acme", id(issued)));

    let dry = rotate(&operator, &["--dry-run"]).json();
    assert_eq!(ids(&dry, "due"), sorted(vec![id(&old), id(&older)]));
    assert_eq!(record(&operator, "acme", id(&old)).0, "1");

    let said = rotate(&operator, &["--overlap", "1h", "--reason", "monthly"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(said.stderr.lines().count(), 2, "one line per key: {said:?}");
    assert!(said.stderr.contains("1/2  acme/") && said.stderr.contains("2/2  acme/"));
    let report = report(&said);
    assert_eq!(ids(&report, "rotated"), sorted(vec![id(&old), id(&older)]));
    for rotated in report["rotated"].as_array().unwrap() {
        let new = rotated["key"].as_str().unwrap();
        let presented = PresentedKey::parse(new.as_bytes()).unwrap();
        let (_, record) = record(&operator, "acme", presented.id.as_str());
        let issued = [&old, &older].into_iter().find(|old| id(old) == presented.id.as_str());
        for works in [new, issued.unwrap()["key"].as_str().unwrap()] {
            assert!(authenticate(&record, works).is_ok());
        }
        assert!(!said.stderr.contains(new), "progress is no place for a key");
    }
    let now = [&young, &revoked, &expired].map(|issued| record(&operator, "acme", id(issued)));
    assert_eq!(now, others, "a key that was not due was touched");

    // A month later is another day: there is nothing left to do, and that is no error.
    let again = rotate(&operator, &[]).json();
    assert_eq!((ids(&again, "rotated"), ids(&again, "due")), (vec![], vec![]));
}

#[test]
fn role_and_organisation_narrow_it_down() {
    let operator = Operator::with_policy();
    let (analyst, _other) = (aged(&operator, 31, &[]), aged(&operator, 29, &[]));
    let admin = aged(&operator, 31, &[]);
    operator.says(&["key", "set", id(&admin), "--role", "admin"]).json();
    for (more, due) in [
        (&["--role", "analyst"][..], vec![id(&analyst)]),
        (&["--role", "admin", "--org", "acme"], vec![id(&admin)]),
        (&["--org", "globex"], vec![]),
        (&["--org", "acme"], vec![id(&analyst), id(&admin)]),
    ] {
        let dry = rotate(&operator, &[more, &["--dry-run"]].concat()).json();
        assert_eq!(ids(&dry, "due"), sorted(due), "{more:?}");
    }
    for usage in [
        &[][..],
        &[id(&analyst), "--dry-run"],
        &[id(&analyst), "--role", "analyst"],
        &[id(&analyst), "--older-than", "1d"],
        &["--dry-run"],
    ] {
        assert_eq!(operator.says(&[&["key", "rotate"], usage].concat()).status, 2, "{usage:?}");
    }
    assert_eq!(record(&operator, "acme", id(&analyst)).0, "1");
}

#[test]
fn a_key_that_cannot_be_rotated_holds_up_no_other_and_its_new_key_is_written_nowhere() {
    let operator = Operator::with_policy();
    let [one, stuck, other] = [31, 32, 33].map(|days| aged(&operator, days, &[]));
    // In an overlap that is longer than what counts as old.
    let name = Key::record("acme", id(&stuck));
    let (_, mut record_of_stuck) = record(&operator, "acme", id(&stuck));
    let mut replaced = record_of_stuck.secrets[0].clone();
    replaced.not_after = Some(record_of_stuck.created_at + 365 * 86_400);
    record_of_stuck.secrets.push(replaced);
    let doc = serde_json::to_string(&record_of_stuck).unwrap();
    let _: () = operator.redis().hset(name.as_str(), "doc", doc).unwrap();

    let file = Scratch::nowhere("bulk.jsonl");
    let said = rotate(&operator, &["--out", file.path()]);
    assert_eq!(said.status, 3, "some were, one was not: {said:?}");
    let report = report(&said);
    assert_eq!(ids(&report, "rotated"), sorted(vec![id(&one), id(&other)]));
    assert_eq!(ids(&report, "failed"), [id(&stuck)]);
    let found = report["failed"][0]["error"]["found"].as_str().unwrap();
    assert!(found.contains("was rotated before"), "{found}");
    assert_eq!(report["out"], json!(file.path()));
    assert!(!said.stdout.contains("pck_"), "{said:?}");

    let text = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in lines {
        let (_, record) = record(&operator, "acme", line["id"].as_str().unwrap());
        assert!(authenticate(&record, line["key"].as_str().unwrap()).is_ok());
    }
}

/// The script of docs/guides/keys.md, as it stands there.
fn monthly_script() -> String {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/keys.md");
    let docs = std::fs::read_to_string(docs).expect("the page");
    let (_, section) = docs.split_once("## Every month").expect("the section");
    let blocks = portcullis_markdown::blocks(section).into_iter();
    blocks.map(|block| block.text).next().expect("a script")
}

// Finding 9.6: with one key that could not be rotated, the new keys of all others were lost.
#[test]
fn the_monthly_script_stores_every_new_key_also_when_one_cannot_be_rotated() {
    let operator = Operator::with_policy();
    let keys = [31, 32, 33].map(|days| aged(&operator, days, &[]));
    // A second rotation in the overlap of the first is refused; it is old enough all the same.
    let stuck = &keys[1];
    operator.says(&["key", "rotate", id(stuck), "--overlap", "72h"]).json();
    let name = Key::record("acme", id(stuck));
    let (_, mut old) = record(&operator, "acme", id(stuck));
    old.secrets[0].issued_at = Some(old.created_at);
    let doc = serde_json::to_string(&old).unwrap();
    let _: () = operator.redis().hset(name.as_str(), "doc", doc).unwrap();

    let place = Scratch::nowhere("monthly");
    let (bin, store, tmp) = (
        format!("{}/bin", place.path()),
        format!("{}/store", place.path()),
        format!("{}/tmp", place.path()),
    );
    for dir in [&bin, &store, &tmp] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let script = format!("{bin}/monthly");
    std::fs::write(&script, monthly_script()).unwrap();
    // In the place of OpenBao's own: what it is given to keep.
    let bao = "#!/bin/sh\n[ \"$1 $2 $4\" = \"kv put api_key=-\" ] && mkdir -p \"$STORE/$(dirname \"$3\")\" && \
               cat >\"$STORE/$3\"\n";
    std::fs::write(format!("{bin}/bao"), bao).unwrap();
    let executable =
        std::process::Command::new("chmod").args(["+x", &format!("{bin}/bao")]).status();
    assert!(executable.unwrap().success());
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    let path = format!("{bin}:{}:{}", own.display(), std::env::var("PATH").unwrap());
    let ran = std::process::Command::new("bash")
        .arg(&script)
        .envs([("PATH", &path), ("STORE", &store), ("TMPDIR", &tmp)])
        .env("PORTCULLIS_REDIS", operator.valkey.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{said}");
    assert!(said.contains("NOT rotated"), "{said}");
    for key in [&keys[0], &keys[2]] {
        let stored = std::fs::read_to_string(format!("{store}/secret/agents/acme/{}", id(key)));
        let (_, record) = record(&operator, "acme", id(key));
        let stored = stored.unwrap_or_else(|error| panic!("{}: {error}; {said}", id(key)));
        assert_ne!(json!(stored), key["key"]);
        assert!(authenticate(&record, &stored).is_ok());
    }
    assert!(!std::path::Path::new(&format!("{store}/secret/agents/acme/{}", id(stuck))).exists());
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().flatten().collect();
    let left = left.iter().flat_map(|dir| std::fs::read_dir(dir.path()).unwrap()).count();
    assert_eq!(left, 0, "keys are left on disk");
    std::fs::remove_dir_all(place.path()).unwrap();
}
