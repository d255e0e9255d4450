//! One HTTP stream: callbacks to events, gates to actions.
//!
//! Owns what "hold", "pass" and "observe" mean to the host in each callback. Decides nothing.

use std::rc::Rc;

use portcullis_core::auth::certificate::mapping::CertificateMode;
use portcullis_core::auth::certificate::{CertificateFailure, PeerCertificate};
use portcullis_core::config::Mode;
use portcullis_core::denial::{Denial, Requested};
use portcullis_core::driver::call::{CallFailure, Dependency};
use portcullis_core::driver::event::{Closing, End, Event, Head, Origin, ResponseHead};
use portcullis_core::driver::step::{RequestGate, ResponseGate};
use portcullis_core::guard;
use portcullis_core::mcp::headers::OF_ANSWERS;
use portcullis_core::mcp::{Era, Sender};

use crate::exchanges::Ending;
use crate::gateway::{Gateway, send};
use crate::host::{self, BufferType, MapType};
use crate::http_context::{Action, HttpContext};

/// The name under which access loggers find the audit entry: `wasm.portcullis.audit`.
const AUDIT_STATE: &str = "portcullis.audit";

/// One stream.
pub(crate) struct Stream {
    id: u32,
    gateway: Rc<Gateway>,
    request: Request,
    response: Response,
    keeper: Keeper,
    answer: Answer,
}

/// How much of the upstream's answer has gone by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing, or something else takes its place.
    None,
    /// Headers with this status.
    Begun(u16),
    /// All of it came, and waits for a call.
    Waiting(u16),
    /// All of it, and whether the client got it.
    Whole(u16, End),
}

/// Who keeps the request's body until it is judged.
enum Keeper {
    /// The host, with the headers before it: `hold` mode.
    Host,
    /// The filter, since the headers are gone (`split` mode). The host has one buffer for all filters of a stream, and one
    /// behind this that goes on takes along what is in it; and what it holds while headers wait counts against its
    /// limit, beyond which it reads no more.
    Filter(Vec<u8>),
}

/// How far the request got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Body bytes are being collected.
    Collecting,
    /// The core has all of it.
    Delivered,
    /// It is none of the gateway's business: nothing of it, nor of its answer, is looked at.
    Foreign,
}

/// What is done with response bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Response {
    /// They pass.
    Pass,
    /// Each chunk is shown to the core.
    Observe,
}

impl Stream {
    pub(crate) fn new(id: u32, gateway: Rc<Gateway>) -> Self {
        gateway.open(id);
        let (request, response) = (Request::Collecting, Response::Pass);
        let (keeper, answer) = (Keeper::Host, Answer::None);
        Self { id, gateway, request, response, keeper, answer }
    }

    fn head(&self) -> Head {
        let headers = host::headers(MapType::RequestHeaders);
        let given = headers.iter().find(|(name, _)| *name == b"x-request-id");
        let request_id = self.gateway.request_id(self.id, given.map(|(_, value)| value));
        let head = Head::new(request_id, client_address(), headers).with_cluster(cluster());
        match self.gateway.certificates() {
            CertificateMode::Off => head,
            CertificateMode::Optional | CertificateMode::Required => match certificate() {
                Some(certificate) => head.with_certificate(certificate),
                None => head,
            },
        }
    }

    /// The request is whole: hands its body to the core.
    fn deliver(&mut self, size: usize) -> Action {
        self.request = Request::Delivered;
        self.gateway.hold_request(self.id);
        match self.whole(size) {
            Ok(body) => {
                request_action(self.gateway.drive_request(self.id, Event::Body(body)).as_ref())
            }
            // A body that cannot be read cannot be judged.
            Err(_) => {
                request_action(self.gateway.drive_request(self.id, Event::BodyTooLarge).as_ref())
            }
        }
    }

    /// The whole body; `size` bytes of it are in the host's buffer.
    fn whole(&mut self, size: usize) -> Result<Vec<u8>, host::HostError> {
        match &mut self.keeper {
            Keeper::Host => host::buffer(BufferType::HttpRequestBody, size),
            Keeper::Filter(kept) => {
                take(kept, size)?;
                Ok(std::mem::take(kept))
            }
        }
    }

    /// More of the body: how much of it there is now.
    fn collect(&mut self, size: usize) -> Result<usize, host::HostError> {
        match &mut self.keeper {
            Keeper::Host => Ok(size),
            Keeper::Filter(kept) => take(kept, size).map(|()| kept.len()),
        }
    }

    /// The same, without taking it.
    fn collected(&self, size: usize) -> usize {
        match &self.keeper {
            Keeper::Host => size,
            Keeper::Filter(kept) => kept.len().saturating_add(size),
        }
    }

    fn too_large(&mut self) -> Action {
        self.request = Request::Delivered;
        if let Keeper::Filter(kept) = &mut self.keeper {
            *kept = Vec::new();
        }
        request_action(self.gateway.drive_request(self.id, Event::BodyTooLarge).as_ref())
    }

    fn respond(&mut self, gate: Option<&ResponseGate>) -> Action {
        let (response, action) = match gate {
            Some(ResponseGate::Pass) => (Response::Pass, Action::Continue),
            Some(ResponseGate::Observe) => (Response::Observe, Action::Continue),
            Some(ResponseGate::Pause) | None => (Response::Observe, Action::Pause),
            // What takes its place was sent by the gateway already.
            Some(ResponseGate::Replace(_)) => (Response::Pass, Action::Pause),
        };
        self.response = response;
        action
    }

    /// What the core said to the upstream's answer, or to a part of it. What waits for a call is not whole: its client may
    /// leave meanwhile.
    fn follow(&mut self, gate: Option<&ResponseGate>, last: bool) {
        self.answer = match (gate, self.answer) {
            (Some(ResponseGate::Pass | ResponseGate::Observe), Answer::Begun(status)) if last => {
                Answer::Whole(status, End::Complete)
            }
            (Some(ResponseGate::Pause) | None, Answer::Begun(status)) if last => {
                Answer::Waiting(status)
            }
            (Some(ResponseGate::Pass | ResponseGate::Observe | ResponseGate::Pause), answer)
            | (None, answer) => answer,
            (Some(ResponseGate::Replace(_)), _) => Answer::None,
        };
    }

    /// A chunk of the response.
    fn show(&mut self, size: usize, last: bool) -> Action {
        let shown = match size {
            // The end of a response, behind its body.
            0 => Ok(Vec::new()),
            size => host::buffer(BufferType::HttpResponseBody, size),
        };
        let Ok(bytes) = shown else {
            // What cannot be read cannot be filtered.
            let _ = host::replace_buffer(BufferType::HttpResponseBody, size, &[]);
            return Action::Continue;
        };
        let event = Event::ResponseBody { bytes, last };
        let gate = self.gateway.drive_response(self.id, event, size);
        self.follow(gate.as_ref(), last);
        match self.respond(gate.as_ref()) {
            Action::Pause => Action::PauseShown,
            action => action,
        }
    }
}

/// Takes `size` bytes out of the host's buffer.
fn take(kept: &mut Vec<u8>, size: usize) -> Result<(), host::HostError> {
    if size == 0 {
        return Ok(());
    }
    kept.append(&mut host::buffer(BufferType::HttpRequestBody, size)?);
    host::replace_buffer(BufferType::HttpRequestBody, size, &[])
}

/// The request waits for the core's word, or goes on. A refusal was sent by the gateway already.
fn request_action(gate: Option<&RequestGate>) -> Action {
    match gate {
        Some(RequestGate::Pass) => Action::Continue,
        Some(RequestGate::Refuse(_) | RequestGate::LocalReply(_)) | None => Action::Pause,
    }
}

/// The cluster of the route that Envoy selected; of a route that answers by itself, none. True until the filter changes a
/// header: then Envoy selects again, later than the filter could look.
fn cluster() -> Option<String> {
    let cluster = host::property(&["xds", "cluster_name"]).filter(|cluster| !cluster.is_empty())?;
    Some(String::from_utf8_lossy(&cluster).into_owned())
}

/// The peer's address without its port.
fn client_address() -> String {
    let address = host::property(&["source", "address"]).unwrap_or_default();
    let address = String::from_utf8_lossy(&address).into_owned();
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// The peer's certificate. `connection.mtls` says that one was presented; that it was verified is up to
/// the listener: with a `validation_context`, an invalid one ends the handshake (docs/guides/client-certificates.md).
fn certificate() -> Option<Result<PeerCertificate, CertificateFailure>> {
    if host::property(&["connection", "mtls"]).as_deref() != Some(&[1]) {
        return None;
    }
    let told = |name| host::property(&["connection", name]).unwrap_or_default();
    let uri = told("uri_san_peer_certificate");
    let dns = told("dns_san_peer_certificate");
    let subject = told("subject_peer_certificate");
    let sha256 = told("sha256_peer_certificate_digest");
    Some(PeerCertificate::told(&[&uri], &[&dns], &subject, &sha256))
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, last: bool) -> Action {
        if last {
            self.request = Request::Delivered;
        }
        let mode = self.gateway.mode();
        if mode == Mode::Split {
            self.keeper = Keeper::Filter(Vec::new());
        }
        let head = self.head();
        if !self.gateway.covers(&head) {
            self.request = Request::Foreign;
            self.response = Response::Pass;
            // No client has it to give.
            if head.has(guard::HEADER) {
                let _ = host::remove_header(MapType::RequestHeaders, guard::HEADER);
            }
            return Action::Continue;
        }
        let gate = self.gateway.drive_request(self.id, Event::Head { head, last });
        let action = request_action(gate.as_ref());
        match (mode, action) {
            // Without the flag that is what a pause is; with it, the body would come before the headers are gone, and what
            // waits of it would follow them unjudged.
            (Mode::Split, Action::Pause) => Action::PauseAll,
            (Mode::Hold | Mode::Split, action) => action,
        }
    }

    fn on_http_request_body(&mut self, size: usize, last: bool) -> Action {
        match self.request {
            Request::Foreign => Action::Continue,
            // Nothing goes upstream before the verdict, and all of it after.
            Request::Delivered if self.gateway.passed(self.id) => Action::Continue,
            Request::Delivered => Action::Pause,
            Request::Collecting if self.collected(size) > self.gateway.max_body_bytes() => {
                self.too_large()
            }
            Request::Collecting if last => self.deliver(size),
            Request::Collecting => {
                let Ok(collected) = self.collect(size) else { return self.too_large() };
                let gate = self.gateway.receive(self.id, collected);
                if gate.is_some() {
                    self.request = Request::Delivered;
                }
                request_action(gate.as_ref())
            }
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if self.request == Request::Foreign {
            return Action::Continue;
        }
        // Trailers were not judged, so they do not go upstream.
        let _ = host::clear_headers(MapType::RequestTrailers);
        match self.request {
            Request::Foreign => Action::Continue,
            Request::Delivered if self.gateway.passed(self.id) => Action::Continue,
            Request::Delivered => Action::Pause,
            Request::Collecting => {
                let left = match self.keeper {
                    Keeper::Host => self.gateway.max_body_bytes(),
                    Keeper::Filter(_) => 0,
                };
                self.deliver(left)
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, last: bool) -> Action {
        if self.request == Request::Foreign {
            return Action::Continue;
        }
        let head = response_head(last);
        self.answer = match head.origin {
            Origin::Upstream => Answer::Begun(head.status),
            Origin::Proxy | Origin::Filter | Origin::Disconnected => Answer::None,
        };
        let event = Event::ResponseHead(head);
        let gate = self.gateway.drive_response(self.id, event, 0);
        self.follow(gate.as_ref(), last);
        self.respond(gate.as_ref())
    }

    fn on_http_response_body(&mut self, size: usize, last: bool) -> Action {
        match self.response {
            Response::Pass => {
                self.follow(Some(&ResponseGate::Pass), last);
                Action::Continue
            }
            Response::Observe => self.show(size, last),
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if self.request == Request::Foreign {
            return Action::Continue;
        }
        // No trailer is on a list of what passes.
        let _ = host::clear_headers(MapType::ResponseTrailers);
        match self.response {
            Response::Pass => {
                self.follow(Some(&ResponseGate::Pass), true);
                Action::Continue
            }
            Response::Observe => {
                // Nothing follows: a message that is not whole by now never will be.
                let lost = self.gateway.end_response(self.id);
                match self.gateway.suspended(self.id) {
                    true => {
                        self.follow(Some(&ResponseGate::Pause), true);
                        Action::Pause
                    }
                    false => {
                        self.follow(Some(&ResponseGate::Observe), true);
                        if let (true, Answer::Whole(_, end)) = (lost, &mut self.answer) {
                            *end = End::UpstreamGone;
                        }
                        Action::Continue
                    }
                }
            }
        }
    }

    /// The last callback whose filter state access loggers still see.
    fn on_log(&mut self) {
        if self.request == Request::Foreign {
            return;
        }
        let passed = self.gateway.passed(self.id);
        let ending = match self.answer {
            Answer::Whole(status, end) => {
                Ending::Whole { answer: (status, end), attempts: attempts(passed) }
            }
            answer => Ending::Told(closing(passed, answer)),
        };
        let audit = self.gateway.close(self.id, ending);
        // No stream, no logger: nothing is left to hand it to.
        let _ = audit.map(|lines| host::set_filter_state(AUDIT_STATE, &lines));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.gateway.forget(self.id);
    }
}

/// The headers of the response.
fn response_head(last: bool) -> ResponseHead {
    let headers = host::headers(MapType::ResponseHeaders);
    let mut head = ResponseHead {
        status: 0,
        content_type: Vec::new(),
        content_encoding: Vec::new(),
        session_id: Vec::new(),
        others: Vec::new(),
        origin: origin(),
        last,
    };
    for (name, value) in headers.iter() {
        match name {
            b":status" => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                head.status = status.unwrap_or(0);
            }
            b"content-type" => join(&mut head.content_type, value),
            b"content-encoding" => join(&mut head.content_encoding, value),
            b"mcp-session-id" => join(&mut head.session_id, value),
            name if OF_ANSWERS.iter().any(|known| known.as_bytes() == name) => {}
            name => head.others.push(String::from_utf8_lossy(name).into_owned()),
        }
    }
    head
}

/// A header that occurs twice has one value, as RFC 9110 §5.3 joins them: taking one of them is how
/// gateways and clients come to disagree.
fn join(known: &mut Vec<u8>, value: &[u8]) {
    if !known.is_empty() {
        known.extend_from_slice(b", ");
    }
    known.extend_from_slice(value);
}

/// What Envoy's router and its connection manager call the responses that they make themselves
/// (`source/common/stream_info`). All others are of filters, and of routes that answer by themselves.
const OF_THE_PROXY: [&str; 21] = [
    "cluster_not_found",
    "drop_overload",
    "duration_timeout",
    "filter_chain_not_found",
    "host_not_found",
    "internal_redirect",
    "maintenance_mode",
    "max_duration_timeout",
    "missing_host_header",
    "no_healthy_upstream",
    "request_overall_timeout",
    "request_payload_too_large",
    "response_payload_too_large",
    "response_timeout",
    "route_not_found",
    "stream_idle_timeout",
    "unconditional_drop_overload",
    "upstream_max_stream_duration_reached",
    "upstream_per_try_idle_timeout",
    "upstream_per_try_timeout",
    "upstream_response_timeout",
];

/// Envoy says of every response it did not make that it came through the upstream, and of its own why it
/// made them (`source/common/stream_info`): a connection that broke may have carried the request.
fn origin() -> Origin {
    const BROKE_OFF: &str = "upstream_reset_before_response_started";
    let details = host::property(&["response", "code_details"]).unwrap_or_default();
    let details = String::from_utf8_lossy(&details);
    match details.strip_prefix(BROKE_OFF) {
        Some(why) if why.contains("connection_failure") || why.contains("overflow") => {
            Origin::Proxy
        }
        Some(_) => Origin::Disconnected,
        None if details == "via_upstream" => Origin::Upstream,
        None if OF_THE_PROXY.contains(&reason(&details)) => Origin::Proxy,
        None => Origin::Filter,
    }
}

/// Details without what some of them add in braces.
fn reason(details: &str) -> &str {
    details.split_once('{').map_or(details, |(reason, _)| reason)
}

/// How often Envoy sent the request. Only of one that was let go is there anything to tell.
fn attempts(passed: bool) -> Option<u64> {
    passed.then(|| host::integer_property(&["upstream", "request_attempt_count"])).flatten()
}

/// How a request ended whose answer did not go by as a whole, as Envoy tells it: each question costs more than what the
/// filter saw itself.
fn closing(passed: bool, answer: Answer) -> Closing {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    let milliseconds = |path: &[&str]| {
        host::integer_property(path).and_then(|nanos| nanos.checked_div(NANOS_PER_MILLI))
    };
    let status = host::integer_property(&["response", "code"]);
    Closing {
        http_status: status.and_then(|status| u16::try_from(status).ok()).filter(|code| *code > 0),
        latency_ms: milliseconds(&["request", "duration"]).unwrap_or(0),
        upstream_ms: milliseconds(&["response", "backend_latency"]),
        attempts: attempts(passed),
        end: end(&host::property(&["response", "code_details"]).unwrap_or_default(), answer),
    }
}

/// Envoy's response code details (`source/common/stream_info`) name who ended the exchange. The details of a client that
/// leaves are those of the connection manager or of the codec of its connection. When an HTTP/2 client resets its stream
/// with `NO_ERROR`, Envoy keeps the details that the exchange had: an answer that began and did not come whole shows that
/// the client left. Our own replies have no details. All others cut the upstream short, such as
/// `upstream_reset_after_response_started{remote_reset}`.
fn end(details: &[u8], answer: Answer) -> End {
    const OF_THE_CLIENT: [&[u8]; 4] = [b"downstream_", b"http1.", b"http2.", b"http3."];
    match (details, answer) {
        (b"" | b"via_upstream", Answer::Begun(_)) => End::ClientGone,
        (b"" | b"via_upstream", Answer::None | Answer::Waiting(_) | Answer::Whole(..)) => {
            End::Complete
        }
        (details, _) if OF_THE_CLIENT.iter().any(|own| details.starts_with(own)) => End::ClientGone,
        _ => End::UpstreamGone,
    }
}

/// What stands in for a stream when the plugin has no configuration: nothing passes.
pub(crate) struct Closed;

impl HttpContext for Closed {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let denial = Denial::Unavailable(Dependency::Redis, CallFailure::Refused);
        send(&denial.reply(&Sender::Unknown, Era::Legacy, Requested::Unread, "none"));
        Action::Pause
    }
}
