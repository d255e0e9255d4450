//! Waits for a new credential after the connector's server refused the current one.
//!
//! Owns the reaction to such a refusal: one immediate read, so that the next call has the new credential. The refused
//! call is not sent again (docs/decisions/0014-a-refused-call-is-not-repeated.md). Its client waits for the read: when
//! it repeats the call, the new credential is available.

use crate::audit::AuditEvent;
use crate::connector_credential::CredentialRef;
use crate::denial::{AuditStatus, Denial};
use crate::driver::call::CallId;
use crate::driver::event::{Closing, End, Event};
use crate::driver::step::{Gate, ResponseGate};
use crate::exchange::actions::read_credential::{read, secret_outcome};
use crate::exchange::grant::CallerCredential;
use crate::exchange::handover::Outcome;
use crate::exchange::turn::Turn;
use crate::id::PolicyName;
use crate::vault::Refusal;

/// The read is pending; the server's response is held, and is never forwarded.
#[derive(Debug)]
pub(crate) struct ReadAgain {
    connector: PolicyName,
    credential: CallerCredential,
    reference: CredentialRef,
    /// The credential, or the gateway's own secret for getting it.
    asked: CredentialRef,
    call: CallId,
    /// The digest of the refused credential.
    refused: Option<[u8; 32]>,
}

/// The server refused `credential`.
pub(crate) fn enter(
    connector: PolicyName,
    credential: CallerCredential,
    turn: &mut Turn<'_>,
) -> Outcome<Box<ReadAgain>> {
    let (Some(sent), Ok(reference)) = (turn.context.credential_read, credential.reference.clone())
    else {
        return refused(turn);
    };
    match turn.worker.credential_refused(&reference, sent, turn.now) {
        Refusal::TooSoon => refused(turn),
        Refusal::Replaced => found(&connector, "another", turn),
        Refusal::ReadAgain => {
            let refused = turn.worker.cached_secret(&reference).map(|cached| cached.digest());
            match read(&credential, &reference, turn) {
                Ok((asked, call)) => {
                    let stage =
                        ReadAgain { connector, credential, reference, asked, call, refused };
                    Outcome::Wait(Box::new(stage), Gate::Response(ResponseGate::Pause))
                }
                Err((_, why)) => {
                    if why.leaves_credential_open() {
                        turn.worker.keep_refused(&reference);
                    }
                    found(&connector, "none", turn)
                }
            }
        }
    }
}

impl ReadAgain {
    pub(crate) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match event {
            Event::CallDone { .. } | Event::CallFailed { .. } => {
                match secret_outcome(event, self.call, &self.asked, turn) {
                    None => Outcome::Wait(self, Gate::Hold),
                    Some(Ok(())) if self.asked != self.reference => (*self).exchange(turn),
                    Some(Ok(())) => {
                        let now = turn.worker.cached_secret(&self.reference);
                        let now = now.map(|cached| cached.digest());
                        let what = if now == self.refused { "same" } else { "another" };
                        found(&self.connector, what, turn)
                    }
                    Some(Err(why)) => {
                        if why.leaves_credential_open() {
                            turn.worker.keep_refused(&self.reference);
                        }
                        found(&self.connector, "none", turn)
                    }
                }
            }
            Event::ResponseHead(_) | Event::ResponseBody { .. } => {
                Outcome::Wait(self, Gate::Response(ResponseGate::Pause))
            }
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::BodyWithheld
            | Event::Closed(_) => Outcome::Wait(self, Gate::Hold),
        }
    }

    /// The gateway's own secret has arrived: requests the token.
    fn exchange(self, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match read(&self.credential, &self.reference, turn) {
            Ok((asked, call)) => {
                let stage = Box::new(Self { asked, call, ..self });
                Outcome::Wait(stage, Gate::Response(ResponseGate::Pause))
            }
            Err((_, why)) => {
                if why.leaves_credential_open() {
                    turn.worker.keep_refused(&self.reference);
                }
                found(&self.connector, "none", turn)
            }
        }
    }
}

/// The end of an exchange whose client did not wait for the read.
pub(crate) fn close(closing: &Closing, turn: &mut Turn<'_>) {
    turn.note(&Denial::UpstreamRefused);
    // Nothing went to the client: an end without a reason is a client's.
    if closing.end != End::UpstreamGone {
        turn.context.entry.status = AuditStatus::Aborted.name();
    }
}

fn found<S>(connector: &PolicyName, found: &'static str, turn: &mut Turn<'_>) -> Outcome<S> {
    let connector = connector.to_string();
    turn.context.entry.events.push(AuditEvent::CredentialReadAgain { connector, found });
    refused(turn)
}

fn refused<S>(turn: &mut Turn<'_>) -> Outcome<S> {
    Outcome::End(turn.replace(Denial::UpstreamRefused))
}
