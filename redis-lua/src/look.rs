//! The call that reads the state of windows. It draws nothing and writes nothing, so a user with read rights only can
//! make it.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{LOOK, ReplyError, ScriptCall, Value, Window};

/// Reads several windows at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The windows; of their numbers only limit, length, grain and cost count.
    pub windows: Vec<Window>,
}

/// The state of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStanding {
    /// Units left.
    pub remaining: u64,
    /// Units in use: more than the limit where a charge after an answer overdrew the window.
    pub used: u64,
    /// When the oldest drawn units come back; zero if none are drawn.
    pub reset: Duration,
    /// How long until the window's cost fits; zero if it fits now, `None` if it never can.
    pub wait: Option<Duration>,
}

impl Look {
    /// The script call; for `EVALSHA_RO`.
    pub fn call(&self) -> ScriptCall {
        let numbers = |window: &Window| {
            [window.limit, window.length_us.max(1), window.grain_us.max(1), window.cost]
        };
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
    pub fn decode(&self, reply: Value) -> Result<Vec<WindowStanding>, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let mut standing = || {
            let remaining = elements.natural("remaining units")?;
            let reset = Duration::from_micros(elements.natural("reset_us of at least 0")?);
            let wait = match elements.int("wait_us")? {
                -1 => None,
                us => Some(u64::try_from(us).map_err(|_| malformed("wait_us of at least -1"))?),
            };
            let used = elements.natural("used units")?;
            Ok(WindowStanding { remaining, used, reset, wait: wait.map(Duration::from_micros) })
        };
        let all = self.windows.iter().map(|_| standing()).collect::<Result<Vec<_>, _>>()?;
        elements.end()?;
        Ok(all)
    }
}
