//! The call that binds a session or a task to its holder. Does not know what a session or a task is.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{BIND, Key, ReplyError, ScriptCall, Value};

/// Binds `key` to `holder`, unless it is bound to another holder. First an [owner](Key::owner) key to the organisation,
/// then a [binding](Key::binding) to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The binding's key.
    pub key: Key,
    /// The holder: the revision that an admission's guard expects.
    pub holder: String,
    /// How long the binding lasts.
    pub life: Duration,
}

/// The result of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindReply {
    /// It belongs to this holder.
    Bound,
    /// It belongs to another holder.
    Foreign,
}

impl Bind {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        ScriptCall {
            script: &BIND,
            keys: vec![self.key.clone()],
            args: vec![
                self.holder.clone().into_bytes(),
                self.life.as_millis().max(1).to_string().into_bytes(),
            ],
        }
    }

    /// Reads its reply.
    pub fn decode(reply: Value) -> Result<BindReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let tag = elements.int("0 or 1")?;
        elements.end()?;
        match tag {
            0 => Ok(BindReply::Foreign),
            1 => Ok(BindReply::Bound),
            _ => Err(malformed("0 or 1")),
        }
    }
}
