//! What a worker remembers of reviewed tools: compiled schemas, and drifts that it saw.
//!
//! Owns the bounds of that memory. Each entry holds the pins that it is about: a policy with others
//! knows nothing of it.

use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;

use crate::id::OrgId;
use crate::pin::{Definition, Drift};
use crate::schema::{self, Mirror, Schema};

/// Some 50 KB each at worst, a tenth of that as a rule.
const MAX_SCHEMAS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
const MAX_DRIFTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
/// A tool is judged by the pins of at most two policies at a time: the active one, and its canary.
const MAX_PINS: usize = 2;

/// A pinned input schema, ready for use.
#[derive(Debug)]
pub struct Reviewed {
    /// The schema.
    pub schema: Schema,
    /// The arguments that headers repeat.
    pub mirrors: Vec<Mirror>,
}

/// Compiled schemas, by the address of their pin.
#[derive(Debug)]
pub struct Schemas(LruCache<usize, (Rc<Definition>, Option<Rc<Reviewed>>)>);

/// Tools whose last list was not as pinned.
///
/// By organisation: a server may tell each one something else, and what one saw must neither block
/// nor clear anything for another. By path, since that is what leads to the server.
#[derive(Debug)]
pub struct Drifts(LruCache<Listed, Vec<(Rc<Definition>, Drift)>>);

/// A tool as an organisation finds it listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Whose callers see it.
    pub org: OrgId,
    /// The path of its connector.
    pub path: String,
    /// Its name.
    pub tool: String,
}

impl Default for Schemas {
    fn default() -> Self {
        Self(LruCache::new(MAX_SCHEMAS))
    }
}

impl Default for Drifts {
    fn default() -> Self {
        Self(LruCache::new(MAX_DRIFTS))
    }
}

impl Schemas {
    /// The input schema of a pin; `None` when it cannot be used. Compiled at the first call.
    pub fn of(&mut self, pin: &Rc<Definition>) -> Option<Rc<Reviewed>> {
        // The entry keeps its pin alive, so that no other one gets this address.
        let address = Rc::as_ptr(pin).addr();
        let (_, reviewed) = self.0.get_or_insert(address, || (pin.clone(), review(pin)));
        reviewed.clone()
    }
}

fn review(pin: &Definition) -> Option<Rc<Reviewed>> {
    let document = pin.member("inputSchema")?;
    let schema = schema::compile(document).ok()?;
    Some(Rc::new(Reviewed { schema, mirrors: schema::mirrors(document) }))
}

impl Drifts {
    /// How far `tool` had drifted from `pin` in the last list that this worker saw. Asked before each
    /// call, and nearly never is there anything to look up.
    pub fn seen(&mut self, tool: impl FnOnce() -> Listed, pin: &Definition) -> Option<Drift> {
        if self.0.is_empty() {
            return None;
        }
        let drifts = self.0.get(&tool())?;
        drifts.iter().find(|(of, _)| **of == *pin).map(|(_, drift)| *drift)
    }

    /// A list went by in which `tool` had drifted this far from `pin`, or not at all.
    pub fn note(&mut self, tool: Listed, pin: &Rc<Definition>, drift: Option<Drift>) {
        if drift.is_none() && self.0.is_empty() {
            return;
        }
        let mut drifts = self.0.pop(&tool).unwrap_or_default();
        drifts.retain(|(of, _)| of != pin);
        if let Some(drift) = drift {
            drifts.insert(0, (pin.clone(), drift));
            drifts.truncate(MAX_PINS);
        }
        if !drifts.is_empty() {
            self.0.put(tool, drifts);
        }
    }
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

    fn seen(drifts: &mut Drifts, tool: &Listed, pin: &Definition) -> Option<Drift> {
        drifts.seen(|| tool.clone(), pin)
    }

    #[test]
    fn what_one_organisation_saw_says_nothing_to_another() {
        let (mut drifts, pin) = (Drifts::default(), pin("pays"));
        let (acme, globex) = (listed("acme", "/bank/mcp"), listed("globex", "/bank/mcp"));
        drifts.note(acme.clone(), &pin, Some(Drift::Suspicious));
        assert_eq!(seen(&mut drifts, &globex, &pin), None);
        drifts.note(globex, &pin, None);
        assert_eq!(
            seen(&mut drifts, &acme, &pin),
            Some(Drift::Suspicious),
            "cleared by somebody else"
        );
        assert_eq!(seen(&mut drifts, &listed("acme", "/shop/mcp"), &pin), None);
        drifts.note(acme.clone(), &pin, None);
        assert_eq!(seen(&mut drifts, &acme, &pin), None);
    }

    #[test]
    fn a_canary_with_another_pin_clears_nothing() {
        let (mut drifts, tool) = (Drifts::default(), listed("acme", "/bank/mcp"));
        let (active, canary) = (pin("pays"), pin("pays, and tells"));
        drifts.note(tool.clone(), &active, Some(Drift::Suspicious));
        drifts.note(tool.clone(), &canary, None);
        assert_eq!(seen(&mut drifts, &tool, &active), Some(Drift::Suspicious));
        drifts.note(tool.clone(), &canary, Some(Drift::Text));
        assert_eq!(seen(&mut drifts, &tool, &active), Some(Drift::Suspicious));
        assert_eq!(seen(&mut drifts, &tool, &canary), Some(Drift::Text));
    }

    #[test]
    fn a_drift_outlives_a_new_policy_with_the_same_pin() {
        let (mut drifts, tool) = (Drifts::default(), listed("acme", "/bank/mcp"));
        drifts.note(tool.clone(), &pin("pays"), Some(Drift::Breaking));
        assert_eq!(seen(&mut drifts, &tool, &pin("pays")), Some(Drift::Breaking));
    }
}
