//! Each user of `envoy/redis/users.acl` has the rights that it needs; the gateway's user has no others.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use portcullis_redis_lua::{
    ACCEPT_RESTORE, ADMIT, ASK_APPROVAL, Alert, BIND, Bind, BindReply, DECIDE_APPROVAL, Expected,
    FORGET, Guard, Key, PUT_DENIAL, PUT_POLICY, PUT_RECORD, Scope, Script, USE_APPROVAL, Use,
    Value,
};

use crate::ledger::{draw_from, window};
use crate::valkey::{Valkey, run, send};

/// The commands that the gateway sends, and those that Envoy sends to a Cluster for it.
const SENT: [&str; 7] = ["ping", "get", "getrange", "eval", "evalsha", "cluster|slots", "asking"];

/// The scripts that the operator's tool runs.
static OPERATORS: [&Script; 6] =
    [&PUT_RECORD, &PUT_POLICY, &PUT_DENIAL, &FORGET, &DECIDE_APPROVAL, &ACCEPT_RESTORE];

fn users() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/redis/users.acl");
    let text = std::fs::read_to_string(path).expect("the shipped users");
    let text = text.replace("${PORTCULLIS_REDIS_PASSWORD}", "secret");
    let text = text.replace("${PORTCULLIS_OPERATOR_PASSWORD}", "secret");
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Creates the users and logs in as `name`.
fn log_in(valkey: &Valkey, name: &str) -> redis::Connection {
    let mut connection = valkey.connect();
    for user in users().iter().rev() {
        let _: () = redis::cmd("ACL")
            .arg("SETUSER")
            .arg(user.get(1..).expect("a name"))
            .query(&mut connection)
            .expect("rules are well-formed");
    }
    let _: () = redis::cmd("AUTH").arg(name).arg("secret").query(&mut connection).expect("user");
    connection
}

/// The commands in the `ACL` line of a script's header.
fn commands(script: &Script) -> impl Iterator<Item = String> {
    let line = script.source.lines().find_map(|line| line.strip_prefix("-- ACL ")).unwrap();
    line.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned)
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// The commands that the file grants a user.
fn granted(name: &str) -> BTreeSet<String> {
    let user = users().into_iter().find(|user| user[1] == name).expect("a user");
    for rule in ["~portcullis:*", "resetchannels", "-@all"] {
        assert!(user.iter().any(|found| found == rule), "{name}: {rule}");
    }
    user.iter().filter_map(|rule| rule.strip_prefix('+')).map(str::to_owned).collect()
}

#[test]
fn the_gateway_has_the_commands_of_its_scripts_and_no_others() {
    let scripts = [&ADMIT, &BIND, &ASK_APPROVAL, &USE_APPROVAL].into_iter().flat_map(commands);
    let needed: BTreeSet<String> = SENT.map(str::to_owned).into_iter().chain(scripts).collect();
    let why = "envoy/redis/users.acl and the ACL lines of the scripts differ";
    assert_eq!(granted("portcullis"), needed, "{why}");
}

#[test]
fn the_operator_has_the_commands_of_the_other_scripts() {
    let granted = granted("operator");
    for command in OPERATORS.into_iter().flat_map(commands) {
        assert!(granted.contains(&command), "{command}");
    }
}

#[test]
fn the_gateway_can_do_its_work() {
    let valkey = Valkey::start();
    let mut connection = log_in(&valkey, "portcullis");
    let mut admit = draw_from(vec![window("calls", 1, 2_000, 1)]);
    admit.guards = vec![Guard { key: Key::record("acme", "a1"), expected: Expected::Absent }];
    for _ in 0..200 {
        admit.decode(run(&mut connection, &admit.call())).expect("allowed, full or not");
    }
    let key = Key::binding("acme", "session", "0a1b");
    let bind = Bind { key, holder: "a1".into(), life: Duration::from_secs(1) };
    assert_eq!(Bind::decode(run(&mut connection, &bind.call())), Ok(BindReply::Bound));
    assert_eq!(send(&mut connection, &words("PING")), Value::Status("PONG".into()));
    assert_eq!(send(&mut connection, &words("GET portcullis:policy:doc:1")), Value::Nil);
}

#[test]
fn the_gateway_can_do_nothing_else() {
    let valkey = Valkey::start();
    let mut connection = log_in(&valkey, "portcullis");
    for command in [
        "GET other:key",
        "SET portcullis:policy:doc:1 x",
        "DEL portcullis:{acme}:policy",
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "CONFIG GET *",
        "ACL LIST",
        "MONITOR",
        "SUBSCRIBE x",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
    ] {
        let reply = send(&mut connection, &words(command));
        assert!(
            matches!(&reply, Value::Error(text) if text.starts_with("NOPERM")),
            "{command}: {reply:?}"
        );
    }
    // Nor does a script of an attacker who stole the gateway's password.
    for call in ["redis.call('FLUSHALL')", "redis.call('SET', KEYS[1], 'x')"] {
        let eval = ["EVAL", call, "1", "portcullis:{acme}:policy"];
        let reply = send(&mut connection, &eval.map(|word| word.as_bytes().to_vec()));
        assert!(matches!(reply, Value::Error(_)), "{call}");
    }
}

#[test]
fn nobody_else_gets_in() {
    let valkey = Valkey::start();
    drop(log_in(&valkey, "operator"));
    let mut anybody = valkey.connect();
    let reply = send(&mut anybody, &words("PING"));
    assert!(matches!(&reply, Value::Error(text) if text.starts_with("NOAUTH")), "{reply:?}");
}

/// Finding 10.9: without `pexpireat` a call was refused, and its draw never expired.
#[test]
fn without_the_right_to_expire_nothing_is_drawn_and_nothing_is_left() {
    let valkey = Valkey::start();
    let mut looking = valkey.connect();
    let mut connection = valkey.connect();
    let name = "careless";
    let rules = ["on", ">secret", "~portcullis:*", "+@all", "-pexpireat"];
    let _: () = redis::cmd("ACL").arg("SETUSER").arg(name).arg(&rules).query(&mut looking).unwrap();
    let _: () = redis::cmd("AUTH").arg(name).arg("secret").query(&mut connection).unwrap();
    let drawing = draw_from(vec![window("calls", 5, 60_000_000, 1)]);
    let mut raising = draw_from(vec![window("calls", 5, 60_000_000, 1)]);
    let mark = Key::mark(Scope::Org("acme"), "calls", &[]);
    raising.windows[0].alert = Some(Alert { mark, from: 1 });
    // The window is full already: nothing is drawn, and the script only writes the alert.
    raising.windows[0].limit = 0;
    let mut using = draw_from(vec![]);
    using.used = Some(Use { key: Key::used("acme", "a1"), field: "s1".into() });
    for admit in [drawing, raising, using] {
        let reply = run(&mut connection, &admit.call());
        assert!(matches!(&reply, Value::Error(text) if text.contains("'pexpireat'")), "{reply:?}");
        let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut looking).unwrap();
        assert_eq!(left, Vec::<String>::new());
    }
}
