//! The call that records the state of tools in a `tools/list`. Does not know what a tool is.

use std::time::Duration;

use crate::{Key, OBSERVE, ScriptCall};

/// Records the state of some tools, for all gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observe {
    /// For each tool its key ([`Key::observed`]), all of one organisation, and its state: the revision that an
    /// admission's guard expects.
    pub tools: Vec<(Key, String)>,
    /// How long the states last.
    pub life: Duration,
    /// When the gateway saw the list, in microseconds since the Unix epoch: a gateway that saw a later list uses its
    /// own.
    pub at: u64,
}

impl Observe {
    /// The script call.
    pub fn call(self) -> ScriptCall {
        let life = self.life.as_millis().max(1).to_string().into_bytes();
        let (keys, states): (Vec<Key>, Vec<String>) = self.tools.into_iter().unzip();
        let at = self.at.to_string().into_bytes();
        let args = [life, at].into_iter().chain(states.into_iter().map(String::into_bytes));
        ScriptCall { script: &OBSERVE, keys, args: args.collect() }
    }
}
