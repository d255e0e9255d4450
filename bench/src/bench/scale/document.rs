//! Policies of any size: a number of tools with their pins, and a number of roles.
//!
//! Owns the form of such a document. Each one has the tool that the load calls and the role that calls it.

use serde_json::{Map, Value, json};

/// How large a policy is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) tools: usize,
    pub(crate) roles: usize,
}

/// The number of servers that share the tools.
const CONNECTORS: usize = 20;
/// One of this many tools has a condition.
const CONDITION_EVERY: usize = 10;
/// How many tools a role names on each of its connectors.
const NAMED: usize = 10;
/// How many connectors a role has.
const CONNECTORS_OF_ROLE: usize = 3;
/// The connector, the role and the tool of every load.
const CONNECTOR: &str = "demo";
const ROLE: &str = "analyst";
const CALLED: &str = "search_contacts";

/// `base` with connectors and roles of this size.
pub(crate) fn policy(mut base: Value, size: Size) -> Value {
    let connectors = CONNECTORS.min(size.tools);
    base["connectors"] = (0..connectors)
        .map(|nth| {
            let tools: Map<String, Value> =
                tools(size, nth).map(|tool| (name(tool), stated(tool))).collect();
            let path = format!("/{}/mcp", connector(nth));
            (connector(nth), json!({"path": path, "tools": tools}))
        })
        .collect::<Map<_, _>>()
        .into();
    base["roles"] =
        (0..size.roles).map(|nth| role(nth, size, connectors)).collect::<Map<_, _>>().into();
    base
}

/// The tools of [`CONNECTOR`] as its server lists them.
pub(super) fn listed(size: Size) -> Vec<Value> {
    let tool = |tool| {
        json!({
            "name": name(tool), "title": title(tool), "description": description(tool),
            "inputSchema": schema(tool), "annotations": {"readOnlyHint": true},
        })
    };
    tools(size, 0).map(tool).collect()
}

fn tools(size: Size, connector: usize) -> impl Iterator<Item = usize> {
    (connector..size.tools).step_by(CONNECTORS.min(size.tools))
}

fn connector(nth: usize) -> String {
    if nth == 0 { CONNECTOR.to_owned() } else { format!("server{nth}") }
}

fn name(tool: usize) -> String {
    if tool == 0 { CALLED.to_owned() } else { format!("query_records_{tool}") }
}

fn title(tool: usize) -> String {
    format!("Query records {tool}")
}

fn description(tool: usize) -> String {
    format!("Returns records of kind {tool}, oldest first, as far as the caller may see them.")
}

/// The policy's entry for a tool.
fn stated(tool: usize) -> Value {
    let mut stated = json!({
        "title": title(tool), "description": description(tool), "input_schema": schema(tool),
        "annotations": {"readOnlyHint": true}, "price": tool % 7,
    });
    if tool.is_multiple_of(CONDITION_EVERY) {
        let when = format!("arguments.limit <= {} && time.year >= 2000", 100 + tool);
        stated["conditions"] = json!([{"when": when, "message": "Ask for fewer"}]);
    }
    stated
}

/// About a kilobyte, with the keywords that schema generators write.
fn schema(tool: usize) -> Value {
    let text = |what: String| json!({"type": "string", "description": what, "maxLength": 200});
    let mut properties = Map::new();
    properties.insert("query".into(), text("What the caller looks for".into()));
    for field in 0..4 {
        let what = format!("What field {field} of records of kind {tool} starts with.");
        properties.insert(format!("field_{field}"), text(what));
    }
    let names = json!({"type": "array", "items": {"type": "string"}, "maxItems": 20});
    properties.insert("fields".into(), names);
    properties.insert(
        "limit".into(),
        json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}),
    );
    properties.insert("include_archived".into(), json!({"type": "boolean", "default": false}));
    let moment = json!({"type": "string", "format": "date-time"});
    properties.insert(
        "range".into(),
        json!({"type": "object", "properties": {"from": moment, "to": moment}, "additionalProperties": false}),
    );
    json!({
        "type": "object", "properties": properties, "required": ["query", "limit"],
        "additionalProperties": false,
    })
}

fn role(nth: usize, size: Size, connectors: usize) -> (String, Value) {
    let of = |place: usize| {
        let at = (nth + place) % connectors;
        let mut allow: Vec<String> = tools(size, at).take(NAMED).map(name).collect();
        allow.push("query_*".to_owned());
        (connector(at), json!({"allow": allow, "deny": ["*_internal"]}))
    };
    let grants: Map<String, Value> = (0..CONNECTORS_OF_ROLE.min(connectors)).map(of).collect();
    let name = if nth == 0 { ROLE.to_owned() } else { format!("role{nth}") };
    (name, grants.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_the_size_that_was_asked_for() {
        for (tools, roles) in [(5, 5), (500, 50), (5_000, 500)] {
            let policy = policy(json!({"version": 1}), Size { tools, roles });
            let connectors = policy["connectors"].as_object().unwrap().values();
            let of = |connector: &Value| connector["tools"].as_object().unwrap().len();
            assert_eq!(connectors.map(of).sum::<usize>(), tools);
            assert_eq!(policy["roles"].as_object().unwrap().len(), roles);
            assert!(policy["roles"][ROLE][CONNECTOR]["allow"][0] == CALLED);
            assert!(policy["connectors"][CONNECTOR]["tools"][CALLED].is_object());
        }
        let bytes = schema(1).to_string().len();
        assert!((900..1_500).contains(&bytes), "{bytes}");
    }
}
