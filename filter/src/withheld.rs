//! Bodies that the host has and does not show.
//!
//! Owns how a host is found out that cannot hold: in `hold` mode the filter pauses at the headers and reads the body, which
//! takes `allow_on_headers_stop_iteration`. Without it Envoy keeps the body to itself until the headers go on, and the
//! request would wait for ever. Says nothing of a client that takes its time: it counts bytes that have arrived.

use std::time::Duration;

use portcullis_core::event::Event;
use portcullis_core::time::UnixTime;

use crate::gateway::{Body, Gateway};
use crate::host::{self, MapType};

/// How often requests are looked through. Ticks come a little early, too.
const EVERY: Duration = Duration::from_millis(900);
/// How long the host has had bytes at least when they count as withheld: a filter in front may hold them for a while.
const PATIENCE: Duration = Duration::from_millis(800);
/// Of how many requests the host is asked each time: those that were asked about longest ago.
const MOST: usize = 256;

impl Gateway {
    /// Ends requests whose body the host has and does not show.
    pub(crate) fn look_for_withheld_bodies(&self, now: UnixTime) {
        let due = self.with(|state| {
            if now.since(state.looked_for_bodies) < EVERY {
                return Vec::new();
            }
            state.looked_for_bodies = now;
            let mut due = Vec::new();
            for (context, entry) in &mut state.exchanges {
                match entry.body {
                    Body::Unseen if entry.exchange.awaits_body() => {
                        entry.body = Body::UnseenAt(now);
                    }
                    Body::UnseenAt(since)
                        if now.since(since) >= PATIENCE && entry.exchange.awaits_body() =>
                    {
                        due.push((since, *context));
                    }
                    Body::Shown | Body::Unseen | Body::UnseenAt(_) => {}
                }
            }
            due.sort_unstable();
            due.truncate(MOST);
            for (_, context) in &due {
                if let Some(entry) = state.exchanges.get_mut(context) {
                    entry.body = Body::UnseenAt(now);
                }
            }
            due
        });
        let due = due.unwrap_or_default().into_iter().map(|(_, context)| context);
        let withheld = due.filter(|context| host::enter(*context).is_ok() && has_body());
        let mail: Vec<_> = withheld.map(|context| (context, Event::BodyWithheld)).collect();
        let _ = host::enter(self.root());
        self.queue(mail);
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
