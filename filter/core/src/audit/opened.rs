//! Responses that are open for long, and have an entry of their own from then on.
//!
//! Owns which they are and when their entry is due. Only the end of a request can write an entry, so one of any request of
//! the same VM writes it: first its own, if it is due, else the oldest.

use std::collections::VecDeque;
use std::time::Duration;

use super::Entry;
use crate::time::UnixTime;

/// So many responses wait for their entry; those that begin beyond have one at their end alone.
const MOST: usize = 1_024;

/// Responses that have no entry yet, the oldest first.
#[derive(Debug, Default)]
pub struct OpenResponses {
    waiting: VecDeque<(UnixTime, Entry)>,
}

impl OpenResponses {
    /// A response began; `entry` says so.
    pub fn begin(&mut self, entry: Entry, now: UnixTime) {
        if self.waiting.len() < MOST {
            self.waiting.push_back((now, entry));
        }
    }

    /// The entry that the end of this request writes besides its own, of a response that has been open for so long.
    pub fn due(&mut self, request_id: &str, now: UnixTime, after: Duration) -> Option<Entry> {
        let own = self.waiting.iter().position(|(_, entry)| entry.request_id == request_id);
        // It ends now, so none follows later.
        let own = own.and_then(|at| self.waiting.remove(at));
        let is_due = |since: UnixTime| now.since(since) >= after;
        if let Some((since, entry)) = own
            && is_due(since)
        {
            return Some(entry);
        }
        self.waiting.pop_front_if(|(since, _)| is_due(*since)).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds.saturating_mul(1_000_000))
    }

    fn entry(id: &str) -> Entry {
        Entry { request_id: id.to_owned(), ..Entry::default() }
    }

    // Proves: A15
    #[test]
    fn a_response_has_one_entry_once_it_was_open_for_long() {
        let mut open = OpenResponses::default();
        for (id, second) in [("a", 100), ("b", 101), ("c", 102)] {
            open.begin(entry(id), at(second));
        }
        let mut due = |id: &str, second: u64| {
            let entry = open.due(id, at(second), Duration::from_secs(5));
            entry.map(|entry| entry.request_id)
        };
        assert_eq!(due("x", 104), None);
        assert_eq!(due("c", 105), Some("a".to_owned()), "c was short, a is the oldest");
        assert_eq!(due("b", 110), Some("b".to_owned()), "its own");
        assert_eq!(due("a", 120), None, "once");
        for _ in 0..2_000 {
            open.begin(entry("n"), at(1));
        }
        assert_eq!(open.waiting.len(), MOST);
    }
}
