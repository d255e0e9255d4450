//! What a worker remembers of reviewed tools: compiled schemas, and drifts that it saw.
//!
//! Owns the bounds of that memory. Each entry holds the pin that it is about: under another policy it
//! means nothing.

use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;

use crate::id::PolicyName;
use crate::pin::{Definition, Drift};
use crate::schema::{self, Mirror, Schema};

/// Some 50 KB each at worst, a tenth of that as a rule.
const MAX_SCHEMAS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
const MAX_DRIFTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

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
#[derive(Debug)]
pub struct Drifts(LruCache<(PolicyName, String), (Rc<Definition>, Drift)>);

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
    /// How far the tool had drifted from `pin` in the last list that this worker saw.
    pub fn seen(&mut self, connector: &PolicyName, tool: &str, pin: &Definition) -> Option<Drift> {
        if self.0.is_empty() {
            return None;
        }
        let (of, drift) = self.0.get(&(connector.clone(), tool.to_owned()))?;
        (**of == *pin).then_some(*drift)
    }

    /// A list went by in which the tool had drifted this far, or not at all.
    pub fn note(
        &mut self,
        connector: &PolicyName,
        tool: &str,
        pin: &Rc<Definition>,
        drift: Option<Drift>,
    ) {
        if drift.is_none() && self.0.is_empty() {
            return;
        }
        let key = (connector.clone(), tool.to_owned());
        match drift {
            Some(drift) => _ = self.0.put(key, (pin.clone(), drift)),
            None => _ = self.0.pop(&key),
        }
    }
}
