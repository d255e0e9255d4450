//! What a worker remembers between exchanges.
//!
//! Owns the caches and the audit chain. Nothing here is trusted on its own: every verdict that
//! rests on a cached record or policy is confirmed by Redis in the same request, unless the operator
//! has it degrade when Redis cannot be asked.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use portcullis_redis_lua::{Key, Use};

use crate::audit::Chain;
use crate::auth::denied::DeniedRecord;
use crate::auth::record::KeyRecord;
use crate::auth::slowdown::Slowdown;
use crate::auth::token::keyring::Keyring;
use crate::breaker::Breakers;
use crate::config::Config;
use crate::cool_off::Callers;
use crate::failure::Failover;
use crate::id::{KeyId, OrgId, PolicyVersion};
use crate::limit::slices::Slices;
use crate::metric::Labels;
use crate::policy::{self, Activation, Policy};
use crate::relays::Relays;
use crate::reviewed::{Drifts, Schemas};
use crate::streams::OpenStreams;
use crate::time::UnixTime;
use crate::unproven::Unproven;
use crate::vault::{Lease, SecretRef};

/// A credential that an upstream turns down is not read again more often than this.
const BETWEEN_READS: Duration = Duration::from_secs(1);
const MAX_RECORDS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
const MAX_POLICIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);
const MAX_LEASES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

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
    /// Addresses that guess.
    pub slowdown: Slowdown,
    /// Bytes that are held for callers who have proved nothing.
    pub unproven: Unproven,
    /// Keys of issuers, and tokens that they proved.
    pub keyring: Keyring,
    /// Which credentials are worth asking Vault for.
    pub vault: Breakers<SecretRef>,
    /// What serves when Redis or Vault cannot be asked.
    pub failover: Failover,
    records: LruCache<(OrgId, KeyId), Rc<CachedRecord>>,
    denials: LruCache<Key, Rc<Cached<DeniedRecord>>>,
    uses: LruCache<Use, UnixTime>,
    /// The active version of each organisation; only those that Redis named, so it is bounded.
    active: BTreeMap<OrgId, Rc<Activation>>,
    /// The policy that an organisation's calls were last decided on.
    good: BTreeMap<OrgId, PolicyVersion>,
    /// Policies that turned out to be missing or unreadable.
    unusable: LruCache<PolicyVersion, Unusable>,
    policies: LruCache<PolicyVersion, Rc<Policy>>,
    /// What was compiled since somebody last looked.
    compiled: Option<PolicyVersion>,
    leases: LruCache<SecretRef, Lease>,
    /// Callers that do not back off.
    pub callers: Callers,
    /// Refusals that were relayed to streams.
    pub relays: Relays,
    /// Units of windows that were drawn in advance.
    pub slices: Slices,
    /// Schemas of pinned tools.
    pub schemas: Schemas,
    /// Pinned tools that changed.
    pub drifts: Drifts,
    /// What metrics may be labelled with.
    pub labels: Labels,
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
            slowdown: Slowdown::new(config.auth.slowdown),
            config,
            chain,
            unproven: Unproven::default(),
            keyring: Keyring::new(0),
            vault: Breakers::new(0),
            failover: Failover::default(),
            records: LruCache::new(MAX_RECORDS),
            denials: LruCache::new(MAX_RECORDS),
            uses: LruCache::new(MAX_RECORDS),
            active: BTreeMap::new(),
            good: BTreeMap::new(),
            unusable: LruCache::new(MAX_POLICIES),
            policies: LruCache::new(MAX_POLICIES),
            compiled: None,
            leases: LruCache::new(MAX_LEASES),
            callers: Callers::default(),
            relays: Relays::default(),
            slices: Slices::default(),
            schemas: Schemas::default(),
            drifts: Drifts::default(),
            labels: Labels::default(),
            streams: OpenStreams::default(),
            kept: LruCache::new(MAX_RECORDS),
        }
    }

    /// Takes a new plugin configuration; what was learnt stays.
    pub fn reconfigure(&mut self, config: Config) {
        self.slowdown.reconfigure(config.auth.slowdown);
        self.config = config;
    }

    /// The last seen record of a key.
    pub fn record(&mut self, org: &OrgId, key: &KeyId) -> Option<Rc<CachedRecord>> {
        self.records.get(&(org.clone(), key.clone())).cloned()
    }

    /// Remembers a record, or that there is none.
    pub fn set_record(&mut self, org: &OrgId, key: &KeyId, record: Option<Rc<CachedRecord>>) {
        let name = (org.clone(), key.clone());
        match record {
            Some(record) => _ = self.records.put(name, record),
            None => _ = self.records.pop(&name),
        }
    }

    /// The last seen denial at `key`.
    pub fn denial(&mut self, key: &Key) -> Option<Rc<Cached<DeniedRecord>>> {
        self.denials.get(key).cloned()
    }

    /// Remembers a denial, or that there is none.
    pub fn set_denial(&mut self, key: Key, denial: Option<Rc<Cached<DeniedRecord>>>) {
        match denial {
            Some(denial) => _ = self.denials.put(key, denial),
            None => _ = self.denials.pop(&key),
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

    /// Whether the binding at `key` is to be kept for longer: nobody did within `every`.
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

    /// What was last seen to be active for an organisation.
    #[must_use]
    pub fn active(&self, org: &OrgId) -> Option<&Rc<Activation>> {
        self.active.get(org)
    }

    /// Remembers what is active, or that nothing is.
    pub fn set_active(&mut self, org: &OrgId, active: Option<Rc<Activation>>) {
        match active {
            Some(active) => _ = self.active.insert(org.clone(), active),
            None => _ = self.active.remove(org),
        }
    }

    /// The policy that should decide about `caller`. A canary that cannot be used is tried on nobody.
    pub fn chosen<'a>(
        &mut self,
        active: &'a Activation,
        caller: &str,
        now: UnixTime,
    ) -> &'a PolicyVersion {
        let version = active.version_for(caller);
        let usable = |worker: &mut Self| {
            worker.policy(version).is_some() || !worker.is_unusable(version, now)
        };
        if *version == active.version || usable(self) { version } else { &active.version }
    }

    /// The policy that decides when `wanted` should: that one, or while it is known to be unusable, the
    /// last good one. `None` when it has to be read first, or there is no good one.
    pub fn decides(
        &mut self,
        org: &OrgId,
        wanted: &PolicyVersion,
        now: UnixTime,
    ) -> Option<(PolicyVersion, Rc<Policy>)> {
        if let Some(policy) = self.policy(wanted) {
            return Some((wanted.clone(), policy));
        }
        let good = self.good.get(org).cloned().filter(|_| self.is_unusable(wanted, now))?;
        self.policy(&good).map(|policy| (good, policy))
    }

    /// The calls of `org` are decided on `version`.
    pub fn set_good(&mut self, org: &OrgId, version: &PolicyVersion) {
        if self.good.get(org) != Some(version) {
            self.good.insert(org.clone(), version.clone());
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
    pub fn policy(&mut self, version: &PolicyVersion) -> Option<Rc<Policy>> {
        let inline = self.config.policy.as_ref().filter(|inline| inline.version == *version);
        inline.map(|inline| inline.policy.clone()).or_else(|| self.policies.get(version).cloned())
    }

    /// Remembers a compiled policy. Versions are content addresses, so this never goes stale.
    pub fn set_policy(&mut self, version: PolicyVersion, policy: Rc<Policy>) {
        self.compiled = Some(version.clone());
        self.policies.put(version, policy);
    }

    /// The policy that was compiled in the last step, if one was: who has a clock may tell how long it took.
    pub fn take_compiled(&mut self) -> Option<PolicyVersion> {
        self.compiled.take()
    }

    /// A credential in memory.
    pub fn lease(&mut self, secret: &SecretRef) -> Option<&Lease> {
        self.leases.get(secret)
    }

    /// Forgets a credential that was not accepted.
    pub fn forget_lease(&mut self, secret: &SecretRef, now: UnixTime) {
        let fresh = |lease: &Lease| now.since(lease.read_at()) < BETWEEN_READS;
        if !self.leases.peek(secret).is_some_and(fresh) {
            self.leases.pop(secret);
        }
    }

    /// Remembers a credential.
    pub fn set_lease(&mut self, secret: SecretRef, lease: Lease) {
        self.leases.put(secret, lease);
    }
}
