//! The upstream filter of the Redis stream, for configurations that load this module for it.
//!
//! Owns the callbacks. Runs in a VM of its own, because Envoy creates it inside a host call of the filter's VM; the
//! small module `redis_framing` does the same at a hundredth of the size.

use portcullis_redis_framing::{Framing, prefix};

use crate::host::{self, BufferType};
use crate::http_context::{Action, HttpContext};

/// One connection to Redis.
#[derive(Default)]
pub(crate) struct Frame {
    framing: Framing,
}

impl HttpContext for Frame {
    fn on_http_request_body(&mut self, size: usize, _end: bool) -> Action {
        if size > 0 {
            let bytes = host::buffer(BufferType::HttpRequestBody, size).unwrap_or_default();
            let raw = self.framing.unframe(&bytes);
            // Without the replacement Redis receives framing and answers with an error, which ends the stream: no
            // request is admitted.
            let _ = host::replace_buffer(BufferType::HttpRequestBody, size, &raw);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _end: bool) -> Action {
        if size > 0 {
            // Without it the reply is not a message, which ends the stream.
            let _ = host::replace_buffer(BufferType::HttpResponseBody, 0, &prefix(size));
        }
        Action::Continue
    }
}
