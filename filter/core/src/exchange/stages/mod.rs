//! One wait per file, with the name of what it waits for. A stage names no other: it returns an outcome.

pub(crate) mod admission;
pub(crate) mod approval;
pub(crate) mod credential;
pub(crate) mod load_policy;
pub(crate) mod read_again;
pub(crate) mod request_body;
pub(crate) mod request_headers;
pub(crate) mod response_body;
pub(crate) mod response_headers;
pub(crate) mod verify_key;
pub(crate) mod verify_token;
