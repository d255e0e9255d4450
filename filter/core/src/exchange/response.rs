//! From the upstream's response to its end: lists are filtered, outcomes noted.
//!
//! Owns what of a response has to be read, and what happens when it cannot be. Streams pass event
//! by event; only a list that comes as one JSON body is held.

use serde_json::Value;

use super::verdict::Grant;
use super::{Next, Stage, Turn};
use crate::audit::Entry;
use crate::authz;
use crate::denial::{AuditStatus, Denial};
use crate::event::{Closing, End, Event, Origin};
use crate::json;
use crate::mcp::list::filter_tools;
use crate::mcp::outcome::{self, Outcome};
use crate::mcp::sse::Rewriter;
use crate::mcp::{Operation, Sender};
use crate::policy::ToolGrant;
use crate::step::{Effect, Gate};

/// A JSON answer beyond this is not looked into for its outcome; it passes all the same.
const MAX_OBSERVED_BYTES: usize = 262_144;

/// Waits for the response headers.
#[derive(Debug)]
pub(super) struct Upstream {
    operation: Operation,
    tools: ToolGrant,
}

/// The response is on its way to the client.
#[derive(Debug)]
pub(super) struct Answering {
    operation: Operation,
    tools: ToolGrant,
    plan: Plan,
    outcome: Outcome,
    status: u16,
}

/// What is done with the body.
#[derive(Debug)]
enum Plan {
    /// It passes unseen.
    Unseen,
    /// Held whole, then filtered.
    List,
    /// Watched for its outcome; `None` once it grew too large to look into.
    Observe(Option<Vec<u8>>),
    /// Passes event by event.
    Events(Rewriter),
    /// Something in it could not be read: nothing of it goes on.
    Swallow,
}

impl Upstream {
    pub(super) fn new(operation: Operation, grant: &Grant) -> Self {
        let tools = grant.policy.grant(&grant.principal.role, &grant.connector).cloned();
        Self { operation, tools: tools.unwrap_or_default() }
    }

    pub(super) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::ResponseHead { origin: Origin::Proxy, .. } => {
                replace(Denial::UpstreamUnavailable, turn)
            }
            Event::ResponseHead {
                status,
                content_type,
                content_encoding,
                last,
                origin: Origin::Upstream,
            } => {
                turn.show_request_id();
                let coded = !matches!(content_encoding.as_slice(), b"" | b"identity");
                self.answer(status, &content_type, coded, last, turn)
            }
            // The request passed: what is late about it changes nothing.
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::CallDone { .. }
            | Event::CallFailed { .. }
            | Event::ResponseBody { .. }
            | Event::ResponseTooLarge
            | Event::Closed(_) => (Stage::Upstream(self), Gate::Hold),
        }
    }

    fn answer(
        self,
        status: u16,
        content_type: &[u8],
        coded: bool,
        last: bool,
        turn: &mut Turn<'_>,
    ) -> Next {
        let lists = matches!(self.operation, Operation::ListTools | Operation::Listen);
        if lists && coded && !last {
            return replace(Denial::UpstreamUnreadable, turn);
        }
        let (plan, gate) = if last || coded {
            (Plan::Unseen, Gate::Pass)
        } else if is_media(content_type, b"text/event-stream") {
            (Plan::Events(Rewriter::default()), Gate::Watch)
        } else if self.operation == Operation::ListTools {
            (Plan::List, Gate::Hold)
        } else if matches!(self.operation, Operation::CallTool(_))
            && is_media(content_type, b"application/json")
        {
            (Plan::Observe(Some(Vec::new())), Gate::Watch)
        } else {
            (Plan::Unseen, Gate::Pass)
        };
        if matches!(plan, Plan::List | Plan::Events(_)) {
            for name in ["content-length", "etag", "content-md5"] {
                turn.effects.push(Effect::RemoveResponseHeader(name));
            }
        }
        let outcome = Outcome::Unseen;
        let Self { operation, tools } = self;
        (Stage::Answering(Box::new(Answering { operation, tools, plan, outcome, status })), gate)
    }
}

fn is_media(content_type: &[u8], media: &[u8]) -> bool {
    let end = content_type.iter().position(|b| *b == b';').unwrap_or(content_type.len());
    content_type.get(..end).is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(media))
}

/// The response must not pass: a refusal takes its place.
fn replace(denial: Denial, turn: &mut Turn<'_>) -> Next {
    turn.note(&denial);
    (Stage::Ended, Gate::Replace(denial))
}

impl Answering {
    pub(super) fn on(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::ResponseBody { bytes, last } => match &mut self.plan {
                Plan::Unseen => (Stage::Answering(self), Gate::Pass),
                Plan::List => self.list(&bytes, turn),
                Plan::Observe(_) => self.observe(&bytes, last, turn),
                Plan::Events(_) | Plan::Swallow => self.events(&bytes, last, turn),
            },
            Event::ResponseTooLarge => replace(Denial::UpstreamUnreadable, turn),
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::CallDone { .. }
            | Event::CallFailed { .. }
            | Event::ResponseHead { .. }
            | Event::Closed(_) => (Stage::Answering(self), Gate::Hold),
        }
    }

    /// A whole JSON body that should carry a list.
    fn list(mut self: Box<Self>, body: &[u8], turn: &mut Turn<'_>) -> Next {
        let failed = !(200..300).contains(&self.status);
        let mut message = match json::parse_strict(body) {
            Ok(message) => message,
            // An error page is no list; whoever reads it finds no tools in it.
            Err(_) if failed => return (Stage::Answering(self), Gate::Pass),
            Err(_) => return replace(Denial::UpstreamUnreadable, turn),
        };
        self.look_at(&message, turn);
        match filter_tools(&mut message, |name| authz::sees(&self.tools, name)) {
            Ok(true) => {
                let body = message.to_string().into_bytes();
                turn.effects.push(Effect::ReplaceResponseBody(body));
                (Stage::Answering(self), Gate::Pass)
            }
            Ok(false) => (Stage::Answering(self), Gate::Pass),
            Err(_) => replace(Denial::UpstreamUnreadable, turn),
        }
    }

    /// A chunk of a JSON body that passes as it is.
    fn observe(mut self: Box<Self>, chunk: &[u8], last: bool, turn: &mut Turn<'_>) -> Next {
        if let Plan::Observe(seen) = &mut self.plan {
            let mut body = seen.take().unwrap_or_default();
            if body.len().saturating_add(chunk.len()) > MAX_OBSERVED_BYTES {
                self.plan = Plan::Unseen;
                return (Stage::Answering(self), Gate::Pass);
            }
            body.extend_from_slice(chunk);
            *seen = Some(body);
        }
        if let (Plan::Observe(Some(body)), true) = (&self.plan, last)
            && let Ok(message) = serde_json::from_slice(body)
        {
            self.look_at(&message, turn);
        }
        (Stage::Answering(self), Gate::Watch)
    }

    /// A chunk of an event stream.
    fn events(mut self: Box<Self>, chunk: &[u8], last: bool, turn: &mut Turn<'_>) -> Next {
        let plan = std::mem::replace(&mut self.plan, Plan::Swallow);
        let sender = turn.context.sender.clone();
        let (bytes, plan) = match plan {
            Plan::Events(mut rewriter) => {
                let mut rewrite = |data: &str| self.event(data, &sender);
                match rewriter.feed(chunk, &mut rewrite) {
                    Ok(mut out) => {
                        if last {
                            out.extend(rewriter.finish(&mut rewrite));
                        }
                        (out, Plan::Events(rewriter))
                    }
                    Err(_) => {
                        turn.note(&Denial::UpstreamUnreadable);
                        self.outcome = Outcome::ProtocolError(Denial::UpstreamUnreadable.code());
                        (format!("data: {}\n\n", refusal(&sender)).into_bytes(), Plan::Swallow)
                    }
                }
            }
            plan => (Vec::new(), plan),
        };
        self.plan = plan;
        if bytes != chunk {
            turn.effects.push(Effect::ReplaceResponseBody(bytes));
        }
        (Stage::Answering(self), Gate::Watch)
    }

    /// One event's data: what takes its place, if anything does.
    fn event(&mut self, data: &str, sender: &Sender) -> Option<String> {
        let lists = matches!(self.operation, Operation::ListTools | Operation::Listen);
        if data.is_empty() {
            return None;
        }
        match json::parse_strict(data.as_bytes()) {
            Ok(mut message) => {
                self.see(&message, sender);
                if !lists {
                    return None;
                }
                match filter_tools(&mut message, |name| authz::sees(&self.tools, name)) {
                    Ok(changed) => changed.then(|| message.to_string()),
                    Err(_) => Some(refusal(sender)),
                }
            }
            Err(_) => lists.then(|| refusal(sender)),
        }
    }

    fn look_at(&mut self, message: &Value, turn: &Turn<'_>) {
        self.see(message, &turn.context.sender);
    }

    fn see(&mut self, message: &Value, sender: &Sender) {
        if let Sender::Request(id) = sender
            && let Some(outcome) = outcome::of(message, id)
        {
            self.outcome = outcome;
        }
    }

    /// The audit entry's last fields.
    pub(super) fn close(&self, entry: &mut Entry, closing: &Closing) {
        let succeeded = (200..400).contains(&self.status);
        let status = match (self.outcome, closing.end) {
            (Outcome::Result { rows }, _) => {
                // Only a tool returns rows; a list of tools is not one of them.
                if matches!(self.operation, Operation::CallTool(_)) {
                    entry.rows_returned = rows;
                }
                AuditStatus::Success
            }
            (Outcome::ToolError, _) => AuditStatus::ToolError,
            (Outcome::ProtocolError(code), _) => {
                entry.error_code = Some(code);
                AuditStatus::Error
            }
            (Outcome::Unseen, End::UpstreamGone) => AuditStatus::Error,
            (Outcome::Unseen, End::ClientGone) if self.operation != Operation::Listen => {
                AuditStatus::Aborted
            }
            // A listening client leaves when it has heard enough.
            (Outcome::Unseen, _) if succeeded => AuditStatus::Success,
            (Outcome::Unseen, _) => AuditStatus::Error,
        };
        entry.status = status.name();
    }
}

fn refusal(sender: &Sender) -> String {
    String::from_utf8_lossy(&Denial::UpstreamUnreadable.body(sender)).into_owned()
}
