//! gRPC's framing on the Redis stream: removed from messages to Redis, added to those from it.
//!
//! Owns the five-byte prefix of a message (gRPC over HTTP/2: a flag, four bytes of length). Does not know the host and
//! needs only the standard library: every worker of every Envoy compiles the module made of it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::borrow::Cow;

const PREFIX: usize = 5;

/// One connection to Redis.
#[derive(Debug, Default)]
pub struct Framing {
    /// The bytes of a message that is not complete yet.
    pending: Vec<u8>,
}

impl Framing {
    /// The payloads of all messages that are complete now.
    pub fn unframe<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        // The usual case: one message at a time.
        if self.pending.is_empty()
            && let Some((payload, [])) = message(bytes)
        {
            return payload.into();
        }
        self.pending.extend_from_slice(bytes);
        let mut raw = Vec::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        while let Some((payload, tail)) = message(rest) {
            raw.extend_from_slice(payload);
            rest = tail;
        }
        self.pending = rest.to_vec();
        raw.into()
    }
}

/// The payload of the first message, and the bytes after it.
fn message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let [_, length @ ..] = prefix;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The prefix of a message of `size` raw bytes.
#[must_use]
pub fn prefix(size: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(size).unwrap_or(0).to_be_bytes();
    [0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        messages.iter().flat_map(|message| [&prefix(message.len())[..], message].concat()).collect()
    }

    #[test]
    fn whatever_the_pieces_the_payloads_are_the_same() {
        let bytes = framed(&[b"PING\r\n", b"", b"*1\r\n$4\r\nPING\r\n", &[7; 300]]);
        let expected = [&b"PING\r\n*1\r\n$4\r\nPING\r\n"[..], &[7; 300]].concat();
        for size in 1..=bytes.len() {
            let mut framing = Framing::default();
            let raw = bytes.chunks(size).flat_map(|piece| framing.unframe(piece).into_owned());
            assert_eq!(raw.collect::<Vec<u8>>(), expected, "pieces of {size}");
            assert!(framing.pending.is_empty());
        }
    }

    #[test]
    fn what_is_not_whole_waits() {
        let mut framing = Framing::default();
        assert_eq!(framing.unframe(&[0, 0, 0, 0]), &b""[..]);
        assert_eq!(framing.unframe(&[2, b'o']), &b""[..]);
        assert_eq!(framing.unframe(b"k"), &b"ok"[..]);
        assert_eq!(framing.unframe(&framed(&[b"again"])), &b"again"[..]);
    }

    #[test]
    fn one_whole_message_is_not_copied() {
        let bytes = framed(&[b"PING\r\n"]);
        assert!(matches!(Framing::default().unframe(&bytes), Cow::Borrowed(b"PING\r\n")));
    }
}
