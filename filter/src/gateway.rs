//! The gateway on one worker: composes its parts and carries out what exchanges answer.
//!
//! Owns the one place where streams are resumed and answered. Events reach an exchange from its own callbacks or, with
//! what parts report, from elsewhere; either way they are applied in its own context. Each part owns its state, and none
//! knows another: what it reports passes through here. No borrow is held across a call into the host.
//!
//! At most one stream is let go in a callback. What lets a stream go (resuming it, answering it) takes
//! effect when the callback returns, and so does whatever waits behind it: with two, Envoy runs all of
//! the second inside `on_log` of the first, whose audit line then leaves last. What is left for other
//! streams is pending, and the gateway wakes itself for it through a queue of the host.

use log::{error, info};
use portcullis_core::audit::Chain;
use portcullis_core::auth::certificate::mapping::CertificateMode;
use portcullis_core::auth::token::keyring::Keyring;
use portcullis_core::config::{Config, Mode, RequestIds, Vault};
use portcullis_core::connector_credential::CredentialRef;
use portcullis_core::denial::{Denial, UpstreamFault};
use portcullis_core::driver::call::{Asker, CallFailure, Dependency, DependencyCall, Reply};
use portcullis_core::driver::event::{Event, Head};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, ResponseGate};
use portcullis_core::health::Health;
use portcullis_core::http::local_reply::LocalReply;
use portcullis_core::id::RequestId;
use portcullis_core::metric::Metric;
use portcullis_core::redis::Command;
use portcullis_core::resilience::breaker::Breakers;
use portcullis_core::time::UnixTime;
use portcullis_core::vault::LeaseOutcome;
use portcullis_core::worker::Worker;

use crate::credential_calls::{CredentialCalls, ask_token, ask_vault, revoke_last};
use crate::exchanges::{Ending, Exchanges, Held};
use crate::guarded::Guarded;
use crate::host::{self, BufferType, MapType};
use crate::jwks_fetches::JwksFetches;
use crate::metrics::Metrics;
use crate::pending_events::PendingEvents;
use crate::redis_stream::RedisStream;
use crate::ticker::Ticker;
use crate::vault_probe::VaultProbe;
use crate::waiter::{DependencyEvent, PendingEvent, Waiter};
use crate::withheld::WithheldBodies;

/// The gateway on one worker.
pub(crate) struct Gateway {
    root: u32,
    seed: u64,
    worker: Guarded<Worker>,
    exchanges: Exchanges,
    pending: PendingEvents,
    redis: RedisStream,
    credentials: CredentialCalls,
    vault_probe: VaultProbe,
    jwks: JwksFetches,
    ticker: Ticker,
    metrics: Metrics,
    withheld: WithheldBodies,
}

impl Gateway {
    /// The current root context is `root`. Ticks begin, and the log has the build of the module.
    pub(crate) fn start(
        root: u32,
        config: Config,
        chain: Chain,
        seed: u64,
        build: &'static str,
    ) -> Self {
        let redis = RedisStream::new(config.redis.clone(), seed);
        let mut worker = Worker::new(config, chain);
        worker.health = Health::new(host::now(), build);
        worker.keyring = Keyring::new(seed);
        worker.vault = Breakers::new(seed);
        let gateway = Self {
            root,
            seed,
            worker: Guarded::new(worker),
            exchanges: Exchanges::default(),
            pending: PendingEvents::new(seed),
            redis,
            credentials: CredentialCalls::default(),
            vault_probe: VaultProbe::default(),
            jwks: JwksFetches::default(),
            ticker: Ticker::new(),
            metrics: Metrics::default(),
            withheld: WithheldBodies::default(),
        };
        gateway.ticker.start();
        gateway.metrics.measure(Metric::Build(build), host::now().seconds());
        gateway
    }

    /// Takes a new plugin configuration; the chain and the caches go on.
    pub(crate) fn reconfigure(&self, config: Config) {
        let now = host::now();
        let redis = config.redis.clone();
        let changed = self.worker.with(|worker| {
            if worker.config.auth.issuers != config.auth.issuers {
                worker.keyring.reset();
            }
            if worker.config.vault != config.vault {
                worker.health.forget(Dependency::Vault);
            }
            let changed = worker.config.redis != config.redis;
            worker.reconfigure(config);
            changed
        });
        self.take(now, self.redis.reconfigure(now, redis));
        if changed == Some(true) {
            self.worker.with(|worker| worker.health.forget(Dependency::Redis));
        }
        self.work_off(now);
    }

    pub(crate) fn open(&self, context: u32) {
        self.exchanges.open(context);
    }

    pub(crate) fn forget(&self, context: u32) {
        self.exchanges.forget(context);
        self.credentials.forget(context);
    }

    /// Whether the request of `context` was let go.
    pub(crate) fn passed(&self, context: u32) -> bool {
        matches!(self.exchanges.held(context), Held::Response | Held::Nothing)
    }

    /// Whether the response of `context` waits for a call.
    pub(crate) fn suspended(&self, context: u32) -> bool {
        self.exchanges.held(context) == Held::Response
    }

    /// The body of `context` is to be judged, whether its headers went upstream before or not.
    pub(crate) fn hold_request(&self, context: u32) {
        self.exchanges.set_held(context, Held::Request);
    }

    /// Whether client certificates count.
    pub(crate) fn certificates(&self) -> CertificateMode {
        self.worker.with(|worker| worker.config.auth.certificates.mode).unwrap_or_default()
    }

    /// Whether a request is the gateway's business.
    pub(crate) fn covers(&self, head: &Head) -> bool {
        let covers = |worker: &mut Worker| worker.config.scope.covers(head, &worker.config.hosts);
        self.worker.with(covers).unwrap_or(true)
    }

    /// When a request that comes now is held.
    pub(crate) fn mode(&self) -> Mode {
        self.worker.with(|worker| worker.config.mode).unwrap_or_default()
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.worker.with(|worker| worker.config.max_body_bytes).unwrap_or(0)
    }

    /// The id of a request that came with `given` as its `x-request-id`.
    pub(crate) fn request_id(&self, context: u32, given: Option<&[u8]>) -> RequestId {
        let external = match self.worker.with(|worker| worker.config.request_ids) {
            Some(RequestIds::External) => given.and_then(|given| std::str::from_utf8(given).ok()),
            Some(RequestIds::Own) | None => None,
        };
        external.and_then(RequestId::new).unwrap_or_else(|| RequestId::numbered(self.seed, context))
    }

    /// Steps the exchange of the current context, whose request `event` is about. The gate is what its caller acts on;
    /// replies of the gateway itself are sent here.
    pub(crate) fn drive_request(&self, context: u32, event: Event) -> Option<RequestGate> {
        self.drive(context, event, 0).of_request()
    }

    /// The same, where `event` is about its response, of whose body the host shows so many bytes.
    pub(crate) fn drive_response(
        &self,
        context: u32,
        event: Event,
        shown: usize,
    ) -> Option<ResponseGate> {
        self.drive(context, event, shown).of_response()
    }

    /// Of the request's body there are `bytes` now, and more follow.
    pub(crate) fn receive(&self, context: u32, bytes: usize) -> Option<RequestGate> {
        let now = host::now();
        let step = self.exchanges.receive(&self.worker, (context, now), bytes)?;
        for effect in step.effects {
            // Only calls start here, and what becomes of one that does not is pending.
            let _ = self.apply(context, effect, 0);
        }
        self.wake();
        self.answer(context, &step.gate);
        step.gate.of_request()
    }

    fn drive(&self, context: u32, event: Event, shown: usize) -> Gate {
        let now = host::now();
        let mut verdict = Gate::Hold.followed_by(self.turn((context, now), event, shown));
        let mut own = self.pending.of(context);
        // Each turn starts at most two calls, and a call that fails at once ends the request.
        while let Some(event) = own.pop_front() {
            verdict = verdict.followed_by(self.turn((context, now), event, shown));
            own.extend(self.pending.of(context));
        }
        self.wake();
        match verdict {
            Gate::Request(RequestGate::Pass)
            | Gate::Response(ResponseGate::Pass | ResponseGate::Observe) => {
                self.exchanges.let_go(context, now);
            }
            Gate::Response(ResponseGate::Pause) => {
                self.exchanges.set_held(context, Held::Response);
            }
            Gate::Hold
            | Gate::Request(RequestGate::Refuse(_) | RequestGate::LocalReply(_))
            | Gate::Response(ResponseGate::Replace(_)) => {}
        }
        self.answer(context, &verdict);
        verdict
    }

    /// The response of `context` ended behind its body, which cannot be added to any more. What was held back of it, and
    /// the error that should follow it, never go on: the client then gets a reset, and waits for neither. Returns whether
    /// it does.
    pub(crate) fn end_response(&self, context: u32) -> bool {
        let now = host::now();
        let event = Event::ResponseBody { bytes: Vec::new(), last: true };
        let step = self.exchanges.step(&self.worker, (context, now), event);
        let Some(step) = step else { return false };
        let lost = |effect: &Effect| matches!(effect, Effect::ReplaceResponseBody(bytes) if !bytes.is_empty());
        let lost = step.effects.iter().any(lost);
        if lost {
            let denial = Denial::UpstreamAnswer(UpstreamFault::NoAnswer);
            self.answer(context, &Gate::Response(ResponseGate::Replace(denial)));
        }
        for effect in step.effects {
            match effect {
                Effect::Start { id, call } => {
                    self.start_call(Waiter { context, call: id, since: now }, call);
                }
                Effect::Measure(metric, value) => self.metrics.measure(metric, value),
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
            self.exchanges.set_held(context, Held::Response);
        }
        self.wake();
        lost
    }

    /// Ends the exchange; its audit line, once, after that of a response that is open. One value has both: a request
    /// whose lines go different ways could lose one of them, and the chain would have a gap.
    pub(crate) fn close(&self, context: u32, ending: Ending) -> Option<String> {
        let now = host::now();
        let mut audit: Option<String> = None;
        let step = self.exchanges.close(&self.worker, (context, now), ending);
        for effect in step.map(|step| step.effects).unwrap_or_default() {
            match effect {
                Effect::Audit(line) => {
                    audit = Some(match audit {
                        Some(before) => format!("{before}\n{line}"),
                        None => line,
                    });
                }
                Effect::Measure(metric, value) => self.metrics.measure(metric, value),
                // No exchange waits for its outcome: what an answer costs that was not seen.
                Effect::Start { id, call } => {
                    self.start_call(Waiter { context, call: id, since: now }, call);
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

    /// The reply to the HTTP call `token`.
    pub(crate) fn http_answered(&self, token: u32, headers: usize, size: usize) {
        let of_issuer = self.jwks.answered(&self.worker, token, headers, size);
        let events = of_issuer.or_else(|| self.credentials.answered(token, headers, size));
        let events = events.or_else(|| self.vault_probe.answered(token, headers));
        if let Some(events) = events {
            let now = host::now();
            self.take(now, events);
            self.work_off(now);
            // Where many leases are due, each tick would attend to one.
            self.attend_leases(now);
        }
    }

    /// Asks Vault about the lease whose turn it is, unless a question is on its way.
    fn attend_leases(&self, now: UnixTime) {
        /// Questions that could not be asked; the next tick goes on.
        const MOST_FAILED: usize = 8;
        for _ in 0..MOST_FAILED {
            if self.credentials.attends_lease() {
                return;
            }
            let Some(call) = self.worker.with(|worker| worker.due_lease(now)).flatten() else {
                return;
            };
            let events = self.credentials.start_lease(self.vault().as_ref(), call, now);
            self.take(now, events);
        }
    }

    fn vault(&self) -> Option<Vault> {
        self.worker.with(|worker| worker.config.vault.clone()).flatten()
    }

    /// Bytes came on the Redis stream.
    pub(crate) fn redis_received(&self, token: u32, size: usize) {
        let now = host::now();
        self.take(now, self.redis.received(now, token, size));
        self.work_off(now);
    }

    /// The Redis stream ended.
    pub(crate) fn redis_ended(&self, token: u32) {
        let now = host::now();
        self.take(now, self.redis.ended(now, token));
        self.work_off(now);
    }

    /// The host calls, as it was asked to.
    pub(crate) fn woken(&self, queue: u32) {
        self.pending.woken(queue);
        self.work_off(host::now());
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        let now = host::now();
        if let Some(busy) = self.ticker.lateness(now) {
            self.redis.excuse(now, busy);
        }
        self.redis.reset_given_up();
        self.recheck(now);
        self.look_for_withheld_bodies(now);
        self.take(now, self.redis.tick(now));
        self.take(now, self.jwks.tick(&self.worker, now));
        if let Some(call) = self.worker.with(|worker| worker.due_checkpoint(now)).flatten() {
            self.take(now, self.redis.checkpoint(now, call));
        }
        self.attend_leases(now);
        self.take(now, self.vault_probe.tick(&self.worker, now));
        if !self.pending.is_empty() {
            self.work_off(now);
        }
        match self.is_waiting() {
            true => self.ticker.go_on(now),
            false => self.ticker.slow_down(now),
        }
    }

    /// The VM ends in order: what its chain has since the last checkpoint is noted, and its leases are given back.
    pub(crate) fn end(&self) {
        let now = host::now();
        let leases = self.worker.with(|worker| worker.last_leases(now)).unwrap_or_default();
        revoke_last(self.vault().as_ref(), &leases);
        if let Some(call) = self.worker.with(|worker| worker.last_checkpoint(now)).flatten() {
            let _ = self.redis.checkpoint(now, call);
        }
    }

    /// Whether anything hangs on the next tick.
    fn is_waiting(&self) -> bool {
        self.redis.is_waiting() || !self.pending.is_empty() || self.jwks.is_waiting()
    }

    /// Something may have begun to wait.
    fn wake_ticker(&self) {
        if self.is_waiting() {
            self.ticker.wake();
        }
    }

    /// Checks again whether callers may have the responses that are open.
    fn recheck(&self, now: UnixTime) {
        let due = self.exchanges.due_rechecks(now);
        for context in due {
            if host::enter(context).is_err() {
                continue;
            }
            let step = self.exchanges.recheck(&self.worker, (context, now));
            for effect in step.map(|step| step.effects).unwrap_or_default() {
                if self.apply(context, effect, 0).is_err() {
                    error!("an open response could not be checked again");
                }
            }
        }
        let _ = host::enter(self.root);
    }

    /// Ends requests whose body the host has and does not show.
    fn look_for_withheld_bodies(&self, now: UnixTime) {
        self.pending.extend(self.withheld.find(&self.exchanges, now));
        let _ = host::enter(self.root);
    }

    /// Starts a call; what becomes of it is pending.
    fn start_call(&self, waiter: Waiter, call: DependencyCall) {
        let events = match call {
            DependencyCall::Admit(script)
            | DependencyCall::Bind(script)
            | DependencyCall::Charge(script)
            | DependencyCall::Complete(script)
            | DependencyCall::Observe(script)
            | DependencyCall::Approval(script) => {
                self.redis.submit(waiter, Command::Script(script))
            }
            DependencyCall::Policy(version) => self.redis.read_policy(waiter, &version),
            DependencyCall::Credential(reference, Asker { request_id, org }) => {
                let vault = self.vault();
                let ask = || match &reference {
                    CredentialRef::Secret(secret) => {
                        ask_vault(vault.as_ref(), secret, Some(&request_id))
                    }
                    CredentialRef::Token(_) => Err(CallFailure::Refused),
                };
                self.credentials.start(self.root, waiter, (&reference, org), ask)
            }
            DependencyCall::Token(token, request, Asker { request_id, org }) => {
                let reference = CredentialRef::Token(token);
                let ask = || ask_token(&request, &request_id);
                self.credentials.start(self.root, waiter, (&reference, org), ask)
            }
            DependencyCall::Keys(issuer) => {
                self.jwks.wait(waiter, issuer);
                Vec::new()
            }
        };
        self.take(waiter.since, events);
    }

    /// Takes what parts report. Whoever waited goes on in its turn.
    fn take(&self, now: UnixTime, events: Vec<DependencyEvent>) {
        for event in events {
            match event {
                DependencyEvent::Called(dependency, outcome) => {
                    self.worker.with(|worker| worker.health.answered(dependency, outcome, now));
                    self.metrics.measure_call(dependency, outcome.ok());
                }
                DependencyEvent::Probed(dependency, outcome) => {
                    let counts =
                        self.worker.with(|worker| worker.health.probed(dependency, outcome, now));
                    if counts == Some(true) {
                        self.metrics.measure_call(dependency, outcome.ok());
                    }
                }
                DependencyEvent::Exchange(event) => self.pending.extend([event]),
                DependencyEvent::Credential(reference, reply, since) => {
                    self.worker.with(|worker| {
                        worker.take_answer(&reference, reply.as_ref(), (since, now));
                    });
                }
                DependencyEvent::Lease(call, reply) => {
                    let body = match &reply {
                        Ok(Reply::Vault { body }) => Ok(body.as_slice()),
                        Ok(_) => Err(CallFailure::Unreadable),
                        Err(why) => Err(*why),
                    };
                    let outcome = self.worker.with(|worker| worker.lease_answered(call, body, now));
                    if let Some(outcome) = outcome {
                        self.metrics.measure(Metric::Leases(outcome), 1);
                    }
                    self.measure_load(now);
                }
                DependencyEvent::Checkpointed(reply) => {
                    self.worker.with(|worker| worker.checkpoint_answered(reply));
                    self.measure_load(now);
                }
                DependencyEvent::PolicyRead { version, document, waiters } => {
                    self.worker
                        .with(|worker| worker.policy_read(&version, document.as_deref(), now));
                    self.measure_load(now);
                    let done = waiters.into_iter().map(|waiter| waiter.done(Reply::Policy));
                    self.take(now, done.collect());
                }
            }
        }
        self.wake_ticker();
    }

    /// Applies events from outside their streams, each in its own context, until one stream is let go.
    fn work_off(&self, now: UnixTime) {
        let in_turn = self.pending.wakes();
        while let Some(PendingEvent { context, event }) = self.pending.next() {
            // A stream that is gone has no context to enter; its reply was consumed all the same.
            if host::enter(context).is_err() {
                continue;
            }
            let gate = self.turn((context, now), event, 0);
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

    /// Sees to it that [`Gateway::woken`] is called if events are left.
    fn wake(&self) {
        self.pending.wake();
        self.wake_ticker();
    }

    /// Lets go of what the host holds.
    fn resume(&self, context: u32, now: UnixTime) -> Result<(), host::HostError> {
        let held = self.exchanges.held(context);
        self.exchanges.let_go(context, now);
        match held {
            Held::Request => host::resume_request(),
            Held::Response => host::resume_response(),
            Held::Nothing => Ok(()),
        }
    }

    /// One step of one exchange; its effects are carried out. New events are pending.
    fn turn(&self, (context, now): (u32, UnixTime), event: Event, shown: usize) -> Gate {
        let step = self.exchanges.step(&self.worker, (context, now), event);
        let Some(step) = step else {
            return Gate::Hold;
        };
        self.measure_load(now);
        for effect in step.effects {
            if self.apply(context, effect, shown).is_err() {
                error!("an effect could not be carried out: the request is refused");
                return step.gate.failed(Denial::Internal("effect"));
            }
        }
        step.gate
    }

    fn apply(&self, context: u32, effect: Effect, shown: usize) -> Result<(), host::HostError> {
        match effect {
            Effect::Start { id, call } => {
                // What a call may take begins now: the worker may have been busy with this event.
                self.start_call(Waiter { context, call: id, since: host::now() }, call);
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
                host::replace_buffer(BufferType::HttpResponseBody, shown, &bytes)
            }
            Effect::Measure(metric, value) => {
                self.metrics.measure(metric, value);
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
            | Gate::Response(ResponseGate::Replace(denial)) => {
                self.exchanges.reply(context, denial)
            }
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

    /// Writes what the operator should read, counts leases that were dropped, and how long a policy took if one was compiled since `since`, when the
    /// callback began.
    fn measure_load(&self, since: UnixTime) {
        let news = self.worker.with(|worker| {
            (worker.take_alarms(), worker.take_compiled(), worker.take_dropped_leases())
        });
        let (alarms, compiled, dropped) = news.unwrap_or_default();
        alarms.iter().for_each(|alarm| error!("{alarm}"));
        if dropped > 0 {
            self.metrics.measure(Metric::Leases(LeaseOutcome::Dropped), dropped);
        }
        let Some(version) = compiled else { return };
        let elapsed = host::now().since(since).as_millis();
        info!("policy {version} compiled in {elapsed} ms");
        self.metrics.measure(Metric::PolicyLoad, u64::try_from(elapsed).unwrap_or(u64::MAX));
    }
}

/// Answers the request of the current context.
pub(crate) fn send(reply: &LocalReply) {
    if host::send_reply(reply).is_err() {
        error!("a reply of the gateway could not be sent");
    }
}
