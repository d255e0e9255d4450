//! The call that extends bindings, or ends them. Does not know what is bound.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{KEEP, Key, ReplyError, ScriptCall, Value};

/// Extends the bindings at `keys` that belong to `holder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The bindings' keys; all of one organisation.
    pub keys: Vec<Key>,
    /// The holder that they must belong to.
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

    /// Reads its reply: how many of the bindings belonged to the holder.
    pub fn decode(reply: Value) -> Result<usize, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let kept = elements.natural("a number of bindings")?;
        elements.end()?;
        usize::try_from(kept).map_err(|_| malformed("a number of bindings"))
    }
}
