//! Entries as events of the Open Cybersecurity Schema Framework: class API Activity (6003), profile security_control.
//!
//! Owns what of an entry is which attribute. What has none is in `unmapped`, under its own name.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{PRODUCT, VERSION};
use crate::audit::entry::Entry;

/// The version that events are of. Attributes that later versions deprecate or redefine are not used.
pub(super) const OCSF: &str = "1.6.0";
const CLASS: u64 = 6_003;

pub(super) fn event(entry: &Entry<'_>) -> Value {
    let (activity, activity_name) = activity(entry);
    let (status, status_name) = status(entry);
    let (severity, severity_name) = severity(entry);
    let (action, action_name) = action(entry);
    let mut event = Members::default();
    event.put("class_uid", CLASS);
    event.put("class_name", "API Activity");
    event.put("category_uid", 6);
    event.put("category_name", "Application Activity");
    event.put("activity_id", activity);
    event.put("activity_name", activity_name);
    event.put("type_uid", CLASS.saturating_mul(100).saturating_add(activity));
    event.put("type_name", format!("API Activity: {activity_name}"));
    event.put("severity_id", severity);
    event.put("severity", severity_name);
    event.put("status_id", status);
    event.put("status", status_name);
    event.text("status_detail", &entry.decision.rule);
    event.some("status_code", entry.http_status.map(|status| status.to_string()));
    event.put("action_id", action);
    event.put("action", action_name);
    event.some("disposition_id", disposition(entry));
    // Without a readable time, the event is of 1970 rather than missing.
    event.put("time", entry.time().map_or(0, |time| time.as_millisecond()));
    event.some("duration", entry.latency_ms);
    event.text("message", &message(entry));
    event.put("metadata", metadata(entry));
    event.put("actor", json!({ "user": user(entry) }));
    event.put("api", api(entry));
    event.put("src_endpoint", source(entry));
    event.some("http_request", http_request(entry));
    event.some("http_response", entry.http_status.map(|code| json!({ "code": code })));
    event.some("resources", resources(entry));
    if !entry.policy_version.is_empty() {
        event.put("policy", json!({ "uid": &*entry.policy_version, "name": "policy" }));
    }
    if !entry.decision.rule.is_empty() {
        event.put("firewall_rule", json!({ "uid": &*entry.decision.rule }));
    }
    event.some("unmapped", unmapped(entry));
    Value::Object(event.0)
}

#[derive(Default)]
struct Members(Map<String, Value>);

impl Members {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.put(name, text);
        }
    }
}

/// What is read is Read; what a tool does, nobody knows.
fn activity(entry: &Entry<'_>) -> (u64, &'static str) {
    let reads = [
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "tasks/list",
        "tasks/get",
        "tasks/result",
        "completion/complete",
    ];
    match &*entry.action {
        "key.issue" | "policy.push" | "token.deny" => return (1, "Create"),
        "key.revoke" | "token.allow" => return (4, "Delete"),
        "" => {}
        _ => return (3, "Update"),
    }
    if reads.contains(&&*entry.mcp_method) { (2, "Read") } else { (99, "Other") }
}

fn status(entry: &Entry<'_>) -> (u64, &'static str) {
    match &*entry.status {
        "success" => (1, "Success"),
        "tool_error" | "error" | "denied" | "limited" | "unavailable" | "aborted" => (2, "Failure"),
        _ => (0, "Unknown"),
    }
}

fn severity(entry: &Entry<'_>) -> (u64, &'static str) {
    let serious = ["state_went_back", "misrouted", "schema_drift", "policy_unusable"];
    if entry.notable_events().iter().any(|event| serious.contains(&event.as_str())) {
        return (4, "High");
    }
    match &*entry.status {
        "denied" => (3, "Medium"),
        "limited" | "error" | "unavailable" => (2, "Low"),
        _ => (1, "Informational"),
    }
}

fn action(entry: &Entry<'_>) -> (u64, &'static str) {
    match &*entry.decision.effect {
        "allow" => (1, "Allowed"),
        "deny" => (2, "Denied"),
        // Allowed, although a rule on trial says no.
        "shadow_deny" => (3, "Observed"),
        _ => (0, "Unknown"),
    }
}

/// Allowed, Blocked, Logged or Unauthorized.
fn disposition(entry: &Entry<'_>) -> Option<u64> {
    match (&*entry.decision.effect, entry.http_status) {
        ("allow", _) => Some(1),
        ("deny", Some(401)) => Some(26),
        ("deny", _) => Some(2),
        ("shadow_deny", _) => Some(17),
        _ => None,
    }
}

fn message(entry: &Entry<'_>) -> String {
    let parts = [entry.operation(), entry.subject(), &*entry.status, &*entry.decision.rule];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn metadata(entry: &Entry<'_>) -> Value {
    let mut metadata = Members::default();
    metadata.put("version", OCSF);
    metadata.put("product", json!({ "name": PRODUCT, "vendor_name": PRODUCT, "version": VERSION }));
    metadata.put("profiles", json!(["security_control"]));
    metadata.put("log_name", "audit");
    metadata.some("uid", entry.seq.map(|seq| format!("{}:{seq}", &*entry.chain)));
    metadata.some("sequence", entry.seq);
    metadata.text("correlation_uid", &entry.request_id);
    metadata.text("tenant_uid", &entry.org_id);
    metadata.text("original_time", &entry.timestamp);
    metadata.some("event_code", entry.notable_events().into_iter().next());
    Value::Object(metadata.0)
}

fn user(entry: &Entry<'_>) -> Value {
    let mut user = Members::default();
    let name = [&*entry.actor, &*entry.principal, entry.caller(), "unauthenticated"];
    user.some("name", name.into_iter().find(|name| !name.is_empty()));
    match entry.action.is_empty() {
        true => user.text("uid", entry.caller()),
        false => user.put("type_id", 2),
    }
    if !entry.role.is_empty() {
        user.put("groups", json!([{ "name": &*entry.role }]));
    }
    if !entry.org_id.is_empty() {
        user.put("org", json!({ "uid": &*entry.org_id }));
    }
    Value::Object(user.0)
}

fn api(entry: &Entry<'_>) -> Value {
    let mut api = Members::default();
    api.put("operation", entry.operation());
    let mut request = Members::default();
    request.put("uid", &*entry.request_id);
    request.some(
        "data",
        entry.input.and_then(|input| serde_json::from_str::<Value>(input.get()).ok()),
    );
    api.put("request", Value::Object(request.0));
    if let Some(code) = entry.error_code {
        api.put("response", json!({ "code": code, "error": &*entry.status }));
    }
    if !entry.connector.is_empty() {
        api.put("service", json!({ "name": &*entry.connector }));
    }
    Value::Object(api.0)
}

fn source(entry: &Entry<'_>) -> Value {
    match (entry.client_address.parse::<IpAddr>(), &*entry.client_address) {
        (Ok(address), _) => json!({ "ip": address.to_string() }),
        (Err(_), "") => {
            json!({ "name": if entry.action.is_empty() { "unknown" } else { "portcullis" } })
        }
        (Err(_), name) => json!({ "name": name }),
    }
}

fn http_request(entry: &Entry<'_>) -> Option<Value> {
    const KNOWN: [&str; 9] =
        ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"];
    if entry.http_method.is_empty() {
        return None;
    }
    let mut request = Members::default();
    // The schema has a closed list.
    match KNOWN.contains(&&*entry.http_method) {
        true => request.put("http_method", &*entry.http_method),
        false => request.put("args", format!("method={}", &*entry.http_method)),
    }
    if !entry.path.is_empty() {
        request.put("url", json!({ "path": &*entry.path }));
    }
    request.text("user_agent", &entry.user_agent);
    request.text("uid", &entry.request_id);
    Some(Value::Object(request.0))
}

fn resources(entry: &Entry<'_>) -> Option<Value> {
    let one = |name: &str, kind: &str| json!({ "name": name, "type": kind });
    let named = [
        (&entry.tool_name, "tool"),
        (&entry.prompt_name, "prompt"),
        (&entry.resource_uri, "resource"),
        (&entry.task_id, "task"),
    ];
    let named = named.into_iter().filter(|(name, _)| !name.is_empty());
    let all: Vec<Value> = named
        .map(|(name, kind)| one(name, kind))
        .chain(entry.resource_uris.iter().map(|uri| one(uri, "resource")))
        .chain(entry.task_ids.iter().map(|id| one(id, "task")))
        .chain((!entry.action.is_empty()).then(|| one(entry.caller(), "key")))
        .filter(|it| it.get("name").is_some_and(|name| name != ""))
        .collect();
    (!all.is_empty()).then_some(Value::Array(all))
}

fn unmapped(entry: &Entry<'_>) -> Option<Value> {
    let json = |raw: &serde_json::value::RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    let mut rest = Members::default();
    rest.text("portcullis_status", &entry.status);
    rest.text("mcp_method", &entry.mcp_method);
    rest.text("auth_method", &entry.auth_method);
    rest.text("certificate_sha256", &entry.certificate_sha256);
    rest.text("secret", &entry.secret);
    rest.text("oauth_client_id", &entry.oauth_client_id);
    rest.text("agent_id", &entry.agent_id);
    if !entry.actors.is_empty() {
        rest.put("actors", json!(entry.actors));
    }
    rest.text("trace_id", &entry.trace_id);
    rest.text("input_sha256", &entry.input_sha256);
    rest.some("upstream_ms", entry.upstream_ms);
    rest.some("rows_returned", entry.rows_returned);
    rest.some("credits", entry.credits);
    if !entry.degraded.is_empty() {
        rest.put("degraded", json!(entry.degraded));
    }
    rest.some("events", entry.events.and_then(json));
    rest.text("action", &entry.action);
    rest.text("reason", &entry.reason);
    rest.some("changes", entry.changes.and_then(json));
    rest.text("chain", &entry.chain);
    rest.text("prev_hash", &entry.prev_hash);
    rest.text("hash", &entry.hash);
    (!rest.0.is_empty()).then_some(Value::Object(rest.0))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// Of the schema of OCSF 1.6.0, what an event may have: members that are required, and those that are known.
    const SCHEMA: &str = include_str!("ocsf-1.6.0.json");

    fn of(line: &str) -> Value {
        event(&Entry::read(line.as_bytes()).unwrap().0)
    }

    /// What of `value` the object `name` of the schema does not allow.
    fn faults(schema: &Value, name: &str, value: &Value, at: &str, faults: &mut Vec<String>) {
        let object = &schema[name];
        let Some(members) = value.as_object() else {
            return faults.push(format!("{at}: not an object"));
        };
        let has = |member: &Value| members.contains_key(member.as_str().unwrap());
        for required in object["required"].as_array().unwrap().iter().filter(|it| !has(it)) {
            faults.push(format!("{at}: lacks {required}"));
        }
        let any = object["any_of"].as_array().unwrap();
        if !any.is_empty() && !any.iter().any(has) {
            faults.push(format!("{at}: has none of {any:?}"));
        }
        for (member, value) in members {
            let at = format!("{at}.{member}");
            let Some(kind) = object["members"][member].as_str() else {
                faults.push(format!("{at}: not in the schema"));
                continue;
            };
            check(schema, kind, value, &at, faults);
        }
    }

    fn check(schema: &Value, kind: &str, value: &Value, at: &str, found: &mut Vec<String>) {
        let (kind, list) = kind.strip_suffix("[]").map_or((kind, false), |kind| (kind, true));
        if list {
            let items = value.as_array().cloned().unwrap_or_default();
            assert!(!items.is_empty(), "{at}: not a list");
            return items.iter().for_each(|item| check(schema, kind, item, at, found));
        }
        let good = match kind {
            "any" => true,
            "object" => value.is_object(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            kind if kind.starts_with("one of ") => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                kind["one of ".len()..].split(' ').any(|it| it == text)
            }
            kind => return faults(schema, kind, value, at, found),
        };
        if !good {
            found.push(format!("{at}: {value} is not {kind}"));
        }
    }

    // Proves: A19
    #[test]
    fn events_have_what_the_schema_requires_and_nothing_that_it_does_not_know() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        for line in samples::all() {
            let (event, mut found) = (of(&line), Vec::new());
            faults(&schema, "api_activity", &event, "event", &mut found);
            assert_eq!(found, [""; 0], "{event:#}");
            assert_eq!(event["metadata"]["version"], OCSF);
            assert_eq!(event["type_uid"], 600_300 + event["activity_id"].as_u64().unwrap());
        }
    }

    #[test]
    fn an_entry_is_an_api_activity() {
        let full = of(&samples::full());
        assert_eq!((&full["class_uid"], &full["activity_id"]), (&6_003.into(), &99.into()));
        assert_eq!((&full["status"], &full["action"]), (&"Failure".into(), &"Denied".into()));
        assert_eq!(full["time"], 1_795_860_000_250_u64);
        assert_eq!(full["actor"]["user"]["uid"], "k1");
        assert_eq!(full["actor"]["user"]["org"]["uid"], "acme");
        assert_eq!(full["api"]["operation"], "tools/call");
        assert_eq!(full["api"]["request"]["data"]["note"], "a=b|c\\d \"q\"\nnext, last");
        assert_eq!(full["resources"][0]["name"], "query_users");
        assert_eq!(full["src_endpoint"]["ip"], "192.0.2.7");
        assert_eq!(full["unmapped"]["events"][1]["event"], "tool_access_denied");
        let stranger = of(&samples::stranger());
        assert_eq!(stranger["actor"]["user"]["name"], "unauthenticated");
        assert_eq!(stranger["disposition_id"], 26);
        let action = of(&samples::action());
        assert_eq!(
            (&action["activity_id"], &action["actor"]["user"]["name"]),
            (&3.into(), &"alice".into())
        );
    }
}
