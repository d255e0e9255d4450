//! The upstream filter of the Redis stream: gRPC messages to raw bytes and back.
//!
//! Owns the five-byte prefix (gRPC over HTTP/2: a flag, four bytes of length). Runs in a VM of its
//! own, since Envoy creates it inside a host call of the filter's VM.

use std::borrow::Cow;

use crate::host::{self, BufferType};
use crate::http_context::{Action, HttpContext};

const PREFIX: usize = 5;

/// One connection to Redis.
#[derive(Default)]
pub(crate) struct Frame {
    /// What has come of a message that is not whole yet.
    pending: Vec<u8>,
}

impl HttpContext for Frame {
    fn on_http_request_body(&mut self, size: usize, _end: bool) -> Action {
        if size > 0 {
            let bytes = host::buffer(BufferType::HttpRequestBody, size).unwrap_or_default();
            let raw = self.unframe(&bytes);
            // Without the replacement Redis would see framing and answer with an error, which ends
            // the stream: nothing is admitted by it.
            let _ = host::replace_buffer(BufferType::HttpRequestBody, size, &raw);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _end: bool) -> Action {
        if size > 0 {
            // Without it the reply is no message, which ends the stream.
            let _ = host::replace_buffer(BufferType::HttpResponseBody, 0, &prefix(size));
        }
        Action::Continue
    }
}

impl Frame {
    /// The payloads of all messages that are whole now.
    fn unframe<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        // As it nearly always is: one message at a time.
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
        let rest = rest.to_vec();
        self.pending = rest;
        raw.into()
    }
}

/// The payload of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let [_, length @ ..] = prefix;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// What stands before a message of `size` raw bytes.
fn prefix(size: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(size).unwrap_or(0).to_be_bytes();
    [0, a, b, c, d]
}
