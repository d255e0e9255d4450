//! The policies of scenarios, by name.
//!
//! Owns their text.

use serde_json::json;

use super::{limits, rules};

/// A policy document: `v1`, or `v2` in which analysts may also write notes, `v3` without
/// patience, `patient` with a little more of it, `v7` with scopes, `v8` in which `query_users` was reviewed, or `v9` whose connectors are
/// bound to clusters and a host, `exchanged` whose connector wants tokens of an authorization server, or `queried` that
/// names parameters of the query.
pub(super) fn document(name: &str) -> serde_json::Value {
    if let Some(document) = rules::document(name) {
        return document;
    }
    let allow = match name {
        "v1" | "v3" | "patient" | "v7" | "v8" | "v9" | "exchanged" | "queried" => {
            json!(["query_users"])
        }
        "v2" => json!(["query_users", "create_note"]),
        "v4" => return limits::priced(document("v1")),
        "v6" => return limits::leased(document("v1")),
        "v5" => return limits::global(document("v1")),
        other => panic!("no such policy: {other}"),
    };
    let mut document = json!({
        "version": 1, "organisations": ["acme"],
        "connectors": {
            "demo": {"path": "/demo/mcp", "credential": {
                "secret": "vault://secret/connectors/demo#api_key",
                "header": "authorization", "template": "Bearer {secret}"}},
            "open": {"path": "/open/mcp", "methods": ["skills/*"]},
            "old": {"path": "/old/sse", "messages": "/old/messages"}
        },
        "roles": {"analyst": {
            "demo": {"allow": allow, "show": ["create_*"],
                "prompts": ["weekly_*"], "resources": ["note://*"]},
            "open": {"allow": ["*"]}, "old": {"allow": ["query_users"]}}},
        "tiers": {"free": {"limits": {"calls": {"limit": 5, "window": "1s"}}}}
    });
    if name == "v8" {
        document["connectors"]["demo"]["tools"] = json!({"query_users": {
            "description": "List users.",
            "input_schema": {"type": "object", "properties": {"limit": {"type": "integer", "maximum": 50}}}
        }});
    }
    if name == "v3" {
        document["cool_off"] = json!({"refusals": 1, "repeats": 2, "first": "2s", "longest": "8s"});
    }
    if name == "patient" {
        document["cool_off"] = json!({"refusals": 2, "first": "2s", "longest": "8s"});
    }
    if name == "v9" {
        document["connectors"]["demo"]["upstream"] =
            json!({"clusters": ["demo", "demo-canary"], "hosts": ["mcp.example"]});
        document["connectors"]["old"]["upstream"] = json!({"clusters": ["old"]});
    }
    if name == "exchanged" {
        document["connectors"]["demo"]["credential"] = json!({
            "exchange": {"server": "corp", "grant": "client_credentials"},
            "header": "authorization", "template": "Bearer {token}",
        });
    }
    if name == "queried" {
        document["connectors"]["open"]["query"] = json!(["toolsets", "x_*"]);
        document["connectors"]["open"]["response_headers"] = json!(["x-total", "link"]);
    }
    if name == "v7" {
        document["connectors"]["demo"]["scopes"] = json!(["demo:use"]);
        document["connectors"]["demo"]["tools"] =
            json!({"query_users": {"scopes": ["users:read", "demo:use"]}});
    }
    document
}
