//! The request as it goes on.
//!
//! Owns what is taken off a request and what is put on it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use super::bind;
use super::forwarded::Forwarded;
use super::recheck::Recheck;
use crate::audit::{AuditEvent, shown};
use crate::authz::{Amendment, Shadowed};
use crate::connector_credential::Injected;
use crate::denial::Denial;
use crate::driver::step::{Effect, HeaderValue};
use crate::exchange::grant::{Grant, RelayedRefusal};
use crate::exchange::request::{PendingBody, Request, RequestPart};
use crate::exchange::turn::{Sent, Turn};
use crate::guard;
use crate::http::query;
use crate::mcp::amend::amend;
use crate::mcp::{Body, Operation};
use crate::schema::Mirror;
use crate::secret::{Secret, Wiping};
use url::form_urlencoded;

/// What went upstream of a request.
pub(crate) enum Sending {
    /// The headers (`split` mode); the body is judged next.
    Headers(Box<PendingBody>),
    /// All of it.
    Whole(Box<Forwarded>),
    /// Nothing more: it is refused.
    Refused(Denial),
    /// Nothing, by a refusal that the entry tells of already.
    Noted(Denial),
}

/// Lets the request go upstream, or the part of it that was judged.
pub(crate) fn pass(
    mut request: Box<Request>,
    grant: &Grant,
    credential: Injected,
    turn: &mut Turn<'_>,
) -> Sending {
    match &grant.relayed {
        Some(refusal) => {
            turn.note(&refusal.denial);
            let principal = &grant.principal;
            let holder = principal.identity.holder();
            if !turn.worker.relays.lets_pass(&principal.org, holder, turn.now) {
                return Sending::Noted(refusal.denial.clone());
            }
        }
        None => {
            turn.context.entry.pass(&grant.shadowed);
            turn.context.entry.credits = grant.price.map(|price| price.call);
        }
    }
    match &request.part {
        RequestPart::Whole => {
            rewrite(&mut request, grant, credential, turn);
            sent(request, grant, turn)
        }
        RequestPart::Head(_) => {
            rewrite(&mut request, grant, credential, turn);
            turn.context.sent = Sent::Headers;
            turn.context.credential_ahead = grant.credential.clone().map(Box::new);
            let connector = grant.policy.connectors.get(&grant.connector);
            let path = &request.path;
            if connector.is_some_and(|it| it.amends || it.relays_refusals(path)) {
                turn.effects.push(Effect::RemoveRequestHeader("content-length".into()));
                turn.context.sent = Sent::HeadersWithoutLength;
            }
            match request.part {
                RequestPart::Head(reading) => Sending::Headers(reading),
                RequestPart::Whole | RequestPart::Body => {
                    Sending::Refused(Denial::Internal("part"))
                }
            }
        }
        RequestPart::Body => sent(request, grant, turn),
    }
}

fn sent(mut request: Box<Request>, grant: &Grant, turn: &mut Turn<'_>) -> Sending {
    let shadowed = grant.shadowed.iter().map(|Shadowed { check, rule }| AuditEvent::ShadowDenied {
        check: check.name(),
        rule: rule.clone(),
    });
    turn.context.entry.events.extend(shadowed);
    if !grant.ruling.amendments.is_empty()
        && let Err(denial) = amend_body(&request, grant, turn)
    {
        return Sending::Refused(denial);
    }
    if let Some(RelayedRefusal { denial, message }) = &grant.relayed
        && replace_body(&request, message.clone(), turn).is_err()
    {
        return Sending::Noted(denial.clone());
    }
    restore(&mut request, turn);
    let message = std::mem::replace(&mut request.message, Err(Denial::Internal("message")));
    match message {
        Ok(message) => {
            bind::keep(&request.bound, &request.path, grant, turn);
            let path = request.path.clone();
            let bound = std::mem::take(&mut request.bound);
            let again = listening(&message.operation);
            let forwarded = Forwarded::new(message.operation, path, grant).ending(bound);
            let mut forwarded = Box::new(forwarded);
            if turn.worker.config.redis.is_some() {
                let recheck = Recheck::of(request, again, grant, turn.now);
                forwarded.recheck = Some(Box::new(recheck));
            }
            Sending::Whole(forwarded)
        }
        Err(denial) => Sending::Refused(denial),
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

/// Why a call whose headers went upstream before cannot go on as caps change it. Nothing is drawn for it yet.
pub(crate) fn unamendable(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Option<Denial> {
    let amendments = &grant.ruling.amendments;
    if turn.context.sent == Sent::Nothing || amendments.is_empty() {
        return None;
    }
    if let Err(denial) = amend_headers(request, grant, turn) {
        return Some(denial);
    }
    let came = request.body.bytes();
    let (mut body, mut too_long) = (Cow::Borrowed(came), None);
    for amendment in amendments {
        match amended(&body, amendment) {
            Ok(amended) => body = Cow::Owned(amended),
            Err(denial) => return Some(denial),
        }
        if body.len() > came.len() {
            too_long.get_or_insert(amendment);
        }
    }
    let promised = turn.context.sent == Sent::Headers && body.len() > came.len();
    too_long.filter(|_| promised).map(Amendment::refusal)
}

fn amended(body: &[u8], amendment: &Amendment) -> Result<Vec<u8>, Denial> {
    amend(body, &amendment.argument, amendment.value).ok_or(Denial::Internal("amendment"))
}

/// Puts arguments that go on in the place of those that came.
fn amend_body(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let amendments = &grant.ruling.amendments;
    amend_headers(request, grant, turn)?;
    let mut body = Cow::Borrowed(request.body.bytes());
    for amendment in amendments {
        body = Cow::Owned(amended(&body, amendment)?);
    }
    replace_body(request, body.into_owned(), turn)?;
    let capped = amendments.iter().map(|Amendment { argument, asked, value, .. }| {
        let asked = asked.as_ref().map(|asked| match asked {
            Value::Number(number) => shown(number),
            other => other.clone(),
        });
        AuditEvent::RecordsCapped { argument: argument.clone(), asked, max: *value }
    });
    turn.context.entry.events.extend(capped);
    Ok(())
}

/// Makes headers that repeat an argument say what goes on: a server that reads them would take the value that came.
fn amend_headers(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let (Some(_), Ok(message)) = (&request.parameters, &request.message) else { return Ok(()) };
    let Operation::CallTool(call) = &message.operation else { return Ok(()) };
    let connector = grant.policy.connectors.get(&grant.connector);
    let tool = connector.and_then(|connector| connector.tools.get(&call.name));
    let Some(pin) = tool.and_then(|tool| tool.pin.as_ref()) else { return Ok(()) };
    let reviewed = turn.worker.schemas.of(pin).ok_or(Denial::PolicyUnusable)?;
    for Amendment { argument, value, .. } in &grant.ruling.amendments {
        let repeats = |mirror: &&Mirror| mirror.path.len() == 1 && mirror.path.contains(argument);
        for Mirror { header, .. } in reviewed.mirrors.iter().filter(repeats) {
            if turn.context.sent != Sent::Nothing {
                // The headers are gone, with the value that came.
                return Err(Denial::HeaderMismatch(
                    "An Mcp-Param header repeats an argument that a record cap lowers; ask for less",
                ));
            }
            let value = HeaderValue::Plain(value.to_string().into());
            let name = header.clone().into();
            turn.effects.push(Effect::SetRequestHeader { name, value });
        }
    }
    Ok(())
}

/// Puts `body` in the place of the one that came.
fn replace_body(request: &Request, mut body: Vec<u8>, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let most = turn.worker.config.max_body_bytes;
    match turn.context.sent {
        // What the filter puts back has to fit into the host's buffer (`host_buffer_bytes`).
        Sent::HeadersWithoutLength | Sent::Headers if body.len() > most => {
            return Err(Denial::BodyTooLarge(most));
        }
        Sent::HeadersWithoutLength => {}
        Sent::Nothing => {
            let value = HeaderValue::Plain(body.len().to_string().into());
            turn.effects.push(Effect::SetRequestHeader { name: "content-length".into(), value });
        }
        // The cap is younger than the verdict on the headers: they promise a length, and an upstream would take what
        // exceeds it for another request. White space may follow a message.
        Sent::Headers => match request.body.bytes().len() {
            promised if body.len() <= promised => body.resize(promised, b' '),
            _ => return Err(Denial::Internal("length")),
        },
    }
    turn.effects.push(Effect::ReplaceRequestBody(Body::new(body)));
    Ok(())
}

/// Makes the headers the gateway's own: what neither [`goes_upstream`] nor the connector names is taken off,
/// and the gateway's are set. `accept-encoding: identity`, since without it any content coding is
/// acceptable (RFC 9110, section 12.5.3), and a compressed answer cannot be read here.
///
/// [`goes_upstream`]: crate::http::request_headers::goes_upstream
fn rewrite(request: &mut Request, grant: &Grant, credential: Injected, turn: &mut Turn<'_>) {
    let Request { path, strip, .. } = &mut *request;
    let request_id = turn.context.entry.request_id.clone();
    let own = [
        ("accept-encoding", "identity".into()),
        ("x-request-id", request_id.clone().into()),
        ("x-portcullis-org", grant.principal.org.as_str().to_owned().into()),
        ("x-portcullis-principal", header_safe(&grant.principal.name).into()),
        ("x-portcullis-request-id", request_id.into()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.into(), HeaderValue::Plain(value)));
    let guard = turn.worker.config.guards.value(path).map(|value| (guard::HEADER.into(), value));
    let Injected { headers, query, echo, read } = credential;
    (turn.context.echo, turn.context.credential_read) = (echo, read);
    let credential = headers.into_iter().map(|(name, value)| (name.into(), value));
    let secret = |(name, value)| (name, HeaderValue::Secret(value));
    let set: Vec<(Cow<'static, str>, HeaderValue)> =
        own.chain(credential.chain(guard).map(secret)).collect();
    let connector = grant.policy.connectors.get(&grant.connector);
    let named = connector.map(|connector| connector.request_headers.as_slice()).unwrap_or_default();
    let stays = |name: &String| !named.contains(name) && !set.iter().any(|(own, _)| own == name);
    turn.effects.reserve(strip.len().saturating_add(set.len()));
    for name in std::mem::take(strip).into_iter().filter(stays) {
        turn.effects.push(Effect::RemoveRequestHeader(name.into()));
    }
    for (name, value) in set {
        turn.effects.push(Effect::SetRequestHeader { name, value });
    }
    if !query.is_empty() {
        set_query(request, query, turn);
    }
}

/// Puts the credential into the query, in the place of any parameter that a server might read as the same. Envoy writes
/// `x-envoy-original-path` into its access log where there is one: that one has no credential.
fn set_query(request: &Request, parameters: Vec<(String, Secret)>, turn: &mut Turn<'_>) {
    let _wiping = Wiping::begin();
    let Request { path, query, .. } = request;
    let named: Vec<_> =
        parameters.iter().map(|(name, _)| query::letters(name.as_bytes())).collect();
    let kept = query::pairs(query).filter(|pair| !named.contains(&pair.letters));
    let kept = kept.filter(|pair| !pair.name.is_empty() || pair.value.is_some());
    let kept: Vec<_> = kept
        .map(|pair| {
            let name = String::from_utf8_lossy(pair.name);
            match pair.value {
                Some(value) => format!("{name}={}", String::from_utf8_lossy(value)),
                None => name.into_owned(),
            }
        })
        .collect();
    let original = match kept.is_empty() {
        true => path.clone(),
        false => format!("{path}?{}", kept.join("&")),
    };
    let longest = parameters.iter().map(|(name, value)| {
        value.expose().len().saturating_mul(3).saturating_add(name.len()).saturating_add(2)
    });
    let mut target = String::with_capacity(original.len().saturating_add(longest.sum()));
    target.push_str(&original);
    let mut separator = if kept.is_empty() { '?' } else { '&' };
    for (name, value) in &parameters {
        target.push(separator);
        target.push_str(name);
        target.push('=');
        target.extend(form_urlencoded::byte_serialize(value.expose().as_bytes()));
        separator = '&';
    }
    let value = HeaderValue::Secret(Secret::new(target));
    turn.effects.push(Effect::SetRequestHeader { name: ":path".into(), value });
    let value = HeaderValue::Plain(original.into());
    turn.effects.push(Effect::SetRequestHeader { name: "x-envoy-original-path".into(), value });
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
