//! `portcullis operator`: what a Redis user of one organisation, and of one task, can do, with the tool and without it.

use std::time::Duration;

use ed25519_compact::{KeyPair, Seed};
use portcullis_core::audit::{Chain, Entry};
use portcullis_core::authz::approval::Waiting;
use portcullis_redis_lua::{ApprovalKey, ApprovalReply, ChainEnd, Checkpoint, Key, Value as Reply};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, golden_file, on_a_full_disk, run};
use crate::valkey::{Valkey, send};

const TASKS: [&str; 6] = ["read", "keys", "policy", "approve", "limits", "tokens"];

/// A Redis with two organisations, each with a policy and a key.
fn deployment(valkey: Valkey) -> (Operator, [String; 2]) {
    let admin = Operator { valkey };
    let ids = ["acme", "globex"].map(|org| {
        admin.says(&["policy", "push", policy(org, 5).path(), "--reason", "start"]).json();
        let issue = ["key", "issue", "--org", org, "--name", "agent", "--role", "analyst"];
        let issued = admin.says(&[&issue[..], &["--tier", "free"]].concat()).json();
        issued["record"]["id"].as_str().unwrap().to_owned()
    });
    (admin, ids)
}

fn policy(org: &str, limit: u32) -> Scratch {
    let text = golden_file("policy.yaml").replace("[acme]", &format!("[{org}]"));
    Scratch::new("policy.yaml", &text.replace("limit: 5,", &format!("limit: {limit},")))
}

/// A person with a user of their own.
struct Person {
    url: String,
    org: &'static str,
}

impl Person {
    fn new(admin: &Operator, name: &str, tasks: &[&str]) -> Self {
        let create = ["operator", "create", name, "--org", "acme", "--task", &tasks.join(",")];
        let said = admin.says(&create);
        assert_eq!(said.status, 0, "{said:?}");
        let created: Value = serde_json::from_str(&said.stdout).unwrap();
        assert!(said.stderr.contains("the users could not be saved"), "{said:?}");
        Self { url: created["url"].as_str().unwrap().to_owned(), org: "acme" }
    }

    fn says(&self, arguments: &[&str]) -> Said {
        let environment = [("PORTCULLIS_REDIS", self.url.as_str()), ("PORTCULLIS_ORG", self.org)];
        let arguments = [arguments, &["--output", "json", "--actor", "alice"]].concat();
        run(&arguments, &environment, "")
    }

    fn done(&self, arguments: &[&str]) -> Value {
        let said = self.says(arguments);
        assert!(said.status == 0, "{arguments:?}: {said:?}");
        serde_json::from_str(&said.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) {
        let said = self.says(arguments);
        assert_eq!(said.status, 1, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("this Redis user may not do that"), "{arguments:?}: {said:?}");
    }

    fn redis(&self) -> redis::Connection {
        redis::Client::open(self.url.as_str()).unwrap().get_connection().unwrap()
    }
}

/// A call of acme's key that waits, as the filter notes it.
fn ask(admin: &Operator, org: &str, digest: &str) {
    let waiting: Waiting = serde_json::from_value(json!({
        "digest": digest, "org": org, "principal": "agent", "client_id": "k1", "role": "analyst",
        "connector": "demo", "tool": "create_note", "arguments": {"text": "x"}, "rule": "r",
        "request_id": "q", "asked_at": "2026-11-29T12:00:00Z",
    }))
    .expect("a waiting call");
    let doc = serde_json::to_string(&waiting).unwrap();
    let approval = ApprovalKey::new(org, "k1", digest);
    let mut redis = admin.redis();
    let _: () = redis.del(approval.key().as_str()).unwrap();
    let asked = crate::valkey::run(&mut redis, &approval.ask(&doc, Duration::from_secs(600)));
    assert_eq!(ApprovalKey::asked(asked), Ok(ApprovalReply::Asked));
}

/// An id names the call: a call that was made and asks again waits under the same one.
#[test]
fn a_decision_is_about_the_request_that_was_looked_at() {
    let operator = Operator::with_policy();
    let digest = "3f9c0a5be2d17788".repeat(4);
    ask(&operator, "acme", &digest);
    let id = &digest[..16];
    let listed = operator.says(&["approve", "list"]).json();
    assert_eq!(listed["approvals"][0]["request_id"], "q");
    let table = operator.plainly(&["approve", "list"]).stdout;
    assert!(table.lines().nth(1).is_some_and(|row| row.ends_with("  q")), "{table}");

    let grant = ["approve", "grant", id, "--reason", "r", "--request"];
    let refused = operator.says(&[&grant[..], &["p"]].concat()).refusal();
    assert_eq!(refused["found"], format!("request q is waiting under {id}"));
    assert_eq!(refused["expected"], "--request q; nothing was changed");
    let listed = operator.says(&["approve", "list"]).json();
    assert_eq!(listed["approvals"][0]["state"], "pending");

    operator.says(&[&grant[..], &["q"]].concat()).json();
    let entries: Vec<String> =
        operator.redis().lrange(Key::admin("acme").as_str(), -1, -1).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&entries[0]).unwrap();
    assert_eq!(entry["changes"]["request_id"]["to"], "q", "{entry}");
    assert_eq!(entry["changes"]["approval"]["to"], id);
}

/// When a call of the caller expires among those that wait, and its state.
fn place(operator: &Operator, digest: &str) -> (f64, String) {
    let mut redis = operator.redis();
    let own = Key::approvals_of("acme", "k1");
    let state = redis.hget(Key::approval("acme", digest).as_str(), "rev").unwrap();
    (redis.zscore(own.as_str(), digest).unwrap(), state)
}

#[test]
fn a_denied_call_no_longer_waits_among_those_of_its_caller() {
    let operator = Operator::with_policy();
    let [denied, granted] = ["ab", "cd"].map(|digest| digest.repeat(32));
    [&denied, &granted].into_iter().for_each(|digest| ask(&operator, "acme", digest));
    let decide = |verdict: &str, digest: &str| {
        let more = ["--reason", "r", "--expires", "2h"];
        operator.says(&[&["approve", verdict, &digest[..16]][..], &more].concat()).json()
    };
    let asked = place(&operator, &denied).0;
    decide("deny", &denied);
    decide("grant", &granted);
    let (denied, granted) = (place(&operator, &denied), place(&operator, &granted));
    assert!(denied.0 < asked - 60_000.0, "{denied:?}: over by now");
    assert!(granted.0 > asked + 3_600_000.0, "{granted:?}: as long as the grant");
    assert_eq!((denied.1.as_str(), granted.1.as_str()), ("denied", "granted"));
}

/// Each command that a task is for.
fn deed<'a>(task: &str, id: &'a str, file: &'a str, digest: &'a str) -> Vec<&'a str> {
    let issuer = "https://idp.example/";
    match task {
        "read" => vec!["key", "list"],
        "keys" => vec!["key", "rotate", id, "--reason", "r", "--overlap", "0s"],
        "policy" => vec!["policy", "push", file, "--reason", "r", "--orphan-keys"],
        "approve" => vec!["approve", "grant", digest, "--reason", "r"],
        "limits" => vec!["limits", "reset", id, "--reason", "r"],
        "tokens" => {
            vec![
                "token", "deny", "--jti", "j", "--issuer", issuer, "--org", "acme", "--reason", "r",
            ]
        }
        _ => unreachable!("{task}"),
    }
}

// Proves: X32
#[test]
fn an_operator_does_the_tasks_of_one_and_no_others() {
    for valkey in Valkey::each() {
        let (admin, [id, _]) = deployment(valkey);
        let digest = "ab".repeat(32);
        let mut limit = 10;
        for mine in TASKS {
            let person = Person::new(&admin, &format!("of-{mine}"), &[mine]);
            for task in TASKS {
                limit += 1;
                let file = policy("acme", limit);
                ask(&admin, "acme", &digest);
                draw(&admin, &id);
                let deed = deed(task, &id, file.path(), &digest);
                match task == mine || task == "read" {
                    true => _ = person.done(&deed),
                    false => person.refused(&deed),
                }
            }
        }
    }
}

/// Something to reset.
fn draw(admin: &Operator, id: &str) {
    use portcullis_redis_lua::{Admit, Scope, Window};
    let window = Window {
        key: Key::window(Scope::Org("acme"), "tiers.free.calls", &[("key", id)]),
        limit: 5,
        length_us: 1_000_000,
        grain_us: 1,
        cost: 1,
        alert: None,
    };
    let admit = Admit { guards: vec![], windows: vec![window], used: None, intent: None };
    let reply = crate::valkey::run(&mut admin.redis(), &admit.call());
    assert!(matches!(reply, Reply::Array(_)), "{reply:?}");
}

// Proves: X32
#[test]
fn an_operator_of_one_organisation_finds_everything_of_its_own() {
    let (admin, [id, _]) = deployment(Valkey::start());
    let person = Person::new(&admin, "alice", &TASKS);
    draw(&admin, &id);
    let keys = person.done(&["key", "list"]);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
    person.done(&["key", "show", &id]);
    person.done(&["limits", "show", &id]);
    let windows = person.done(&["limits", "list"]);
    assert_eq!(windows["windows"][0]["key"], json!(id), "{windows}");
    person.done(&["explain", "--key", &id, "--tool", "query_users", "--connector", "demo"]);
    person.done(&["token", "list"]);
    person.done(&["approve", "list"]);
    person.done(&["audit", "show", "--admin"]);
    person.done(&["audit", "verify", "--admin"]);
    let first = person.done(&["policy", "show"])["version"].clone();
    let canary = policy("acme", 6);
    person.done(&["policy", "push", canary.path(), "--reason", "r", "--canary", "10%"]);
    person.done(&["policy", "diff"]);
    person.done(&["policy", "promote", "--reason", "r"]);
    person.done(&["policy", "rollback", "--reason", "r"]);
    assert_eq!(person.done(&["policy", "show"])["version"], first);
    let history = person.done(&["policy", "history"]);
    let entries = history["history"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["organisations"] == json!(["acme"])), "{history}");
    assert_eq!(entries.len(), 4, "{history}");
    // The deployment's history has both.
    let all = admin.says(&["policy", "history"]).json();
    assert_eq!(all["history"].as_array().unwrap().len(), 5, "{all}");
}

// Finding 12.10: whoever may write of one organisation could overwrite another's policy, and read its history.
// Proves: X32
#[test]
fn whoever_has_all_tasks_of_one_organisation_neither_reads_nor_changes_another() {
    for valkey in Valkey::each() {
        let name = valkey.name();
        let (admin, [_, theirs]) = deployment(valkey);
        let person = Person::new(&admin, "alice", &TASKS);
        let file = policy("globex", 9);
        for arguments in [
            vec!["key", "list", "--org", "globex"],
            vec!["key", "revoke", &theirs, "--org", "globex", "--reason", "r"],
            vec!["policy", "push", file.path(), "--reason", "r"],
            vec!["policy", "rollback", "--org", "globex", "--reason", "r"],
            vec!["approve", "list", "--org", "globex"],
            vec!["limits", "show", &theirs, "--org", "globex"],
            vec!["token", "list", "--org", "globex"],
            vec!["audit", "show", "--admin", "--org", "globex"],
        ] {
            // The tool itself refuses what is not the organisation of PORTCULLIS_ORG; Redis refuses it without that.
            assert_eq!(person.says(&arguments).status, 2, "{arguments:?}");
            person.refused(&[&arguments[..], &["--organisation", "globex"]].concat());
        }
        let version: String = admin.redis().hget(Key::policy("globex").as_str(), "rev").unwrap();
        let document = Key::policy_document(&version).to_string();
        let before: Vec<u8> = admin.redis().get(&document).unwrap();
        let foreign = Key::policy("globex").to_string();
        let mut redis = person.redis();
        for words in [
            vec!["HSET", &foreign, "rev", "x"],
            vec!["HGETALL", &foreign],
            vec!["DEL", &foreign],
            vec!["RPUSH", "portcullis:{globex}:admin", "x"],
            vec!["LRANGE", "portcullis:{globex}:history", "0", "-1"],
            vec!["LRANGE", "portcullis:policy:history", "0", "-1"],
            vec!["SMEMBERS", "portcullis:organisations"],
            vec!["SADD", "portcullis:organisations", "x"],
            vec!["EVAL", "return redis.call('HGET', KEYS[1], 'rev')", "1", &foreign],
            vec!["EVAL", "return redis.call('HGET', ARGV[1], 'rev')", "0", &foreign],
            vec!["EVAL_RO", "return redis.call('HGET', ARGV[1], 'rev')", "0", &foreign],
            vec!["EVAL", "return redis.call('HSET', ARGV[1], 'rev', 'x')", "0", &foreign],
            vec!["EVAL", "return redis.call('SCAN', '0')", "0"],
            vec!["SET", &document, "x"],
            vec!["SETRANGE", &document, "0", "x"],
            vec!["DEL", &document],
            vec!["EXPIRE", &document, "1"],
            vec!["EVAL", "return redis.call('SET', ARGV[1], 'x')", "0", &document],
            vec!["SCAN", "0"],
            vec!["KEYS", "*"],
            vec!["RANDOMKEY"],
            vec!["ACL", "LIST"],
            vec!["CONFIG", "GET", "*"],
            vec!["MONITOR"],
            vec!["CLIENT", "LIST"],
            vec!["SCRIPT", "FLUSH"],
            vec!["FUNCTION", "LIST"],
            vec!["FLUSHALL"],
        ] {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let reply = send(&mut redis, &words);
            let refused = matches!(&reply, Reply::Error(text) if text.contains("NOPERM")
                || text.contains("can't run this command")
                || text.contains("can't access at least one of the keys")
                || text.contains("permission"));
            let said: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            assert!(refused, "{name}: {said:?}: {reply:?}");
        }
        // It may only add documents.
        let words = ["SETNX", document.as_str(), "x"].map(str::as_bytes);
        assert_eq!(send(&mut redis, &words), Reply::Int(0));
        assert_eq!(admin.redis().get::<_, Vec<u8>>(&document).unwrap(), before);
        let still: String = admin.redis().hget(&foreign, "rev").unwrap();
        assert_eq!(still, version);
    }
}

// Proves: X32
#[test]
fn the_user_of_redis_is_the_actor_and_what_was_typed_a_claim() {
    let (admin, [id, _]) = deployment(Valkey::start());
    let person = Person::new(&admin, "alice-keys", &["keys"]);
    person.done(&["key", "revoke", &id, "--reason", "leaked"]);
    let entries = admin.says(&["audit", "show", "--admin", "--org", "acme"]).json();
    let revoked = &entries["entries"][0];
    assert_eq!(
        [&revoked["actor"], &revoked["actor_claim"]],
        [&json!("alice-keys"), &json!("alice")]
    );
    // Without a user there is nothing that Redis proves.
    let pushed = entries["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(pushed["actor"], "tester");
    assert_eq!(pushed.get("actor_claim"), None);
}

#[test]
fn operators_are_listed_replaced_and_removed() {
    let (admin, _) = deployment(Valkey::start());
    let person = Person::new(&admin, "bob", &["keys", "approve"]);
    let listed = admin.says(&["operator", "list"]).json();
    let bob =
        json!({"user": "bob", "org": "acme", "tasks": ["read", "keys", "approve"], "on": true});
    assert_eq!(listed["operators"], json!([bob]));
    let again = ["operator", "create", "bob", "--all", "--task", "read"];
    assert_eq!(admin.says(&again).status, 1);
    // A connection that was open went on as the user who was replaced.
    let mut open = person.redis();
    assert_eq!(redis::cmd("PING").query::<String>(&mut open).unwrap(), "PONG");
    let replaced = admin.says(&[&again[..], &["--replace"]].concat());
    assert!(replaced.status == 0, "{replaced:?}");
    let replaced: Value = serde_json::from_str(&replaced.stdout).unwrap();
    assert_eq!(replaced["connections_ended"], json!(1));
    assert!(redis::cmd("PING").query::<String>(&mut open).is_err());
    let listed = admin.says(&["operator", "list"]).json();
    assert_eq!(
        listed["operators"],
        json!([{"user": "bob", "org": null, "tasks": ["read"], "on": true}])
    );
    // The former password is gone.
    assert_eq!(person.says(&["key", "list"]).status, 2);
    let out = Scratch::nowhere("url");
    let create = ["operator", "create", "carol", "--all", "--task", "policy", "--out", out.path()];
    assert_eq!(admin.says(&create).status, 0);
    let url = std::fs::read_to_string(out.path()).unwrap();
    let carol = [("PORTCULLIS_REDIS", url.trim())];
    let file = policy("initech", 5);
    let said = run(&["policy", "push", file.path(), "--reason", "r"], &carol, "");
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(admin.says(&["operator", "remove", "carol"]).status, 0);
    assert_eq!(admin.says(&["operator", "remove", "carol"]).status, 1);
    assert_eq!(run(&["key", "list"], &carol, "").status, 2);
}

// Proves: X32, A17
#[test]
fn an_operator_of_the_deployment_anchors_audit_chains() {
    let (admin, _) = deployment(Valkey::start());
    let said = admin.says(&["operator", "create", "dora", "--all", "--task", "read"]);
    assert_eq!(said.status, 0, "{said:?}");
    let created: Value = serde_json::from_str(&said.stdout).unwrap();
    let dora = [("PORTCULLIS_REDIS", created["url"].as_str().unwrap())];
    let mut chain = Chain::new("worker-a".into());
    let line = chain.append(&Entry::default());
    let (last, end) = (ChainEnd::default(), chain.end());
    let checkpoint = Checkpoint { chain: "worker-a".into(), last, end, build: "b" };
    let reply = crate::valkey::run(&mut admin.redis(), &checkpoint.call());
    assert!(Checkpoint::decode(reply).is_ok());
    let pair = KeyPair::from_seed(Seed::new([7; 32]));
    let key = Scratch::new("anchor.key", &pair.sk.to_pem());
    let anchors = Scratch::nowhere("anchors.jsonl");
    let anchor = ["audit", "anchor", "--log", anchors.path(), "--key", key.path()];
    let said = run(&anchor, &dora, "");
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stdout.starts_with("3 chains anchored"), "{said:?}");
    let verify = ["audit", "verify", "-", "--checkpoints"];
    let said = run(&verify, &dora, &format!("{line}\n"));
    assert_eq!(said.status, 0, "{said:?}");
}

#[test]
fn rules_are_printed_for_files_and_managed_servers() {
    let valkey = Valkey::start();
    let print = |form: &str| {
        let arguments =
            ["operator", "acl", "bob", "--org", "acme", "--task", "approve", "--form", form];
        run(&arguments, &[], "").stdout
    };
    assert!(
        print("setuser")
            .starts_with("ACL SETUSER bob reset on >PASSWORD resetchannels -@all +ping")
    );
    assert!(print("aclfile").starts_with("user bob on >PASSWORD "));
    let rules = print("access-string");
    assert!(rules.starts_with("on resetchannels -@all "), "{rules}");
    // Redis takes them as they are.
    let mut redis = valkey.connect();
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("bob");
    rules.trim().split(' ').for_each(|word| _ = command.arg(word));
    let _: () = command.query(&mut redis).expect("well-formed rules");
}

// Proves: X4
#[test]
fn an_operator_whose_password_cannot_be_written_is_not_made_and_leaves_no_file() {
    let operator = Operator::new();
    let out = Scratch::nowhere("alice.url");
    let create = ["operator", "create", "alice", "--org", "acme", "--task", "keys"];
    let create = [&create[..], &["--out", out.path()]].concat();
    let redis = [("PORTCULLIS_REDIS", operator.valkey.url())];
    let said = on_a_full_disk(&create, &redis);
    assert!(said.status == 1 && said.stderr.contains("File too large"), "{said:?}");
    assert!(!std::path::Path::new(out.path()).exists());
    assert_eq!(operator.says(&["operator", "list"]).json(), json!({ "operators": [] }));
    assert_eq!(operator.says(&create).status, 0);
    let url = std::fs::read_to_string(out.path()).unwrap();
    assert!(url.starts_with("redis://alice:") && url.ends_with('\n'), "{url}");
}
