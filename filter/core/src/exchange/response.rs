//! From the upstream's response to its end: lists are filtered, outcomes noted.
//!
//! Owns what of a response has to be read, and what happens when it cannot be. Streams pass event
//! by event; only a list that comes as one JSON body is held.

use serde_json::Value;

use super::binding::{Bound, Claiming, Holder, session_of};
use super::charge::Tab;
use super::reviewed::Watch;
use super::verdict::Grant;
use super::{Next, Stage, Turn};
use crate::audit::Entry;
use crate::authz::View;
use crate::denial::{AuditStatus, Denial, Requested, relayed};
use crate::event::{Closing, End, Event, Origin, ResponseHead};
use crate::json;
use crate::mcp::list;
use crate::mcp::outcome::{self, Outcome};
use crate::mcp::skim;
use crate::mcp::sse::Rewriter;
use crate::mcp::{Era, Operation, Sender};
use crate::step::{Effect, Gate};
use crate::vault::SecretRef;

/// A JSON answer beyond this is not looked into for its outcome; it passes all the same.
const MAX_OBSERVED_BYTES: usize = 262_144;

/// Waits for the response headers.
#[derive(Debug)]
pub(super) struct Upstream {
    asked: Asked,
}

/// What was asked for, by whom, and what of the answer they may see.
#[derive(Debug)]
struct Asked {
    operation: Operation,
    view: View,
    watch: Watch,
    holder: Holder,
    /// The sessions that end if the server agrees.
    ends: Vec<Bound>,
    /// Where a client of HTTP+SSE posts to.
    messages: Option<String>,
    /// The request was refused, and something else went up in its place: its entry is settled.
    refused: bool,
    /// The credential that the upstream was given.
    secret: Option<SecretRef>,
    tab: Tab,
}

/// The response is on its way to the client.
#[derive(Debug)]
pub(super) struct Answering {
    asked: Asked,
    plan: Plan,
    outcome: Outcome,
    status: u16,
    /// Sessions and tasks that the answer opened, yet to be bound.
    opened: Vec<Bound>,
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
        let connector = grant.policy.connectors.get(&grant.connector);
        let principal = &grant.principal;
        let asked = Asked {
            operation,
            view: View::new(&grant.policy, &grant.principal, &grant.connector),
            watch: Watch::new(&grant.policy, &principal.org, &grant.connector),
            holder: Holder::of(grant),
            ends: Vec::new(),
            messages: connector.and_then(|connector| connector.messages.clone()),
            refused: grant.relayed.is_some(),
            secret: grant.credential.as_ref().map(|template| template.secret().clone()),
            tab: Tab::of(grant),
        };
        Self { asked }
    }

    /// The same, of a request that refers to these; one that ends a session ends them.
    pub(super) fn ending(mut self, bound: Vec<Bound>) -> Self {
        if self.asked.operation == Operation::EndSession {
            self.asked.ends = bound;
        }
        self
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.asked.holder
    }

    pub(super) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::ResponseHead(ResponseHead { origin: Origin::Proxy, .. }) => {
                replace(Denial::UpstreamUnavailable, turn)
            }
            Event::ResponseHead(ResponseHead { status: 401, .. })
                if self.asked.secret.is_some() =>
            {
                // It may have been rotated: the next call reads it anew.
                if let Some(secret) = &self.asked.secret {
                    turn.worker.forget_lease(secret);
                }
                replace(Denial::UpstreamRefused, turn)
            }
            Event::ResponseHead(head) => {
                turn.mark_response();
                if (200..300).contains(&head.status) {
                    self.asked.ends.iter().for_each(|bound| bound.end(&self.asked.holder, turn));
                }
                let opens = self.asked.operation == Operation::Initialize;
                if opens && !head.session_id.is_empty() {
                    return Claiming::start(self, head, turn);
                }
                self.answer(&head, turn)
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

    /// Chooses what of the body is read.
    pub(super) fn answer(self, head: &ResponseHead, turn: &mut Turn<'_>) -> Next {
        let Self { asked } = self;
        let coded = !matches!(head.content_encoding.as_slice(), b"" | b"identity");
        if asked.may_list() && coded && !head.last {
            return replace(Denial::UpstreamUnreadable, turn);
        }
        let (plan, gate) = asked.plan(head, coded);
        if matches!(plan, Plan::List | Plan::Events(_)) {
            for name in ["content-length", "etag", "content-md5"] {
                turn.effects.push(Effect::RemoveResponseHeader(name));
            }
        }
        let (outcome, status) = (Outcome::Unseen, head.status);
        (
            Stage::Answering(Box::new(Answering {
                asked,
                plan,
                outcome,
                status,
                opened: Vec::new(),
            })),
            gate,
        )
    }
}

impl Asked {
    /// Whether lists may come in the answer: of a stream, nobody remembers what was asked for.
    fn may_list(&self) -> bool {
        matches!(self.operation, Operation::List(_) | Operation::Listen)
    }

    fn plan(&self, head: &ResponseHead, coded: bool) -> (Plan, Gate) {
        let calls = matches!(self.operation, Operation::CallTool(_));
        // To a message, 202 only says that an answer comes elsewhere.
        let elsewhere = head.status == 202 && self.operation != Operation::Listen;
        let unseen = elsewhere || self.operation == Operation::Initialize;
        if head.last || coded || unseen {
            (Plan::Unseen, Gate::Pass)
        } else if is_media(&head.content_type, b"text/event-stream") {
            (Plan::Events(Rewriter::default()), Gate::Watch)
        } else if matches!(self.operation, Operation::List(_)) {
            (Plan::List, Gate::Hold)
        } else if calls && is_media(&head.content_type, b"application/json") {
            (Plan::Observe(Some(Vec::new())), Gate::Watch)
        } else {
            (Plan::Unseen, Gate::Pass)
        }
    }

    /// Cuts the lists in a message; whether there was something to cut.
    fn filter(&self, message: &mut Value) -> Result<bool, list::UnreadableList> {
        list::filter(message, &|listing, item| {
            let seen = self.view.sees(listing, item)?;
            Some(seen && self.watch.passes(listing, item))
        })
    }
}

fn is_media(content_type: &[u8], media: &[u8]) -> bool {
    let end = content_type.iter().position(|b| *b == b';').unwrap_or(content_type.len());
    content_type.get(..end).is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(media))
}

/// The response must not pass: a refusal takes its place.
pub(super) fn replace(denial: Denial, turn: &mut Turn<'_>) -> Next {
    turn.note(&denial);
    (Stage::Ended, Gate::Replace(denial))
}

impl Answering {
    /// The same; nothing more of it goes on.
    pub(super) fn swallowing(self) -> Self {
        Self { plan: Plan::Swallow, ..self }
    }

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
            | Event::ResponseHead(_)
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
        let filtered = self.asked.filter(&mut message);
        self.asked.watch.settle(turn);
        match filtered {
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
            && let Some(message) = skim::message(body)
        {
            self.look_at(&message, turn);
            self.bind(turn);
            self.asked.tab.charge(self.outcome, turn);
        }
        (Stage::Answering(self), Gate::Watch)
    }

    /// A chunk of an event stream.
    fn events(mut self: Box<Self>, chunk: &[u8], last: bool, turn: &mut Turn<'_>) -> Next {
        let plan = std::mem::replace(&mut self.plan, Plan::Swallow);
        let sender = turn.context.sender.clone();
        let (bytes, plan) = match plan {
            Plan::Events(mut rewriter) => {
                let mut rewrite = |name: &str, data: &str| self.event(name, data, &sender);
                match rewriter.feed(chunk, &mut rewrite) {
                    Ok(mut out) => {
                        if last {
                            out.extend(rewriter.finish(&mut rewrite));
                        }
                        (out, Plan::Events(rewriter))
                    }
                    Err(_) => {
                        turn.note(&Denial::UpstreamUnreadable);
                        self.outcome = Outcome::ProtocolError(
                            Denial::UpstreamUnreadable.code(turn.context.era),
                        );
                        (format!("data: {}\n\n", refusal(&sender)).into_bytes(), Plan::Swallow)
                    }
                }
            }
            plan => (Vec::new(), plan),
        };
        self.plan = plan;
        self.asked.watch.settle(turn);
        self.bind(turn);
        self.asked.tab.charge(self.outcome, turn);
        if bytes != chunk {
            turn.effects.push(Effect::ReplaceResponseBody(bytes));
        }
        (Stage::Answering(self), Gate::Watch)
    }

    /// One event's data: what takes its place, if anything does.
    fn event(&mut self, name: &str, data: &str, sender: &Sender) -> Option<String> {
        let lists = self.asked.may_list();
        if data.is_empty() {
            return None;
        }
        if name == "endpoint" && self.asked.operation == Operation::Listen {
            return Some(self.endpoint(data).unwrap_or_else(|| refusal(sender)));
        }
        match json::parse_strict(data.as_bytes()) {
            Ok(mut message) => {
                if let Some(told) = self.refused_elsewhere(&message) {
                    return Some(told);
                }
                self.see(&message, sender);
                if !lists {
                    return None;
                }
                match self.asked.filter(&mut message) {
                    Ok(changed) => changed.then(|| message.to_string()),
                    Err(_) => Some(refusal(sender)),
                }
            }
            Err(_) => lists.then(|| refusal(sender)),
        }
    }

    /// What takes the place of an answer to a message that stood for a refused one (HTTP+SSE).
    fn refused_elsewhere(&self, message: &Value) -> Option<String> {
        let streams = self.asked.messages.is_some() && self.asked.operation == Operation::Listen;
        streams.then(|| relayed(message))?.map(|told| told.to_string())
    }

    /// Where a client of HTTP+SSE is to post to: the gateway's path, with the server's query. The
    /// session in it is the caller's from now on.
    fn endpoint(&mut self, data: &str) -> Option<String> {
        let messages = self.asked.messages.as_ref()?;
        let (_, query) = data.split_once('?')?;
        self.opened.push(Bound::Session(session_of(query.as_bytes()).ok()??));
        Some(format!("{messages}?{query}"))
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
        self.opened.extend(outcome::task(message).map(|id| Bound::Task(id.to_owned())));
    }

    /// Binds what the answer opened. The bytes that tell of it are still here, and whoever reads
    /// them has to come back through an admission, which follows this on its way to Redis.
    fn bind(&mut self, turn: &mut Turn<'_>) {
        for bound in std::mem::take(&mut self.opened) {
            bound.claim(&self.asked.holder, turn);
        }
    }

    /// The audit entry's last fields.
    pub(super) fn close(&self, entry: &mut Entry, closing: &Closing) {
        if self.asked.refused {
            return;
        }
        let succeeded = (200..400).contains(&self.status);
        let status = match (self.outcome, closing.end) {
            (Outcome::Result { rows }, _) => {
                // Only a tool returns rows; a list of tools is not one of them.
                if matches!(self.asked.operation, Operation::CallTool(_)) {
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
            (Outcome::Unseen, End::ClientGone) if self.asked.operation != Operation::Listen => {
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
    String::from_utf8_lossy(&Denial::UpstreamUnreadable.body(
        sender,
        Era::default(),
        Requested::Unread,
    ))
    .into_owned()
}
