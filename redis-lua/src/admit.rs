//! The admission call, with typed input and reply. `scripts/admit.lua` documents what it does and why it is exact.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{ADMIT, Key, ReplyError, ScriptCall, Value};

/// Lua counts in doubles; integers up to here are exact. In microseconds this is about 285 years.
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// One call asking to be admitted. The keys must all be different and of one organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admit {
    /// The records that the decision depends on.
    pub guards: Vec<Guard>,
    /// The windows to draw from, all or none.
    pub windows: Vec<Window>,
    /// A use to record as well, unless a guard is stale. `None` costs nothing.
    pub used: Option<Use>,
    /// What to append to the intents, unless a guard is stale.
    pub intent: Option<Intent>,
}

/// A call that the gateway is about to forward. Redis has it even if the gateway dies before it writes the audit entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The stream that it is appended to: [`Key::intents`].
    pub key: Key,
    /// The content of the intent.
    pub doc: Vec<u8>,
}

/// Records that something was used just now, by Redis's clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Use {
    /// The key, which lives for 90 days: [`Key::used`].
    pub key: Key,
    /// The field of that key, such as the secret of an API key that was used; not empty.
    pub field: String,
}

/// A record, and the state of it that the decision assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The record's key.
    pub key: Key,
    /// The state that makes the decision valid.
    pub expected: Expected,
}

/// What a record should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Exactly this revision.
    Revision(String),
    /// No record.
    Absent,
    /// Not known yet: the reply contains the record, and nothing is drawn.
    Unknown,
}

impl Expected {
    pub(crate) fn as_argument(&self) -> &str {
        match self {
            Expected::Revision(rev) => rev,
            Expected::Absent => "-",
            Expected::Unknown => "?",
        }
    }
}

/// One sliding window, and what the call costs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The window's key.
    pub key: Key,
    /// Units admitted in any `length_us`.
    pub limit: u64,
    /// Length in microseconds; 0 is taken as 1.
    pub length_us: u64,
    /// Draws are dated to a multiple of this many microseconds; 1 is exact, 0 is taken as 1. A draw counts for
    /// `length_us` or less than this much longer, never shorter.
    pub grain_us: u64,
    /// Units this call draws; 0 draws nothing.
    pub cost: u64,
    /// When to say that the window is nearly used up.
    pub alert: Option<Alert>,
}

/// An alert. In any `length_us` of its window, only one of all replies raises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The key that prevents a second alert: [`Key::mark`].
    pub mark: Key,
    /// The number of used units from which on the alert is raised; 0 is taken as 1.
    pub from: u64,
}

/// The result of an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitReply {
    /// At least one record has another state than expected. Nothing was drawn; decide again. In the order of
    /// [`Admit::guards`].
    Stale(Vec<GuardState>),
    /// At least one window is full. Nothing was drawn.
    Limited {
        /// When the call would be admitted if no other caller drew. `None`: never, since it costs more than the limit.
        retry_after: Option<Duration>,
        /// The window with the longest wait, as an index into [`Admit::windows`].
        window: usize,
        /// All windows, in the order of [`Admit::windows`].
        windows: Vec<WindowState>,
    },
    /// The cost was drawn from every window, in the order of [`Admit::windows`].
    Admitted(Vec<WindowState>),
}

/// The state of Redis in which a reply was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The generation of the organisation whose policy was guarded.
    pub generation: Generation,
    /// Redis's clock, since the Unix epoch.
    pub time: Duration,
}

/// How many changes of keys, policies and deny list an organisation has seen; zero without a record of any. It only
/// grows, unless Redis lost writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// `accept_restore.lua` defines the bits above these.
    const CHANGES: u32 = 20;

    /// A generation from its stored number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Whether an operator accepted a restored copy of Redis between `earlier` and this generation.
    #[must_use]
    pub fn is_restored_since(self, earlier: Self) -> bool {
        self.0.wrapping_shr(Self::CHANGES) > earlier.0.wrapping_shr(Self::CHANGES)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Stamp {
    fn of(elements: &mut Elements) -> Result<Self, ReplyError> {
        let generation = Generation(elements.natural("a generation")?);
        let time = micros(elements.int("a time")?, "a time of at least 0")?;
        Ok(Self { generation, time })
    }
}

/// The current state of a guarded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardState {
    /// Still what was expected.
    Current,
    /// There is no such record, and one was expected.
    Absent,
    /// Another revision than expected.
    Present {
        /// Its revision.
        rev: String,
        /// Its document.
        doc: Vec<u8>,
    },
}

/// What is left of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowState {
    /// Units left.
    pub remaining: u64,
    /// When the oldest drawn units come back; zero if none are drawn.
    pub reset: Duration,
    /// Whether this reply carries the window's alert.
    pub raised: bool,
    /// Whether the draws in it got a new date: the clock of Redis went back by more than the window's length.
    pub redated: bool,
}

impl Admit {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let guards = self.guards.iter().map(|guard| &guard.key);
        let windows = self.windows.iter().map(|window| &window.key);
        let expected = self.guards.iter().map(|guard| guard.expected.as_argument().to_owned());
        let numbers = self.windows.iter().flat_map(Window::numbers);
        let marks = self.windows.iter().flat_map(|window| &window.alert).map(|alert| &alert.mark);
        let used = self.used.as_ref().filter(|used| !used.field.is_empty());
        ScriptCall {
            script: &ADMIT,
            keys: guards
                .chain(windows)
                .chain(marks)
                .chain(used.map(|used| &used.key))
                .chain(self.intent.as_ref().map(|intent| &intent.key))
                .cloned()
                .collect(),
            args: std::iter::once(self.counted())
                .chain(expected)
                .chain(numbers)
                .chain(used.map(|used| used.field.clone()))
                .map(String::into_bytes)
                .chain(self.intent.as_ref().map(|intent| intent.doc.clone()))
                .collect(),
        }
    }

    /// The number of guards, the position of the organisation's policy among them, and `+` for an intent.
    fn counted(&self) -> String {
        let count = self.guards.len();
        let intent = if self.intent.is_some() { "+" } else { "" };
        match self.guards.iter().position(|guard| guard.key.is_policy()) {
            Some(at) => format!("{count},{}{intent}", at.saturating_add(1)),
            None => format!("{count}{intent}"),
        }
    }

    /// Reads the reply to [`Admit::call`]. Any form that the script does not document is an error, so that a misread
    /// reply never admits a call.
    pub fn decode(&self, reply: Value) -> Result<AdmitReply, ReplyError> {
        self.decode_stamped(reply).map(|(reply, _)| reply)
    }

    /// As [`Admit::decode`], with the state of Redis in which the reply was made. A reply without a stamp has no
    /// generation.
    pub fn decode_stamped(&self, reply: Value) -> Result<(AdmitReply, Option<Stamp>), ReplyError> {
        let mut elements = Elements::of(reply)?;
        let decoded = match elements.int("0, 1 or 2")? {
            0 => AdmitReply::Stale(self.guard_states(&mut elements)?),
            1 => AdmitReply::Admitted(self.window_states(&mut elements)?),
            2 => self.limited(&mut elements)?,
            _ => return Err(malformed("0, 1 or 2")),
        };
        let stamp = elements.more().then(|| Stamp::of(&mut elements)).transpose()?;
        elements.end()?;
        Ok((decoded, stamp))
    }

    fn guard_states(&self, elements: &mut Elements) -> Result<Vec<GuardState>, ReplyError> {
        let states =
            self.guards.iter().map(|guard| guard.state(elements)).collect::<Result<Vec<_>, _>>()?;
        if states.iter().all(|state| *state == GuardState::Current) {
            return Err(malformed("a guard that moved"));
        }
        Ok(states)
    }

    fn limited(&self, elements: &mut Elements) -> Result<AdmitReply, ReplyError> {
        let retry_after = match elements.int("retry_after_us")? {
            -1 => None,
            us => Some(micros(us, "retry_after_us of at least -1")?),
        };
        let window = usize::try_from(elements.natural("a window's index")?)
            .ok()
            .filter(|index| *index < self.windows.len())
            .ok_or(malformed("the index of a window of the call"))?;
        Ok(AdmitReply::Limited { retry_after, window, windows: self.window_states(elements)? })
    }

    pub(crate) fn window_states(
        &self,
        elements: &mut Elements,
    ) -> Result<Vec<WindowState>, ReplyError> {
        let mut state = || {
            let remaining = elements.natural("remaining units")?;
            let reset = micros(elements.int("reset_us")?, "reset_us of at least 0")?;
            let (raised, redated) = match elements.int("whether the alert is raised")? {
                0 => (false, false),
                1 => (true, false),
                2 => (false, true),
                3 => (true, true),
                _ => return Err(malformed("0 to 3 for the alert and the clock")),
            };
            Ok(WindowState { remaining, reset, raised, redated })
        };
        self.windows.iter().map(|_| state()).collect()
    }
}

impl Window {
    fn numbers(&self) -> [String; 5] {
        let alert = self.alert.as_ref().map_or(0, |alert| alert.from.max(1));
        [self.limit, self.length_us.max(1), self.grain_us.max(1), self.cost, alert]
            .map(|number| number.min(LARGEST_EXACT).to_string())
    }

    /// The call that draws the cost even if it does not fit: it became known only after the admission. The window is
    /// then overdrawn, and admits nothing until it has recovered.
    pub fn overdraw(windows: Vec<Self>) -> ScriptCall {
        let unlimited = |window| Self { limit: LARGEST_EXACT, alert: None, ..window };
        let windows = windows.into_iter().map(unlimited).collect();
        Admit { guards: Vec::new(), windows, used: None, intent: None }.call()
    }
}

impl Guard {
    fn state(&self, elements: &mut Elements) -> Result<GuardState, ReplyError> {
        let rev = elements.text("a revision or `-`")?;
        let doc = elements.bytes_or_nil("a document or nil")?;
        match doc {
            Some(_) if rev == "-" || rev == self.expected.as_argument() => {
                Err(malformed("a document only for a record that is there and moved"))
            }
            Some(doc) => Ok(GuardState::Present { rev, doc }),
            None if rev == self.expected.as_argument() => Ok(GuardState::Current),
            None if rev == "-" => Ok(GuardState::Absent),
            None => Err(malformed("a document with each record that moved")),
        }
    }
}

fn micros(us: i64, expected: &'static str) -> Result<Duration, ReplyError> {
    u64::try_from(us).map(Duration::from_micros).map_err(|_| malformed(expected))
}

#[cfg(test)]
mod tests;
