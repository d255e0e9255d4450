//! The upstream: an MCP server with a few constant answers, which it sends as fast as a thread can.
//!
//! Owns the answers' heads and the count of answers. It parses no body, so that it is never the bottleneck.

use crate::Result;
use crate::wire::{FirstLine, Wire};
use portcullis_load::{Answer, MARKED_WITHIN, Upstream, affinity};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The answers with their heads, ready to be sent.
struct Answers {
    /// Marker and message, in order.
    ready: Vec<(Vec<u8>, Vec<u8>)>,
    served: AtomicU64,
}

/// Serves until it is stopped.
pub(crate) fn serve(upstream: &Upstream) -> Result<()> {
    affinity::bind(std::process::id(), &upstream.cpus)?;
    serve_on(&TcpListener::bind(upstream.listen)?, &upstream.answers)
}

pub(crate) fn serve_on(listener: &TcpListener, answers: &[Answer]) -> Result<()> {
    let ready = |Answer { marker, content_type, body }: &Answer| {
        (marker.clone().into_bytes(), message(content_type, body))
    };
    let served = AtomicU64::new(0);
    let answers = Arc::new(Answers { ready: answers.iter().map(ready).collect(), served });
    for connection in listener.incoming() {
        let (connection, answers) = (connection?, Arc::clone(&answers));
        // A client that closes its connection ends its thread and nothing else.
        thread::spawn(move || answers.converse(connection));
    }
    Ok(())
}

impl Answers {
    fn converse(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut wire = Wire::accepted(connection)?;
        let choose = |first_line, body: &[u8]| match first_line {
            FirstLine::Post => self.to(body),
            FirstLine::Other | FirstLine::Status(_) => None,
        };
        while let Some(chosen) = wire.request(choose)? {
            match chosen {
                Some(answer) => {
                    self.served.fetch_add(1, Ordering::Relaxed);
                    wire.send(answer)?;
                }
                None => {
                    let served = self.served.load(Ordering::Relaxed);
                    wire.send(&message("text/plain", &served.to_string()))?;
                }
            }
        }
        Ok(())
    }

    /// The first answer whose marker the request has.
    fn to(&self, request: &[u8]) -> Option<&[u8]> {
        let beginning = &request[..request.len().min(MARKED_WITHIN)];
        let marked = |marker: &[u8]| {
            marker.is_empty() || beginning.windows(marker.len()).any(|part| part == marker)
        };
        let found = self.ready.iter().find(|(marker, _)| marked(marker));
        found.map(|(_, answer)| answer.as_slice())
    }
}

fn message(content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
