//! A window under more demand than it admits, through two gateways at once.
//!
//! Owns the judgement of a whole history of admissions: not too many in any second, and no refusal unless a second was
//! full. When a call was decided lies between the moments at which it was sent and answered, on one clock; so the
//! judgement holds on a machine of any speed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::wire::Wire;
use portcullis_tests::{Case, Gateway, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["limits_load":
        every_sliding_second_is_full_and_none_is_over_full,
        leased_slices_never_make_a_second_over_full,
    ]
}

const CLIENTS: u64 = 32;
/// From the first on, the next where this machine does not demand more than the one before.
const LIMITS: [usize; 3] = [100, 64, 32];
const SECOND: u64 = 1_000_000;
/// How many refusals and admissions make a history worth judging: several windows, each of them full.
const REFUSALS: usize = 200;
const WINDOWS: usize = 4;
/// A machine that does not get there by then does not demand more than the limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// Both tests want the machine for themselves.
static LOADING: Mutex<()> = Mutex::new(());

/// What one client did.
#[derive(Default)]
struct Done {
    /// When requests that were refused were sent and answered, in microseconds of the clock that Valkey reads too.
    refused: Vec<(u64, u64)>,
    admitted: usize,
    /// Perhaps drawn, but not answered by the connector: it is the slowest part of a busy machine.
    failed: usize,
}

/// What all clients together did so far.
#[derive(Default)]
struct Tally {
    admitted: AtomicUsize,
    refused: AtomicUsize,
}

/// What became of all calls: Valkey's own record, and the clients'.
struct History {
    admissions: Vec<u64>,
    clients: Vec<Done>,
}

// Proves: A9, A10, B1
fn every_sliding_second_is_full_and_none_is_over_full(world: &World<'_>) {
    let replica = world.replica();
    // How fast the machine is decides only which limit its demand exceeds.
    let demanded = LIMITS.iter().find_map(|limit| {
        let enough = |tally: &Tally| {
            tally.refused.load(Ordering::Relaxed) >= REFUSALS
                && tally.admitted.load(Ordering::Relaxed) >= WINDOWS * limit
        };
        let history = loaded(world, &replica.gateway, &json!({"limit": limit}), enough);
        assert_none_is_over_full(&history, *limit);
        assert!(history.clients.iter().all(|done| done.admitted > 0), "everybody gets a turn");
        let refused = history.clients.iter().flat_map(|done| &done.refused);
        for (sent, received) in refused.clone() {
            let held = most_held(&history.admissions, *sent, *received);
            assert!(held >= *limit, "refused when a second held {held} calls, of {limit}");
        }
        (refused.count() >= REFUSALS).then_some(*limit)
    });
    assert!(demanded.is_some(), "this machine does not call {:?} times a second", LIMITS.last());
}

// Proves: A9, A10
fn leased_slices_never_make_a_second_over_full(world: &World<'_>) {
    let replica = world.replica();
    let limit = LIMITS[0];
    let enough = |tally: &Tally| tally.admitted.load(Ordering::Relaxed) > 2 * limit;
    let leased = json!({"limit": limit, "lease": 10});
    let history = loaded(world, &replica.gateway, &leased, enough);
    assert_none_is_over_full(&history, limit);
    assert!(history.admissions.len() > 2 * limit, "only {} calls", history.admissions.len());
}

fn assert_none_is_over_full(history: &History, limit: usize) {
    let most = fullest(&history.admissions);
    println!("fullest second {most} of {limit}");
    assert!(most <= limit, "{most} calls within a second, of {limit}");
}

/// Calls through both gateways, without a pause, until it is `enough`; `limit` says how many a second are admitted.
fn loaded(
    world: &World<'_>,
    replica: &Gateway,
    limit: &Value,
    enough: impl Fn(&Tally) -> bool,
) -> History {
    // The second limit refuses nothing; drawn from in the same atomic step, its list in Valkey is
    // the exact history of what was admitted.
    let org = Organisation::with_policy(world.stack(), |policy| {
        let mut limit = limit.clone();
        limit["window"] = json!("1s");
        policy["tiers"]["load"] = json!({"limits": {"calls": limit}});
        policy["limits"] = json!({"history": {"limit": 100_000, "window": "1h", "per": ["org"]}});
    });
    let key = org.key_in("analyst", "load").key;
    let message = mcp::call("get_dashboard_metrics", json!({})).to_string();
    let request = Request::post(DEMO, message).bearer(&key);
    let alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = run(&[&org.gateway, replica], &request, enough);
    drop(alone);

    let admissions = admissions(world, &org);
    let [admitted, refused, failed] = [
        clients.iter().map(|done| done.admitted).sum::<usize>(),
        clients.iter().map(|done| done.refused.len()).sum(),
        clients.iter().map(|done| done.failed).sum(),
    ];
    println!("{admitted} admitted, {refused} refused, {failed} failed");
    // A unit drawn in advance that became too old while Redis was asked is asked for again, and all others with it.
    let again = if limit.get("lease").is_some() { clients.len() + refused } else { 0 };
    let drawn = admitted..=admitted + failed + again;
    assert!(drawn.contains(&admissions.len()), "{} drawn, not {drawn:?}", admissions.len());
    History { admissions, clients }
}

fn run(gateways: &[&Gateway], request: &Request, enough: impl Fn(&Tally) -> bool) -> Vec<Done> {
    let (tally, stop) = (Tally::default(), AtomicBool::new(false));
    let everybody = Barrier::new(CLIENTS as usize);
    thread::scope(|scope| {
        let (tally, stop, everybody) = (&tally, &stop, &everybody);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let gateway = gateways[number as usize % gateways.len()];
                let wire = Wire::connect(gateway.address()).expect("connect to the gateway");
                scope.spawn(move || client(wire, request, tally, everybody, stop))
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        while !enough(tally) && Instant::now() < end && !clients.iter().any(|one| one.is_finished())
        {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

fn client(
    mut wire: Wire,
    request: &Request,
    tally: &Tally,
    everybody: &Barrier,
    stop: &AtomicBool,
) -> Done {
    let mut done = Done::default();
    // All start together, so that from the first second on there is more demand than the limit.
    everybody.wait();
    while !(stop.load(Ordering::Relaxed) && done.admitted > 0) {
        let sent = now();
        let reply = wire.exchange(request).expect("an answer");
        let received = now();
        match reply.status {
            200 => {
                done.admitted += 1;
                tally.admitted.fetch_add(1, Ordering::Relaxed);
            }
            429 => {
                done.refused.push((sent, received));
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
            503 => done.failed += 1,
            other => panic!("{other}"),
        }
    }
    done
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    since.as_micros() as u64
}

/// When calls were admitted, in Valkey's own microseconds.
fn admissions(world: &World<'_>, org: &Organisation) -> Vec<u64> {
    let client = redis::Client::open(world.stack().valkey_of(&org.name).url()).expect("its URL");
    let mut connection = client.get_connection().expect("Valkey");
    let key = format!("portcullis:{{{0}}}:window:limits.history:org={0}", org.name);
    let list: Vec<u64> =
        redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query(&mut connection).expect("a list");
    // total_0, time_1, total_1, ..: several calls of one microsecond share a time.
    let totals = list.iter().step_by(2);
    let draws = totals.clone().zip(totals.skip(1)).map(|(before, after)| after - before);
    let times = list.iter().skip(1).step_by(2);
    times.zip(draws).flat_map(|(time, calls)| (0..calls).map(move |_| *time)).collect()
}

/// The most in any `[t, t + 1 s)`: it is enough to start at each admission.
fn fullest(admissions: &[u64]) -> usize {
    let counts = admissions.iter().map(|start| within(admissions, *start));
    counts.max().unwrap_or_default()
}

fn within(times: &[u64], start: u64) -> usize {
    let before = |end: u64| times.partition_point(|time| *time < end);
    before(start + SECOND) - before(start)
}

/// The most that a second held which ended at some moment between these: it is enough to look at the first of
/// them, and at each admission after it.
fn most_held(admissions: &[u64], from: u64, to: u64) -> usize {
    let between = admissions.iter().copied().filter(|time| (from..=to).contains(time));
    let held = |end: u64| {
        admissions.partition_point(|time| *time <= end)
            - admissions.partition_point(|time| *time < end - SECOND)
    };
    std::iter::once(from).chain(between).map(held).max().unwrap_or_default()
}
