//! Replies to HTTP calls.
//!
//! Owns the definition of a good reply. The token tells the caller of this module which of its calls was answered.

use portcullis_core::driver::call::CallFailure;

use crate::host::{self, BufferType, MapType};

/// A larger reply is neither a secret nor a key set.
const MAX_REPLY: usize = 1_048_576;

/// Status and body of a reply from a token endpoint, which may be valid with any status.
pub(crate) fn any_body(headers: usize, size: usize) -> Result<(u16, Vec<u8>), CallFailure> {
    let status = status(headers)?;
    if size > MAX_REPLY {
        return Err(CallFailure::Unreadable);
    }
    let body = host::buffer(BufferType::HttpCallResponseBody, size);
    body.map(|body| (status, body)).map_err(|_| CallFailure::Unreadable)
}

/// The status of a reply from a server that is there, whatever it decided.
pub(crate) fn status(headers: usize) -> Result<u16, CallFailure> {
    if headers == 0 {
        return Err(CallFailure::TimedOut);
    }
    let [status] = host::values(MapType::CallResponseHeaders, [":status"]);
    let status = std::str::from_utf8(&status).ok().and_then(|text| text.parse::<u16>().ok());
    match status {
        Some(status @ 200..500) => Ok(status),
        Some(504) => Err(CallFailure::TimedOut),
        Some(status @ 500..) => Err(CallFailure::Status(status)),
        Some(_) | None => Err(CallFailure::Unreadable),
    }
}

/// The body of a good reply. For an unreachable server, Envoy answers with a status of its own, or without headers.
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
