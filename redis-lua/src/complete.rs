//! The call that records where the audit entry of a call is. Does not know what an entry is.

use crate::{COMPLETE, ChainEnd, Key, ScriptCall};

/// Records that a call whose [`Intent`](crate::Intent) was appended has its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// The stream of intents: [`Key::intents`].
    pub key: Key,
    /// The request id of the call.
    pub request_id: String,
    /// The chain of the entry.
    pub chain: String,
    /// The entry.
    pub entry: ChainEnd,
}

impl Complete {
    /// The script call. Its reply needs no reader.
    pub fn call(self) -> ScriptCall {
        let args = [self.request_id, self.chain, self.entry.seq.to_string(), self.entry.hash];
        ScriptCall {
            script: &COMPLETE,
            keys: vec![self.key],
            args: args.map(String::into_bytes).into(),
        }
    }
}
