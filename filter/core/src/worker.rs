//! What a worker remembers between exchanges.
//!
//! Owns the caches and the audit chain. Nothing here is trusted on its own: every verdict that
//! rests on a cached record or policy is confirmed by Redis in the same request, unless the operator
//! has it degrade when Redis cannot be asked.

mod checkpoints;
mod credentials;
mod history;
mod policies;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use portcullis_redis_lua::{Generation, Key, Stamp, Use};

use crate::audit::{Chain, Checkpoints, OpenResponses};
use crate::auth::deny_list::DenyListEntry;
use crate::auth::record::KeyRecord;
use crate::auth::throttle::Throttle;
use crate::auth::token::keyring::Keyring;
use crate::config::Config;
use crate::health::{Condition, Health, Surroundings};
use crate::id::{KeyId, OrgId, PolicyVersion};
use crate::limit::cool_off::Callers;
use crate::limit::leases::Leases;
use crate::metric::Labels;
use crate::observed::Observations;
use crate::policy::{self, Activation, Policy};
use crate::relays::Relays;
use crate::resilience::breaker::Breakers;
use crate::resilience::failover::{Failover, OnFailure};
use crate::reviewed::{Drifts, Schemas};
use crate::streams::OpenStreams;
use crate::time::UnixTime;
use crate::unproven::Unproven;
use credentials::Credentials;
use history::{Clocks, Course, Histories};
use policies::Policies;

const MAX_RECORDS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// Versions that could not be used lately: each organisation names at most two at a time.
const MAX_UNUSABLE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// A record and the revision it was read at.
#[derive(Debug)]
pub struct Cached<T> {
    /// The revision.
    pub rev: String,
    /// The record; `None` when this filter cannot read it.
    pub record: Option<T>,
}

/// How long a policy that could not be used is not read again.
pub const UNUSABLE_FOR: Duration = Duration::from_secs(10);

/// What decides about the calls of an organisation.
#[derive(Debug)]
pub enum EffectivePolicy {
    /// This policy.
    On(PolicyVersion, Rc<Policy>),
    /// This one, which has to be read first.
    Needs(PolicyVersion),
    /// None: the active one cannot be used, and no other one did before.
    Nothing,
}

/// What Redis is behind in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WentBack {
    /// The changes of an organisation's keys, policies and deny list.
    Organisation {
        /// The latest that this worker saw.
        seen: Generation,
        /// What Redis has.
        now: Generation,
    },
    /// The record of one key.
    Record {
        /// The latest revision that this worker saw.
        seen: u64,
        /// What Redis has.
        now: u64,
    },
}

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation { seen, now } => write!(f, "generation {now} after {seen}"),
            Self::Record { seen, now } => write!(f, "revision {now} of a key after {seen}"),
        }
    }
}

/// What an organisation may do with a version.
enum Usable {
    /// Decide on it.
    Compiled(Rc<Policy>),
    /// Have it read.
    Unread,
    /// Nothing, for now.
    Not,
}

/// The record of an API key.
pub type CachedRecord = Cached<KeyRecord>;

/// A policy that was read and refused, or that Redis does not have.
#[derive(Clone, Copy, Debug)]
struct Unusable {
    since: UnixTime,
    /// Whether an audit entry says so.
    audited: bool,
}

/// The memory of one worker.
#[derive(Debug)]
pub struct Worker {
    /// The plugin configuration.
    pub config: Config,
    /// The audit chain of this VM.
    pub chain: Chain,
    /// How far Redis knows that chain.
    checkpoints: Checkpoints,
    /// Responses that may have an entry before they end.
    pub open_responses: OpenResponses,
    /// Addresses that guess.
    pub throttle: Throttle,
    /// Bytes that are held for callers who have proved nothing.
    pub unproven: Unproven,
    /// Bytes of unfinished bodies of confirmed callers in this worker's own memory (`split` mode).
    pub kept_bytes: usize,
    /// Keys of issuers, and tokens that they proved.
    pub keyring: Keyring,
    /// Which credentials are worth asking Vault for.
    pub vault: Breakers<String>,
    /// What serves when Redis or Vault cannot be asked.
    pub failover: Failover,
    records: LruCache<(OrgId, KeyId), Rc<CachedRecord>>,
    deny_list: LruCache<Key, Rc<Cached<DenyListEntry>>>,
    uses: LruCache<Use, UnixTime>,
    /// The active version of each organisation; only those that Redis named, so it is bounded.
    active: BTreeMap<OrgId, Rc<Activation>>,
    histories: Histories,
    clocks: Clocks,
    /// What the operator should read in the proxy's log.
    alarms: Vec<String>,
    /// The policy that an organisation's calls were last decided on.
    good: BTreeMap<OrgId, PolicyVersion>,
    /// Policies that turned out to be missing or unreadable.
    unusable: LruCache<PolicyVersion, Unusable>,
    policies: Policies,
    /// What was compiled since the last look.
    compiled: Option<PolicyVersion>,
    credentials: Credentials,
    /// Callers that do not back off.
    pub callers: Callers,
    /// Refusals that were relayed to streams.
    pub relays: Relays,
    /// Units of windows that were drawn in advance.
    pub leases: Leases,
    /// Schemas of pinned tools.
    pub schemas: Schemas,
    /// Pinned tools that changed.
    pub drifts: Drifts,
    /// What lists showed of pinned tools, as far as Redis or a list showed it to this worker.
    pub(crate) observations: Observations,
    /// What metrics may be labelled with.
    pub labels: Labels,
    /// What was seen of the systems that decisions depend on.
    pub health: Health,
    /// Streams that are open.
    pub streams: OpenStreams,
    /// When bindings were last kept for longer.
    kept: LruCache<Key, UnixTime>,
}

impl Worker {
    /// A worker that knows nothing yet.
    #[must_use]
    pub fn new(config: Config, chain: Chain) -> Self {
        Self {
            throttle: Throttle::new(config.auth.throttle),
            policies: Policies::new(config.policy_cache_bytes),
            config,
            chain,
            checkpoints: Checkpoints::default(),
            open_responses: OpenResponses::default(),
            unproven: Unproven::default(),
            kept_bytes: 0,
            keyring: Keyring::new(0),
            vault: Breakers::new(0),
            failover: Failover::default(),
            records: LruCache::new(MAX_RECORDS),
            deny_list: LruCache::new(MAX_RECORDS),
            uses: LruCache::new(MAX_RECORDS),
            active: BTreeMap::new(),
            histories: Histories::default(),
            clocks: Clocks::default(),
            alarms: Vec::new(),
            good: BTreeMap::new(),
            unusable: LruCache::new(MAX_UNUSABLE),
            compiled: None,
            credentials: Credentials::default(),
            callers: Callers::default(),
            relays: Relays::default(),
            leases: Leases::default(),
            schemas: Schemas::default(),
            drifts: Drifts::default(),
            observations: Observations::default(),
            labels: Labels::default(),
            health: Health::default(),
            streams: OpenStreams::default(),
            kept: LruCache::new(MAX_RECORDS),
        }
    }

    /// Takes a new plugin configuration; what was learnt stays.
    pub fn reconfigure(&mut self, config: Config) {
        self.forget_credentials_of_others(&config);
        self.throttle.reconfigure(config.auth.throttle);
        self.policies.resize(config.policy_cache_bytes);
        if config.open_after.is_none() {
            self.open_responses.clear();
        }
        self.config = config;
    }

    /// The last seen record of a key.
    pub fn record(&mut self, org: &OrgId, key: &KeyId) -> Option<Rc<CachedRecord>> {
        self.records.get(&(org.clone(), key.clone())).cloned()
    }

    /// Remembers a record, or that there is none. The next use of each of its secrets is written down again: a use after
    /// a rotation shows that a client still has the replaced secret.
    pub fn set_record(&mut self, org: &OrgId, key: &KeyId, record: Option<Rc<CachedRecord>>) {
        let name = (org.clone(), key.clone());
        match record {
            Some(record) => {
                for secret in record.record.iter().flat_map(|record| &record.secrets) {
                    let field = secret.label().to_owned();
                    self.uses.pop(&Use { key: Key::used(org.as_str(), key.as_str()), field });
                }
                self.records.put(name, record);
            }
            None => _ = self.records.pop(&name),
        }
    }

    /// Takes note of the state of Redis that a reply was made of. A reply without a stamp is of none.
    ///
    /// # Errors
    /// It is an older state than one before: what was revoked since would be served again.
    pub fn witness(&mut self, org: &OrgId, stamp: Option<&Stamp>) -> Result<(), WentBack> {
        let generation = stamp.map(|stamp| stamp.generation).unwrap_or_default();
        match self.histories.see(org, generation) {
            Course::Onward => Ok(()),
            Course::Restored => {
                let records = self.records.iter().map(|(name, _)| name);
                let own: Vec<_> = records.filter(|(of, _)| of == org).cloned().collect();
                own.iter().for_each(|name| _ = self.records.pop(name));
                Ok(())
            }
            Course::Behind(seen) => Err(WentBack::Organisation { seen, now: generation }),
        }
    }

    /// Whether a record of this revision is older than the one that this worker saw last.
    ///
    /// # Errors
    /// It is.
    pub fn witness_record(&self, org: &OrgId, key: &KeyId, rev: &str) -> Result<(), WentBack> {
        let number = |rev: &str| rev.parse::<u64>().ok();
        let seen = self.records.peek(&(org.clone(), key.clone()));
        match seen.and_then(|seen| number(&seen.rev)).zip(number(rev)) {
            Some((seen, now)) if now < seen => Err(WentBack::Record { seen, now }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it was not reported yet that the state of `org` went back; from here on it is.
    pub fn reports(&mut self, org: &OrgId, why: &WentBack) -> bool {
        let first = self.histories.report(org);
        if first {
            self.alarm(format!(
                "{org}: Redis holds an older state than this worker saw ({why}): its calls are refused, since what \
                 was revoked meanwhile would be served again. Expected no restored backup and no replica without the \
                 last writes; bring the later state back, or see what is lost and run \
                 `portcullis redis accept-restore --org {org} --reason …`"
            ));
        }
        first
    }

    fn alarm(&mut self, text: String) {
        /// Between two looks of the driver; the rest would say the same.
        const MOST: usize = 16;
        if self.alarms.len() < MOST {
            self.alarms.push(text);
        }
    }

    /// What the operator should read in the proxy's log since the last look.
    pub fn take_alarms(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alarms)
    }

    /// The last seen entry of the deny list at `key`.
    pub fn deny_list_entry(&mut self, key: &Key) -> Option<Rc<Cached<DenyListEntry>>> {
        self.deny_list.get(key).cloned()
    }

    /// Remembers an entry of the deny list, or that there is none.
    pub fn set_deny_list_entry(&mut self, key: Key, entry: Option<Rc<Cached<DenyListEntry>>>) {
        match entry {
            Some(entry) => _ = self.deny_list.put(key, entry),
            None => _ = self.deny_list.pop(&key),
        }
    }

    /// When the use of a secret was last written down.
    pub fn use_noted(&mut self, used: &Use) -> Option<UnixTime> {
        self.uses.get(used).copied()
    }

    /// The use of a secret was written down at `now`.
    pub fn note_use(&mut self, used: Use, now: UnixTime) {
        self.uses.put(used, now);
    }

    /// Whether the binding at `key` is to be kept for longer: that was not done within `every`.
    pub fn keeps(&mut self, key: &Key, every: Duration, now: UnixTime) -> bool {
        if self.kept.get(key).is_some_and(|kept| now.since(*kept) < every) {
            return false;
        }
        self.kept.put(key.clone(), now);
        true
    }

    /// The binding at `key` was made, or kept, at `now`.
    pub fn note_kept(&mut self, key: Key, now: UnixTime) {
        self.kept.put(key, now);
    }

    /// What bears on the gateway's health beside what was seen of its dependencies.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings<'_> {
        let on_failure = self.config.redis.as_ref().map(|redis| redis.on_failure);
        Surroundings {
            without_redis: match on_failure {
                Some(OnFailure::Degrade(_)) => Condition::Degraded,
                Some(OnFailure::Deny) | None => Condition::Unhealthy,
            },
            issuers: self.keyring.health().collect(),
            policies: &self.good,
            gone_back: self.histories.refused().collect(),
        }
    }

    /// What was last seen to be active for an organisation.
    #[must_use]
    pub fn active(&self, org: &OrgId) -> Option<&Rc<Activation>> {
        self.active.get(org)
    }

    /// Remembers what is active, or that nothing is.
    pub fn set_active(&mut self, org: &OrgId, active: Option<Rc<Activation>>) {
        let known = self.active.get(org);
        if known.is_some() && known.map(|known| &known.rev) != active.as_ref().map(|it| &it.rev) {
            self.credentials.policy_moved(org);
        }
        match active {
            Some(active) => _ = self.active.insert(org.clone(), active),
            None => _ = self.active.remove(org),
        }
    }

    /// The policy that should decide about `caller`. A canary that cannot be used is tried on no caller.
    pub fn version_for<'a>(
        &mut self,
        org: &OrgId,
        active: &'a Activation,
        caller: &str,
        now: UnixTime,
    ) -> &'a PolicyVersion {
        let version = active.version_for(caller);
        let usable = |worker: &mut Self| match worker.usable(org, version, now) {
            Usable::Compiled(_) | Usable::Unread => true,
            Usable::Not => false,
        };
        if *version == active.version || usable(self) { version } else { &active.version }
    }

    /// The policy that decides when `wanted` should: that one, or while it is known to be unusable, the
    /// last good one.
    pub fn effective_policy(
        &mut self,
        org: &OrgId,
        wanted: &PolicyVersion,
        now: UnixTime,
    ) -> EffectivePolicy {
        match self.usable(org, wanted, now) {
            Usable::Compiled(policy) => return EffectivePolicy::On(wanted.clone(), policy),
            Usable::Unread => return EffectivePolicy::Needs(wanted.clone()),
            Usable::Not => {}
        }
        let Some(good) = self.good.get(org).filter(|good| *good != wanted).cloned() else {
            return EffectivePolicy::Nothing;
        };
        match self.usable(org, &good, now) {
            Usable::Compiled(policy) => EffectivePolicy::On(good, policy),
            // It made room for others; its document is in Redis still.
            Usable::Unread => EffectivePolicy::Needs(good),
            Usable::Not => EffectivePolicy::Nothing,
        }
    }

    /// What `org` may do with `version`. A document says whose it is: one that does not name `org` is
    /// no policy of it, whoever points at it.
    fn usable(&mut self, org: &OrgId, version: &PolicyVersion, now: UnixTime) -> Usable {
        match self.policy(version) {
            Some(_) if self.is_foreign(org, version) => Usable::Not,
            Some(policy) => {
                self.policies.used(org, version);
                Usable::Compiled(policy)
            }
            None if self.is_unusable(version, now) => Usable::Not,
            None => Usable::Unread,
        }
    }

    /// Whether `version` is a policy of other organisations.
    #[must_use]
    pub fn is_foreign(&self, org: &OrgId, version: &PolicyVersion) -> bool {
        self.policy(version).is_some_and(|policy| !policy.organisations.contains(org))
    }

    /// The calls of `org` are decided on `version`.
    pub fn set_good(&mut self, org: &OrgId, version: &PolicyVersion) {
        if self.good.get(org) != Some(version) {
            self.good.insert(org.clone(), version.clone());
            self.drifts.reviewed(org);
            self.credentials.policy_moved(org);
        }
    }

    /// Whether `version` could not be used a moment ago; it is not read again before [`UNUSABLE_FOR`].
    pub fn is_unusable(&mut self, version: &PolicyVersion, now: UnixTime) -> bool {
        let unusable = self.unusable.get(version);
        unusable.is_some_and(|unusable| now.since(unusable.since) < UNUSABLE_FOR)
    }

    /// Whether `version` cannot be used and no audit entry says so yet; one does from now on.
    pub fn audits_unusable(&mut self, version: &PolicyVersion) -> bool {
        let unusable = self.unusable.get_mut(version);
        unusable.is_some_and(|unusable| !std::mem::replace(&mut unusable.audited, true))
    }

    /// Takes the document of `version` as Redis has it, or that Redis has none. Whoever asked for it,
    /// it is the worker's; only these bytes or their absence make a policy unusable.
    pub fn policy_read(&mut self, version: &PolicyVersion, document: Option<&[u8]>, now: UnixTime) {
        if self.policy(version).is_some() {
            return;
        }
        // Redis Cluster would turn the whole admission down, and leave the reason to be guessed.
        let sharded = self.config.redis.as_ref().is_some_and(|redis| redis.sharded);
        let policy = document.and_then(|bytes| policy::load(bytes, version));
        match policy.filter(|policy| !sharded || policy.global_limit().is_none()) {
            Some(policy) => self.set_policy(version.clone(), Rc::new(policy)),
            None => {
                let unusable = Unusable { since: now, audited: false };
                self.unusable.put(version.clone(), unusable);
            }
        }
    }

    /// The version of the policy in the plugin configuration, if it is for `org`.
    #[must_use]
    pub fn inline_version(&self, org: &OrgId) -> Option<&PolicyVersion> {
        let inline = self.config.policy.as_ref()?;
        inline.policy.organisations.contains(org).then_some(&inline.version)
    }

    /// A compiled policy.
    pub fn policy(&self, version: &PolicyVersion) -> Option<Rc<Policy>> {
        let inline = self.config.policy.as_ref().filter(|inline| inline.version == *version);
        inline.map(|inline| inline.policy.clone()).or_else(|| self.policies.peek(version).cloned())
    }

    /// Remembers a compiled policy. Versions are content addresses, so this never goes stale.
    pub fn set_policy(&mut self, version: PolicyVersion, policy: Rc<Policy>) {
        self.compiled = Some(version.clone());
        self.policies.insert(version, policy);
    }

    /// The policy that was compiled in the last step, if one was: who has a clock may tell how long it took.
    pub fn take_compiled(&mut self) -> Option<PolicyVersion> {
        self.compiled.take()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn worker() -> Worker {
        let config = json!({"redis": {"cluster": "r"}, "policy_cache": {"max_bytes": 1_048_576}});
        Worker::new(Config::parse(&config).unwrap(), Chain::new("c".into()))
    }

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    fn version(digit: &str) -> PolicyVersion {
        PolicyVersion::new(&digit.repeat(16)).unwrap()
    }

    /// A policy of `name` with `weight`, compiled.
    fn hold(worker: &mut Worker, name: &str, of: &str, weight: usize) {
        let organisations = [org(name)].into();
        let policy = Policy { organisations, weight, ..Policy::default() };
        worker.set_policy(version(of), Rc::new(policy));
        let effective = worker.effective_policy(&org(name), &version(of), UnixTime::from_micros(0));
        assert!(matches!(effective, EffectivePolicy::On(..)), "{effective:?}");
        worker.set_good(&org(name), &version(of));
    }

    /// Finding 12.3: others pushed it out, and its calls were 503 although it was in Redis.
    #[test]
    fn the_last_good_policy_is_read_again_when_it_made_room_for_others() {
        let (mut worker, now) = (worker(), UnixTime::from_micros(0));
        hold(&mut worker, "acme", "a", 600_000);
        hold(&mut worker, "globex", "b", 600_000);
        assert!(worker.policy(&version("a")).is_none());
        worker.policy_read(&version("c"), None, now);
        let effective = worker.effective_policy(&org("acme"), &version("c"), now);
        assert!(
            matches!(&effective, EffectivePolicy::Needs(needed) if *needed == version("a")),
            "{effective:?}"
        );
        hold(&mut worker, "acme", "a", 600_000);
        let effective = worker.effective_policy(&org("acme"), &version("c"), now);
        assert!(
            matches!(&effective, EffectivePolicy::On(on, _) if *on == version("a")),
            "{effective:?}"
        );
    }

    fn stamp(generation: u64) -> Stamp {
        Stamp { generation: Generation::new(generation), time: Duration::ZERO }
    }

    #[test]
    fn a_use_is_written_down_again_under_a_new_record() {
        let (mut worker, acme, key) = (worker(), org("acme"), KeyId::new("k1a2b3c4").unwrap());
        let json = r#"{"id":"k1a2b3c4","org":"acme","name":"n","role":"r","tier":"t","created_at":1,"created_by":"ops",
            "secrets":[{"sha256":"aaaaaaaaaaaaaaaa"},{"sha256":"bbbbbbbbbbbbbbbb","not_after":9}]}"#;
        let record = KeyRecord::parse(json.as_bytes()).ok();
        assert!(record.is_some());
        let of = |key: &str, label: &str| Use { key: Key::used("acme", key), field: label.into() };
        let now = UnixTime::from_micros(1_000_000);
        let (old, other) = (of("k1a2b3c4", "bbbbbbbbbbbb"), of("k9", "bbbbbbbbbbbb"));
        worker.note_use(old.clone(), now);
        worker.note_use(other.clone(), now);
        worker.set_record(&acme, &key, Some(Rc::new(Cached { rev: "2".to_owned(), record })));
        assert_eq!([worker.use_noted(&old), worker.use_noted(&other)], [None, Some(now)]);
    }

    /// Findings 9.5, 9.7 and 10.5: the worker that had seen the revocation served the key again.
    #[test]
    fn an_older_state_of_redis_is_refused_until_an_operator_accepts_it() {
        let (mut worker, acme, key) = (worker(), org("acme"), KeyId::new("k1a2b3c4").unwrap());
        let record = |rev: &str| Some(Rc::new(Cached { rev: rev.to_owned(), record: None }));
        assert_eq!(worker.witness(&acme, Some(&stamp(5))), Ok(()));
        worker.set_record(&acme, &key, record("3"));
        for older in [Some(stamp(4)), Some(stamp(0)), None] {
            assert!(worker.witness(&acme, older.as_ref()).is_err(), "{older:?}");
        }
        assert_eq!(worker.witness(&org("globex"), Some(&stamp(1))), Ok(()));
        let why = worker.witness(&acme, None).unwrap_err();
        assert_eq!([worker.reports(&acme, &why), worker.reports(&acme, &why)], [true, false]);
        assert_eq!(worker.take_alarms().len(), 1);
        // As many changes as were lost, and the record is an old one still.
        assert_eq!(worker.witness(&acme, Some(&stamp(5))), Ok(()));
        let why = worker.witness_record(&acme, &key, "2").unwrap_err();
        assert_eq!(why, WentBack::Record { seen: 3, now: 2 });
        assert_eq!(worker.witness_record(&acme, &key, "4"), Ok(()));
        assert_eq!(worker.witness(&acme, Some(&stamp(1_795_212_000 << 20))), Ok(()));
        assert_eq!(worker.witness_record(&acme, &key, "2"), Ok(()));
    }

    /// Finding 12.14: whoever could write the pointer had one organisation judged by another's policy.
    #[test]
    fn a_pointer_at_a_policy_of_another_organisation_is_not_obeyed() {
        let (mut worker, now) = (worker(), UnixTime::from_micros(0));
        hold(&mut worker, "acme", "a", 1_000);
        let effective = worker.effective_policy(&org("globex"), &version("a"), now);
        assert!(matches!(effective, EffectivePolicy::Nothing), "{effective:?}");
        assert!(worker.is_foreign(&org("globex"), &version("a")));
        hold(&mut worker, "globex", "b", 1_000);
        let effective = worker.effective_policy(&org("globex"), &version("a"), now);
        assert!(
            matches!(&effective, EffectivePolicy::On(on, _) if *on == version("b")),
            "{effective:?}"
        );
    }
}
