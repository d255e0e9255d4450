//! Bodies that the host has and does not show.
//!
//! Owns the detection of a host that cannot hold: in `hold` mode the filter pauses at the headers and reads the body,
//! which needs `allow_on_headers_stop_iteration`. Without it Envoy does not show the body until the headers are
//! forwarded, and the request would wait for ever. A slow client is not affected: only bytes that have arrived count.

use std::cell::Cell;
use std::time::Duration;

use portcullis_core::driver::event::Event;
use portcullis_core::time::UnixTime;

use crate::exchanges::Exchanges;
use crate::host::{self, MapType};
use crate::waiter::PendingEvent;

/// The interval of the search. Ticks come a little early, too.
const EVERY: Duration = Duration::from_millis(900);
/// How long the host must have had bytes before they count as withheld: a filter in front may hold them for a while.
const PATIENCE: Duration = Duration::from_millis(800);
/// The most requests about which the host is asked each time: those that were asked about longest ago.
const MOST: usize = 256;

/// The search for such bodies.
#[derive(Default)]
pub(crate) struct WithheldBodies {
    looked: Cell<Option<UnixTime>>,
}

impl WithheldBodies {
    /// The requests whose body the host has and does not show. Leaves the current context.
    pub(crate) fn find(&self, exchanges: &Exchanges, now: UnixTime) -> Vec<PendingEvent> {
        if self.looked.get().is_some_and(|looked| now.since(looked) < EVERY) {
            return Vec::new();
        }
        self.looked.set(Some(now));
        let unseen = exchanges.unseen_bodies(now, PATIENCE, MOST).into_iter();
        let withheld = unseen.filter(|context| host::enter(*context).is_ok() && has_body());
        withheld.map(|context| PendingEvent { context, event: Event::BodyWithheld }).collect()
    }
}

/// Whether bytes of the body of the current context have arrived. Envoy counts them together with the headers.
fn has_body() -> bool {
    let total = host::integer_property(&["request", "total_size"]);
    let headers = host::headers(MapType::RequestHeaders);
    let sizes = headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
    let headers = sizes.fold(0_usize, usize::saturating_add);
    total.is_some_and(|total| total > u64::try_from(headers).unwrap_or(u64::MAX))
}
