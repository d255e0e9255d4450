//! Events of streams that were not handled yet.
//!
//! Owns their order, and the host's queue through which the gateway schedules a call of itself. The gateway decides why
//! events are left.

use std::cell::Cell;
use std::collections::VecDeque;

use log::error;
use portcullis_core::driver::event::Event;

use crate::guarded::Guarded;
use crate::host;
use crate::waiter::PendingEvent;

/// The events, in order of arrival.
pub(crate) struct PendingEvents {
    events: Guarded<VecDeque<PendingEvent>>,
    wake: Cell<Wake>,
}

/// How the gateway schedules a call of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// The host has no queue: the events are handled at once, and log lines may be out of order.
    Unable,
    /// Through this queue.
    Through(u32),
    /// A call through this queue is scheduled.
    Called(u32),
}

impl PendingEvents {
    /// No events. The queue is this VM's own: the host calls the VM that registered its name last.
    pub(crate) fn new(seed: u64) -> Self {
        let wake = match host::register_queue(&format!("portcullis.{seed:016x}")) {
            Ok(queue) => Wake::Through(queue),
            Err(_) => Wake::Unable,
        };
        Self { events: Guarded::default(), wake: Cell::new(wake) }
    }

    /// Adds events for later handling.
    pub(crate) fn extend(&self, events: impl IntoIterator<Item = PendingEvent>) {
        self.events.with(|pending| pending.extend(events));
    }

    /// The next event.
    pub(crate) fn next(&self) -> Option<PendingEvent> {
        self.events.with(VecDeque::pop_front).flatten()
    }

    /// Removes and returns those of `context`.
    pub(crate) fn of(&self, context: u32) -> VecDeque<Event> {
        let own = self.events.with(|pending| {
            if pending.is_empty() {
                return VecDeque::new();
            }
            let (own, others): (VecDeque<_>, _) =
                std::mem::take(pending).into_iter().partition(|event| event.context == context);
            *pending = others;
            own
        });
        own.unwrap_or_default().into_iter().map(|pending| pending.event).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.with(|pending| pending.is_empty()).unwrap_or(true)
    }

    /// Whether events that are left after a turn get a turn of their own.
    pub(crate) fn wakes(&self) -> bool {
        self.wake.get() != Wake::Unable
    }

    /// Schedules a call of the gateway if events are left.
    pub(crate) fn wake(&self) {
        let Wake::Through(queue) = self.wake.get() else { return };
        if self.is_empty() {
            return;
        }
        self.wake.set(Wake::Called(queue));
        if host::enqueue(queue).is_err() {
            error!("the host does not take what wakes this worker: events wait for ticks");
            self.wake.set(Wake::Unable);
        }
    }

    /// The host calls, as scheduled.
    pub(crate) fn woken(&self, queue: u32) {
        // Another VM may have been first; the queue is empty then.
        let _ = host::dequeue(queue);
        if self.wake.get() == Wake::Called(queue) {
            self.wake.set(Wake::Through(queue));
        }
    }
}
