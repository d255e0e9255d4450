//! The interface between the measurements of `cargo xtask bench` and the program `portcullis-load`: a file with JSON in,
//! one line of JSON out.
//!
//! Owns these types and CPU affinity, which both sides set. Knows nothing about gateways: a target is an address, a
//! request and the expected answer.

pub mod affinity;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The loader replaces it with ten digits, which make every request different.
pub const SERIAL: &str = "##########";
/// The loader replaces it with the session of the connection.
pub const SESSION: &str = "##session##";
/// The path at which the upstream returns how many requests had each answer, as a JSON array in the order of the answers.
pub const SERVED_PATH: &str = "/served";
/// The upstream replaces it, in the body of an answer, with the `id` of the request.
pub const REQUEST_ID: &str = "\"##id##\"";
/// The upstream replaces it, in a text of the body of an answer, with the head of the request, escaped as JSON.
pub const REQUEST_HEAD: &str = "##head##";

/// The only event of a stream that a client has opened with GET; the stream then stays open.
pub const STREAM_EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}";

/// `portcullis-load drive PLAN`: one run of load against one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPlan {
    pub address: SocketAddr,
    /// Head and body of an HTTP/1.1 request, [`SERIAL`] in it once.
    pub request: String,
    /// What each connection sends in the place of [`SESSION`], before the serial number; empty when the request has no such
    /// place.
    pub sessions: Vec<String>,
    /// The serial number of the first request. A gateway that counts repetitions must not see any between loads either.
    pub first_serial: u64,
    /// The body of the only right answer; its status is 200.
    pub expected: String,
    /// Each connection has one thread, which waits for one answer at a time.
    pub connections: u32,
    pub shape: Shape,
    /// For how long requests are started.
    pub seconds: f64,
    /// The most requests, independent of time.
    pub most: u64,
    /// The CPUs of the loader; empty means all.
    pub cpus: Vec<usize>,
}

/// When the loader sends the next request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As soon as the last answer has arrived. Latency starts at the sending.
    Saturation,
    /// At moments fixed in advance, even without an answer. Latency starts at that moment, so that a slow answer also
    /// counts for the requests that waited behind it (no coordinated omission).
    FixedRate { per_second: f64 },
}

/// The result of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadResult {
    /// Requests with the right answer.
    pub requests: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    pub latency: Latency,
    /// How late the loader sent requests for its own reasons: the 99th percentile, microseconds.
    pub lateness_p99_us: f64,
    /// Requests that were due but never sent: the target was too far behind.
    pub unsent: u64,
    /// CPU time of the loader, microseconds.
    pub cpu_us: u64,
    /// Wrong answers and broken connections.
    pub faults: u64,
    pub first_fault: Option<String>,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// `portcullis-load serve UPSTREAM`: answers every POST with one of some bodies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upstream {
    pub listen: SocketAddr,
    /// The first answer that fits the request.
    pub answers: Vec<Answer>,
    /// Whether a GET opens a stream, with [`STREAM_EVENT`]; otherwise it is answered with the counts.
    pub streams: bool,
    pub cpus: Vec<usize>,
}

/// An answer of the upstream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The answer to requests with this text in the first [`MARKED_WITHIN`] bytes of the body; empty means all.
    pub marker: String,
    pub status: u16,
    pub content_type: String,
    /// With the `id` of the request where [`REQUEST_ID`] is, or its head where [`REQUEST_HEAD`] is.
    pub body: String,
}

/// Where the upstream looks for [`Answer::marker`].
pub const MARKED_WITHIN: usize = 256;

/// `portcullis-load mint CLAIMS`: the claims of the tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub issuer: String,
    pub audience: String,
    pub subject: String,
    /// The subject of a second caller; its other claims are the same.
    pub tight_subject: String,
    pub org: String,
    pub role: String,
    pub tier: String,
}

/// A key made for this run, and tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Minted {
    /// JWK set with the public key.
    pub jwks: String,
    /// ES256; it is valid for longer than a run.
    pub token: String,
    /// The token of the second caller.
    pub tight: String,
    /// The same claims and key id, signed with another key.
    pub forged: String,
}
