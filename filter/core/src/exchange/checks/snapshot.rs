//! The basis of a verdict: the state of records in Redis, as this worker knows it.
//!
//! Owns which guards an admission has, and how their states update the worker. Judges nothing.

use std::rc::Rc;

use portcullis_redis_lua::{Expected, Guard, GuardState, Key};

use crate::auth::api_key::PresentedKey;
use crate::auth::deny_list::DenyListEntry;
use crate::auth::record::KeyRecord;
use crate::auth::{PresentedIdentity, VerifiedCredential};
use crate::id::OrgId;
use crate::policy::Activation;
use crate::time::UnixTime;
use crate::worker::{Cached, CachedRecord, EffectivePolicy, WentBack, Worker};

/// The worker's knowledge of an object in Redis.
#[derive(Clone, Debug)]
pub(crate) enum Known<T> {
    /// Redis was not asked yet.
    Unknown,
    /// Redis does not have it.
    Absent,
    /// Redis has this.
    Present(T),
}

/// The basis of a verdict.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) credential: CredentialState,
    pub(crate) policy: Known<Rc<Activation>>,
}

/// The reason for an unusable reply.
#[derive(Debug)]
pub(crate) enum Unlearned {
    /// Redis did not answer all questions.
    Missing,
    /// Redis holds an older state than this worker saw.
    WentBack(WentBack),
}

/// The state of the presented identity in Redis.
#[derive(Clone, Debug)]
pub(crate) enum CredentialState {
    /// The record of an API key.
    Record(Known<Rc<CachedRecord>>),
    /// The deny-list entries of a self-contained credential, in the order of [`VerifiedCredential::deny_list_keys`].
    DenyList(Vec<Known<Rc<Cached<DenyListEntry>>>>),
}

impl Snapshot {
    /// The worker's cached state; a policy that is not cached counts as unknown.
    pub(crate) fn remembered(
        identity: &PresentedIdentity,
        worker: &mut Worker,
        now: UnixTime,
    ) -> Self {
        let org = identity.org();
        let credential = match identity {
            PresentedIdentity::Key(key) => {
                CredentialState::Record(match worker.record(&key.org, &key.id) {
                    Some(record) => Known::Present(record),
                    None => Known::Unknown,
                })
            }
            // Denials are rare, and Redis reports them at the admission.
            PresentedIdentity::Verified(verified) => {
                let remembered =
                    verified.deny_list_keys().iter().map(|key| worker.deny_list_entry(key));
                let known = remembered.map(|entry| entry.map_or(Known::Absent, Known::Present));
                CredentialState::DenyList(known.collect())
            }
        };
        let holder = identity.holder();
        let policy = match worker.active(org).cloned() {
            // Without Redis no policy is activated: the policy in the configuration is the only one.
            _ if worker.config.redis.is_none() => Known::Absent,
            Some(active) => {
                let version = worker.version_for(org, &active, holder, now);
                match worker.effective_policy(org, version, now) {
                    EffectivePolicy::On(..) => Known::Present(active),
                    EffectivePolicy::Needs(_) | EffectivePolicy::Nothing => Known::Unknown,
                }
            }
            None => Known::Unknown,
        };
        Self { credential, policy }
    }

    /// The guards of the admission: those of the identity, then the policy's.
    pub(crate) fn guards(&self, identity: &PresentedIdentity) -> Vec<Guard> {
        let mut guards = match (&self.credential, identity) {
            (CredentialState::Record(record), PresentedIdentity::Key(key)) => vec![Guard {
                key: Key::record(key.org.as_str(), key.id.as_str()),
                expected: expected(record, |record| record.rev.clone()),
            }],
            (CredentialState::DenyList(deny_list), PresentedIdentity::Verified(verified)) => {
                let keys = verified.deny_list_keys().iter();
                keys.zip(deny_list)
                    .map(|(key, entry)| Guard {
                        key: key.clone(),
                        expected: expected(entry, |entry| entry.rev.clone()),
                    })
                    .collect()
            }
            (CredentialState::Record(_), PresentedIdentity::Verified(_))
            | (CredentialState::DenyList(_), PresentedIdentity::Key(_)) => Vec::new(),
        };
        guards.push(Guard {
            key: Key::policy(identity.org().as_str()),
            expected: expected(&self.policy, |active| active.rev.clone()),
        });
        guards
    }

    /// Takes the states of [`Snapshot::guards`] from Redis, and stores them in the worker. The states of other guards
    /// stay in `states`.
    ///
    /// # Errors
    /// States are missing, or one is older than a state that this worker saw.
    pub(crate) fn learn(
        &mut self,
        identity: &PresentedIdentity,
        states: &mut impl Iterator<Item = GuardState>,
        worker: &mut Worker,
    ) -> Result<(), Unlearned> {
        match (&mut self.credential, identity) {
            (CredentialState::Record(record), PresentedIdentity::Key(key)) => {
                let state = states.next().ok_or(Unlearned::Missing)?;
                learn_record(record, key, state, worker)?;
            }
            (CredentialState::DenyList(deny_list), PresentedIdentity::Verified(verified)) => {
                learn_deny_list(deny_list, verified, states, worker).ok_or(Unlearned::Missing)?;
            }
            (CredentialState::Record(_), PresentedIdentity::Verified(_))
            | (CredentialState::DenyList(_), PresentedIdentity::Key(_)) => {
                return Err(Unlearned::Missing);
            }
        }
        let state = states.next().ok_or(Unlearned::Missing)?;
        learn_policy(&mut self.policy, identity.org(), state, worker);
        Ok(())
    }
}

fn expected<T>(known: &Known<T>, revision: impl Fn(&T) -> String) -> Expected {
    match known {
        Known::Unknown => Expected::Unknown,
        Known::Absent => Expected::Absent,
        Known::Present(value) => Expected::Revision(revision(value)),
    }
}

fn learn_record(
    known: &mut Known<Rc<CachedRecord>>,
    key: &PresentedKey,
    state: GuardState,
    worker: &mut Worker,
) -> Result<(), Unlearned> {
    match state {
        GuardState::Current => {}
        GuardState::Absent => {
            *known = Known::Absent;
            worker.set_record(&key.org, &key.id, None);
            worker.revoke_secrets_of(&key.org, key.id.as_str());
        }
        GuardState::Present { rev, doc } => {
            worker.witness_record(&key.org, &key.id, &rev).map_err(Unlearned::WentBack)?;
            let record = Rc::new(Cached { rev, record: KeyRecord::parse(&doc).ok() });
            // The credential may be revoked. The worker has nothing cached of one that it sees for the first time.
            if matches!(known, Known::Present(_)) {
                match record.record.as_ref().is_some_and(|it| it.revoked.is_some()) {
                    true => worker.revoke_secrets_of(&key.org, key.id.as_str()),
                    false => worker.forget_secrets_of(&key.org, key.id.as_str()),
                }
            }
            worker.set_record(&key.org, &key.id, Some(record.clone()));
            *known = Known::Present(record);
        }
    }
    Ok(())
}

fn learn_deny_list(
    known: &mut [Known<Rc<Cached<DenyListEntry>>>],
    verified: &VerifiedCredential,
    states: &mut impl Iterator<Item = GuardState>,
    worker: &mut Worker,
) -> Option<()> {
    for (known, key) in known.iter_mut().zip(verified.deny_list_keys()) {
        match states.next()? {
            GuardState::Current => {}
            GuardState::Absent => {
                *known = Known::Absent;
                worker.set_deny_list_entry(key.clone(), None);
            }
            GuardState::Present { rev, doc } => {
                let entry = Rc::new(Cached { rev, record: DenyListEntry::parse(&doc).ok() });
                let principal = &verified.principal;
                worker.revoke_secrets_of(&principal.org, principal.identity.holder());
                worker.set_deny_list_entry(key.clone(), Some(entry.clone()));
                *known = Known::Present(entry);
            }
        }
    }
    Some(())
}

fn learn_policy(
    known: &mut Known<Rc<Activation>>,
    org: &OrgId,
    state: GuardState,
    worker: &mut Worker,
) {
    match state {
        GuardState::Current => {}
        GuardState::Absent => {
            *known = Known::Absent;
            worker.set_active(org, None);
        }
        GuardState::Present { rev, doc } => {
            let active = Activation::parse(&rev, &doc).map(Rc::new);
            worker.set_active(org, active.clone());
            *known = active.map_or(Known::Absent, Known::Present);
        }
    }
}
