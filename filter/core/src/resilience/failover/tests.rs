//! The decisions of a worker without Redis.

use portcullis_redis_lua::{Expected, Guard, GuardState, Key, Scope};

use super::*;

const STALE: Duration = Duration::from_secs(60);

fn at(second: u64) -> UnixTime {
    UnixTime::from_micros(second * 1_000_000)
}

fn acme() -> OrgId {
    OrgId::new("acme").unwrap()
}

fn admit(record: Expected, policy: Expected) -> Admit {
    let guards = vec![
        Guard { key: Key::record("acme", "k1"), expected: record },
        Guard { key: Key::policy("acme"), expected: policy },
    ];
    let key = Key::window(Scope::Org("acme"), "calls", &[]);
    let window = Window { key, limit: 10, length_us: 1_000_000, grain_us: 1, cost: 1, alert: None };
    Admit { guards, windows: vec![window], used: None, intent: None }
}

fn rev(rev: &str) -> Expected {
    Expected::Revision(rev.into())
}

fn present(rev: &str) -> GuardState {
    GuardState::Present { rev: rev.into(), doc: Vec::new() }
}

const WAIVED: Degraded = Degraded { stale: STALE, limits: Limits::Waived };

// Proves: B2
#[test]
fn only_what_redis_confirmed_here_not_long_ago_stands_without_it() {
    let mut failover = Failover::default();
    let warm = admit(rev("7"), rev("v1"));
    assert_eq!(
        failover.decide((&acme(), at(0)), &warm, WAIVED),
        WithoutRedis::Unconfirmed,
        "never seen"
    );

    failover.confirm(at(10), &warm, &AdmitReply::Admitted(Vec::new()));
    assert_eq!(failover.decide((&acme(), at(70)), &warm, WAIVED), WithoutRedis::Stands);
    assert_eq!(
        failover.decide((&acme(), at(71)), &warm, WAIVED),
        WithoutRedis::Unconfirmed,
        "too old"
    );

    // A confirmation is for a revision, not for a name.
    for other in [rev("6"), Expected::Absent, Expected::Unknown] {
        let other = admit(other, rev("v1"));
        assert_eq!(failover.decide((&acme(), at(11)), &other, WAIVED), WithoutRedis::Unconfirmed);
    }
    failover.confirm(at(12), &warm, &AdmitReply::Stale(vec![present("8"), GuardState::Current]));
    assert_eq!(
        failover.decide((&acme(), at(13)), &warm, WAIVED),
        WithoutRedis::Unconfirmed,
        "revoked since"
    );
    let moved = admit(rev("8"), rev("v1"));
    assert_eq!(failover.decide((&acme(), at(72)), &moved, WAIVED), WithoutRedis::Stands);

    failover.confirm(at(80), &moved, &AdmitReply::Stale(vec![GuardState::Absent, present("v2")]));
    let gone = admit(Expected::Absent, rev("v2"));
    assert_eq!(failover.decide((&acme(), at(81)), &gone, WAIVED), WithoutRedis::Stands);
}

// Proves: A9
#[test]
fn each_worker_admits_its_share() {
    let share = WorkerShare::new(300_000).unwrap();
    let local = Degraded { stale: STALE, limits: Limits::Local(share) };
    let mut failover = Failover::default();
    let warm = admit(rev("7"), rev("v1"));
    failover.confirm(at(0), &warm, &AdmitReply::Admitted(Vec::new()));
    for _ in 0..3 {
        assert_eq!(failover.decide((&acme(), at(1)), &warm, local), WithoutRedis::Stands);
    }
    let second = Duration::from_secs(1);
    let full = WithoutRedis::Limited(LocalLimit { window: 0, retry_after: Some(second) });
    assert_eq!(failover.decide((&acme(), at(1)), &warm, local), full);
    assert_eq!(failover.decide((&acme(), at(1)), &warm, WAIVED), WithoutRedis::Stands);
    assert_eq!(failover.decide((&acme(), at(2)), &warm, local), WithoutRedis::Stands);
}

#[test]
fn an_episode_has_one_beginning_and_one_end_however_it_flutters() {
    let mut failover = Failover::default();
    assert_eq!(failover.recovered(Dependency::Redis, at(0)), None, "nothing to recover from");
    assert_eq!(failover.degraded(Dependency::Redis, at(10)), Some(Entered));
    assert_eq!(failover.degraded(Dependency::Redis, at(11)), None);
    assert_eq!(failover.recovered(Dependency::Redis, at(11)), None, "not calm yet");
    assert_eq!(failover.recovered(Dependency::Vault, at(19)), None, "another one");
    assert_eq!(failover.degraded(Dependency::Redis, at(12)), None);
    assert_eq!(failover.recovered(Dependency::Redis, at(13)), Some(Duration::from_secs(3)));
    assert_eq!(failover.recovered(Dependency::Redis, at(14)), None);
    assert_eq!(failover.degraded(Dependency::Redis, at(15)), Some(Entered));
}
