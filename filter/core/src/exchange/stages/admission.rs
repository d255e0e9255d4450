//! Awaits Redis's word on a verdict.
//!
//! Owns the conversation with Redis. A verdict, for or against, stands only when Redis
//! confirmed in this very request that the record and the policy are those it rests on. That is
//! what makes revocation and rollback effective on the next request, without a cache window. Where the
//! operator had rather go on when Redis cannot be asked, `actions::go_without` says how far.

use std::time::Duration;

use portcullis_redis_lua::{Admit, AdmitReply, GuardState, Intent, Key, Use};

use crate::auth::PresentedIdentity;
use crate::authz::Shadowed;
use crate::denial::Denial;
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::driver::event::Event;
use crate::driver::step::{Gate, RequestGate};
use crate::exchange::actions::cool_off::{self, CoolOff};
use crate::exchange::actions::forward::unamendable;
use crate::exchange::actions::go_without::without_redis;
use crate::exchange::actions::read_credential::{fetch, settled};
use crate::exchange::checks::snapshot::{Snapshot, Unlearned};
use crate::exchange::checks::verdict::{Verdict, judge};
use crate::exchange::grant::{Credential, Grant, RequiredApproval};
use crate::exchange::handover::{Handover, Judged, Outcome, held, refuse, refuse_granted};
use crate::exchange::request::{Holds, Request, RequestPart};
use crate::exchange::turn::{CallerIdentity, Turn};
use crate::limit::leases::{DrawPlan, DrawResult};
use crate::observed::{Learnt, Watched};
use crate::policy::{Check, Cost};

/// How often a record or policy may move under one request before it is refused.
const MOST_ROUNDS: u8 = 4;

/// Waits for Redis.
#[derive(Debug)]
pub(crate) struct Admission {
    request: Box<Request>,
    snapshot: Snapshot,
    verdict: Verdict,
    aim: Aim,
    admit: Admit,
    plan: DrawPlan,
    call: CallId,
    credential: Credential,
    rounds: u8,
}

/// What a call is to be admitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// To go on.
    Pass,
    /// To wait for a person: asking draws from the same windows, or nothing would bound it.
    AskPerson,
}

/// Judges again, once the worker was given the policy.
pub(crate) fn resume(judged: Judged, turn: &mut Turn<'_>) -> Outcome<Box<Admission>> {
    let Judged { request, snapshot, rounds } = judged;
    decide(request, snapshot, None, None, Credential::Settled, rounds, turn)
}

/// Asks Redis, on what this worker remembers.
pub(crate) fn enter(mut request: Box<Request>, turn: &mut Turn<'_>) -> Outcome<Box<Admission>> {
    let snapshot = Snapshot::remembered(&request.identity, turn.worker, turn.now);
    let verdict = verdict(&mut request, &snapshot, turn);
    if let Verdict::Allowed(grant) = &verdict
        && let Some(refusal) = cool_off::refusal(&request, grant, turn)
    {
        return match refusal {
            CoolOff::Audited(denial) => refuse(denial, turn),
            CoolOff::Counted(denial) => Outcome::Close(Gate::Request(RequestGate::Refuse(denial))),
        };
    }
    match turn.worker.config.redis {
        Some(_) => ask((request, snapshot), (verdict, Aim::Pass), Credential::Settled, 1, turn),
        None => unconfirmed(request, verdict, turn),
    }
}

/// The verdict on what can still go on of the request.
fn verdict(request: &mut Request, snapshot: &Snapshot, turn: &mut Turn<'_>) -> Verdict {
    match judge(request, snapshot, turn.worker, turn.now, &mut turn.context.entry) {
        Verdict::Allowed(grant) => match unamendable(request, &grant, turn) {
            Some(denial) => Verdict::Refused(denial),
            None => Verdict::Allowed(grant),
        },
        verdict => verdict,
    }
}

fn ask(
    (request, snapshot): (Box<Request>, Snapshot),
    (verdict, aim): (Verdict, Aim),
    credential: Credential,
    rounds: u8,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Admission>> {
    let identity = &request.identity;
    let mut guards = snapshot.guards(identity);
    // How many objects a request names is up to its sender: before the identity is proven, Redis
    // looks at the records of the presented identity and at the policy only.
    if verdict.proves_identity() {
        let bound = request.bound.iter();
        let (org, holder) = (identity.org(), identity.holder());
        guards.extend(bound.map(|bound| bound.guard(org, &request.path, holder)));
        guards.extend(request.watched.as_ref().map(Watched::guard));
    }
    guards.extend(
        required_approval(&verdict).filter(|_| aim == Aim::Pass).map(RequiredApproval::guard),
    );
    let (quotas, wanted) = match &verdict {
        Verdict::Allowed(grant) => {
            // The credential of a body went upstream with its headers (`split` mode).
            let is_used = aim == Aim::Pass && !matches!(request.part, RequestPart::Body);
            let wanted = grant.credential.clone().filter(|_| is_used);
            (grant.quotas.as_slice(), wanted)
        }
        // Refused requests ask too: the record or policy that refuses may be gone by now.
        Verdict::Open | Verdict::NeedsPolicy(_) | Verdict::Refused(_) => (&[][..], None),
    };
    let (plan, windows) = turn.worker.leases.draw(quotas, turn.now);
    let used = use_of(identity, &verdict, turn);
    let intent = intent_of(&request, &verdict, aim, turn);
    turn.context.intents = intent.as_ref().map(|intent| intent.key.clone());
    let admit = Admit { guards, windows, used, intent };
    let call = turn.start(DependencyCall::Admit(admit.call()));
    let credential = match (credential, wanted) {
        (Credential::Settled, Some(wanted)) => fetch(&wanted, turn),
        // What was read was the gateway's own secret.
        (Credential::Read(read), Some(wanted)) if wanted.reference.as_ref() != Ok(&read) => {
            fetch(&wanted, turn)
        }
        (credential, _) => credential,
    };
    let stage =
        Admission { request, snapshot, verdict, aim, admit, plan, call, credential, rounds };
    Outcome::Wait(Box::new(stage), Gate::Hold)
}

/// The approval that a verdict hangs on besides.
fn required_approval(verdict: &Verdict) -> Option<&RequiredApproval> {
    match verdict {
        Verdict::Allowed(grant) => grant.required_approval.as_ref(),
        Verdict::Open | Verdict::NeedsPolicy(_) | Verdict::Refused(_) => None,
    }
}

/// How often the use of one secret is written down by one worker.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// The use of a key that is about to be admitted, unless it was written down a moment ago.
fn use_of(identity: &PresentedIdentity, verdict: &Verdict, turn: &mut Turn<'_>) -> Option<Use> {
    let (PresentedIdentity::Key(key), Verdict::Allowed(_)) = (identity, verdict) else {
        return None;
    };
    let used = Use { key: Key::used(key.org.as_str(), key.id.as_str()), field: key.digest.name() };
    let noted = turn.worker.use_noted(&used);
    noted.is_none_or(|noted| turn.now.since(noted) >= USE_NOTED_EVERY).then_some(used)
}

/// Whether an intent goes with the admission: not with that of the headers alone, which make no call yet.
fn has_intent(request: &Request, turn: &Turn<'_>) -> bool {
    turn.worker.config.durable_audit && !matches!(request.part, RequestPart::Head(_))
}

/// What a call is about to do, where the audit log is to be durable.
fn intent_of(request: &Request, verdict: &Verdict, aim: Aim, turn: &Turn<'_>) -> Option<Intent> {
    let (Verdict::Allowed(grant), Aim::Pass) = (verdict, aim) else { return None };
    let (entry, chain) = (&turn.context.entry, turn.worker.chain.name());
    has_intent(request, turn).then(|| Intent {
        key: Key::intents(request.identity.org().as_str()),
        doc: entry.intent(turn.now.rfc3339(), chain, &grant.shadowed).into_bytes(),
    })
}

impl Admission {
    pub(crate) fn on(
        mut self: Box<Self>,
        event: Event,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Admission>> {
        match event {
            Event::CallDone { id, reply } if id == self.call => self.answered(reply, turn),
            Event::CallFailed { id, why } if id == self.call => self.unanswered(why, turn),
            Event::CallDone { .. } | Event::CallFailed { .. } => {
                self.credential = settled(&self.credential, event, turn);
                Outcome::Wait(self, Gate::Hold)
            }
            event => held(event, "admitting", turn, || self),
        }
    }

    fn answered(mut self, reply: Reply, turn: &mut Turn<'_>) -> Outcome<Box<Admission>> {
        let unreadable = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);
        let Reply::Redis(value) = reply else {
            return refuse(unreadable, turn);
        };
        let reply = match self.admit.decode_stamped(value) {
            Ok((reply, stamp)) => {
                let org = self.request.identity.org();
                if let Err(why) = turn.witness(org, stamp.as_ref()) {
                    return refuse(turn.note_went_back(org, why), turn);
                }
                Ok(reply)
            }
            Err(error) => Err(error),
        };
        if let Ok(reply) = &reply {
            turn.context.identity = CallerIdentity::Confirmed;
            turn.confirm(&self.admit, reply);
        }
        if let (Ok(AdmitReply::Admitted(_)), Some(used)) = (&reply, self.admit.used.take()) {
            turn.worker.note_use(used, turn.now);
        }
        let asked_of_bound = self.verdict.proves_identity();
        match (reply, self.verdict) {
            (Ok(AdmitReply::Stale(states)), verdict) => {
                let unapproved = required_approval(&verdict).cloned();
                if let Verdict::Allowed(grant) = verdict {
                    turn.worker.leases.give_back(self.plan, &grant.quotas);
                }
                let (mut states, mut snapshot) = (states.into_iter(), self.snapshot);
                let identity = &self.request.identity;
                match snapshot.learn(identity, &mut states, turn.worker) {
                    Ok(()) => {}
                    Err(Unlearned::Missing) => return refuse(unreadable, turn),
                    Err(Unlearned::WentBack(why)) => {
                        return refuse(turn.note_went_back(identity.org(), why), turn);
                    }
                }
                let mut foreign = None;
                if asked_of_bound {
                    let bound = &self.request.bound;
                    let of_bound: Vec<_> = states.by_ref().take(bound.len()).collect();
                    let mut pairs = bound.iter().zip(of_bound);
                    let stale = pairs.find(|(_, state)| *state != GuardState::Current);
                    foreign = stale.map(|(bound, _)| bound.unknown());
                    self.request.holds = Holds::Confirmed;
                    if let Some(watched) = self.request.watched.take() {
                        let Some(state) = states.next() else { return refuse(unreadable, turn) };
                        self.request.observed = Some(watched.key().clone());
                        let learnt = turn.worker.observations.learn(&watched, &state, turn.now);
                        if let Some(Learnt { tool, pin, drift, again }) = learnt {
                            turn.worker.drifts.note(tool, &pin, drift);
                            if let Some(again) = again {
                                turn.start(DependencyCall::Observe(again));
                            }
                        }
                    }
                }
                let stale = states.next().filter(|state| *state != GuardState::Current);
                let unapproved = unapproved.filter(|_| stale.is_some());
                let (request, credential) = (self.request, self.credential);
                decide(request, snapshot, foreign, unapproved, credential, self.rounds, turn)
            }
            (Ok(AdmitReply::Admitted(states)), Verdict::Allowed(grant)) => {
                let leases = &mut turn.worker.leases;
                match leases.admitted(self.plan, &grant.quotas, states, turn.now) {
                    DrawResult::For(states) => {
                        turn.tell(&grant.quotas, &states);
                        admitted(self.request, (grant, self.aim), self.credential, turn)
                    }
                    DrawResult::Again => {
                        let Self { request, snapshot, credential, rounds, .. } = self;
                        decide(request, snapshot, None, None, credential, rounds, turn)
                    }
                    DrawResult::Rest(..) if self.rounds >= MOST_ROUNDS => refuse(unreadable, turn),
                    DrawResult::Rest(plan, windows) => {
                        let admit = Admit { windows, intent: None, ..self.admit };
                        let call = turn.start(DependencyCall::Admit(admit.call()));
                        let rounds = self.rounds.saturating_add(1);
                        let verdict = Verdict::Allowed(grant);
                        let stage = Self { verdict, admit, plan, call, rounds, ..self };
                        Outcome::Wait(Box::new(stage), Gate::Hold)
                    }
                }
            }
            (
                Ok(AdmitReply::Limited { retry_after, window, windows }),
                Verdict::Allowed(mut grant),
            ) => {
                let limit = self.plan.asked(window).and_then(|at| grant.quotas.get(at));
                let limit = limit.cloned();
                let leases = &mut turn.worker.leases;
                match leases.limited(self.plan, &grant.quotas, windows, turn.now) {
                    DrawResult::For(states) => turn.tell(&grant.quotas, &states),
                    DrawResult::Again | DrawResult::Rest(..) => {
                        let Self { request, snapshot, credential, rounds, .. } = self;
                        return decide(request, snapshot, None, None, credential, rounds, turn);
                    }
                }
                if let (Some(quota), true) = (&limit, grant.limits_are_shadowed()) {
                    let rule = quota.name.clone();
                    grant.shadowed.push(Shadowed { check: Check::Limits, rule });
                    return admitted(self.request, (grant, self.aim), self.credential, turn);
                }
                match (limit, retry_after) {
                    (Some(quota), Some(wait)) => {
                        let denial = cool_off::limited(&self.request, &grant, &quota, wait, turn);
                        refuse_granted(self.request, grant, denial, self.credential, turn)
                    }
                    // It costs more than there ever is: to wait would be in vain.
                    (Some(quota), None) => {
                        let denial = Denial::Forbidden { rule: quota.name };
                        refuse_granted(self.request, grant, denial, self.credential, turn)
                    }
                    (None, _) => refuse(unreadable, turn),
                }
            }
            (Ok(AdmitReply::Admitted(_)), Verdict::Refused(denial)) => refuse(denial, turn),
            // What is unknown always counts as stale, and without windows nothing is limited.
            (Ok(AdmitReply::Admitted(_) | AdmitReply::Limited { .. }), _) | (Err(_), _) => {
                refuse(unreadable, turn)
            }
        }
    }

    /// Redis cannot be asked.
    fn unanswered(self, why: CallFailure, turn: &mut Turn<'_>) -> Outcome<Box<Admission>> {
        // A call without its intent is one that a crash would lose.
        if turn.worker.config.durable_audit {
            return refuse(Denial::Unavailable(Dependency::Redis, why), turn);
        }
        let admission = (self.request.identity.org(), &self.admit);
        match without_redis(admission, self.verdict, turn) {
            Some(Ok(grant)) => {
                Outcome::Next(Handover::Granted(self.request, grant, self.credential))
            }
            Some(Err(denial)) => refuse(denial, turn),
            None => refuse(Denial::Unavailable(Dependency::Redis, why), turn),
        }
    }
}

/// Goes on with a call that Redis admitted.
fn admitted(
    request: Box<Request>,
    (grant, aim): (Box<Grant>, Aim),
    credential: Credential,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Admission>> {
    if aim == Aim::Pass {
        cool_off::admitted(&request, &grant, turn);
    }
    match (grant.required_approval.clone(), aim) {
        (Some(_), Aim::AskPerson) => Outcome::Next(Handover::ApprovalMissing(request, grant)),
        (Some(required_approval), Aim::Pass) => {
            Outcome::Next(Handover::ApprovalGranted(request, grant, credential, required_approval))
        }
        (None, _) => Outcome::Next(Handover::Granted(request, grant, credential)),
    }
}

/// Judges again, on what Redis just said. Something foreign is refused as unknown, once the caller
/// proved who it is.
fn decide(
    mut request: Box<Request>,
    snapshot: Snapshot,
    foreign: Option<Denial>,
    unapproved: Option<RequiredApproval>,
    credential: Credential,
    rounds: u8,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Admission>> {
    if rounds >= MOST_ROUNDS {
        return refuse(Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable), turn);
    }
    let rounds = rounds.saturating_add(1);
    let verdict = verdict(&mut request, &snapshot, turn);
    match (verdict, foreign) {
        (Verdict::Refused(denial @ Denial::Unauthenticated(_)), _) | (_, Some(denial)) => {
            refuse(denial, turn)
        }
        (verdict, None) => {
            proceed(request, snapshot, verdict, unapproved, credential, rounds, turn)
        }
    }
}

/// Goes on with a verdict whose basis Redis confirmed a moment ago, in this request.
fn proceed(
    request: Box<Request>,
    snapshot: Snapshot,
    verdict: Verdict,
    unapproved: Option<RequiredApproval>,
    credential: Credential,
    rounds: u8,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Admission>> {
    // An answer that something moved notes nothing.
    let use_is_due = use_of(&request.identity, &verdict, turn).is_some();
    match verdict {
        Verdict::Refused(denial) if request.holds_all() => refuse(denial, turn),
        Verdict::Allowed(grant)
            if request.holds_all()
                && grant.quotas.is_empty()
                && grant.required_approval.is_none()
                && !use_is_due
                && !has_intent(&request, turn) =>
        {
            admitted(request, (grant, Aim::Pass), credential, turn)
        }
        Verdict::Allowed(mut grant)
            if unapproved.is_some() && grant.required_approval == unapproved =>
        {
            // The price of the call is due when it is made.
            let credits = grant.quotas.iter_mut().filter(|quota| quota.cost == Cost::Credits);
            credits.for_each(|quota| quota.window.cost = 0);
            if grant.quotas.is_empty() && !use_is_due {
                return Outcome::Next(Handover::ApprovalMissing(request, grant));
            }
            let asking = (Verdict::Allowed(grant), Aim::AskPerson);
            ask((request, snapshot), asking, credential, rounds, turn)
        }
        Verdict::Allowed(_) => {
            ask((request, snapshot), (verdict, Aim::Pass), credential, rounds, turn)
        }
        // Who does not hold what the request refers to learns that first.
        Verdict::Refused(_) if verdict.proves_identity() => {
            ask((request, snapshot), (verdict, Aim::Pass), credential, rounds, turn)
        }
        Verdict::Refused(denial) => refuse(denial, turn),
        Verdict::NeedsPolicy(version) => {
            let judged = Box::new(Judged { request, snapshot, rounds });
            Outcome::Next(Handover::PolicyMissing(judged, version))
        }
        Verdict::Open => refuse(Denial::Internal("verdict"), turn),
    }
}

/// Without Redis, tokens and certificates are judged by the policy in the configuration alone.
/// There are no keys then, no windows, and nothing that belongs to a caller.
pub(crate) fn unconfirmed(
    request: Box<Request>,
    verdict: Verdict,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Admission>> {
    turn.context.identity = CallerIdentity::Confirmed;
    match (verdict, request.bound.first()) {
        (Verdict::Refused(denial), _) => refuse(denial, turn),
        (Verdict::Open | Verdict::NeedsPolicy(_), _) => refuse(Denial::PolicyUnusable, turn),
        (Verdict::Allowed(_), Some(bound)) => refuse(bound.unknown(), turn),
        (Verdict::Allowed(grant), None)
            if grant.quotas.is_empty() && grant.required_approval.is_none() =>
        {
            Outcome::Next(Handover::Granted(request, grant, Credential::Settled))
        }
        (Verdict::Allowed(_), None) => refuse(Denial::PolicyUnusable, turn),
    }
}
