//! A response of the gateway's own, as Envoy's local reply sends it.
//!
//! Owns its parts. What stands in them is for whoever refuses or answers.

/// A response that the gateway makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}
