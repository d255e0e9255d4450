//! The cost of open streams: clients that have opened one with GET and receive nothing, while others call.
//!
//! Owns the numbers of streams, the clients and the table.

use super::super::contender::Contender;
use super::super::rig::Rig;
use super::super::traffic::PATH;
use super::super::variant::Variant;
use super::calls;
use comfy_table::{Table, presets};
use portcullis_load::STREAM_EVENT;
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const COUNTS: [usize; 5] = [0, 1, 10, 100, 1_000];
const WITHIN: Duration = Duration::from_secs(10);
/// How long Envoy is observed without calls.
const LISTEN: Duration = Duration::from_secs(2);

pub(super) fn streams(rig: &Rig, seconds: f64) -> Result<Table> {
    let contender = Contender::start(rig, Variant::Key)?;
    contender.right_call(rig)?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "open streams",
        "CPU per call",
        "p50",
        "p99",
        "CPU without calls",
        "memory of Envoy",
    ]);
    let mut open: Vec<TcpStream> = Vec::new();
    for count in COUNTS {
        step(&format!("{count} open streams"), || {
            while open.len() < count {
                open.push(listen(contender.envoy.address(), &rig.key)?);
            }
            let (cpu_us, p50_us, p99_us) = calls(rig, &contender, seconds)?;
            let (started, used) = (Instant::now(), contender.cpu_us()?);
            std::thread::sleep(LISTEN);
            let idle = (contender.cpu_us()? - used) / started.elapsed().as_secs_f64() / 1_000.0;
            are_open(&open)?;
            table.add_row([
                count.to_string(),
                format!("{cpu_us:.0} µs"),
                format!("{p50_us:.0} µs"),
                format!("{p99_us:.0} µs"),
                format!("{idle:.1} ms/s"),
                format!("{} MB", contender.memory()?.resident / 1_000_000),
            ]);
            Ok::<_, Failure>(())
        })?;
    }
    Ok(table)
}

/// Opens a stream, and waits for its first event.
fn listen(gateway: SocketAddr, key: &str) -> Result<TcpStream> {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n\
         authorization: Bearer {key}\r\n\r\n"
    );
    let mut received = Vec::new();
    let opened = TcpStream::connect_timeout(&gateway, WITHIN).and_then(|mut stream| {
        stream.set_read_timeout(Some(WITHIN))?;
        stream.write_all(request.as_bytes())?;
        let mut chunk = [0; 4096];
        while !received.windows(STREAM_EVENT.len()).any(|part| part == STREAM_EVENT.as_bytes()) {
            match stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => received.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            }
        }
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    opened.map_err(|error| {
        let text = String::from_utf8_lossy(&received);
        Failure::new(format!("a stream was not opened: {error}; received: {text}"))
    })
}

/// Fails when a stream has ended.
fn are_open(streams: &[TcpStream]) -> Result<()> {
    for mut stream in streams {
        match stream.read(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return Err(Failure::new(format!("a stream did not stay open: {other:?}"))),
        }
    }
    Ok(())
}
