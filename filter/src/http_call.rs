//! Replies to HTTP calls.
//!
//! Owns what a good one is. Whose it is, the token tells the part that made the call.

use portcullis_core::driver::call::CallFailure;

use crate::host::{self, BufferType, MapType};

/// A reply beyond this is neither a secret nor a key set.
const MAX_REPLY: usize = 1_048_576;

/// Status and body of a reply that may be an answer whatever its status is: of a token endpoint.
pub(crate) fn any_body(headers: usize, size: usize) -> Result<(u16, Vec<u8>), CallFailure> {
    if headers == 0 {
        return Err(CallFailure::TimedOut);
    }
    let [status] = host::values(MapType::CallResponseHeaders, [":status"]);
    let status = std::str::from_utf8(&status).ok().and_then(|text| text.parse::<u16>().ok());
    match status {
        Some(status @ 200..500) if size <= MAX_REPLY => {
            let body = host::buffer(BufferType::HttpCallResponseBody, size);
            body.map(|body| (status, body)).map_err(|_| CallFailure::Unreadable)
        }
        Some(504) => Err(CallFailure::TimedOut),
        Some(status @ 500..) => Err(CallFailure::Status(status)),
        Some(_) | None => Err(CallFailure::Unreadable),
    }
}

/// The body of a good reply. Envoy answers for an unreachable server with a status of its own, or
/// with no headers at all.
pub(crate) fn body(headers: usize, size: usize) -> Result<Vec<u8>, CallFailure> {
    if headers == 0 {
        return Err(CallFailure::TimedOut);
    }
    let [status] = host::values(MapType::CallResponseHeaders, [":status"]);
    let status = std::str::from_utf8(&status).ok().and_then(|text| text.parse::<u16>().ok());
    match status {
        Some(200..300) if size <= MAX_REPLY => host::buffer(BufferType::HttpCallResponseBody, size)
            .map_err(|_| CallFailure::Unreadable),
        Some(200..300) => Err(CallFailure::Unreadable),
        Some(504) => Err(CallFailure::TimedOut),
        Some(status) => Err(CallFailure::Status(status)),
        None => Err(CallFailure::Unreadable),
    }
}
