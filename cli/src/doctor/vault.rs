//! Checks Vault or OpenBao, as far as that is possible without a token.
//!
//! Owns where Vault is and how long doctor waits for it, for the checks with a token, too.

use std::time::Duration;

use portcullis_core::vault::Mount;
use serde_json::Value;

use super::{Finding, clock};
use crate::http;

pub(super) const BOUND: Duration = Duration::from_secs(5);
const CHECK: &str = "vault";

/// Where Vault is, with which token it is asked, and which of its mounts have a slash or version 1.
pub(super) struct Vault<'a> {
    pub(super) url: &'a str,
    pub(super) token: &'a str,
    pub(super) mounts: &'a [Mount],
}

pub(super) fn look(url: &str) -> Vec<Finding> {
    let before = clock::now();
    let health = format!("{}/v1/sys/health", url.trim_end_matches('/'));
    let answer = http::agent(BOUND).get(&health).call();
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let next = "check --vault, and that it runs; connectors with credentials answer 503";
            return vec![Finding::bad(CHECK, error.to_string(), next)];
        }
    };
    let status = answer.status().as_u16();
    let body: Value = answer
        .body_mut()
        .read_to_vec()
        .ok()
        .map_or(Value::Null, |body| serde_json::from_slice(&body).unwrap_or_default());
    let mut findings = vec![state(status, &body)];
    if let Some(seconds) = body.get("server_time_utc").and_then(Value::as_u64) {
        let theirs = Duration::from_secs(seconds);
        findings.push(clock::finding("vault.clock", theirs, before, Duration::from_secs(1)));
    }
    findings
}

/// The state from the status of `/v1/sys/health`.
fn state(status: u16, body: &Value) -> Finding {
    let version = body["version"].as_str().unwrap_or("of an unknown version");
    match status {
        200 => Finding::good(CHECK, format!("{version}, active")),
        429 | 472 | 473 => Finding::good(CHECK, format!("{version}, standby")),
        501 => Finding::bad(CHECK, format!("{version}, not initialised"), "vault operator init"),
        503 => Finding::bad(CHECK, format!("{version}, sealed"), "vault operator unseal"),
        other => Finding::bad(
            CHECK,
            format!("{other} from /v1/sys/health"),
            "check that the URL is Vault's or OpenBao's",
        ),
    }
}
