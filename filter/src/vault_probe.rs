//! Probes of Vault while no call needs it.
//!
//! Owns the probe that is on its way, and how often there is one. The core decides when Vault was silent for too long,
//! and what an answer means. No request starts a probe.

use std::time::Duration;

use portcullis_core::config::Vault;
use portcullis_core::driver::call::{CallFailure, Dependency};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;

use crate::guarded::Guarded;
use crate::host;
use crate::http_call;
use crate::waiter::DependencyEvent;

/// The least time between two probes.
const EVERY: Duration = Duration::from_secs(10);
/// Vault answers it without a token and without a line in its audit log; a standby answers 200, too (Vault API,
/// `/sys/health`).
const PATH: &str = "/v1/sys/health?standbyok=true&perfstandbyok=true";

/// The probes of one worker.
#[derive(Default)]
pub(crate) struct VaultProbe {
    state: Guarded<State>,
}

#[derive(Default)]
struct State {
    /// When the last one started.
    last: Option<UnixTime>,
    /// The host's token of the one on its way.
    running: Option<u32>,
}

impl VaultProbe {
    /// Time has passed: starts a probe that is due. The current context is the root's.
    pub(crate) fn tick(&self, worker: &Guarded<Worker>, now: UnixTime) -> Vec<DependencyEvent> {
        let due = self.state.with(|state| {
            let due = state.last.is_none_or(|last| now.since(last) >= EVERY);
            due && state.running.is_none()
        });
        let vault = |worker: &mut Worker| {
            let idle = worker.health.needs_probe(Dependency::Vault, now);
            worker.config.vault.clone().filter(|_| idle)
        };
        let vault = if due == Some(true) { worker.with(vault).flatten() } else { None };
        let Some(Vault { cluster, timeout, .. }) = vault else { return Vec::new() };
        let started = host::http_get((&cluster, &cluster), PATH, None, timeout);
        self.state.with(|state| {
            state.last = Some(now);
            state.running = started.as_ref().ok().copied();
        });
        match started {
            Ok(_) => Vec::new(),
            Err(_) => vec![DependencyEvent::Probed(Dependency::Vault, Err(CallFailure::Refused))],
        }
    }

    /// The reply to the HTTP call `token`, if it is this one.
    pub(crate) fn answered(&self, token: u32, headers: usize) -> Option<Vec<DependencyEvent>> {
        let since = self.state.with(|state| {
            state.running.take_if(|running| *running == token)?;
            state.last
        });
        let since = since.flatten()?;
        let outcome = http_call::status(headers).map(|_| host::now().since(since));
        Some(vec![DependencyEvent::Probed(Dependency::Vault, outcome)])
    }
}
