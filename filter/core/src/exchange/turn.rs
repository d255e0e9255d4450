//! One turn of the state machine: the worker's memory, the time, the context of all stages, and the effects.
//!
//! Owns the context of an exchange (its audit entry, the form of responses to its client) and the effects that all
//! stages share. Holds no stage's own state.

use portcullis_redis_lua::{Admit, AdmitReply, Key, Stamp, WindowState};

use super::checks::cors;
use super::checks::protected_resource::Hint;
use super::grant::CallerCredential;
use super::session::SessionRef;
use crate::audit::{AuditEvent, Entry, ResponseNumber};
use crate::auth::throttle::{self, Attempt, CredentialDigest};
use crate::auth::token::jws::KeptToken;
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

/// One turn of the state machine: the worker's memory, the time, and the requested effects.
pub(crate) struct Turn<'a> {
    pub(crate) worker: &'a mut Worker,
    pub(crate) now: UnixTime,
    pub(crate) context: &'a mut Context,
    pub(crate) effects: Vec<Effect>,
}

/// The context that every stage updates: the audit entry, and the form of responses to the client.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) entry: Entry,
    /// When the request's headers came.
    pub(crate) arrived: UnixTime,
    /// When the request is held. A new configuration does not change it, because the driver relies on it as well.
    pub(crate) mode: Mode,
    /// The digest by which the worker remembers the credential, if there is one.
    pub(crate) proof: Option<CredentialDigest>,
    /// What paid for the attempt to verify it, until the attempt is settled.
    pub(crate) attempt: Attempt,
    /// Searches the response for the connector's credential.
    pub(crate) echo: Option<Box<EchoMask>>,
    /// When the forwarded connector credential was read.
    pub(crate) credential_read: Option<UnixTime>,
    /// The connector credential that went with the headers, before the body was judged (`split` mode).
    pub(crate) credential_ahead: Option<Box<CallerCredential>>,
    /// The caller's token, when the connector exchanges it at an authorization server.
    pub(crate) token: Option<KeptToken>,
    /// The slot in the count of open streams.
    pub(crate) slot: Option<Slot>,
    /// The response, while it may get an entry before its end.
    pub(crate) open_response: Option<ResponseNumber>,
    pub(crate) next_call: CallId,
    /// The stream in Redis to which the intent of the call was appended.
    pub(crate) intents: Option<Key>,
    pub(crate) sender: Sender,
    pub(crate) era: Era,
    pub(crate) answers: Answers,
    /// The origin of the page that sent the request, if it may call.
    pub(crate) origin: Option<String>,
    /// How a client without a token gets one.
    pub(crate) hint: Option<Hint>,
    pub(crate) sent: Sent,
    /// The format of a refusal.
    pub(crate) error_format: ErrorFormat,
    /// Whether the caller's identity is confirmed.
    pub(crate) identity: CallerIdentity,
    /// The headers about its windows, after Redis has answered.
    pub(crate) rate_limit: RateLimitHeaders,
    /// The held bytes of an unverified sender's body.
    pub(crate) share: HeldBytes,
    /// The held bytes of a verified sender's body.
    pub(crate) kept: usize,
}

/// The format of a refusal because of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// As a JSON-RPC error.
    JsonRpc,
    /// As problem details (RFC 9457), which the client accepts explicitly.
    Problem,
    /// As a message of status 200, when the caller is verified and the era is legacy.
    Message,
}

/// Whether the caller's identity is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerIdentity {
    /// It is not confirmed yet.
    Claimed,
    /// Redis confirmed the credential in this request, or the failover rules allow it without Redis.
    Confirmed,
}

/// Where the client expects the answer to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// In the response to the request.
    Here,
    /// On another stream (HTTP+SSE): the client uses only the status of this response.
    Elsewhere,
}

/// The part of the request that was sent upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    /// The headers (`split` mode); the body is not judged yet, and must keep the length in them.
    Headers,
    /// The same, without a length: the body may change.
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
    /// Starts a call; its outcome arrives under the id.
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

    /// Replaces a response that must not pass with a refusal.
    pub(crate) fn replace(&mut self, denial: Denial) -> Gate {
        self.note(&denial);
        Gate::Response(ResponseGate::Replace(denial))
    }

    /// Records the states of the windows from Redis: for the client, and for alerts.
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

    /// Records the reason in the audit entry.
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

    /// A refusal settles what paid for the attempt to verify the credential: work that was done stays paid.
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
            // The credential is not verified, and the dependency had work with it.
            Denial::Unavailable(
                _,
                CallFailure::TimedOut | CallFailure::Disconnected | CallFailure::Unreadable,
            ) => {}
            _ => throttle.unattempted(address, attempt),
        }
    }

    /// Records that the credential is valid.
    pub(crate) fn proven(&mut self) {
        let attempt = std::mem::take(&mut self.context.attempt);
        if let Some(proof) = self.context.proof {
            let address = &self.context.entry.client_address;
            self.worker.throttle.succeeded(address, proof, attempt, self.now);
        }
    }

    /// Handles a response that arrives although the request did not pass: Envoy itself answers, for example because the
    /// body did not arrive in time, and that response passes. In `split` mode the upstream may be the cause; its own
    /// response before its request is judged does not pass.
    pub(crate) fn proxy_answers(&mut self, event: &Event, rule: &str) -> Gate {
        if let (Event::ResponseHead(head), Sent::Headers | Sent::HeadersWithoutLength) =
            (event, self.context.sent)
        {
            match (head.origin, head.status) {
                (Origin::Upstream, status) => {
                    if let 401 | 407 = status {
                        self.read_ahead_again();
                    }
                    let denial = Denial::UpstreamAnswer(UpstreamFault::Early);
                    return self.replace(denial);
                }
                (Origin::Disconnected, _) => {
                    let denial = Denial::UpstreamAnswer(UpstreamFault::GoneEarly);
                    return self.replace(denial);
                }
                (Origin::Proxy, 500..) => {
                    let gate = self.replace(Denial::UpstreamUnavailable);
                    // Its body never went upstream.
                    self.context.entry.decision.effect = "deny";
                    return gate;
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

    /// The server refused the credential that went with the headers: the next call reads it again.
    fn read_ahead_again(&mut self) {
        let sent = self.context.credential_read;
        if let (Some(credential), Some(sent)) = (self.context.credential_ahead.take(), sent)
            && let Ok(reference) = &credential.reference
        {
            let _ = self.worker.credential_refused(reference, sent, self.now);
        }
    }

    /// The same, for a response that passes unchanged.
    pub(crate) fn passes_by(&mut self, event: &Event, rule: &str) -> Gate {
        let entry = &mut self.context.entry;
        entry.status = AuditStatus::Error.name();
        entry.decision.effect = "deny";
        entry.decision.rule = rule.to_owned();
        self.mark_response();
        after_end(event)
    }

    /// Marks every response with the request's id, which is also in the audit entry, and with the CORS headers for the
    /// page. A request that Envoy refused before this filter has no id.
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

    /// Checks and records the state on which a reply is based.
    ///
    /// # Errors
    /// Nothing may be decided on this state.
    pub(crate) fn witness(&mut self, org: &OrgId, stamp: Option<&Stamp>) -> Result<(), WentBack> {
        if let Some(apart) = stamp.and_then(|stamp| self.worker.compare_clocks(self.now, stamp)) {
            let apart = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
            self.effects.push(Effect::Measure(Metric::ClockSkew, apart));
        }
        self.worker.witness(org, stamp)?;
        if let Some(leases) = self.worker.take_dropped_leases_of(org) {
            self.context.entry.events.push(AuditEvent::LeasesNotRevoked { leases });
        }
        if let Some(stamp) = stamp {
            self.worker.set_redis_clock(org, self.now, stamp);
        }
        Ok(())
    }

    /// Refuses, and reports it to the operator.
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

    /// Redis answered an admission: records what it confirmed, for operation without Redis.
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

    /// Records that a dependency answered again.
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

/// A response passes; a request, whose body may still arrive, does not.
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
