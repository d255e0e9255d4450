//! The call that notes where the audit entry of a call is. Refuses to know what an entry is.

use crate::{COMPLETE, ChainEnd, Key, ScriptCall};

/// Notes that a call whose [`Intent`](crate::Intent) was appended has its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// Where intents are: [`Key::intents`].
    pub key: Key,
    /// The call.
    pub request_id: String,
    /// The chain of the entry.
    pub chain: String,
    /// The entry.
    pub entry: ChainEnd,
}

impl Complete {
    /// The script call. Nobody needs its reply.
    pub fn call(self) -> ScriptCall {
        let args = [self.request_id, self.chain, self.entry.seq.to_string(), self.entry.hash];
        ScriptCall {
            script: &COMPLETE,
            keys: vec![self.key],
            args: args.map(String::into_bytes).into(),
        }
    }
}
