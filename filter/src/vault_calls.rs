//! Reads of credentials from Vault.
//!
//! Owns the host's tokens, and who waits for which. What a reply means is the core's to say.

use portcullis_core::call::{CallFailure, Dependency, Reply};
use portcullis_core::config::Vault;
use portcullis_core::hashing::Map;
use portcullis_core::vault::SecretRef;

use crate::guarded::Guarded;
use crate::host::{self, MapType};
use crate::http_call;
use crate::waiter::{DependencyEvent, Waiter};

/// The reads that are on their way.
#[derive(Default)]
pub(crate) struct VaultCalls {
    /// By the host's token.
    waiters: Guarded<Map<u32, Waiter>>,
}

impl VaultCalls {
    /// `waiter` waits for `secret`. The current context is its exchange's.
    pub(crate) fn start(
        &self,
        vault: Option<&Vault>,
        waiter: Waiter,
        secret: &SecretRef,
    ) -> Vec<DependencyEvent> {
        match ask(vault, secret) {
            Ok(token) => {
                self.waiters.with(|waiters| waiters.insert(token, waiter));
                Vec::new()
            }
            Err(why) => vec![waiter.failed(why)],
        }
    }

    /// The reply to the HTTP call `token`, if it is one of these.
    pub(crate) fn answered(
        &self,
        token: u32,
        headers: usize,
        size: usize,
    ) -> Option<Vec<DependencyEvent>> {
        let waiter = self.waiters.with(|waiters| waiters.remove(&token)).flatten()?;
        let reply = http_call::body(headers, size);
        let elapsed = reply.is_ok().then(|| host::now().since(waiter.since));
        let outcome = match reply {
            Ok(body) => waiter.done(Reply::Vault { body }),
            Err(why) => waiter.failed(why),
        };
        Some(vec![DependencyEvent::Called(Dependency::Vault, elapsed), outcome])
    }

    /// The exchange of `context` is gone.
    pub(crate) fn forget(&self, context: u32) {
        self.waiters.with(|waiters| waiters.retain(|_, waiter| waiter.context != context));
    }
}

/// The host's token of a read.
fn ask(vault: Option<&Vault>, secret: &SecretRef) -> Result<u32, CallFailure> {
    let Vault { cluster, timeout, mounts, .. } = vault.ok_or(CallFailure::Refused)?;
    let path = secret.api_path(mounts);
    let [request_id] = host::values(MapType::RequestHeaders, ["x-request-id"]);
    let request_id = String::from_utf8(request_id).unwrap_or_default();
    host::http_get((cluster, cluster), &path, Some(&request_id), *timeout)
        .map_err(|_| CallFailure::Refused)
}
