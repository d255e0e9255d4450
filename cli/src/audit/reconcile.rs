//! Calls that were noted in Redis before they were made, against the log.
//!
//! Owns what is missing: a call without an entry, and an entry that Redis knows of and the log does not have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::entry::Entry;
use super::organisations;
use crate::args::VerifyArgs;
use crate::report::CliError;
use crate::store::{Store, Told};
use crate::time::since_1970;

/// The entry of a call that is younger may be in the proxy's buffer, or the call not over.
pub(super) const OPEN_MS: u64 = 30_000;

/// The calls that were noted in Redis.
#[derive(Default)]
pub(super) struct Intents {
    calls: BTreeMap<String, Call>,
    /// The calls by the places of their entries.
    places: BTreeMap<(String, u64), String>,
    /// The chains that the log has entries of.
    chains: BTreeSet<String>,
    /// Whether they were asked for.
    asked: bool,
    /// Chains without any entry are of other gateways.
    partial: bool,
}

#[derive(Default)]
struct Call {
    /// What it was about to do; nothing when only its entry is known: the intent was trimmed.
    intent: Map<String, Value>,
    at_ms: u64,
    /// The chain and the number of its entry, as the gateway noted it in Redis.
    entry: Option<(String, u64)>,
    /// The hash of it.
    hash: String,
    logged: bool,
    /// Whether the log has the entry of its response while that was open.
    open: bool,
    /// The hash of another entry in that place.
    other: Option<String>,
}

impl Call {
    /// The chain of the worker that made it.
    fn chain(&self) -> Option<&str> {
        let entry = self.entry.as_ref().map(|(chain, _)| chain.as_str());
        entry.or_else(|| self.intent.get("chain").and_then(Value::as_str))
    }
}

impl Intents {
    pub(super) fn read(args: &VerifyArgs, store: &mut Store) -> Result<Self, CliError> {
        let mut intents = Self { asked: true, partial: args.partial, ..Self::default() };
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
            let place = (field("chain"), field("seq").parse().unwrap_or_default());
            self.places.insert(place.clone(), id.clone());
            let call = self.calls.entry(id.clone()).or_default();
            call.at_ms = told.at_ms;
            (call.entry, call.hash) = (Some(place), field("hash"));
        }
    }

    /// Looks at the next line of the log.
    pub(super) fn look(&mut self, line: &str) {
        if self.calls.is_empty() {
            return;
        }
        // What is no entry, the verifier names.
        let Ok((entry, _)) = Entry::read(line.as_bytes()) else { return };
        if let Some(call) = self.calls.get_mut(&*entry.request_id) {
            match entry.is_open() {
                true => call.open = true,
                false => call.logged = true,
            }
        }
        let chain = entry.chain.to_string();
        if !self.chains.contains(&chain) {
            self.chains.insert(chain.clone());
        }
        // The hash that an entry names is its own, or the verifier names it.
        let id = self.places.get(&(chain, entry.seq.unwrap_or_default()));
        if let Some(call) = id.and_then(|id| self.calls.get_mut(id))
            && *entry.hash != *call.hash
        {
            call.other = Some(entry.hash.to_string());
        }
    }

    /// Whether the call was made by a gateway whose log this is.
    fn is_of_this_log(&self, call: &Call) -> bool {
        !self.partial || call.chain().is_none_or(|chain| self.chains.contains(chain))
    }

    /// The calls whose entry was written again: another one has its place.
    fn rewritten(&self) -> Vec<(&String, &Call)> {
        self.calls.iter().filter(|(_, call)| call.other.is_some()).collect()
    }

    /// The calls that are over and not in the log: first those without an entry anywhere, then those whose entry is known.
    fn missing(&self) -> [Vec<(&String, &Call)>; 2] {
        let now = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);
        let is_over = |call: &Call| now.saturating_sub(call.at_ms) >= OPEN_MS;
        let missing = self
            .calls
            .iter()
            .filter(|(_, call)| !call.logged && is_over(call) && self.is_of_this_log(call));
        let (known, unknown) = missing.partition(|(_, call)| call.entry.is_some());
        [unknown, known]
    }

    /// Whether an entry is known to have been written and is not there.
    pub(super) fn lacks_entries(&self) -> bool {
        let [_, known] = self.missing();
        !known.is_empty() || !self.rewritten().is_empty()
    }

    pub(super) fn view(&self) -> Value {
        if !self.asked {
            return Value::Null;
        }
        let [unknown, known] = self.missing();
        let shown = |calls: Vec<(&String, &Call)>| -> Vec<Value> {
            let view = |(id, call): (&String, &Call)| {
                let (chain, seq) = call.entry.clone().unzip();
                json!({
                    "request_id": id, "intent": call.intent, "chain": chain, "seq": seq,
                    "hash": call.other, "open": call.open,
                })
            };
            calls.into_iter().map(view).collect()
        };
        json!({
            "calls": self.calls.len(),
            "logged": self.calls.values().filter(|call| call.logged).count(),
            "incomplete": shown(unknown),
            "lost": shown(known),
            "rewritten": shown(self.rewritten()),
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
            .map(|(id, call)| {
                let found = match call.open {
                    true => "is open, or Envoy ended before it was over",
                    false => "was admitted and has no entry",
                };
                format!("call {id} ({}) {found}", what(call))
            })
            .collect();
        lines.extend(known.iter().map(|(id, call)| {
            let (chain, seq) = call.entry.clone().unwrap_or_default();
            let what = what(call);
            format!(
                "call {id} ({what}): entry {seq} of chain {chain} was written and is not in the log"
            )
        }));
        let rewritten = self.rewritten();
        lines.extend(rewritten.iter().map(|(id, call)| {
            let (chain, seq) = call.entry.clone().unwrap_or_default();
            let (what, other) = (what(call), call.other.as_deref().unwrap_or_default());
            format!(
                "call {id} ({what}): entry {seq} of chain {chain} was written with the hash {} and has the hash \
                 {other}: it was replaced",
                call.hash
            )
        }));
        let logged = self.calls.values().filter(|call| call.logged).count();
        lines.push(format!(
            "intents: {} calls, {logged} of them in the log, {} without an entry of their end, {} whose entry is \
             lost, {} whose entry was replaced",
            self.calls.len(),
            unknown.len(),
            known.len(),
            rewritten.len()
        ));
        lines
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::audit::{Chain, Entry as Written};

    use super::*;

    /// What was noted in Redis of a call with this id: once that it begins, once that its entry is there.
    fn told(fields: &[(&str, &str)]) -> Told {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Told { at_ms: 1, fields: fields.collect() }
    }

    fn intents(ids: &[&str], partial: bool) -> Intents {
        let mut intents = Intents { asked: true, partial, ..Intents::default() };
        for id in ids {
            let intent = json!({"request_id": id, "chain": "a"}).to_string();
            intents.take(&told(&[("intent", intent.as_str())]));
        }
        intents
    }

    fn line(chain: &mut Chain, id: &str, input: Option<&str>) -> String {
        let input = input.map(str::to_owned);
        chain.append(&Written { request_id: id.into(), input, ..Written::default() })
    }

    // Proves: A17, B13
    #[test]
    fn only_the_entry_itself_says_whose_it_is() {
        let mut intents = intents(&["r1", "r2"], false);
        let input = r#"{"request_id":"r2","x":"\"request_id\":\"r2\""}"#;
        intents.look(&line(&mut Chain::new("a".into()), "r1", Some(input)));
        let [unknown, known] = intents.missing();
        let ids: Vec<&str> = unknown.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!((ids, known.len()), (vec!["r2"], 0));
    }

    // Proves: A17, A15
    #[test]
    fn the_entry_of_an_open_response_does_not_stand_for_its_end() {
        let mut intents = intents(&["r1"], false);
        let open = Written { request_id: "r1".into(), status: "open", ..Written::default() };
        let mut chain = Chain::new("a".into());
        assert!(intents.lines()[0].ends_with("was admitted and has no entry"));
        intents.look(&chain.append(&open));
        assert_eq!(intents.missing()[0].len(), 1);
        assert!(intents.lines()[0].ends_with("is open, or Envoy ended before it was over"));
        assert_eq!(intents.view()["incomplete"][0]["open"], true);
        intents.look(&line(&mut chain, "r1", None));
        assert_eq!(intents.missing()[0].len(), 0);
    }

    // Proves: A17
    #[test]
    fn an_entry_that_was_written_again_is_found_with_its_right_hash_too() {
        let mut chain = Chain::new("a".into());
        let text = line(&mut chain, "r1", None);
        let hash = chain.end().hash;
        let done = [("done", "r1"), ("chain", "a"), ("seq", "1"), ("hash", hash.as_str())];
        let looked = |line: &str| {
            let mut intents = intents(&["r1"], false);
            intents.take(&told(&done));
            intents.look(line);
            intents
        };
        assert!(!looked(&text).lacks_entries());
        let forged = line(&mut Chain::new("a".into()), "r1", Some("{}"));
        let found = looked(&forged);
        assert!(found.lacks_entries());
        assert!(found.lines().iter().any(|line| line.contains("it was replaced")));
        assert_eq!(found.view()["rewritten"][0]["request_id"], "r1");
    }

    // Proves: A17
    #[test]
    fn calls_of_other_gateways_are_not_lost_in_a_part_of_the_logs() {
        for (partial, lost) in [(false, true), (true, false)] {
            let mut intents = intents(&[], partial);
            intents.take(&told(&[("done", "r1"), ("chain", "b"), ("seq", "1"), ("hash", "h")]));
            intents.look(&line(&mut Chain::new("a".into()), "r2", None));
            assert_eq!(intents.lacks_entries(), lost, "partial: {partial}");
        }
        let mut intents = intents(&[], true);
        intents.take(&told(&[("done", "r1"), ("chain", "a"), ("seq", "2"), ("hash", "h")]));
        intents.look(&line(&mut Chain::new("a".into()), "r2", None));
        assert!(intents.lacks_entries(), "its chain is there");
    }
}
