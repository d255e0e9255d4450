//! HTTP/1.1 by hand: requests in exactly the form that a test needs, invalid ones too, and answers byte for byte.
//!
//! Owns framing. Knows nothing of MCP or of the gateway.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing may hang: an answer that takes longer is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request: it contains only the given headers, in this order, and `content-length`.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request without any header, not even `host`.
    pub fn bare(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: None }
    }

    /// A POST like that of an MCP client.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::bare("POST", path)
            .header("host", "gateway.test")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("user-agent", "portcullis-tests");
        request.body = Some(body.into());
        request
    }

    /// Adds a header line, also if one of that name exists.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes the headers of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    /// Adds a key as a Bearer token.
    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", format!("Bearer {key}"))
    }

    /// The bytes of the request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(self.body.as_ref().map(Vec::len));
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// The head alone, which announces `length` bytes of body.
    pub fn head(&self, length: Option<usize>) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        if let Some(length) = length {
            head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// An answer, unchanged; chunks of a body are joined.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The only header of that name (in lower case); several are a failure.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.iter().filter(|(given, _)| given == name);
        let first = values.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        assert!(values.next().is_none(), "several `{name}` headers: {:?}", self.headers);
        first
    }
}

/// A connection with timeouts, so that nothing waits forever.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection, kept open between requests: all of them are served by the same worker.
#[derive(Debug)]
pub struct Wire {
    reader: BufReader<Box<dyn Stream>>,
}

/// The transport of a connection: TCP, or TLS on top of it.
pub trait Stream: Read + Write + fmt::Debug + Send {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(tcp(address)?))
    }

    /// Uses a connection that was made elsewhere.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { reader: BufReader::new(Box::new(stream)) }
    }

    /// Sends any bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Ends the sending side; answers can still arrive.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.reader.get_ref().tcp().shutdown(Shutdown::Write)
    }

    /// One request and its answer.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        self.write(&request.bytes())?;
        self.read_reply()
    }

    /// The next answer; skips interim ones (100 Continue).
    pub fn read_reply(&mut self) -> io::Result<Reply> {
        loop {
            let reply = self.read_any_reply()?;
            if reply.status >= 200 {
                return Ok(reply);
            }
        }
    }

    /// The next answer, also an interim one.
    pub fn read_any_reply(&mut self) -> io::Result<Reply> {
        let bad = |detail: &str| io::Error::new(io::ErrorKind::InvalidData, detail.to_owned());
        let status_line = self.line()?;
        let mut words = status_line.splitn(3, ' ');
        let status = match (words.next(), words.next().map(str::parse)) {
            (Some(version), Some(Ok(status))) if version.starts_with("HTTP/1.") => status,
            _ => return Err(bad(&format!("no status line: {status_line:?}"))),
        };
        let headers = self.headers()?;
        let value_of = |name: &str| {
            let found = headers.iter().find(|(given, _)| given == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let body = match (value_of("transfer-encoding"), value_of("content-length")) {
            _ if status < 200 || status == 204 || status == 304 => Vec::new(),
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => self.chunks()?,
            (_, Some(length)) => {
                let mut body = vec![0; length.parse().map_err(|_| bad("content-length"))?];
                self.reader.read_exact(&mut body)?;
                body
            }
            _ => {
                let mut body = Vec::new();
                self.reader.read_to_end(&mut body)?;
                body
            }
        };
        Ok(Reply { status, headers, body })
    }

    fn headers(&mut self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut headers = Vec::new();
        loop {
            let mut line = Vec::new();
            self.reader.read_until(b'\n', &mut line)?;
            let line = line.trim_ascii();
            if line.is_empty() {
                return Ok(headers);
            }
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            let value = line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec();
            headers.push((name, value));
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("chunk {line:?}"))
                })?;
            let at = body.len();
            body.resize(at + size, 0);
            self.reader.read_exact(&mut body[at..])?;
            let ending = self.line()?;
            if size == 0 || !ending.is_empty() {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
