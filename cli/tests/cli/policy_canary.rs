//! `policy push --canary`, `promote`, and what the other verbs make of a canary.

use std::collections::BTreeSet;

use portcullis_core::auth::{Identity, IdentityKind};
use portcullis_core::policy::{Activation, Canary};
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, file, issue, run};
use crate::valkey::Valkey;

/// `policy.yaml` with another limit, for these organisations.
fn variant(organisations: &str, limit: u32) -> Scratch {
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let text =
        text.replace("[acme]", organisations).replace("limit: 5,", &format!("limit: {limit},"));
    Scratch::new("variant.yaml", &text)
}

fn push(operator: &Operator, file: &Scratch, more: &[&str]) -> Value {
    operator.says(&[&["policy", "push", file.path(), "--reason", "r"], more].concat()).json()
}

/// What the filter reads.
fn active(operator: &Operator, org: &str) -> Activation {
    let (rev, doc): (String, Vec<u8>) =
        operator.redis().hmget(Key::policy(org).as_str(), &["rev", "doc"]).unwrap();
    Activation::parse(&rev, &doc).unwrap()
}

fn version(said: &Value) -> String {
    said["version"].as_str().unwrap().to_owned()
}

fn history(operator: &Operator) -> Vec<Value> {
    operator.says(&["policy", "history"]).json()["history"].as_array().unwrap().clone()
}

/// An operator with `policy.yaml` active, its version, and another document.
fn with_candidate() -> (Operator, String, Scratch) {
    let operator = Operator::with_policy();
    let first = active(&operator, "acme").version.to_string();
    (operator, first, variant("[acme]", 6))
}

#[test]
fn a_canary_leaves_the_active_version_where_it_is() {
    let (operator, first, candidate) = with_candidate();
    let key = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let pushed = push(
        &operator,
        &candidate,
        &[
            "--canary",
            "10%",
            "--canary-caller",
            &key,
            "--canary-subject",
            "agent-7",
            "--canary-issuer",
            "https://idp.example",
            "--canary-certificate",
            "nightly",
        ],
    );
    let second = version(&pushed);
    let callers = |view: &Value| -> BTreeSet<String> {
        serde_json::from_value(view["callers"].clone()).unwrap()
    };
    let named = BTreeSet::from([
        format!("key {key}"),
        "subject agent-7 of https://idp.example".to_owned(),
        "certificate nightly".to_owned(),
    ]);
    let said = &pushed["organisations"][0];
    assert_eq!((&pushed["verb"], &pushed["changed"]), (&json!("canary"), &json!(true)));
    assert_eq!((&said["from"], &said["to"]), (&json!(first), &json!(first)));
    assert_eq!(
        (&said["canary"]["version"], &said["canary"]["percent"]),
        (&json!(second), &json!(10))
    );
    assert_eq!(callers(&said["canary"]), named);

    // As the filter tells callers apart.
    let there = active(&operator, "acme");
    assert_eq!(there.version.as_str(), first);
    let Canary { version, percent, callers: holders } = there.canary.clone().unwrap();
    assert_eq!((version.as_str(), percent, holders.len()), (second.as_str(), 10, 3));
    assert_eq!(there.version_for(&key).as_str(), second);
    let subject = IdentityKind::Token {
        issuer: "https://idp.example".to_owned(),
        subject: "agent-7".to_owned(),
    };
    let certificate = IdentityKind::Certificate("nightly".to_owned());
    for identity in [subject, certificate].map(Identity::from) {
        assert_eq!(there.version_for(identity.holder()).as_str(), second);
    }

    let entry = &history(&operator)[0];
    assert_eq!((&entry["verb"], &entry["version"]), (&json!("canary"), &json!(second)));
    assert_eq!(entry["canary"]["percent"], 10);
    assert_eq!(callers(&entry["canary"]), named);
    assert_eq!(
        (&entry["active_for"], &entry["canary_for"][0]["org"]),
        (&json!([]), &json!("acme"))
    );
    assert_eq!(operator.says(&["policy", "show"]).json()["version"], json!(first));
    let shown = operator.says(&["policy", "show", &second]).json();
    assert_eq!(callers(&shown["canary_for"][0]), named);
    let plainly = operator.plainly(&["policy", "show", &second]);
    assert!(plainly.stderr.starts_with("acme only tries this version: 10 %, "), "{plainly:?}");
    serde_json::from_str::<Value>(&plainly.stdout).unwrap();
    let listed = operator.plainly(&["policy", "history"]).stdout;
    assert!(listed.lines().nth(1).unwrap().contains("acme (10 %, "), "{listed}");

    let chain = operator.says(&["audit", "show", "--admin"]).json();
    let entry = &chain["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["policy_version"]),
        (&json!("policy.canary"), &json!(first))
    );
    assert_eq!(entry["changes"]["canary"]["to"]["version"], json!(second));
    operator.says(&["audit", "verify", "--admin"]).json();

    let explained = |more: &[&str]| {
        let question = ["explain", "--tool", "query_users", "--connector", "demo"];
        version_of(&operator.says(&[&question, more].concat()).json())
    };
    assert_eq!(explained(&["--key", &key]), second);
    assert_eq!(explained(&["--role", "analyst", "--org", "acme"]), first);
}

fn version_of(explained: &Value) -> String {
    explained["policy_version"].as_str().unwrap().to_owned()
}

#[test]
fn a_share_grows_and_another_canary_replaces_the_first() {
    let (operator, _, candidate) = with_candidate();
    push(&operator, &candidate, &["--canary", "10%"]);
    let again = push(&operator, &candidate, &["--canary", "10%"]);
    assert_eq!(again["changed"], false);
    let plainly = |file: &Scratch, share: &str| {
        let arguments = ["policy", "push", file.path(), "--reason", "r", "--canary", share];
        operator.plainly(&arguments).stdout
    };
    let grown = plainly(&candidate, "30%");
    assert!(grown.contains("is tried on 30 %, from the next request on"), "{grown}");
    assert!(grown.contains("stays active; the canary was on 10 %"), "{grown}");
    let first = active(&operator, "acme").canary.unwrap().version;
    let replaced = plainly(&variant("[acme]", 7), "5%");
    assert!(replaced.contains(&format!("replaces the canary {first} (30 %)")), "{replaced}");
    assert_eq!(active(&operator, "acme").canary.unwrap().percent, 5);
    assert_eq!(history(&operator)[0]["ended_canary"], json!(first));
}

#[test]
fn what_cannot_be_a_canary_is_refused_and_nothing_changes() {
    let operator = Operator::new();
    let candidate = variant("[acme]", 6);
    let with = |file: &str, more: &[&str]| {
        operator.says(&[&["policy", "push", file, "--reason", "r"], more].concat())
    };
    let refusal = with(candidate.path(), &["--canary", "10%"]).refusal();
    assert_eq!(refusal["found"], "acme without an active policy");
    with(&file("policy.yaml"), &[]).json();
    let before = active(&operator, "acme");
    for share in ["100%", "101", "-5%", "ten"] {
        assert_eq!(with(candidate.path(), &["--canary", share]).status, 2, "{share}");
    }
    let nobody = with(candidate.path(), &["--canary", "0%"]);
    assert_eq!(nobody.status, 2);
    assert!(nobody.stderr.contains("a canary without callers"), "{nobody:?}");
    assert_eq!(with(candidate.path(), &["--canary-subject", "agent-7"]).status, 2);
    let refusal = with(candidate.path(), &["--canary-caller", "knobody"]).refusal();
    assert_eq!(refusal["found"], "there is no key knobody");
    let refusal = with(&file("policy.yaml"), &["--canary", "10%"]).refusal();
    let found = format!("policy {} is the active one of acme", before.version);
    assert_eq!(refusal["found"], found);
    let refusal = operator.says(&["policy", "promote", "--reason", "r"]).refusal();
    assert_eq!(refusal["found"], "no policy is tried on some callers");
    assert_eq!(active(&operator, "acme"), before);
    assert_eq!(history(&operator).len(), 1);
}

#[test]
fn promote_makes_the_canary_active_and_rollback_goes_back_behind_it() {
    let (operator, first, candidate) = with_candidate();
    let second = version(&push(&operator, &candidate, &["--canary", "10%"]));
    let promoted = operator.says(&["policy", "promote", "--reason", "it holds"]).json();
    assert_eq!((&promoted["version"], &promoted["verb"]), (&json!(second), &json!("promote")));
    let there = active(&operator, "acme");
    assert_eq!((there.version.as_str(), &there.canary), (second.as_str(), &None));
    let entry = &history(&operator)[0];
    assert_eq!((&entry["verb"], &entry["active_for"]), (&json!("promote"), &json!(["acme"])));
    assert_eq!(entry["ended_canary"], Value::Null);
    let chain = operator.says(&["audit", "show", "--admin"]).json();
    assert_eq!(chain["entries"][0]["action"], "policy.promote");
    let back = operator.says(&["policy", "rollback", "--reason", "r"]).json();
    assert_eq!(back["version"], json!(first));
}

/// Task 9 of the first afternoon: one verb had two effects, by a state that the operator did not see. Proves: X4
#[test]
fn a_rollback_ends_no_canary_by_accident_and_the_end_of_a_canary_rolls_nothing_back() {
    let (operator, first, candidate) = with_candidate();
    let stop = ["policy", "canary", "stop", "--reason", "r"];
    let rollback = ["policy", "rollback", "--reason", "r"];
    // No canary is there: nothing is rolled back in its place.
    let refused = operator.says(&stop).refusal();
    assert!(refused["found"].as_str().unwrap().contains("no policy is tried"), "{refused}");
    push(&operator, &candidate, &[]);
    let third = version(&push(&operator, &variant("[acme]", 7), &["--canary", "50%"]));
    let second = active(&operator, "acme").version.to_string();
    let refused = operator.says(&rollback).refusal();
    let told = refused.to_string();
    assert!(told.contains(&format!("policy {third} is tried on 50 % of acme")), "{told}");
    assert!(told.contains("portcullis policy canary stop") && told.contains(&second), "{told}");
    assert!(operator.says(&[&rollback[..], &["--to", &first]].concat()).refusal().is_object());
    assert!(active(&operator, "acme").canary.is_some());
    let text = operator.plainly(&[&stop[..], &["--actor", "tester"]].concat()).stdout;
    assert!(text.starts_with(&format!("policy {second} is active, from the next")), "{text}");
    assert!(text.contains(&format!("as before; the canary {third} (50 %) is over")), "{text}");
    let there = active(&operator, "acme");
    assert_eq!((there.version.as_str(), &there.canary), (second.as_str(), &None));
    // The history and the admin chain said `rollback`, and nothing was rolled back.
    let entry = &history(&operator)[0];
    assert_eq!((&entry["verb"], &entry["ended_canary"]), (&json!("canary_stop"), &json!(third)));
    // From what to what.
    let text = operator.plainly(&[&rollback[..], &["--actor", "tester"]].concat()).stdout;
    assert!(text.contains(&format!("acme  from {second} to {first}")), "{text}");
}

#[test]
fn with_the_version_that_is_to_go_a_rollback_goes_back_beside_a_canary() {
    let (operator, first, candidate) = with_candidate();
    push(&operator, &candidate, &[]);
    let second = active(&operator, "acme").version.to_string();
    let third = version(&push(&operator, &variant("[acme]", 7), &["--canary", "50%"]));
    let rollback = ["policy", "rollback", "--reason", "r", "--from"];
    let back = operator.says(&[&rollback[..], &[&second]].concat()).json();
    assert_eq!(back["version"], json!(first), "from the active version, both end");
    assert_eq!(active(&operator, "acme").canary, None);
    push(&operator, &candidate, &[]);
    push(&operator, &variant("[acme]", 7), &["--canary", "50%"]);
    let back = operator.says(&[&rollback[..], &[&third]].concat()).json();
    assert_eq!(back["version"], json!(second), "from the canary, only that ends");
    // What that undid is the canary; one step further back is another matter.
    let refused = operator.says(&["policy", "rollback", "--reason", "r"]).refusal();
    let found =
        format!("the last rollback ended the canary {third} of acme, and left {second} active");
    assert_eq!(refused["found"], json!(found));
    assert_eq!(active(&operator, "acme").version.as_str(), second);
    let back = operator.says(&[&rollback[..], &[&second]].concat()).json();
    assert_eq!(back["version"], json!(first));
}

#[test]
fn a_push_over_a_canary_ends_it_and_says_so() {
    let (operator, _, candidate) = with_candidate();
    let second = version(&push(&operator, &candidate, &["--canary", "20%"]));
    let other = variant("[acme]", 7);
    let text = operator.plainly(&["policy", "push", other.path(), "--reason", "r"]).stdout;
    assert!(text.contains(&format!("the canary {second} (20 %) is over")), "{text}");
    assert_eq!(active(&operator, "acme").canary, None);
    assert_eq!(history(&operator)[0]["ended_canary"], json!(second));
    // What was active, and not what was only tried, is what a rollback goes back to.
    let back = operator.says(&["policy", "rollback", "--reason", "r"]).json();
    assert_ne!(back["version"], json!(second));
    assert_eq!(history(&operator)[0]["canary"], Value::Null);
}

#[test]
fn organisations_go_their_own_ways() {
    let operator = Operator::with_policy();
    push(&operator, &variant("[globex]", 5), &[]);
    let both = variant("[acme, globex]", 8);
    let third = version(&push(&operator, &both, &["--canary", "10%", "--all"]));
    let of = |org: &str| active(&operator, org);
    let (acme, globex) = (of("acme").version, of("globex").version);
    assert_ne!(acme, globex);
    let promoted = operator.says(&["policy", "promote", "--org", "acme", "--reason", "r"]).json();
    assert_eq!(promoted["organisations"].as_array().unwrap().len(), 1);
    assert_eq!(
        (of("acme").version.as_str(), of("globex").version),
        (third.as_str(), globex.clone())
    );
    assert!(of("globex").canary.is_some());
    let refusal = operator.says(&["policy", "promote", "--org", "acme", "--reason", "r"]).refusal();
    assert_eq!(refusal["found"], "no policy is tried on some callers in acme");
    let back =
        operator.says(&["policy", "canary", "stop", "--org", "globex", "--reason", "r"]).json();
    assert_eq!(back["organisations"][0]["org"], "globex");
    assert_eq!((of("globex").version, of("globex").canary), (globex.clone(), None));
    assert_eq!(of("acme").version.as_str(), third);
    // The last change was globex's; of acme, the last is undone.
    let back = operator.says(&["policy", "rollback", "--org", "acme", "--reason", "r"]).json();
    assert_eq!(back["version"], json!(acme));
    // A document for both is undone for both, each to what it had.
    push(&operator, &both, &["--all"]);
    let text = operator.plainly(&["policy", "rollback", "--all", "--reason", "r"]).stdout;
    assert!(text.starts_with("each organisation has another policy active"), "{text}");
    assert_eq!((of("acme").version, of("globex").version), (acme, globex));
}

#[test]
fn of_a_promotion_and_a_push_at_the_same_moment_none_is_lost() {
    let (operator, _, candidate) = with_candidate();
    for round in 0..4 {
        push(&operator, &candidate, &["--canary", "20%"]);
        let other = variant("[acme]", 20 + round);
        std::thread::scope(|scope| {
            let promoted =
                scope.spawn(|| operator.says(&["policy", "promote", "--reason", "race"]));
            push(&operator, &other, &[]);
            // Whoever comes second finds no canary any more.
            let promoted = promoted.join().unwrap();
            assert!(promoted.status == 0 || promoted.stderr.contains("no policy is tried"));
        });
        let entries = operator.says(&["audit", "show", "--admin"]).json()["entries"].clone();
        let actions: Vec<_> =
            entries.as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
        let newest = history(&operator)[0].clone();
        assert_eq!(actions[0], format!("policy.{}", newest["verb"].as_str().unwrap()));
        assert_eq!(json!(active(&operator, "acme").version), newest["version"]);
        operator
            .says(&["policy", "rollback", "--reason", "r", "--force", "--to", &first_of(&operator)])
            .json();
    }
    operator.says(&["audit", "verify", "--admin"]).json();
}

fn first_of(operator: &Operator) -> String {
    version(history(operator).last().unwrap())
}

/// A Cluster changes one organisation after the other. Finding: after a failure between them, a rollback or the end of a
/// canary was in no history. Proves: X9
#[test]
fn what_a_cluster_changed_before_a_failure_is_in_the_history_of_that_part() {
    let nodes = Scratch::nowhere("nodes.conf");
    let operator = Operator { valkey: Valkey::cluster(nodes.path()) };
    let both = "[acme, globex]";
    let first = version(&push(&operator, &variant(both, 6), &[]));
    let second = version(&push(&operator, &variant(both, 7), &[]));
    // A user who may change acme's part alone, though all can be read.
    let rules = ["on", "nopass", "+@all", "%R~*", "~*acme*"];
    let mut redis = operator.redis();
    let () = redis::cmd("ACL").arg("SETUSER").arg("half").arg(&rules).query(&mut redis).unwrap();
    let url = operator.valkey.url().replace("redis://", "redis://half:x@");
    let half = |arguments: &[&str]| {
        let arguments = [arguments, &["--all", "--reason", "r", "--output", "json"]].concat();
        run(&arguments, &[("PORTCULLIS_REDIS", &url)], "").refusal().to_string()
    };
    let last = |org: &str| {
        let history = operator.says(&["policy", "history", "--organisation", org]).json();
        let last = &history["history"][0];
        (last["verb"].clone(), last["version"].clone(), last["actor"].clone())
    };
    let refused = half(&["policy", "rollback"]);
    assert!(refused.contains("only acme changed"), "{refused}");
    assert_eq!(active(&operator, "acme").version.as_str(), first);
    assert_eq!(last("acme"), (json!("rollback"), json!(first), json!("half")));
    assert_eq!(active(&operator, "globex").version.as_str(), second);
    assert_eq!(last("globex"), (json!("push"), json!(second), json!("tester")));

    let tried = push(&operator, &variant(both, 8), &["--canary", "10%", "--all"]);
    let refused = half(&["policy", "canary", "stop"]);
    assert!(refused.contains("only acme changed"), "{refused}");
    assert_eq!(last("acme").0, "canary_stop");
    assert_eq!(last("globex"), (json!("canary"), tried["version"].clone(), json!("tester")));
    // The rest, by an operator who may change it.
    operator.says(&["policy", "canary", "stop", "--org", "globex", "--reason", "r"]).json();
    assert_eq!(last("globex").0, "canary_stop");
}
