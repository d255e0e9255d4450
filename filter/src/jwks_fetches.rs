//! Keys of issuers: one fetch per issuer at a time, for any number of waiters.
//!
//! Owns the waiting. The core's keyring decides when to fetch, and reads the reply. Fetches start from the root
//! context, in its tick: the host drops the calls of a stream that ends, and other streams may wait for them.

use std::collections::BTreeMap;
use std::time::Duration;

use log::{error, info, warn};
use portcullis_core::auth::token::issuer::{IssuerId, KeySource};
use portcullis_core::auth::token::jwks::MAX_KEYS;
use portcullis_core::config::Config;
use portcullis_core::driver::call::{CallFailure, Dependency, Reply};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;

use crate::guarded::Guarded;
use crate::host;
use crate::http_call;
use crate::waiter::{DependencyEvent, Waiter};

/// How often the keyring is asked for due fetches: slightly less than the slowest ticks, so that no tick is just too
/// early.
const LOOK: Duration = Duration::from_millis(900);

/// Keys that are being fetched, or will be.
#[derive(Default)]
pub(crate) struct JwksFetches {
    state: Guarded<State>,
}

#[derive(Default)]
struct State {
    fetches: BTreeMap<IssuerId, Fetch>,
    /// When the keyring was last asked for due fetches.
    looked: Option<UnixTime>,
}

/// One fetch.
#[derive(Default)]
struct Fetch {
    waiters: Vec<Waiter>,
    started: Option<Started>,
}

impl Fetch {
    /// Whether it needs the next tick.
    const fn is_waiting(&self) -> bool {
        self.started.is_none()
    }
}

/// A pending fetch.
struct Started {
    token: u32,
    since: UnixTime,
    /// The source of the keys: the configuration may have changed since.
    source: KeySource,
}

impl JwksFetches {
    /// `waiter` waits for the keys of `issuer`, from the next tick on.
    pub(crate) fn wait(&self, waiter: Waiter, issuer: IssuerId) {
        self.state.with(|state| state.fetches.entry(issuer).or_default().waiters.push(waiter));
    }

    /// Whether a fetch needs the next tick.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.with(|state| state.fetches.values().any(Fetch::is_waiting)).unwrap_or_default()
    }

    /// Time has passed: starts fetches that are due or have waiters.
    pub(crate) fn tick(&self, worker: &Guarded<Worker>, now: UnixTime) -> Vec<DependencyEvent> {
        let look = self.state.with(|state| {
            let look = state.looked.is_none_or(|looked| now.since(looked) >= LOOK);
            if look {
                state.looked = Some(now);
            }
            look
        });
        let due = |worker: &mut Worker| worker.keyring.due(&worker.config.auth.issuers, now);
        let due =
            if look == Some(true) { worker.with(due).unwrap_or_default() } else { Vec::new() };
        let waiting = self.state.with(|state| {
            for issuer in due {
                state.fetches.entry(issuer).or_default();
            }
            let waiting = state.fetches.iter().filter(|(_, fetch)| fetch.is_waiting());
            waiting.map(|(issuer, _)| issuer.clone()).collect::<Vec<_>>()
        });
        let mut events = Vec::new();
        for issuer in waiting.unwrap_or_default() {
            if let Err(why) = self.start(worker, &issuer, now) {
                events.extend(self.fetched(worker, &issuer, now, Err(why)));
            }
        }
        events
    }

    fn start(
        &self,
        worker: &Guarded<Worker>,
        issuer: &IssuerId,
        since: UnixTime,
    ) -> Result<(), CallFailure> {
        let place = worker.with(|worker| place(&worker.config, issuer)).flatten();
        let place = place.ok_or(CallFailure::Refused)?;
        let (cluster, path) = (&place.cluster, &place.path);
        let token = host::http_get((cluster, &place.authority), path, None, place.timeout)
            .map_err(|_| CallFailure::Refused)?;
        let started = Started { token, since, source: place.source };
        self.state.with(|state| {
            state.fetches.entry(issuer.clone()).or_default().started = Some(started);
        });
        Ok(())
    }

    /// The reply to the HTTP call `token`, if it is one of these.
    pub(crate) fn answered(
        &self,
        worker: &Guarded<Worker>,
        token: u32,
        headers: usize,
        size: usize,
    ) -> Option<Vec<DependencyEvent>> {
        let found = self.state.with(|state| {
            state.fetches.iter().find_map(|(issuer, fetch)| {
                let started = fetch.started.as_ref().filter(|started| started.token == token)?;
                Some((issuer.clone(), started.since, started.source.clone()))
            })
        });
        let (issuer, since, source) = found.flatten()?;
        let current = worker.with(|worker| {
            let issuers = &worker.config.auth.issuers;
            issuers.iter().any(|known| known.id == issuer && known.keys == source)
        });
        let reply = http_call::body(headers, size);
        let now = host::now();
        let called = reply.as_ref().map(|_| now.since(since)).map_err(|why| *why);
        worker.with(|worker| worker.health.fetched(&issuer, called, now));
        let outcome = reply.and_then(|body| if current == Some(true) { Ok(body) } else { STALE });
        let mut events = vec![DependencyEvent::Called(Dependency::Issuer, called)];
        events.extend(self.fetched(worker, &issuer, now, outcome));
        Some(events)
    }

    /// Passes the result on; the waiters continue.
    fn fetched(
        &self,
        worker: &Guarded<Worker>,
        issuer: &IssuerId,
        now: UnixTime,
        outcome: Result<Vec<u8>, CallFailure>,
    ) -> impl Iterator<Item = DependencyEvent> + use<> {
        match &outcome {
            Ok(body) => info!("keys of {issuer}: {} bytes", body.len()),
            Err(why) => warn!("keys of {issuer} could not be fetched: {why}"),
        }
        let left_out = worker.with(|worker| {
            let outcome = outcome.as_deref().map_err(|why| *why);
            worker.keyring.fetched(issuer, &worker.config.auth.issuers, now, outcome);
            worker.keyring.left_out(issuer)
        });
        if let Some(left_out @ 1..) = left_out {
            error!(
                "keys of {issuer}: the last {left_out} of the set are not used, expected at most {MAX_KEYS}: \
                 tokens signed by them are refused"
            );
        }
        let fetch = self.state.with(|state| state.fetches.remove(issuer)).flatten();
        let waiters = fetch.unwrap_or_default().waiters;
        waiters.into_iter().map(|waiter| waiter.done(Reply::Keys))
    }
}

/// The result of a fetch that is no longer needed.
const STALE: Result<Vec<u8>, CallFailure> = Err(CallFailure::Disconnected);

/// The parameters of a fetch.
struct Place {
    source: KeySource,
    cluster: String,
    authority: String,
    path: String,
    timeout: Duration,
}

/// The source of the keys of `issuer`, if it has keys to fetch.
fn place(config: &Config, issuer: &IssuerId) -> Option<Place> {
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
