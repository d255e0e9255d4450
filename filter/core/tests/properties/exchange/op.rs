//! Operations on exchanges: the possible events, true or false.
//!
//! Owns the types of a test case. Other modules generate cases: `exchange` at random, the fuzz target `exchange_ops`
//! from bytes.

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
    /// The exchange ends; a new one begins: its request arrives completely, and this many calls get the true answer.
    Request(HeadOp, BodyOp, usize),
    /// The exchange ends; the new one has no events yet.
    Fresh,
    /// A record or the policy changes.
    Move {
        holder: usize,
        record: Option<String>,
        policy: Option<&'static str>,
    },
    Head(HeadOp),
    Body(BodyOp),
    BodyTooLarge,
    /// This many calls, the oldest first, get the true answer.
    Honest(usize),
    /// A call gets this answer, true or false.
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

/// The call of an answer.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// A pending one, the oldest for 0.
    Out(usize),
    /// One with an answer, the oldest for 0.
    Again(usize),
    /// One that was never started.
    Unknown,
}

/// The false answers, by kind of call.
#[derive(Clone, Debug)]
pub(super) struct FaultyReply {
    pub(super) admission: Admission,
    pub(super) document: &'static str,
    pub(super) vault: Vec<u8>,
    /// The answer is for another kind of call.
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
    /// The holder of the key; invalid when there is no such holder.
    pub(super) holder: usize,
    /// An additional header.
    pub(super) further: Option<(&'static str, &'static str)>,
    /// The message that the modern headers mirror.
    pub(super) mirrors: Option<Ask>,
    pub(super) last: bool,
}

#[derive(Clone, Debug)]
pub(super) struct BodyOp {
    pub(super) ask: Ask,
    pub(super) modern: bool,
    /// Whether white space makes it large.
    pub(super) large: bool,
}

/// The operation of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Call(&'static str),
    List,
    Ping,
    /// Anything else; never passes.
    Other(Bytes),
}

/// Bytes that are readable in the report of a failed case.
#[derive(Clone, PartialEq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}
