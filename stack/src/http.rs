//! One HTTP exchange on loopback: sends a request, and returns status, headers and body unchanged.
//!
//! Every status is a reply, redirects are not followed, proxies of the environment are ignored. Knows nothing about MCP.

use crate::error::{Result, StackError};
use std::sync::LazyLock;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Request;

/// Nothing on loopback may take longer; a request that hangs is a failure.
const BOUND: Duration = Duration::from_secs(30);

static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(BOUND))
        // Readiness probes reach servers that start and stop, so a kept connection would be stale.
        .max_idle_connections(0)
        .build()
        .new_agent()
});

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages and checks.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` when it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A GET without headers.
pub fn get(url: &str) -> Result<Reply> {
    send("GET", url, &[], b"")
}

/// Any method, with headers and a body.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
    let refused =
        |answer: String| StackError::Refused { attempted: format!("{method} {url}"), answer };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_vec()).map_err(|error| refused(error.to_string()))?;
    let mut response = AGENT.run(request).map_err(|error| refused(error.to_string()))?;
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec().map_err(|error| refused(error.to_string()))?;
    Ok(Reply { status, headers, body })
}
