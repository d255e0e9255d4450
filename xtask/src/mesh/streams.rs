//! Streams that are open during an operation: a call with a delayed answer, and a GET on which a client listens.
//!
//! Owns both. Other modules own the operations.

use super::gateway::{Gateway, HOST, Kind, PATH, entries_of, within};
use crate::failure::{Failure, Result};
use serde_json::json;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two checks whether a stream has to end.
const TICK: Duration = Duration::from_millis(300);
/// From the release of an answer to its arrival at the client, through a busy gateway.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The entry of a stream is written when the stream ends.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// The form of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A call with a delayed answer.
    Held,
    /// A GET on which a client listens.
    Listening,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Listening => "listening",
        }
    }
}

const STREAMS: [(Form, Kind); 5] = [
    (Form::Held, Kind::Allowed),
    (Form::Held, Kind::Danger),
    (Form::Held, Kind::NoKey),
    (Form::Listening, Kind::Allowed),
    (Form::Listening, Kind::NoKey),
];

/// Open streams of one operation.
pub(crate) struct Open {
    gateway: Gateway,
    label: String,
    stop: Arc<AtomicBool>,
    listening_before: usize,
    threads: Vec<((Form, Kind), JoinHandle<Seen>)>,
}

/// The observations of a client.
#[derive(Clone, Default)]
struct Seen {
    judged: bool,
    answered: bool,
    /// Whether a stream of events began.
    opened: bool,
    /// When the gateway ended it, counted from the start.
    ended: Option<Duration>,
}

impl Open {
    pub(crate) fn start(gateway: &Gateway, label: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let listening_before = listening(&gateway.streams.record);
        let threads = STREAMS.map(|(form, kind)| {
            let (gateway, label, stop) = (gateway.clone(), label.to_owned(), Arc::clone(&stop));
            let thread = thread::spawn(move || {
                // A refused connection counts as a stream that never opened.
                kept(&gateway, &label, form, kind, &stop).unwrap_or_default()
            });
            ((form, kind), thread)
        });
        let threads = threads.into_iter().collect();
        Self { gateway: gateway.clone(), label: label.to_owned(), stop, listening_before, threads }
    }

    /// Releases the answers, closes open streams, then counts.
    pub(crate) fn finish(self, is_audited: bool) -> Streams {
        for kind in Kind::ALL {
            // A failed write means that no answer comes, which the count shows.
            let _ = fs::write(self.gateway.streams.released.join(id(&self.label, kind)), "");
        }
        let started = Instant::now();
        while started.elapsed() < ANSWERED_WITHIN
            && self.threads.iter().any(|((form, kind), thread)| {
                (*form, *kind) == (Form::Held, Kind::Allowed) && !thread.is_finished()
            })
        {
            thread::sleep(TICK);
        }
        self.stop.store(true, Ordering::SeqCst);
        let (gateway, label) = (&self.gateway, &self.label);
        let seen: Vec<((Form, Kind), Seen)> = self
            .threads
            .into_iter()
            .map(|(which, thread)| (which, thread.join().unwrap_or_default()))
            .collect();
        let of = |wanted: (Form, Kind)| {
            seen.iter().find(|(which, _)| *which == wanted).map(|(_, seen)| seen.clone())
        };
        let held = of((Form::Held, Kind::Allowed)).unwrap_or_default();
        let listened = of((Form::Listening, Kind::Allowed)).unwrap_or_default();
        let text = fs::read_to_string(&gateway.streams.record).unwrap_or_default();
        let reached = |kind| text.contains(&id(label, kind));
        let listening = listening(&gateway.streams.record).saturating_sub(self.listening_before);
        let judged = seen.iter().filter(|(_, seen)| seen.judged).count();
        let entries = || {
            STREAMS
                .map(|(form, kind)| entries_of(&gateway.audit, &agent(label, form, kind)))
                .iter()
                .sum::<usize>()
        };
        if is_audited {
            let _ = within(WRITTEN_WITHIN, "entries of streams", || {
                (entries() >= judged).then_some(())
            });
        }
        Streams {
            held,
            listened,
            held_reached: reached(Kind::Allowed),
            listening_reached: listening,
            refused_reached: [Kind::Danger, Kind::NoKey]
                .into_iter()
                .filter(|it| reached(*it))
                .count(),
            judged,
            entries: entries(),
        }
    }
}

/// The counts of the streams of one operation.
pub(crate) struct Streams {
    held: Seen,
    listened: Seen,
    held_reached: bool,
    listening_reached: usize,
    /// Streams that are not allowed or have no credential, and reached the server.
    refused_reached: usize,
    judged: usize,
    entries: usize,
}

impl Streams {
    /// Checks the invariants: only allowed streams reached the server, and every judged stream is in the audit log.
    pub(crate) fn wrong(&self, is_audited: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.refused_reached > 0 {
            wrong.push(format!("{} refused streams reached the server", self.refused_reached));
        }
        if self.listening_reached > 1 {
            wrong.push(format!(
                "{} listeners reached the server, of 1 allowed",
                self.listening_reached
            ));
        }
        if is_audited && self.entries < self.judged {
            wrong.push(format!(
                "{} streams were judged, {} are in the audit log",
                self.judged, self.entries
            ));
        }
        wrong
    }
}

impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |seen: &Seen| match (seen.opened, seen.ended) {
            (false, _) => "refused".to_owned(),
            (true, None) => "open".to_owned(),
            (true, Some(after)) => format!("ended after {:.0} s", after.as_secs_f64()),
        };
        let call = if self.held.answered { "answered".to_owned() } else { after(&self.held) };
        let reached = usize::from(self.held_reached) + self.listening_reached;
        write!(
            f,
            "call {call}, listener {}; {reached} at the server, {} of {} entries",
            after(&self.listened),
            self.entries,
            self.judged
        )
    }
}

fn id(label: &str, kind: Kind) -> String {
    format!("{label}-held-{}", kind.name())
}

fn agent(label: &str, form: Form, kind: Kind) -> String {
    format!("mesh-{label}-{}-{}", form.name(), kind.name())
}

fn listening(record: &Path) -> usize {
    let text = fs::read_to_string(record).unwrap_or_default();
    text.lines().filter(|line| *line == "listening").count()
}

/// Opens a stream and reads until it is answered, ends, or has to stop.
fn kept(gateway: &Gateway, label: &str, form: Form, kind: Kind, stop: &AtomicBool) -> Result<Seen> {
    let fault = |error: std::io::Error| Failure::new(error.to_string());
    let mut wire = TcpStream::connect(gateway.url.trim_start_matches("http://")).map_err(fault)?;
    wire.set_read_timeout(Some(TICK)).map_err(fault)?;
    wire.write_all(request(gateway, label, form, kind).as_bytes()).map_err(fault)?;
    let (started, mut text, mut seen) = (Instant::now(), Vec::new(), Seen::default());
    let mut chunk = [0; 16_384];
    while !stop.load(Ordering::SeqCst) && !seen.answered {
        match wire.read(&mut chunk) {
            Ok(0) => {
                seen.ended = Some(started.elapsed());
                break;
            }
            Ok(read) => text.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => {
                seen.ended = Some(started.elapsed());
                break;
            }
        }
        let read = String::from_utf8_lossy(&text);
        seen.judged = read.contains("x-portcullis-request-id");
        seen.opened = read.starts_with("HTTP/1.1 200") && read.contains("text/event-stream");
        seen.answered = form == Form::Held && read.contains("\"result\":");
    }
    Ok(seen)
}

fn request(gateway: &Gateway, label: &str, form: Form, kind: Kind) -> String {
    let authorization = match kind {
        Kind::NoKey => String::new(),
        Kind::Allowed | Kind::Danger => format!("authorization: Bearer {}\r\n", gateway.key),
    };
    let head = format!(
        "{PATH} HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: {}\r\n{authorization}",
        agent(label, form, kind)
    );
    if form == Form::Listening {
        return format!("GET {head}accept: text/event-stream\r\n\r\n");
    }
    let message = json!({
        "jsonrpc": "2.0", "id": id(label, kind), "method": "tools/call",
        "params": {"name": kind.tool(), "arguments": {"limit": 1}, "_meta": {"mesh_hold": true}},
    })
    .to_string();
    format!(
        "POST {head}content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         content-length: {}\r\n\r\n{message}",
        message.len()
    )
}
