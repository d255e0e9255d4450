//! Awaits the rest of the response: every message is filtered, outcomes are noted.
//!
//! Owns what happens to a response, chunk by chunk, and what happens when it cannot be read. All of it
//! passes through one filter, whatever stream a message comes on and whoever asked for it: a stream may
//! carry answers to requests that are unknown here. While something that it opened is being bound, its bytes wait.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::audit::{AuditEvent, Entry};
use crate::denial::{AuditStatus, Denial, Requested, UpstreamFault, relayed};
use crate::driver::call::{CallFailure, CallId, Reply};
use crate::driver::event::{Closing, End, Event};
use crate::driver::step::{Effect, Gate, ResponseGate};
use crate::exchange::actions::bind::{Claim, Claimed, end};
use crate::exchange::actions::forwarded::{Forwarded, ResponseStart};
use crate::exchange::checks::cors;
use crate::exchange::checks::response_form::{Expected, Shape};
use crate::exchange::handover::Outcome;
use crate::exchange::session::{SessionRef, session_of};
use crate::exchange::turn::Turn;
use crate::mcp::body::{JsonBody, Substitute};
use crate::mcp::filter::{Reader, Seen, Shown, Unreadable};
use crate::mcp::list;
use crate::mcp::outcome::ToolOutcome;
use crate::mcp::sse::{EventFilter, Events};
use crate::mcp::{Era, Listing, Operation, Sender};
use crate::secret::Wiping;
use crate::time::UnixTime;

/// Tasks that one response may open: more would fill what the worker may ask of Redis.
const MAX_TASKS: usize = 64;

/// Under which a message that could not be read is counted.
const UNREADABLE_MESSAGE: (&str, &str) = ("", "message");

/// The response is on its way to the client.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    asked: Box<Forwarded>,
    body_mode: BodyMode,
    outcome: ToolOutcome,
    /// Whether the answer was held back until the end of the response.
    late: bool,
    status: u16,
    head: Headers,
    /// Sessions and tasks that the answer opened, each once.
    opened: Vec<SessionRef>,
    /// How many of them were taken for binding.
    claimed: usize,
    /// Those that are being bound. Nothing goes on meanwhile.
    claims: Vec<Claim>,
    unreadable: BTreeMap<(&'static str, &'static str), u64>,
}

/// Where the response's headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Headers {
    /// They wait, since they carry the id of a session.
    Held,
    /// On their way.
    Gone,
}

/// What is done with the body.
#[derive(Debug)]
enum BodyMode {
    /// There is none.
    Empty,
    Json(Box<JsonBody>),
    Events(Box<EventFilter>),
    /// This takes its place, once.
    Instead(Vec<u8>),
}

/// What is done with a body of that shape; the headers that are about it leave.
fn body_mode(shape: Shape, turn: &mut Turn<'_>) -> BodyMode {
    let mut remove = |names: &[&'static str]| {
        let names = names.iter().map(|name| Effect::RemoveResponseHeader((*name).into()));
        turn.effects.extend(names);
    };
    match shape {
        Shape::Empty => BodyMode::Empty,
        Shape::Json => {
            remove(&["content-length"]);
            BodyMode::Json(Box::default())
        }
        Shape::Events => {
            remove(&["content-length"]);
            BodyMode::Events(Box::default())
        }
        Shape::StatusOnly => {
            remove(&["content-length", "content-type", "content-encoding"]);
            BodyMode::Instead(Vec::new())
        }
        Shape::Error => {
            remove(&["content-length", "content-encoding"]);
            let (name, value) = ("content-type", "application/json".to_owned());
            turn.effects.push(Effect::SetResponseHeader { name, value });
            let denial = Denial::UpstreamAnswer(UpstreamFault::Status);
            BodyMode::Instead(denial.body(
                &turn.context.sender,
                turn.context.era,
                Requested::Unread,
            ))
        }
    }
}

impl ResponseBody {
    /// A response that may pass began.
    pub(crate) fn enter(
        asked: Box<Forwarded>,
        start: ResponseStart,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        let body_mode = body_mode(start.shape, turn);
        let entry = &mut turn.context.entry;
        if start.shape == Shape::Error && !asked.refused && entry.decision.effect == "allow" {
            let denial = Denial::UpstreamAnswer(UpstreamFault::Status);
            entry.failed_upstream(denial.rule());
            entry.error_code = denial.error_code(turn.context.era);
        }
        turn.mark_response();
        if turn.context.origin.is_some() && !asked.response_headers.is_empty() {
            let name = "access-control-expose-headers";
            let value = cors::exposed(&asked.response_headers);
            turn.effects.push(Effect::SetResponseHeader { name, value });
        }
        if start.shape == Shape::Events
            && !asked.refused
            && (200..300).contains(&start.status)
            && turn.worker.config.open_after.is_some()
        {
            let entry = turn.context.entry.opened(turn.now.rfc3339(), start.status);
            turn.context.open_response = turn.worker.open_responses.begin(entry, turn.now);
        }
        if (200..300).contains(&start.status) {
            asked.ends.iter().for_each(|bound| end(bound, &asked.path, &asked.owner, turn));
        }
        let mut response = Self {
            asked,
            body_mode,
            outcome: ToolOutcome::Unseen,
            late: false,
            status: start.status,
            head: Headers::Gone,
            opened: Vec::new(),
            claimed: 0,
            claims: Vec::new(),
            unreadable: BTreeMap::new(),
        };
        let opens = response.asked.operation == Operation::Initialize;
        if opens && !start.session_id.is_empty() {
            let id = String::from_utf8_lossy(&start.session_id).into_owned();
            response.open(SessionRef::Session(id));
            response.head = Headers::Held;
            response.claim(turn);
        }
        let gate = response.gate();
        Outcome::Wait(Box::new(response), Gate::Response(gate))
    }

    /// When it is to be checked again.
    pub(crate) fn recheck_due(&self) -> Option<UnixTime> {
        self.asked.recheck.as_ref()?.due()
    }

    /// Asks whether the caller may still have it.
    pub(crate) fn recheck(&mut self, turn: &mut Turn<'_>) {
        if let Some(recheck) = self.asked.recheck.as_mut().filter(|recheck| recheck.due().is_some())
        {
            recheck.ask(turn);
        }
    }

    /// A call was answered, or failed.
    fn called(
        mut self: Box<Self>,
        id: CallId,
        outcome: Result<Reply, CallFailure>,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        let recheck = self.asked.recheck.as_mut().filter(|recheck| recheck.awaits(id));
        let Some(recheck) = recheck else { return self.settle(id, outcome, turn) };
        match recheck.answered(outcome.ok(), turn) {
            Some(denial) => self.cut(denial, turn),
            None => Outcome::Wait(self, Gate::Hold),
        }
    }

    /// The caller may not listen any more: nothing of the response goes on.
    fn cut(mut self: Box<Self>, denial: Denial, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        let rule = denial.rule();
        turn.context.entry.events.push(AuditEvent::StreamEnded { rule });
        (self.body_mode, self.asked.recheck) = (BodyMode::Instead(Vec::new()), None);
        Outcome::Wait(self, Gate::Response(ResponseGate::Replace(denial)))
    }

    pub(crate) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match event {
            Event::ResponseBody { bytes, last } => {
                // The credential may be in it.
                let _wiping = turn.context.echo.is_some().then(Wiping::begin);
                let chunk = bytes;
                self.body(&chunk, last, turn)
            }
            Event::CallDone { id, reply } => self.called(id, Ok(reply), turn),
            Event::CallFailed { id, why } => self.called(id, Err(why), turn),
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::BodyWithheld
            | Event::ResponseHead(_)
            | Event::Closed(_) => Outcome::Wait(self, Gate::Hold),
        }
    }

    /// A chunk of the body.
    fn body(
        mut self: Box<Self>,
        chunk: &[u8],
        last: bool,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        // What is masked may be held back to the end, too.
        self.late = last && (self.outcome == ToolOutcome::Unseen || turn.context.echo.is_some());
        let mut body_mode = std::mem::replace(&mut self.body_mode, BodyMode::Empty);
        let (era, sender) = (turn.context.era, &turn.context.sender);
        let alone = match (&body_mode, &self.asked.operation) {
            (BodyMode::Json(_), _) | (_, Operation::List(_)) => Alone::Yes,
            _ => Alone::No,
        };
        let mut looking = Looking { answering: &mut self, sender, era, alone };
        let passed = match &mut body_mode {
            BodyMode::Empty => None,
            BodyMode::Json(body) => body.feed(chunk, last, &mut looking),
            BodyMode::Events(events) => {
                let mut out = events.feed(chunk, &mut looking);
                if last {
                    out.extend(events.finish(&mut looking));
                }
                (out != chunk).then_some(out)
            }
            BodyMode::Instead(body) => Some(std::mem::take(body)),
        };
        self.body_mode = body_mode;
        let passed = match self.error_at_end(last, turn) {
            Some(error) => {
                let mut passed = passed.unwrap_or_else(|| chunk.to_vec());
                passed.extend_from_slice(&error);
                Some(passed)
            }
            None => passed,
        };
        let passed = match &mut turn.context.echo {
            None => passed,
            Some(echo) => {
                let masked = echo.feed(passed.as_deref().unwrap_or(chunk), last);
                let connector = self.asked.connector.to_string();
                let event = AuditEvent::CredentialEchoed { connector };
                if masked.found && !turn.context.entry.events.contains(&event) {
                    turn.context.entry.events.push(event);
                }
                Some(masked.bytes)
            }
        };
        if let Some(bytes) = passed.filter(|bytes| bytes != chunk) {
            turn.effects.push(Effect::ReplaceResponseBody(bytes));
        }
        self.asked.watch.settle(turn);
        self.claim(turn);
        self.asked.row_charge.charge(self.outcome, turn);
        let gate = self.gate();
        Outcome::Wait(self, Gate::Response(gate))
    }

    /// Whether the response should have answered its request, and has not.
    fn lacks_answer(&self, turn: &Turn<'_>) -> bool {
        let expected = self.asked.expected(turn) == Expected::Answer && !self.asked.refused;
        let elsewhere = match &self.body_mode {
            BodyMode::Events(events) => {
                let opened =
                    self.asked.operation == Operation::Initialize && !self.opened.is_empty();
                let in_session = self.asked.session.is_some() || opened;
                turn.context.era == Era::Legacy && in_session && events.is_resumable()
            }
            BodyMode::Empty | BodyMode::Json(_) | BodyMode::Instead(_) => false,
        };
        let succeeded = (200..300).contains(&self.status);
        self.outcome == ToolOutcome::Unseen && succeeded && expected && !elsewhere
    }

    /// The error for a client that would wait for an answer after the end of the response.
    fn error_at_end(&mut self, last: bool, turn: &mut Turn<'_>) -> Option<Vec<u8>> {
        let before = match &self.body_mode {
            // A stream may end within an event.
            BodyMode::Events(_) => "\n\ndata: ",
            BodyMode::Json(body) if body.is_empty() => "",
            BodyMode::Empty | BodyMode::Json(_) | BodyMode::Instead(_) => return None,
        };
        if !last || !self.lacks_answer(turn) {
            return None;
        }
        // It may be read on another stream all the same.
        self.asked.row_charge.charge_unseen(turn);
        let denial = Denial::UpstreamAnswer(UpstreamFault::NoAnswer);
        let (sender, era) = (&turn.context.sender, turn.context.era);
        self.outcome = ToolOutcome::ProtocolError(denial.code(era));
        turn.context.entry.failed_upstream(denial.rule());
        let mut error = before.as_bytes().to_vec();
        error.extend(denial.body(sender, era, Requested::Unread));
        let after = if before.is_empty() { "" } else { "\n\n" };
        error.extend_from_slice(after.as_bytes());
        Some(error)
    }

    fn gate(&self) -> ResponseGate {
        match (self.claims.is_empty(), &self.body_mode) {
            (false, _) => ResponseGate::Pause,
            (true, BodyMode::Empty) => ResponseGate::Pass,
            (true, BodyMode::Json(_) | BodyMode::Events(_) | BodyMode::Instead(_)) => {
                ResponseGate::Observe
            }
        }
    }

    /// Something that the answer opened is to be bound.
    fn open(&mut self, bound: SessionRef) {
        if !self.opened.contains(&bound) && self.opened.len() <= MAX_TASKS {
            self.opened.push(bound);
        }
    }

    /// Binds what the answer opened since. The bytes that tell of it wait.
    fn claim(&mut self, turn: &mut Turn<'_>) {
        let asked = &self.asked;
        let claimed = self.claimed.min(self.opened.len());
        let fresh: Vec<_> = self.opened.iter().cloned().enumerate().skip(claimed).collect();
        self.claimed = self.opened.len();
        for (nth, bound) in fresh {
            if nth >= MAX_TASKS && matches!(bound, SessionRef::Task(_)) {
                turn.not_bound(&asked.connector, &bound, "too_many".to_owned());
                continue;
            }
            // Where the id is used: a client of HTTP+SSE posts elsewhere than it listens.
            let path = match (&asked.operation, &asked.messages) {
                (Operation::Listen, Some(messages)) => messages,
                _ => &asked.path,
            };
            self.claims.push(Claim::start(bound, path, &asked.owner, turn));
        }
    }

    /// A claim was answered.
    fn settle(
        mut self: Box<Self>,
        id: CallId,
        outcome: Result<Reply, CallFailure>,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        let Some(at) = self.claims.iter().position(|claim| claim.awaits(id)) else {
            return Outcome::Wait(self, Gate::Hold);
        };
        let claim = self.claims.swap_remove(at);
        let denial = match claim.settle(outcome, &self.asked.owner, turn) {
            Claimed::Open(claim) => {
                self.claims.push(claim);
                None
            }
            Claimed::Bound => None,
            Claimed::Foreign(bound) => {
                turn.not_bound(&self.asked.connector, &bound, "foreign".to_owned());
                Some(Denial::UpstreamAnswer(UpstreamFault::SessionTaken))
            }
            Claimed::Failed(bound, why) => {
                turn.not_bound(&self.asked.connector, &bound, why.to_string());
                Some(Denial::NoSession(why))
            }
        };
        match (denial, self.head) {
            // No caller learns the id of a session that is not theirs.
            (Some(denial), Headers::Held) => Outcome::End(turn.replace(denial)),
            // What was sent of it goes on: the caller cannot use it.
            (Some(_) | None, _) => {
                let gate = self.gate();
                if matches!(gate, ResponseGate::Pass | ResponseGate::Observe) {
                    self.head = Headers::Gone;
                }
                Outcome::Wait(self, Gate::Response(gate))
            }
        }
    }

    /// The audit entry's last fields.
    pub(crate) fn close(mut self, closing: &Closing, turn: &mut Turn<'_>) {
        if self.asked.refused {
            return;
        }
        if self.head == Headers::Held {
            turn.context.entry.status = unanswered(closing).name();
            return;
        }
        if self.outcome == ToolOutcome::Unseen && (200..300).contains(&self.status) {
            // The rest of it may be read on another stream.
            self.asked.row_charge.charge_unseen(turn);
        }
        let connector = self.asked.connector.to_string();
        for ((list, reason), items) in &self.unreadable {
            let (connector, list, reason) = (connector.clone(), *list, *reason);
            let event = match list {
                "" => AuditEvent::UnreadableMessage { connector },
                list => AuditEvent::UnreadableItems { connector, list, reason, items: *items },
            };
            turn.context.entry.events.push(event);
        }
        let lacks_answer = self.lacks_answer(turn);
        self.note_outcome(closing, lacks_answer, &mut turn.context.entry);
    }

    fn note_outcome(&self, closing: &Closing, lacks_answer: bool, entry: &mut Entry) {
        let succeeded = (200..400).contains(&self.status);
        let cut = |event: &AuditEvent| matches!(event, AuditEvent::StreamEnded { .. });
        let status = match (self.outcome, closing.end) {
            // What still waits for a binding did not go on.
            (_, End::UpstreamGone) if !self.claims.is_empty() => AuditStatus::Error,
            (_, End::ClientGone | End::Complete) if !self.claims.is_empty() => AuditStatus::Aborted,
            // Trailers ended the response: the client got a reset instead of the answer.
            (
                ToolOutcome::Result { .. } | ToolOutcome::Task | ToolOutcome::ToolError,
                End::UpstreamGone,
            ) if self.late => {
                entry.failed_upstream(Denial::UpstreamAnswer(UpstreamFault::NoAnswer).rule());
                AuditStatus::Error
            }
            (ToolOutcome::Result { rows }, _) => {
                // Only a tool returns rows; a list of tools is not one of them.
                if matches!(self.asked.operation, Operation::CallTool(_)) {
                    entry.rows_returned = rows;
                }
                AuditStatus::Success
            }
            (ToolOutcome::Task, _) => AuditStatus::Success,
            (ToolOutcome::ToolError, _) => AuditStatus::ToolError,
            (ToolOutcome::ProtocolError(code), _) => {
                entry.error_code = Some(code);
                if self.unreadable.contains_key(&UNREADABLE_MESSAGE) {
                    entry.failed_upstream(Denial::UpstreamAnswer(UpstreamFault::Unreadable).rule());
                }
                AuditStatus::Error
            }
            (ToolOutcome::Unseen, End::UpstreamGone) => AuditStatus::Error,
            (ToolOutcome::Unseen, End::ClientGone) if self.asked.operation != Operation::Listen => {
                AuditStatus::Aborted
            }
            (ToolOutcome::Unseen, _) if entry.events.iter().any(cut) => AuditStatus::Aborted,
            (ToolOutcome::Unseen, _) if lacks_answer => {
                entry.failed_upstream(Denial::UpstreamAnswer(UpstreamFault::NoAnswer).rule());
                AuditStatus::Error
            }
            // A listening client leaves when it has heard enough.
            (ToolOutcome::Unseen, _) if succeeded => AuditStatus::Success,
            (ToolOutcome::Unseen, _) => AuditStatus::Error,
        };
        entry.status = status.name();
    }
}

/// Looks at what passes, for one chunk.
struct Looking<'a> {
    answering: &'a mut ResponseBody,
    sender: &'a Sender,
    era: Era,
    alone: Alone,
}

/// Whether the response carries the answer to its request, and nothing that the client could mistake it for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alone {
    Yes,
    No,
}

impl Looking<'_> {
    fn asked_with(&self, id: Option<&Value>) -> bool {
        matches!((self.sender, id), (Sender::Request(asked), Some(id)) if same(asked, id))
    }

    fn is_answered(&self) -> bool {
        self.answering.outcome != ToolOutcome::Unseen
    }

    fn count(&mut self, list: &'static str, reason: &'static str) {
        let count = self.answering.unreadable.entry((list, reason)).or_default();
        *count = count.saturating_add(1);
    }
}

impl Reader for Looking<'_> {
    fn item(&mut self, listing: Listing, item: &[u8]) -> Shown {
        let asked = &self.answering.asked;
        let value = list::item(item);
        match value.as_ref().and_then(|item| Some((asked.view.sees(listing, item)?, item))) {
            Some((true, item)) if asked.watch.passes(listing, item) => Shown::Yes,
            Some(_) => Shown::No,
            None => {
                self.unreadable(listing, Unreadable::Item);
                Shown::No
            }
        }
    }

    fn unreadable(&mut self, listing: Listing, why: Unreadable) {
        self.count(listing.member(), why.name());
    }

    /// Of several answers to one request the first one counts: clients take it, and its rows are charged when it passes.
    fn message(&mut self, seen: Seen) {
        let answers = !self.is_answered() && self.asked_with(seen.id.as_ref());
        if let (true, Some(outcome)) = (answers, seen.outcome) {
            self.answering.outcome = outcome;
        }
        if let Some(task) = seen.task {
            self.answering.open(SessionRef::Task(task));
        }
    }
}

impl Substitute for Looking<'_> {
    /// With the id of the message, if it had one; else of the request, if the message was its answer
    /// as far as is known.
    fn refused(&mut self, id: Option<&Value>) -> String {
        self.count(UNREADABLE_MESSAGE.0, UNREADABLE_MESSAGE.1);
        let denial = Denial::UpstreamAnswer(UpstreamFault::Unreadable);
        let sender = match (id, self.alone) {
            (Some(id), _) => Sender::Request(id.clone()),
            (None, Alone::Yes) => self.sender.clone(),
            (None, Alone::No) => Sender::NoReplyExpected,
        };
        // What replaces a whole response replaces its answer, too.
        let answers = self.alone == Alone::Yes || !self.is_answered();
        if answers && sender == *self.sender && matches!(sender, Sender::Request(_)) {
            self.answering.outcome = ToolOutcome::ProtocolError(denial.code(self.era));
        }
        String::from_utf8_lossy(&denial.body(&sender, self.era, Requested::Unread)).into_owned()
    }
}

impl Events for Looking<'_> {
    fn stands_for(&mut self, data: &[u8]) -> Option<String> {
        let asked = &self.answering.asked;
        let streams = asked.messages.is_some() && asked.operation == Operation::Listen;
        let message: Value = serde_json::from_slice(data).ok().filter(|_| streams)?;
        relayed(&message).map(|told| told.to_string())
    }

    /// The gateway's path, with the server's query. The session in it is the caller's from now on.
    fn endpoint(&mut self, data: &str) -> Option<String> {
        let asked = &self.answering.asked;
        let messages = asked.messages.as_ref().filter(|_| asked.operation == Operation::Listen)?;
        // One line of letters that a URI may have: what is more would be an event of its own.
        if !data.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
            return None;
        }
        let (_, query) = data.split_once('?')?;
        let told = format!("{messages}?{query}");
        let session = session_of(query.as_bytes()).ok()??;
        self.answering.open(SessionRef::Session(session));
        Some(told)
    }
}

/// Whether clients take both as one id: a server that keeps numbers as doubles may write `1.0` for `1`.
fn same(asked: &Value, id: &Value) -> bool {
    asked == id
        || matches!((asked, id), (Value::Number(asked), Value::Number(id)) if asked.as_f64() == id.as_f64())
}

/// The status when no headers went to the client: [`End::Complete`] is then an end without a reason, which is a client's.
fn unanswered(closing: &Closing) -> AuditStatus {
    match closing.end {
        End::ClientGone | End::Complete => AuditStatus::Aborted,
        End::UpstreamGone => AuditStatus::Error,
    }
}
