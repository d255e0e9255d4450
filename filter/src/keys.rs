//! Keys of issuers: one fetch per issuer at a time, whoever waits for it.
//!
//! Owns the waiting. When to fetch, and what a reply means, is the core's keyring's to say. Fetches
//! start from the root context, in its tick: the host forgets the calls of a stream that ends, and
//! others may wait for them.

use std::time::Duration;

use log::{error, info, warn};
use portcullis_core::auth::token::issuer::{IssuerId, KeySource};
use portcullis_core::auth::token::jwks::MAX_KEYS;
use portcullis_core::call::{CallFailure, Dependency, Reply};
use portcullis_core::event::Event;
use portcullis_core::time::UnixTime;

use crate::calls::http_reply;
use crate::gateway::{Gateway, State, Waiter};
use crate::host;

/// How often the keyring is asked what is due: a little less than the slowest ticks, so that none of them
/// comes just too early and leaves it to the next.
const LOOK: Duration = Duration::from_millis(900);

/// One fetch.
pub(crate) struct Fetch {
    waiters: Vec<Waiter>,
    started: Option<Started>,
}

impl Fetch {
    /// Whether it hangs on the next tick.
    pub(crate) fn is_waiting(&self) -> bool {
        self.started.is_none()
    }
}

/// A fetch that is on its way.
struct Started {
    token: u32,
    since: UnixTime,
    /// Where the keys come from: another configuration may have come meanwhile.
    source: KeySource,
}

/// What it takes to ask.
struct Place {
    source: KeySource,
    cluster: String,
    authority: String,
    path: String,
    timeout: Duration,
}

impl Gateway {
    /// `waiter` waits for the keys of `issuer`.
    pub(crate) fn await_keys(&self, waiter: Waiter, issuer: IssuerId) {
        self.with(|state| queued(state, issuer).waiters.push(waiter));
        self.hurry();
    }

    /// Time has passed: starts what is due and what is waited for.
    pub(crate) fn fetch_keys(&self, now: UnixTime) {
        let waiting = self.with(|state| {
            if now >= state.look_at {
                state.look_at = now.after(LOOK);
                for issuer in state.worker.keyring.due(&state.worker.config.auth.issuers, now) {
                    queued(state, issuer);
                }
            }
            let waiting = state.fetches.iter().filter(|(_, fetch)| fetch.is_waiting());
            waiting.map(|(issuer, _)| issuer.clone()).collect::<Vec<_>>()
        });
        for issuer in waiting.unwrap_or_default() {
            if let Err(why) = self.start_fetch(&issuer, now) {
                self.fetched(&issuer, now, Err(why));
            }
        }
    }

    fn start_fetch(&self, issuer: &IssuerId, since: UnixTime) -> Result<(), CallFailure> {
        let place = self.with(|state| place(state, issuer)).flatten();
        let place = place.ok_or(CallFailure::Refused)?;
        let (cluster, path) = (&place.cluster, &place.path);
        let token = host::http_get((cluster, &place.authority), path, None, place.timeout)
            .map_err(|_| CallFailure::Refused)?;
        let started = Started { token, since, source: place.source };
        self.with(|state| queued(state, issuer.clone()).started = Some(started));
        Ok(())
    }

    /// Whether `token` was that of a fetch; its reply is taken.
    pub(crate) fn keys_answered(&self, token: u32, headers: usize, size: usize) -> bool {
        let found = self.with(|state| {
            state.fetches.iter().find_map(|(issuer, fetch)| {
                let started = fetch.started.as_ref().filter(|started| started.token == token)?;
                let issuers = &state.worker.config.auth.issuers;
                let current = issuers.iter().find(|known| known.id == *issuer);
                let current = current.is_some_and(|known| known.keys == started.source);
                Some((issuer.clone(), started.since, current))
            })
        });
        let Some((issuer, since, current)) = found.flatten() else {
            return false;
        };
        let reply = http_reply(headers, size);
        let now = host::now();
        self.measure_call(Dependency::Issuer, reply.is_ok().then(|| now.since(since)), now);
        self.fetched(&issuer, now, reply.and_then(|body| if current { Ok(body) } else { STALE }));
        true
    }

    /// Hands over what came, and wakes whoever waits.
    fn fetched(&self, issuer: &IssuerId, now: UnixTime, outcome: Result<Vec<u8>, CallFailure>) {
        match &outcome {
            Ok(body) => info!("keys of {issuer}: {} bytes", body.len()),
            Err(why) => warn!("keys of {issuer} could not be fetched: {why}"),
        }
        let waiters = self.with(|state| {
            let issuers = &state.worker.config.auth.issuers;
            let outcome = outcome.as_deref().map_err(|why| *why);
            state.worker.keyring.fetched(issuer, issuers, now, outcome);
            let left_out = state.worker.keyring.left_out(issuer);
            (left_out, state.fetches.remove(issuer).map(|fetch| fetch.waiters))
        });
        let (left_out, waiters) = waiters.unwrap_or_default();
        if left_out > 0 {
            error!(
                "keys of {issuer}: the last {left_out} of the set are not used, expected at most {MAX_KEYS}: \
                 tokens signed by them are refused"
            );
        }
        let waiters = waiters.unwrap_or_default().into_iter();
        let mail = waiters.map(|Waiter { context, call: id, .. }| {
            (context, Event::CallDone { id, reply: Reply::Keys })
        });
        self.queue(mail.collect::<Vec<_>>());
        self.work_off(now);
    }
}

/// The answer to a question that is no longer asked.
const STALE: Result<Vec<u8>, CallFailure> = Err(CallFailure::Disconnected);

fn queued(state: &mut State, issuer: IssuerId) -> &mut Fetch {
    state.fetches.entry(issuer).or_insert(Fetch { waiters: Vec::new(), started: None })
}

/// Where the keys of `issuer` are, if it is one that has some to fetch.
fn place(state: &State, issuer: &IssuerId) -> Option<Place> {
    let config = &state.worker.config;
    let issuer = config.auth.issuers.iter().find(|known| known.id == *issuer)?;
    let source = issuer.keys.clone();
    match &issuer.keys {
        KeySource::Jwks(jwks) => Some(Place {
            source,
            cluster: jwks.cluster.clone(),
            authority: jwks.authority.clone(),
            path: jwks.path.clone(),
            timeout: jwks.timeout,
        }),
        KeySource::Inline(_) => None,
        KeySource::Secret { secret, .. } => {
            let vault = config.vault.as_ref()?;
            Some(Place {
                source,
                cluster: vault.cluster.clone(),
                authority: vault.cluster.clone(),
                path: secret.api_path(&vault.mounts),
                timeout: vault.timeout,
            })
        }
    }
}
