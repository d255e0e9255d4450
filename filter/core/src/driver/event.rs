//! Events of an exchange. Facts only; the time is a separate argument.

mod headers;

use std::fmt;

use crate::auth::certificate::{CertificateFailure, PeerCertificate};
use crate::driver::call::{CallFailure, CallId, Reply};
use crate::id::RequestId;
use crate::route::Selected;

pub use headers::Headers;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// The request's headers; `last` when no body follows.
    Head {
        /// The headers.
        head: Head,
        /// Whether the request ends here.
        last: bool,
    },
    /// The whole request body.
    Body(Vec<u8>),
    /// The request body grew beyond the configured cap.
    BodyTooLarge,
    /// The host has received bytes of the body, but does not show them while the headers are held.
    BodyWithheld,
    /// A call was answered.
    CallDone {
        /// The call.
        id: CallId,
        /// Its reply.
        reply: Reply,
    },
    /// A call could not be started, got no usable reply, or took too long.
    CallFailed {
        /// The call.
        id: CallId,
        /// The reason.
        why: CallFailure,
    },
    /// A response's headers.
    ResponseHead(ResponseHead),
    /// Bytes of the response.
    ResponseBody {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the response ends here.
        last: bool,
    },
    /// The exchange is over; nothing follows.
    Closed(Closing),
}

/// The relevant headers of a response; absent ones are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The value of `content-type`.
    pub content_type: Vec<u8>,
    /// The value of `content-encoding`.
    pub content_encoding: Vec<u8>,
    /// The value of `mcp-session-id`.
    pub session_id: Vec<u8>,
    /// The names of the headers that are not among [`crate::mcp::headers::OF_ANSWERS`].
    pub others: Vec<String>,
    /// Its origin.
    pub origin: Origin,
    /// Whether the response ends here.
    pub last: bool,
}

/// The origin of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The upstream.
    Upstream,
    /// Envoy itself, instead of the upstream: no connection, no route, a timeout.
    Proxy,
    /// Another filter, or a route with a direct response.
    Filter,
    /// Envoy itself, because the upstream disconnected after it had received the request or a part of it.
    Disconnected,
}

/// How an exchange ended, as Envoy reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// The status code that was sent to the client, if any.
    pub http_status: Option<u16>,
    /// The time from the first byte of the request to the end, in milliseconds.
    pub latency_ms: u64,
    /// The upstream's part of it, if the request was sent there.
    pub upstream_ms: Option<u64>,
    /// How often Envoy sent the request to an upstream, if it did.
    pub attempts: Option<u64>,
    /// The reason for the end.
    pub end: End,
}

/// The reason for the end of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The whole response was sent.
    #[default]
    Complete,
    /// The client disconnected before that.
    ClientGone,
    /// The upstream disconnected, or ended the response with trailers before all of it could be sent.
    UpstreamGone,
}

/// The headers of a request and Envoy's facts about it.
#[derive(Clone)]
pub struct Head {
    /// The id of this request.
    pub request_id: RequestId,
    /// The client's address, without port.
    pub client_address: String,
    /// The client's certificate, as Envoy verified and described it.
    pub certificate: Option<Result<PeerCertificate, CertificateFailure>>,
    /// The cluster of the route that Envoy selected, if the route has one.
    pub cluster: Option<String>,
    headers: Headers,
    /// Of `:path`, which some twenty checks of a request ask for.
    path: String,
    query: Vec<u8>,
}

/// Without the headers, which contain the credential.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = f.debug_struct("Head");
        head.field("request_id", &self.request_id).field("client_address", &self.client_address);
        head.finish_non_exhaustive()
    }
}

impl Head {
    /// Takes all headers, pseudo-headers included, names in lower case.
    #[must_use]
    pub fn new(request_id: RequestId, client_address: String, headers: impl Into<Headers>) -> Self {
        let headers = headers.into();
        let target = headers.single(b":path").unwrap_or_default();
        let mut parts = target.splitn(2, |b| *b == b'?');
        let path = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let query = match parts.next() {
            None => Vec::new(),
            // A question mark alone is a query, too: one empty parameter.
            Some(b"") => b"&".to_vec(),
            Some(query) => query.to_vec(),
        };
        let (certificate, cluster) = (None, None);
        Self { request_id, client_address, certificate, cluster, headers, path, query }
    }

    /// The same, with the cluster of the selected route.
    #[must_use]
    pub fn with_cluster(mut self, cluster: Option<String>) -> Self {
        self.cluster = cluster;
        self
    }

    /// The destination that the router selected.
    #[must_use]
    pub fn selected(&self) -> Selected {
        let authority = self.single(":authority").unwrap_or_default();
        let authority = String::from_utf8_lossy(authority).into_owned();
        Selected { cluster: self.cluster.clone(), authority }
    }

    /// The same, on a connection whose client presented a certificate.
    #[must_use]
    pub fn with_certificate(
        self,
        certificate: Result<PeerCertificate, CertificateFailure>,
    ) -> Self {
        Self { certificate: Some(certificate), ..self }
    }

    /// Every value of the header `name`, in order. A repeated header has several: gateways and servers disagree when
    /// one of them uses only the first.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.each(name).collect()
    }

    fn each(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.values(name.as_bytes())
    }

    /// Whether there is a header `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.each(name).next().is_some()
    }

    /// The value of the header `name` when there is exactly one.
    #[must_use]
    pub fn single(&self, name: &str) -> Option<&[u8]> {
        self.headers.single(name.as_bytes())
    }

    /// The names of all headers that start with `prefix`, once each.
    #[must_use]
    pub fn names_with(&self, prefix: &str) -> Vec<String> {
        self.names_where(|name| name.starts_with(prefix.as_bytes()))
    }

    /// The names of all headers for which `fits` is true, once each.
    pub fn names_where(&self, fits: impl Fn(&[u8]) -> bool) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in self.headers.iter().filter(|(name, _)| fits(name)) {
            let name = String::from_utf8_lossy(name);
            if !names.iter().any(|known| *known == name) {
                names.push(name.into_owned());
            }
        }
        names
    }

    /// The HTTP method.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.single(":method").unwrap_or_default()
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its question mark.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        &self.query
    }

    #[cfg(test)]
    pub(crate) fn for_tests(method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let pseudo = [(":method", method), (":path", path)];
        let headers = pseudo.iter().chain(headers);
        let headers: Headers = headers.copied().collect();
        let request_id = RequestId::new("r-1");
        Self::new(request_id.unwrap(), "192.0.2.7".into(), headers)
    }
}
