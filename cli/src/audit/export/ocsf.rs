//! Entries as events of the Open Cybersecurity Schema Framework: class API Activity (6003), profile security_control.
//!
//! Owns what of an entry is which attribute. What has none is in `unmapped`, under its own name. An event borrows from
//! its entry; arguments, events and changes are written as they stand in the line.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{PRODUCT, VERSION};
use crate::audit::entry::{Entry, Text};

/// The version that events are of. Attributes that later versions deprecate or redefine are not used.
pub(super) const OCSF: &str = "1.6.0";
const CLASS: u64 = 6_003;

/// An event. An attribute without a value is left out.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    class_uid: u64,
    class_name: &'static str,
    category_uid: u64,
    category_name: &'static str,
    activity_id: u64,
    activity_name: &'static str,
    type_uid: u64,
    type_name: String,
    severity_id: u64,
    severity: &'static str,
    status_id: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    status_detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<String>,
    action_id: u64,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disposition_id: Option<u64>,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: String,
    metadata: Metadata<'a>,
    actor: Actor<'a>,
    api: Api<'a>,
    src_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_request: Option<HttpRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_response: Option<HttpResponse>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Resource<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Policy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_rule: Option<Uid<'a>>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Uid<'a> {
    uid: &'a str,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    profiles: [&'static str; 1],
    log_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    correlation_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    original_time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_code: Option<String>,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Actor<'a> {
    user: User<'a>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<[Named<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<Uid<'a>>,
}

#[derive(Serialize)]
struct Api<'a> {
    operation: &'a str,
    request: ApiRequest<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ApiResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Named<'a>>,
}

#[derive(Serialize)]
struct ApiRequest<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ApiResponse<'a> {
    code: i64,
    error: &'a str,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

#[derive(Serialize)]
struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Url<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
}

#[derive(Serialize)]
struct Url<'a> {
    path: &'a str,
}

#[derive(Serialize)]
struct HttpResponse {
    code: u64,
}

#[derive(Serialize)]
struct Resource<'a> {
    name: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Policy<'a> {
    uid: &'a str,
    name: &'static str,
}

#[derive(Serialize)]
struct Unmapped<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    portcullis_status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mcp_method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    certificate_sha256: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    secret: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    oauth_client_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    actors: &'a [Text<'a>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    query: &'a [Text<'a>],
    #[serde(skip_serializing_if = "str::is_empty")]
    started_at: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    input_sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_returned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    degraded: &'a [Text<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "str::is_empty")]
    action: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor_claim: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "str::is_empty")]
    module: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    chain: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    prev_hash: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hash: &'a str,
}

pub(super) fn event<'a>(entry: &'a Entry<'_>) -> Event<'a> {
    let (activity_id, activity_name) = activity(entry);
    let (status_id, status) = status(entry);
    let notable = entry.notable_events();
    let (severity_id, severity) = severity(entry, &notable);
    let (action_id, action) = action(entry);
    Event {
        class_uid: CLASS,
        class_name: "API Activity",
        category_uid: 6,
        category_name: "Application Activity",
        activity_id,
        activity_name,
        type_uid: CLASS.saturating_mul(100).saturating_add(activity_id),
        type_name: format!("API Activity: {activity_name}"),
        severity_id,
        severity,
        status_id,
        status,
        status_detail: &entry.decision.rule,
        status_code: entry.http_status.map(|status| status.to_string()),
        action_id,
        action,
        disposition_id: disposition(entry),
        // Without a readable time, the event is of 1970 rather than missing.
        time: entry.time().map_or(0, |time| time.as_millisecond()),
        duration: entry.latency_ms,
        message: message(entry),
        metadata: metadata(entry, notable),
        actor: Actor { user: user(entry) },
        api: api(entry),
        src_endpoint: source(entry),
        http_request: http_request(entry),
        http_response: entry.http_status.map(|code| HttpResponse { code }),
        resources: resources(entry),
        policy: some(&entry.policy_version).map(|uid| Policy { uid, name: "policy" }),
        firewall_rule: some(&entry.decision.rule).map(|uid| Uid { uid }),
        unmapped: unmapped(entry),
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// What is read is Read; the effect of a tool is unknown.
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

fn severity(entry: &Entry<'_>, notable: &[String]) -> (u64, &'static str) {
    let serious = ["state_went_back", "misrouted", "schema_drift", "policy_unusable"];
    if notable.iter().any(|event| serious.contains(&event.as_str())) {
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

fn metadata<'a>(entry: &'a Entry<'_>, notable: Vec<String>) -> Metadata<'a> {
    Metadata {
        version: OCSF,
        product: Product { name: PRODUCT, vendor_name: PRODUCT, version: VERSION },
        profiles: ["security_control"],
        log_name: "audit",
        uid: entry.seq.map(|seq| format!("{}:{seq}", &*entry.chain)),
        sequence: entry.seq,
        correlation_uid: &entry.request_id,
        tenant_uid: &entry.org_id,
        original_time: &entry.timestamp,
        event_code: notable.into_iter().next(),
    }
}

fn user<'a>(entry: &'a Entry<'_>) -> User<'a> {
    let names = [&*entry.actor, &*entry.principal, entry.caller()];
    let is_action = !entry.action.is_empty();
    User {
        name: names.into_iter().find_map(some).unwrap_or("unauthenticated"),
        uid: if is_action { "" } else { entry.caller() },
        type_id: is_action.then_some(2),
        groups: some(&entry.role).map(|name| [Named { name }]),
        org: some(&entry.org_id).map(|uid| Uid { uid }),
    }
}

fn api<'a>(entry: &'a Entry<'_>) -> Api<'a> {
    Api {
        operation: entry.operation(),
        request: ApiRequest { uid: &entry.request_id, data: entry.input },
        response: entry.error_code.map(|code| ApiResponse { code, error: &entry.status }),
        service: some(&entry.connector).map(|name| Named { name }),
    }
}

fn source<'a>(entry: &'a Entry<'_>) -> Endpoint<'a> {
    let ip = entry.client_address.parse().ok();
    let name = match (ip, some(&entry.client_address)) {
        (Some(_), _) => "",
        (None, Some(name)) => name,
        (None, None) if entry.action.is_empty() => "unknown",
        (None, None) => "portcullis",
    };
    Endpoint { ip, name }
}

fn http_request<'a>(entry: &'a Entry<'_>) -> Option<HttpRequest<'a>> {
    const KNOWN: [&str; 9] =
        ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"];
    let method = some(&entry.http_method)?;
    // The schema has a closed list.
    let known = KNOWN.contains(&method);
    Some(HttpRequest {
        http_method: known.then_some(method),
        args: (!known).then(|| format!("method={method}")),
        url: some(&entry.path).map(|path| Url { path }),
        user_agent: &entry.user_agent,
        uid: &entry.request_id,
    })
}

fn resources<'a>(entry: &'a Entry<'_>) -> Vec<Resource<'a>> {
    let named = [
        (&entry.tool_name, "tool"),
        (&entry.prompt_name, "prompt"),
        (&entry.resource_uri, "resource"),
        (&entry.task_id, "task"),
    ];
    let key = (!entry.action.is_empty()).then(|| (entry.caller(), "key"));
    named
        .into_iter()
        .chain(entry.resource_uris.iter().map(|uri| (uri, "resource")))
        .chain(entry.task_ids.iter().map(|id| (id, "task")))
        .map(|(name, kind)| (&**name, kind))
        .chain(key)
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, r#type)| Resource { name, r#type })
        .collect()
}

fn unmapped<'a>(entry: &'a Entry<'_>) -> Unmapped<'a> {
    Unmapped {
        portcullis_status: &entry.status,
        mcp_method: &entry.mcp_method,
        auth_method: &entry.auth_method,
        certificate_sha256: &entry.certificate_sha256,
        secret: &entry.secret,
        oauth_client_id: &entry.oauth_client_id,
        agent_id: &entry.agent_id,
        actors: &entry.actors,
        query: &entry.query,
        started_at: &entry.started_at,
        trace_id: &entry.trace_id,
        input_sha256: &entry.input_sha256,
        upstream_ms: entry.upstream_ms,
        rows_returned: entry.rows_returned,
        credits: entry.credits,
        degraded: &entry.degraded,
        events: entry.events,
        action: &entry.action,
        actor_claim: &entry.actor_claim,
        reason: &entry.reason,
        changes: entry.changes,
        module: &entry.module,
        chain: &entry.chain,
        prev_hash: &entry.prev_hash,
        hash: &entry.hash,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    /// Of the schema of OCSF 1.6.0, what an event may have: members that are required, and those that are known.
    const SCHEMA: &str = include_str!("ocsf-1.6.0.json");

    fn of(line: &str) -> Value {
        serde_json::to_value(event(&Entry::read(line.as_bytes()).unwrap().0)).unwrap()
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
        assert_eq!(full["unmapped"]["query"], serde_json::json!(["toolsets", "=x"]));
        assert_eq!(full["unmapped"]["started_at"], "2026-11-28T09:00:00.000000Z");
        let stranger = of(&samples::stranger());
        assert_eq!(stranger["actor"]["user"]["name"], "unauthenticated");
        assert_eq!(stranger["disposition_id"], 26);
        let action = of(&samples::action());
        assert_eq!(
            (&action["activity_id"], &action["actor"]["user"]["name"]),
            (&3.into(), &"alice".into())
        );
        assert_eq!(action["unmapped"]["actor_claim"], "al");
    }
}
