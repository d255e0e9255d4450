//! The call that changes a key record, and records in the admin chain who did it. Does not know the content of the
//! document and the entry.

use crate::value::{Elements, malformed};
use crate::{Expected, Key, PUT_RECORD, ReplyError, ScriptCall, Value};

/// Writes `doc` and `entry` if the record and the chain are unchanged since the writer read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRecord<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The record's id.
    pub id: &'a str,
    /// The revision that the writer read, or that there was no record. ([`Expected::Unknown`] matches nothing, so the
    /// reply is always a conflict.)
    pub expected: Expected,
    /// The new document.
    pub doc: &'a str,
    /// The last entry of the organisation's admin chain, as the writer read it.
    pub last_entry: Option<&'a [u8]>,
    /// The entry that follows it and records this change; never empty.
    pub entry: &'a str,
}

/// The result of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutRecordReply {
    /// The record was written with this revision.
    Written {
        /// The new revision.
        rev: String,
    },
    /// Nothing was written: the record has another revision now, or the chain has another end.
    Conflict {
        /// The record's revision, if it exists.
        rev: Option<String>,
    },
}

impl PutRecord<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        ScriptCall {
            script: &PUT_RECORD,
            keys: vec![
                Key::record(self.org, self.id),
                Key::record_index(self.org),
                Key::admin(self.org),
                Key::policy(self.org),
            ],
            args: [
                self.expected.as_argument().as_bytes(),
                self.doc.as_bytes(),
                self.id.as_bytes(),
                self.last_entry.unwrap_or_default(),
                self.entry.as_bytes(),
            ]
            .map(<[u8]>::to_vec)
            .to_vec(),
        }
    }

    /// Reads its reply.
    pub fn decode(&self, reply: Value) -> Result<PutRecordReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let tag = elements.int("0 or 1")?;
        let rev = elements.text("a revision or `-`")?;
        elements.end()?;
        match tag {
            0 => Ok(PutRecordReply::Conflict { rev: (rev != "-").then_some(rev) }),
            1 => Ok(PutRecordReply::Written { rev }),
            _ => Err(malformed("0 or 1")),
        }
    }
}
