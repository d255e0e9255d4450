//! Waits for the request's headers: finds the credential, and answers requests for the gateway itself.
//!
//! Owns the checks of headers without a dependency.

use serde_json::json;

use crate::audit::Entry;
use crate::config::Refusals;
use crate::denial::{Denial, Unsupported};
use crate::driver::event::{Event, Head};
use crate::driver::step::{Gate, RequestGate};
use crate::exchange::actions::identify_caller::caller;
use crate::exchange::actions::prove_token::{TokenProof, judged};
use crate::exchange::checks::caller::Claim;
use crate::exchange::checks::{cors, protected_resource};
use crate::exchange::handover::{Handover, Outcome, TokenRequest, refuse};
use crate::exchange::request::{ArrivedBody, Audience, Caller, PendingBody};
use crate::exchange::turn::{ErrorFormat, Turn};
use crate::http::local_reply::LocalReply;
use crate::limit;

/// The path of the health document, which needs no credential.
const HEALTH_PATH: &str = "/portcullis/health";

pub(crate) fn on(event: Event, turn: &mut Turn<'_>) -> Outcome<()> {
    let (head, last) = match event {
        Event::Head { head, last } => (head, last),
        // A response before any request headers: Envoy refused the request.
        Event::ResponseHead { .. } | Event::ResponseBody { .. } => {
            return Outcome::End(turn.proxy_answers(&event, "proxy.reply"));
        }
        Event::CallDone { .. }
        | Event::CallFailed { .. }
        | Event::BodyWithheld
        | Event::Closed(_) => return Outcome::Wait((), Gate::Hold),
        Event::Body(_) | Event::BodyTooLarge => {
            return refuse(Denial::Internal("body_before_head"), turn);
        }
    };
    turn.context.entry = Entry::of(&head);
    turn.context.arrived = turn.now;
    turn.context.mode = turn.worker.config.mode;
    turn.context.error_format = error_format(&head, turn.worker.config.refusals);
    if head.path() == HEALTH_PATH {
        return health(&head, turn);
    }
    if let Some(unsupported) = Unsupported::asked_by(&head) {
        return refuse(Denial::Unsupported(unsupported), turn);
    }
    match cors::check(&head, &turn.worker.config) {
        Err(denial) => return refuse(denial, turn),
        Ok(Some(page)) if cors::is_preflight(&head) => {
            return local(cors::preflight(&head, &page));
        }
        Ok(page) => turn.context.origin = page,
    }
    let page = turn.context.origin.as_deref();
    if let Some(reply) = protected_resource::document(&head, &turn.worker.config.auth, page) {
        return local(reply);
    }
    let (claim, certificate) = match caller(&head, turn) {
        Ok(called) => called,
        Err(denial) => return refuse(denial, turn),
    };
    let token = match claim {
        Claim::Made(identity) => {
            let audience = Audience::Fits;
            return known(head, last, Caller { identity, certificate, audience });
        }
        Claim::Token(token) => token,
    };
    if !turn.worker.config.authorization_servers.is_empty() {
        turn.context.token = Some(token.keep());
    }
    match judged(&token, &head, turn) {
        Ok(TokenProof::Proven(identity, audience)) => {
            known(head, last, Caller { identity, certificate, audience })
        }
        Ok(TokenProof::Waits(issuer)) => {
            let token = token.keep();
            let presented = TokenRequest { head, last, token, certificate };
            Outcome::Next(Handover::TokenPresented(Box::new(presented), issuer))
        }
        Err(denial) => refuse(denial, turn),
    }
}

/// The format of refusals.
fn error_format(head: &Head, refusals: Refusals) -> ErrorFormat {
    let client = || head.has("mcp-protocol-version") || head.has("mcp-session-id");
    match refusals {
        _ if limit::fields::accepts_problem(&head.values("accept")) => ErrorFormat::Problem,
        Refusals::Auto if client() => ErrorFormat::Message,
        Refusals::Message => ErrorFormat::Message,
        Refusals::Auto | Refusals::Status => ErrorFormat::JsonRpc,
    }
}

/// The gateway's health as this worker saw it, without asking a dependency. `?ready` is for load balancers: the worker
/// answers, so it is ready, and a dependency that all gateways share takes none of them out of service. Probes come
/// every few seconds and are no MCP exchange: they have no audit entry.
fn health(head: &Head, turn: &Turn<'_>) -> Outcome<()> {
    let (health, around) = (&turn.worker.health, turn.worker.surroundings());
    let condition = health.condition(&around, turn.now);
    let told = turn.worker.config.health.tells_details_to(&head.client_address);
    let (status, body) = match head.query() {
        b"ready" => (200, json!({ "status": "ready" })),
        _ if told => (condition.http_status(), health.details(&around, turn.now)),
        _ => (condition.http_status(), json!({ "status": condition.name() })),
    };
    let reply = LocalReply {
        status,
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("x-portcullis-request-id", turn.context.entry.request_id.clone()),
        ],
        body: body.to_string().into_bytes(),
    };
    local(reply)
}

fn known(head: Head, last: bool, caller: Caller) -> Outcome<()> {
    let (pending, body) = (Box::new(PendingBody::new(head, caller)), ArrivedBody::Awaited);
    Outcome::Next(Handover::CallerKnown { pending, last, body })
}

/// A reply of the gateway itself, without an audit entry.
fn local(reply: LocalReply) -> Outcome<()> {
    Outcome::Close(Gate::Request(RequestGate::LocalReply(reply)))
}
