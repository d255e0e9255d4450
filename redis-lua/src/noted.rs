//! The calls that change something small and note who did it: entries of the deny list, and windows that are forgotten.
//! Refuses to know what an entry says.

use crate::value::{Elements, malformed};
use crate::{ACCEPT_RESTORE, FORGET, Key, PUT_DENIAL, ReplyError, ScriptCall, Value};

/// Denies something, or takes an entry of the deny list back, if the admin chain has not grown since the writer looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutDenial<'a> {
    /// The organisation.
    pub org: &'a str,
    /// Where the entry is kept.
    pub denial: &'a Key,
    /// What the entry becomes.
    pub state: DenialState<'a>,
    /// The end of the admin chain, and what follows it.
    pub note: Note<'a>,
}

/// What becomes of an entry of the deny list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialState<'a> {
    /// It stands.
    Denied {
        /// The new revision, another one than ever before.
        rev: &'a str,
        /// What is denied, since when and why.
        doc: &'a str,
    },
    /// It is taken back.
    Allowed,
}

/// Removes windows, if the admin chain has not grown since the writer looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The windows, and the marks of their alerts.
    pub keys: &'a [&'a Key],
    /// The end of the admin chain, and what follows it.
    pub note: Note<'a>,
}

/// Has gateways serve an organisation of a restored Redis, if the admin chain has not grown since the writer looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptRestore<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The end of the admin chain, and what follows it.
    pub note: Note<'a>,
}

/// An entry of an admin chain, and the one that it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// The last entry, byte for byte as it was read, if there was one.
    pub last_entry: Option<&'a [u8]>,
    /// The entry that tells of this.
    pub entry: &'a str,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum NotedReply {
    /// It is done, and noted.
    Done,
    /// Nothing was changed: somebody else wrote an entry since.
    Conflict,
}

impl PutDenial<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let (rev, doc) = match self.state {
            DenialState::Denied { rev, doc } => (rev, doc),
            DenialState::Allowed => ("-", ""),
        };
        let [last, entry] = self.note.words();
        ScriptCall {
            script: &PUT_DENIAL,
            keys: vec![
                self.denial.clone(),
                Key::denied_index(self.org),
                Key::admin(self.org),
                Key::policy(self.org),
            ],
            args: vec![rev.into(), doc.into(), last, entry],
        }
    }
}

impl Forget<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let keys = self.keys.iter().map(|key| (*key).clone());
        ScriptCall {
            script: &FORGET,
            keys: std::iter::once(Key::admin(self.org)).chain(keys).collect(),
            args: self.note.words().to_vec(),
        }
    }
}

impl AcceptRestore<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        ScriptCall {
            script: &ACCEPT_RESTORE,
            keys: vec![Key::policy(self.org), Key::admin(self.org)],
            args: self.note.words().to_vec(),
        }
    }
}

impl Note<'_> {
    fn words(&self) -> [Vec<u8>; 2] {
        [self.last_entry.unwrap_or_default().to_vec(), self.entry.as_bytes().to_vec()]
    }
}

impl NotedReply {
    /// Reads the reply to any of these calls.
    ///
    /// # Errors
    /// One that Redis answered, or a reply of another form.
    pub fn decode(reply: Value) -> Result<Self, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let tag = elements.int("0 or 1")?;
        elements.end()?;
        match tag {
            0 => Ok(Self::Conflict),
            1 => Ok(Self::Done),
            _ => Err(malformed("0 or 1")),
        }
    }
}
