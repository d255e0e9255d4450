//! Reads policy documents in ranges.
//!
//! Owns the current reads, the ranges, and the waiters. A read belongs to the worker: it continues without its waiters,
//! and the document is read once for any number of them. A document never changes under its version, so ranges read at
//! different times fit together. Knows neither the stream nor the documents' content.
//!
//! It uses ranges because Redis answers in order: admissions during a read wait for one range, not for the whole
//! document. That also holds behind Envoy's `redis_proxy`, which has one connection to a server for all streams.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_redis_lua::{Key, Value};

use super::resp::{Command, MAX_REPLY_BYTES};
use crate::driver::call::CallFailure;
use crate::id::PolicyVersion;
use crate::time::UnixTime;

/// The first range of a document, in bytes.
const FIRST: usize = 16_384;
/// The bounds of a range, whose size follows from the time that the previous one took.
const SMALLEST: usize = 4_096;
const LARGEST: usize = 262_144;
/// A waiter gets a timeout after this time (or after four deadlines of a command, if that is longer). The read
/// continues.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most documents that are read at once; further ones fail at once.
const MAX_READS: usize = 64;
/// The most waiters for one document; further ones fail at once.
const MAX_WAITERS: usize = 1_024;

/// The documents that are being read; `W` identifies a waiter.
#[derive(Debug)]
pub struct Documents<W> {
    reads: BTreeMap<PolicyVersion, Read<W>>,
    /// The first range of the next document.
    first: usize,
    timeout: Duration,
}

#[derive(Debug)]
struct Read<W> {
    waiters: Vec<(UnixTime, W)>,
    bytes: Vec<u8>,
    asked: Requested,
    since: UnixTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requested {
    /// A range of this many bytes.
    Range(usize),
    /// The whole document: this Redis user may not read ranges.
    Whole,
}

/// The next step of a read.
#[derive(Debug, PartialEq)]
pub enum Progress<W> {
    /// Send this command; its outcome continues the read.
    Ask(Command),
    /// The document is complete. There may be no waiter left: the worker keeps the document anyway.
    Read {
        /// The document; none when Redis has none.
        document: Option<Vec<u8>>,
        /// The waiters, which continue once the worker has it.
        waiters: Vec<W>,
    },
    /// The read failed, for all waiters.
    Failed(CallFailure, Vec<W>),
}

impl<W> Documents<W> {
    /// No reads. `timeout` is the deadline of a single command.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { reads: BTreeMap::new(), first: FIRST, timeout }
    }

    /// Whether a waiter may become overdue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.reads.values().any(|read| !read.waiters.is_empty())
    }

    /// Adds `waiter` for a document. The returned command must be sent.
    pub fn wait(
        &mut self,
        now: UnixTime,
        version: &PolicyVersion,
        waiter: W,
    ) -> Option<Progress<W>> {
        let patience = PATIENCE.max(self.timeout.saturating_mul(4));
        let waiter = (now.after(patience), waiter);
        let room = self.reads.len() < MAX_READS;
        match self.reads.get_mut(version) {
            Some(read) if read.waiters.len() < MAX_WAITERS => {
                read.waiters.push(waiter);
                return None;
            }
            None if room => {}
            Some(_) | None => {
                return Some(Progress::Failed(CallFailure::Refused, vec![waiter.1]));
            }
        }
        let read = Read {
            waiters: vec![waiter],
            bytes: Vec::new(),
            asked: Requested::Range(self.first),
            since: now,
        };
        let command = read.command(version);
        self.reads.insert(version.clone(), read);
        Some(Progress::Ask(command))
    }

    /// Redis answered the last command for `version`.
    pub fn answered(
        &mut self,
        now: UnixTime,
        version: &PolicyVersion,
        reply: Value,
    ) -> Option<Progress<W>> {
        let patience = self.timeout;
        let read = self.reads.get_mut(version)?;
        match (reply, read.asked) {
            (Value::Bulk(bytes), Requested::Range(size)) if bytes.len() <= size => {
                let whole = bytes.len() < size;
                read.bytes.extend(bytes);
                if whole {
                    // Redis answers a range of a missing key with an empty string.
                    return self.done(version, |bytes| (!bytes.is_empty()).then_some(bytes));
                }
                if read.bytes.len() > MAX_REPLY_BYTES {
                    return self.given_up(version, CallFailure::Unreadable);
                }
                self.first = size.clamp(SMALLEST, FIRST);
                read.asked = Requested::Range(next_size(size, now.since(read.since), patience));
            }
            (Value::Bulk(bytes), Requested::Whole) => {
                return self.done(version, |_| Some(bytes));
            }
            (Value::Nil, Requested::Whole) => return self.done(version, |_| None),
            // The Redis user of an older release has no permission to read ranges.
            (Value::Error(_), Requested::Range(_)) if read.bytes.is_empty() => {
                read.asked = Requested::Whole;
            }
            _ => return self.given_up(version, CallFailure::Unreadable),
        }
        read.since = now;
        Some(Progress::Ask(read.command(version)))
    }

    /// The last command for `version` failed. A range that timed out is repeated with half the size, because the link
    /// may be slow.
    pub fn failed(
        &mut self,
        now: UnixTime,
        version: &PolicyVersion,
        why: CallFailure,
    ) -> Option<Progress<W>> {
        let read = self.reads.get_mut(version)?;
        match (why, read.asked) {
            (CallFailure::TimedOut, Requested::Range(size)) if size > SMALLEST => {
                let half = (size / 2).max(SMALLEST);
                self.first = half.min(FIRST);
                (read.asked, read.since) = (Requested::Range(half), now);
                Some(Progress::Ask(read.command(version)))
            }
            _ => self.given_up(version, why),
        }
    }

    fn given_up(&mut self, version: &PolicyVersion, why: CallFailure) -> Option<Progress<W>> {
        let read = self.reads.remove(version)?;
        Some(Progress::Failed(why, read.waiters()))
    }

    /// The waiters that have timed out.
    pub fn overdue(&mut self, now: UnixTime) -> Vec<W> {
        let reads = self.reads.values_mut();
        let overdue = reads.flat_map(|read| read.waiters.extract_if(.., |(due, _)| *due <= now));
        overdue.map(|(_, waiter)| waiter).collect()
    }

    fn done(
        &mut self,
        version: &PolicyVersion,
        document: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) -> Option<Progress<W>> {
        let mut read = self.reads.remove(version)?;
        let document = document(std::mem::take(&mut read.bytes));
        Some(Progress::Read { document, waiters: read.waiters() })
    }
}

impl<W> Read<W> {
    fn command(&self, version: &PolicyVersion) -> Command {
        let key = Key::policy_document(version.as_str());
        match self.asked {
            Requested::Range(size) => {
                let from = self.bytes.len();
                let last = from.saturating_add(size).saturating_sub(1);
                Command::Range { key, from, last }
            }
            Requested::Whole => Command::Get(key),
        }
    }

    fn waiters(self) -> Vec<W> {
        self.waiters.into_iter().map(|(_, waiter)| waiter).collect()
    }
}

/// The next size: such that a range takes a small part of a command's deadline.
fn next_size(size: usize, took: Duration, timeout: Duration) -> usize {
    if took.saturating_mul(8) <= timeout {
        size.saturating_mul(2).min(LARGEST)
    } else if took.saturating_mul(2) >= timeout {
        (size / 2).max(SMALLEST)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_micros(millis * 1_000)
    }

    fn version() -> PolicyVersion {
        PolicyVersion::new("0123456789abcdef").unwrap()
    }

    fn range(from: usize, size: usize) -> Option<Progress<char>> {
        let key = Key::policy_document(version().as_str());
        Some(Progress::Ask(Command::Range { key, from, last: from + size - 1 }))
    }

    fn bulk(size: usize) -> Value {
        Value::Bulk(vec![b'x'; size])
    }

    fn read(size: usize, waiters: &[char]) -> Option<Progress<char>> {
        Some(Progress::Read { document: Some(vec![b'x'; size]), waiters: waiters.to_vec() })
    }

    #[test]
    fn a_document_is_read_once_for_all_who_wait() {
        let mut documents = Documents::new(TIMEOUT);
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        assert_eq!(documents.wait(at(1), &version(), 'b'), None);
        assert_eq!(documents.answered(at(2), &version(), bulk(7)), read(7, &['a', 'b']));
        assert_eq!(documents.wait(at(3), &version(), 'c'), range(0, FIRST));
    }

    // Finding 10.3.
    #[test]
    fn ranges_grow_while_redis_is_fast_and_shrink_while_it_is_slow() {
        let mut documents = Documents::new(TIMEOUT);
        let (mut now, mut from, mut size) = (0, 0, FIRST);
        assert_eq!(documents.wait(at(now), &version(), 'a'), range(from, size));
        for (took, next) in [(1, 32_768), (6, 65_536), (10, 65_536), (30, 32_768), (30, 16_384)] {
            (now, from) = (now + took, from + size);
            let ask = documents.answered(at(now), &version(), bulk(size));
            assert_eq!(ask, range(from, next));
            size = next;
        }
        assert_eq!(documents.answered(at(now), &version(), bulk(0)), read(from, &['a']));
    }

    #[test]
    fn what_redis_does_not_have_is_told_apart_from_what_is_empty_so_far() {
        let mut documents = Documents::new(TIMEOUT);
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        let none = Progress::Read { document: None, waiters: vec!['a'] };
        assert_eq!(documents.answered(at(1), &version(), bulk(0)), Some(none));
    }

    #[test]
    fn a_redis_user_without_ranges_is_asked_for_all() {
        let mut documents = Documents::new(TIMEOUT);
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        let get = Command::Get(Key::policy_document(version().as_str()));
        let error = Value::Error("NOPERM no permissions to run the 'getrange' command".into());
        let asked = documents.answered(at(1), &version(), error.clone());
        assert_eq!(asked, Some(Progress::Ask(get)));
        assert_eq!(documents.answered(at(2), &version(), bulk(99_999)), read(99_999, &['a']));
        // An error is not a document, and must not count as a faulty one.
        let _ = documents.wait(at(3), &version(), 'b');
        let _ = documents.answered(at(4), &version(), error.clone());
        let failed = Progress::Failed(CallFailure::Unreadable, vec!['b']);
        assert_eq!(documents.answered(at(5), &version(), error), Some(failed));
    }

    // Finding 10.3: the wait is bounded, and the read is the worker's.
    #[test]
    fn a_waiter_is_told_in_time_and_the_read_goes_on() {
        let mut documents = Documents::new(TIMEOUT);
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        assert_eq!(documents.wait(at(500), &version(), 'b'), None);
        assert_eq!(documents.overdue(at(1_999)), []);
        assert_eq!(documents.overdue(at(2_000)), ['a']);
        assert!(documents.is_waiting());
        assert_eq!(documents.overdue(at(2_500)), ['b']);
        assert!(!documents.is_waiting());
        assert_eq!(documents.answered(at(2_600), &version(), bulk(9)), read(9, &[]));
    }

    #[test]
    fn a_read_that_fails_fails_for_all_and_starts_again_with_the_next() {
        let mut documents = Documents::new(TIMEOUT);
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        assert_eq!(documents.wait(at(0), &version(), 'b'), None);
        let failed = Progress::Failed(CallFailure::Disconnected, vec!['a', 'b']);
        let lost = documents.failed(at(1), &version(), CallFailure::Disconnected);
        assert_eq!(lost, Some(failed));
        assert_eq!(documents.wait(at(1), &version(), 'c'), range(0, FIRST));
    }

    #[test]
    fn a_range_that_takes_too_long_is_asked_for_in_halves() {
        let mut documents = Documents::new(TIMEOUT);
        let late = |documents: &mut Documents<char>, now: u64| {
            documents.failed(at(now), &version(), CallFailure::TimedOut)
        };
        assert_eq!(documents.wait(at(0), &version(), 'a'), range(0, FIRST));
        assert_eq!(late(&mut documents, 50), range(0, FIRST / 2));
        assert_eq!(late(&mut documents, 100), range(0, SMALLEST));
        assert_eq!(
            documents.answered(at(140), &version(), bulk(SMALLEST)),
            range(SMALLEST, SMALLEST)
        );
        let failed = Progress::Failed(CallFailure::TimedOut, vec!['a']);
        assert_eq!(late(&mut documents, 190), Some(failed));
        // The next read begins with the size that fits the link.
        assert_eq!(documents.wait(at(200), &version(), 'b'), range(0, SMALLEST));
    }

    #[test]
    fn who_waits_for_a_document_is_bounded() {
        let mut documents = Documents::new(TIMEOUT);
        let refused = Some(Progress::Failed(CallFailure::Refused, vec!['a']));
        let waits = (0..).find(|_| documents.wait(at(0), &version(), 'a') == refused);
        assert_eq!(waits, Some(MAX_WAITERS));
    }
}
