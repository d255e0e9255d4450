//! Three kinds of calls at a steady pace, and three counts of each: answers to clients, requests at the server, entries
//! in the audit log.
//!
//! Owns the load and what has to hold of its counts.

use super::gateway::{FLUSHED_WITHIN, Gateway, Kind, Reply, within};
use super::streams::{Open, Streams};
use crate::failure::Result;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two calls of one kind.
const PACE: Duration = Duration::from_millis(150);
impl Gateway {
    /// Makes calls of each kind until the load stops.
    pub(crate) fn load(&self, label: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let threads = Kind::ALL.map(|kind| {
            let (gateway, label, stop) = (self.clone(), label.to_owned(), Arc::clone(&stop));
            thread::spawn(move || gateway.keep_calling(kind, &label, started, &stop))
        });
        let streams = Open::start(self, label);
        Load { gateway: self.clone(), label: label.to_owned(), stop, threads, streams }
    }

    fn keep_calling(
        &self,
        kind: Kind,
        label: &str,
        started: Instant,
        stop: &AtomicBool,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let at = started.elapsed();
            let reply = self.call(kind, label, sent.len());
            sent.push(Sent { at, took: started.elapsed().saturating_sub(at), reply });
            thread::sleep(PACE);
        }
        sent
    }
}

struct Sent {
    at: Duration,
    took: Duration,
    reply: Reply,
}

/// Running calls.
pub(crate) struct Load {
    gateway: Gateway,
    label: String,
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<Vec<Sent>>; 3],
    streams: Open,
}

impl Load {
    /// Stops the calls and counts, once the audit log is complete.
    pub(crate) fn finish(self) -> Result<Tally> {
        self.counted_within(FLUSHED_WITHIN)
    }

    /// Stops the calls and counts at once, with the audit entries that exist now.
    pub(crate) fn finish_unaudited(self) -> Result<Tally> {
        self.counted_within(Duration::ZERO)
    }

    fn counted_within(self, flushed_within: Duration) -> Result<Tally> {
        self.stop.store(true, Ordering::SeqCst);
        let [allowed, danger, nokey] = self.threads.map(|thread| thread.join().unwrap_or_default());
        let is_audited = flushed_within > Duration::ZERO;
        let streams = self.streams.finish(is_audited);
        let (gateway, label) = (&self.gateway, &self.label);
        let longest_gap = longest_gap(&allowed);
        let count = |kind, sent: &[Sent]| -> Result<Counts> {
            let judged = sent.iter().filter(|sent| sent.reply.judged).count();
            // A missing entry is a finding, which the count shows. A too short wait must not look like one.
            let _ = within(flushed_within, "the audit log's lines", || {
                (gateway.entries(label, kind) >= judged).then_some(())
            });
            let statuses: HashSet<u16> = sent.iter().map(|sent| sent.reply.status).collect();
            let mut statuses: Vec<u16> = statuses.into_iter().collect();
            statuses.sort_unstable();
            Ok(Counts {
                sent: sent.len(),
                answered: sent.iter().filter(|sent| sent.reply.result).count(),
                judged,
                reached: gateway.reached(label, kind),
                entries: gateway.entries(label, kind),
                statuses,
            })
        };
        Ok(Tally {
            allowed: count(Kind::Allowed, &allowed)?,
            danger: count(Kind::Danger, &danger)?,
            nokey: count(Kind::NoKey, &nokey)?,
            longest_gap,
            streams,
        })
    }
}

/// The three counts of one kind of call.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) sent: usize,
    /// Calls answered with a JSON-RPC result.
    pub(crate) answered: usize,
    /// Replies that carry the filter's request id.
    pub(crate) judged: usize,
    /// Requests that the MCP server received.
    pub(crate) reached: usize,
    /// Entries of the audit log.
    pub(crate) entries: usize,
    /// Each status that occurred, once.
    pub(crate) statuses: Vec<u16>,
}

/// The counts of all kinds.
pub(crate) struct Tally {
    pub(crate) allowed: Counts,
    pub(crate) danger: Counts,
    pub(crate) nokey: Counts,
    /// The longest time without an answered allowed call.
    pub(crate) longest_gap: Duration,
    pub(crate) streams: Streams,
}

impl Tally {
    /// Checks the invariants: no unjudged call was executed, and every judged call is in the audit log.
    pub(crate) fn holds(&self) -> std::result::Result<(), String> {
        let mut wrong = self.executed();
        wrong.extend(self.streams.wrong(true));
        if self.allowed.entries < self.allowed.reached {
            wrong.push(format!(
                "{} allowed calls reached the server, {} are in the audit log",
                self.allowed.reached, self.allowed.entries
            ));
        }
        for (name, counts) in [("danger", &self.danger), ("nokey", &self.nokey)] {
            if counts.entries < counts.judged {
                wrong.push(format!(
                    "{} {name} calls were judged, {} are in the audit log",
                    counts.judged, counts.entries
                ));
            }
        }
        concluded(&wrong)
    }

    /// Checks the same without the audit log.
    pub(crate) fn refuses(&self) -> std::result::Result<(), String> {
        let mut wrong = self.executed();
        wrong.extend(self.streams.wrong(false));
        concluded(&wrong)
    }

    /// Calls that were executed and must not be.
    fn executed(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, counts) in [("danger", &self.danger), ("nokey", &self.nokey)] {
            if counts.reached != 0 {
                wrong.push(format!("{} {name} calls reached the server", counts.reached));
            }
            if counts.answered != 0 {
                wrong.push(format!("{} {name} calls were answered", counts.answered));
            }
        }
        wrong
    }
}

fn concluded(wrong: &[String]) -> std::result::Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        write!(
            f,
            "{} sent, {} answered, {} at the server, {} entries ({})",
            self.sent,
            self.answered,
            self.reached,
            self.entries,
            statuses.join(" ")
        )
    }
}

/// The longest time from the end of an answered call, or the start, to the end of the next one, or the end.
fn longest_gap(sent: &[Sent]) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Duration::ZERO);
    for Sent { at, took, reply } in sent {
        let end = at.saturating_add(*took);
        if reply.result {
            longest = longest.max(end.saturating_sub(last));
            last = end;
        }
    }
    let end = sent.last().map_or(Duration::ZERO, |sent| sent.at.saturating_add(sent.took));
    longest.max(end.saturating_sub(last))
}
