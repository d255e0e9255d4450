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
    /// What to note besides, unless a guard moved. `None` costs nothing.
    pub used: Option<Use>,
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
    /// Units this call draws; 0 draws nothing.
    pub cost: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitReply {
    /// At least one record is not what was expected. Nothing was drawn; decide again. In the order
    /// of [`Admit::guards`].
    Moved(Vec<GuardState>),
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

/// What a guarded record is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardState {
    /// Still what was expected.
    Unmoved,
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
}

impl Admit {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let guards = self.guards.iter().map(|guard| &guard.key);
        let windows = self.windows.iter().map(|window| &window.key);
        let expected = self.guards.iter().map(|guard| guard.expected.as_argument().to_owned());
        let numbers = self.windows.iter().flat_map(|window| {
            let length_us = window.length_us.max(1);
            [window.limit, length_us, window.cost].map(|n| n.min(LARGEST_EXACT).to_string())
        });
        let used = self.used.as_ref().filter(|used| !used.field.is_empty());
        ScriptCall {
            script: &ADMIT,
            keys: guards.chain(windows).chain(used.map(|used| &used.key)).cloned().collect(),
            args: std::iter::once(self.guards.len().to_string())
                .chain(expected)
                .chain(numbers)
                .chain(used.map(|used| used.field.clone()))
                .map(String::into_bytes)
                .collect(),
        }
    }

    /// Reads the reply to [`Admit::call`]. Any other form than the promised one is an error, so that
    /// nothing is ever admitted by a misunderstanding.
    pub fn decode(&self, reply: Value) -> Result<AdmitReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let decoded = match elements.int("0, 1 or 2")? {
            0 => AdmitReply::Moved(self.guard_states(&mut elements)?),
            1 => AdmitReply::Admitted(self.window_states(&mut elements)?),
            2 => self.limited(&mut elements)?,
            _ => return Err(malformed("0, 1 or 2")),
        };
        elements.end()?;
        Ok(decoded)
    }

    fn guard_states(&self, elements: &mut Elements) -> Result<Vec<GuardState>, ReplyError> {
        let states =
            self.guards.iter().map(|guard| guard.state(elements)).collect::<Result<Vec<_>, _>>()?;
        if states.iter().all(|state| *state == GuardState::Unmoved) {
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

    fn window_states(&self, elements: &mut Elements) -> Result<Vec<WindowState>, ReplyError> {
        let mut state = || {
            let remaining = elements.natural("remaining units")?;
            let reset = micros(elements.int("reset_us")?, "reset_us of at least 0")?;
            Ok(WindowState { remaining, reset })
        };
        self.windows.iter().map(|_| state()).collect()
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
            None if rev == self.expected.as_argument() => Ok(GuardState::Unmoved),
            None if rev == "-" => Ok(GuardState::Absent),
            None => Err(malformed("a document with each record that moved")),
        }
    }
}

fn micros(us: i64, expected: &'static str) -> Result<Duration, ReplyError> {
    u64::try_from(us).map(Duration::from_micros).map_err(|_| malformed(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit() -> Admit {
        let guard = |id: &str, expected| Guard { key: Key::record("acme", id), expected };
        let window = |limit: &str, cost| Window {
            key: Key::window("acme", limit, &[]),
            limit: 5,
            length_us: 1_000_000,
            cost,
        };
        Admit {
            guards: vec![
                guard("a", Expected::Revision("7".into())),
                guard("b", Expected::Absent),
                guard("c", Expected::Unknown),
            ],
            windows: vec![window("calls", 1), window("credits", u64::MAX)],
            used: None,
        }
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn ints(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().copied().map(Value::Int).collect())
    }

    #[test]
    fn command_lists_guards_then_windows() {
        let words = admit().call().evalsha();
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(
            words.join(" "),
            format!(
                "EVALSHA {} 5 portcullis:{{acme}}:key:a portcullis:{{acme}}:key:b \
                 portcullis:{{acme}}:key:c portcullis:{{acme}}:window:calls: \
                 portcullis:{{acme}}:window:credits: 3 7 - ? 5 1000000 1 5 1000000 9007199254740991",
                ADMIT.sha1
            )
        );
    }

    #[test]
    fn a_use_is_the_last_key() {
        let used = |field: &str| Admit {
            used: Some(Use { key: Key::used("acme", "a"), field: field.into() }),
            ..admit()
        };
        let call = used("s1").call();
        assert_eq!(call.keys.last(), Some(&Key::used("acme", "a")));
        assert_eq!(call.args.last(), Some(&b"s1".to_vec()));
        assert_eq!(used("").call(), admit().call(), "a use without a name is none");
    }

    #[test]
    fn eval_carries_the_source() {
        let words = admit().call().eval();
        assert_eq!(words[..2], [b"EVAL".to_vec(), ADMIT.source.as_bytes().to_vec()]);
    }

    #[test]
    fn decodes_moved_guards() {
        let reply = Value::Array(vec![
            Value::Int(0),
            bulk("8"),
            bulk("{}"),
            bulk("-"),
            Value::Nil,
            bulk("-"),
            Value::Nil,
        ]);
        assert_eq!(
            admit().decode(reply),
            Ok(AdmitReply::Moved(vec![
                GuardState::Present { rev: "8".into(), doc: b"{}".to_vec() },
                GuardState::Unmoved,
                GuardState::Absent,
            ]))
        );
    }

    #[test]
    fn decodes_windows() {
        let half = WindowState { remaining: 4, reset: Duration::from_micros(500_000) };
        let full = WindowState { remaining: 0, reset: Duration::from_micros(9) };
        assert_eq!(
            admit().decode(ints(&[1, 4, 500_000, 0, 9])),
            Ok(AdmitReply::Admitted(vec![half, full]))
        );
        for (retry_us, retry_after) in [(-1, None), (9, Some(Duration::from_micros(9)))] {
            assert_eq!(
                admit().decode(ints(&[2, retry_us, 1, 4, 500_000, 0, 9])),
                Ok(AdmitReply::Limited { retry_after, window: 1, windows: vec![half, full] })
            );
        }
    }

    #[test]
    fn refuses_every_other_form() {
        let moved = |pairs: &[Value]| {
            Value::Array(std::iter::once(Value::Int(0)).chain(pairs.iter().cloned()).collect())
        };
        let unmoved = [bulk("7"), Value::Nil, bulk("-"), Value::Nil];
        for (reply, expected) in [
            (Value::Nil, "an array"),
            (ints(&[]), "0, 1 or 2"),
            (ints(&[3]), "0, 1 or 2"),
            (ints(&[1, 4, 500_000]), "remaining units"),
            (ints(&[1, 4, 500_000, -1, 9]), "remaining units"),
            (ints(&[1, 4, 500_000, 0, -9]), "reset_us of at least 0"),
            (ints(&[1, 4, 500_000, 0, 9, 9]), "the end of the array"),
            (ints(&[2, -2, 0, 4, 500_000, 0, 9]), "retry_after_us of at least -1"),
            (ints(&[2, 5, 2, 4, 500_000, 0, 9]), "the index of a window of the call"),
            (moved(&unmoved), "a revision or `-`"),
            (moved(&[bulk("8"), Value::Nil]), "a document with each record that moved"),
            (
                moved(&[bulk("7"), bulk("{}")]),
                "a document only for a record that is there and moved",
            ),
        ] {
            assert_eq!(admit().decode(reply), Err(ReplyError::Malformed { expected }));
        }
    }

    #[test]
    fn refuses_a_move_in_which_nothing_moved() {
        let admit = Admit { guards: admit().guards[..1].to_vec(), windows: vec![], used: None };
        let reply = Value::Array(vec![Value::Int(0), bulk("7"), Value::Nil]);
        assert_eq!(
            admit.decode(reply),
            Err(ReplyError::Malformed { expected: "a guard that moved" })
        );
    }

    #[test]
    fn passes_on_the_error_of_redis() {
        let error = Value::Error("NOSCRIPT No matching script.".into());
        assert!(error.is_noscript());
        assert_eq!(
            admit().decode(error),
            Err(ReplyError::Redis("NOSCRIPT No matching script.".into()))
        );
    }
}
