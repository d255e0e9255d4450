//! RESP2: commands to bytes, bytes to replies, for any chunks.
//!
//! Owns where a reply ends, which is found without reading a byte twice, and the limits on an unfinished one.
//! `redis-protocol` parses complete replies.

use portcullis_redis_lua::{BIND, Key, ScriptCall, Value};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

/// The largest unfinished reply in memory: policies are the largest replies, and far smaller.
pub const MAX_REPLY_BYTES: usize = 16 * 1_048_576;
/// Items of one reply, arrays included. Replies of our scripts have a few hundred.
const MAX_ITEMS: usize = 16_384;
/// The longest line: an error, or the size of what follows.
const MAX_LINE: usize = 65_536;
/// Replies of our scripts nest two levels deep; the parser recurses, so deeper ones are refused before it runs.
const MAX_DEPTH: usize = 8;

/// A command that may be sent on the shared stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A script by its digest.
    Script(ScriptCall),
    /// A script by its source, which also loads it.
    ScriptSource(ScriptCall),
    /// Probes whether Redis answers.
    Ping,
    /// Reads a string.
    Get(Key),
    /// Reads a part of a string.
    Range {
        /// The key.
        key: Key,
        /// The first byte,
        from: usize,
        /// and the last one.
        last: usize,
    },
}

impl Command {
    /// One of its keys, if it has any.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Script(call) | Self::ScriptSource(call) => call.keys.first().map(Key::as_str),
            Self::Get(key) | Self::Range { key, .. } => Some(key.as_str()),
            Self::Ping => None,
        }
    }

    /// The part of Redis that has to answer: all keys with one hash tag are in one place, in a Cluster too. One node of
    /// a Cluster may hang while the others answer; through Envoy each command to it would wait for its timeout, and
    /// delay the replies behind it.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.key().map(part_of)
    }

    /// Whether it makes a binding.
    #[must_use]
    pub fn binds(&self) -> bool {
        match self {
            Self::Script(call) | Self::ScriptSource(call) => call.script.name == BIND.name,
            Self::Ping | Self::Get(_) | Self::Range { .. } => false,
        }
    }

    /// The command on the wire: an array of bulk strings.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Script(call) => array(&call.evalsha()),
            Self::ScriptSource(call) => array(&call.eval()),
            Self::Ping => array(&["PING"]),
            Self::Get(key) => array(&["GET", key.as_str()]),
            Self::Range { key, from, last } => {
                array(&["GETRANGE", key.as_str(), &from.to_string(), &last.to_string()])
            }
        }
    }
}

fn array(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    // A part and its length, which has at most this many digits.
    let size = parts.iter().map(|part| part.as_ref().len().saturating_add(16));
    let mut out = Vec::with_capacity(size.fold(16, usize::saturating_add));
    let header = |out: &mut Vec<u8>, kind: u8, number: usize| {
        out.push(kind);
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(&mut out, b'*', parts.len());
    for part in parts.iter().map(AsRef::as_ref) {
        header(&mut out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Decodes replies from chunks of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    scan: Scan,
}

/// The stream is not RESP2, or exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError;

impl Decoder {
    /// Takes bytes; returns the complete replies.
    ///
    /// # Errors
    /// [`ProtocolError`]: the stream is no longer usable.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Value>, ProtocolError> {
        self.pending.extend_from_slice(bytes);
        let (mut replies, mut start) = (Vec::new(), 0);
        while let Some(end) = self.scan.end(&self.pending)? {
            let reply = self.pending.get(start..end).unwrap_or_default();
            let (frame, used) = decode(reply).ok().flatten().ok_or(ProtocolError)?;
            if used != reply.len() {
                return Err(ProtocolError);
            }
            replies.push(value(frame));
            start = end;
        }
        self.pending.drain(..start);
        self.scan.at = self.scan.at.saturating_sub(start);
        if self.pending.len() > MAX_REPLY_BYTES {
            return Err(ProtocolError);
        }
        Ok(replies)
    }
}

/// Searches the end of a reply, and continues where it stopped when more bytes arrive.
#[derive(Debug, Default)]
struct Scan {
    /// Everything before this was read.
    at: usize,
    /// The line at `at` has no end up to here.
    line: usize,
    /// How many items each open array still needs.
    open: Vec<usize>,
    /// The number of items in the reply, according to its headers.
    items: usize,
}

impl Scan {
    /// The end of the reply after the last one; `None` when it has not arrived.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if !matches!(rest.first(), None | Some(b'*' | b'$' | b'+' | b'-' | b':')) {
                return Err(ProtocolError);
            }
            let unseen = rest.get(self.line..).unwrap_or_default();
            let Some(end) = unseen.windows(2).position(|pair| pair == b"\r\n") else {
                // The last byte may be the first byte of the line end.
                self.line = rest.len().saturating_sub(1);
                return if self.line > MAX_LINE { Err(ProtocolError) } else { Ok(None) };
            };
            let line = rest.get(..self.line.saturating_add(end)).unwrap_or_default();
            let after = self.at.saturating_add(line.len()).saturating_add(2);
            let next = match (line.first(), size(line)) {
                (Some(b'$'), Some(size)) => after.saturating_add(size).saturating_add(2),
                _ => after,
            };
            if next > bytes.len() {
                // The line is read again only when its string has arrived.
                self.line = line.len();
                return Ok(None);
            }
            (self.at, self.line) = (next, 0);
            match (line.first(), size(line)) {
                (Some(b'*'), Some(items)) if items > 0 => self.opened(items)?,
                _ => self.item_is_complete(),
            }
            if self.open.is_empty() {
                self.items = 0;
                return Ok(Some(self.at));
            }
        }
    }

    fn opened(&mut self, items: usize) -> Result<(), ProtocolError> {
        self.items = self.items.saturating_add(items);
        self.open.push(items);
        if self.open.len() > MAX_DEPTH || self.items > MAX_ITEMS {
            return Err(ProtocolError);
        }
        Ok(())
    }

    /// Counts a complete item, and every array that it completes.
    fn item_is_complete(&mut self) {
        while let Some(lacking) = self.open.last_mut() {
            *lacking = lacking.saturating_sub(1);
            if *lacking > 0 {
                break;
            }
            self.open.pop();
        }
    }
}

/// The number after a header's first byte; none for nil.
fn size(line: &[u8]) -> Option<usize> {
    let number: isize = std::str::from_utf8(line.get(1..)?).ok()?.parse().ok()?;
    usize::try_from(number).ok()
}

fn value(frame: OwnedFrame) -> Value {
    match frame {
        OwnedFrame::SimpleString(text) => {
            Value::Status(String::from_utf8_lossy(&text).into_owned())
        }
        OwnedFrame::Error(text) => Value::Error(text),
        OwnedFrame::Integer(integer) => Value::Int(integer),
        OwnedFrame::BulkString(bytes) => Value::Bulk(bytes),
        OwnedFrame::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        OwnedFrame::Null => Value::Nil,
    }
}

/// The part of a key that Redis Cluster hashes: its tag if it has one (the text in the first braces), otherwise all.
fn part_of(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_a_cluster_keeps_in_one_place() {
        assert_eq!(part_of("portcullis:{acme}:window:{x}"), "acme");
        assert_eq!(part_of("portcullis:policy:doc:v1"), "portcullis:policy:doc:v1");
        assert_eq!(part_of("a{}b"), "a{}b", "an empty tag is none");
        assert_eq!(part_of("a{b"), "a{b");
    }

    const REPLIES: &[u8] =
        b"*3\r\n:1\r\n$3\r\na\r\n\r\n*1\r\n$-1\r\n+OK\r\n-NOSCRIPT no\r\n:-7\r\n";

    #[test]
    fn chunk_boundaries_change_nothing() {
        let whole = Decoder::default().feed(REPLIES).unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[1], Value::Status("OK".into()));
        for size in 1..REPLIES.len() {
            let mut decoder = Decoder::default();
            let replies: Vec<_> =
                REPLIES.chunks(size).flat_map(|chunk| decoder.feed(chunk).unwrap()).collect();
            assert_eq!(replies, whole, "chunks of {size}");
        }
    }

    #[test]
    fn what_is_not_resp_ends_the_stream() {
        assert_eq!(Decoder::default().feed(b"HTTP/1.1 200"), Err(ProtocolError));
        for level in ["*1\r\n", "*2\r\n:1\r\n", "*2\r\n$-0\r\n\r\n"] {
            let deep = level.repeat(100_000).into_bytes();
            assert_eq!(Decoder::default().feed(&deep), Err(ProtocolError), "{level:?}");
        }
        assert_eq!(Decoder::default().feed(&b"*0\r\n".repeat(99)).map(|all| all.len()), Ok(99));
        // Finding 10.9: millions of items are not of our scripts, and are not waited for.
        assert_eq!(Decoder::default().feed(b"*3300000\r\n:1\r\n"), Err(ProtocolError));
        assert_eq!(Decoder::default().feed(&[b'+'; MAX_LINE + 3]), Err(ProtocolError));
        let mut decoder = Decoder::default();
        let endless = format!("${}\r\n", usize::MAX >> 1).into_bytes();
        assert!(decoder.feed(&endless).is_ok());
        assert_eq!(decoder.feed(&vec![b'x'; MAX_REPLY_BYTES]), Err(ProtocolError));
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let get = Command::Get(Key::policy_document("0123456789abcdef"));
        let text = String::from_utf8(get.encode()).unwrap();
        assert!(text.starts_with("*2\r\n$3\r\nGET\r\n$"), "{text}");
    }
}
