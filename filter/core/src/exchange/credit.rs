//! From admission to the upstream: the connector's credential, and the request as it goes on.
//!
//! Owns what is taken off a request and what is put on it. The credential's read starts beside the
//! admission, so that a cold cache costs no extra time.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::admission::held;
use super::binding;
use super::degraded::without_vault;
use super::grant::{Credential, Grant, RelayedRefusal};
use super::recheck::Recheck;
use super::request::{Leg, Request};
use super::response::Upstream;
use super::turn::{Sent, Turn};
use super::{Next, Stage};
use crate::audit::{AuditEvent, shown};
use crate::authz::{Amendment, Shadowed};
use crate::call::{Call, CallFailure, CallId, Dependency, Reply};
use crate::denial::{Denial, LimitCause};
use crate::event::Event;
use crate::guard;
use crate::mcp::amend::amend;
use crate::mcp::{Body, Operation};
use crate::metric::Metric;
use crate::secret::Secret;
use crate::step::{Effect, Gate};
use crate::vault::{CredentialTemplate, Lease, SecretRef};

/// Admitted; waits for Vault.
#[derive(Debug)]
pub(crate) struct Crediting {
    request: Box<Request>,
    grant: Box<Grant>,
    secret: SecretRef,
    call: CallId,
}

/// Starts the read of a credential that is not in memory.
pub(crate) fn fetch(template: &CredentialTemplate, turn: &mut Turn<'_>) -> Credential {
    let secret = template.secret();
    if turn.worker.lease(secret).is_some_and(|lease| lease.is_live(turn.now)) {
        return Credential::Settled;
    }
    match read(secret, turn) {
        Ok(call) => Credential::Waiting(secret.clone(), call),
        Err(why) => Credential::Failed(secret.clone(), why),
    }
}

/// Starts the read of a credential, unless the last ones failed: of a Vault that hangs, not every caller
/// is to wait for the end of its time.
fn read(secret: &SecretRef, turn: &mut Turn<'_>) -> Result<CallId, CallFailure> {
    let timeout = turn.worker.config.vault.as_ref().map(|vault| vault.timeout).unwrap_or_default();
    // A trial that is never heard of again (its client left) is not waited for much longer.
    let trial = timeout.saturating_mul(2);
    if turn.worker.vault.lets_pass(turn.now, secret, trial) {
        return Ok(turn.start(Call::Secret(secret.clone())));
    }
    turn.effects.push(Effect::Measure(Metric::NotAsked(Dependency::Vault), 1));
    Err(CallFailure::NotAsked)
}

/// Admitted, so the caller is proven: passes as soon as the credential is there.
pub(crate) fn credit(
    request: Box<Request>,
    grant: Box<Grant>,
    credential: Credential,
    turn: &mut Turn<'_>,
) -> Next {
    turn.proven();
    if let Err(denial) = open_stream(&request, &grant, turn) {
        return turn.refuse(denial);
    }
    let template = match request.leg {
        // The credential went upstream with the headers.
        Leg::Body => None,
        Leg::Whole | Leg::Head(_) => grant.credential.clone(),
    };
    let Some(template) = template else { return pass(*request, *grant, None, turn) };
    let secret = template.secret().clone();
    let lease = turn.worker.lease(&secret).filter(|lease| lease.is_live(turn.now));
    if let Some(header) = lease.map(|lease| template.render(&lease.secret)) {
        return pass(*request, *grant, Some((template.header().to_owned(), header)), turn);
    }
    let call = match credential {
        Credential::Waiting(asked, call) if asked == secret => call,
        Credential::Failed(asked, why) if asked == secret => {
            return uncredited(request, grant, why, turn);
        }
        // Also when another was asked for: the policy moved meanwhile.
        Credential::Waiting(..) | Credential::Failed(..) | Credential::Settled => {
            match read(&secret, turn) {
                Ok(call) => call,
                Err(why) => return uncredited(request, grant, why, turn),
            }
        }
    };
    (Stage::Crediting(Box::new(Crediting { request, grant, secret, call })), Gate::Hold)
}

/// When a caller with too many streams may look whether one has ended.
const STREAMS_RETRY: Duration = Duration::from_secs(5);

/// Counts a request whose answer is a stream that stays open.
fn open_stream(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let operation = request.message.as_ref().map(|message| &message.operation);
    let (Ok(Operation::Listen | Operation::Subscriptions { .. }), Leg::Whole | Leg::Body, None) =
        (operation, &request.leg, &turn.context.slot)
    else {
        return Ok(());
    };
    let caller = (&grant.principal.org, grant.principal.identity.holder());
    match turn.worker.streams.open(caller, &grant.policy.streams) {
        Ok(slot) => {
            turn.context.slot = Some(slot);
            Ok(())
        }
        Err(limit) => {
            let (limit, cause) = (limit.into(), Box::new(LimitCause::Streams));
            Err(Denial::Limited { limit, cause, retry_after: STREAMS_RETRY })
        }
    }
}

impl Credential {
    /// The same, once `event` is about its read.
    pub(crate) fn settled(&self, event: Event, turn: &mut Turn<'_>) -> Self {
        let Self::Waiting(secret, call) = self else { return self.clone() };
        match secret_outcome(event, *call, secret, turn) {
            Some(Ok(())) => Self::Settled,
            Some(Err(why)) => Self::Failed(secret.clone(), why),
            None => self.clone(),
        }
    }
}

impl Crediting {
    pub(crate) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::CallDone { .. } | Event::CallFailed { .. } => {
                match secret_outcome(event, self.call, &self.secret, turn) {
                    None => (Stage::Crediting(self), Gate::Hold),
                    Some(Err(why)) => uncredited(self.request, self.grant, why, turn),
                    Some(Ok(())) => self.credited(turn),
                }
            }
            event => held(event, "crediting", turn, || Stage::Crediting(self)),
        }
    }

    /// Uses the value just read, also when it may not be kept at all (`cache_seconds: 0`).
    fn credited(self, turn: &mut Turn<'_>) -> Next {
        let template = self.grant.credential.clone();
        let lease = turn.worker.lease(&self.secret);
        match template
            .zip(lease)
            .map(|(template, lease)| (template.header().to_owned(), template.render(&lease.secret)))
        {
            Some(credential) => pass(*self.request, *self.grant, Some(credential), turn),
            None => turn.refuse(Denial::Internal("credential")),
        }
    }
}

/// The credential is not to be had; an old one may do.
fn uncredited(
    request: Box<Request>,
    grant: Box<Grant>,
    why: CallFailure,
    turn: &mut Turn<'_>,
) -> Next {
    let template = grant.credential.clone();
    match template.and_then(|template| without_vault(&template, why, turn)) {
        Some(credential) => pass(*request, *grant, Some(credential), turn),
        None => turn.refuse(Denial::Unavailable(Dependency::Vault, why)),
    }
}

/// What became of the read of `secret`, once the event is about it; a value is remembered.
pub(crate) fn secret_outcome(
    event: Event,
    call: CallId,
    secret: &SecretRef,
    turn: &mut Turn<'_>,
) -> Option<Result<(), CallFailure>> {
    let outcome = match event {
        Event::CallDone { id, reply: Reply::Vault { body } } if id == call => {
            secret.read(&body).map_err(|fault| {
                let (secret, reason) = (secret.to_string(), fault.name());
                let event = AuditEvent::SecretUnusable { secret, reason };
                turn.context.entry.events.push(event);
                CallFailure::Unreadable
            })
        }
        Event::CallDone { id, reply: Reply::Redis(_) | Reply::Keys | Reply::Policy }
            if id == call =>
        {
            Err(CallFailure::Unreadable)
        }
        Event::CallFailed { id, why } if id == call => Err(why),
        _ => return None,
    };
    match &outcome {
        Err(why) if why.is_outage() => turn.worker.vault.failed(turn.now, secret),
        Ok(_) | Err(_) => turn.worker.vault.answered(secret),
    }
    Some(outcome.map(|value| {
        let vault = turn.worker.config.vault.as_ref();
        let cache = vault.map(|vault| vault.cache).unwrap_or_default();
        turn.worker.set_lease(secret.clone(), Lease::new(value, turn.now, cache));
        turn.note_recovered(Dependency::Vault);
    }))
}

/// Lets the request go upstream, or the part of it that was judged.
fn pass(
    request: Request,
    grant: Grant,
    credential: Option<(String, Secret)>,
    turn: &mut Turn<'_>,
) -> Next {
    match &grant.relayed {
        Some(refusal) => {
            turn.note(&refusal.denial);
            let principal = &grant.principal;
            let holder = principal.identity.holder();
            if !turn.worker.relays.lets_pass(&principal.org, holder, turn.now) {
                return (Stage::Ended, Gate::Refuse(refusal.denial.clone()));
            }
        }
        None => {
            turn.context.entry.pass(&grant.shadowed);
            turn.context.entry.credits = grant.price.map(|price| price.call);
        }
    }
    match request.leg {
        Leg::Whole => {
            rewrite((&request.path, &request.strip), &grant, credential, turn);
            sent(request, &grant, turn)
        }
        Leg::Head(reading) => {
            rewrite((&request.path, &request.strip), &grant, credential, turn);
            turn.context.sent = Sent::Headers;
            let connector = grant.policy.connectors.get(&grant.connector);
            let path = &request.path;
            if connector.is_some_and(|it| it.amends || it.relays_refusals(path)) {
                turn.effects.push(Effect::RemoveRequestHeader("content-length".to_owned()));
                turn.context.sent = Sent::HeadersWithoutLength;
            }
            (Stage::Reading(reading), Gate::Pass)
        }
        Leg::Body => sent(request, &grant, turn),
    }
}

fn sent(request: Request, grant: &Grant, turn: &mut Turn<'_>) -> Next {
    let shadowed = grant.shadowed.iter().map(|Shadowed { check, rule }| AuditEvent::ShadowDenied {
        check: check.name(),
        rule: rule.clone(),
    });
    turn.context.entry.events.extend(shadowed);
    if let Some(amendment) = &grant.ruling.amendment
        && let Err(denial) = amend_body(&request, amendment, turn)
    {
        return turn.refuse(denial);
    }
    if let Some(RelayedRefusal { denial, message }) = &grant.relayed
        && replace_body(&request, message.clone(), turn).is_err()
    {
        return (Stage::Ended, Gate::Refuse(denial.clone()));
    }
    let mut request = request;
    restore(&mut request, turn);
    let message = std::mem::replace(&mut request.message, Err(Denial::Internal("message")));
    match message {
        Ok(message) => {
            binding::keep(&request.bound, &request.path, grant, turn);
            let path = request.path.clone();
            let bound = std::mem::take(&mut request.bound);
            if turn.worker.config.redis.is_some() {
                let again = listening(&message.operation);
                let recheck = Recheck::of(request, again, grant, turn.now);
                turn.context.recheck = Some(Box::new(recheck));
            }
            let upstream = Upstream::new(message.operation, path, grant).ending(bound);
            (Stage::Upstream(Box::new(upstream)), Gate::Pass)
        }
        Err(denial) => turn.refuse(denial),
    }
}

/// In `split` mode the filter keeps the body: what lies with the host there, another filter's going on would take along.
/// So the whole of it is put back, unless another one took its place.
fn restore(request: &mut Request, turn: &mut Turn<'_>) {
    let split = turn.context.sent != Sent::Nothing;
    let replaced = |effect: &Effect| matches!(effect, Effect::ReplaceRequestBody(_));
    if split && !request.body.bytes().is_empty() && !turn.effects.iter().any(replaced) {
        let body = std::mem::take(&mut request.body);
        turn.effects.push(Effect::ReplaceRequestBody(body));
    }
}

/// What a caller has to be allowed for as long as its answer is open: what it listens to; of any other request, to
/// be at this connector at all.
fn listening(operation: &Operation) -> Operation {
    match operation {
        Operation::Subscriptions { .. } => operation.clone(),
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::CallTool(_)
        | Operation::Prompt(_)
        | Operation::Resource(_)
        | Operation::Task(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession
        | Operation::Unknown => Operation::Listen,
    }
}

/// Puts an argument that goes on in the place of the one that came.
fn amend_body(request: &Request, amendment: &Amendment, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let Amendment { argument, asked, value } = amendment;
    let body =
        amend(request.body.bytes(), argument, *value).ok_or(Denial::Internal("amendment"))?;
    replace_body(request, body, turn)?;
    let asked = asked.as_ref().map(|asked| match asked {
        Value::Number(number) => shown(number),
        other => other.clone(),
    });
    let argument = argument.clone();
    let capped = AuditEvent::RecordsCapped { argument, asked, max: *value };
    turn.context.entry.events.push(capped);
    Ok(())
}

/// Puts `body` in the place of the one that came.
fn replace_body(request: &Request, body: Vec<u8>, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let most = turn.worker.config.max_body_bytes;
    match turn.context.sent {
        // What the filter puts back has to fit into the host's buffer (`host_buffer_bytes`).
        Sent::HeadersWithoutLength | Sent::Headers if body.len() > most => {
            return Err(Denial::BodyTooLarge(most));
        }
        Sent::HeadersWithoutLength => {}
        Sent::Nothing => {
            let name = "content-length".to_owned();
            let value = Secret::new(body.len().to_string());
            turn.effects.push(Effect::SetRequestHeader { name, value });
        }
        // The cap is younger than the verdict on the headers: they promise a length, and an upstream
        // would take what exceeds it for another request.
        Sent::Headers if body.len() == request.body.bytes().len() => {}
        Sent::Headers => return Err(Denial::PolicyUnusable),
    }
    turn.effects.push(Effect::ReplaceRequestBody(Body::new(body)));
    Ok(())
}

/// Makes the headers the gateway's own: what neither [`goes_upstream`] nor the connector names is taken off,
/// and the gateway's are set. `accept-encoding: identity`, since without it any content coding is
/// acceptable (RFC 9110, section 12.5.3), and a compressed answer cannot be read here.
///
/// [`goes_upstream`]: crate::request_headers::goes_upstream
fn rewrite(
    (path, strip): (&str, &[String]),
    grant: &Grant,
    credential: Option<(String, Secret)>,
    turn: &mut Turn<'_>,
) {
    let request_id = &turn.context.entry.request_id;
    let own = [
        ("accept-encoding", "identity".to_owned()),
        ("x-request-id", request_id.clone()),
        ("x-portcullis-org", grant.principal.org.to_string()),
        ("x-portcullis-principal", header_safe(&grant.principal.name)),
        ("x-portcullis-request-id", request_id.clone()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value)));
    let guard =
        turn.worker.config.guards.value(path).map(|value| (guard::HEADER.to_owned(), value));
    let set: Vec<(String, Secret)> = own.chain(credential).chain(guard).collect();
    let connector = grant.policy.connectors.get(&grant.connector);
    let named = connector.map(|connector| connector.request_headers.as_slice()).unwrap_or_default();
    let stays = |name: &String| !named.contains(name) && !set.iter().any(|(own, _)| own == name);
    for name in strip.iter().filter(|name| stays(name)) {
        turn.effects.push(Effect::RemoveRequestHeader(name.clone()));
    }
    for (name, value) in set {
        turn.effects.push(Effect::SetRequestHeader { name, value });
    }
}

/// A name that a person chose, as a header can carry it: other bytes percent-encoded.
fn header_safe(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'%' | ..0x20 | 0x7f.. => _ = write!(safe, "%{byte:02X}"),
            plain => safe.push(char::from(plain)),
        }
    }
    safe
}
