//! A Redis that holds an older state than the gateways saw: a restored backup, an emptied server.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use portcullis_stack::{Envoy, Stack, Topology, Valkey, ValkeyOptions, ports, ready};
use portcullis_tests::faulty_redis::FaultyRedis;
use portcullis_tests::organisation::Organisation;
use portcullis_tests::world::topology_of_this_run;
use portcullis_tests::{Answer, Case, Request, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["went_back":
        a_restored_copy_of_redis_serves_nothing_that_was_revoked_since_and_the_operator_is_told,
        an_emptied_redis_is_unavailable_and_not_a_wrong_credential,
        a_promoted_replica_without_the_last_writes_serves_nothing_that_was_revoked,
    ]
}

/// Enough connections to meet both workers.
const ENOUGH: usize = 24;

fn answers(org: &Organisation, key: &str) -> Vec<Answer> {
    (0..ENOUGH).map(|_| org.call(key, "query_users", json!({"limit": 1}))).collect()
}

fn all(answers: &[Answer], status: u16) {
    for answer in answers {
        assert_eq!(answer.status(), status, "{}", answer.text());
    }
}

fn rule(answer: &Answer) -> String {
    answer.audit()["decision"]["rule"].as_str().unwrap_or_default().to_owned()
}

/// Calls until Redis is asked again; nothing passes on the way, and nothing is a wrong credential.
fn refused_as_gone_back(org: &Organisation, key: &str) {
    let call = || {
        let answer = org.call(key, "query_users", json!({"limit": 1}));
        answer.assert_refused(503, -31_503);
        rule(&answer)
    };
    let mut in_a_row = 0;
    ready::eventually("Redis that is asked again", Duration::from_secs(20), || {
        in_a_row = if call() == "unavailable.redis.went_back" { in_a_row + 1 } else { 0 };
        (in_a_row >= ENOUGH).then_some(())
    })
    .unwrap();
}

/// The words of all workers for how they are, as far as so many requests meet them.
fn conditions(org: &Organisation) -> BTreeSet<String> {
    let health = Request::bare("GET", "/portcullis/health").header("host", "x");
    let word =
        || org.gateway.send(&health).message()["status"].as_str().unwrap_or_default().to_owned();
    (0..ENOUGH).map(|_| word()).collect()
}

fn events(org: &Organisation) -> Vec<Value> {
    let entries = org.gateway.audit().entries();
    let events = entries.iter().filter_map(|entry| entry["events"].as_array()).flatten();
    events.filter(|event| event["event"] == "state_went_back").cloned().collect()
}

/// Findings 9.5 and 10.5.
// Proves: A21, B2
fn a_restored_copy_of_redis_serves_nothing_that_was_revoked_since_and_the_operator_is_told(
    world: &World<'_>,
) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let (key, other) = (org.key("analyst"), org.key("analyst"));
    all(&answers(&org, &key.key), 200);

    stack.valkeys().for_each(|valkey| valkey.back_up().unwrap());
    org.operator.json(&["key", "revoke", &key.id, "--reason", "leaked"]).unwrap();
    all(&answers(&org, &key.key), 401);
    stack.valkeys().for_each(|valkey| valkey.restore().unwrap());

    refused_as_gone_back(&org, &key.key);
    refused_as_gone_back(&org, &other.key);
    // No client is sent elsewhere for it: other organisations are served.
    assert_eq!(conditions(&org), BTreeSet::from(["degraded".to_owned()]));
    let events = events(&org);
    assert!((1..=2).contains(&events.len()), "once for each worker: {events:?}");
    assert!(events.iter().all(|event| event["org"] == org.name.as_str()), "{events:?}");
    let stats = stack.envoy.admin("stats?filter=state_went_back_total").unwrap().text();
    let counted: usize =
        stats.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<usize>().ok()).sum();
    assert_eq!(counted, events.len(), "{stats}");
    assert_told(&stack.envoy, &format!("portcullis redis accept-restore --org {}", org.name));

    // What was lost is done again, so that it holds when gateways serve the organisation.
    org.operator
        .json(&["key", "revoke", &key.id, "--reason", "leaked, before the restore"])
        .unwrap();
    let accept = ["redis", "accept-restore", "--org", &org.name, "--reason", "disk was lost"];
    org.operator.json(&accept).unwrap();
    all(&answers(&org, &key.key), 401);
    all(&answers(&org, &other.key), 200);
    assert_eq!(conditions(&org), BTreeSet::from(["healthy".to_owned()]));
    let said = org.operator.json(&["audit", "show", "--admin", "--org", &org.name]).unwrap();
    assert!(said.to_string().contains("restore.accept"), "{said}");
}

fn assert_told(envoy: &Envoy, part: &str) {
    let log = fs::read_to_string(envoy.process().log()).unwrap();
    assert!(log.contains(part), "Envoy's log lacks {part:?}");
}

/// Finding 9.7: every client got 401 "not valid", then 429, and OAuth clients began to log in.
// Proves: B2
fn an_emptied_redis_is_unavailable_and_not_a_wrong_credential(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    all(&answers(&org, &key), 200);
    stack.valkeys().for_each(|valkey| _ = valkey.administer(&["FLUSHALL".to_owned()]).unwrap());
    for answer in answers(&org, &key) {
        answer.assert_refused(503, -31_503);
        assert_eq!(rule(&answer), "unavailable.redis.went_back");
    }
    assert_told(&stack.envoy, "Redis holds an older state than this worker saw");
    // Set up anew by an operator who says so, it serves again.
    org.push(&org.standard_policy());
    let fresh = org.key("analyst").key;
    let accept = ["redis", "accept-restore", "--all", "--reason", "set up anew"];
    org.operator.json(&accept).unwrap();
    all(&answers(&org, &fresh), 200);
    all(&answers(&org, &key), 401);
}

/// A replica of the stack's Valkey, in step with it.
fn replica(stack: &Stack) -> Valkey {
    let port = ports::free_port().unwrap();
    let dir = stack.dir().join("replica");
    let program = &stack.options().tools.valkey_server;
    let options = ValkeyOptions {
        name: "valkey-replica".to_owned(),
        ..ValkeyOptions::new(program, &dir, &stack.options().logs(), port)
    };
    let replica = Valkey::with(options).unwrap();
    let master = stack.valkey.address();
    let follow = format!("REPLICAOF {} {}", master.ip(), master.port());
    assert_eq!(replica.administer(&[follow]).unwrap(), ["+OK"]);
    in_step(stack, &replica);
    replica
}

/// Until the replica has all that the master has now.
fn in_step(stack: &Stack, replica: &Valkey) {
    let info = |valkey: &Valkey, field: &str| {
        let text = valkey.administer(&["INFO replication".to_owned()]).ok()?.concat();
        let value = text.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned();
        Some(value)
    };
    ready::eventually("a replica in step", Duration::from_secs(20), || {
        let up = info(replica, "master_link_status:")? == "up";
        let offsets =
            (info(&stack.valkey, "master_repl_offset:")?, info(replica, "slave_repl_offset:")?);
        (up && offsets.0 == offsets.1).then_some(())
    })
    .unwrap();
}

/// Findings 9.5 and 10.5: the very worker that had refused the key a moment before served it again, and no event said so.
// Proves: A21, B2
fn a_promoted_replica_without_the_last_writes_serves_nothing_that_was_revoked(world: &World<'_>) {
    if topology_of_this_run() != Topology::Server {
        return;
    }
    let stack = world.own_stack(|options| options);
    let hop = FaultyRedis::before(stack.valkey.address());
    let template = stack.options().root.join("envoy/envoy.yaml");
    let own = world.envoy_before(&stack, &template, |settings| settings.redis(hop.address()));
    let org = Organisation::new(&stack).through(&own.gateway);
    let (key, other) = (org.key("analyst"), org.key("analyst"));
    all(&answers(&org, &key.key), 200);
    all(&answers(&org, &other.key), 200);

    // Replication is cut, then the key is revoked and the tool forbidden.
    let replica = replica(&stack);
    assert_eq!(replica.administer(&["REPLICAOF NO ONE".to_owned()]).unwrap(), ["+OK"]);
    org.operator.json(&["key", "revoke", &key.id, "--reason", "leaked"]).unwrap();
    let mut policy = org.standard_policy();
    policy["roles"]["analyst"]["demo"]["allow"] = json!(["search_contacts"]);
    org.push(&policy);
    all(&answers(&org, &key.key), 401);
    let forbidden = |answers: Vec<Answer>| {
        let results = answers.iter().filter(|answer| answer.message().get("result").is_some());
        assert_eq!(results.count(), 0, "the old policy decided");
    };
    forbidden(answers(&org, &other.key));

    // The failover.
    hop.lead_to(replica.address());
    stack.valkey.process().kill_9();
    refused_as_gone_back(&org, &key.key);
    refused_as_gone_back(&org, &other.key);
    let events = events(&org);
    assert!((1..=2).contains(&events.len()), "once for each worker: {events:?}");
    assert_told(&own.envoy, &format!("portcullis redis accept-restore --org {}", org.name));
}
