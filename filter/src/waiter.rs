//! Who waits for a call, and what comes of it.
//!
//! Owns the words in which the parts that ask Redis, Vault and issuers tell the gateway what happened. They
//! know no exchange: an event is for a context.

use std::time::Duration;

use portcullis_core::connector_credential::{CredentialRef, LeaseCall};
use portcullis_core::driver::call::{CallFailure, CallId, Dependency, Reply};
use portcullis_core::driver::event::Event;
use portcullis_core::id::PolicyVersion;
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::Value;

/// Which call of which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) context: u32,
    pub(crate) call: CallId,
    pub(crate) since: UnixTime,
}

impl Waiter {
    /// The call came back.
    pub(crate) fn done(self, reply: Reply) -> DependencyEvent {
        self.told(Event::CallDone { id: self.call, reply })
    }

    /// The call failed.
    pub(crate) fn failed(self, why: CallFailure) -> DependencyEvent {
        self.told(Event::CallFailed { id: self.call, why })
    }

    fn told(self, event: Event) -> DependencyEvent {
        DependencyEvent::Exchange(PendingEvent { context: self.context, event })
    }
}

/// An event of an exchange that has not had its turn.
#[derive(Debug)]
pub(crate) struct PendingEvent {
    pub(crate) context: u32,
    pub(crate) event: Event,
}

/// What came of asking a dependency. The gateway takes them in order.
#[derive(Debug)]
pub(crate) enum DependencyEvent {
    /// It answered a question after so long, or did not answer.
    Called(Dependency, Option<Duration>),
    /// An exchange's call is over.
    Exchange(PendingEvent),
    /// The question for a credential, asked at that time, was answered, or was not: the worker takes it first.
    Credential(CredentialRef, Option<Reply>, UnixTime),
    /// Vault answered, or did not, to a question about a lease.
    Lease(LeaseCall, Result<Reply, CallFailure>),
    /// Redis answered, or did not, to a checkpoint of the audit chain.
    Checkpointed(Option<Value>),
    /// The worker is to take a policy document before who waited for it goes on; none when Redis has none.
    PolicyRead { version: PolicyVersion, document: Option<Vec<u8>>, waiters: Vec<Waiter> },
}
