//! One MCP exchange over HTTP, from the request's headers to its audit entry.
//!
//! Owns the order of decisions. Each stage is a type that holds exactly the facts known by then; an event moves the
//! exchange to its next stage or leaves it in the same one.
//!
//! ```text
//! RequestHeaders ─▶ (VerifyToken ─▶) RequestBody (⇄ VerifyKey) ─▶ Admission ⇄ LoadPolicy ─▶ (Approval ─▶) Credential
//!   ─▶ ResponseHeaders ─▶ ResponseBody (or, after 401, ReadAgain);  from any of them ─▶ Ended ─▶ Closed
//! ```
//!
//! Imports run one way: `mod` → `flow` → `stages` → `handover` → `actions` → `turn` → `checks` → `grant` → `request` → `session`.

mod actions;
mod checks;
mod flow;
mod grant;
mod handover;
mod request;
mod session;
mod stages;
mod turn;

use crate::audit::Entry;
use crate::auth::throttle::Attempt;
use crate::config::Mode;
use crate::denial::Denial;
use crate::driver::call::CallId;
use crate::driver::event::Event;
use crate::driver::step::{Gate, Step};
use crate::http::local_reply::LocalReply;
use crate::id::RequestId;
use crate::limit::fields::RateLimitHeaders;
use crate::mcp::{Era, Sender};
use crate::time::UnixTime;
use crate::unproven::HeldBytes;
use crate::worker::Worker;

use checks::cors;
use flow::Stage;
use grant::requested;
use turn::{Answers, CallerIdentity, Context, ErrorFormat, Sent, Turn};

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    context: Context,
}

impl Default for Exchange {
    fn default() -> Self {
        let context = Context {
            entry: Entry::default(),
            arrived: UnixTime::from_micros(0),
            mode: Mode::default(),
            proof: None,
            attempt: Attempt::Free,
            echo: None,
            credential_read: None,
            credential_ahead: None,
            token: None,
            slot: None,
            open_response: None,
            next_call: CallId::FIRST,
            intents: None,
            sender: Sender::Unknown,
            era: Era::Legacy,
            answers: Answers::Here,
            origin: None,
            hint: None,
            sent: Sent::Nothing,
            error_format: ErrorFormat::JsonRpc,
            identity: CallerIdentity::Claimed,
            rate_limit: RateLimitHeaders::default(),
            share: HeldBytes::default(),
            kept: 0,
        };
        Self { stage: Stage::RequestHeaders, context }
    }
}

impl Exchange {
    /// Handles one event; returns what the driver must do.
    ///
    /// Late, duplicate and unknown call ids have no effect. After [`Event::Closed`] no event has.
    pub fn step(&mut self, worker: &mut Worker, now: UnixTime, event: Event) -> Step {
        // If a transition is interrupted, this stage remains, which lets nothing pass.
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        let (stage, gate) = match event {
            Event::Closed(closing) => flow::close(stage, &closing, &mut turn),
            event => stage.on(event, &mut turn),
        };
        let effects = turn.effects;
        self.stage = stage;
        self.stage.give_back(worker, &mut self.context);
        Step { effects, gate }
    }

    /// When an open response must be checked again.
    #[must_use]
    pub fn recheck_due(&self) -> Option<UnixTime> {
        match &self.stage {
            Stage::ResponseBody(stage) => stage.recheck_due(),
            _ => None,
        }
    }

    /// Checks whether the caller may still receive an open response. If not, a later step has
    /// [`crate::driver::step::ResponseGate::Replace`], and the response must end.
    pub fn recheck(&mut self, worker: &mut Worker, now: UnixTime) -> Step {
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        if let Stage::ResponseBody(stage) = &mut self.stage {
            stage.recheck(&mut turn);
        }
        Step { effects: turn.effects, gate: Gate::Hold }
    }

    /// `bytes` of the request's body have arrived, and more follow. Until the sender is verified, a worker holds a
    /// limited amount.
    pub fn receive(&mut self, worker: &mut Worker, now: UnixTime, bytes: usize) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let context = &mut self.context;
        let mut turn = Turn { worker, now, context, effects: Vec::new() };
        let (stage, gate) = stage.receive(bytes, &mut turn);
        let effects = turn.effects;
        self.stage = stage;
        self.stage.give_back(worker, &mut self.context);
        Step { effects, gate }
    }

    /// Whether the headers are held until the body has arrived.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.stage.awaits_body()
    }

    /// The response for a refusal of this exchange.
    #[must_use]
    pub fn reply(&self, denial: &Denial) -> LocalReply {
        // An exchange without request headers has no id.
        let request_id = RequestId::new(&self.context.entry.request_id);
        let request_id = request_id.as_ref().map_or("none", RequestId::as_str);
        let Context { entry, sender, era, .. } = &self.context;
        let mut reply = denial.reply(sender, *era, requested(entry), request_id);
        if let (Denial::Limited { limit, retry_after, .. }, ErrorFormat::Problem) =
            (denial, self.context.error_format)
        {
            self.context.rate_limit.problem(limit, *retry_after, &mut reply);
        }
        reply.headers.extend(self.context.rate_limit.headers.iter().cloned());
        if self.context.is_told_in_message(denial) {
            denial.tell_in_message(sender, requested(entry), &mut reply);
        }
        // A 200 without a request id is no answer: in `split` mode the head alone may be refused.
        if *sender == Sender::Unknown && reply.status == 200 {
            reply.status = 403;
        }
        // A 200 would tell the client nothing: it would wait for an answer that never comes.
        if self.context.answers == Answers::Elsewhere && reply.status == 200 {
            reply.status = 400;
        }
        if let Some(hint) = &self.context.hint {
            hint.complete(denial, &mut reply);
        }
        reply.headers.extend(self.context.origin.iter().flat_map(|origin| cors::headers(origin)));
        reply
    }
}
