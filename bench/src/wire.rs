//! HTTP/1.1 messages over a blocking socket: whole messages, and only the features that the benchmark needs.
//!
//! Owns where a message ends. Knows nothing about its content.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing in a benchmark takes longer; a longer wait is a fault.
const BOUND: Duration = Duration::from_secs(10);
const MOST_HEADERS: usize = 64;
const CHUNK: usize = 16 * 1024;

/// One end of a connection.
pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes that have arrived and are not used yet.
    buffer: Vec<u8>,
}

/// The place of a message in the buffer.
struct Extent {
    head: usize,
    body: Framing,
    first_line: FirstLine,
}

/// How the end of a body is found.
enum Framing {
    Length(usize),
    Chunked,
}

/// The parts of the first line that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstLine {
    Status(u16),
    Post,
    Other,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        Self::accepted(stream)
    }

    /// The server's end: waits for the next request without a limit.
    pub(crate) fn accepted(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(BOUND))?;
        Ok(Self { stream, buffer: Vec::with_capacity(CHUNK) })
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)
    }

    /// Waits until the other side closes the connection; drops what it sends.
    pub(crate) fn closed(&mut self) -> io::Result<()> {
        while self.more()? {
            self.buffer.clear();
        }
        Ok(())
    }

    /// The next response; passes its body to `look`.
    pub(crate) fn response<T>(
        &mut self,
        look: impl FnOnce(FirstLine, &[u8]) -> T,
    ) -> io::Result<T> {
        self.message(response_extent, |first_line, _, body| look(first_line, body))?
            .ok_or_else(|| closed("before a response"))
    }

    /// The next request; passes its head and its body to `look`. `None` when the client has closed the connection.
    pub(crate) fn request<T>(
        &mut self,
        look: impl FnOnce(FirstLine, &[u8], &[u8]) -> T,
    ) -> io::Result<Option<T>> {
        self.message(request_extent, look)
    }

    fn message<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> io::Result<Option<Extent>>,
        look: impl FnOnce(FirstLine, &[u8], &[u8]) -> T,
    ) -> io::Result<Option<T>> {
        let Extent { head, body, first_line } = loop {
            if let Some(extent) = parse(&self.buffer)? {
                break extent;
            }
            if !self.more()? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(closed("in a head")) };
            }
        };
        let end = loop {
            if let Some(end) = body.end(&self.buffer, head) {
                break end;
            }
            if !self.more()? {
                return Err(closed("in a body"));
            }
        };
        let (head, received) = self.buffer[..end].split_at(head);
        let seen = match body {
            Framing::Length(_) => look(first_line, head, received),
            Framing::Chunked => look(first_line, head, &unchunked(received)?),
        };
        self.buffer.drain(..end);
        Ok(Some(seen))
    }

    fn more(&mut self) -> io::Result<bool> {
        let used = self.buffer.len();
        self.buffer.resize(used + CHUNK, 0);
        let read = self.stream.read(&mut self.buffer[used..]);
        self.buffer.truncate(used + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

impl Framing {
    /// The end of a chunked body. Neither side sends a body that contains the bytes of the last chunk, or pipelines
    /// requests.
    fn end(&self, buffer: &[u8], head: usize) -> Option<usize> {
        match self {
            Self::Length(length) => (buffer.len() >= head + length).then_some(head + length),
            Self::Chunked => buffer.ends_with(b"0\r\n\r\n").then_some(buffer.len()),
        }
    }

    fn of(headers: &[httparse::Header<'_>]) -> io::Result<Self> {
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length =
                    std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok());
                return length.map(Self::Length).ok_or_else(|| malformed("content-length"));
            }
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(Self::Chunked);
            }
        }
        Ok(Self::Length(0))
    }
}

/// The data of a chunked body (RFC 9112 §7.1).
fn unchunked(mut chunks: &[u8]) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(chunks.len());
    loop {
        let parsed = httparse::parse_chunk_size(chunks).map_err(|_| malformed("chunk"))?;
        let httparse::Status::Complete((start, size)) = parsed else {
            return Err(malformed("chunk"));
        };
        if size == 0 {
            return Ok(data);
        }
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let chunk = end.and_then(|end| chunks.get(start..end)).ok_or_else(|| malformed("chunk"))?;
        data.extend_from_slice(chunk);
        chunks = chunks.get(start + chunk.len() + 2..).unwrap_or_default();
    }
}

fn response_extent(buffer: &[u8]) -> io::Result<Option<Extent>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(buffer).map_err(|_| malformed("response"))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(head) => {
            let first_line = FirstLine::Status(response.code.unwrap_or_default());
            Ok(Some(Extent { head, body: Framing::of(response.headers)?, first_line }))
        }
    }
}

fn request_extent(buffer: &[u8]) -> io::Result<Option<Extent>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(buffer).map_err(|_| malformed("request"))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(head) => {
            let first_line =
                if request.method == Some("POST") { FirstLine::Post } else { FirstLine::Other };
            Ok(Some(Extent { head, body: Framing::of(request.headers)?, first_line }))
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a malformed {what}"))
}

fn closed(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection was closed {place}"))
}
