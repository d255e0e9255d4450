//! A response of the gateway itself, which the driver sends as Envoy's local reply.
//!
//! Owns its parts. The modules that refuse or answer own the content.

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
