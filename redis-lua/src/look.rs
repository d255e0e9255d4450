//! The call that asks how windows stand. It draws nothing and writes nothing, so a user who may only read can make it.

use crate::{Admit, AdmitReply, LOOK, ReplyError, ScriptCall, Value, Window, WindowState};

/// How windows stand, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The windows; of their numbers only limit and length count.
    pub windows: Vec<Window>,
}

impl Look {
    /// The script call; for `EVALSHA_RO`.
    pub fn call(&self) -> ScriptCall {
        let numbers = |window: &Window| [window.limit, window.length_us.max(1)];
        ScriptCall {
            script: &LOOK,
            keys: self.windows.iter().map(|window| window.key.clone()).collect(),
            args: self
                .windows
                .iter()
                .flat_map(numbers)
                .map(|number| number.to_string().into_bytes())
                .collect(),
        }
    }

    /// Reads the reply to [`Look::call`].
    ///
    /// # Errors
    /// One that Redis answered, or a reply of another form.
    pub fn decode(self, reply: Value) -> Result<Vec<WindowState>, ReplyError> {
        let admit = Admit { guards: Vec::new(), windows: self.windows, used: None, intent: None };
        match admit.decode(reply)? {
            AdmitReply::Admitted(states) => Ok(states),
            AdmitReply::Stale(_) | AdmitReply::Limited { .. } => {
                Err(crate::value::malformed("the state of windows"))
            }
        }
    }
}
