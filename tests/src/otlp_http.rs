//! A server that takes logs of OTLP over HTTP, in Protocol Buffers, and can be down.
//!
//! Owns one listening socket and a thread for each connection. The messages are those of [`crate::log_service`].

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::log_service::log_records;

/// The server, and the bodies of the records that it took.
#[derive(Clone, Debug, Default)]
pub struct OtlpHttp {
    records: Arc<Mutex<Vec<String>>>,
    down: Arc<AtomicBool>,
}

impl OtlpHttp {
    /// Serves on a free port of the loopback interface.
    pub fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let server = Self::default();
        let shared = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                // A client that left does not hear the answer.
                thread::spawn(move || _ = server.serve(&stream));
            }
        });
        (server, address)
    }

    /// The bodies of all records so far, in the order in which they came.
    pub fn records(&self) -> Vec<String> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it answers 503, after it took the records: its client does not know that it has them.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let (mut reader, mut writer) = (BufReader::new(stream), stream);
        loop {
            let mut length = 0;
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            assert!(line.starts_with("POST ") && line.contains("/v1/logs "), "{line}");
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line)?;
                let header = line.to_ascii_lowercase();
                assert!(!header.starts_with("content-encoding:"), "not compressed: {line}");
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let records = log_records(&body);
            self.records.lock().unwrap_or_else(PoisonError::into_inner).extend(records);
            let status = if self.down.load(Ordering::Relaxed) { "503 Down" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
            );
            writer.write_all(head.as_bytes())?;
        }
    }
}
