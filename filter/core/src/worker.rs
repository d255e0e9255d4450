//! What a worker remembers between exchanges.
//!
//! Owns the caches and the audit chain. Nothing here is trusted on its own: every verdict that
//! rests on a cached record or policy is confirmed by Redis in the same request.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;
use portcullis_redis_lua::{Key, Use};

use crate::audit::Chain;
use crate::auth::denied::DeniedRecord;
use crate::auth::record::KeyRecord;
use crate::config::Config;
use crate::cool_off::Callers;
use crate::id::{KeyId, OrgId, PolicyVersion};
use crate::metric::Labels;
use crate::policy::Policy;
use crate::time::UnixTime;
use crate::vault::{Lease, SecretRef};

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

/// The record of an API key.
pub type CachedRecord = Cached<KeyRecord>;

/// The memory of one worker.
#[derive(Debug)]
pub struct Worker {
    /// The plugin configuration.
    pub config: Config,
    /// The audit chain of this VM.
    pub chain: Chain,
    records: LruCache<(OrgId, KeyId), Rc<CachedRecord>>,
    denials: LruCache<Key, Rc<Cached<DeniedRecord>>>,
    uses: LruCache<Use, UnixTime>,
    /// The active version of each organisation; only those that Redis named, so it is bounded.
    active: BTreeMap<OrgId, PolicyVersion>,
    policies: LruCache<PolicyVersion, Rc<Policy>>,
    leases: LruCache<SecretRef, Lease>,
    /// Callers that do not back off.
    pub callers: Callers,
    /// What metrics may be labelled with.
    pub labels: Labels,
}

impl Worker {
    /// A worker that knows nothing yet.
    #[must_use]
    pub fn new(config: Config, chain: Chain) -> Self {
        Self {
            config,
            chain,
            records: LruCache::new(MAX_RECORDS),
            denials: LruCache::new(MAX_RECORDS),
            uses: LruCache::new(MAX_RECORDS),
            active: BTreeMap::new(),
            policies: LruCache::new(MAX_POLICIES),
            leases: LruCache::new(MAX_LEASES),
            callers: Callers::default(),
            labels: Labels::default(),
        }
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

    /// The last seen active policy version of an organisation.
    #[must_use]
    pub fn active(&self, org: &OrgId) -> Option<&PolicyVersion> {
        self.active.get(org)
    }

    /// Remembers the active version, or that there is none.
    pub fn set_active(&mut self, org: &OrgId, version: Option<PolicyVersion>) {
        match version {
            Some(version) => _ = self.active.insert(org.clone(), version),
            None => _ = self.active.remove(org),
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
        self.policies.put(version, policy);
    }

    /// A credential in memory.
    pub fn lease(&mut self, secret: &SecretRef) -> Option<&Lease> {
        self.leases.get(secret)
    }

    /// Forgets a credential that was not accepted.
    pub fn forget_lease(&mut self, secret: &SecretRef) {
        self.leases.pop(secret);
    }

    /// Remembers a credential.
    pub fn set_lease(&mut self, secret: SecretRef, lease: Lease) {
        self.leases.put(secret, lease);
    }
}
