//! The upstream: an MCP server with a few constant answers, which it sends as fast as a thread can.
//!
//! Owns the answers' heads and the counts of answers. It parses no body, so that it is never the bottleneck.

use crate::Result;
use crate::wire::{FirstLine, Wire};
use portcullis_load::{
    Answer, MARKED_WITHIN, REQUEST_HEAD, REQUEST_ID, STREAM_EVENT, Upstream, affinity,
};
use std::borrow::Cow;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How a request begins that opens a stream; the gateway sends it to the server's path.
const LISTENING: &[u8] = b"GET /mcp ";

/// An answer, and how often it was sent.
struct Prepared {
    marker: Vec<u8>,
    message: Message,
    sent: AtomicU64,
}

/// What is sent.
enum Message {
    /// Head and body.
    Constant(Vec<u8>),
    /// The parts of the body around what is taken from the request.
    Echoing { part: Part, status: u16, content_type: String, before: String, after: String },
}

/// What an answer takes from its request.
#[derive(Clone, Copy)]
enum Part {
    Id,
    Head,
}

/// Serves until it is stopped.
pub(crate) fn serve(upstream: &Upstream) -> Result<()> {
    affinity::bind(std::process::id(), &upstream.cpus)?;
    serve_on(&TcpListener::bind(upstream.listen)?, &upstream.answers, upstream.streams)
}

pub(crate) fn serve_on(listener: &TcpListener, answers: &[Answer], streams: bool) -> Result<()> {
    let answers: Arc<[Prepared]> = answers.iter().map(Prepared::new).collect();
    for connection in listener.incoming() {
        let (connection, answers) = (connection?, Arc::clone(&answers));
        // A client that closes its connection ends its thread and nothing else.
        thread::spawn(move || converse(&answers, streams, connection));
    }
    Ok(())
}

fn converse(answers: &[Prepared], streams: bool, connection: TcpStream) -> std::io::Result<()> {
    let mut wire = Wire::accepted(connection)?;
    let listening = |head: &[u8]| streams && head.starts_with(LISTENING);
    let choose = |first_line, head: &[u8], body: &[u8]| match first_line {
        FirstLine::Post => match answers.iter().find(|answer| answer.fits(body)) {
            Some(answer) => answer.to(head, body),
            None => Cow::Owned(message(200, "application/json", &counts(answers))),
        },
        FirstLine::Other if listening(head) => Cow::Owned(stream()),
        FirstLine::Other | FirstLine::Status(_) => {
            Cow::Owned(message(200, "application/json", &counts(answers)))
        }
    };
    while let Some((reply, listens)) =
        wire.request(|first_line, head, body| (choose(first_line, head, body), listening(head)))?
    {
        wire.send(&reply)?;
        if listens {
            return wire.closed();
        }
    }
    Ok(())
}

/// The head of a stream and its only event.
fn stream() -> Vec<u8> {
    let event = format!("{STREAM_EVENT}\n\n");
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn counts(answers: &[Prepared]) -> String {
    let sent = |answer: &Prepared| answer.sent.load(Ordering::Relaxed).to_string();
    format!("[{}]", answers.iter().map(sent).collect::<Vec<_>>().join(","))
}

impl Prepared {
    fn new(Answer { marker, status, content_type, body }: &Answer) -> Self {
        let place = |text, part| body.split_once(text).map(|around| (part, around));
        let message = match place(REQUEST_ID, Part::Id).or(place(REQUEST_HEAD, Part::Head)) {
            None => Message::Constant(message(*status, content_type, body)),
            Some((part, (before, after))) => Message::Echoing {
                part,
                status: *status,
                content_type: content_type.clone(),
                before: before.to_owned(),
                after: after.to_owned(),
            },
        };
        Self { marker: marker.clone().into_bytes(), message, sent: AtomicU64::new(0) }
    }

    /// Whether the request has the marker.
    fn fits(&self, request: &[u8]) -> bool {
        let beginning = &request[..request.len().min(MARKED_WITHIN)];
        let marker = self.marker.as_slice();
        marker.is_empty() || beginning.windows(marker.len()).any(|part| part == marker)
    }

    /// The message that answers the request; counts it.
    fn to(&self, head: &[u8], request: &[u8]) -> Cow<'_, [u8]> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        match &self.message {
            Message::Constant(message) => Cow::Borrowed(message),
            Message::Echoing { part, status, content_type, before, after } => {
                let taken = match part {
                    Part::Id => id(request),
                    Part::Head => Cow::Owned(escaped(head)),
                };
                let body = format!("{before}{taken}{after}");
                Cow::Owned(message(*status, content_type, &body))
            }
        }
    }
}

/// The `id` of a JSON-RPC request, as it is written: the first or the last member. `null` without one.
fn id(request: &[u8]) -> Cow<'_, str> {
    const NAME: &[u8] = br#""id":"#;
    let place = request.windows(NAME.len()).rposition(|part| part == NAME);
    let value = place.and_then(|place| request.get(place + NAME.len()..)).unwrap_or(b"null");
    let end = value.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default().trim_ascii())
}

/// For a place inside a JSON string.
fn escaped(head: &[u8]) -> String {
    let quoted = serde_json::Value::from(String::from_utf8_lossy(head)).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

fn message(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let (length, reason) = (body.len(), if status == 202 { "Accepted" } else { "OK" });
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
