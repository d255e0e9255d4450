//! A fake upstream: it counts what reaches it and answers as a test wants.
//!
//! Owns one listening socket. It counts connections and bytes, so that a test can check that nothing arrived, not even
//! headers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::json;

/// Makes the pieces of an answer from a request (head and body as they came); the server sends them one by one. Without
/// a piece it stays silent; an empty piece closes the connection.
pub type Answerer = fn(&str) -> Vec<Vec<u8>>;

/// The delay between two pieces, long enough for each to arrive separately.
const BETWEEN_PIECES: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    connections: AtomicUsize,
    closed: AtomicUsize,
    bytes: AtomicUsize,
    requests: Mutex<Vec<String>>,
    closing: AtomicBool,
    answerer: Answerer,
}

impl FakeUpstream {
    /// Answers every request with a tool result of one row.
    pub fn of_one_row() -> Self {
        Self::answering(|_| {
            let result = json!({"content": [], "structuredContent": {"rows": [1]}});
            json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string())
        })
    }

    /// Listens on a free port of the loopback interface.
    pub fn answering(answerer: Answerer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            requests: Mutex::default(),
            closing: AtomicBool::new(false),
            answerer,
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&serving);
                thread::spawn(move || state.serve(stream));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many of them the peer has closed.
    pub fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }

    /// How many bytes arrived so far.
    pub fn bytes(&self) -> usize {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// The requests that arrived completely so far. In `split` mode the head of a refused request may arrive, but no
    /// more.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if it has already ended, the error does not matter.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// Serves until the peer closes or aborts the connection; other connections go on.
    fn serve(&self, mut stream: TcpStream) {
        let _ = self.answer_each(&mut stream);
    }

    fn answer_each(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut pending = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                self.closed.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            self.bytes.fetch_add(read, Ordering::SeqCst);
            pending.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&pending).into_owned();
            if !is_whole(&text) {
                continue;
            }
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
            for piece in (self.answerer)(&text) {
                if piece.is_empty() {
                    return stream.shutdown(Shutdown::Both);
                }
                stream.write_all(&piece)?;
                thread::sleep(BETWEEN_PIECES);
            }
            pending.clear();
        }
    }
}

/// Whether head and body have arrived. The gateway sends either a length or chunks.
fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|value| value.trim().parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    }
}

/// An answer with a JSON body, in one piece.
pub fn json_answer(body: &str) -> Vec<Vec<u8>> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    vec![(head + body).into_bytes()]
}

/// An event stream in pieces of `size` bytes, each a chunk of its own.
pub fn event_answer(events: &str, size: usize) -> Vec<Vec<u8>> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut pieces = vec![head.as_bytes().to_vec()];
    for piece in events.as_bytes().chunks(size) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        pieces.push(chunk);
    }
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}
