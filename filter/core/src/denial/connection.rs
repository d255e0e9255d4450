//! Refusals because of a request's use of its connection, and because of the host's configuration.
//!
//! Owns their names, statuses and messages. None of them depends on a message or its caller.

use crate::driver::event::Head;

/// A feature of the connection that a request asks for and the gateway does not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Another protocol on this connection (RFC 9110 §7.8), or the extended CONNECT of HTTP/2 (RFC 8441), which Envoy
    /// shows as an upgrade. The data after it is neither a request body nor MCP messages.
    Upgrade,
    /// A tunnel (RFC 9110 §9.3.6).
    Connect,
    /// An interim response before the body (RFC 9110 §10.1.1). Envoy sends it itself and removes the header. With
    /// `proxy_100_continue` Envoy leaves it to the server, which receives nothing before the body is judged.
    Expect,
}

impl Unsupported {
    /// The unsupported feature that `head` asks for, if any.
    #[must_use]
    pub fn asked_by(head: &Head) -> Option<Self> {
        if head.method() == b"CONNECT" {
            Some(Self::Connect)
        } else if head.has("upgrade") {
            Some(Self::Upgrade)
        } else if head.has("expect") {
            Some(Self::Expect)
        } else {
            None
        }
    }

    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Upgrade => 400,
            Self::Connect => 405,
            // Clients send the request again without the header (RFC 9110 §10.1.1).
            Self::Expect => 417,
        }
    }

    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Upgrade => "request.upgrade",
            Self::Connect => "request.connect",
            Self::Expect => "request.expect",
        }
    }

    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Upgrade => {
                "This gateway does not change the protocol of a connection: send the request without Upgrade"
            }
            Self::Connect => "This gateway opens no tunnels: use POST, GET or DELETE",
            Self::Expect => {
                "This gateway sends no interim responses: send the request without Expect"
            }
        }
    }
}

/// A setting of the host that prevents the filter from serving a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// The filter must hold the headers until it has the body, but the host does not show the body while headers are
    /// held: `allow_on_headers_stop_iteration` is not set.
    CannotHold,
    /// The host buffers less than `max_body_bytes`.
    BufferLimit,
}

impl HostFault {
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::CannotHold => 503,
            Self::BufferLimit => 413,
        }
    }

    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::CannotHold => "host.cannot_hold",
            Self::BufferLimit => "host.buffer_limit",
        }
    }

    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::CannotHold => {
                "The gateway is not set up to serve calls: ask its operator (rule `host.cannot_hold`)"
            }
            Self::BufferLimit => {
                "The body is larger than the gateway's proxy buffers (rule `host.buffer_limit`)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 11.10.
    #[test]
    fn what_a_connection_is_asked_for_is_recognised() {
        let asked = |method, headers: &[(&str, &str)]| {
            Unsupported::asked_by(&Head::for_tests(method, "/demo/mcp", headers))
        };
        assert_eq!(asked("POST", &[("content-type", "application/json")]), None);
        assert_eq!(asked("POST", &[("upgrade", "websocket")]), Some(Unsupported::Upgrade));
        assert_eq!(asked("GET", &[("upgrade", "")]), Some(Unsupported::Upgrade));
        assert_eq!(asked("CONNECT", &[("upgrade", "websocket")]), Some(Unsupported::Connect));
        assert_eq!(asked("POST", &[("expect", "100-continue")]), Some(Unsupported::Expect));
        assert_eq!(asked("POST", &[("expect", "the-unexpected")]), Some(Unsupported::Expect));
    }
}
