//! The call that keeps bindings for longer, or ends them. Refuses to know what is bound.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{KEEP, Key, ReplyError, ScriptCall, Value};

/// Keeps what is bound at `keys`, as far as it is `holder`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Where the bindings are; all of one organisation.
    pub keys: Vec<Key>,
    /// Whose they have to be.
    pub holder: String,
    /// For how long from now; zero ends them.
    pub life: Duration,
}

impl Keep {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let life = self.life.as_millis().to_string();
        let args = vec![self.holder.clone().into_bytes(), life.into_bytes()];
        ScriptCall { script: &KEEP, keys: self.keys.clone(), args }
    }

    /// Reads its reply: how many of them were the holder's.
    pub fn decode(reply: Value) -> Result<usize, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let kept = elements.natural("a number of bindings")?;
        elements.end()?;
        usize::try_from(kept).map_err(|_| malformed("a number of bindings"))
    }
}
