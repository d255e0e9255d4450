//! The call that notes what a list showed of tools. Refuses to know what a tool is.

use std::time::Duration;

use crate::{Key, OBSERVE, ScriptCall};

/// Notes a state of each of some tools, for all gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observe {
    /// Where each is noted ([`Key::observed`]), all of one organisation, and its state: the revision that an
    /// admission's guard expects.
    pub tools: Vec<(Key, String)>,
    /// For how long.
    pub life: Duration,
    /// When the list was seen, in microseconds since the Unix epoch: a gateway that saw another one later goes by its
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
