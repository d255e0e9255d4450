//! The exchanges of one worker.
//!
//! Owns the table of exchanges by context id, and the carrying out of steps. Events reach an exchange
//! from its own callbacks or, with replies, from elsewhere; either way they are applied in its own
//! context. No borrow is held across a call into the host.
//!
//! At most one stream is let go in a callback. What lets a stream go (resuming it, answering it) takes
//! effect when the callback returns, and so does whatever waits behind it: with two, Envoy runs all of
//! the second inside `on_log` of the first, whose audit line then leaves last. What is left for other
//! streams waits in `mail`, and the gateway wakes itself for it through a queue of the host.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use log::error;
use portcullis_core::audit::Chain;
use portcullis_core::auth::certificate::mapping::CertificateMode;
use portcullis_core::auth::token::issuer::IssuerId;
use portcullis_core::auth::token::keyring::Keyring;
use portcullis_core::breaker::Breakers;
use portcullis_core::call::{CallId, Dependency};
use portcullis_core::config::{Config, Mode, RequestIds};
use portcullis_core::denial::Denial;
use portcullis_core::event::{Closing, End, Event, Head, ResponseHead};
use portcullis_core::exchange::Exchange;
use portcullis_core::hashing::Map;
use portcullis_core::health::Health;
use portcullis_core::id::RequestId;
use portcullis_core::local_reply::LocalReply;
use portcullis_core::metric::Metric;
use portcullis_core::redis::{Connection, Documents};
use portcullis_core::step::{Effect, Gate, RequestGate, ResponseGate};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;

use crate::documents::Asker;
use crate::host::{self, BufferType, MapType};
use crate::keys::Fetch;
use crate::pace::Pace;

/// The gateway on one worker.
pub(crate) struct Gateway {
    root: u32,
    state: RefCell<State>,
}

pub(crate) struct State {
    pub(crate) worker: Worker,
    pub(crate) exchanges: Map<u32, Entry>,
    pub(crate) redis: Connection<Asker>,
    pub(crate) stream: Option<u32>,
    /// Streams that were given up. They are reset in a tick: Envoy still uses one whose callback runs.
    pub(crate) given_up: Vec<u32>,
    /// Policy documents that are being read.
    pub(crate) documents: Documents<Waiter>,
    pub(crate) pace: Pace,
    /// When the next tick is due.
    pub(crate) tick_due: UnixTime,
    /// Events of streams that have not had their turn.
    pub(crate) mail: VecDeque<Mail>,
    wake: Wake,
    /// By the host's token.
    pub(crate) vault: Map<u32, Waiter>,
    /// Keys that are being fetched.
    pub(crate) fetches: BTreeMap<IssuerId, Fetch>,
    /// When the keyring is asked next what is due.
    pub(crate) look_at: UnixTime,
    /// By the host's id.
    pub(crate) metrics: Map<Metric, u32>,
    /// Whether each dependency answered last time.
    pub(crate) answers: Map<Dependency, bool>,
    /// When an error of Redis was last logged.
    pub(crate) complained: Option<UnixTime>,
    seed: u64,
    /// When open responses were last looked through.
    rechecked: UnixTime,
    /// When bodies that the host does not show were last looked for.
    pub(crate) looked_for_bodies: UnixTime,
}

/// How often open responses are looked through, and how many of them Redis is asked about each time.
const BETWEEN_RECHECKS: Duration = Duration::from_secs(1);
const MOST_RECHECKS: usize = 100;

pub(crate) struct Entry {
    pub(crate) exchange: Exchange,
    held: Held,
    pub(crate) body: Body,
    times: Times,
}

/// When what happened to a stream, by this VM's clock.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Its headers were here.
    begun: Option<UnixTime>,
    /// Something of it went upstream.
    passed: Option<UnixTime>,
    /// The last of its answer came.
    answered: Option<UnixTime>,
}

impl Times {
    fn note(&mut self, event: &Event, now: UnixTime) {
        match event {
            Event::Head { .. } => self.begun = Some(now),
            Event::ResponseHead(ResponseHead { last: true, .. })
            | Event::ResponseBody { last: true, .. } => self.answered = Some(now),
            _ => {}
        }
    }

    /// How a request ended whose answer went by as a whole, at `now`.
    fn closing(&self, now: UnixTime, http_status: u16, attempts: Option<u64>) -> Closing {
        let since = |from: Option<UnixTime>, to: UnixTime| {
            from.map(|from| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX))
        };
        Closing {
            http_status: Some(http_status),
            latency_ms: since(self.begun, now).unwrap_or(0),
            upstream_ms: self.answered.and_then(|answered| since(self.passed, answered)),
            attempts,
            end: End::Complete,
        }
    }
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The upstream's answer went by as a whole: with this status, after so many attempts.
    Whole { status: u16, attempts: Option<u64> },
    /// As the host tells it.
    Told(Closing),
}

/// Whether the host shows the body of a request whose headers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// It did.
    Shown,
    /// It has not yet.
    Unseen,
    /// The same, since it was looked for then.
    UnseenAt(UnixTime),
}

/// How the gateway calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// The host has no queue for it: what waits is worked off at once, in whatever order lines then leave.
    Unable,
    /// Through this queue.
    Through(u32),
    /// It has done so, and not been called yet.
    Called(u32),
}

/// What of a stream the host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The request: nothing went upstream.
    Request,
    /// The response: its headers wait for a call.
    Response,
    /// Nothing.
    Nothing,
}

/// The bytes of the response that an event is about.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// What stands before them in the host's buffer: it is held, and was shown before.
    pub(crate) front: Vec<u8>,
    /// How long the host's buffer is.
    pub(crate) size: usize,
}

/// Which call of which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) context: u32,
    pub(crate) call: CallId,
    pub(crate) since: UnixTime,
}

/// Without Redis nothing is ever submitted, so nothing waits.
fn redis_timeout(config: &Config) -> Duration {
    config.redis.as_ref().map(|redis| redis.timeout).unwrap_or_default()
}

/// An event and whom it is for.
pub(crate) type Mail = (u32, Event);

impl Gateway {
    pub(crate) fn new(root: u32, config: Config, chain: Chain, seed: u64) -> Self {
        let timeout = redis_timeout(&config);
        let redis = Connection::new(timeout, seed);
        let mut worker = Worker::new(config, chain);
        worker.health = Health::new(host::now(), env!("PORTCULLIS_BUILD"));
        worker.keyring = Keyring::new(seed);
        worker.vault = Breakers::new(seed);
        let state = State {
            worker,
            exchanges: Map::default(),
            redis,
            stream: None,
            given_up: Vec::new(),
            documents: Documents::new(timeout),
            pace: Pace::default(),
            tick_due: host::now(),
            mail: VecDeque::new(),
            wake: wake(seed),
            vault: Map::default(),
            fetches: BTreeMap::new(),
            look_at: UnixTime::from_micros(0),
            metrics: Map::default(),
            answers: Map::default(),
            complained: None,
            seed,
            rechecked: UnixTime::from_micros(0),
            looked_for_bodies: UnixTime::from_micros(0),
        };
        Self { root, state: RefCell::new(state) }
    }

    /// Takes a new plugin configuration; the chain and the caches go on.
    pub(crate) fn reconfigure(&self, config: Config) {
        let now = host::now();
        let lost = self.with(|state| {
            let same = state.worker.config.redis == config.redis;
            let timeout = redis_timeout(&config);
            if state.worker.config.auth.issuers != config.auth.issuers {
                state.worker.keyring.reset();
            }
            state.worker.reconfigure(config);
            if same {
                return Vec::new();
            }
            let lost = state.redis.closed(now);
            state.redis = Connection::new(timeout, state.seed);
            state.given_up.extend(state.stream.take());
            lost
        });
        // Who waits for a document is among them, since the ranges of documents are commands, too.
        self.deliver(now, lost.unwrap_or_default());
        self.with(|state| state.documents = Documents::new(redis_timeout(&state.worker.config)));
    }

    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    pub(crate) fn open(&self, context: u32) {
        let (exchange, times) = (Exchange::default(), Times::default());
        let entry = Entry { exchange, held: Held::Request, body: Body::Unseen, times };
        self.with(|state| state.exchanges.insert(context, entry));
    }

    pub(crate) fn forget(&self, context: u32) {
        self.with(|state| {
            state.exchanges.remove(&context);
            state.vault.retain(|_, waiter| waiter.context != context);
        });
    }

    /// Whether the request of `context` was let go.
    pub(crate) fn passed(&self, context: u32) -> bool {
        matches!(self.held(context), Held::Response | Held::Nothing)
    }

    /// Whether the response of `context` waits for a call.
    pub(crate) fn suspended(&self, context: u32) -> bool {
        self.held(context) == Held::Response
    }

    /// An exchange that is not known holds its request.
    fn held(&self, context: u32) -> Held {
        let held = self.with(|state| state.exchanges.get(&context).map(|entry| entry.held));
        held.flatten().unwrap_or(Held::Request)
    }

    /// The body of `context` is to be judged, whether its headers went upstream before or not.
    pub(crate) fn hold_request(&self, context: u32) {
        self.set_held(context, Held::Request);
    }

    fn set_held(&self, context: u32, held: Held) {
        self.with(|state| {
            if let Some(entry) = state.exchanges.get_mut(&context) {
                entry.held = held;
            }
        });
    }

    /// Nothing of `context` is held any more.
    fn let_go(&self, context: u32, now: UnixTime) {
        self.with(|state| {
            if let Some(entry) = state.exchanges.get_mut(&context) {
                entry.held = Held::Nothing;
                entry.times.passed.get_or_insert(now);
            }
        });
    }

    /// Whether client certificates count.
    pub(crate) fn certificates(&self) -> CertificateMode {
        self.with(|state| state.worker.config.auth.certificates.mode).unwrap_or_default()
    }

    /// Whether a request is the gateway's business.
    pub(crate) fn covers(&self, head: &Head) -> bool {
        let covers = |state: &mut State| {
            let config = &state.worker.config;
            config.scope.covers(head, &config.hosts)
        };
        self.with(covers).unwrap_or(true)
    }

    /// When a request that comes now is held.
    pub(crate) fn mode(&self) -> Mode {
        self.with(|state| state.worker.config.mode).unwrap_or_default()
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.with(|state| state.worker.config.max_body_bytes).unwrap_or(0)
    }

    /// The id of a request that came with `given` as its `x-request-id`.
    pub(crate) fn request_id(&self, context: u32, given: Option<&[u8]>) -> RequestId {
        let known = self.with(|state| (state.seed, state.worker.config.request_ids));
        let (seed, ids) = known.unwrap_or_default();
        let external = match ids {
            RequestIds::Own => None,
            RequestIds::External => given.and_then(|given| std::str::from_utf8(given).ok()),
        };
        external.and_then(RequestId::new).unwrap_or_else(|| RequestId::numbered(seed, context))
    }

    /// Steps the exchange of the current context, whose request `event` is about. The gate is what its caller acts on;
    /// replies of the gateway itself are sent here.
    pub(crate) fn drive_request(&self, context: u32, event: Event) -> Option<RequestGate> {
        self.drive(context, event, &Chunk::default()).of_request()
    }

    /// The same, where `event` is about its response.
    pub(crate) fn drive_response(
        &self,
        context: u32,
        event: Event,
        chunk: &Chunk,
    ) -> Option<ResponseGate> {
        self.drive(context, event, chunk).of_response()
    }

    /// Of the request's body there are `bytes` now, and more follow.
    pub(crate) fn receive(&self, context: u32, bytes: usize) -> Option<RequestGate> {
        let now = host::now();
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            entry.body = Body::Shown;
            Some(entry.exchange.receive(&mut state.worker, now, bytes))
        });
        let step = step.flatten()?;
        for effect in step.effects {
            // Only calls start here, and one that does not is mail.
            let _ = self.apply(context, effect, &Chunk::default());
        }
        self.wake();
        self.answer(context, &step.gate);
        step.gate.of_request()
    }

    fn drive(&self, context: u32, event: Event, chunk: &Chunk) -> Gate {
        let now = host::now();
        let mut verdict = Gate::Hold.followed_by(self.turn((context, now), event, chunk));
        let mut own = self.mail_of(context);
        // Each turn starts at most two calls, and a call that fails at once ends the request.
        while let Some(event) = own.pop_front() {
            verdict = verdict.followed_by(self.turn((context, now), event, chunk));
            own.extend(self.mail_of(context));
        }
        self.wake();
        match verdict {
            Gate::Request(RequestGate::Pass)
            | Gate::Response(ResponseGate::Pass | ResponseGate::Observe) => {
                self.let_go(context, now);
            }
            Gate::Response(ResponseGate::Pause) => self.set_held(context, Held::Response),
            Gate::Hold
            | Gate::Request(RequestGate::Refuse(_) | RequestGate::LocalReply(_))
            | Gate::Response(ResponseGate::Replace(_)) => {}
        }
        self.answer(context, &verdict);
        verdict
    }

    /// Takes the mail of `context`.
    fn mail_of(&self, context: u32) -> VecDeque<Event> {
        let own = self.with(|state| {
            if state.mail.is_empty() {
                return VecDeque::new();
            }
            let (own, others): (VecDeque<_>, _) =
                std::mem::take(&mut state.mail).into_iter().partition(|(to, _)| *to == context);
            state.mail = others;
            own
        });
        own.unwrap_or_default().into_iter().map(|(_, event)| event).collect()
    }

    /// The response of `context` ended behind its body: what was held back of it never goes on.
    pub(crate) fn end_response(&self, context: u32) {
        let now = host::now();
        let event = Event::ResponseBody { bytes: Vec::new(), last: true };
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            entry.times.note(&event, now);
            Some(entry.exchange.step(&mut state.worker, now, event))
        });
        let Some(step) = step.flatten() else { return };
        for effect in step.effects {
            match effect {
                Effect::Start { id, call } => {
                    self.start(Waiter { context, call: id, since: now }, call);
                }
                Effect::Measure(metric, value) => self.measure(metric, value),
                // There is no body left to change, and its headers are gone.
                Effect::RemoveRequestHeader(_)
                | Effect::SetRequestHeader { .. }
                | Effect::ReplaceRequestBody(_)
                | Effect::SetResponseHeader { .. }
                | Effect::RemoveResponseHeader(_)
                | Effect::ReplaceResponseBody(_)
                | Effect::Audit(_) => {}
            }
        }
        if let Gate::Response(ResponseGate::Pause) = step.gate {
            self.set_held(context, Held::Response);
        }
        self.wake();
    }

    fn reply(&self, context: u32, denial: &Denial) -> Option<LocalReply> {
        let reply = self.with(|state| {
            let entry = state.exchanges.get(&context)?;
            Some(entry.exchange.reply(denial))
        });
        reply.flatten()
    }

    /// Ends the exchange; the audit line, once.
    pub(crate) fn close(&self, context: u32, ending: Ending) -> Option<String> {
        let now = host::now();
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            let closing = match ending {
                Ending::Whole { status, attempts } => entry.times.closing(now, status, attempts),
                Ending::Told(closing) => closing,
            };
            Some(entry.exchange.step(&mut state.worker, now, Event::Closed(closing)))
        });
        let mut audit = None;
        for effect in step.flatten()?.effects {
            match effect {
                Effect::Audit(line) => audit = Some(line),
                Effect::Measure(metric, value) => self.measure(metric, value),
                // Nobody waits for its outcome: what an answer costs that was not seen.
                Effect::Start { id, call } => {
                    self.start(Waiter { context, call: id, since: now }, call);
                }
                // The stream is over: there is nothing left to change.
                Effect::RemoveRequestHeader(_)
                | Effect::SetRequestHeader { .. }
                | Effect::ReplaceRequestBody(_)
                | Effect::SetResponseHeader { .. }
                | Effect::RemoveResponseHeader(_)
                | Effect::ReplaceResponseBody(_) => {}
            }
        }
        audit
    }

    /// Puts events aside for their streams.
    pub(crate) fn queue(&self, mail: impl IntoIterator<Item = Mail>) {
        self.with(|state| state.mail.extend(mail));
    }

    /// Applies events from outside their streams, each in its own context, until one stream is let go.
    pub(crate) fn work_off(&self, now: UnixTime) {
        let in_turn = self.with(|state| state.wake != Wake::Unable).unwrap_or_default();
        while let Some((context, event)) = self.with(|state| state.mail.pop_front()).flatten() {
            // A stream that is gone has no context to enter; its reply was consumed all the same.
            if host::enter(context).is_err() {
                continue;
            }
            let gate = self.turn((context, now), event, &Chunk::default());
            self.answer(context, &gate);
            let let_go = match gate {
                Gate::Hold | Gate::Response(ResponseGate::Pause) => false,
                Gate::Request(RequestGate::Pass)
                | Gate::Response(ResponseGate::Pass | ResponseGate::Observe) => {
                    if self.resume(context, now).is_err() {
                        error!("what passed could not be resumed");
                    }
                    true
                }
                Gate::Request(RequestGate::Refuse(_) | RequestGate::LocalReply(_))
                | Gate::Response(ResponseGate::Replace(_)) => true,
            };
            if let_go && in_turn {
                break;
            }
        }
        let _ = host::enter(self.root);
        self.wake();
    }

    /// Sees to it that [`Gateway::woken`] is called if there is mail left.
    fn wake(&self) {
        let queue = self.with(|state| match state.wake {
            Wake::Through(queue) if !state.mail.is_empty() => {
                state.wake = Wake::Called(queue);
                Some(queue)
            }
            Wake::Through(_) | Wake::Called(_) | Wake::Unable => None,
        });
        if let Some(queue) = queue.flatten()
            && host::enqueue(queue).is_err()
        {
            error!("the host does not take what wakes this worker: mail waits for ticks");
            self.with(|state| state.wake = Wake::Unable);
        }
        self.hurry();
    }

    /// The host calls, as it was asked to.
    pub(crate) fn woken(&self, queue: u32) {
        // Somebody else may have been first; the queue is empty then.
        let _ = host::dequeue(queue);
        self.with(|state| {
            if state.wake == Wake::Called(queue) {
                state.wake = Wake::Through(queue);
            }
        });
        self.work_off(host::now());
    }

    /// Whether mail waits for a tick.
    pub(crate) fn has_mail(&self) -> bool {
        self.with(|state| !state.mail.is_empty()).unwrap_or_default()
    }

    /// Lets go of what the host holds.
    fn resume(&self, context: u32, now: UnixTime) -> Result<(), host::HostError> {
        let held = self.held(context);
        self.let_go(context, now);
        match held {
            Held::Request => host::resume_request(),
            Held::Response => host::resume_response(),
            Held::Nothing => Ok(()),
        }
    }

    /// Checks again whether callers may have the responses that are open; at most once a second.
    pub(crate) fn recheck(&self, now: UnixTime) {
        let due = self.with(|state| {
            if now.since(state.rechecked) < BETWEEN_RECHECKS {
                return Vec::new();
            }
            state.rechecked = now;
            let due = |entry: &Entry| entry.exchange.recheck_due().is_some_and(|due| due <= now);
            let due = state.exchanges.iter().filter(|(_, entry)| due(entry));
            due.map(|(context, _)| *context).take(MOST_RECHECKS).collect()
        });
        for context in due.unwrap_or_default() {
            if host::enter(context).is_err() {
                continue;
            }
            let step = self.with(|state| {
                let entry = state.exchanges.get_mut(&context)?;
                Some(entry.exchange.recheck(&mut state.worker, now))
            });
            for effect in step.flatten().map(|step| step.effects).unwrap_or_default() {
                if self.apply(context, effect, &Chunk::default()).is_err() {
                    error!("an open response could not be checked again");
                }
            }
        }
        let _ = host::enter(self.root);
    }

    /// One step of one exchange; its effects are carried out. New events are mail.
    fn turn(&self, (context, now): (u32, UnixTime), event: Event, chunk: &Chunk) -> Gate {
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            entry.times.note(&event, now);
            Some(entry.exchange.step(&mut state.worker, now, event))
        });
        let Some(step) = step.flatten() else {
            return Gate::Hold;
        };
        self.measure_load(now);
        for effect in step.effects {
            if self.apply(context, effect, chunk).is_err() {
                error!("an effect could not be carried out: the request is refused");
                return step.gate.failed(Denial::Internal("effect"));
            }
        }
        step.gate
    }

    fn apply(&self, context: u32, effect: Effect, chunk: &Chunk) -> Result<(), host::HostError> {
        match effect {
            Effect::Start { id, call } => {
                // What a call may take begins now: the worker may have been busy with this event.
                self.start(Waiter { context, call: id, since: host::now() }, call);
                Ok(())
            }
            Effect::RemoveRequestHeader(name) => {
                host::remove_header(MapType::RequestHeaders, &name)
            }
            Effect::SetRequestHeader { name, value } => {
                host::set_header(MapType::RequestHeaders, &name, value.expose())
            }
            Effect::ReplaceRequestBody(body) => {
                host::replace_buffer(BufferType::HttpRequestBody, usize::MAX, body.bytes())
            }
            Effect::SetResponseHeader { name, value } => {
                host::set_header(MapType::ResponseHeaders, name, &value)
            }
            Effect::RemoveResponseHeader(name) => {
                host::remove_header(MapType::ResponseHeaders, &name)
            }
            Effect::ReplaceResponseBody(bytes) => {
                let bytes = match chunk.front.is_empty() {
                    true => bytes,
                    false => [chunk.front.as_slice(), &bytes].concat(),
                };
                host::replace_buffer(BufferType::HttpResponseBody, chunk.size, &bytes)
            }
            Effect::Measure(metric, value) => {
                self.measure(metric, value);
                Ok(())
            }
            // Only a closing exchange has one, and `close` takes it.
            Effect::Audit(_) => Ok(()),
        }
    }

    /// Sends what the gateway itself answers; the current context is the exchange's.
    fn answer(&self, context: u32, gate: &Gate) {
        let reply = match gate {
            Gate::Request(RequestGate::Refuse(denial))
            | Gate::Response(ResponseGate::Replace(denial)) => self.reply(context, denial),
            Gate::Request(RequestGate::LocalReply(reply)) => Some(reply.clone()),
            Gate::Hold
            | Gate::Request(RequestGate::Pass)
            | Gate::Response(ResponseGate::Pass | ResponseGate::Observe | ResponseGate::Pause) => {
                None
            }
        };
        if let Some(reply) = reply {
            send(&reply);
        }
    }

    /// The state, unless it is in use further up the stack, which no host call of ours leads to.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        match self.state.try_borrow_mut() {
            Ok(mut state) => Some(act(&mut state)),
            Err(_) => {
                error!("re-entered: refusing");
                None
            }
        }
    }
}

/// A queue of this VM's own: the host calls whoever registered its name last.
fn wake(seed: u64) -> Wake {
    match host::register_queue(&format!("portcullis.{seed:016x}")) {
        Ok(queue) => Wake::Through(queue),
        Err(_) => Wake::Unable,
    }
}

/// Answers the request of the current context.
pub(crate) fn send(reply: &LocalReply) {
    if host::send_reply(reply).is_err() {
        error!("a reply of the gateway could not be sent");
    }
}
