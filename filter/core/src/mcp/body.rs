//! Filters a JSON response body while it passes.
//!
//! Owns how much of it is held: the start, until the message is complete or has grown. A body that is not JSON is
//! replaced if nothing of it was forwarded, otherwise cut off. Knows no event streams.

use super::filter::{MessageFilter, Reader};

/// The most bytes of one message that are held before any are forwarded.
pub const MAX_HELD_BYTES: usize = 65_536;

/// Whether two texts are equal, eight bytes at a time: the module's C library compares single bytes.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, tail)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let mut pairs = words.iter().zip(others);
    one.len() == other.len()
        && pairs.all(|(one, other)| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*other))
        && rest == tail
}

/// The replacement of an unreadable message.
pub trait Substitute: Reader {
    /// The JSON-RPC error; `id` is that of the message, if it was read.
    fn refused(&mut self, id: Option<&serde_json::Value>) -> String;
}

/// The state of a passing body.
#[derive(Debug, Default)]
pub struct JsonBody {
    filter: MessageFilter,
    held: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No byte has arrived.
    #[default]
    Empty,
    /// Nothing was forwarded.
    Held,
    /// Further bytes are forwarded.
    Passing,
    /// No further bytes are forwarded.
    Ended,
}

impl JsonBody {
    /// Whether no byte has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Takes a chunk; returns its replacement, or `None` to forward the chunk itself.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        last: bool,
        reader: &mut dyn Substitute,
    ) -> Option<Vec<u8>> {
        if self.state == State::Ended {
            return Some(Vec::new());
        }
        if self.state == State::Empty && !chunk.is_empty() {
            self.state = State::Held;
        }
        let before = self.held.len();
        self.held.reserve(chunk.len());
        let read = self.filter.feed(chunk, &mut self.held, reader);
        let cut = last && self.state != State::Empty && !self.filter.is_complete();
        if read.is_err() || cut {
            return Some(self.refuse(reader));
        }
        let whole = last || self.filter.is_complete();
        if self.state == State::Held && !whole && self.held.len() <= MAX_HELD_BYTES {
            return Some(Vec::new());
        }
        if self.state != State::Empty {
            self.state = State::Passing;
        }
        self.filter.release(&mut self.held);
        let out = std::mem::take(&mut self.held);
        (before > 0 || !is_same(&out, chunk)).then_some(out)
    }

    /// Replaces the held bytes; a part that was forwarded before stays without its end.
    fn refuse(&mut self, reader: &mut dyn Substitute) -> Vec<u8> {
        let held = self.state != State::Passing;
        self.state = State::Ended;
        let refusal = reader.refused(self.filter.id());
        let out = std::mem::take(&mut self.held);
        if held { refusal.into_bytes() } else { out }
    }
}
