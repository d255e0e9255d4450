//! The state of pinned tools in the lists of servers, shared by all gateways.
//!
//! Owns its keys in Redis, and a worker's cache of it. The admission script checks it like the policy, so an
//! observation of one worker decides on every other one from the next call on. Only connectors whose policy blocks
//! unverified tools use it.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use portcullis_redis_lua::{Expected, Guard, GuardState, Key, Observe};
use sha2::{Digest as _, Sha256};

use crate::id::OrgId;
use crate::pin::{Definition, Drift};
use crate::reviewed::{Listed, PinDigest, digest};
use crate::time::UnixTime;

/// How long a list counts as evidence of a tool's definition.
pub const LASTS: Duration = Duration::from_secs(86_400);
/// How often a worker repeats a write.
const WRITTEN_EVERY: Duration = Duration::from_secs(3_600);
/// The most tools in a worker's cache. Redis is asked again for a tool that was dropped.
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// The most tools that one script writes.
const MOST_AT_ONCE: usize = 200;

/// The last observation of a pinned tool in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Observed {
    /// None, or none recently.
    #[default]
    Nothing,
    /// The tool is as it was pinned.
    Same,
    /// How far it had drifted.
    Drifted(Drift),
}

impl Observed {
    /// The observation that follows from a comparison.
    #[must_use]
    pub fn of(drift: Option<Drift>) -> Self {
        drift.map_or(Self::Same, Self::Drifted)
    }

    /// The observation in Redis: the revision of [`Key::observed`].
    #[must_use]
    pub fn read(rev: &str) -> Self {
        match rev {
            "same" => Self::Same,
            rev => {
                let drift = Drift::ALL.into_iter().find(|drift| drift.name() == rev);
                drift.map_or(Self::Nothing, Self::Drifted)
            }
        }
    }

    fn expected(self) -> Expected {
        match self {
            Self::Nothing => Expected::Absent,
            Self::Same => Expected::Revision("same".to_owned()),
            Self::Drifted(drift) => Expected::Revision(drift.name().to_owned()),
        }
    }
}

/// The Redis key of the observation of `tool` under its pin.
#[must_use]
pub fn key(tool: &Listed, pin: &Definition) -> Key {
    key_of(tool, &digest(pin))
}

fn key_of(Listed { org, path, tool }: &Listed, pin: &PinDigest) -> Key {
    let digest = Sha256::new_with_prefix(path).chain_update([0]).chain_update(tool);
    let digest = digest.chain_update([0]).chain_update(pin).finalize();
    Key::observed(org.as_str(), &base16ct::lower::encode_string(&digest))
}

/// A tool whose calls need an observation.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    key: Key,
    tool: Listed,
    pin: Rc<Definition>,
    /// The worker's cached observation.
    known: Option<Observed>,
}

impl Watched {
    pub(crate) fn new(
        (tool, pin): (Listed, &Rc<Definition>),
        digest: &PinDigest,
        observations: &mut Observations,
        now: UnixTime,
    ) -> Self {
        let key = key_of(&tool, digest);
        let known = observations.known(&key, now);
        Self { key, tool, pin: pin.clone(), known }
    }

    /// Its key in Redis.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The guard of the admission.
    pub(crate) fn guard(&self) -> Guard {
        let expected = self.known.map_or(Expected::Unknown, Observed::expected);
        Guard { key: self.key.clone(), expected }
    }

    /// Whether no list showed it, according to the worker's cache.
    pub(crate) fn is_unverified(&self) -> bool {
        match self.known {
            None | Some(Observed::Nothing) => true,
            Some(Observed::Same | Observed::Drifted(_)) => false,
        }
    }
}

/// A worker's cache of observations.
#[derive(Debug)]
pub(crate) struct Observations {
    known: LruCache<Key, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The observation in Redis, according to this worker.
    observed: Observed,
    /// When this worker made or read it.
    at: UnixTime,
    /// When this worker wrote it.
    written: Option<UnixTime>,
    /// A drift that this worker saw, until Redis has a later observation.
    own: Option<OwnDrift>,
}

/// A drift that a list showed to this worker. It stays valid even if Redis lost it in a failover.
#[derive(Clone, Copy, Debug)]
struct OwnDrift {
    drift: Drift,
    /// The time by the clock of the organisation's Redis, in microseconds.
    at: u64,
    /// The time by this worker's monotonic clock.
    seen: UnixTime,
}

/// The conclusion of a worker from an observation in Redis.
#[derive(Debug)]
pub(crate) struct Learnt {
    /// The tool.
    pub(crate) tool: Listed,
    /// Its pin.
    pub(crate) pin: Rc<Definition>,
    /// How far it has drifted.
    pub(crate) drift: Option<Drift>,
    /// The write that must be repeated.
    pub(crate) again: Option<portcullis_redis_lua::ScriptCall>,
}

impl Default for Observations {
    fn default() -> Self {
        Self { known: LruCache::new(MOST) }
    }
}

impl Observations {
    /// The observation, unless it is older than a list counts: without Redis nothing else ends it.
    fn known(&mut self, key: &Key, now: UnixTime) -> Option<Observed> {
        let known = self.known.get(key).filter(|known| now.since(known.at) < LASTS);
        known.map(|known| known.observed)
    }

    /// Takes an observation from Redis; returns the drift, where the observation has one or rules one out. An
    /// observation of this worker that is later than the one in Redis was lost there: it stays valid, and is written
    /// again.
    pub(crate) fn learn(
        &mut self,
        watched: &Watched,
        state: &GuardState,
        now: UnixTime,
    ) -> Option<Learnt> {
        let (observed, at) = match state {
            GuardState::Current => return None,
            GuardState::Absent => (Observed::Nothing, None),
            GuardState::Present { rev, doc } => (Observed::read(rev), seen_at(doc)),
        };
        let own = self.known.peek(&watched.key).and_then(|known| known.own);
        // As long as Redis keeps observations.
        let own = own.filter(|own| now.since(own.seen) < LASTS);
        // An older gateway writes no time; its observation is accepted.
        let lost = own.filter(|own| {
            observed != Observed::Drifted(own.drift)
                && (observed == Observed::Nothing || at.is_some_and(|at| at < own.at))
        });
        let known = Known { observed, at: now, written: None, own: lost };
        self.known.put(watched.key.clone(), known);
        let (tool, pin) = (watched.tool.clone(), watched.pin.clone());
        if let Some(OwnDrift { drift, at, .. }) = lost {
            let tools = vec![(watched.key.clone(), drift.name().to_owned())];
            let again = Observe { tools, life: LASTS, at }.call();
            return Some(Learnt { tool, pin, drift: Some(drift), again: Some(again) });
        }
        let drift = match observed {
            Observed::Nothing => return None,
            Observed::Same => None,
            Observed::Drifted(drift) => Some(drift),
        };
        Some(Learnt { tool, pin, drift, again: None })
    }

    /// A list showed these tools, at `at` by Redis's clock: returns the writes for Redis.
    pub(crate) fn saw(
        &mut self,
        seen: Vec<(Key, Observed)>,
        at: u64,
        now: UnixTime,
    ) -> Vec<portcullis_redis_lua::ScriptCall> {
        let mut news = Vec::new();
        for (key, observed) in seen {
            let known = self.known.get(&key).filter(|known| known.observed == observed);
            let written = known.and_then(|known| known.written);
            // The result of a write is unknown: each list repeats the write of a drift, because a drift blocks.
            let is_known = written.is_some_and(|written| now.since(written) < WRITTEN_EVERY);
            if is_known && observed == Observed::Same {
                if let Some(known) = self.known.get_mut(&key) {
                    known.at = now;
                }
                continue;
            }
            let own = match observed {
                Observed::Drifted(drift) => Some(OwnDrift { drift, at, seen: now }),
                Observed::Nothing | Observed::Same => None,
            };
            self.known.put(key.clone(), Known { observed, at: now, written: Some(now), own });
            if let Expected::Revision(rev) = observed.expected() {
                news.push((key, rev));
            }
        }
        let calls = news.chunks(MOST_AT_ONCE);
        calls.map(|tools| Observe { tools: tools.to_vec(), life: LASTS, at }.call()).collect()
    }
}

/// The time of an observation in Redis, by Redis's clock, because the clocks of gateways differ.
fn seen_at(doc: &[u8]) -> Option<u64> {
    std::str::from_utf8(doc).ok()?.parse().ok()
}

/// The rule of a refusal because no list showed the tool.
pub(crate) fn unverified(connector: &crate::id::PolicyName) -> String {
    format!("connectors.{connector}.on_drift.unverified")
}

/// The tool as the server at `path` lists it to `org`.
#[must_use]
pub fn listed(org: &OrgId, path: &str, tool: &str) -> Listed {
    Listed { org: org.clone(), path: path.to_owned(), tool: tool.to_owned() }
}

#[cfg(test)]
mod tests {
    use portcullis_redis_lua::{Generation, Stamp};
    use serde_json::json;

    use super::*;
    use crate::audit::Chain;
    use crate::config::Config;
    use crate::worker::Worker;

    const NOW: UnixTime = UnixTime::from_micros(1_000_000_000);

    fn pin(description: &str) -> Rc<Definition> {
        let tool =
            json!({"name": "pay", "description": description, "inputSchema": {"type": "object"}});
        Rc::new(Definition::of(&tool))
    }

    fn tool(path: &str) -> Listed {
        listed(&OrgId::new("acme").unwrap(), path, "pay")
    }

    #[test]
    fn what_redis_has_reads_back_and_a_state_of_another_version_is_none() {
        for observed in [Observed::Same, Observed::Drifted(Drift::Breaking)] {
            let Expected::Revision(rev) = observed.expected() else { panic!("{observed:?}") };
            assert_eq!(Observed::read(&rev), observed);
        }
        assert_eq!(Observed::Nothing.expected(), Expected::Absent);
        assert_eq!(Observed::read("renamed"), Observed::Nothing);
    }

    #[test]
    fn another_path_or_pin_is_another_key() {
        let keys = [
            key(&tool("/bank/mcp"), &pin("pays")),
            key(&tool("/shop/mcp"), &pin("pays")),
            key(&tool("/bank/mcp"), &pin("pays, and tells")),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    #[test]
    fn a_list_is_written_down_when_it_shows_something_new_and_once_an_hour() {
        let mut observations = Observations::default();
        let key = key(&tool("/bank/mcp"), &pin("pays"));
        let mut saw = |observed, minute: u64| {
            let now = UnixTime::from_micros(minute * 60_000_000);
            observations.saw(vec![(key.clone(), observed)], now.wall(), now).len()
        };
        let drifted = Observed::Drifted(Drift::Breaking);
        let written = [
            saw(Observed::Same, 0),
            saw(Observed::Same, 1),
            saw(drifted, 2),
            saw(Observed::Same, 3),
            saw(Observed::Same, 62),
            saw(Observed::Same, 63),
        ];
        assert_eq!(written, [1, 0, 1, 1, 0, 1]);
    }

    /// The guard of another worker's call delivers what one worker wrote.
    #[test]
    fn what_redis_says_is_believed_and_what_it_lost_is_not_verified() {
        let mut observations = Observations::default();
        let pin = pin("pays");
        let digest = digest(&pin);
        let watched = |observations: &mut Observations| {
            Watched::new((tool("/bank/mcp"), &pin), &digest, observations, NOW)
        };
        let first = watched(&mut observations);
        assert!(first.is_unverified() && first.guard().expected == Expected::Unknown);
        let same = GuardState::Present { rev: "same".into(), doc: Vec::new() };
        let drift = observations.learn(&first, &same, NOW).unwrap().drift;
        assert_eq!((drift, watched(&mut observations).is_unverified()), (None, false));
        let drifted = GuardState::Present { rev: "breaking".into(), doc: Vec::new() };
        let drift = observations.learn(&first, &drifted, NOW).unwrap().drift;
        assert_eq!(drift, Some(Drift::Breaking));
        assert!(observations.learn(&first, &GuardState::Absent, NOW).is_none());
        let lost = watched(&mut observations);
        assert!(lost.is_unverified() && lost.guard().expected == Expected::Absent);
    }

    /// A write of a drift that did not arrive was forgotten with the next admission, and the call passed.
    #[test]
    fn a_drift_whose_write_was_lost_stands_and_is_written_again() {
        let pin = pin("pays");
        let digest = digest(&pin);
        let at = |second: u64| UnixTime::from_micros(second * 1_000_000);
        let stored = |rev: &str, second: u64| GuardState::Present {
            rev: rev.into(),
            doc: at(second).wall().to_string().into_bytes(),
        };
        let drifted = Observed::Drifted(Drift::Breaking);
        let key = key(&tool("/bank/mcp"), &pin);
        let learnt = |state: GuardState| {
            let mut observations = Observations::default();
            observations.saw(vec![(key.clone(), drifted)], at(100).wall(), at(100));
            let watched =
                Watched::new((tool("/bank/mcp"), &pin), &digest, &mut observations, at(101));
            let first = observations.learn(&watched, &state, at(101));
            // After its write has arrived, a later observation of another gateway counts.
            let arrived = observations.learn(&watched, &stored("breaking", 100), at(102)).unwrap();
            let fixed = observations.learn(&watched, &stored("same", 103), at(104)).unwrap();
            assert_eq!((arrived.drift, fixed.drift), (Some(Drift::Breaking), None));
            assert!(arrived.again.is_none() && fixed.again.is_none());
            first.map(|it| (it.drift, it.again.is_some()))
        };
        assert_eq!(learnt(stored("same", 50)), Some((Some(Drift::Breaking), true)));
        assert_eq!(learnt(GuardState::Absent), Some((Some(Drift::Breaking), true)));
        assert_eq!(learnt(stored("same", 100)), Some((None, false)));
        let old = GuardState::Present { rev: "same".into(), doc: Vec::new() };
        assert_eq!(learnt(old), Some((None, false)));
    }

    /// A gateway with its own clock, which has talked to Redis.
    struct Gateway {
        worker: Worker,
        ahead: i64,
    }

    impl Gateway {
        /// Its clock is `ahead` seconds ahead.
        fn new(ahead: i64) -> Self {
            let config = Config::parse(&json!({"redis": {"cluster": "redis"}})).unwrap();
            let mut gateway = Self { worker: Worker::new(config, Chain::new("c".into())), ahead };
            let stamp = Stamp { generation: Generation::new(1), time: Duration::from_secs(90) };
            let (org, now) = (gateway.org(), gateway.now(90));
            assert!(gateway.worker.witness(&org, Some(&stamp)).is_ok());
            gateway.worker.set_redis_clock(&org, now, &stamp);
            gateway
        }

        fn org(&self) -> OrgId {
            OrgId::new("acme").unwrap()
        }

        fn now(&self, second: u64) -> UnixTime {
            let second = second.saturating_add_signed(self.ahead);
            UnixTime::from_micros(second * 1_000_000)
        }

        /// A list shows this; returns what arrives in Redis, if it does.
        fn saw(&mut self, observed: Observed, second: u64, pin: &Definition) -> GuardState {
            let now = self.now(second);
            let at = self.worker.by_redis_clock(&self.org(), now);
            let key = key(&tool("/bank/mcp"), pin);
            let calls = self.worker.observations.saw(vec![(key, observed)], at, now);
            let life_at_rev = &calls[0].args;
            let rev = String::from_utf8(life_at_rev[2].clone()).unwrap();
            GuardState::Present { rev, doc: life_at_rev[1].clone() }
        }

        fn watched(&mut self, second: u64, pin: &Rc<Definition>) -> Watched {
            let now = self.now(second);
            let listed = (tool("/bank/mcp"), pin);
            Watched::new(listed, &digest(pin), &mut self.worker.observations, now)
        }

        /// An admission finds this in Redis: returns the drift that decides, and whether it is written again.
        fn learns(
            &mut self,
            state: &GuardState,
            second: u64,
            pin: &Rc<Definition>,
        ) -> (Option<Drift>, bool) {
            let (watched, now) = (self.watched(second, pin), self.now(second));
            let learnt = self.worker.observations.learn(&watched, state, now).unwrap();
            (learnt.drift, learnt.again.is_some())
        }
    }

    /// Gateways dated lists by their own clocks: seconds between them made one forget a drift whose write was lost, and
    /// another one write a drift again that was gone.
    #[test]
    fn a_drift_is_neither_forgotten_nor_brought_back_by_clocks_that_differ() {
        let pin = pin("pays");
        let drifted = Observed::Drifted(Drift::Breaking);
        for (one, other) in [(-5, 0), (0, 5), (-5, 5), (5, -5), (30, -30)] {
            let (mut a, mut b) = (Gateway::new(one), Gateway::new(other));
            let same = b.saw(Observed::Same, 100, &pin);
            let lost = a.saw(drifted, 101, &pin);
            assert_eq!(a.learns(&same, 102, &pin), (Some(Drift::Breaking), true), "{one} {other}");
            // Once it is written again, it also decides on the other worker; then a later list ends it on both.
            assert_eq!(b.learns(&lost, 103, &pin), (Some(Drift::Breaking), false));
            let fixed = b.saw(Observed::Same, 104, &pin);
            assert_eq!(a.learns(&fixed, 105, &pin), (None, false), "{one} {other}");
        }
    }

    /// A failover loses a drift that the replica did not have yet: the drift stays valid as long as Redis would have
    /// kept it.
    #[test]
    fn a_drift_that_a_failover_lost_stands_and_is_written_again() {
        let pin = pin("pays");
        let older = GuardState::Present { rev: "same".into(), doc: b"99000000".to_vec() };
        for (second, expected) in [(102, (Some(Drift::Breaking), true)), (86_500, (None, false))] {
            let mut gateway = Gateway::new(0);
            gateway.saw(Observed::Drifted(Drift::Breaking), 100, &pin);
            // An admission finds it unchanged.
            assert!(!gateway.watched(101, &pin).is_unverified());
            assert_eq!(gateway.learns(&older, second, &pin), expected, "{second}");
        }
    }

    /// Without Redis a tool that one list had shown was verified for ever.
    #[test]
    fn what_a_list_showed_ends_after_a_day_in_memory_too() {
        let pin = pin("pays");
        let digest = digest(&pin);
        let mut observations = Observations::default();
        let day = u64::try_from(LASTS.as_micros()).unwrap();
        let mut unverified = |seen: Option<u64>, now: u64| {
            let now = UnixTime::from_micros(now);
            if let Some(seen) = seen {
                let key = key(&tool("/bank/mcp"), &pin);
                observations.saw(vec![(key, Observed::Same)], seen, UnixTime::from_micros(seen));
            }
            let listed = (tool("/bank/mcp"), &pin);
            Watched::new(listed, &digest, &mut observations, now).is_unverified()
        };
        assert!(!unverified(Some(0), day - 1));
        assert!(unverified(None, day));
        assert!(!unverified(Some(day), day + 1));
    }
}
