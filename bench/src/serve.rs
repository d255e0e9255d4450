//! The upstream: an MCP server with one answer, which it sends as fast as a thread can.
//!
//! Owns the answer's head and the count of answers. It parses no body, so that it is never the bottleneck.

use crate::Result;
use crate::wire::{FirstLine, Wire};
use portcullis_load::{Upstream, affinity};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Serves until it is stopped.
pub(crate) fn serve(upstream: &Upstream) -> Result<()> {
    affinity::bind(std::process::id(), &upstream.cpus)?;
    serve_on(&TcpListener::bind(upstream.listen)?, &upstream.body)
}

pub(crate) fn serve_on(listener: &TcpListener, body: &str) -> Result<()> {
    let answer: Arc<[u8]> = answer(body).into();
    let served = Arc::new(AtomicU64::new(0));
    for connection in listener.incoming() {
        let (connection, answer, served) = (connection?, Arc::clone(&answer), Arc::clone(&served));
        // A client that closes its connection ends its thread and nothing else.
        thread::spawn(move || converse(connection, &answer, &served));
    }
    Ok(())
}

fn converse(connection: TcpStream, usual: &[u8], served: &AtomicU64) -> std::io::Result<()> {
    let mut wire = Wire::accepted(connection)?;
    while let Some(first_line) = wire.request()? {
        match first_line {
            FirstLine::Post => {
                served.fetch_add(1, Ordering::Relaxed);
                wire.send(usual)?;
            }
            FirstLine::Other | FirstLine::Status(_) => {
                wire.send(&answer(&served.load(Ordering::Relaxed).to_string()))?;
            }
        }
    }
    Ok(())
}

fn answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
