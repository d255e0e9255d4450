//! Responses that are open for long, and have an entry of their own from then on.
//!
//! Owns which they are, when their entry is due, and whose share of the places they take. Only the end of a request that
//! has an entry itself can write one, so one of any request of the same VM writes it: first its own, if it is due, else
//! the oldest.

use std::collections::VecDeque;
use std::time::Duration;

use super::Entry;
use crate::resilience::shares;
use crate::time::UnixTime;

/// So many responses wait for their entry; those that begin beyond have one at their end alone.
const MOST: usize = 1_024;
/// So many of one caller.
const MOST_OF_CALLER: usize = 32;

/// The number of a response in this worker. A client may choose the id of its request, and not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseNumber(u64);

/// Responses that have no entry yet, the oldest first.
#[derive(Debug, Default)]
pub struct OpenResponses {
    waiting: VecDeque<Waiting>,
    /// How many began; the numbers of those that are forgotten do not come back.
    begun: u64,
}

#[derive(Debug)]
struct Waiting {
    number: ResponseNumber,
    since: UnixTime,
    entry: Box<Entry>,
}

impl Waiting {
    fn is_of_org(&self, entry: &Entry) -> bool {
        self.entry.org_id == entry.org_id
    }

    fn is_of_caller(&self, entry: &Entry) -> bool {
        self.is_of_org(entry)
            && self.entry.api_key_id == entry.api_key_id
            && self.entry.client_id == entry.client_id
    }
}

impl OpenResponses {
    /// A response began, as `entry` says; none when the shares of its organisation or caller are used up.
    pub fn begin(&mut self, entry: Entry, now: UnixTime) -> Option<ResponseNumber> {
        let of_org = self.waiting.iter().filter(|known| known.is_of_org(&entry)).count();
        let of_caller = self.waiting.iter().filter(|known| known.is_of_caller(&entry)).count();
        if of_caller >= MOST_OF_CALLER || !shares::lets_in(MOST, self.waiting.len(), of_org) {
            return None;
        }
        self.begun = self.begun.saturating_add(1);
        let (number, entry) = (ResponseNumber(self.begun), Box::new(entry));
        self.waiting.push_back(Waiting { number, since: now, entry });
        Some(number)
    }

    /// The entry that the end of a request writes before its own, of a response that has been open for so long. `ended` is
    /// the response that ends with it.
    pub fn due(
        &mut self,
        ended: Option<ResponseNumber>,
        now: UnixTime,
        after: Duration,
    ) -> Option<Entry> {
        let own = self.waiting.iter().position(|known| Some(known.number) == ended);
        // It ends now, so none follows later.
        let own = own.and_then(|at| self.waiting.remove(at));
        let is_due = |known: &Waiting| now.since(known.since) >= after;
        let own = own.filter(&is_due);
        let due = own.or_else(|| self.waiting.pop_front_if(|known| is_due(known)));
        due.map(|due| Entry { timestamp: now.rfc3339(), ..*due.entry })
    }

    /// Forgets all: their entries are not wanted any more.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds.saturating_mul(1_000_000))
    }

    fn entry(org: &str, key: &str, id: &str) -> Entry {
        let (org_id, api_key_id) = (Some(org.to_owned()), Some(key.to_owned()));
        Entry { org_id, api_key_id, request_id: id.to_owned(), ..Entry::default() }
    }

    // Proves: A15
    #[test]
    fn a_response_has_one_entry_once_it_was_open_for_long() {
        let mut open = OpenResponses::default();
        let begun = [("a", 100), ("b", 101), ("c", 102)]
            .map(|(id, second)| open.begin(entry("acme", "k", id), at(second)));
        let [a, b, c] = begun;
        assert!(a.is_some() && b.is_some() && c.is_some());
        let mut due = |ended, second: u64| {
            let entry = open.due(ended, at(second), Duration::from_secs(5));
            entry.map(|entry| (entry.request_id, entry.timestamp))
        };
        let written = |id: &str, second: u64| Some((id.to_owned(), at(second).rfc3339()));
        assert_eq!(due(None, 104), None);
        assert_eq!(due(c, 105), written("a", 105), "c was short, a is the oldest");
        assert_eq!(due(b, 110), written("b", 110), "its own");
        assert_eq!(due(a, 120), None, "once");
    }

    // Proves: A15
    #[test]
    fn two_responses_with_the_same_request_id_are_two() {
        let mut open = OpenResponses::default();
        let first = open.begin(entry("acme", "a", "r-1"), at(100));
        let second = open.begin(entry("globex", "b", "r-1"), at(101));
        let due = |open: &mut OpenResponses, ended| {
            let entry = open.due(ended, at(110), Duration::from_secs(5));
            entry.and_then(|entry| entry.org_id)
        };
        assert_eq!(due(&mut open, second).as_deref(), Some("globex"));
        assert_eq!(due(&mut open, first).as_deref(), Some("acme"));
    }

    // Proves: A15
    #[test]
    fn neither_a_caller_nor_an_organisation_takes_the_places_of_others() {
        let mut open = OpenResponses::default();
        let mut begin = |org: &str, key: &str| open.begin(entry(org, key, "r"), at(1)).is_some();
        let begun = (0..2_000).filter(|_| begin("acme", "k")).count();
        assert_eq!(begun, MOST_OF_CALLER);
        let begun = (0..2_000).filter(|nth| begin("acme", &nth.to_string())).count();
        assert_eq!(begun + MOST_OF_CALLER, MOST / 2);
        assert!(begin("globex", "k"));
    }
}
