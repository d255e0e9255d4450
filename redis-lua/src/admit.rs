//! The admission call: typed on both sides. `scripts/admit.lua` says what it does and why it is exact.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{ADMIT, Key, ReplyError, ScriptCall, Value};

/// Lua counts in doubles; integers up to here are exact. Also some 285 years in microseconds.
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// One call asking to be admitted. The keys must all be different and of one organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admit {
    /// The records that the decision rests on.
    pub guards: Vec<Guard>,
    /// The windows to draw from, all or none.
    pub windows: Vec<Window>,
    /// What to note besides, unless a guard is stale. `None` costs nothing.
    pub used: Option<Use>,
    /// What to append to the intents, unless a guard is stale.
    pub intent: Option<Intent>,
}

/// What a call is about to do: it is known even if the gateway dies before it can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Where it is appended: [`Key::intents`].
    pub key: Key,
    /// What it says.
    pub doc: Vec<u8>,
}

/// Notes that something was used just now, by the clock of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Use {
    /// Where it is kept, for 90 days: [`Key::used`].
    pub key: Key,
    /// Which of the things that the key is about, such as a secret of an API key; not empty.
    pub field: String,
}

/// A record, and what the decision took it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Where the record is.
    pub key: Key,
    /// What it should be for the decision to stand.
    pub expected: Expected,
}

/// What a record should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Exactly this revision.
    Revision(String),
    /// Not there.
    Absent,
    /// Nothing is known yet: the reply brings the record, and nothing is drawn.
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
    /// Where it is kept.
    pub key: Key,
    /// Units admitted in any `length_us`.
    pub limit: u64,
    /// Length in microseconds; 0 is taken as 1.
    pub length_us: u64,
    /// To what multiple of microseconds draws are dated; 1 is exact, 0 is taken as 1. A draw counts
    /// less than this longer than `length_us`, and never shorter.
    pub grain_us: u64,
    /// Units this call draws; 0 draws nothing.
    pub cost: u64,
    /// When to say that the window is nearly used up.
    pub alert: Option<Alert>,
}

/// An alert, raised at most once in any `length_us` of its window, in one reply of all there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What keeps it from being raised again: [`Key::mark`].
    pub mark: Key,
    /// From how many units in use on; 0 is taken as 1.
    pub from: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitReply {
    /// At least one record is not what was expected. Nothing was drawn; decide again. In the order
    /// of [`Admit::guards`].
    Stale(Vec<GuardState>),
    /// At least one window is full. Nothing was drawn.
    Limited {
        /// When the call would be admitted if nobody else drew. `None`: never, it costs more than the limit.
        retry_after: Option<Duration>,
        /// The window that has to be waited for longest, as an index into [`Admit::windows`].
        window: usize,
        /// All windows, in the order of [`Admit::windows`].
        windows: Vec<WindowState>,
    },
    /// The cost was drawn from every window, in the order of [`Admit::windows`].
    Admitted(Vec<WindowState>),
}

/// What state of Redis a reply was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Of the organisation whose policy was guarded.
    pub generation: Generation,
    /// Redis's clock, since the Unix epoch.
    pub time: Duration,
}

/// How many changes of keys, policies and deny list an organisation has seen; zero if there is no record of any.
/// It only grows, unless Redis lost what it had written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// `accept_restore.lua` says what is above these bits.
    const CHANGES: u32 = 20;

    /// The number as it is stored.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Whether an operator accepted a restored copy of Redis between `earlier` and this.
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

/// What a guarded record is now.
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
    /// Whether the draws in it were dated anew: the clock of Redis went back by more than the window's length.
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

    /// How many guards there are, and which of them is the organisation's policy.
    fn counted(&self) -> String {
        let count = self.guards.len();
        let intent = if self.intent.is_some() { "+" } else { "" };
        match self.guards.iter().position(|guard| guard.key.is_policy()) {
            Some(at) => format!("{count},{}{intent}", at.saturating_add(1)),
            None => format!("{count}{intent}"),
        }
    }

    /// Reads the reply to [`Admit::call`]. Any other form than the promised one is an error, so that
    /// nothing is ever admitted by a misunderstanding.
    pub fn decode(&self, reply: Value) -> Result<AdmitReply, ReplyError> {
        self.decode_stamped(reply).map(|(reply, _)| reply)
    }

    /// The same, with the state of Redis that it was made of. What has no stamp is of no generation.
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

    /// The call that draws the cost although it may not fit: what became due after the admission.
    /// The window is overdrawn then, and admits nothing until it has recovered.
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
