//! Calls of tools in audit logs, as far as an entry tells how to make them again.

use std::path::PathBuf;

use portcullis_core::json;
use portcullis_core::time::UnixTime;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::entry::Entry;
use super::log::{Logs, Quiet};
use crate::report::{CliError, progress};

/// A call of a tool, by a caller that proved who it is.
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) org: String,
    /// The id of a key; empty for other credentials.
    pub(crate) key: String,
    /// The id of a key, or the subject of a token or certificate.
    pub(crate) caller: String,
    pub(crate) name: String,
    pub(crate) auth_method: String,
    /// The agent that the caller's token named.
    pub(crate) agent: Option<String>,
    pub(crate) role: String,
    pub(crate) connector: String,
    pub(crate) tool: String,
    pub(crate) arguments: Map<String, Value>,
    /// Whether these are the arguments as they were sent: nothing is redacted or cut.
    pub(crate) exact: bool,
    pub(crate) at: UnixTime,
    pub(crate) source: String,
    pub(crate) effect: String,
    pub(crate) rule: String,
    pub(crate) status: String,
    pub(crate) policy_version: String,
    /// The id of the approval that the call waited for or used.
    pub(crate) approval: Option<String>,
}

/// Hands on each call of a tool in these logs.
pub(crate) fn each_call(files: &[PathBuf], mut take: impl FnMut(Call)) -> Result<(), CliError> {
    let read = Logs::named(files)?.each_entry(Quiet::UntilTheEnd, |entry, _| {
        call(entry).into_iter().for_each(&mut take);
        Ok(())
    });
    match read {
        Ok(passed_over) => {
            passed_over.warning().iter().for_each(|warning| progress(warning));
            Ok(())
        }
        Err(halt) => halt.outcome().map(drop),
    }
}

fn call(entry: &Entry<'_>) -> Option<Call> {
    let complete = ![&entry.tool_name, &entry.role, &entry.connector, &entry.org_id]
        .iter()
        .any(|member| member.is_empty());
    if &*entry.mcp_method != "tools/call" || !complete || entry.is_open() {
        return None;
    }
    let input = entry.input.map(|input| input.get()).unwrap_or("{}");
    let arguments: Map<String, Value> =
        json::parse_strict(input.as_bytes()).ok()?.as_object().cloned()?;
    let digest = Sha256::digest(json::canonical_exact(&arguments).as_bytes());
    let exact = base16ct::lower::encode_string(&digest) == *entry.input_sha256;
    let approvals = ["approval_requested", "approval_used"];
    let of_approvals = entry.events.is_some_and(|events| events.get().contains("\"approval_"));
    let mut events = if of_approvals { entry.events() } else { Vec::new() }.into_iter();
    let approval = events.find(|event| approvals.contains(&event.event.as_str()));
    let micros = entry.time().map(|time| time.as_microsecond()).unwrap_or_default();
    Some(Call {
        request_id: entry.request_id.to_string(),
        org: entry.org_id.to_string(),
        key: entry.api_key_id.to_string(),
        caller: entry.caller().to_owned(),
        name: entry.principal.to_string(),
        auth_method: entry.auth_method.to_string(),
        agent: Some(entry.agent_id.to_string()).filter(|agent| !agent.is_empty()),
        role: entry.role.to_string(),
        connector: entry.connector.to_string(),
        tool: entry.tool_name.to_string(),
        arguments,
        exact,
        at: UnixTime::from_micros(u64::try_from(micros).unwrap_or_default()),
        source: entry.client_address.to_string(),
        effect: entry.decision.effect.to_string(),
        rule: entry.decision.rule.to_string(),
        status: entry.status.to_string(),
        policy_version: entry.policy_version.to_string(),
        approval: approval.map(|event| event.text("id").to_owned()),
    })
}
