//! Awaits the connector's credential.
//!
//! Owns which credential goes on. Its read starts beside the admission, so that a cold cache costs no extra time.

use std::time::Duration;

use crate::connector_credential::{CredentialRef, Injected, Source};
use crate::denial::{CredentialMissing, Denial, LimitCause};
use crate::driver::call::{CallFailure, CallId, Dependency};
use crate::driver::event::Event;
use crate::driver::step::{Gate, RequestGate};
use crate::exchange::actions::forward::{Sending, pass};
use crate::exchange::actions::go_without::without_vault;
use crate::exchange::actions::read_credential::{read, secret_outcome, takes};
use crate::exchange::grant::{Credential, Grant};
use crate::exchange::handover::{Handover, Outcome, held, refuse};
use crate::exchange::request::{Request, RequestPart};
use crate::exchange::turn::Turn;
use crate::mcp::Operation;
use crate::vault::CachedSecret;

/// Admitted; waits for Vault.
#[derive(Debug)]
pub(crate) struct AwaitCredential {
    request: Box<Request>,
    grant: Box<Grant>,
    /// What is asked for: the credential, or the gateway's own secret for getting it.
    asked: CredentialRef,
    call: CallId,
}

/// Admitted, so the caller is proven: passes as soon as the credential is there.
pub(crate) fn enter(
    request: Box<Request>,
    grant: Box<Grant>,
    credential: Credential,
    turn: &mut Turn<'_>,
) -> Outcome<Box<AwaitCredential>> {
    turn.proven();
    if let Err(denial) = open_stream(&request, &grant, turn) {
        return refuse(denial, turn);
    }
    let wanted = match request.part {
        // The credential went upstream with the headers.
        RequestPart::Body => None,
        RequestPart::Whole | RequestPart::Head(_) => grant.credential.clone(),
    };
    let Some(wanted) = wanted else { return send(request, &grant, Injected::default(), turn) };
    let Ok(reference) = wanted.reference.clone() else {
        return without_credential(request, grant, (None, CallFailure::Unresolved), turn);
    };
    let now = turn.now;
    let was_read = matches!(&credential, Credential::Read(read) if *read == reference);
    let usable =
        |cached: &&CachedSecret| cached.is_live(now) || (was_read && cached.serves_its_reader(now));
    let cached = turn.worker.cached_secret(&reference).filter(usable);
    if let Some(injected) = cached.map(|cached| wanted.stated.render(cached)) {
        return send(request, &grant, injected, turn);
    }
    let first = takes(&reference, turn);
    let is_own = |asked: &CredentialRef| *asked == reference || first.contains(asked);
    let (asked, call) = match credential {
        Credential::Waiting(asked, call) if is_own(&asked) => (asked, call),
        Credential::Failed(asked, why) if is_own(&asked) => {
            return without_credential(request, grant, (Some(&asked), why), turn);
        }
        // Also when another was asked for: the policy moved meanwhile.
        Credential::Waiting(..)
        | Credential::Failed(..)
        | Credential::Read(_)
        | Credential::Settled => match read(&wanted, &reference, turn) {
            Ok(asked) => asked,
            Err((asked, why)) => {
                return without_credential(request, grant, (Some(&asked), why), turn);
            }
        },
    };
    Outcome::Wait(Box::new(AwaitCredential { request, grant, asked, call }), Gate::Hold)
}

/// When a caller with too many streams may look whether one has ended.
const STREAMS_RETRY: Duration = Duration::from_secs(5);

/// Counts a request whose answer is a stream that stays open.
fn open_stream(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let operation = request.message.as_ref().map(|message| &message.operation);
    let (
        Ok(Operation::Listen | Operation::Subscriptions { .. }),
        RequestPart::Whole | RequestPart::Body,
        None,
    ) = (operation, &request.part, &turn.context.slot)
    else {
        return Ok(());
    };
    let caller = (&grant.principal.org, grant.principal.identity.holder());
    match turn.worker.streams.open(caller, &grant.policy.streams) {
        Ok(slot) => {
            turn.context.slot = Some(slot);
            Ok(())
        }
        Err(limit) => {
            let (limit, cause) = (limit.into(), Box::new(LimitCause::Streams));
            Err(Denial::Limited { limit, cause, retry_after: STREAMS_RETRY })
        }
    }
}

impl AwaitCredential {
    pub(crate) fn on(
        self: Box<Self>,
        event: Event,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<AwaitCredential>> {
        match event {
            Event::CallDone { .. } | Event::CallFailed { .. } => {
                match secret_outcome(event, self.call, &self.asked, turn) {
                    None => Outcome::Wait(self, Gate::Hold),
                    Some(Err(why)) => {
                        let Self { request, grant, asked, .. } = *self;
                        without_credential(request, grant, (Some(&asked), why), turn)
                    }
                    Some(Ok(())) => self.with_credential(turn),
                }
            }
            event => held(event, "crediting", turn, || self),
        }
    }

    /// Uses the value just read, also when it may not be kept at all (`cache_seconds: 0`).
    fn with_credential(self, turn: &mut Turn<'_>) -> Outcome<Box<AwaitCredential>> {
        let wanted = self.grant.credential.as_ref();
        let reference = wanted.and_then(|wanted| wanted.reference.as_ref().ok());
        if let (Some(wanted), Some(reference)) = (wanted, reference)
            && *reference != self.asked
        {
            return match read(wanted, reference, turn) {
                Ok((asked, call)) => {
                    Outcome::Wait(Box::new(Self { asked, call, ..self }), Gate::Hold)
                }
                Err((asked, why)) => {
                    without_credential(self.request, self.grant, (Some(&asked), why), turn)
                }
            };
        }
        let cached = turn.worker.cached_secret(&self.asked);
        match wanted.zip(cached).map(|(wanted, cached)| wanted.stated.render(cached)) {
            Some(credential) => send(self.request, &self.grant, credential, turn),
            None => refuse(Denial::Internal("credential"), turn),
        }
    }
}

/// The credential is not to be had; an old one may do.
fn without_credential(
    request: Box<Request>,
    grant: Box<Grant>,
    (asked, why): (Option<&CredentialRef>, CallFailure),
    turn: &mut Turn<'_>,
) -> Outcome<Box<AwaitCredential>> {
    let wanted = grant.credential.clone();
    // Of the gateway's own secret, nothing follows for the caller.
    let own = wanted.as_ref().and_then(|wanted| wanted.reference.as_ref().ok());
    let is_token = matches!(asked, Some(CredentialRef::Token(_)));
    let is_own = asked.is_none() || asked == own || is_token;
    let stated = wanted.as_ref().map(|wanted| wanted.stated.source());
    let of_source = match stated {
        Some(Source::Exchange(_)) => Dependency::AuthorizationServer,
        Some(Source::Secret { .. }) | None => Dependency::Vault,
    };
    let dependency = asked.or(own).map_or(of_source, Dependency::of);
    let missing = wanted.as_ref().and_then(|wanted| wanted.stated.missing.clone());
    match (wanted.and_then(|wanted| without_vault(&wanted, why, turn)), missing) {
        (Some(credential), _) => send(request, &grant, credential, turn),
        (None, Some(missing)) if is_own && why.says_there_is_none() => {
            let (connector, id) = (grant.connector.clone(), turn.context.entry.request_id.clone());
            let elicitation = request.message.as_ref().map(|message| message.elicitation);
            let elicitation = elicitation.unwrap_or_default();
            let missing = CredentialMissing { connector, missing, id, elicitation };
            refuse(Denial::CredentialMissing(Box::new(missing)), turn)
        }
        (None, _) => refuse(Denial::Unavailable(dependency, why), turn),
    }
}

/// Lets the request go upstream, or the part of it that was judged.
fn send(
    request: Box<Request>,
    grant: &Grant,
    credential: Injected,
    turn: &mut Turn<'_>,
) -> Outcome<Box<AwaitCredential>> {
    match pass(request, grant, credential, turn) {
        Sending::Headers(pending) => Outcome::Next(Handover::HeadersForwarded(pending)),
        Sending::Whole(forwarded) => Outcome::Next(Handover::Forwarded(forwarded)),
        Sending::Refused(denial) => refuse(denial, turn),
        Sending::Noted(denial) => Outcome::End(Gate::Request(RequestGate::Refuse(denial))),
    }
}
