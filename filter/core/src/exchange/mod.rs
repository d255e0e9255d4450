//! One MCP exchange over HTTP, from the request's headers to its audit entry.
//!
//! Owns the order in which things are decided. Each stage is a type that holds exactly what is
//! known by then; an event moves the exchange to its next stage or leaves it where it is.
//!
//! ```text
//! Head ─ headers ─▶ (Proving ─▶) Reading (⇄ Authenticating) ─ body ─▶ Admitting ⇄ Loading ─▶ (Approving ─▶) Crediting ─▶ Upstream ─▶ Answering
//!   └──────────────────────┴────────────┴──────────────────────┴──────────────────┴── refusal ──┴──────────────┴─▶ Ended ─▶ Closed
//! ```

mod admission;
mod approving;
mod authenticating;
mod backing_off;
mod basis;
mod binding;
mod caller;
mod charge;
mod credit;
mod degraded;
mod history;
mod intake;
mod media;
mod origin;
mod proving;
mod recheck;
mod resource;
mod response;
mod reviewed;
mod shape;
mod verdict;

use portcullis_redis_lua::WindowState;

use crate::audit::{AuditEvent, Entry};
use crate::auth::slowdown::{self, Proof, Trial};
use crate::call::{Call, CallFailure, CallId};
use crate::config::Mode;
use crate::denial::{AuditStatus, Denial, HostFault, Requested, UpstreamFault};
use crate::event::{Closing, End, Event, Origin};
use crate::id::RequestId;
use crate::limit::Quota;
use crate::limit::fields::Told;
use crate::local_reply::LocalReply;
use crate::mcp::{Era, Sender};
use crate::step::{Effect, Gate, Step};
use crate::streams::Slot;
use crate::time::UnixTime;
use crate::unproven::Share;
use crate::worker::Worker;

use admission::{Admitting, Loading};
use approving::Approving;
use authenticating::Authenticating;
use credit::Crediting;
use intake::Reading;
use proving::Proving;
use recheck::{Checked, Recheck};
use resource::Hint;
use response::{Answering, Upstream};

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    context: Context,
}

/// What the exchange waits for, and what is known by then.
#[derive(Debug)]
enum Stage {
    /// The request's headers.
    Head,
    /// The request's body.
    Reading(Box<Reading>),
    /// Redis's word on the key of a request with a large body.
    Authenticating(Box<Authenticating>),
    /// The keys that could prove the request's token.
    Proving(Box<Proving>),
    /// Redis's word on the verdict.
    Admitting(Box<Admitting>),
    /// A policy that this worker has not seen.
    Loading(Box<Loading>),
    /// Redis's word on a call that a person has to agree to.
    Approving(Box<Approving>),
    /// The connector's credential.
    Crediting(Box<Crediting>),
    /// The upstream's response headers.
    Upstream(Box<Upstream>),
    /// The rest of the upstream's response.
    Answering(Box<Answering>),
    /// The gateway or the proxy answered; only the end is awaited.
    Ended,
    /// Nothing: the audit entry is written, or none is due.
    Closed,
}

type Next = (Stage, Gate);

/// What every stage adds to: the audit entry, and how to address the client.
#[derive(Debug)]
struct Context {
    entry: Entry,
    /// When the request is held. It stays so when the configuration changes meanwhile: the driver relies on it, too.
    mode: Mode,
    /// What the credential is remembered by, when there is one.
    proof: Option<Proof>,
    /// What its trial was paid with, until that is settled.
    trial: Trial,
    /// The stream that this exchange is counted as.
    slot: Option<Slot>,
    /// What its response rests on, as long as it is open.
    recheck: Option<Box<Recheck>>,
    next_call: CallId,
    sender: Sender,
    era: Era,
    answers: Answers,
    /// The page that asked, when it may.
    origin: Option<String>,
    /// Where a client that has no token learns how to get one.
    hint: Option<Hint>,
    sent: Sent,
    /// What a refused client reads.
    form: Form,
    /// Whether the caller is who it says.
    identity: CallerIdentity,
    /// What it is told of its windows, once Redis has spoken.
    told: Told,
    /// What is held of a body whose sender has proved nothing.
    share: Share,
    /// What is held of any other one.
    kept: usize,
}

/// In which form a refusal for a limit is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As a JSON-RPC error.
    JsonRpc,
    /// As problem details (RFC 9457), which the client asked for by name.
    Problem,
    /// As a message of status 200, where the caller is proven and the era is the legacy one.
    Message,
}

/// Whether the caller is who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallerIdentity {
    /// Nobody said so yet.
    Claimed,
    /// Redis confirmed in this request what vouches for it, or something else may stand for that.
    Confirmed,
}

/// Where the client looks for the answer to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// In the response to the request.
    Here,
    /// On another stream (HTTP+SSE): of this response it takes the status alone.
    Elsewhere,
}

/// What of the request went upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// The headers (`split` mode); the body is not judged yet, and has to stay as long as they say.
    Headers,
    /// The same, without a length: the body may become another one.
    HeadersWithoutLength,
}

/// One turn of the machine: the memory it may use, the time, and what it wants done.
struct Turn<'a> {
    worker: &'a mut Worker,
    now: UnixTime,
    context: &'a mut Context,
    effects: Vec<Effect>,
}

impl Default for Exchange {
    fn default() -> Self {
        let context = Context {
            entry: Entry::default(),
            mode: Mode::default(),
            proof: None,
            trial: Trial::Free,
            slot: None,
            recheck: None,
            next_call: CallId::FIRST,
            sender: Sender::Unknown,
            era: Era::Legacy,
            answers: Answers::Here,
            origin: None,
            hint: None,
            sent: Sent::Nothing,
            form: Form::JsonRpc,
            identity: CallerIdentity::Claimed,
            told: Told::default(),
            share: Share::default(),
            kept: 0,
        };
        Self { stage: Stage::Head, context }
    }
}

impl Exchange {
    /// Takes one event; says what to do.
    ///
    /// Late, duplicate and unknown call ids change nothing. After [`Event::Closed`] nothing does.
    pub fn step(&mut self, worker: &mut Worker, now: UnixTime, event: Event) -> Step {
        // Should a transition ever be cut short, what stands here lets nothing pass.
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        let (stage, gate) = match event {
            Event::Closed(closing) => turn.close(stage, &closing),
            event => match recheck::settle(stage, event, &mut turn) {
                Checked::Taken(stage, gate) => (stage, gate),
                Checked::Other(stage, event) => stage.on(event, &mut turn),
            },
        };
        let effects = turn.effects;
        self.stage = stage;
        self.give_back(worker);
        Step { effects, gate }
    }

    /// When an open response is to be checked again.
    #[must_use]
    pub fn recheck_due(&self) -> Option<UnixTime> {
        match &self.stage {
            Stage::Answering(_) => self.context.recheck.as_ref()?.due(),
            _ => None,
        }
    }

    /// Checks whether the caller may still have an open response; [`Gate::Replace`] comes of it later if not, and
    /// then the response has to end.
    pub fn recheck(&mut self, worker: &mut Worker, now: UnixTime) -> Step {
        let recheck = self.context.recheck.take_if(|recheck| recheck.due().is_some());
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        if let Some(mut recheck) = recheck {
            recheck.ask(&mut turn);
            turn.context.recheck = Some(recheck);
        }
        Step { effects: turn.effects, gate: Gate::Hold }
    }

    /// Of the request's body there are `bytes` now, and more follow. Until its sender is proven, a worker holds only so much.
    pub fn receive(&mut self, worker: &mut Worker, now: UnixTime, bytes: usize) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        let (stage, gate) = intake::receive(stage, bytes, &mut turn);
        let effects = turn.effects;
        self.stage = stage;
        self.give_back(worker);
        Step { effects, gate }
    }

    /// Whether the headers are held until there is a body.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        match &self.stage {
            Stage::Reading(reading) => reading.holds_headers(),
            Stage::Head
            | Stage::Proving(_)
            | Stage::Authenticating(_)
            | Stage::Admitting(_)
            | Stage::Loading(_)
            | Stage::Approving(_)
            | Stage::Crediting(_)
            | Stage::Upstream(_)
            | Stage::Answering(_)
            | Stage::Ended
            | Stage::Closed => false,
        }
    }

    /// A body that is judged, or gone, is held for nobody.
    fn give_back(&mut self, worker: &mut Worker) {
        match &self.stage {
            Stage::Reading(reading) if reading.is_admitted() => {
                worker.unproven.release(&mut self.context.share);
            }
            Stage::Head
            | Stage::Reading(_)
            | Stage::Authenticating(_)
            | Stage::Proving(_)
            | Stage::Admitting(_)
            | Stage::Loading(_) => {}
            Stage::Approving(_)
            | Stage::Crediting(_)
            | Stage::Upstream(_)
            | Stage::Answering(_)
            | Stage::Ended
            | Stage::Closed => {
                worker.unproven.release(&mut self.context.share);
                let kept = std::mem::take(&mut self.context.kept);
                worker.kept_bytes = worker.kept_bytes.saturating_sub(kept);
            }
        }
    }

    /// The response that a refusal of this exchange is sent as.
    #[must_use]
    pub fn reply(&self, denial: &Denial) -> LocalReply {
        // An exchange that never saw headers has no id to show.
        let request_id = RequestId::new(&self.context.entry.request_id);
        let request_id = request_id.as_ref().map_or("none", RequestId::as_str);
        let Context { entry, sender, era, .. } = &self.context;
        let mut reply = denial.reply(sender, *era, requested(entry), request_id);
        if let (Denial::Limited { limit, retry_after, .. }, Form::Problem) =
            (denial, self.context.form)
        {
            self.context.told.problem(limit, *retry_after, &mut reply);
        }
        reply.headers.extend(self.context.told.headers.iter().cloned());
        if self.context.is_told_in_message(denial) {
            denial.tell_in_message(sender, requested(entry), &mut reply);
        }
        // A 200 would be news to nobody: the client would wait for an answer that never comes.
        if self.context.answers == Answers::Elsewhere && reply.status == 200 {
            reply.status = 400;
        }
        if let Some(hint) = &self.context.hint {
            hint.complete(denial, &mut reply);
        }
        reply.headers.extend(self.context.origin.iter().flat_map(|origin| origin::headers(origin)));
        reply
    }
}

impl Context {
    fn is_told_in_message(&self, denial: &Denial) -> bool {
        let proven = self.identity == CallerIdentity::Confirmed && self.entry.principal.is_some();
        let asked = self.form == Form::Message && self.answers == Answers::Here;
        asked && proven && self.era == Era::Legacy && denial.fits_in_message()
    }
}

impl Stage {
    fn on(self, event: Event, turn: &mut Turn<'_>) -> Next {
        match self {
            Self::Head => intake::on_head(event, turn),
            Self::Reading(stage) => stage.on(event, turn),
            Self::Authenticating(stage) => stage.on(event, turn),
            Self::Proving(stage) => stage.on(event, turn),
            Self::Admitting(stage) => stage.on(event, turn),
            Self::Loading(stage) => stage.on(event, turn),
            Self::Approving(stage) => stage.on(event, turn),
            Self::Crediting(stage) => stage.on(event, turn),
            Self::Upstream(stage) => stage.on(event, turn),
            Self::Answering(stage) => stage.on(event, turn),
            // The refusal itself comes by as a response on its way to the client.
            Self::Ended => (Self::Ended, on_ended(&event)),
            Self::Closed => (Self::Closed, on_ended(&event)),
        }
    }
}

/// What a message to the client calls the request.
fn requested(entry: &Entry) -> Requested<'_> {
    match (entry.tool_name.as_deref(), entry.mcp_method.as_deref()) {
        (Some(tool), _) => Requested::Tool(tool),
        (None, Some(method)) => Requested::Method(method),
        (None, None) => Requested::Unread,
    }
}

/// A response passes; a request, of which more may come in, does not.
fn on_ended(event: &Event) -> Gate {
    match event {
        Event::ResponseHead(_) | Event::ResponseBody { .. } => Gate::Pass,
        Event::Head { .. }
        | Event::Body(_)
        | Event::BodyTooLarge
        | Event::BodyWithheld
        | Event::CallDone { .. }
        | Event::CallFailed { .. }
        | Event::Closed(_) => Gate::Hold,
    }
}

impl Turn<'_> {
    /// Asks for a call; its outcome comes back under the id.
    fn start(&mut self, call: Call) -> CallId {
        let id = self.context.next_call;
        self.context.next_call = id.next();
        self.effects.push(Effect::Start { id, call });
        id
    }

    /// Ends the request with a refusal.
    fn refuse(&mut self, denial: Denial) -> Next {
        self.note(&denial);
        (Stage::Ended, Gate::Refuse(denial))
    }

    /// Notes what Redis said of the windows: for the client, and what people alert on.
    fn tell(&mut self, quotas: &[Quota], states: &[WindowState]) {
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
        self.context.told = Told::of(quotas, states);
    }

    /// Writes down why.
    fn note(&mut self, denial: &Denial) {
        let era = self.context.era;
        let entry = &mut self.context.entry;
        entry.status = denial.audit_status().name();
        entry.error_code = denial.error_code(era);
        entry.decision.effect = denial.effect();
        entry.decision.rule = denial.rule();
        entry.note_denial(denial);
        self.settle_trial(denial);
    }

    /// A refusal settles what the trial of the credential was paid with: work that was done stays paid.
    fn settle_trial(&mut self, denial: &Denial) {
        let trial = std::mem::take(&mut self.context.trial);
        let address = &self.context.entry.client_address;
        let slowdown = &mut self.worker.slowdown;
        match denial {
            Denial::Unauthenticated(failure) => {
                if let Some(proof) = &self.context.proof {
                    slowdown.failed(address, proof, self.now);
                }
                if slowdown::costs_nothing(*failure) {
                    slowdown.untried(address, trial);
                }
            }
            // Whether the credential holds is open, and the dependency had work with it.
            Denial::Unavailable(
                _,
                CallFailure::TimedOut | CallFailure::Disconnected | CallFailure::Unreadable,
            ) => {}
            _ => slowdown.untried(address, trial),
        }
    }

    /// The credential holds.
    fn proven(&mut self) {
        let trial = std::mem::take(&mut self.context.trial);
        if let Some(proof) = self.context.proof {
            let address = &self.context.entry.client_address;
            self.worker.slowdown.succeeded(address, proof, trial, self.now);
        }
    }

    /// A response arrived although the request did not pass: the proxy itself answers, say because the
    /// body did not come in time, and that goes on. In `split` mode the upstream may be the reason; what it
    /// answers itself before its request is judged does not.
    fn proxy_answers(&mut self, event: &Event, rule: &str) -> Next {
        if let (Event::ResponseHead(head), Sent::Headers | Sent::HeadersWithoutLength) =
            (event, self.context.sent)
        {
            match (head.origin, head.status) {
                (Origin::Upstream, _) => {
                    let denial = Denial::UpstreamAnswer(UpstreamFault::Early);
                    return response::replace(denial, self);
                }
                (Origin::Disconnected, _) => return response::replace(Denial::UpstreamGone, self),
                (Origin::Proxy, 504) => return response::replace(Denial::UpstreamTimedOut, self),
                (Origin::Proxy, 500..) => {
                    return response::replace(Denial::UpstreamUnavailable, self);
                }
                (Origin::Proxy | Origin::Filter, _) => {}
            }
        }
        if let Event::ResponseHead(head) = event
            && (head.origin, head.status) == (Origin::Proxy, 413)
        {
            return response::replace(Denial::Host(HostFault::BufferLimit), self);
        }
        self.passes_by(event, rule)
    }

    /// The same, of an answer that goes on as it is.
    fn passes_by(&mut self, event: &Event, rule: &str) -> Next {
        let entry = &mut self.context.entry;
        entry.status = AuditStatus::Error.name();
        entry.decision.effect = "deny";
        entry.decision.rule = rule.to_owned();
        self.mark_response();
        (Stage::Ended, on_ended(event))
    }

    /// What every response carries: the request's id, which ties it to its audit entry, and leave for
    /// the page to read it. What was refused before it was a request has no id.
    fn mark_response(&mut self) {
        let cors = self.context.origin.iter().flat_map(|origin| origin::headers(origin));
        let cors = cors.map(|(name, value)| Effect::SetResponseHeader { name, value });
        self.effects.extend(cors.collect::<Vec<_>>());
        let told = self.context.told.headers.iter().cloned();
        self.effects.extend(told.map(|(name, value)| Effect::SetResponseHeader { name, value }));
        let value = self.context.entry.request_id.clone();
        if !value.is_empty() {
            let name = "x-portcullis-request-id";
            self.effects.push(Effect::SetResponseHeader { name, value });
        }
    }

    /// Writes the audit entry, once.
    fn close(&mut self, stage: Stage, closing: &Closing) -> Next {
        if let Some(slot) = self.context.slot.take() {
            self.worker.streams.close(slot);
        }
        match stage {
            // Closed before, or no MCP exchange at all: there is nothing to tell.
            Stage::Closed | Stage::Head => return (Stage::Closed, Gate::Hold),
            Stage::Proving(_)
            | Stage::Reading(_)
            | Stage::Authenticating(_)
            | Stage::Admitting(_)
            | Stage::Loading(_)
            | Stage::Approving(_)
            | Stage::Crediting(_) => {
                let entry = &mut self.context.entry;
                entry.status = AuditStatus::Aborted.name();
                entry.decision.effect = "deny";
                "request.aborted".clone_into(&mut entry.decision.rule);
            }
            Stage::Upstream(stage) => {
                self.context.entry.status = stage.close(closing, self).name();
            }
            Stage::Answering(stage) => stage.close(closing, self),
            Stage::Ended => {}
        }
        let entry = &mut self.context.entry;
        entry.note_success();
        if let (Some(connector), Some(attempts @ 2..)) = (&entry.connector, closing.attempts) {
            let connector = connector.clone();
            entry.events.push(AuditEvent::Retried { connector, attempts });
        }
        entry.timestamp = self.now.rfc3339();
        entry.http_status = closing.http_status;
        entry.latency_ms = closing.latency_ms;
        entry.upstream_ms = closing.upstream_ms;
        let line = self.worker.chain.append(entry);
        self.effects.push(Effect::Audit(line));
        let measures = self.worker.labels.measures(entry).into_iter();
        self.effects.extend(measures.map(|(metric, value)| Effect::Measure(metric, value)));
        (Stage::Closed, Gate::Hold)
    }
}

fn unanswered(closing: &Closing) -> AuditStatus {
    match closing.end {
        End::ClientGone => AuditStatus::Aborted,
        End::Complete | End::UpstreamGone => AuditStatus::Error,
    }
}
