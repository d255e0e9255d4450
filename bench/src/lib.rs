//! What the measurements of `cargo xtask bench` tell the program `portcullis-load`, and what it hears from it: JSON, one argument in, one line out.
//!
//! Owns these types and CPU affinity, which both sides set. Knows nothing about gateways: a target is an address, a request
//! and the answer that is right.

pub mod affinity;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// In a request, ten digits in its place make every request another one.
pub const SERIAL: &str = "##########";
/// The path at which the upstream tells how many requests it has answered.
pub const SERVED_PATH: &str = "/served";

/// `portcullis-load drive PLAN`: one run of load against one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPlan {
    pub address: SocketAddr,
    /// Head and body of an HTTP/1.1 request, [`SERIAL`] in it once.
    pub request: String,
    /// The serial number of the first request: who counts repetitions must not see any between loads either.
    pub first_serial: u64,
    /// The body of the only right answer; its status is 200.
    pub expected: String,
    /// Each a thread that waits for one answer at a time.
    pub connections: u32,
    pub shape: Shape,
    /// For how long requests are started.
    pub seconds: f64,
    /// No more requests than that, whatever the time.
    pub most: u64,
    /// Where the loader may run; everywhere when empty.
    pub cpus: Vec<usize>,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As soon as the answer to the last one is there. Latency is counted from the sending.
    Saturation,
    /// At moments fixed beforehand, answered or not. Latency is counted from that moment, so that a slow answer also counts
    /// for those that had to wait behind it (no coordinated omission).
    FixedRate { per_second: f64 },
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadResult {
    /// Answered rightly.
    pub requests: u64,
    /// From the first sending to the last answer.
    pub seconds: f64,
    pub latency: Latency,
    /// How late requests were sent after their moment for reasons of the loader alone: the 99th percentile, microseconds.
    pub lateness_p99_us: f64,
    /// Requests whose moment came but that were not sent any more: the target was too far behind.
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

/// `portcullis-load serve UPSTREAM`: answers every POST in the same way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upstream {
    pub listen: SocketAddr,
    pub body: String,
    pub cpus: Vec<usize>,
}

/// `portcullis-load mint CLAIMS`: who the token is to speak for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub issuer: String,
    pub audience: String,
    pub subject: String,
    /// A second caller, of whom all else is the same.
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
    /// ES256, good for longer than a run.
    pub token: String,
    /// The second caller's.
    pub tight: String,
    /// The same claims and key id, signed with another key.
    pub forged: String,
}
