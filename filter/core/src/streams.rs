//! Open streams, counted by caller and organisation.
//!
//! Owns the count of one worker. A stream costs a connection and a request to the upstream as long as it is open, which
//! no window bounds. Knows nothing of its content.

use std::collections::HashMap;

use crate::id::OrgId;
use crate::policy::Streams;

/// The streams of one worker.
#[derive(Debug, Default)]
pub struct OpenStreams {
    callers: HashMap<(OrgId, String), u32>,
    organisations: HashMap<OrgId, u32>,
}

/// A stream that is counted until it is closed.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    org: OrgId,
    caller: String,
}

impl OpenStreams {
    /// Counts one more stream of `caller`.
    ///
    /// # Errors
    /// The bound that it would exceed, by its name in refusals.
    pub fn open(
        &mut self,
        (org, caller): (&OrgId, &str),
        bounds: &Streams,
    ) -> Result<Slot, &'static str> {
        let slot = Slot { org: org.clone(), caller: caller.to_owned() };
        let own = self.callers.get(&(slot.org.clone(), slot.caller.clone()));
        if own.is_some_and(|open| *open >= bounds.per_caller) {
            return Err("streams.per_caller");
        }
        if self.organisations.get(org).is_some_and(|open| *open >= bounds.per_organisation) {
            return Err("streams.per_organisation");
        }
        let own = self.callers.entry((slot.org.clone(), slot.caller.clone())).or_default();
        *own = own.saturating_add(1);
        let all = self.organisations.entry(slot.org.clone()).or_default();
        *all = all.saturating_add(1);
        Ok(slot)
    }

    /// The stream is over.
    pub fn close(&mut self, slot: Slot) {
        let Slot { org, caller } = slot;
        if let Some(open) = self.organisations.get_mut(&org) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.organisations.remove(&org);
            }
        }
        let caller = (org, caller);
        if let Some(open) = self.callers.get_mut(&caller) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.callers.remove(&caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Findings 2.5 and 12.9: 400 streams of one key left none for another organisation.
    #[test]
    fn one_caller_and_one_organisation_have_only_so_many() {
        let mut streams = OpenStreams::default();
        let bounds = Streams { per_caller: 2, per_organisation: 3, ..Streams::default() };
        let (acme, globex) = (OrgId::new("acme").unwrap(), OrgId::new("globex").unwrap());
        let first = streams.open((&acme, "a"), &bounds).unwrap();
        let _second = streams.open((&acme, "a"), &bounds).unwrap();
        assert_eq!(streams.open((&acme, "a"), &bounds).unwrap_err(), "streams.per_caller");
        let third = streams.open((&acme, "b"), &bounds).unwrap();
        assert_eq!(streams.open((&acme, "b"), &bounds).unwrap_err(), "streams.per_organisation");
        let other = streams.open((&globex, "a"), &bounds).unwrap();
        streams.close(first);
        let again = streams.open((&acme, "a"), &bounds).unwrap();
        for slot in [third, other, again] {
            streams.close(slot);
        }
        assert_eq!((streams.callers.len(), streams.organisations.len()), (1, 1));
    }
}
