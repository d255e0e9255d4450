//! The calls that make a small change together with its entry in the admin chain: they write the deny list, remove
//! windows, and accept a restored Redis. Does not know the content of an entry.

use crate::value::{Elements, malformed};
use crate::{ACCEPT_RESTORE, FORGET, Key, PUT_DENIAL, ReplyError, ScriptCall, Value};

/// Adds or removes an entry of the deny list, if the admin chain has not grown since the writer read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutDenial<'a> {
    /// The organisation whose deny list changes.
    pub org: &'a str,
    /// The key of the deny-list entry.
    pub denial: &'a Key,
    /// The new state of the entry.
    pub state: DenialState<'a>,
    /// The end of the admin chain, and the new entry.
    pub note: Note<'a>,
}

/// The state of a deny-list entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialState<'a> {
    /// The entry exists.
    Denied {
        /// The new revision; it was never used before.
        rev: &'a str,
        /// What is denied, since when and why.
        doc: &'a str,
    },
    /// The entry is removed.
    Allowed,
}

/// Removes windows, if the admin chain has not grown since the writer read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The windows, and the marks of their alerts.
    pub keys: &'a [&'a Key],
    /// The end of the admin chain, and the new entry.
    pub note: Note<'a>,
}

/// Lets gateways serve an organisation of a restored Redis, if the admin chain has not grown since the writer read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptRestore<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The end of the admin chain, and the new entry.
    pub note: Note<'a>,
}

/// A new entry of an admin chain, and the entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// The last entry, byte for byte as it was read, if there was one.
    pub last_entry: Option<&'a [u8]>,
    /// The entry that records this change.
    pub entry: &'a str,
}

/// The result of any of these calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum NotedReply {
    /// The change and its entry are written.
    Done,
    /// Nothing was changed: another writer extended the chain.
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
