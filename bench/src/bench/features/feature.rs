//! The features, one row of the table each: what is changed from the first row, and how it shows that the change is in
//! force.
//!
//! Owns policies, requests and answers. Starts nothing.

use super::super::scale::document::{self, Size};
use super::super::traffic::{self, ANSWER};
use portcullis_load::{Answer, SERIAL};
use serde_json::{Value, json};

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct Feature {
    /// The organisation that has it, too.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is changed in `envoy/bench/policy.yaml`.
    pub(crate) policy: fn(Value) -> Value,
    pub(crate) credential: Caller,
    pub(crate) call: Call,
    pub(crate) way: Way,
    pub(crate) gateway: Gateway,
    pub(crate) proof: Proof,
}

/// The caller's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Key,
    Token,
}

/// The request of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A call of this tool, with so many bytes in a further argument.
    Tool { name: &'static str, further: usize },
    /// The list of tools with this cursor.
    List { cursor: &'static str },
}

/// How the client reaches Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http1,
    Http2,
    Http1Tls,
    Http2Tls,
}

/// The gateway that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// As shipped.
    Hold,
    /// In `split` mode.
    Split,
    /// With `audit.durable`.
    Durable,
}

/// How a row shows that its change is in force, before it is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    /// The right answer is enough.
    Answered,
    /// A call with these arguments does not get the server's answer.
    Refuses(&'static str),
    /// A call draws from so many windows.
    Draws(usize),
    /// The audit entry of a call has this text.
    Writes(&'static str),
    /// A list has so many tools.
    Lists(usize),
    /// Redis has a key with this text.
    Stores(&'static str),
    /// Vault was asked for the credential of the organisation.
    ReadsVault,
}

/// The tools that the role may call, in each policy that does not say otherwise.
const TOOL: &str = "search_contacts";
const OPEN: [&str; 4] = [TOOL, "query_users", "export_*", "stream_*"];

const BASE: Feature = Feature {
    name: "base",
    title: "API key, 3 windows, arguments of 0.1 KB, answer of 0.3 KB",
    policy: |policy| policy,
    credential: Caller::Key,
    call: Call::Tool { name: TOOL, further: 0 },
    way: Way::Http1,
    gateway: Gateway::Hold,
    proof: Proof::Draws(3),
};

/// All rows; the others are compared with the first one.
pub(crate) const FEATURES: [Feature; 35] = [
    BASE,
    Feature {
        name: "no-window",
        title: "no window",
        policy: |policy| {
            merged(policy, json!({"limits": null, "tiers": {"wide": {"limits": {"calls": null}}}}))
        },
        proof: Proof::Draws(0),
        ..BASE
    },
    Feature {
        name: "one-window",
        title: "1 window",
        policy: |policy| merged(policy, json!({"limits": null})),
        proof: Proof::Draws(1),
        ..BASE
    },
    Feature {
        name: "six-windows",
        title: "6 windows",
        policy: |policy| {
            let window = |window: &str| json!({"limit": 100_000, "window": window, "per": ["org"]});
            merged(
                policy,
                json!({"limits": {"two": window("2s"), "three": window("3s"), "four": window("4s")}}),
            )
        },
        proof: Proof::Draws(6),
        ..BASE
    },
    Feature {
        name: "lease",
        title: "one of the windows drawn in advance (`lease`)",
        policy: |policy| merged(policy, json!({"limits": {"all": {"lease": 100}}})),
        ..BASE
    },
    Feature {
        name: "budget",
        title: "one of the windows a budget of credits",
        policy: |policy| {
            let budget =
                json!({"limit": 1_000_000_000_000_u64, "window": "30d", "cost": "credits"});
            merged(policy, json!({"limits": {"all": budget}, "connectors": {"demo": {"price": 2}}}))
        },
        proof: Proof::Writes(r#""credits":2"#),
        ..BASE
    },
    Feature {
        name: "row-price",
        title: "the same, and a price for each row of the answer",
        policy: |policy| {
            let budget =
                json!({"limit": 1_000_000_000_000_u64, "window": "30d", "cost": "credits"});
            let tools = json!({TOOL: {"row_price": 1}});
            merged(
                policy,
                json!({"limits": {"all": budget}, "connectors": {"demo": {"tools": tools}}}),
            )
        },
        proof: Proof::Writes(r#""credits":4"#),
        ..BASE
    },
    Feature {
        name: "cool-off",
        title: "callers that do not back off are paused (`cool_off`)",
        policy: |policy| {
            let pause = json!({"refusals": 10, "repeats": 100, "within": "1m", "first": "1s", "longest": "5m"});
            merged(policy, json!({"cool_off": pause}))
        },
        ..BASE
    },
    Feature {
        name: "condition",
        title: "a condition on an argument, the role and the time",
        policy: |policy| {
            let when = "arguments.limit <= 100 && principal.role == 'analyst' && time.year >= 2000";
            merged(policy, json!({"connectors": {"demo": {"conditions": [{"when": when}]}}}))
        },
        proof: Proof::Refuses(r#"{"query":"customer","limit":200}"#),
        ..BASE
    },
    Feature {
        name: "matches",
        title: "a condition with a regular expression",
        policy: |policy| {
            let when = "arguments.query.matches('^[a-z0-9 ]{1,40}$')";
            merged(policy, json!({"connectors": {"demo": {"conditions": [{"when": when}]}}}))
        },
        proof: Proof::Refuses(r#"{"query":"customer!","limit":25}"#),
        ..BASE
    },
    Feature {
        name: "rules",
        title: "argument rules: a pattern, a maximum",
        policy: |policy| {
            let rules =
                json!({"query": {"pattern": "^[a-z0-9 ]{1,40}$"}, "limit": {"maximum": 100}});
            merged(policy, of_tool(json!({"arguments": rules})))
        },
        proof: Proof::Refuses(r#"{"query":"customer","limit":200}"#),
        ..BASE
    },
    Feature {
        name: "schema",
        title: "the arguments checked by a pinned schema",
        policy: |policy| merged(policy, of_tool(traffic::pin())),
        proof: Proof::Refuses(r#"{"query":"customer","limit":"25"}"#),
        ..BASE
    },
    Feature {
        name: "record-cap",
        title: "a record cap that lowers the argument",
        policy: |policy| {
            merged(policy, of_tool(json!({"max_records": {"argument": "limit", "max": 10}})))
        },
        proof: Proof::Writes(r#""event":"records_capped""#),
        ..BASE
    },
    Feature {
        name: "redact",
        title: "an argument redacted by its place",
        policy: |policy| merged(policy, of_tool(json!({"redact": ["$.query"]}))),
        proof: Proof::Writes(r#""query":"[redacted]""#),
        ..BASE
    },
    Feature {
        name: "large-policy",
        title: "a policy of 5,000 pinned tools, with schemas",
        policy: |policy| document::policy(policy, Size { tools: 5_000, roles: 5 }),
        proof: Proof::Refuses(r#"{"query":7}"#),
        ..BASE
    },
    Feature {
        name: "bench",
        title: "a JWT (ES256) instead of the key",
        credential: Caller::Token,
        proof: Proof::Writes(r#""auth_method":"jwt""#),
        ..BASE
    },
    Feature {
        name: "vault",
        title: "a credential from Vault, cached",
        policy: |policy| merged(policy, credential(json!({}))),
        proof: Proof::ReadsVault,
        ..BASE
    },
    Feature {
        name: "mask",
        title: "the same, and `echo: mask`",
        policy: |policy| merged(policy, credential(json!({"echo": "mask"}))),
        proof: Proof::ReadsVault,
        ..BASE
    },
    Feature {
        name: "durable",
        title: "`audit.durable`",
        gateway: Gateway::Durable,
        proof: Proof::Stores("{durable}:intents"),
        ..BASE
    },
    Feature { name: "split", title: "`split` mode", gateway: Gateway::Split, ..BASE },
    Feature {
        name: "split-100k",
        title: "`split` mode, arguments of 100 KB",
        gateway: Gateway::Split,
        call: Call::Tool { name: TOOL, further: 100_000 },
        ..BASE
    },
    of_request("arguments-1k", "arguments of 1 KB", TOOL, 900),
    of_request("arguments-10k", "arguments of 10 KB", TOOL, 10_000),
    of_request("arguments-100k", "arguments of 100 KB", TOOL, 100_000),
    of_request("arguments-900k", "arguments of 900 KB", TOOL, 900_000),
    of_request("answer-10k", "answer of 10 KB", "export_10k", 0),
    of_request("answer-100k", "answer of 100 KB", "export_100k", 0),
    of_request("answer-1m", "answer of 1 MB", "export_1m", 0),
    of_request("events-10k", "answer as a stream of 10 events, 10 KB", "stream_10k", 0),
    of_request("events-1m", "answer as a stream of 1,000 events, 1 MB", "stream_1m", 0),
    Feature {
        name: "list-10",
        title: "`tools/list` of 10 tools, 2 of them visible",
        call: Call::List { cursor: "list10" },
        proof: Proof::Lists(2),
        ..BASE
    },
    Feature {
        name: "list-1000",
        title: "`tools/list` of 1,000 tools, 2 of them visible",
        call: Call::List { cursor: "list1000" },
        proof: Proof::Lists(2),
        ..BASE
    },
    Feature { name: "http2", title: "HTTP/2 from the client", way: Way::Http2, ..BASE },
    Feature { name: "tls", title: "TLS", way: Way::Http1Tls, ..BASE },
    Feature { name: "http2-tls", title: "HTTP/2 over TLS", way: Way::Http2Tls, ..BASE },
];

const fn of_request(
    name: &'static str,
    title: &'static str,
    tool: &'static str,
    further: usize,
) -> Feature {
    Feature {
        name,
        title,
        call: Call::Tool { name: tool, further },
        proof: Proof::Answered,
        ..BASE
    }
}

/// What a policy says about the tool of the load.
fn of_tool(stated: Value) -> Value {
    json!({"connectors": {"demo": {"tools": {TOOL: stated}}}})
}

/// A credential from Vault, of each organisation its own.
fn credential(further: Value) -> Value {
    let credential = json!({
        "secret": "vault://secret/connectors/{org}#api_key",
        "header": "authorization",
        "template": "Bearer {secret}",
    });
    json!({"connectors": {"demo": {"credential": merged(credential, further)}}})
}

/// `value` with the members of `change` (RFC 7396).
fn merged(mut value: Value, change: Value) -> Value {
    let Value::Object(members) = change else { return change };
    if !value.is_object() {
        value = json!({});
    }
    for (name, change) in members {
        match change {
            Value::Null => _ = value.as_object_mut().map(|members| members.remove(&name)),
            change => value[&name] = merged(value[&name].take(), change),
        }
    }
    value
}

impl Feature {
    /// The feature's policy.
    pub(crate) fn document(&self, shipped: &Value) -> Value {
        let open = json!({
            "organisations": [self.name],
            "roles": {"analyst": {"demo": {"allow": OPEN}}},
        });
        merged((self.policy)(merged(shipped.clone(), open)), json!({"organisations": [self.name]}))
    }

    /// The body of the request, with a place for a serial number.
    pub(crate) fn body(&self) -> String {
        match self.call {
            Call::Tool { name, further } => {
                let note = if further == 0 {
                    String::new()
                } else {
                    format!(r#","note":"{}""#, prose(further))
                };
                let arguments = format!(
                    r#"{{"query":"customer {SERIAL}","fields":["name","city","since"],"limit":25,"include_archived":false{note}}}"#
                );
                tool_call(name, &arguments)
            }
            Call::List { cursor } => format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"cursor":"{cursor}","_meta":{{"example.org/serial":"{SERIAL}"}}}}}}"#
            ),
        }
    }

    /// A call of the same tool with other arguments.
    pub(crate) fn body_with(&self, arguments: &str) -> String {
        tool_call(TOOL, arguments)
    }
}

fn tool_call(tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// So many bytes of ordinary text.
fn prose(bytes: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(bytes).collect()
}

/// The answers of the server, by what is asked for.
pub(crate) fn answers() -> Vec<Answer> {
    let json = |marker: String, body: String| Answer {
        marker,
        status: 200,
        content_type: "application/json".to_owned(),
        body,
    };
    let result = |bytes: usize| {
        let text = prose(bytes);
        json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}], "isError": false}})
    };
    let tool = |name: &str| format!(r#""name":"{name}""#);
    let mut all: Vec<_> =
        [("export_10k", 10_000), ("export_100k", 100_000), ("export_1m", 1_000_000)]
            .map(|(name, bytes)| json(tool(name), result(bytes).to_string()))
            .into();
    all.extend([("stream_10k", 10), ("stream_1m", 1_000)].map(|(name, events)| Answer {
        marker: tool(name),
        status: 200,
        content_type: "text/event-stream".to_owned(),
        body: stream(events, &result(100)),
    }));
    all.extend([10, 1_000].map(|count| {
        let tools: Vec<Value> = (0..count).map(listed).collect();
        let list = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}});
        json(format!(r#""cursor":"list{count}""#), list.to_string())
    }));
    all.push(json(String::new(), ANSWER.to_owned()));
    all
}

/// Messages of a kilobyte each, and the result.
fn stream(events: usize, result: &Value) -> String {
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": prose(900)}});
    let event = |message: &Value| format!("event: message\ndata: {message}\n\n");
    event(&note).repeat(events.saturating_sub(1)) + &event(result)
}

/// One tool of a list; the first two are visible.
fn listed(nth: usize) -> Value {
    let name = match nth {
        0 => TOOL.to_owned(),
        1 => "query_users".to_owned(),
        _ => format!("hidden_{nth}"),
    };
    let text = json!({"type": "string", "description": "What the caller looks for"});
    json!({
        "name": name, "description": prose(100),
        "inputSchema": {"type": "object", "properties": {"query": text}, "required": ["query"]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    // Proves: X18
    #[test]
    fn the_page_has_the_cost_of_each_row() {
        let page = include_str!("../../../../docs/explanation/benchmarks.md");
        for Feature { title, .. } in FEATURES {
            let cells = page.lines().find_map(|line| line.strip_prefix(&format!("| {title} | ")));
            let cells = cells.unwrap_or_else(|| panic!("no row \"{title}\""));
            // CPU time, its ratio, Valkey's, latency, its ratio: a row without a figure says nothing.
            let figures: Vec<_> = cells.trim_end_matches(" |").split(" | ").collect();
            assert_eq!(figures.len(), 7, "{title}");
            for figure in figures {
                assert!(figure.contains(|c: char| c.is_ascii_digit()), "{title}: {figure}");
            }
        }
    }

    #[test]
    fn every_feature_has_a_policy_and_a_request_of_its_own_name() {
        let names: BTreeSet<_> = FEATURES.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), FEATURES.len());
        for feature in FEATURES {
            let body = feature.body();
            serde_json::from_str::<Value>(&body).unwrap();
            assert_eq!(body.matches(SERIAL).count(), 1, "{}", feature.name);
            let shipped = json!({"connectors": {"demo": {"path": "/demo/mcp"}}, "tiers": {"wide": {"limits": {"calls": {}}}}});
            assert_eq!(feature.document(&shipped)["organisations"], json!([feature.name]));
        }
    }

    #[test]
    fn every_answer_is_one_that_a_request_asks_for() {
        let mut answers = answers();
        assert_eq!(answers.pop().unwrap().marker, "");
        for answer in answers {
            let asked = |feature: &Feature| {
                feature
                    .body()
                    .bytes()
                    .take(portcullis_load::MARKED_WITHIN)
                    .collect::<Vec<_>>()
                    .windows(answer.marker.len())
                    .any(|part| part == answer.marker.as_bytes())
            };
            assert!(FEATURES.iter().any(asked), "{}", answer.marker);
        }
    }

    #[test]
    fn a_change_replaces_members_and_null_removes_them() {
        let changed = merged(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": [3]}}));
        assert_eq!(changed, json!({"a": {"c": 2, "d": [3]}}));
    }
}
