//! The operation of a message: the method, and the object that it names.
//!
//! Owns the list of methods and the member in which each names its object. [`crate::authz`] decides whether the caller
//! may use the object.

use std::fmt;

use serde_json::{Map, Value};

use super::MessageFault;
use crate::json::misspelt;

/// Requests that name no object; servers may support any of them.
const HOUSEKEEPING: [&str; 3] = ["ping", "server/discover", "logging/setLevel"];
/// Requests of the legacy era that 2026-07-28 removed.
const REMOVED: [&str; 7] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/result",
    "tasks/list",
];
const NOTIFICATIONS: [&str; 5] = [
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
];
/// MCP advises at most 128 characters; longer names exist in no known server.
const LONGEST_NAME: usize = 256;
/// URIs, prompt names and task ids.
const LONGEST_URI: usize = 4_096;
/// The most resources, and the most tasks, that one `subscriptions/listen` may name.
const MOST_NAMED: usize = 64;

/// The operation of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The legacy handshake; its answer may open a session.
    Initialize,
    /// Other requests that name no object and are open to every caller: ping, log level.
    Housekeeping,
    /// A list, of which the caller sees a part.
    List(Listing),
    /// `tools/call`.
    CallTool(ToolCall),
    /// `prompts/get`, or a completion of a prompt's argument.
    Prompt(String),
    /// `resources/read`, `subscribe`, `unsubscribe`, or a completion of a template's parameter.
    Resource(String),
    /// `subscriptions/listen`: every resource and task that it names.
    Subscriptions {
        /// `resourceSubscriptions`.
        resources: Vec<String>,
        /// `taskIds`, of the tasks extension.
        tasks: Vec<String>,
    },
    /// `tasks/get`, `result`, `update`, `cancel`.
    Task(String),
    /// The client's answer to a request of the server (legacy only).
    Response,
    /// `GET`: a stream of the server's messages.
    Listen,
    /// `DELETE`: the end of a session.
    EndSession,
    /// A method that is open only where the policy says so.
    Unknown,
}

/// The kind of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl Listing {
    /// The member of a result that the list is in.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }
}

/// A call of a tool.
#[derive(Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name, byte for byte.
    pub name: String,
    /// Its arguments; absent means none.
    pub arguments: Map<String, Value>,
    /// Whether it asks for a task instead of a result (MCP 2025-11-25).
    pub as_task: bool,
}

/// Without the arguments: only [`crate::audit`] knows the secret ones.
impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Operation {
    /// The operation of a notification. None of them names an object, and none may call a tool, because its result
    /// would be lost.
    #[must_use]
    pub(super) fn of_notification(method: &str) -> Self {
        if NOTIFICATIONS.contains(&method) { Self::Housekeeping } else { Self::Unknown }
    }

    /// The operation of a request, from its method; takes the needed members from `params`.
    ///
    /// # Errors
    /// [`MessageFault::NotOneMessage`] when the object that the method names is missing.
    pub(super) fn of_request(
        method: &str,
        params: &mut Map<String, Value>,
    ) -> Result<Self, MessageFault> {
        Ok(match method {
            "initialize" => Operation::Initialize,
            "tools/list" => Operation::List(Listing::Tools),
            "prompts/list" => Operation::List(Listing::Prompts),
            "resources/list" => Operation::List(Listing::Resources),
            "resources/templates/list" => Operation::List(Listing::Templates),
            "tools/call" => Operation::CallTool(tool_call(params)?),
            "prompts/get" => {
                Operation::Prompt(named(params, "name", "params.name must be a string")?)
            }
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                Operation::Resource(named(params, "uri", "params.uri must be a string")?)
            }
            "completion/complete" => completion(params)?,
            "subscriptions/listen" => subscriptions(params)?,
            "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => {
                Operation::Task(named(params, "taskId", "params.taskId must be a string")?)
            }
            name if HOUSEKEEPING.contains(&name) => Operation::Housekeeping,
            _ => Operation::Unknown,
        })
    }
}

/// Whether MCP has a request or a notification of this name, in any era. A connector's `methods` open other methods.
#[must_use]
pub fn is_of_mcp(method: &str) -> bool {
    methods().any(|known| known == method)
}

/// The requests and notifications of MCP, of every era.
pub fn methods() -> impl Iterator<Item = &'static str> {
    const NAMED: [&str; 14] = [
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tools/call",
        "prompts/get",
        "resources/read",
        "completion/complete",
        "subscriptions/listen",
        "tasks/get",
        "tasks/update",
        "tasks/cancel",
        "sampling/createMessage",
        "elicitation/create",
    ];
    NAMED.iter().chain(&HOUSEKEEPING).chain(&REMOVED).chain(&NOTIFICATIONS).copied()
}

/// Whether the modern era removed this request.
#[must_use]
pub fn is_removed(method: &str) -> bool {
    REMOVED.contains(&method)
}

/// The name of an object.
fn named(
    members: &mut Map<String, Value>,
    member: &str,
    fault: &'static str,
) -> Result<String, MessageFault> {
    match members.remove(member) {
        Some(Value::String(name)) if (1..=LONGEST_URI).contains(&name.len()) => Ok(name),
        _ => Err(MessageFault::NotOneMessage(fault)),
    }
}

/// A completion reveals values of its reference, so it is judged like a use of it.
fn completion(params: &mut Map<String, Value>) -> Result<Operation, MessageFault> {
    const FAULT: &str = "params.ref must be a ref/prompt with name or a ref/resource with uri";
    let Some(Value::Object(mut reference)) = params.remove("ref") else {
        return Err(MessageFault::NotOneMessage(FAULT));
    };
    if misspelt(&reference, &["type", "name", "uri"]).is_some() {
        return Err(MessageFault::NotOneMessage(
            "A member of params.ref differs from a known one only by case",
        ));
    }
    match reference.get("type").and_then(Value::as_str) {
        Some("ref/prompt") => Ok(Operation::Prompt(named(&mut reference, "name", FAULT)?)),
        Some("ref/resource") => Ok(Operation::Resource(named(&mut reference, "uri", FAULT)?)),
        _ => Err(MessageFault::NotOneMessage(FAULT)),
    }
}

fn subscriptions(params: &mut Map<String, Value>) -> Result<Operation, MessageFault> {
    const FAULT: &str = "params.notifications must be an object; what it names, lists of strings";
    const TOO_MANY: &str = "params.notifications names more than 64 resources or 64 tasks: listen \
         to fewer of them, or on several streams";
    let mut wanted = match params.remove("notifications") {
        None => Map::new(),
        Some(Value::Object(wanted)) => wanted,
        Some(_) => return Err(MessageFault::NotOneMessage(FAULT)),
    };
    if misspelt(&wanted, &["resourceSubscriptions", "taskIds"]).is_some() {
        let fault = "A member of params.notifications differs from a known one only by case";
        return Err(MessageFault::NotOneMessage(fault));
    }
    let mut names = |member: &str| match wanted.remove(member) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let mut named: Vec<String> = Vec::new();
            for item in items {
                match item {
                    Value::String(name) if named.contains(&name) => {}
                    Value::String(_) if named.len() >= MOST_NAMED => {
                        return Err(MessageFault::NotOneMessage(TOO_MANY));
                    }
                    Value::String(name) if name.len() <= LONGEST_URI => named.push(name),
                    _ => return Err(MessageFault::NotOneMessage(FAULT)),
                }
            }
            Ok(named)
        }
        Some(_) => Err(MessageFault::NotOneMessage(FAULT)),
    };
    let (resources, tasks) = (names("resourceSubscriptions")?, names("taskIds")?);
    Ok(Operation::Subscriptions { resources, tasks })
}

fn tool_call(params: &mut Map<String, Value>) -> Result<ToolCall, MessageFault> {
    let Some(Value::String(name)) = params.remove("name") else {
        return Err(MessageFault::NotOneMessage("tools/call needs params.name, a string"));
    };
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(MessageFault::NotOneMessage("params.name must have 1 to 256 bytes"));
    }
    Ok(ToolCall {
        name,
        arguments: object(params, "arguments", "params.arguments must be an object")?,
        as_task: params.get("task").is_some_and(|task| !task.is_null()),
    })
}

/// The arguments for the prompt that a request names, or for the reference that it completes.
pub(super) fn input(
    method: &str,
    params: &mut Map<String, Value>,
) -> Result<Map<String, Value>, MessageFault> {
    match method {
        "prompts/get" => object(params, "arguments", "params.arguments must be an object"),
        "completion/complete" => {
            let parts = ["argument", "context"].into_iter();
            Ok(parts.filter_map(|name| params.remove_entry(name)).collect())
        }
        _ => Ok(Map::new()),
    }
}

/// An object, or nothing: every server that accepts `null` treats it like an absent member.
fn object(
    params: &mut Map<String, Value>,
    member: &str,
    fault: &'static str,
) -> Result<Map<String, Value>, MessageFault> {
    match params.remove(member) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(MessageFault::NotOneMessage(fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `methods: ["*"]` let a `tools/call` without an id pass all rules of tools.
    #[test]
    fn what_is_mcps_own_is_no_vendors_method() {
        for own in ["tools/call", "tools/list", "tasks/list", "ping", "notifications/progress"] {
            assert!(is_of_mcp(own), "{own}");
        }
        assert!(!is_of_mcp("acme/search") && !is_of_mcp("tools/search"));
    }
}
