//! Questions to Vault and authorization servers: one per credential at a time, whoever waits for it, and one about leases,
//! for which no exchange waits.
//!
//! Owns the host's tokens, who waits for which, and how many there are. What a reply means is the core's to say. Calls
//! start from the root context: the host forgets the calls of a stream that ends, and others may wait for them.

use portcullis_core::config::Vault;
use portcullis_core::connector_credential::{CredentialRef, LeaseCall};
use portcullis_core::driver::call::{CallFailure, Dependency, Reply};
use portcullis_core::id::OrgId;
use portcullis_core::resilience::shares;
use portcullis_core::time::UnixTime;
use portcullis_core::token_exchange::TokenRequest;
use portcullis_core::vault::{LeaseId, SecretRef};

use crate::guarded::Guarded;
use crate::host;
use crate::http_call;
use crate::waiter::{DependencyEvent, Waiter};

/// So many questions may be on their way at once. Organisations share them: of one whose Vault is slow, half at most.
const MOST_CALLS: usize = 1_024;

/// The reads that are on their way.
#[derive(Default)]
pub(crate) struct CredentialCalls {
    calls: Guarded<Vec<Call>>,
}

struct Call {
    asked: Asked,
    /// The host's token.
    token: u32,
    since: UnixTime,
    waiters: Vec<Waiter>,
    /// For whom it was started.
    org: Option<OrgId>,
}

/// What a call asks.
enum Asked {
    Credential(CredentialRef),
    Lease(LeaseCall),
}

impl Asked {
    /// The credential that it brings.
    fn credential(&self) -> Option<&CredentialRef> {
        match self {
            Self::Credential(reference) | Self::Lease(LeaseCall::Replace(reference)) => {
                Some(reference)
            }
            Self::Lease(LeaseCall::Renew(..) | LeaseCall::Revoke(_)) => None,
        }
    }
}

impl CredentialCalls {
    /// `waiter` waits for `reference`. The current context is its exchange's, and is so again afterwards.
    pub(crate) fn start(
        &self,
        root: u32,
        waiter: Waiter,
        (reference, org): (&CredentialRef, Option<OrgId>),
        ask: impl FnOnce() -> Result<u32, CallFailure>,
    ) -> Vec<DependencyEvent> {
        let joined = self.calls.with(|calls| {
            let same = |call: &&mut Call| call.asked.credential() == Some(reference);
            if let Some(call) = calls.iter_mut().find(same) {
                call.waiters.push(waiter);
                return Ok(true);
            }
            let own = calls.iter().filter(|call| call.org == org).count();
            match shares::lets_in(MOST_CALLS, calls.len(), own) {
                true => Ok(false),
                // Of a share that is used up, nothing follows for Vault.
                false => Err(CallFailure::NotAsked),
            }
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
                let (asked, since) = (Asked::Credential(reference.clone()), waiter.since);
                let call = Call { asked, token, since, waiters: vec![waiter], org };
                self.calls.with(|calls| calls.push(call));
                Vec::new()
            }
            Err(why) => vec![waiter.failed(why)],
        }
    }

    /// Whether a question about a lease is on its way: there is one at a time.
    pub(crate) fn attends_lease(&self) -> bool {
        let of_lease = |call: &Call| matches!(call.asked, Asked::Lease(_));
        self.calls.with(|calls| calls.iter().any(of_lease)).unwrap_or(true)
    }

    /// Asks Vault about a lease. The current context is the root's.
    pub(crate) fn start_lease(
        &self,
        vault: Option<&Vault>,
        call: LeaseCall,
        since: UnixTime,
    ) -> Vec<DependencyEvent> {
        let org = call.org();
        let asked = match &call {
            _ if !self.has_room(org.as_ref()) => Err(CallFailure::NotAsked),
            // A call has one made already.
            LeaseCall::Replace(reference) if self.is_asked(reference) => Err(CallFailure::NotAsked),
            LeaseCall::Replace(CredentialRef::Secret(secret)) => ask_vault(vault, secret, None),
            LeaseCall::Replace(CredentialRef::Token(_)) => Err(CallFailure::Refused),
            LeaseCall::Renew(_, id) => put_lease(vault, &id.renewal()),
            LeaseCall::Revoke(revocation) => put_lease(vault, &revocation.id.revocation()),
        };
        match asked {
            Ok(token) => {
                let (asked, waiters) = (Asked::Lease(call), Vec::new());
                let call = Call { asked, token, since, waiters, org };
                self.calls.with(|calls| calls.push(call));
                Vec::new()
            }
            Err(why) => vec![DependencyEvent::Lease(call, Err(why))],
        }
    }

    /// Whether one more question of `org` is in its share.
    fn has_room(&self, org: Option<&OrgId>) -> bool {
        let lets_in = |calls: &mut Vec<Call>| {
            let own = calls.iter().filter(|call| call.org.as_ref() == org).count();
            shares::lets_in(MOST_CALLS, calls.len(), own)
        };
        self.calls.with(lets_in).unwrap_or_default()
    }

    fn is_asked(&self, reference: &CredentialRef) -> bool {
        let same = |call: &Call| call.asked.credential() == Some(reference);
        self.calls.with(|calls| calls.iter().any(same)).unwrap_or(true)
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
        let Call { asked, since, waiters, .. } = call.flatten()?;
        let reply = match asked.credential() {
            Some(CredentialRef::Secret(_)) | None => {
                http_call::body(headers, size).map(Reply::vault)
            }
            Some(CredentialRef::Token(_)) => {
                http_call::any_body(headers, size).map(|(status, body)| Reply::token(status, body))
            }
        };
        let dependency = asked.credential().map_or(Dependency::Vault, Dependency::of);
        let outcome = match &reply {
            // A caller without a credential says nothing about Vault.
            Err(why) if !why.says_there_is_none() => Err(*why),
            Ok(_) | Err(_) => Ok(host::now().since(since)),
        };
        let mut events = vec![DependencyEvent::Called(dependency, outcome)];
        if let Asked::Credential(reference) = &asked {
            let reply = reply.as_ref().ok().map(Reply::shared);
            events.push(DependencyEvent::Credential(reference.clone(), reply, since));
        }
        if let Asked::Lease(call) = asked {
            // Before those who came to wait for it go on.
            events.push(DependencyEvent::Lease(
                call,
                reply.as_ref().map(Reply::shared).map_err(|it| *it),
            ));
        }
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
    request_id: Option<&str>,
) -> Result<u32, CallFailure> {
    let Vault { cluster, timeout, mounts, .. } = vault.ok_or(CallFailure::Refused)?;
    let path = secret.api_path(mounts);
    host::http_get((cluster, cluster), &path, request_id, *timeout)
        .map_err(|_| CallFailure::Refused)
}

fn put_lease(vault: Option<&Vault>, path: &str) -> Result<u32, CallFailure> {
    let Vault { cluster, timeout, .. } = vault.ok_or(CallFailure::Refused)?;
    host::http_put((cluster, cluster), path, *timeout).map_err(|_| CallFailure::Refused)
}

/// Gives leases back where nothing is left to take the answer. The host cancels the calls of a context that is
/// gone, and writes before what a connection takes at once: each call needs a connection to Vault that is open and idle.
pub(crate) fn revoke_last(vault: Option<&Vault>, leases: &[LeaseId]) {
    for id in leases {
        let _ = put_lease(vault, &id.revocation());
    }
}

/// The host's token of a request to an authorization server.
pub(crate) fn ask_token(request: &TokenRequest, request_id: &str) -> Result<u32, CallFailure> {
    host::http_post(request, request_id).map_err(|_| CallFailure::Refused)
}
