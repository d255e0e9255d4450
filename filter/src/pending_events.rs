//! Events of streams that have not had their turn.
//!
//! Owns their order, and the queue of the host through which the gateway has itself called for what is left. Why
//! something is left is the gateway's to say.

use std::cell::Cell;
use std::collections::VecDeque;

use log::error;
use portcullis_core::driver::event::Event;

use crate::guarded::Guarded;
use crate::host;
use crate::waiter::PendingEvent;

/// The events, in the order in which they came.
pub(crate) struct PendingEvents {
    events: Guarded<VecDeque<PendingEvent>>,
    wake: Cell<Wake>,
}

/// How the gateway has itself called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// The host has no queue for it: what waits is worked off at once, in whatever order lines then leave.
    Unable,
    /// Through this queue.
    Through(u32),
    /// It has done so, and not been called yet.
    Called(u32),
}

impl PendingEvents {
    /// None yet. The queue is this VM's own: the host calls whoever registered its name last.
    pub(crate) fn new(seed: u64) -> Self {
        let wake = match host::register_queue(&format!("portcullis.{seed:016x}")) {
            Ok(queue) => Wake::Through(queue),
            Err(_) => Wake::Unable,
        };
        Self { events: Guarded::default(), wake: Cell::new(wake) }
    }

    /// Puts events aside for their streams.
    pub(crate) fn extend(&self, events: impl IntoIterator<Item = PendingEvent>) {
        self.events.with(|pending| pending.extend(events));
    }

    /// The event whose turn it is.
    pub(crate) fn next(&self) -> Option<PendingEvent> {
        self.events.with(VecDeque::pop_front).flatten()
    }

    /// Those of `context`.
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

    /// Whether what is left after a turn gets one of its own.
    pub(crate) fn wakes(&self) -> bool {
        self.wake.get() != Wake::Unable
    }

    /// Has the gateway called if there are events left.
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

    /// The host calls, as it was asked to.
    pub(crate) fn woken(&self, queue: u32) {
        // Somebody else may have been first; the queue is empty then.
        let _ = host::dequeue(queue);
        if self.wake.get() == Wake::Called(queue) {
            self.wake.set(Wake::Through(queue));
        }
    }
}
