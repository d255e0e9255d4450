//! The call that changes a key record. Refuses to know what the document says.

use crate::value::{Elements, malformed};
use crate::{Expected, Key, PUT_RECORD, ReplyError, ScriptCall, Value};

/// Writes `doc` if the record is still what the writer read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRecord<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The record's id.
    pub id: &'a str,
    /// What the writer read: a revision, or that there was no such record.
    /// ([`Expected::Unknown`] matches nothing and is always answered with a conflict.)
    pub expected: Expected,
    /// The new document.
    pub doc: &'a str,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutRecordReply {
    /// Written, as this revision.
    Written {
        /// The new revision.
        rev: String,
    },
    /// Nothing was written: the record is another revision now.
    Conflict {
        /// The revision it has, if there is such a record.
        rev: Option<String>,
    },
}

impl PutRecord<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        ScriptCall {
            script: &PUT_RECORD,
            keys: vec![Key::record(self.org, self.id), Key::record_index(self.org)],
            args: [self.expected.as_argument(), self.doc, self.id]
                .map(|argument| argument.as_bytes().to_vec())
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
