//! A worker's memory of reviewed tools: compiled schemas, and observed drifts.
//!
//! Owns the bounds of that memory. Each entry holds its pins: a policy with other pins does not use it.

use std::collections::HashMap;
use std::rc::Rc;

use lru::LruCache;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::denial::{Denial, InvalidArguments};
use crate::id::OrgId;
use crate::json;
use crate::pin::{Definition, Drift};
use crate::schema::{self, Mirror, Schema, Violation};

/// The most estimated bytes of all compiled schemas. A dropped one is compiled again at the next call, in well under a
/// millisecond.
const MOST_BYTES: usize = 16 * 1_048_576;
/// The estimated size of a compiled schema for each byte of its text, rounded up.
const WEIGHT_OF_BYTE: usize = 8;
/// The most drifted tools of one organisation, and of all together. Only pinned tools can drift, at some 200 bytes
/// each.
const MOST_OF_ORG: usize = 8_192;
const MOST: usize = 32_768;
/// The drifts that each organisation can have, regardless of the others.
const FLOOR: usize = 256;
/// At most two policies judge a tool at a time: the active one, and its canary.
const MAX_PINS: usize = 2;

/// A pinned input schema, ready for use.
#[derive(Debug)]
pub struct Reviewed {
    /// The schema.
    pub schema: Schema,
    /// The arguments that headers repeat.
    pub mirrors: Vec<Mirror>,
    /// The digest of the whole pin.
    pub pin: PinDigest,
}

impl Reviewed {
    /// The compiled form of a pin; `None` when its schema cannot be used.
    #[must_use]
    pub fn of(pin: &Definition) -> Option<Self> {
        let document = pin.member("inputSchema")?;
        let schema = schema::compile(document).ok()?;
        Some(Self { schema, mirrors: schema::mirrors(document), pin: digest(pin) })
    }

    /// Whether the arguments of a call fit the schema.
    ///
    /// # Errors
    /// The refusal, with the faults.
    pub fn fits(&self, tool: &str, arguments: &Map<String, Value>) -> Result<(), Denial> {
        let arguments = Value::Object(arguments.clone());
        self.schema.check(&arguments).map_err(|violations| {
            Denial::InvalidArguments(InvalidArguments {
                tool: tool.to_owned(),
                text: told(tool, &violations),
            })
        })
    }
}

fn told(tool: &str, violations: &[Violation]) -> String {
    let tool: String = tool.chars().take(128).collect();
    let lines = violations.iter().map(|violation| format!("\n- {violation}"));
    format!("The arguments of {tool} do not fit its input schema:{}", lines.collect::<String>())
}

/// Compiled schemas, by the address of their pin.
#[derive(Debug)]
pub struct Schemas {
    compiled: LruCache<usize, Compiled>,
    bytes: usize,
}

#[derive(Debug)]
struct Compiled {
    /// Kept alive, so that no other pin gets this address.
    _pin: Rc<Definition>,
    reviewed: Option<Rc<Reviewed>>,
    weight: usize,
}

/// Tools that differed from their pin in their last list.
///
/// By organisation: a server may answer each one differently, and one organisation's observation must neither block nor
/// clear tools for another. By path, because the path leads to the server. No drift is dropped to make room: an
/// organisation without room is blocked instead.
#[derive(Debug, Default)]
pub struct Drifts {
    organisations: HashMap<OrgId, Noted>,
    /// The number of tools of all organisations.
    noted: usize,
}

/// The drifts of one organisation.
#[derive(Debug, Default)]
struct Noted {
    tools: HashMap<(String, String), Vec<(PinDigest, Drift)>>,
    /// The worst drift without room. Every tool without an entry counts as drifted like that until another policy
    /// decides.
    unnoted: Option<Drift>,
}

/// A part of a pin's digest that distinguishes it from the few other pins of a tool.
pub type PinDigest = [u8; 16];

/// A tool in the lists of one organisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// The organisation.
    pub org: OrgId,
    /// The path of its connector.
    pub path: String,
    /// Its name.
    pub tool: String,
}

impl Default for Schemas {
    fn default() -> Self {
        Self { compiled: LruCache::unbounded(), bytes: 0 }
    }
}

impl Schemas {
    /// The input schema of a pin; `None` when it cannot be used. Compiled at the first call.
    pub fn of(&mut self, pin: &Rc<Definition>) -> Option<Rc<Reviewed>> {
        let address = Rc::as_ptr(pin).addr();
        if let Some(compiled) = self.compiled.get(&address) {
            return compiled.reviewed.clone();
        }
        let text = pin.member("inputSchema").map(json::canonical).unwrap_or_default();
        let weight = text.len().saturating_add(128).saturating_mul(WEIGHT_OF_BYTE);
        let reviewed = Reviewed::of(pin).map(Rc::new);
        let compiled = Compiled { _pin: pin.clone(), reviewed: reviewed.clone(), weight };
        self.compiled.put(address, compiled);
        self.bytes = self.bytes.saturating_add(weight);
        while self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.compiled.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.weight);
        }
        reviewed
    }
}

impl Drifts {
    /// The drift of `tool` from `pin` in the last list that this worker saw. It is asked before each call, and nearly
    /// always there is no drift to look up.
    pub fn seen(&self, tool: impl FnOnce() -> Listed, pin: &Definition) -> Option<Drift> {
        if self.organisations.is_empty() {
            return None;
        }
        let Listed { org, path, tool } = tool();
        let noted = self.organisations.get(&org)?;
        let Some(drifts) = noted.tools.get(&(path, tool)) else { return noted.unnoted };
        let of = digest(pin);
        let drift = drifts.iter().find(|(pin, _)| *pin == of).map(|(_, drift)| *drift);
        drift.or(noted.unnoted)
    }

    /// Records that `tool` had this drift from `pin`, or none, in a list.
    pub fn note(&mut self, tool: Listed, pin: &Rc<Definition>, drift: Option<Drift>) {
        let Listed { org, path, tool } = tool;
        match drift {
            Some(drift) => self.add(org, (path, tool), digest(pin), drift),
            None => self.clear(&org, &(path, tool), pin),
        }
    }

    /// Another policy decides on the calls of `org`: its pins were reviewed since.
    pub fn reviewed(&mut self, org: &OrgId) {
        let Some(noted) = self.organisations.get_mut(org) else { return };
        noted.unnoted = None;
        if noted.tools.is_empty() {
            self.organisations.remove(org);
        }
    }

    fn add(&mut self, org: OrgId, tool: (String, String), pin: PinDigest, drift: Drift) {
        let noted = self.organisations.entry(org).or_default();
        if let Some(drifts) = noted.tools.get_mut(&tool) {
            drifts.retain(|(of, _)| *of != pin);
            drifts.insert(0, (pin, drift));
            drifts.truncate(MAX_PINS);
            return;
        }
        let own = noted.tools.len();
        if own >= MOST_OF_ORG || (own >= FLOOR && self.noted >= MOST) {
            noted.unnoted = noted.unnoted.max(Some(drift));
            return;
        }
        noted.tools.insert(tool, vec![(pin, drift)]);
        self.noted = self.noted.saturating_add(1);
    }

    fn clear(&mut self, org: &OrgId, tool: &(String, String), pin: &Definition) {
        let Some(noted) = self.organisations.get_mut(org) else { return };
        let Some(drifts) = noted.tools.get_mut(tool) else { return };
        let pin = digest(pin);
        drifts.retain(|(of, _)| *of != pin);
        if drifts.is_empty() {
            noted.tools.remove(tool);
            self.noted = self.noted.saturating_sub(1);
        }
        if noted.tools.is_empty() && noted.unnoted.is_none() {
            self.organisations.remove(org);
        }
    }
}

pub(crate) fn digest(pin: &Definition) -> PinDigest {
    let mut hasher = Sha256::new();
    for (name, value) in pin.members() {
        hasher.update(name);
        hasher.update([0]);
        hasher.update(json::canonical(value));
        hasher.update([0]);
    }
    let mut digest = PinDigest::default();
    digest.iter_mut().zip(hasher.finalize()).for_each(|(to, from)| *to = from);
    digest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pin(description: &str) -> Rc<Definition> {
        Rc::new(Definition::of(&json!({"description": description})))
    }

    fn listed(org: &str, path: &str) -> Listed {
        let org = OrgId::new(org).unwrap();
        Listed { org, path: path.to_owned(), tool: "pay".to_owned() }
    }

    fn seen(drifts: &Drifts, tool: &Listed, pin: &Definition) -> Option<Drift> {
        drifts.seen(|| tool.clone(), pin)
    }

    #[test]
    fn what_one_organisation_saw_says_nothing_to_another() {
        let (mut drifts, pin) = (Drifts::default(), pin("pays"));
        let (acme, globex) = (listed("acme", "/bank/mcp"), listed("globex", "/bank/mcp"));
        drifts.note(acme.clone(), &pin, Some(Drift::Suspicious));
        assert_eq!(seen(&drifts, &globex, &pin), None);
        drifts.note(globex, &pin, None);
        assert_eq!(seen(&drifts, &acme, &pin), Some(Drift::Suspicious), "cleared by somebody else");
        assert_eq!(seen(&drifts, &listed("acme", "/shop/mcp"), &pin), None);
        drifts.note(acme.clone(), &pin, None);
        assert_eq!(seen(&drifts, &acme, &pin), None);
    }

    fn tool(org: &str, tool: usize) -> Listed {
        Listed { tool: format!("tool{tool}"), ..listed(org, "/bank/mcp") }
    }

    /// Finding 12.5: 1,100 drifted tools of one organisation lifted what was blocked for another.
    #[test]
    fn what_is_blocked_stays_blocked_whatever_other_organisations_see() {
        let (mut drifts, pin) = (Drifts::default(), pin("pays"));
        drifts.note(listed("acme", "/bank/mcp"), &pin, Some(Drift::Suspicious));
        for org in ["globex", "initech", "hooli", "umbrella", "soylent"] {
            (0..MOST_OF_ORG).for_each(|at| drifts.note(tool(org, at), &pin, Some(Drift::Text)));
        }
        assert!(drifts.noted <= MOST + FLOOR, "{}", drifts.noted);
        let acme = seen(&drifts, &listed("acme", "/bank/mcp"), &pin);
        assert_eq!(acme, Some(Drift::Suspicious));
        // Other organisations do not prevent it from recording more.
        (1..FLOOR).for_each(|at| drifts.note(tool("acme", at), &pin, Some(Drift::Breaking)));
        assert_eq!(seen(&drifts, &tool("acme", FLOOR - 1), &pin), Some(Drift::Breaking));
        assert_eq!(seen(&drifts, &tool("acme", FLOOR), &pin), None);
    }

    #[test]
    fn an_organisation_without_room_is_closed_until_its_pins_are_reviewed() {
        let (mut drifts, pin) = (Drifts::default(), pin("pays"));
        (0..MOST_OF_ORG).for_each(|at| drifts.note(tool("acme", at), &pin, Some(Drift::Text)));
        assert_eq!(seen(&drifts, &tool("acme", MOST_OF_ORG), &pin), None);
        drifts.note(tool("acme", MOST_OF_ORG), &pin, Some(Drift::Suspicious));
        assert_eq!(seen(&drifts, &tool("acme", MOST_OF_ORG), &pin), Some(Drift::Suspicious));
        assert_eq!(seen(&drifts, &tool("acme", 0), &pin), Some(Drift::Text));
        (0..=MOST_OF_ORG).for_each(|at| drifts.note(tool("acme", at), &pin, None));
        assert_eq!(seen(&drifts, &tool("acme", MOST_OF_ORG), &pin), Some(Drift::Suspicious));
        assert_eq!(seen(&drifts, &tool("globex", 0), &pin), None);
        drifts.reviewed(&OrgId::new("acme").unwrap());
        assert_eq!(seen(&drifts, &tool("acme", MOST_OF_ORG), &pin), None);
        assert_eq!((drifts.noted, drifts.organisations.len()), (0, 0));
    }

    #[test]
    fn a_canary_with_another_pin_clears_nothing() {
        let (mut drifts, tool) = (Drifts::default(), listed("acme", "/bank/mcp"));
        let (active, canary) = (pin("pays"), pin("pays, and tells"));
        drifts.note(tool.clone(), &active, Some(Drift::Suspicious));
        drifts.note(tool.clone(), &canary, None);
        assert_eq!(seen(&drifts, &tool, &active), Some(Drift::Suspicious));
        drifts.note(tool.clone(), &canary, Some(Drift::Text));
        assert_eq!(seen(&drifts, &tool, &active), Some(Drift::Suspicious));
        assert_eq!(seen(&drifts, &tool, &canary), Some(Drift::Text));
    }

    #[test]
    fn a_drift_outlives_a_new_policy_with_the_same_pin() {
        let (mut drifts, tool) = (Drifts::default(), listed("acme", "/bank/mcp"));
        drifts.note(tool.clone(), &pin("pays"), Some(Drift::Breaking));
        assert_eq!(seen(&drifts, &tool, &pin("pays")), Some(Drift::Breaking));
    }
}
