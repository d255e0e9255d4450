//! Credentials in a worker's memory, and the leases of those that Vault made.
//!
//! Owns how many there are, and that a lease which leaves the memory before its end is given back. No IO: what is
//! due, the gateway asks from its tick, one question at a time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use serde_json::Map;

use super::Worker;
use crate::connector_credential::{CallerFacts, CallerProof, CredentialRef, LeaseCall, owner};
use crate::driver::call::{CallFailure, Reply};
use crate::hashing::{self, Set};
use crate::id::OrgId;
use crate::policy::Policy;
use crate::resilience::breaker::Breakers;
use crate::time::UnixTime;
use crate::token_exchange::issued;
use crate::vault::{
    BETWEEN_READS, CachedSecret, DueStep, Lease, LeaseId, LeaseOutcome, ReadsAgain, Refusal,
    Revocation, Revocations, SecretData, SecretFault,
};

/// Credentials of single callers, too.
const MAX_SECRETS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// What the values of all of them may weigh: of the longest, some two thousand.
const MAX_SECRET_WEIGHT: usize = 16 << 20;
const MAX_UNUSABLE_SECRETS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
/// A caller who has just deposited a credential waits no longer than this.
const MISSING_FOR: Duration = Duration::from_secs(2);
/// However often policies change, their secrets are compared with leases no more often than this.
const BETWEEN_COMPARISONS: Duration = Duration::from_secs(5);
/// Leases that found no room are reported no more often than this.
const BETWEEN_REPORTS: Duration = Duration::from_secs(60);
/// As many leases as there may be connections to Vault for when a worker ends: each takes one of its own.
const MOST_LAST_LEASES: usize = 64;

/// The credentials of one worker.
#[derive(Debug)]
pub(super) struct Credentials {
    cached: LruCache<CredentialRef, CachedSecret>,
    /// What the values of `cached` weigh.
    weight: usize,
    /// Reads of credentials that servers refused.
    reads_again: ReadsAgain,
    /// Credentials that Vault did not have a moment ago.
    missing: LruCache<CredentialRef, UnixTime>,
    /// What Envoy's log says of secrets that cannot be used.
    unusable: LruCache<CredentialRef, SecretFault>,
    /// When the first lease is to be attended to; none while there is none.
    due: Option<UnixTime>,
    revocations: Revocations,
    /// Organisations whose policy is another one than when leases were last compared with it.
    moved: Set<OrgId>,
    /// When leases were last compared with policies.
    compared: Option<UnixTime>,
    /// Whether the log has said that Vault lets the gateway attend to no lease.
    told: bool,
    dropped: DroppedLeases,
}

/// Leases that were to be revoked, and found no room among those that wait for that.
#[derive(Debug, Default)]
struct DroppedLeases {
    /// When the operator last read of them.
    told: Option<UnixTime>,
    /// How many there are that the operator has not read of.
    untold: u64,
    /// How many no metric counts yet.
    uncounted: u64,
    /// How many no audit entry names yet, by organisation.
    unnoted: BTreeMap<OrgId, u64>,
}

impl DroppedLeases {
    fn add(&mut self, org: Option<OrgId>, leases: u64) {
        self.untold = self.untold.saturating_add(leases);
        self.uncounted = self.uncounted.saturating_add(leases);
        if let Some(org) = org {
            let unnoted = self.unnoted.entry(org).or_default();
            *unnoted = unnoted.saturating_add(leases);
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            cached: LruCache::new(MAX_SECRETS),
            weight: 0,
            reads_again: ReadsAgain::default(),
            missing: LruCache::new(MAX_SECRETS),
            unusable: LruCache::new(MAX_UNUSABLE_SECRETS),
            due: None,
            revocations: Revocations::default(),
            moved: Set::default(),
            compared: None,
            told: false,
            dropped: DroppedLeases::default(),
        }
    }
}

impl Credentials {
    /// The calls of `org` are decided on another policy than before.
    pub(super) fn policy_moved(&mut self, org: &OrgId) {
        if self.due.is_some() {
            self.moved.insert(org.clone());
        }
    }

    fn put(&mut self, reference: CredentialRef, secret: CachedSecret, now: UnixTime) {
        if let Some(due) = secret.due(now) {
            self.due = Some(self.due.map_or(due, |known| known.min(due)));
        }
        self.weight = self.weight.saturating_add(secret.weight());
        if let Some(id) = secret.any_lease_id() {
            self.revocations.keep(id);
        }
        // What makes room, or is replaced, ends by itself: calls have it still.
        if let Some((_, old)) = self.cached.push(reference, secret) {
            self.weight = self.weight.saturating_sub(old.weight());
        }
        while self.weight > MAX_SECRET_WEIGHT && self.cached.len() > 1 {
            let Some((_, old)) = self.cached.pop_lru() else { break };
            self.weight = self.weight.saturating_sub(old.weight());
        }
    }

    /// Forgets a secret; its lease is given back.
    fn give_back(&mut self, reference: &CredentialRef, now: UnixTime) {
        let old = self.take(reference);
        let lease = old.as_ref().and_then(|old| Some((old.lease_id(now)?, old.end()?)));
        if let Some((id, ends)) = lease {
            self.revocations.add(revocation(id, reference, ends), now);
        }
    }

    fn take(&mut self, reference: &CredentialRef) -> Option<CachedSecret> {
        let old = self.cached.pop(reference)?;
        self.weight = self.weight.saturating_sub(old.weight());
        Some(old)
    }

    /// Everything is another Vault's, which cannot be asked any more.
    fn clear(&mut self) {
        self.cached.clear();
        self.revocations.clear();
        (self.weight, self.due) = (0, None);
    }

    /// The secret whose lease is to be attended to first, and what is to be done. When the next one is due is noted.
    fn step(&mut self, now: UnixTime) -> Option<(CredentialRef, DueStep)> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let leases = self.cached.iter();
        let leases = leases.filter_map(|(at, secret)| Some((secret.due(now)?, at)));
        let first = leases.min_by_key(|(due, _)| *due).map(|(_, at)| at.clone());
        let step = first.and_then(|at| Some((at.clone(), self.cached.peek_mut(&at)?.step(now)?)));
        self.due = self.cached.iter().filter_map(|(_, secret)| secret.due(now)).min();
        step
    }
}

impl Worker {
    /// What is to be asked about leases now. Each call of this is followed by [`Worker::lease_answered`].
    pub fn due_lease(&mut self, now: UnixTime) -> Option<LeaseCall> {
        /// The next tick goes on.
        const MOST_STEPS: usize = 8;
        let compared = self.credentials.compared;
        if !self.credentials.moved.is_empty()
            && compared.is_none_or(|then| now.since(then) >= BETWEEN_COMPARISONS)
        {
            self.credentials.compared = Some(now);
            self.give_back_unstated(now);
        }
        self.note_dropped_leases(now);
        let timeout = self.config.vault.as_ref().map(|vault| vault.timeout).unwrap_or_default();
        let probe = timeout.saturating_mul(2);
        for _ in 0..MOST_STEPS {
            let Some((reference, step)) = self.credentials.step(now) else { break };
            match step {
                DueStep::Renew(id) => {
                    if may_ask_of_leases(&mut self.vault, &reference.breaker(), (now, probe)) {
                        return Some(LeaseCall::Renew(reference, id));
                    }
                    self.lease_left(&reference);
                }
                DueStep::Replace => {
                    if self.vault.lets_pass(now, &reference.breaker(), probe) {
                        return Some(LeaseCall::Replace(reference));
                    }
                    self.lease_left(&reference);
                }
                DueStep::Leave => {}
            }
        }
        // What is in use goes first.
        let may_ask = |revocation: &Revocation| {
            may_ask_of_leases(&mut self.vault, &revocation.breaker, (now, probe))
        };
        self.credentials.revocations.due(now, may_ask).map(LeaseCall::Revoke)
    }

    /// What became of a question about a lease.
    pub fn lease_answered(
        &mut self,
        call: LeaseCall,
        outcome: Result<&[u8], CallFailure>,
        now: UnixTime,
    ) -> LeaseOutcome {
        if let Err(CallFailure::Status(403)) = outcome {
            self.tell_of_leases(&call);
        }
        let open = outcome.as_ref().is_err_and(|why| why.leaves_credential_open());
        self.note_word_on_leases(&call, outcome.map(|_| ()), now);
        match call {
            LeaseCall::Revoke(revocation) => {
                let revocations = &mut self.credentials.revocations;
                match outcome {
                    Ok(_) => return LeaseOutcome::Revoked,
                    // Vault cannot do it now: it cannot drop the user, say.
                    Err(CallFailure::Status(429 | 500) | CallFailure::Unreadable) => {
                        revocations.retry(revocation, now);
                    }
                    Err(_) if open => revocations.wait(revocation, now),
                    // There is no such lease, or it is not ours to revoke.
                    Err(_) => {}
                }
                LeaseOutcome::Failed
            }
            LeaseCall::Renew(reference, id) => {
                let renewed = outcome.ok().and_then(Lease::renewed);
                let cached = self.credentials.cached.peek_mut(&reference);
                // A call may have had another one made meanwhile.
                let cached = cached.filter(|cached| cached.lease_id(now) == Some(&id));
                let Some(cached) = cached else { return LeaseOutcome::Failed };
                let done = match renewed {
                    Some(lease) => {
                        cached.renewed(now, &lease);
                        LeaseOutcome::Renewed
                    }
                    None if open => {
                        cached.left();
                        LeaseOutcome::Failed
                    }
                    None => {
                        cached.not_renewed(now);
                        LeaseOutcome::Failed
                    }
                };
                let due = cached.due(now);
                self.credentials.due = match (self.credentials.due, due) {
                    (Some(known), Some(due)) => Some(known.min(due)),
                    (known, due) => known.or(due),
                };
                done
            }
            LeaseCall::Replace(reference) if self.credentials.cached.peek(&reference).is_none() => {
                // Its caller was revoked meanwhile, or no policy names it: no call may have another one.
                let made = outcome.ok().and_then(Lease::renewed);
                if let Some(Lease { id: Some(id), lasts, .. }) = made {
                    let revocation = revocation(&id, &reference, now.after(lasts));
                    self.credentials.revocations.add_at_once(revocation);
                }
                LeaseOutcome::Failed
            }
            LeaseCall::Replace(reference) => match self.secret_read(&reference, outcome, now) {
                Ok(()) => LeaseOutcome::Replaced,
                Err(_) => {
                    self.lease_left(&reference);
                    LeaseOutcome::Failed
                }
            },
        }
    }

    /// Takes note of whether Vault answers questions about leases. That it cannot revoke one says nothing of reads, nor, with
    /// a 500, of renewals: it cannot drop that user.
    fn note_word_on_leases(
        &mut self,
        call: &LeaseCall,
        outcome: Result<(), CallFailure>,
        now: UnixTime,
    ) {
        let secret = match call {
            LeaseCall::Renew(reference, _) => reference.breaker(),
            LeaseCall::Revoke(revocation) => revocation.breaker.to_string(),
            // That is a read.
            LeaseCall::Replace(_) => return,
        };
        let leases = leases_of(&secret);
        match outcome {
            Err(CallFailure::NotAsked) => {}
            Err(CallFailure::Status(500)) if matches!(call, LeaseCall::Revoke(_)) => {
                self.vault.answered(&leases);
            }
            Err(why) if why.leaves_credential_open() => self.vault.failed(now, &leases),
            Ok(()) | Err(_) => self.vault.answered(&leases),
        }
    }

    /// The leases of a worker that ends.
    pub fn last_leases(&mut self, now: UnixTime) -> Vec<LeaseId> {
        let held = self.credentials.cached.iter();
        let held = held.filter_map(|(_, cached)| cached.lease_id(now).cloned());
        let held: Vec<_> = held.take(MOST_LAST_LEASES).collect();
        self.credentials.revocations.take().chain(held).take(MOST_LAST_LEASES).collect()
    }

    fn lease_left(&self, reference: &CredentialRef) {
        if let Some(cached) = self.credentials.cached.peek(reference) {
            cached.left();
        }
    }

    fn tell_of_leases(&mut self, call: &LeaseCall) {
        let what = match call {
            LeaseCall::Renew(..) => "renew",
            LeaseCall::Revoke(_) => "revoke",
            // Whoever reads the secret hears of it.
            LeaseCall::Replace(_) => return,
        };
        if !std::mem::replace(&mut self.credentials.told, true) {
            self.alarm(format!(
                "Vault does not let the gateway {what} leases (403), so users that it makes last until their end; expected \
                 a policy with `update` on sys/leases/{what}/…, as docs/guides/vault-credentials.md says"
            ));
        }
    }

    fn note_dropped_leases(&mut self, now: UnixTime) {
        let dropped = &mut self.credentials.dropped;
        for (org, leases) in self.credentials.revocations.take_dropped() {
            dropped.add(org, leases);
        }
        if dropped.told.is_some_and(|then| now.since(then) < BETWEEN_REPORTS) {
            return;
        }
        let untold = std::mem::take(&mut dropped.untold);
        if untold > 0 {
            dropped.told = Some(now);
            self.alarm(format!(
                "{untold} leases that were to be revoked last until their end: too many wait for Vault; look into Vault's log, \
                 and give the roles a shorter default_ttl, as docs/guides/vault-credentials.md says"
            ));
        }
    }

    /// How many leases that were to be revoked found no room, since this was last asked.
    pub fn take_dropped_leases(&mut self) -> u64 {
        std::mem::take(&mut self.credentials.dropped.uncounted)
    }

    /// The same of one organisation, for an audit entry.
    pub(crate) fn take_dropped_leases_of(&mut self, org: &OrgId) -> Option<u64> {
        self.credentials.dropped.unnoted.remove(org)
    }

    /// Gives back the leases of secrets that no policy names any more, once an organisation has another one. Where the
    /// policy of one cannot be looked at, they end by themselves. Most changes of policies drop no secret: the search ends
    /// with the last of the secrets.
    fn give_back_unstated(&mut self, now: UnixTime) {
        let moved = std::mem::take(&mut self.credentials.moved);
        let leases = self.credentials.cached.iter().filter(|(_, cached)| cached.due(now).is_some());
        let mut unstated = Unstated::default();
        leases.for_each(|(reference, _)| unstated.add(reference.clone()));
        // The gateway's own.
        for server in self.config.authorization_servers.values() {
            unstated.references.remove(&CredentialRef::Secret(server.client_secret.clone().into()));
        }
        if let Some(inline) = &self.config.policy {
            inline
                .policy
                .organisations
                .iter()
                .for_each(|org| unstated.find_in(org, &inline.policy));
        }
        let active = self.active.iter().flat_map(|(org, active)| {
            let canary = active.canary.as_ref().map(|canary| &canary.version);
            std::iter::once(&active.version).chain(canary).map(move |version| (org, version))
        });
        let mut is_known = true;
        for (org, version) in active.chain(&self.good) {
            if unstated.is_empty() {
                return;
            }
            match self.policy(version) {
                Some(policy) => unstated.find_in(org, &policy),
                // It is read by the call that brought it.
                None if moved.contains(org) => {
                    self.credentials.moved = moved;
                    return;
                }
                None => is_known = false,
            }
        }
        if is_known {
            for reference in unstated.into_references() {
                self.credentials.give_back(&reference, now);
            }
        }
    }

    /// Takes what Vault answered to the read of a secret.
    ///
    /// # Errors
    /// There is no value, and the fault of what is there.
    pub(crate) fn secret_read(
        &mut self,
        reference: &CredentialRef,
        outcome: Result<&[u8], CallFailure>,
        now: UnixTime,
    ) -> Result<(), (CallFailure, Option<SecretFault>)> {
        let CredentialRef::Secret(secret) = reference else {
            return Err((CallFailure::Unreadable, None));
        };
        let read = outcome.map_err(|why| (why, None)).and_then(|body| {
            secret.read(body).map_err(|fault| (CallFailure::of(fault), Some(fault)))
        });
        if let Err((_, Some(fault))) = read {
            self.secret_is_unusable(reference, fault);
        }
        let cache = self.config.vault.as_ref().map(|vault| vault.cache).unwrap_or_default();
        let read = read.map(|SecretData { values, lease }| match lease {
            Some(lease) => CachedSecret::leased(values, now, lease),
            None => CachedSecret::new(values, now, cache),
        });
        let taken = read.as_ref().map(|_| ()).map_err(|(why, _)| *why);
        self.credential_answered(reference, taken, now);
        read.map(|cached| self.cache_secret(reference.clone(), cached, now))
    }

    /// Takes the answer to a question of `since`, before a call that waited for it goes on: also where none waits now,
    /// what Vault made is kept for the next call, and an ID-JAG is used once.
    pub fn take_answer(
        &mut self,
        reference: &CredentialRef,
        reply: Option<&Reply>,
        (since, now): (UnixTime, UnixTime),
    ) {
        match (reference, reply) {
            (CredentialRef::Secret(secret), Some(Reply::Vault { body })) => {
                // A fault is for those to tell who wait.
                if let Ok(SecretData { values, lease: Some(lease) }) = secret.read(body) {
                    let made = CachedSecret::leased(values, since, lease);
                    self.cache_secret(reference.clone(), made, now);
                }
            }
            (CredentialRef::Token(token), reply) => {
                if let Some(assertion) = token.assertion() {
                    self.spend(&CredentialRef::Token(assertion.into()));
                }
                if let Some(Reply::Token { status, body }) = reply
                    && let Ok(issued) = issued(token.kind, *status, body)
                {
                    let made = CachedSecret::new(vec![issued.token], now, issued.used_for);
                    let made = made.ending(now, issued.valid_for);
                    self.cache_secret(reference.clone(), made, now);
                }
            }
            (CredentialRef::Secret(_), _) => {}
        }
    }

    /// Takes note of how the question for a credential ended.
    pub(crate) fn credential_answered(
        &mut self,
        reference: &CredentialRef,
        outcome: Result<(), CallFailure>,
        now: UnixTime,
    ) {
        let breaker = reference.breaker();
        match outcome {
            // No question was sent, so none failed.
            Err(CallFailure::NotAsked) => {}
            Err(why) if why.leaves_credential_open() => self.vault.failed(now, &breaker),
            Ok(()) | Err(_) => self.vault.answered(&breaker),
        }
        if outcome.is_err_and(CallFailure::says_there_is_none) {
            // What was there was taken away.
            self.secret_is_missing(reference.clone(), now);
        }
    }

    /// Forgets what another Vault, or an authorization server as it was configured before, gave.
    pub(super) fn forget_credentials_of_others(&mut self, next: &crate::config::Config) {
        let vault = |config: &crate::config::Config| {
            config.vault.as_ref().map(|it| (it.cluster.clone(), it.mounts.clone()))
        };
        if vault(&self.config) != vault(next) {
            self.credentials.clear();
        }
        if self.config.authorization_servers != next.authorization_servers {
            let references = self.credentials.cached.iter().map(|(reference, _)| reference);
            let tokens =
                references.filter(|reference| matches!(reference, CredentialRef::Token(_)));
            for token in tokens.cloned().collect::<Vec<_>>() {
                let _ = self.credentials.take(&token);
            }
        }
    }

    /// A credential in memory.
    pub fn cached_secret(&mut self, reference: &CredentialRef) -> Option<&CachedSecret> {
        self.credentials.cached.get(reference)
    }

    /// A server refused the credential that was read at `read`. What follows from it; one that is to be read again goes
    /// to no call until then.
    pub fn credential_refused(
        &mut self,
        reference: &CredentialRef,
        read: UnixTime,
        now: UnixTime,
    ) -> Refusal {
        let Some(cached) = self.credentials.cached.peek_mut(reference) else {
            return Refusal::TooSoon;
        };
        if cached.read_at() > read {
            return Refusal::Replaced;
        }
        if now.since(cached.read_at()) < BETWEEN_READS
            || !self.credentials.reads_again.lets_pass(&reference.breaker(), now)
        {
            return Refusal::TooSoon;
        }
        cached.refuse();
        Refusal::ReadAgain
    }

    /// There is no word on whether there is another credential: the refused one is used on, and refused again if so.
    pub fn keep_refused(&mut self, reference: &CredentialRef) {
        if let Some(cached) = self.credentials.cached.peek_mut(reference) {
            cached.accept();
        }
    }

    /// Forgets the gateway's own secret at an authorization server that did not accept it.
    pub fn forget_secret(&mut self, reference: &CredentialRef, now: UnixTime) {
        let fresh =
            |cached_secret: &CachedSecret| now.since(cached_secret.read_at()) < BETWEEN_READS;
        if !self.credentials.cached.peek(reference).is_some_and(fresh) {
            let _ = self.credentials.take(reference);
        }
    }

    /// An authorization server was asked for a token with this ID-JAG: it is no assertion any more.
    pub(crate) fn spend(&mut self, assertion: &CredentialRef) {
        let _ = self.credentials.take(assertion);
    }

    /// Remembers a credential. Of callers who waited for one read, the first brings it.
    pub fn cache_secret(
        &mut self,
        reference: CredentialRef,
        cached_secret: CachedSecret,
        now: UnixTime,
    ) {
        // Nearly always there is nothing to forget.
        if !self.credentials.unusable.is_empty() {
            self.credentials.unusable.pop(&reference);
        }
        if !self.credentials.missing.is_empty() {
            self.credentials.missing.pop(&reference);
        }
        // It was read when the first heard of it, and not when the last did: a refusal of it is one of what is there.
        let is_known = self.credentials.cached.peek(&reference).is_some_and(|known| {
            (known.is_leased() || now.since(known.read_at()) < BETWEEN_READS)
                && !known.is_refused()
                && known.digest() == cached_secret.digest()
        });
        if !is_known {
            self.credentials.put(reference, cached_secret, now);
        }
    }

    /// Vault does not have this credential: what it had before is forgotten.
    pub fn secret_is_missing(&mut self, reference: CredentialRef, now: UnixTime) {
        let _ = self.credentials.take(&reference);
        self.credentials.missing.put(reference, now);
    }

    /// Whether Vault did not have this credential a moment ago.
    pub fn is_known_missing(&mut self, reference: &CredentialRef, now: UnixTime) -> bool {
        let missing = self.credentials.missing.peek(reference);
        missing.is_some_and(|since| now.since(*since) < MISSING_FOR)
    }

    /// The operator reads once which secret cannot be used, and why.
    pub fn secret_is_unusable(&mut self, reference: &CredentialRef, fault: SecretFault) {
        if self.credentials.unusable.put(reference.clone(), fault) != Some(fault) {
            let why = fault.described();
            self.alarm(format!(
                "{reference} is no credential: {why}. Calls that need it are refused; write it again, as \
                 docs/guides/vault-credentials.md says"
            ));
        }
    }

    /// Forgets the credentials of one caller: who is revoked leaves none behind.
    pub fn forget_secrets_of(&mut self, org: &OrgId, holder: &str) {
        for reference in self.secrets_of(org, holder) {
            let _ = self.credentials.take(&reference);
        }
    }

    /// The same, of one who is revoked for certain: what Vault made for them ends at once.
    pub fn revoke_secrets_of(&mut self, org: &OrgId, holder: &str) {
        for reference in self.secrets_of(org, holder) {
            let old = self.credentials.take(&reference);
            if let Some((id, ends)) = old.and_then(|old| old.any_lease_id().cloned().zip(old.end()))
            {
                let revocation = revocation(&id, &reference, ends);
                self.credentials.revocations.add_at_once(revocation);
            }
        }
    }

    fn secrets_of(&self, org: &OrgId, holder: &str) -> Vec<CredentialRef> {
        let owner = owner(org, holder);
        let own = self.credentials.cached.iter().map(|(reference, _)| reference);
        own.filter(|reference| reference.is_of(&owner)).cloned().collect()
    }
}

/// The lease `id` of `reference`, which ends by itself at `ends`.
fn revocation(id: &LeaseId, reference: &CredentialRef, ends: UnixTime) -> Revocation {
    Revocation::new(id.clone(), (reference.org(), &reference.breaker()), ends)
}

/// What the circuit breaker knows the leases of a secret by.
fn leases_of(secret: &str) -> String {
    format!("leases of {secret}")
}

/// Whether Vault may be asked about a lease: not while it gives no word on the secret either.
fn may_ask_of_leases(
    vault: &mut Breakers<String>,
    secret: &str,
    (now, probe): (UnixTime, Duration),
) -> bool {
    !vault.is_open(now, secret) && vault.lets_pass(now, &leases_of(secret), probe)
}

/// Secrets that no policy is known to name.
#[derive(Default)]
struct Unstated {
    references: Set<CredentialRef>,
    /// Those of single callers, by what all of them lie below.
    folders: hashing::Map<String, Vec<CredentialRef>>,
}

impl Unstated {
    fn add(&mut self, reference: CredentialRef) {
        match &reference {
            CredentialRef::Secret(secret) if secret.owner().is_some() => {
                self.folders.entry(reference.breaker()).or_default().push(reference);
            }
            CredentialRef::Secret(_) | CredentialRef::Token(_) => {
                self.references.insert(reference);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.references.is_empty() && self.folders.is_empty()
    }

    fn into_references(self) -> impl Iterator<Item = CredentialRef> {
        self.references.into_iter().chain(self.folders.into_values().flatten())
    }

    /// Those that `policy` names for `org` are not among them any more.
    fn find_in(&mut self, org: &OrgId, policy: &Policy) {
        let none = Map::new();
        for (name, connector) in &policy.connectors {
            let Some(credential) = &connector.credential else { continue };
            let Some(pattern) = credential.pattern() else { continue };
            if let Some(folder) = pattern.folder() {
                self.folders.remove(&folder);
                continue;
            }
            // Nothing of a caller is in its path.
            let proof = CallerProof::Key("");
            let facts =
                CallerFacts { org, holder: "", proof, claims: &none, connector: name, token: None };
            if let Ok(reference) = credential.of(facts) {
                self.references.remove(&reference);
            }
        }
    }
}

#[cfg(test)]
mod tests;
