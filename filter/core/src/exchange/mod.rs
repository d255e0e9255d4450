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
mod grant;
mod intake;
mod media;
mod origin;
mod proving;
mod recheck;
mod request;
mod resource;
mod response;
mod reviewed;
mod session;
mod shape;
mod turn;
mod verdict;

use crate::audit::Entry;
use crate::auth::slowdown::Trial;
use crate::call::CallId;
use crate::config::Mode;
use crate::denial::{AuditStatus, Denial};
use crate::event::{Closing, End, Event};
use crate::id::RequestId;
use crate::limit::fields::Told;
use crate::local_reply::LocalReply;
use crate::mcp::{Era, Sender};
use crate::step::{Gate, Step};
use crate::time::UnixTime;
use crate::unproven::Share;
use crate::worker::Worker;

use admission::{Admitting, Loading};
use approving::Approving;
use authenticating::Authenticating;
use credit::Crediting;
use grant::requested;
use intake::Reading;
use proving::Proving;
use recheck::Checked;
use response::{Answering, Upstream};
use turn::{Answers, CallerIdentity, Context, Form, Sent, Turn};

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

fn unanswered(closing: &Closing) -> AuditStatus {
    match closing.end {
        End::ClientGone => AuditStatus::Aborted,
        End::Complete | End::UpstreamGone => AuditStatus::Error,
    }
}
