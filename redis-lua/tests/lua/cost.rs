//! The server time of an admission. It asserts nothing: it prints a table, which `docs/explanation/exact-limits.md`
//! quotes.
//!
//! `cargo test -p portcullis-redis-lua --release --test lua -- --ignored --nocapture script_cost`

use portcullis_redis_lua::{Admit, Expected, Guard, Key, ScriptCall, Value, Window};

use crate::ledger::{self, Draw, alerting, draw_from, now_us, window};
use crate::model::Random;
use crate::valkey::{Valkey, run};

const SECOND: u64 = 1_000_000;
const KEYS: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
const WINDOWS: [usize; 4] = [0, 1, 3, 6];
const BATCH: usize = 20;
const BATCHES: usize = 1_000;

#[test]
#[ignore = "takes minutes and half a gigabyte; prints a table"]
fn script_cost() {
    for server in Valkey::each() {
        println!("\n{}: microseconds of the server per admission with two guards", server.name());
        println!("| API keys | {} |", WINDOWS.map(|count| format!("{count} windows")).join(" | "));
        println!("|---|{}", "---|".repeat(WINDOWS.len()));
        let mut connection = server.connect();
        let mut stored = 0;
        for keys in KEYS {
            populate(&mut connection, stored, keys);
            stored = keys;
            let costs = WINDOWS.map(|count| {
                let mut random = Random(7);
                let call = || admission(random.random_below(keys), count).call();
                format!("{:.1}", measured(&mut connection, call))
            });
            println!("| {keys} | {} |", costs.join(" | "));
        }
        deep(&mut connection);
    }
}

/// One window with a growing number of draws: in each call one draw leaves and one is added.
fn deep(connection: &mut redis::Connection) {
    println!("\n| draws in the window | drawn | refused | half as many allowed | bytes |");
    println!("|---|---|---|---|---|");
    for draws in [10, 1_000, 100_000] {
        // Evenly spread over an hour; few of them leave during the run.
        let at_most = |limit: u64| {
            draw_from(vec![window(&format!("deep-{draws}"), limit, 3_600 * SECOND, 1)])
        };
        let key = at_most(0).windows[0].key.clone();
        let now = now_us(connection);
        let history: Vec<Draw> = (0..draws)
            .map(|nth| Draw { at_us: now - 3_500 * SECOND * (draws - nth) / draws, cost: 1 })
            .collect();
        for history in history.chunks(5_000) {
            ledger::append(connection, &key, history);
        }
        let mut size = redis::cmd("MEMORY");
        let memory: u64 = size
            .arg("USAGE")
            .arg(key.as_str())
            .arg("SAMPLES")
            .arg(0)
            .query(connection)
            .expect("a size");
        let refused = measured(connection, || at_most(draws).call());
        let lowered = measured(connection, || at_most(draws / 2).call());
        let drawn = measured(connection, || at_most(1_000_000).call());
        println!("| {draws} | {drawn:.1} | {refused:.1} | {lowered:.1} | {memory} |");
    }
}

fn record(key: u64) -> String {
    Key::record("acme", &format!("k{key}")).to_string()
}

/// API key records of the same size as those of the CLI.
fn populate(connection: &mut redis::Connection, from: u64, to: u64) {
    let doc = format!("{{{}}}", "x".repeat(298));
    let _: () = redis::cmd("HSET")
        .arg(Key::policy("acme").as_str())
        .arg(&["rev", "0123456789abcdef", "doc", "{}"])
        .query(connection)
        .expect("written");
    for start in (from..to).step_by(1_000) {
        let mut pipe = redis::pipe();
        for key in start..(start + 1_000).min(to) {
            pipe.cmd("HSET").arg(record(key)).arg(&["rev", "1", "doc", &doc]).ignore();
        }
        pipe.query::<()>(connection).expect("written");
    }
}

fn admission(key: u64, windows: usize) -> Admit {
    let guard = |key, rev: &str| Guard { key, expected: Expected::Revision(rev.into()) };
    // A rate, a budget with an alert, and a window with a coarse grain; none is ever full.
    let kinds: [fn(String) -> Window; 3] = [
        |name| window(&name, 1_000_000, SECOND, 1),
        |name| alerting(&name, 1_000_000, 3_600 * SECOND, 5, 800_000),
        |name| Window { grain_us: SECOND, ..window(&name, 1_000_000, 86_400 * SECOND, 1) },
    ];
    Admit {
        guards: vec![
            guard(Key::record("acme", &format!("k{key}")), "1"),
            guard(Key::policy("acme"), "0123456789abcdef"),
        ],
        windows: (0..windows).map(|nth| kinds[nth % 3](format!("w{nth}-{key}"))).collect(),
        used: None,
        intent: None,
    }
}

/// Microseconds per call, as the server measures them. Its clock also counts interruptions by other programs, so this
/// takes the 10th percentile of many short batches.
fn measured(connection: &mut redis::Connection, mut call: impl FnMut() -> ScriptCall) -> f64 {
    // Loads the script, and checks that the call works.
    let first = run(connection, &call());
    assert!(matches!(&first, Value::Array(items) if items[0] != Value::Int(0)), "{first:?}");
    let mut batches: Vec<f64> = (0..BATCHES).map(|_| batch(connection, &mut call)).collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 10]
}

fn batch(connection: &mut redis::Connection, call: &mut impl FnMut() -> ScriptCall) -> f64 {
    let mut pipe = redis::pipe();
    pipe.cmd("CONFIG").arg("RESETSTAT").ignore();
    for _ in 0..BATCH {
        let call = call();
        let words = call.evalsha();
        let (name, words) = words.split_first().expect("a command");
        let command = pipe.cmd(std::str::from_utf8(name).expect("text"));
        words.iter().for_each(|word| _ = command.arg(&**word));
        command.ignore();
    }
    pipe.cmd("INFO").arg("commandstats");
    let (stats,): (String,) = pipe.query(connection).expect("answered");
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("evalsha");
    let field = line.split(',').find_map(|field| field.strip_prefix("usec_per_call="));
    field.expect("usec_per_call").parse().expect("a number")
}
