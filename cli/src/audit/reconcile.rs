//! Calls that Redis was told of before they were made, against the log.
//!
//! Owns what is missing: a call without an entry, and an entry that Redis knows of and the log does not have.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::organisations;
use crate::args::VerifyArgs;
use crate::report::CliError;
use crate::store::{Store, Told};
use crate::time::since_1970;

/// The entry of a call that is younger may be in the proxy's buffer, or the call not over.
const OPEN_MS: u64 = 30_000;

/// The calls that Redis was told of.
#[derive(Default)]
pub(super) struct Intents {
    calls: BTreeMap<String, Call>,
    /// Whether they were asked for.
    asked: bool,
}

#[derive(Default)]
struct Call {
    /// What it was about to do; nothing when only its entry is known: the intent was trimmed.
    intent: Map<String, Value>,
    at_ms: u64,
    /// The chain and the number of its entry, as the gateway told Redis.
    entry: Option<(String, u64)>,
    logged: bool,
}

impl Intents {
    pub(super) fn read(args: &VerifyArgs, store: &mut Store) -> Result<Self, CliError> {
        let mut intents = Self { calls: BTreeMap::new(), asked: true };
        for org in organisations(args.org.as_ref(), store)? {
            store.each_intent(&org, |told| intents.take(&told))?;
        }
        Ok(intents)
    }

    fn take(&mut self, told: &Told) {
        let field = |name: &str| told.fields.get(name).cloned().unwrap_or_default();
        if let Some(intent) = told.fields.get("intent") {
            let intent: Map<String, Value> = serde_json::from_str(intent).unwrap_or_default();
            let id = intent.get("request_id").and_then(Value::as_str).unwrap_or_default();
            let call = self.calls.entry(id.to_owned()).or_default();
            (call.intent, call.at_ms) = (intent, told.at_ms);
        } else if let Some(id) = told.fields.get("done") {
            let call = self.calls.entry(id.clone()).or_default();
            call.at_ms = told.at_ms;
            call.entry = Some((field("chain"), field("seq").parse().unwrap_or_default()));
        }
    }

    /// Looks at the next line of the log.
    pub(super) fn look(&mut self, line: &str) {
        if self.calls.is_empty() {
            return;
        }
        let id = line.split_once("\"request_id\":\"").and_then(|(_, rest)| rest.split('"').next());
        if let Some(call) = id.and_then(|id| self.calls.get_mut(id)) {
            call.logged = true;
        }
    }

    /// The calls that are over and not in the log: first those without an entry anywhere, then those whose entry is known.
    fn missing(&self) -> [Vec<(&String, &Call)>; 2] {
        let now = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);
        let missing = self
            .calls
            .iter()
            .filter(|(_, call)| !call.logged && now.saturating_sub(call.at_ms) >= OPEN_MS);
        let (known, unknown) = missing.partition(|(_, call)| call.entry.is_some());
        [unknown, known]
    }

    /// Whether an entry is known to have been written and is not there.
    pub(super) fn lacks_entries(&self) -> bool {
        let [_, known] = self.missing();
        !known.is_empty()
    }

    pub(super) fn view(&self) -> Value {
        if !self.asked {
            return Value::Null;
        }
        let [unknown, known] = self.missing();
        let shown = |calls: Vec<(&String, &Call)>| -> Vec<Value> {
            let view = |(id, call): (&String, &Call)| {
                let (chain, seq) = call.entry.clone().unzip();
                json!({"request_id": id, "intent": call.intent, "chain": chain, "seq": seq})
            };
            calls.into_iter().map(view).collect()
        };
        json!({
            "calls": self.calls.len(),
            "logged": self.calls.values().filter(|call| call.logged).count(),
            "incomplete": shown(unknown),
            "lost": shown(known),
        })
    }

    /// One line for each call that is missing, and the sum.
    pub(super) fn lines(&self) -> Vec<String> {
        if !self.asked {
            return Vec::new();
        }
        let [unknown, known] = self.missing();
        let what = |call: &Call| {
            let text = |name: &str| call.intent.get(name).and_then(Value::as_str);
            let names = ["principal", "mcp_method", "tool_name", "prompt_name", "resource_uri"];
            names.into_iter().filter_map(text).collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = unknown
            .iter()
            .map(|(id, call)| format!("call {id} ({}) was admitted and has no entry", what(call)))
            .collect();
        lines.extend(known.iter().map(|(id, call)| {
            let (chain, seq) = call.entry.clone().unwrap_or_default();
            let what = what(call);
            format!(
                "call {id} ({what}): entry {seq} of chain {chain} was written and is not in the log"
            )
        }));
        let logged = self.calls.values().filter(|call| call.logged).count();
        lines.push(format!(
            "intents: {} calls, {logged} of them in the log, {} without an entry, {} whose entry is lost",
            self.calls.len(),
            unknown.len(),
            known.len()
        ));
        lines
    }
}
