//! Repeated checks of an open response: may its caller still receive it?
//!
//! Owns the basis of an open response, when Redis is asked about it, and the end of the response. A check costs one
//! small read of the caller's records and the policy, at a configured interval, and draws nothing. The driver ends a
//! response whose headers the client already has.

use std::time::Duration;

use portcullis_redis_lua::{Admit, AdmitReply, Value};

use crate::audit::Entry;
use crate::denial::Denial;
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::exchange::checks::snapshot::{Snapshot, Unlearned};
use crate::exchange::checks::verdict::{Verdict, judge};
use crate::exchange::grant::Grant;
use crate::exchange::request::Request;
use crate::exchange::turn::Turn;
use crate::mcp::{Body, Message, Operation};
use crate::resilience::failover::OnFailure;
use crate::time::UnixTime;

/// A response ends after this many intervals without confirmation, unless `stale_seconds` is longer.
const MOST_MISSED: u32 = 3;

/// The basis of an open response.
#[derive(Debug)]
pub(crate) struct Recheck {
    request: Box<Request>,
    every: Duration,
    due: UnixTime,
    confirmed: UnixTime,
    asked: PendingCheck,
}

/// The pending question to Redis.
#[derive(Debug)]
enum PendingCheck {
    Nothing,
    /// Whether the records are unchanged.
    Records(CallId, Snapshot, Admit),
    /// The document of a policy that became active since.
    Policy(CallId, Snapshot),
}

/// The result of a check.
enum CheckResult {
    Stands,
    Waits(PendingCheck),
    Unknown,
    Ends(Denial),
}

impl Recheck {
    /// The basis of a request that passes, whose message is judged as `operation`.
    pub(crate) fn of(
        mut request: Box<Request>,
        operation: Operation,
        grant: &Grant,
        now: UnixTime,
    ) -> Self {
        let every = grant.policy.streams.recheck;
        request.message = Ok(Message::bodiless(operation));
        (request.body, request.bound, request.strip) = (Body::default(), Vec::new(), Vec::new());
        Self { request, every, due: now.after(every), confirmed: now, asked: PendingCheck::Nothing }
    }

    /// When Redis is asked next; `None` while a question is pending.
    pub(crate) fn due(&self) -> Option<UnixTime> {
        match self.asked {
            PendingCheck::Nothing => Some(self.due),
            PendingCheck::Records(..) | PendingCheck::Policy(..) => None,
        }
    }

    /// Asks Redis.
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>) {
        let snapshot = Snapshot::remembered(&self.request.identity, turn.worker, turn.now);
        let guards = snapshot.guards(&self.request.identity);
        let admit = Admit { guards, windows: Vec::new(), used: None, intent: None };
        let call = turn.start(DependencyCall::Admit(admit.call()));
        self.asked = PendingCheck::Records(call, snapshot, admit);
    }

    /// Whether `id` is its call.
    pub(crate) fn awaits(&self, id: CallId) -> bool {
        match &self.asked {
            PendingCheck::Nothing => false,
            PendingCheck::Records(call, ..) | PendingCheck::Policy(call, ..) => *call == id,
        }
    }

    /// Takes the outcome of its call; returns a refusal when the response has to end.
    pub(crate) fn answered(&mut self, reply: Option<Reply>, turn: &mut Turn<'_>) -> Option<Denial> {
        let outcome = match (std::mem::replace(&mut self.asked, PendingCheck::Nothing), reply) {
            (PendingCheck::Records(_, snapshot, admit), Some(Reply::Redis(value))) => {
                self.compared(snapshot, &admit, value, turn)
            }
            // The worker has the policy, or knows that it cannot be used; otherwise the next check asks again.
            (PendingCheck::Policy(_, snapshot), Some(Reply::Policy)) => {
                match self.judged(snapshot, turn) {
                    CheckResult::Waits(_) => CheckResult::Unknown,
                    outcome => outcome,
                }
            }
            _ => CheckResult::Unknown,
        };
        match outcome {
            CheckResult::Stands => {
                (self.confirmed, self.due) = (turn.now, turn.now.after(self.every));
                None
            }
            CheckResult::Waits(asked) => {
                self.asked = asked;
                None
            }
            CheckResult::Ends(denial) => Some(denial),
            CheckResult::Unknown => {
                self.due = turn.now.after(self.every);
                let missed = turn.now.since(self.confirmed) >= self.patience(turn);
                let why = CallFailure::TimedOut;
                missed.then_some(Denial::Unavailable(Dependency::Redis, why))
            }
        }
    }

    /// How long the response may continue without confirmation.
    fn patience(&self, turn: &Turn<'_>) -> Duration {
        let missed = self.every.saturating_mul(MOST_MISSED);
        match turn.worker.config.redis.as_ref().map(|redis| redis.on_failure) {
            Some(OnFailure::Degrade(degraded)) => degraded.stale.max(missed),
            Some(OnFailure::Deny) | None => missed,
        }
    }

    fn compared(
        &mut self,
        mut snapshot: Snapshot,
        admit: &Admit,
        value: Value,
        turn: &mut Turn<'_>,
    ) -> CheckResult {
        match admit.decode(value) {
            Ok(AdmitReply::Admitted(_)) => self.judged(snapshot, turn),
            Ok(AdmitReply::Stale(states)) => {
                let mut states = states.into_iter();
                match snapshot.learn(&self.request.identity, &mut states, turn.worker) {
                    Ok(()) => self.judged(snapshot, turn),
                    Err(Unlearned::Missing) => CheckResult::Unknown,
                    Err(Unlearned::WentBack(why)) => {
                        let org = self.request.identity.org();
                        CheckResult::Ends(turn.note_went_back(org, why))
                    }
                }
            }
            Ok(AdmitReply::Limited { .. }) | Err(_) => CheckResult::Unknown,
        }
    }

    fn judged(&mut self, snapshot: Snapshot, turn: &mut Turn<'_>) -> CheckResult {
        // The audit entry keeps the decision on the request.
        let client_address = turn.context.entry.client_address.clone();
        let mut scratch = Entry { client_address, ..Entry::default() };
        match judge(&mut self.request, &snapshot, turn.worker, turn.now, &mut scratch) {
            Verdict::Allowed(_) => CheckResult::Stands,
            Verdict::NeedsPolicy(version) => {
                let call = turn.start(DependencyCall::Policy(version));
                CheckResult::Waits(PendingCheck::Policy(call, snapshot))
            }
            Verdict::Refused(Denial::Unavailable(..)) | Verdict::Open => CheckResult::Unknown,
            Verdict::Refused(denial) => CheckResult::Ends(denial),
        }
    }
}
