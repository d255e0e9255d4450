//! The exchanges of one worker, and the calls they wait for.
//!
//! Owns the table of exchanges by context id, the host's tokens, and the one Redis stream. Replies
//! arrive in the root context or in a stream's; either way they are applied to the exchange that
//! waits, in its own context. No borrow is held across a call into the host.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use log::{error, warn};
use portcullis_core::audit::Chain;
use portcullis_core::call::{Call, CallFailure, CallId, Dependency, Reply};
use portcullis_core::config::Config;
use portcullis_core::denial::Denial;
use portcullis_core::event::{Closing, Event};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::RequestId;
use portcullis_core::mcp::{Era, Sender};
use portcullis_core::redis::{Command, Connection, Output};
use portcullis_core::step::{Effect, Gate, LocalReply};
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Key;
use proxy_wasm::types::{BufferType, MapType};

use crate::host;

/// A Vault reply beyond this is no secret.
const MAX_VAULT_REPLY: usize = 1_048_576;

/// The gateway on one worker.
pub(crate) struct Gateway {
    root: u32,
    state: RefCell<State>,
}

struct State {
    worker: Worker,
    exchanges: HashMap<u32, Entry>,
    redis: Connection<Waiter>,
    stream: Option<u32>,
    /// By the host's token.
    vault: HashMap<u32, Waiter>,
    seed: u64,
}

struct Entry {
    exchange: Exchange,
    passed: bool,
}

/// Which call of which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiter {
    context: u32,
    call: CallId,
}

/// An event and whom it is for.
type Mail = (u32, Event);

impl Gateway {
    pub(crate) fn new(root: u32, config: Config, chain: Chain, seed: u64) -> Self {
        let redis = Connection::new(config.redis_timeout, seed);
        let state = State {
            worker: Worker::new(config, chain),
            exchanges: HashMap::new(),
            redis,
            stream: None,
            vault: HashMap::new(),
            seed,
        };
        Self {
            root,
            state: RefCell::new(state),
        }
    }

    /// Takes a new plugin configuration; the chain and the caches go on.
    pub(crate) fn reconfigure(&self, config: Config) {
        let orphaned = self.with(|state| {
            let same = state.worker.config.redis_cluster == config.redis_cluster
                && state.worker.config.redis_timeout == config.redis_timeout;
            let timeout = config.redis_timeout;
            state.worker.config = config;
            if same {
                return (Vec::new(), None);
            }
            let lost = state.redis.closed(host::now());
            state.redis = Connection::new(timeout, state.seed);
            (lost, state.stream.take())
        });
        let Some((lost, stream)) = orphaned else {
            return;
        };
        if let Some(stream) = stream {
            host::reset_stream(stream);
        }
        self.deliver(lost);
    }

    pub(crate) fn open(&self, context: u32) {
        let entry = Entry {
            exchange: Exchange::default(),
            passed: false,
        };
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
        self.with(|state| {
            state
                .exchanges
                .get(&context)
                .is_some_and(|entry| entry.passed)
        })
        .unwrap_or(false)
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.with(|state| state.worker.config.max_body_bytes)
            .unwrap_or(0)
    }

    /// An id for a request that came without one.
    pub(crate) fn request_id(&self, context: u32) -> RequestId {
        let seed = self.with(|state| state.seed);
        RequestId::numbered(seed.unwrap_or(0), context)
    }

    /// Steps the exchange of the current context. The gate is what its caller acts on; replies of
    /// the gateway itself are sent here.
    pub(crate) fn drive(&self, context: u32, event: Event) -> Gate {
        self.drive_body(context, event, 0)
    }

    /// [`Gateway::drive`] for an event that brings `size` bytes of the response buffer.
    pub(crate) fn drive_body(&self, context: u32, event: Event, size: usize) -> Gate {
        let mut mail = VecDeque::from([(context, event)]);
        let mut verdict = Gate::Hold;
        // Each turn starts at most two calls, and a call that fails at once ends the request.
        while let Some((recipient, event)) = mail.pop_front() {
            if recipient != context {
                self.post(VecDeque::from([(recipient, event)]));
                let _ = host::enter(context);
                continue;
            }
            let gate = self.turn(context, event, size, &mut mail);
            if matches!(verdict, Gate::Hold) {
                verdict = gate;
            }
        }
        self.answer(context, &verdict);
        verdict
    }

    /// Ends the exchange; the audit line, once.
    pub(crate) fn close(&self, context: u32, closing: Closing) -> Option<String> {
        let now = host::now();
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            Some(
                entry
                    .exchange
                    .step(&mut state.worker, now, Event::Closed(closing)),
            )
        });
        let effects = step.flatten()?.effects;
        effects.into_iter().find_map(|effect| match effect {
            Effect::Audit(line) => Some(line),
            _ => None,
        })
    }

    /// Vault's reply to the call `token`.
    pub(crate) fn vault_answered(&self, token: u32, headers: usize, size: usize) {
        let waiter = self.with(|state| state.vault.remove(&token)).flatten();
        let Some(Waiter { context, call: id }) = waiter else {
            return;
        };
        let event = match vault_reply(headers, size) {
            Ok(body) => Event::CallDone {
                id,
                reply: Reply::Vault { body },
            },
            Err(why) => Event::CallFailed { id, why },
        };
        self.post(VecDeque::from([(context, event)]));
    }

    /// Bytes from Redis.
    pub(crate) fn redis_sent(&self, token: u32, size: usize) {
        if self.with(|state| state.stream) != Some(Some(token)) {
            return;
        }
        let now = host::now();
        let outputs = match host::buffer(BufferType::GrpcReceiveBuffer, size) {
            Ok(bytes) => self.with(|state| state.redis.received(now, &bytes)),
            Err(_) => self.with(|state| state.redis.closed(now)),
        };
        self.deliver(outputs.unwrap_or_default());
    }

    /// The Redis stream ended.
    pub(crate) fn redis_closed(&self, token: u32) {
        let now = host::now();
        let outputs = self.with(|state| {
            if state.stream != Some(token) {
                return Vec::new();
            }
            warn!("the Redis stream ended");
            state.stream = None;
            state.redis.closed(now)
        });
        self.deliver(outputs.unwrap_or_default());
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        let now = host::now();
        let outputs = self.with(|state| state.redis.tick(now)).unwrap_or_default();
        if !outputs.is_empty() {
            self.deliver(outputs);
        }
    }

    /// Carries out what the connection says, then delivers what it brought.
    fn deliver(&self, outputs: Vec<Output<Waiter>>) {
        let mail = self.carry_out(outputs);
        self.post(mail);
    }

    /// Applies events from outside their streams, each in its own context.
    fn post(&self, mut mail: VecDeque<Mail>) {
        while let Some((context, event)) = mail.pop_front() {
            // A stream that is gone has no context to enter; its reply was consumed all the same.
            if host::enter(context).is_err() {
                continue;
            }
            let gate = self.turn(context, event, 0, &mut mail);
            self.answer(context, &gate);
            if matches!(gate, Gate::Pass) && host::resume_request().is_err() {
                error!("a request that passed could not be resumed");
            }
        }
        let _ = host::enter(self.root);
    }

    /// One step of one exchange; its effects are carried out. New events go to `mail`.
    fn turn(&self, context: u32, event: Event, size: usize, mail: &mut VecDeque<Mail>) -> Gate {
        let now = host::now();
        let step = self.with(|state| {
            let entry = state.exchanges.get_mut(&context)?;
            let step = entry.exchange.step(&mut state.worker, now, event);
            entry.passed |= matches!(step.gate, Gate::Pass);
            Some(step)
        });
        let Some(step) = step.flatten() else {
            return Gate::Hold;
        };
        for effect in step.effects {
            if self.apply(context, effect, size, mail).is_err() {
                error!("an effect could not be carried out: the request is refused");
                self.with(|state| state.exchanges.get_mut(&context).map(|e| e.passed = false));
                return Gate::Refuse(Denial::Internal("effect"));
            }
        }
        step.gate
    }

    fn apply(
        &self,
        context: u32,
        effect: Effect,
        size: usize,
        mail: &mut VecDeque<Mail>,
    ) -> Result<(), host::HostError> {
        match effect {
            Effect::Start { id, call } => {
                self.start(Waiter { context, call: id }, call, mail);
                Ok(())
            }
            Effect::RemoveRequestHeader(name) => {
                host::remove_header(MapType::HttpRequestHeaders, &name)
            }
            Effect::AddRequestHeader { name, value } => {
                host::add_header(MapType::HttpRequestHeaders, &name, value.expose())
            }
            Effect::SetResponseHeader { name, value } => {
                host::set_header(MapType::HttpResponseHeaders, name, &value)
            }
            Effect::RemoveResponseHeader(name) => {
                host::remove_header(MapType::HttpResponseHeaders, name)
            }
            Effect::ReplaceResponseBody(bytes) => {
                host::replace_buffer(BufferType::HttpResponseBody, size, &bytes)
            }
            // Only a closing exchange has one, and `close` takes it.
            Effect::Audit(_) => Ok(()),
        }
    }

    fn start(&self, waiter: Waiter, call: Call, mail: &mut VecDeque<Mail>) {
        let command = match call {
            Call::Admit(script) => Command::Script(script),
            Call::Policy(version) => Command::Get(Key::policy_document(version.as_str())),
            Call::Secret(secret) => {
                if let Err(why) = self.ask_vault(waiter, &secret.api_path()) {
                    mail.push_back((
                        waiter.context,
                        Event::CallFailed {
                            id: waiter.call,
                            why,
                        },
                    ));
                }
                return;
            }
        };
        let now = host::now();
        let outputs = self.with(|state| state.redis.submit(now, waiter, command));
        mail.extend(self.carry_out(outputs.unwrap_or_default()));
    }

    fn ask_vault(&self, waiter: Waiter, path: &str) -> Result<(), CallFailure> {
        let place = self.with(|state| {
            (
                state.worker.config.vault_cluster.clone(),
                state.worker.config.vault_timeout,
            )
        });
        let (cluster, timeout) = place.ok_or(CallFailure::Refused)?;
        let request_id = host::header(MapType::HttpRequestHeaders, "x-request-id");
        let request_id = request_id
            .and_then(|id| String::from_utf8(id).ok())
            .unwrap_or_default();
        let token = host::http_get(&cluster, path, &request_id, timeout)
            .map_err(|_| CallFailure::Refused)?;
        self.with(|state| state.vault.insert(token, waiter));
        Ok(())
    }

    /// Opens, sends and closes as the connection says; gives the events that come of it.
    fn carry_out(&self, outputs: Vec<Output<Waiter>>) -> VecDeque<Mail> {
        let mut mail = VecDeque::new();
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Open => outputs.extend(self.open_stream()),
                Output::Send(bytes) => {
                    let stream = self.with(|state| state.stream).flatten();
                    let sent = stream
                        .ok_or(host::HostError)
                        .and_then(|stream| host::send(stream, &bytes));
                    if sent.is_err() {
                        outputs.extend(self.lost());
                    }
                }
                Output::Close => {
                    if let Some(stream) = self.with(|state| state.stream.take()).flatten() {
                        warn!("the Redis stream is given up");
                        host::reset_stream(stream);
                    }
                }
                Output::Reply(Waiter { context, call: id }, value) => {
                    let reply = Reply::Redis(value);
                    mail.push_back((context, Event::CallDone { id, reply }));
                }
                Output::Failed(Waiter { context, call: id }, why) => {
                    mail.push_back((context, Event::CallFailed { id, why }));
                }
            }
        }
        mail
    }

    fn open_stream(&self) -> Vec<Output<Waiter>> {
        let cluster = self.with(|state| state.worker.config.redis_cluster.clone());
        match cluster
            .ok_or(host::HostError)
            .and_then(|cluster| host::open_stream(&cluster))
        {
            Ok(stream) => {
                let now = host::now();
                let outputs = self.with(|state| {
                    state.stream = Some(stream);
                    state.redis.opened(now)
                });
                outputs.unwrap_or_default()
            }
            Err(_) => self.lost(),
        }
    }

    fn lost(&self) -> Vec<Output<Waiter>> {
        let now = host::now();
        let outputs = self.with(|state| {
            state.stream = None;
            state.redis.closed(now)
        });
        outputs.unwrap_or_default()
    }

    /// Sends what the gateway itself answers; the current context is the exchange's.
    fn answer(&self, context: u32, gate: &Gate) {
        let reply = match gate {
            Gate::Refuse(denial) | Gate::Replace(denial) => {
                let reply = self.with(|state| {
                    let entry = state.exchanges.get(&context)?;
                    Some(entry.exchange.reply(denial))
                });
                reply.flatten()
            }
            Gate::Answer(reply) => Some(reply.clone()),
            Gate::Hold | Gate::Pass | Gate::Watch => None,
        };
        if let Some(reply) = reply {
            send(&reply);
        }
    }

    /// The state, unless it is in use further up the stack, which no host call of ours leads to.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        match self.state.try_borrow_mut() {
            Ok(mut state) => Some(act(&mut state)),
            Err(_) => {
                error!("re-entered: refusing");
                None
            }
        }
    }
}

fn send(reply: &LocalReply) {
    if host::send_reply(reply).is_err() {
        error!("a reply of the gateway could not be sent");
    }
}

/// Refuses a request of a plugin without configuration.
pub(crate) fn refuse_unconfigured() {
    let denial = Denial::Unavailable(Dependency::Redis, CallFailure::Refused);
    send(&denial.reply(&Sender::Unknown, Era::Legacy, "none"));
}

/// The body of a good reply. Envoy answers for an unreachable Vault with a status of its own, or
/// with no headers at all.
fn vault_reply(headers: usize, size: usize) -> Result<Vec<u8>, CallFailure> {
    if headers == 0 {
        return Err(CallFailure::TimedOut);
    }
    let status = host::header(MapType::HttpCallResponseHeaders, ":status");
    let status = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<u16>().ok());
    match status {
        Some(200..300) if size <= MAX_VAULT_REPLY => {
            host::buffer(BufferType::HttpCallResponseBody, size)
                .map_err(|_| CallFailure::Unreadable)
        }
        Some(200..300) => Err(CallFailure::Unreadable),
        Some(504) => Err(CallFailure::TimedOut),
        Some(status) => Err(CallFailure::Status(status)),
        None => Err(CallFailure::Unreadable),
    }
}
