//! Tokens in a scenario: an issuer, its keys, and what a client may present.
//!
//! Owns the names of tokens. How they are made is the mint's business.

use portcullis_core::auth::token::issuer::IssuerId;
use portcullis_core::driver::call::CallFailure;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use serde_json::{Value, json};

use crate::mint::{ISS, START, claims_with, headed, inline, issuers, jwks, remote, token};

/// `inline` or `remote`: where its keys are; `elsewhere`: inline, and accepted at other paths only; `agents`: inline, and `azp`
/// is the agent.
pub(super) fn configure(worker: &mut Worker, keys: &str) {
    let mut fixed = json!({"org": "acme", "tier": "free"});
    if keys == "elsewhere" {
        fixed["paths"] = json!(["/open/*"]);
    }
    if keys == "agents" {
        fixed["claims"] = json!({"agent": "azp"});
    }
    let issuer = if keys == "remote" { remote(fixed) } else { inline(fixed) };
    worker.config.auth.issuers = issuers(&[issuer]);
    worker.config.auth.external_url = Some("https://mcp.example".into());
    worker.config.auth.scopes = vec!["demo:use".into()];
    worker.keyring.reset();
}

/// `up` or `down`: whether the issuer answered.
pub(super) fn fetched(worker: &mut Worker, now: UnixTime, state: &str) {
    let set = jwks().to_string();
    let outcome = match state {
        "up" => Ok(set.as_bytes()),
        "down" => Err(CallFailure::TimedOut),
        other => panic!("no such state of an issuer: {other}"),
    };
    let issuers = worker.config.auth.issuers.clone();
    worker.keyring.fetched(&IssuerId::new(ISS), &issuers, now, outcome);
}

/// What Redis holds of a denial.
pub(super) fn denial() -> Vec<u8> {
    let denial = json!({"what": "agent-1", "at": START, "by": "ops", "reason": "laptop lost"});
    denial.to_string().into_bytes()
}

/// The value of `authorization` for a token by name.
pub(super) fn bearer(name: &str) -> String {
    let with = |more: Value| token(&claims_with(more));
    let token = match name {
        "good" => with(json!({"scope": "demo:use"})),
        "scoped" => with(json!({"scope": "demo:use users:read"})),
        "expired" => with(json!({"exp": START - 60})),
        "elsewhere" => with(json!({"aud": "https://other.example/mcp"})),
        "sse" => with(json!({"aud": "https://mcp.example/old/sse", "scope": "demo:use"})),
        "of-agent" => with(json!({
            "scope": "demo:use", "agent_id": "bot-7", "azp": "desk", "act": {"sub": "scheduler"},
        })),
        "of-actor" => with(json!({"scope": "demo:use", "act": {"sub": "scheduler"}})),
        "of-nobody" => with(json!({"scope": "demo:use", "agent_id": "a".repeat(257)})),
        "of-unfit-agent" => with(json!({"scope": "demo:use", "azp": "a".repeat(257)})),
        "bound" => with(json!({"cnf": {"x5t#S256": "A".repeat(43)}})),
        "unknown-kid" => headed(json!({"kid": "other"})),
        other => panic!("no such token: {other}"),
    };
    format!("Bearer {token}")
}
