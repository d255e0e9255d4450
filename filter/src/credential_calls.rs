//! Reads of credentials from Vault and authorization servers: one per credential at a time, whoever waits for it.
//!
//! Owns the host's tokens, and who waits for which. What a reply means is the core's to say. Calls start from the root
//! context: the host forgets the calls of a stream that ends, and others may wait for them.

use portcullis_core::config::Vault;
use portcullis_core::connector_credential::CredentialRef;
use portcullis_core::driver::call::{CallFailure, Dependency, Reply};
use portcullis_core::time::UnixTime;
use portcullis_core::token_exchange::TokenRequest;
use portcullis_core::vault::SecretRef;

use crate::guarded::Guarded;
use crate::host;
use crate::http_call;
use crate::waiter::{DependencyEvent, Waiter};

/// So many reads may be on their way at once.
const MOST_CALLS: usize = 1_024;

/// The reads that are on their way.
#[derive(Default)]
pub(crate) struct CredentialCalls {
    calls: Guarded<Vec<Call>>,
}

struct Call {
    reference: CredentialRef,
    /// The host's token.
    token: u32,
    since: UnixTime,
    waiters: Vec<Waiter>,
}

impl CredentialCalls {
    /// `waiter` waits for `reference`. The current context is its exchange's, and is so again afterwards.
    pub(crate) fn start(
        &self,
        root: u32,
        waiter: Waiter,
        reference: &CredentialRef,
        ask: impl FnOnce() -> Result<u32, CallFailure>,
    ) -> Vec<DependencyEvent> {
        let joined = self.calls.with(|calls| {
            if let Some(call) = calls.iter_mut().find(|call| call.reference == *reference) {
                call.waiters.push(waiter);
                return Ok(true);
            }
            if calls.len() < MOST_CALLS { Ok(false) } else { Err(CallFailure::Refused) }
        });
        match joined {
            Some(Ok(true)) => return Vec::new(),
            Some(Ok(false)) => {}
            Some(Err(why)) => return vec![waiter.failed(why)],
            None => return vec![waiter.failed(CallFailure::Refused)],
        }
        let asked = host::enter(root).map_err(|_| CallFailure::Refused);
        let asked = asked.and_then(|()| ask());
        let _ = host::enter(waiter.context);
        match asked {
            Ok(token) => {
                let (reference, since) = (reference.clone(), waiter.since);
                let call = Call { reference, token, since, waiters: vec![waiter] };
                self.calls.with(|calls| calls.push(call));
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
        let call = self.calls.with(|calls| {
            let at = calls.iter().position(|call| call.token == token)?;
            Some(calls.swap_remove(at))
        });
        let Call { reference, since, waiters, .. } = call.flatten()?;
        let reply = match &reference {
            CredentialRef::Secret(_) => http_call::body(headers, size).map(Reply::vault),
            CredentialRef::Token(_) => {
                http_call::any_body(headers, size).map(|(status, body)| Reply::token(status, body))
            }
        };
        let elapsed = reply.is_ok().then(|| host::now().since(since));
        let mut events = vec![DependencyEvent::Called(Dependency::of(&reference), elapsed)];
        match reply {
            Ok(reply) => {
                let done = |waiter: Waiter| waiter.done(reply.shared());
                events.extend(waiters.into_iter().map(done));
            }
            Err(why) => events.extend(waiters.into_iter().map(|waiter| waiter.failed(why))),
        }
        Some(events)
    }

    /// The exchange of `context` is gone. What it asked for goes on: others may wait for it.
    pub(crate) fn forget(&self, context: u32) {
        self.calls.with(|calls| {
            for call in calls {
                call.waiters.retain(|waiter| waiter.context != context);
            }
        });
    }
}

/// The host's token of a read of Vault. The request id goes along, so that Vault's audit log has it.
pub(crate) fn ask_vault(
    vault: Option<&Vault>,
    secret: &SecretRef,
    request_id: &str,
) -> Result<u32, CallFailure> {
    let Vault { cluster, timeout, mounts, .. } = vault.ok_or(CallFailure::Refused)?;
    let path = secret.api_path(mounts);
    host::http_get((cluster, cluster), &path, Some(request_id), *timeout)
        .map_err(|_| CallFailure::Refused)
}

/// The host's token of a request to an authorization server.
pub(crate) fn ask_token(request: &TokenRequest, request_id: &str) -> Result<u32, CallFailure> {
    host::http_post(request, request_id).map_err(|_| CallFailure::Refused)
}
