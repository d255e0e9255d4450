//! The HTTP/1.1 and HTTP/2 envelope of a message: the headers that pass in each direction, and the gateway's own
//! responses.
//!
//! Owns lists of names and the forms of values. Knows no caller and no policy.

pub(crate) mod header_names;
pub mod local_reply;
pub(crate) mod query;
pub mod request_headers;
pub mod response_headers;
