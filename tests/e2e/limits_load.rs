//! A window under more demand than it admits, through two gateways at once.
//!
//! Owns the judgement of a whole history of admissions: not too many in any second, and not too few.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::wire::Wire;
use portcullis_tests::world::Mode;
use portcullis_tests::{Case, Gateway, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["limits_load":
        every_sliding_second_is_full_and_none_is_over_full,
        leased_slices_never_make_a_second_over_full,
    ]
}

const CLIENTS: u64 = 32;
const LIMIT: usize = 100;
const SECOND: u64 = 1_000_000;
/// The first second is filled evenly; from then on everybody calls as often as possible.
const PACED_FOR: Duration = Duration::from_millis(1_500);
const RUN_FOR: Duration = Duration::from_secs(8);
/// Demand exceeds the limit in a second in which at any moment a request is sent and answered within this: a
/// slot that comes back is taken within it, so that evenly spread, hardly more than one is late at a time.
const STEADY: u64 = 10_000;
/// On a machine that does other things as well, demand is not always steady for a second.
const ATTEMPTS: usize = 3;
/// Both tests want the machine for themselves.
static LOADING: Mutex<()> = Mutex::new(());

/// What one client did.
#[derive(Default)]
struct Done {
    /// When requests were sent and answered, in microseconds of the clock that Valkey reads too.
    asked: Vec<(u64, u64)>,
    admitted: usize,
    refused: usize,
    /// Perhaps drawn, but not answered by the connector: it is the slowest part of a busy machine.
    failed: usize,
}

// Proves: A9, A10, B1
fn every_sliding_second_is_full_and_none_is_over_full(world: &World<'_>) {
    let replica = world.replica();
    for attempt in 1..=ATTEMPTS {
        let (admissions, clients) = loaded(world, &replica.gateway, &json!({}));
        let most = fullest(&admissions);
        assert!(most <= LIMIT, "{most} calls within a second, of {LIMIT}");
        assert!(clients.iter().all(|done| done.admitted > 0), "every client gets its turn");

        let asked = clients.iter().flat_map(|done| done.asked.clone()).collect();
        let seconds = steady_seconds(&admissions, &waits(asked));
        println!(
            "attempt {attempt}: fullest second {most}, emptiest of {} steady ones {:?}",
            seconds.len(),
            seconds.iter().min()
        );
        // There, each refused call takes a connection to the upstream with it, and the connector is the
        // bottleneck: what can be told is that no second is over-full.
        if Mode::of_this_run() == Mode::Split {
            return;
        }
        if let Some(least) = seconds.into_iter().min() {
            assert!(least + 2 >= LIMIT, "only {least} calls within a second of steady demand");
            return;
        }
    }
    // Nothing was over-full; whether a second was full could not be seen.
    eprintln!("in {ATTEMPTS} attempts this machine did not call steadily for one second");
}

// Proves: A9, A10
fn leased_slices_never_make_a_second_over_full(world: &World<'_>) {
    let replica = world.replica();
    let (admissions, _) = loaded(world, &replica.gateway, &json!({"lease": 10}));
    let most = fullest(&admissions);
    println!("fullest second {most} with slices of ten");
    assert!(most <= LIMIT, "{most} calls within a second, of {LIMIT}");
    assert!(admissions.len() > 2 * LIMIT, "only {} calls", admissions.len());
}

/// Calls through both gateways, more than the limit with `more` admits: when calls were admitted, and
/// what each client did.
fn loaded(world: &World<'_>, replica: &Gateway, more: &Value) -> (Vec<u64>, Vec<Done>) {
    // The second limit refuses nothing; drawn from in the same atomic step, its list in Valkey is
    // the exact history of what was admitted.
    let org = Organisation::with_policy(world.stack(), |policy| {
        let mut limit = json!({"limit": LIMIT, "window": "1s"});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy["tiers"]["load"] = json!({"limits": {"calls": limit}});
        policy["limits"] = json!({"history": {"limit": 100_000, "window": "1h", "per": ["org"]}});
    });
    let key = org.key_in("analyst", "load").key;
    let message = mcp::call("get_dashboard_metrics", json!({})).to_string();
    let request = Request::post(DEMO, message).bearer(&key);
    let alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = run(&[&org.gateway, replica], &request);
    drop(alone);

    let admissions = admissions(world, &org);
    let [admitted, refused, failed] = [
        clients.iter().map(|done| done.admitted).sum::<usize>(),
        clients.iter().map(|done| done.refused).sum(),
        clients.iter().map(|done| done.failed).sum(),
    ];
    println!("{admitted} admitted, {refused} refused, {failed} failed");
    let drawn = admitted..=admitted + failed;
    assert!(drawn.contains(&admissions.len()), "{} drawn, not {drawn:?}", admissions.len());
    (admissions, clients)
}

fn run(gateways: &[&Gateway], request: &Request) -> Vec<Done> {
    let start = Instant::now() + Duration::from_millis(200);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let gateway = gateways[number as usize % gateways.len()];
                scope.spawn(move || client(gateway, request, number, start, stop))
            })
            .collect();
        thread::sleep(RUN_FOR);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

fn client(
    gateway: &Gateway,
    request: &Request,
    number: u64,
    start: Instant,
    stop: &AtomicBool,
) -> Done {
    let mut wire = Wire::connect(gateway.address()).expect("connect to the gateway");
    let mut done = Done::default();
    // All together call 100 times a second, one after the other.
    let pace = Duration::from_micros(SECOND / LIMIT as u64);
    let mut next = start + pace * number as u32;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += if next < start + PACED_FOR { pace * CLIENTS as u32 } else { Duration::ZERO };
        let sent = now();
        let reply = wire.exchange(request).expect("an answer");
        done.asked.push((sent, now()));
        match reply.status {
            200 => done.admitted += 1,
            429 => done.refused += 1,
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

/// For each moment at which a request was sent, how long a slot that came back right after it waited at
/// most: until the first answer to a request that was sent later.
fn waits(mut asked: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    asked.sort_unstable();
    let mut answered = u64::MAX;
    let mut waits = Vec::new();
    for (sent, received) in asked.into_iter().rev() {
        waits.push((sent, answered.saturating_sub(sent)));
        answered = answered.min(received);
    }
    waits.reverse();
    waits
}

/// How many were admitted in each second of steady demand. It is enough to start just after each
/// admission: there a second holds the fewest.
fn steady_seconds(admissions: &[u64], waits: &[(u64, u64)]) -> Vec<usize> {
    let Some(first) = admissions.first() else {
        return Vec::new();
    };
    let demanded = first + PACED_FOR.as_micros() as u64;
    let starts = admissions.iter().map(|time| time + 1).filter(|start| *start > demanded);
    let steady = |start: &u64| {
        // Also just before: what comes back then may be taken within this second.
        let from = waits.partition_point(|(sent, _)| *sent < start - STEADY);
        let to = waits.partition_point(|(sent, _)| *sent <= start + SECOND);
        from < to && waits[from..to].iter().all(|(_, wait)| *wait <= STEADY)
    };
    starts.filter(steady).map(|start| within(admissions, start)).collect()
}
