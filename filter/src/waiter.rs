//! The waiters for calls, and the events for them.
//!
//! Owns the events by which the parts that call Redis, Vault and issuers report to the gateway. They know no exchange:
//! an event is for a context.

use std::time::Duration;

use portcullis_core::connector_credential::{CredentialRef, LeaseCall};
use portcullis_core::driver::call::{CallFailure, CallId, Dependency, Reply};
use portcullis_core::driver::event::Event;
use portcullis_core::id::PolicyVersion;
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::Value;

/// A call of an exchange.
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

/// An event of an exchange that was not handled yet.
#[derive(Debug)]
pub(crate) struct PendingEvent {
    pub(crate) context: u32,
    pub(crate) event: Event,
}

/// The result of calling a dependency. The gateway handles them in order.
#[derive(Debug)]
pub(crate) enum DependencyEvent {
    /// It answered a call after this time, or the failure.
    Called(Dependency, Result<Duration, CallFailure>),
    /// The same of a probe.
    Probed(Dependency, Result<Duration, CallFailure>),
    /// An exchange's call is over.
    Exchange(PendingEvent),
    /// The outcome of a call for a credential, made at that time: the worker takes it first.
    Credential(CredentialRef, Option<Reply>, UnixTime),
    /// Vault's answer to a call about a lease, or the failure.
    Lease(LeaseCall, Result<Reply, CallFailure>),
    /// Redis's answer to a checkpoint of the audit chain, if any.
    Checkpointed(Option<Value>),
    /// The worker takes a policy document before its waiters continue; none when Redis has none.
    PolicyRead { version: PolicyVersion, document: Option<Vec<u8>>, waiters: Vec<Waiter> },
}
