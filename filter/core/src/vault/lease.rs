//! Leases: what Vault says of a secret that it made, and what becomes of one in time.
//!
//! Owns when a lease is renewed, when another secret is made in its place, and which leases are given back. No IO.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::is_plain;
use crate::id::OrgId;
use crate::json;
use crate::resilience::shares;
use crate::secret::Wiping;
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
        // It may be the answer that made another secret.
        let _wiping = Wiping::begin();
        Self::of(&json::parse_reply(body).ok()?)
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
    /// It was to be revoked, and too many wait for that: it lasts until its end.
    Dropped,
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
            Self::Dropped => "dropped",
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
/// trust that another one did. `jitter` keeps workers apart.
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
    /// Of whose share it is; of none where the secret is of no organisation alone.
    pub org: Option<OrgId>,
    /// What the circuit breaker knows the secret by.
    pub(crate) breaker: Rc<str>,
    /// When it ends by itself.
    ends: UnixTime,
    /// None for at once.
    not_before: Option<UnixTime>,
    attempts: u8,
    /// Whether no call may have the secret any more: it goes before those of its organisation that are not.
    urgent: bool,
    /// Its turn: each organisation has one in each round.
    round: u64,
}

/// Calls that are under way have the secret still.
const GRACE: Duration = Duration::from_secs(5);
/// What does not fit ends by itself. Organisations share it.
const MOST_REVOCATIONS: usize = 1_024;
const MOST_ATTEMPTS: u8 = 5;
/// How many are looked at for one that Vault may be asked for; the next tick goes on.
const MOST_LOOKED_AT: usize = 8;

impl Revocation {
    /// The lease `id`, which ends by itself at `ends`, of a secret that the circuit breaker knows as `breaker`.
    #[must_use]
    pub fn new(id: LeaseId, (org, breaker): (Option<OrgId>, &str), ends: UnixTime) -> Self {
        let breaker = breaker.into();
        Self { id, org, breaker, ends, not_before: None, attempts: 0, urgent: false, round: 0 }
    }
}

/// Leases that are given back.
#[derive(Debug, Default)]
pub struct Revocations {
    waiting: VecDeque<Revocation>,
    /// The round of the last one that Vault was asked for.
    round: u64,
    /// How many found no room since this was last taken, by organisation.
    dropped: BTreeMap<Option<OrgId>, u64>,
}

impl Revocations {
    /// No call wants the secret any more, but for those under way.
    pub fn add(&mut self, revocation: Revocation, now: UnixTime) {
        self.push(Revocation { not_before: Some(now.after(GRACE)), ..revocation });
    }

    /// No call may have the secret any more. It has the first turn of its organisation.
    pub fn add_at_once(&mut self, revocation: Revocation) {
        self.push(Revocation { urgent: true, ..revocation });
    }

    fn push(&mut self, revocation: Revocation) {
        let own = self.waiting.iter().filter(|known| known.org == revocation.org).count();
        // Urgent ones may have to take the place of one that waits already.
        let has_room = shares::lets_in(MOST_REVOCATIONS, self.waiting.len(), own);
        self.line_up(revocation, has_room);
    }

    /// Lines up one that Vault was asked for before, or could not be.
    fn push_again(&mut self, revocation: Revocation) {
        self.line_up(revocation, self.waiting.len() < MOST_REVOCATIONS);
    }

    /// Behind those of the same organisation, an urgent one before those that are not, and beside those of others.
    fn line_up(&mut self, revocation: Revocation, has_room: bool) {
        let twin = self.waiting.iter().position(|known| known.id == revocation.id);
        let twin = twin.and_then(|at| Some((at, self.waiting.get(at)?.urgent)));
        let place = match twin {
            Some((_, urgent)) if urgent || !revocation.urgent => return,
            Some((at, _)) => Some(at),
            None if has_room => None,
            None => {
                // Either this one finds no room, or the one of the same organisation whose place it takes.
                let dropped = self.dropped.entry(revocation.org.clone()).or_default();
                *dropped = dropped.saturating_add(1);
                let Some(last) = self.last_routine(&revocation) else { return };
                Some(last)
            }
        };
        if let Some(at) = place {
            self.waiting.remove(at);
        }
        let own = self.waiting.iter().filter(|known| known.org == revocation.org);
        let last = own.map(|known| known.round).max().unwrap_or_default();
        let round = last.max(self.round).saturating_add(1);
        let (org, urgent) = (revocation.org.clone(), revocation.urgent);
        self.waiting.push_back(Revocation { round, ..revocation });
        if urgent {
            self.put_urgent_first(org.as_ref());
        }
    }

    /// The last of the same organisation whose place an urgent one may take.
    fn last_routine(&self, revocation: &Revocation) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate().filter(|_| revocation.urgent);
        let routine = waiting.filter(|(_, known)| known.org == revocation.org && !known.urgent);
        routine.max_by_key(|(_, known)| known.round).map(|(at, _)| at)
    }

    /// The organisation keeps its turns: urgent ones have the first of them.
    fn put_urgent_first(&mut self, org: Option<&OrgId>) {
        let own = self.waiting.iter_mut().filter(|known| known.org.as_ref() == org);
        let mut own: Vec<_> = own.collect();
        let mut rounds: Vec<_> = own.iter().map(|known| known.round).collect();
        rounds.sort_unstable();
        own.sort_by_key(|known| (!known.urgent, known.round));
        for (known, round) in own.into_iter().zip(rounds) {
            known.round = round;
        }
    }

    /// How many found no room since this was last asked, by organisation: their leases end by themselves.
    pub fn take_dropped(&mut self) -> BTreeMap<Option<OrgId>, u64> {
        std::mem::take(&mut self.dropped)
    }

    /// It is in use again.
    pub fn keep(&mut self, id: &LeaseId) {
        self.waiting.retain(|revocation| revocation.id != *id);
    }

    /// One whose time has come, and that Vault may be asked for; others wait on.
    pub fn due(
        &mut self,
        now: UnixTime,
        mut may_ask: impl FnMut(&Revocation) -> bool,
    ) -> Option<Revocation> {
        self.waiting.retain(|revocation| now < revocation.ends);
        for _ in 0..MOST_LOOKED_AT {
            let due = |revocation: &Revocation| revocation.not_before.is_none_or(|it| now >= it);
            let waiting = self.waiting.iter().enumerate().filter(|(_, it)| due(it));
            let (at, _) = waiting.min_by_key(|(_, revocation)| revocation.round)?;
            let revocation = self.waiting.remove(at)?;
            if may_ask(&revocation) {
                self.round = revocation.round;
                return Some(revocation);
            }
            self.wait(revocation, now);
        }
        None
    }

    /// Vault cannot be asked: it is asked later, until the lease ends.
    pub fn wait(&mut self, revocation: Revocation, now: UnixTime) {
        self.push_again(Revocation { not_before: Some(now.after(GRACE)), ..revocation });
    }

    /// Vault could not revoke it: it is asked again, some times.
    pub fn retry(&mut self, revocation: Revocation, now: UnixTime) {
        let attempts = revocation.attempts.saturating_add(1);
        if attempts < MOST_ATTEMPTS {
            let not_before = Some(now.after(GRACE.saturating_mul(attempts.into())));
            self.push_again(Revocation { not_before, attempts, ..revocation });
        }
    }

    /// All of them; none is left.
    pub fn take(&mut self) -> impl Iterator<Item = LeaseId> {
        std::mem::take(&mut self.waiting).into_iter().map(|revocation| revocation.id)
    }

    /// Forgets them: they are another Vault's.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.dropped.clear();
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

    /// A lease of `org` until 1,000 s.
    fn of(org: &str, name: &str) -> Revocation {
        Revocation::new(LeaseId::new(name).unwrap(), (OrgId::new(org), "vault://a#b"), at(1_000))
    }

    #[test]
    fn a_lease_is_revoked_after_a_grace_and_some_attempts() {
        let (mut revocations, one) = (Revocations::default(), of("acme", "a/b"));
        revocations.add(one.clone(), at(0));
        revocations.add(one.clone(), at(1));
        assert_eq!(revocations.due(at(4), |_| true), None, "calls under way have it");
        let (mut now, mut asked) = (5, 0);
        while let Some(revocation) = revocations.due(at(now), |_| true) {
            assert_eq!(revocation.id, one.id);
            asked += 1;
            revocations.retry(revocation, at(now));
            assert_eq!(revocations.due(at(now), |_| true), None, "not at once");
            now += 60;
        }
        assert_eq!(asked, MOST_ATTEMPTS);
    }

    // Proves: X12
    #[test]
    fn revocations_wait_for_vault_until_their_leases_end() {
        let mut revocations = Revocations::default();
        revocations.add_at_once(of("acme", "a/b"));
        for second in (0..900).step_by(5) {
            assert_eq!(revocations.due(at(second), |_| false), None);
            if second == 600 {
                let asked = revocations.due(at(second + 5), |_| true).unwrap();
                revocations.wait(asked, at(second + 5));
            }
        }
        assert!(revocations.due(at(999), |_| true).is_some());
        revocations.add_at_once(of("acme", "a/b"));
        assert_eq!(revocations.due(at(1_000), |_| true), None, "it ended by itself");
        assert_eq!(revocations.take().count(), 0);
    }

    // Those of one organisation took all of the room, and had all the turns until there were none left of them.
    // Proves: X12
    #[test]
    fn one_organisation_keeps_no_other_from_giving_leases_back() {
        let mut revocations = Revocations::default();
        for number in 0..2_000 {
            revocations.add_at_once(of("acme", &format!("a/{number}")));
        }
        for number in 0..3 {
            revocations.add_at_once(of("globex", &format!("g/{number}")));
        }
        let orgs = (0..8).map(|_| revocations.due(at(0), |_| true).unwrap().org.unwrap());
        let orgs: Vec<_> = orgs.map(|org| org.to_string()).collect();
        assert_eq!(orgs.iter().filter(|org| *org == "globex").count(), 3, "{orgs:?}");
        assert_eq!(orgs.last().unwrap(), "acme");
        assert_eq!(revocations.take().count(), MOST_REVOCATIONS / 2 - 5);
        // Where Vault may not be asked for many, few are looked at in one turn.
        for number in 0..100 {
            revocations.add_at_once(of("acme", &format!("a/{number}")));
        }
        let mut looked_at = 0;
        let refuse = |_: &Revocation| {
            looked_at += 1;
            false
        };
        assert_eq!(revocations.due(at(0), refuse), None);
        assert_eq!(looked_at, MOST_LOOKED_AT);
    }

    // A revoked caller's user waited behind hundreds of others of the organisation.
    // Proves: X12
    #[test]
    fn the_lease_of_a_revoked_caller_is_the_next_of_its_organisation() {
        let mut revocations = Revocations::default();
        for number in 0..100 {
            revocations.add(of("acme", &format!("a/{number}")), at(0));
        }
        revocations.add(of("globex", "g/0"), at(0));
        revocations.add_at_once(of("acme", "a/revoked"));
        revocations.add_at_once(of("acme", "a/also-revoked"));
        // Vault is not to be asked just now: both wait, and keep their places.
        assert_eq!(revocations.due(at(4), |_| false), None);
        let ids: Vec<_> = (0..5)
            .map(|_| revocations.due(at(9), |_| true).unwrap().id.revocation())
            .map(|path| path.rsplit_once("revoke/").unwrap().1.to_owned())
            .collect();
        // Another organisation keeps its turn.
        assert_eq!(ids, ["g/0", "a/revoked", "a/also-revoked", "a/0", "a/1"]);
        // An attempt that failed costs it the place no more than the wait does.
        let mut revocations = Revocations::default();
        revocations.add_at_once(of("acme", "a/revoked"));
        let revoked = revocations.due(at(0), |_| true).unwrap();
        for number in 0..9 {
            revocations.add(of("acme", &format!("a/{number}")), at(0));
        }
        revocations.retry(revoked.clone(), at(0));
        assert_eq!(revocations.due(at(5), |_| true).unwrap().id, revoked.id);
    }

    // It was ignored while the same lease waited for calls under way.
    // Proves: X12
    #[test]
    fn the_lease_of_a_revoked_caller_waits_for_no_calls_under_way() {
        let mut revocations = Revocations::default();
        let one = of("acme", "a/b");
        revocations.add(one.clone(), at(0));
        assert_eq!(revocations.due(at(0), |_| true), None);
        revocations.add_at_once(one.clone());
        revocations.add(one.clone(), at(0));
        assert_eq!(revocations.due(at(0), |_| true).unwrap().id, one.id);
        assert_eq!(revocations.take().count(), 0, "one and the same");
        assert_eq!(revocations.take_dropped(), BTreeMap::new());
    }

    // It was dropped without a word.
    // Proves: X12
    #[test]
    fn the_lease_of_a_revoked_caller_finds_room_and_what_finds_none_is_counted() {
        let mut revocations = Revocations::default();
        let most = MOST_REVOCATIONS / 2;
        let one_of_acme = BTreeMap::from([(OrgId::new("acme"), 1)]);
        for number in 0..most {
            revocations.add(of("acme", &format!("a/{number}")), at(0));
        }
        assert_eq!(revocations.take_dropped(), BTreeMap::new());
        revocations.add(of("acme", "a/one-more"), at(0));
        assert_eq!(revocations.take_dropped(), one_of_acme);
        revocations.add_at_once(of("acme", "a/revoked"));
        assert_eq!(revocations.take_dropped(), one_of_acme, "the last of the others made room");
        assert_eq!(revocations.due(at(0), |_| true).unwrap().id, of("acme", "a/revoked").id);
        let left: Vec<_> = revocations.take().collect();
        assert_eq!(left.len(), most - 1);
        assert!(!left.contains(&of("acme", &format!("a/{}", most - 1)).id));
        // Urgent ones make no room for each other, nor do those of others.
        revocations.add(of("globex", "g/0"), at(0));
        for number in 0..=most {
            revocations.add_at_once(of("acme", &format!("a/{number}")));
        }
        assert_eq!(revocations.take_dropped(), one_of_acme);
        let left: Vec<_> = revocations.take().collect();
        assert!(left.contains(&of("globex", "g/0").id) && left.len() == most + 1);
    }
}
