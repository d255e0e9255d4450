//! Leases: what Vault says of a secret that it made, and what becomes of one in time.
//!
//! Owns when a lease is renewed, when another secret is made in its place, and which leases are given back. Asks nobody.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::is_plain;
use crate::json;
use crate::time::UnixTime;

/// What Vault states of a secret that it made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name at Vault; none where it could not stand in a path.
    pub id: Option<LeaseId>,
    /// For how long the secret holds from now.
    pub lasts: Duration,
    /// Whether Vault lets it last longer when it is asked.
    pub renewable: bool,
}

impl Lease {
    /// The lease in the body of an answer. KV version 1 states a duration, and no lease.
    pub(super) fn of(reply: &Value) -> Option<Self> {
        let id = reply.get("lease_id").and_then(Value::as_str).filter(|id| !id.is_empty())?;
        let seconds = reply.get("lease_duration").and_then(Value::as_u64).filter(|it| *it > 0)?;
        let renewable = reply.get("renewable").and_then(Value::as_bool).unwrap_or_default();
        Some(Self { id: LeaseId::new(id), lasts: Duration::from_secs(seconds), renewable })
    }

    /// What a renewal answers; `None` for what is no answer to one.
    #[must_use]
    pub fn renewed(body: &[u8]) -> Option<Self> {
        Self::of(&json::parse_strict(body).ok()?)
    }
}

/// The name of a lease, which is a path of plain segments: the path of the secret, and what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseId(Rc<str>);

impl LeaseId {
    /// `None` for what could not stand in a path as it is.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= 1_024 && is_plain(text)).then(|| Self(text.into()))
    }

    /// Where it is renewed. The name is in the path, so that a policy of Vault can say which leases.
    #[must_use]
    pub fn renewal(&self) -> String {
        format!("/v1/sys/leases/renew/{}", self.0)
    }

    /// Where it is revoked.
    #[must_use]
    pub fn revocation(&self) -> String {
        format!("/v1/sys/leases/revoke/{}", self.0)
    }
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseOutcome {
    /// It lasts longer.
    Renewed,
    /// Another secret takes its place.
    Replaced,
    /// It was given back.
    Revoked,
    /// Vault was asked, and did none of it.
    Failed,
}

impl LeaseOutcome {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Failed => "failed",
        }
    }
}

/// What is next for a secret that Vault made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is renewed.
    Renewal,
    /// Another one is made.
    Replacement,
}

/// The lease of a secret in memory.
#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) id: Option<LeaseId>,
    /// For how long Vault gave it at first.
    pub(super) first: Duration,
    pub(super) next: Next,
    pub(super) due: UnixTime,
    /// Whether a call had the secret since it was last attended to.
    pub(super) used: Cell<bool>,
}

/// When the parts of a lease of `lasts` from `now` begin: the time to attend to it, and the time from which calls do not
/// trust that somebody did. `jitter` keeps workers apart.
pub(super) fn parts(now: UnixTime, lasts: Duration, jitter: u8) -> (UnixTime, UnixTime) {
    let tenth = lasts.checked_div(10).unwrap_or_default();
    let jitter = tenth.saturating_mul(jitter.into()).checked_div(256).unwrap_or_default();
    let due = tenth.saturating_mul(5).saturating_add(jitter);
    (now.after(due), now.after(due.saturating_add(tenth.saturating_mul(2))))
}

/// Between two attempts of the same.
pub(super) fn between_attempts(lasts: Duration) -> Duration {
    lasts.checked_div(20).unwrap_or_default().max(Duration::from_secs(1))
}

/// A lease that is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub id: LeaseId,
    /// None for at once.
    not_before: Option<UnixTime>,
    attempts: u8,
}

/// Calls that are under way have the secret still.
const GRACE: Duration = Duration::from_secs(5);
/// What does not fit ends by itself.
const MOST_REVOCATIONS: usize = 1_024;
const MOST_ATTEMPTS: u8 = 5;

/// Leases that are given back.
#[derive(Debug, Default)]
pub struct Revocations(VecDeque<Revocation>);

impl Revocations {
    /// Nobody wants the secret of `id` any more, but for calls that are under way.
    pub fn add(&mut self, id: LeaseId, now: UnixTime) {
        self.push(Revocation { id, not_before: Some(now.after(GRACE)), attempts: 0 });
    }

    /// Nobody is to have the secret of `id` any more.
    pub fn add_at_once(&mut self, id: LeaseId) {
        self.push(Revocation { id, not_before: None, attempts: 0 });
    }

    fn push(&mut self, revocation: Revocation) {
        let known = self.0.iter().any(|known| known.id == revocation.id);
        if !known && self.0.len() < MOST_REVOCATIONS {
            self.0.push_back(revocation);
        }
    }

    /// It is in use again.
    pub fn keep(&mut self, id: &LeaseId) {
        self.0.retain(|revocation| revocation.id != *id);
    }

    /// One whose time has come.
    pub fn due(&mut self, now: UnixTime) -> Option<Revocation> {
        let is_due = |revocation: &Revocation| revocation.not_before.is_none_or(|it| now >= it);
        let at = self.0.iter().position(is_due)?;
        self.0.remove(at)
    }

    /// Vault could not be asked: it is asked again, some times.
    pub fn retry(&mut self, revocation: Revocation, now: UnixTime) {
        let attempts = revocation.attempts.saturating_add(1);
        if attempts < MOST_ATTEMPTS {
            let not_before = Some(now.after(GRACE.saturating_mul(attempts.into())));
            self.push(Revocation { not_before, attempts, ..revocation });
        }
    }

    /// All of them; none is left.
    pub fn take(&mut self) -> impl Iterator<Item = LeaseId> {
        std::mem::take(&mut self.0).into_iter().map(|revocation| revocation.id)
    }

    /// Forgets them: they are another Vault's.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds * 1_000_000)
    }

    // Proves: X12
    #[test]
    fn a_lease_is_named_in_a_path_and_nothing_else_gets_there() {
        let id = LeaseId::new("database/creds/crm/aB3.x-_9").unwrap();
        assert_eq!(id.revocation(), "/v1/sys/leases/revoke/database/creds/crm/aB3.x-_9");
        assert_eq!(id.renewal(), "/v1/sys/leases/renew/database/creds/crm/aB3.x-_9");
        for bad in ["", "/", "a//b", "../sys", "a/..", "a?b", "a#b", "a%2fb", "a b", "a\r\nb"] {
            assert_eq!(LeaseId::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_lease_is_revoked_after_a_grace_and_some_attempts() {
        let (mut revocations, id) = (Revocations::default(), LeaseId::new("a/b").unwrap());
        revocations.add(id.clone(), at(0));
        revocations.add(id.clone(), at(1));
        assert_eq!(revocations.due(at(4)), None, "calls under way have it");
        let (mut now, mut asked) = (5, 0);
        while let Some(revocation) = revocations.due(at(now)) {
            assert_eq!(revocation.id, id);
            asked += 1;
            revocations.retry(revocation, at(now));
            assert_eq!(revocations.due(at(now)), None, "not at once");
            now += 60;
        }
        assert_eq!(asked, MOST_ATTEMPTS);
        for number in 0..2_000 {
            revocations.add(LeaseId::new(&format!("a/{number}")).unwrap(), at(0));
        }
        assert_eq!(revocations.take().count(), MOST_REVOCATIONS);
        assert_eq!(revocations.take().count(), 0);
    }
}
