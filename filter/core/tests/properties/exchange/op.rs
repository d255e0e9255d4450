//! Operations on exchanges: what may happen to one, true or not.
//!
//! Owns the words in which a case is told. How cases come about is for others to say: `exchange` draws them at random,
//! the fuzz target `exchange_ops` reads them from bytes.

use std::fmt;

use portcullis_core::driver::call::CallFailure;
use portcullis_core::driver::event::{End, Origin};
use portcullis_redis_lua::Value;

/// One operation on one of the exchanges, after some time.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) slot: usize,
    pub(super) millis: u64,
    pub(super) op: Op,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// The exchange ends; another begins in its place: its request arrives whole, and so many
    /// calls are answered with the truth.
    Request(HeadOp, BodyOp, usize),
    /// The exchange ends; nothing has happened yet to the one in its place.
    Fresh,
    /// Somebody changes a record or the policy.
    Move {
        holder: usize,
        record: Option<String>,
        policy: Option<&'static str>,
    },
    Head(HeadOp),
    Body(BodyOp),
    BodyTooLarge,
    /// So many calls, the oldest first, are answered with the truth.
    Honest(usize),
    /// A call is answered with this, true or not.
    Answer(Which, FaultyReply),
    Fail(Which, CallFailure),
    ResponseHead {
        status: u16,
        media: &'static str,
        coding: &'static str,
        origin: Origin,
        last: bool,
    },
    Chunk {
        bytes: Vec<u8>,
        last: bool,
    },
    Close(End),
}

/// Which call an answer is for.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// One that is out, the oldest for 0.
    Out(usize),
    /// One that was answered before, the oldest for 0.
    Again(usize),
    /// One that was never started.
    Unknown,
}

/// What a call may be answered with, by what it asked for.
#[derive(Clone, Debug)]
pub(super) struct FaultyReply {
    pub(super) admission: Admission,
    pub(super) document: &'static str,
    pub(super) vault: Vec<u8>,
    /// The answer is one to another kind of call.
    pub(super) crossed: bool,
}

/// An answer to an admission call.
#[derive(Clone, Debug)]
pub(super) enum Admission {
    Admitted { windows: Option<usize> },
    Stale { record: Option<String>, policy: Option<&'static str> },
    Limited { micros: i64, window: i64, windows: Option<usize> },
    Value(Value),
}

#[derive(Clone, Debug)]
pub(super) struct HeadOp {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Whose key; nobody's when there is no such holder.
    pub(super) holder: usize,
    /// A header besides the usual ones.
    pub(super) further: Option<(&'static str, &'static str)>,
    /// The modern headers mirror this.
    pub(super) mirrors: Option<Ask>,
    pub(super) last: bool,
}

#[derive(Clone, Debug)]
pub(super) struct BodyOp {
    pub(super) ask: Ask,
    pub(super) modern: bool,
    /// Whether white space makes it a large one.
    pub(super) large: bool,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Call(&'static str),
    List,
    Ping,
    /// Anything else; never passes.
    Other(Bytes),
}

/// Bytes that are readable when a case fails.
#[derive(Clone, PartialEq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}
