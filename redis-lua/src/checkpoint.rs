//! The call that records how far an audit chain has come. Does not know what an entry is.

use crate::value::{Elements, malformed};
use crate::{CHECKPOINT, Key, ReplyError, ScriptCall, Value};

/// One entry of an audit chain: its sequence number, from 1, and its hash. Number 0 stands for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainEnd {
    /// The sequence number.
    pub seq: u64,
    /// The hash, in hex; empty for none.
    pub hash: String,
}

/// Records how far a chain has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The chain's name.
    pub chain: String,
    /// The last checkpoint that the writer knows.
    pub last: ChainEnd,
    /// The new checkpoint.
    pub end: ChainEnd,
    /// The build of the module that writes the chain.
    pub build: &'static str,
}

/// The result of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointReply {
    /// It is recorded.
    Noted,
    /// It is recorded; Redis had lost the previous checkpoint.
    Recovered,
    /// Nothing was written: this is the recorded checkpoint, which the writer's chain does not follow.
    Refused(ChainEnd),
}

impl Checkpoint {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let args = [
            self.chain.clone(),
            self.last.seq.to_string(),
            self.last.hash.clone(),
            self.end.seq.to_string(),
            self.end.hash.clone(),
            self.build.to_owned(),
        ];
        ScriptCall {
            script: &CHECKPOINT,
            keys: vec![Key::checkpoint(&self.chain), Key::checkpoints()],
            args: args.map(String::into_bytes).into(),
        }
    }

    /// Reads its reply.
    ///
    /// # Errors
    /// The reply has another form than the script promises.
    pub fn decode(reply: Value) -> Result<CheckpointReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let decoded = match elements.int("0, 1 or 2")? {
            1 => CheckpointReply::Noted,
            2 => CheckpointReply::Recovered,
            0 => CheckpointReply::Refused(ChainEnd {
                seq: elements.natural("a sequence number")?,
                hash: elements.text("a hash")?,
            }),
            _ => return Err(malformed("0, 1 or 2")),
        };
        elements.end()?;
        Ok(decoded)
    }
}
