//! One turn of the machine: the memory that it may use, the time, what every stage adds to, and what is to be done.
//!
//! Owns the notes of an exchange (its audit entry, how its client is addressed) and the effects that all stages have
//! in common. Holds no stage's own state.

use portcullis_redis_lua::{Admit, AdmitReply, Key, Stamp, WindowState};

use super::checks::cors;
use super::checks::protected_resource::Hint;
use super::session::SessionRef;
use crate::audit::{AuditEvent, Entry};
use crate::auth::throttle::{self, Attempt, CredentialDigest};
use crate::auth::token::jws::PresentedToken;
use crate::config::Mode;
use crate::denial::{AuditStatus, Denial, HostFault, UpstreamFault};
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall};
use crate::driver::event::{Event, Origin};
use crate::driver::step::{Effect, Gate, RequestGate, ResponseGate};
use crate::id::{OrgId, PolicyName};
use crate::limit::Quota;
use crate::limit::fields::RateLimitHeaders;
use crate::mcp::{Era, Sender};
use crate::metric::Metric;
use crate::resilience::failover::{Degraded, OnFailure};
use crate::streams::Slot;
use crate::time::UnixTime;
use crate::unproven::HeldBytes;
use crate::vault::EchoMask;
use crate::worker::{WentBack, Worker};

/// One turn of the machine: the memory it may use, the time, and what it wants done.
pub(crate) struct Turn<'a> {
    pub(crate) worker: &'a mut Worker,
    pub(crate) now: UnixTime,
    pub(crate) context: &'a mut Context,
    pub(crate) effects: Vec<Effect>,
}

/// What every stage adds to: the audit entry, and how to address the client.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) entry: Entry,
    /// When the request is held. It stays so when the configuration changes meanwhile: the driver relies on it, too.
    pub(crate) mode: Mode,
    /// What the credential is remembered by, when there is one.
    pub(crate) proof: Option<CredentialDigest>,
    /// What the attempt to verify it was paid with, until that is settled.
    pub(crate) attempt: Attempt,
    /// Looks for the connector's credential in the answer.
    pub(crate) echo: Option<Box<EchoMask>>,
    /// When the connector's credential was read that went upstream.
    pub(crate) credential_read: Option<UnixTime>,
    /// The caller's token, where an authorization server may be asked for another one.
    pub(crate) token: Option<PresentedToken>,
    /// The stream that this exchange is counted as.
    pub(crate) slot: Option<Slot>,
    pub(crate) next_call: CallId,
    /// Where the intent of the call was to be appended.
    pub(crate) intents: Option<Key>,
    pub(crate) sender: Sender,
    pub(crate) era: Era,
    pub(crate) answers: Answers,
    /// The page that asked, when it may.
    pub(crate) origin: Option<String>,
    /// Where a client that has no token learns how to get one.
    pub(crate) hint: Option<Hint>,
    pub(crate) sent: Sent,
    /// What a refused client reads.
    pub(crate) error_format: ErrorFormat,
    /// Whether the caller is who it says.
    pub(crate) identity: CallerIdentity,
    /// What it is told of its windows, once Redis has spoken.
    pub(crate) rate_limit: RateLimitHeaders,
    /// What is held of a body whose sender has proved nothing.
    pub(crate) share: HeldBytes,
    /// What is held of any other one.
    pub(crate) kept: usize,
}

/// In which form a refusal for a limit is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// As a JSON-RPC error.
    JsonRpc,
    /// As problem details (RFC 9457), which the client asked for by name.
    Problem,
    /// As a message of status 200, where the caller is proven and the era is the legacy one.
    Message,
}

/// Whether the caller is who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerIdentity {
    /// Nobody said so yet.
    Claimed,
    /// Redis confirmed in this request what vouches for it, or something else may stand for that.
    Confirmed,
}

/// Where the client looks for the answer to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// In the response to the request.
    Here,
    /// On another stream (HTTP+SSE): of this response it takes the status alone.
    Elsewhere,
}

/// What of the request went upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    /// The headers (`split` mode); the body is not judged yet, and has to stay as long as they say.
    Headers,
    /// The same, without a length: the body may become another one.
    HeadersWithoutLength,
}

impl Context {
    pub(crate) fn is_told_in_message(&self, denial: &Denial) -> bool {
        let proven = self.identity == CallerIdentity::Confirmed && self.entry.principal.is_some();
        let asked = self.error_format == ErrorFormat::Message && self.answers == Answers::Here;
        asked && proven && self.era == Era::Legacy && denial.fits_in_message()
    }
}

impl Turn<'_> {
    /// Asks for a call; its outcome comes back under the id.
    pub(crate) fn start(&mut self, call: DependencyCall) -> CallId {
        let id = self.context.next_call;
        self.context.next_call = id.next();
        self.effects.push(Effect::Start { id, call });
        id
    }

    /// Ends the request with a refusal.
    pub(crate) fn refuse(&mut self, denial: Denial) -> Gate {
        self.note(&denial);
        Gate::Request(RequestGate::Refuse(denial))
    }

    /// The response must not pass: a refusal takes its place.
    pub(crate) fn replace(&mut self, denial: Denial) -> Gate {
        self.note(&denial);
        Gate::Response(ResponseGate::Replace(denial))
    }

    /// Notes what Redis said of the windows: for the client, and what people alert on.
    pub(crate) fn tell(&mut self, quotas: &[Quota], states: &[WindowState]) {
        let raised = quotas.iter().zip(states).filter(|(_, state)| state.raised);
        let alerts = raised.map(|(quota, state)| AuditEvent::BudgetAlert {
            limit: quota.name.clone(),
            used: quota.window.limit.saturating_sub(state.remaining),
            of: quota.window.limit,
        });
        self.context.entry.events.extend(alerts);
        let redated = quotas.iter().zip(states).filter(|(_, state)| state.redated);
        let jumps =
            redated.map(|(quota, _)| AuditEvent::RedisClockWentBack { limit: quota.name.clone() });
        self.context.entry.events.extend(jumps);
        self.context.rate_limit = RateLimitHeaders::of(quotas, states);
    }

    /// Writes down why.
    pub(crate) fn note(&mut self, denial: &Denial) {
        let era = self.context.era;
        let entry = &mut self.context.entry;
        entry.status = denial.audit_status().name();
        entry.error_code = denial.error_code(era);
        entry.decision.effect = denial.effect();
        entry.decision.rule = denial.rule();
        entry.note_denial(denial);
        self.settle_attempt(denial);
    }

    /// A refusal settles what the attempt to verify the credential was paid with: work that was done stays paid.
    pub(crate) fn settle_attempt(&mut self, denial: &Denial) {
        let attempt = std::mem::take(&mut self.context.attempt);
        let address = &self.context.entry.client_address;
        let throttle = &mut self.worker.throttle;
        match denial {
            Denial::Unauthenticated(failure) => {
                if let Some(proof) = &self.context.proof {
                    throttle.failed(address, proof, self.now);
                }
                if throttle::costs_nothing(*failure) {
                    throttle.unattempted(address, attempt);
                }
            }
            // Whether the credential holds is open, and the dependency had work with it.
            Denial::Unavailable(
                _,
                CallFailure::TimedOut | CallFailure::Disconnected | CallFailure::Unreadable,
            ) => {}
            _ => throttle.unattempted(address, attempt),
        }
    }

    /// The credential holds.
    pub(crate) fn proven(&mut self) {
        let attempt = std::mem::take(&mut self.context.attempt);
        if let Some(proof) = self.context.proof {
            let address = &self.context.entry.client_address;
            self.worker.throttle.succeeded(address, proof, attempt, self.now);
        }
    }

    /// A response arrived although the request did not pass: the proxy itself answers, say because the
    /// body did not come in time, and that goes on. In `split` mode the upstream may be the reason; what it
    /// answers itself before its request is judged does not.
    pub(crate) fn proxy_answers(&mut self, event: &Event, rule: &str) -> Gate {
        if let (Event::ResponseHead(head), Sent::Headers | Sent::HeadersWithoutLength) =
            (event, self.context.sent)
        {
            match (head.origin, head.status) {
                (Origin::Upstream, _) => {
                    let denial = Denial::UpstreamAnswer(UpstreamFault::Early);
                    return self.replace(denial);
                }
                (Origin::Disconnected, _) => return self.replace(Denial::UpstreamGone),
                (Origin::Proxy, 504) => return self.replace(Denial::UpstreamTimedOut),
                (Origin::Proxy, 500..) => {
                    return self.replace(Denial::UpstreamUnavailable);
                }
                (Origin::Proxy | Origin::Filter, _) => {}
            }
        }
        if let Event::ResponseHead(head) = event
            && (head.origin, head.status) == (Origin::Proxy, 413)
        {
            return self.replace(Denial::Host(HostFault::BufferLimit));
        }
        self.passes_by(event, rule)
    }

    /// The same, of an answer that goes on as it is.
    pub(crate) fn passes_by(&mut self, event: &Event, rule: &str) -> Gate {
        let entry = &mut self.context.entry;
        entry.status = AuditStatus::Error.name();
        entry.decision.effect = "deny";
        entry.decision.rule = rule.to_owned();
        self.mark_response();
        after_end(event)
    }

    /// What every response carries: the request's id, which ties it to its audit entry, and leave for
    /// the page to read it. What was refused before it was a request has no id.
    pub(crate) fn mark_response(&mut self) {
        let cors = self.context.origin.iter().flat_map(|origin| cors::headers(origin));
        let cors = cors.map(|(name, value)| Effect::SetResponseHeader { name, value });
        self.effects.extend(cors.collect::<Vec<_>>());
        let rate_limit = self.context.rate_limit.headers.iter().cloned();
        self.effects
            .extend(rate_limit.map(|(name, value)| Effect::SetResponseHeader { name, value }));
        let value = self.context.entry.request_id.clone();
        if !value.is_empty() {
            let name = "x-portcullis-request-id";
            self.effects.push(Effect::SetResponseHeader { name, value });
        }
    }

    /// Takes note of the state that a reply was made of.
    ///
    /// # Errors
    /// Nothing may be decided on it.
    pub(crate) fn witness(&mut self, org: &OrgId, stamp: Option<&Stamp>) -> Result<(), WentBack> {
        if let Some(apart) = stamp.and_then(|stamp| self.worker.compare_clocks(self.now, stamp)) {
            let apart = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
            self.effects.push(Effect::Measure(Metric::ClockSkew, apart));
        }
        self.worker.witness(org, stamp)?;
        if let Some(stamp) = stamp {
            self.worker.set_redis_clock(org, self.now, stamp);
        }
        Ok(())
    }

    /// Refuses, and says so to who can do something about it.
    pub(crate) fn note_went_back(&mut self, org: &OrgId, why: WentBack) -> Denial {
        if self.worker.reports(org, &why) {
            let (what, seen, now) = match why {
                WentBack::Organisation { seen, now } => {
                    ("organisation", seen.to_string(), now.to_string())
                }
                WentBack::Record { seen, now } => ("key", seen.to_string(), now.to_string()),
            };
            let org = org.to_string();
            self.context.entry.events.push(AuditEvent::StateWentBack { org, what, seen, now });
        }
        Denial::Unavailable(Dependency::Redis, CallFailure::WentBack)
    }

    pub(crate) fn degraded_redis(&self) -> Option<Degraded> {
        match self.worker.config.redis.as_ref()?.on_failure {
            OnFailure::Deny => None,
            OnFailure::Degrade(degraded) => Some(degraded),
        }
    }

    /// Redis answered an admission: what it confirmed may serve when it cannot.
    pub(crate) fn confirm(&mut self, admit: &Admit, reply: &AdmitReply) {
        if self.degraded_redis().is_some() {
            self.worker.failover.confirm(self.now, admit, reply);
            self.note_recovered(Dependency::Redis);
        }
    }

    pub(crate) fn note_degraded(&mut self, dependency: Dependency) {
        let entry = &mut self.context.entry;
        let name = dependency.name();
        if !entry.degraded.contains(&name) {
            entry.degraded.push(name);
        }
        if self.worker.failover.degraded(dependency, self.now).is_some() {
            entry.events.push(AuditEvent::DegradedEntered { dependency: name });
        }
    }

    /// A dependency answered again.
    pub(crate) fn note_recovered(&mut self, dependency: Dependency) {
        if let Some(length) = self.worker.failover.recovered(dependency, self.now) {
            let after_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            let event = AuditEvent::DegradedLeft { dependency: dependency.name(), after_ms };
            self.context.entry.events.push(event);
        }
    }

    pub(crate) fn not_bound(&mut self, connector: &PolicyName, bound: &SessionRef, reason: String) {
        let (connector, kind) = (connector.to_string(), bound.kind());
        let event = AuditEvent::NotBound { connector, kind, reason };
        if !self.context.entry.events.contains(&event) {
            self.context.entry.events.push(event);
        }
    }
}

/// A response passes; a request, of which more may come in, does not.
pub(crate) fn after_end(event: &Event) -> Gate {
    match event {
        Event::ResponseHead(_) | Event::ResponseBody { .. } => Gate::Response(ResponseGate::Pass),
        Event::Head { .. }
        | Event::Body(_)
        | Event::BodyTooLarge
        | Event::BodyWithheld
        | Event::CallDone { .. }
        | Event::CallFailed { .. }
        | Event::Closed(_) => Gate::Hold,
    }
}
