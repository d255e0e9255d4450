//! The calls about approvals: a tool call waits, a person decides, and the call is made once. Does not know the tool
//! call: its document is bytes.

use std::time::Duration;

use crate::value::{Elements, malformed};
use crate::{ASK_APPROVAL, DECIDE_APPROVAL, Key, ReplyError, ScriptCall, USE_APPROVAL, Value};

/// The revision of an approval that a person granted: what an admission's guard expects.
pub const GRANTED: &str = "granted";

/// How many calls of one organisation may wait, or be decided and not made yet, at the same time.
const MOST_WAITING: u64 = 1_000;

/// How many of them may be one caller's.
const MOST_OF_CALLER: u64 = 50;

/// The state of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalReply {
    /// It waits; this call asked for it.
    Asked,
    /// It waits; an earlier call asked for it.
    Pending,
    /// A person granted it.
    Granted,
    /// A person denied it.
    Denied,
    /// Too many approvals wait; this one was not recorded.
    Full,
    /// Too many approvals of this caller wait; this one was not recorded.
    CallerFull,
}

/// One approval of an organisation, named by the digest of the call to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalKey {
    key: Key,
    index: Key,
    own: Key,
    digest: String,
}

impl ApprovalKey {
    /// The approval `digest` that `holder` of `org` needs.
    pub fn new(org: &str, holder: &str, digest: &str) -> Self {
        Self {
            key: Key::approval(org, digest),
            index: Key::approvals(org),
            own: Key::approvals_of(org, holder),
            digest: digest.to_owned(),
        }
    }

    /// The approval's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The digest of the call to approve.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Records that `doc` waits for a person, for as long as `life`.
    pub fn ask(&self, doc: &str, life: Duration) -> ScriptCall {
        let numbers = [milliseconds(life), MOST_WAITING, MOST_OF_CALLER];
        let numbers = numbers.map(|number| number.to_string());
        let args =
            [self.digest.as_str(), doc].into_iter().chain(numbers.iter().map(String::as_str));
        ScriptCall {
            script: &ASK_APPROVAL,
            keys: vec![self.key.clone(), self.index.clone(), self.own.clone()],
            args: args.map(|arg| arg.as_bytes().to_vec()).collect(),
        }
    }

    /// Reads the reply to [`ApprovalKey::ask`].
    pub fn asked(reply: Value) -> Result<ApprovalReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let (tag, state) = (elements.int("0 or 1")?, elements.text("a state")?);
        elements.end()?;
        match (tag, state.as_str()) {
            (1, "pending") => Ok(ApprovalReply::Asked),
            (0, "pending") => Ok(ApprovalReply::Pending),
            (0, GRANTED) => Ok(ApprovalReply::Granted),
            (0, "denied") => Ok(ApprovalReply::Denied),
            (0, "full") => Ok(ApprovalReply::Full),
            (0, "caller_full") => Ok(ApprovalReply::CallerFull),
            _ => Err(malformed("pending, granted, denied, full or caller_full")),
        }
    }

    /// Takes the approval, if it is granted.
    pub fn take(&self) -> ScriptCall {
        ScriptCall {
            script: &USE_APPROVAL,
            keys: vec![self.key.clone(), self.index.clone(), self.own.clone()],
            args: vec![self.digest.clone().into_bytes()],
        }
    }

    /// Reads the reply to [`ApprovalKey::take`]: the document of the waiting call, if the approval was granted and no
    /// other call took it.
    pub fn taken(reply: Value) -> Result<Option<Vec<u8>>, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let document = match elements.int("0 or 1")? {
            0 => None,
            1 => Some(elements.bytes_or_nil("a document")?.unwrap_or_default()),
            _ => return Err(malformed("0 or 1")),
        };
        elements.end()?;
        Ok(document)
    }
}

/// A person's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The call may be made, once.
    Grant,
    /// The call may not be made.
    Deny,
}

/// A person's decision on a waiting call, and its entry in the admin chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The approval.
    pub digest: &'a str,
    /// The waiting call, as the writer read it.
    pub document: &'a [u8],
    /// The field `own` beside it, if it has one.
    pub own: Option<&'a str>,
    /// The decision.
    pub decision: Decision,
    /// How long the decision holds.
    pub life: Duration,
    /// The last entry of the organisation's admin chain, as the writer read it.
    pub last_entry: Option<&'a [u8]>,
    /// The entry that follows it.
    pub entry: &'a str,
}

/// The result of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecideReply {
    /// The decision holds.
    Decided,
    /// The call does not wait any more: it expired, was decided, or another request waits under its name.
    NotPending {
        /// The approval's state, if it exists; `pending` if another request waits.
        state: Option<String>,
    },
    /// Another writer extended the admin chain at the same moment; nothing was written.
    Conflict,
}

impl Decide<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let verdict = match self.decision {
            Decision::Grant => GRANTED,
            Decision::Deny => "denied",
        };
        let life = milliseconds(self.life).to_string();
        ScriptCall {
            script: &DECIDE_APPROVAL,
            keys: [
                Key::approval(self.org, self.digest),
                Key::approvals(self.org),
                Key::admin(self.org),
            ]
            .into_iter()
            .chain(self.index_of_caller())
            .collect(),
            args: [
                self.digest.as_bytes(),
                verdict.as_bytes(),
                life.as_bytes(),
                self.last_entry.unwrap_or_default(),
                self.entry.as_bytes(),
                self.document,
            ]
            .map(<[u8]>::to_vec)
            .to_vec(),
        }
    }

    /// The index of the caller's approvals. A name of anything else is not one of this organisation's callers.
    fn index_of_caller(&self) -> Option<Key> {
        let holder =
            self.own?.strip_prefix(Key::approvals(self.org).as_str())?.strip_prefix(':')?;
        Some(Key::approvals_of(self.org, holder))
    }

    /// Reads its reply.
    pub fn decode(reply: Value) -> Result<DecideReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let (tag, state) = (elements.int("0, 1 or 2")?, elements.text("a state or `-`")?);
        elements.end()?;
        match tag {
            0 => Ok(DecideReply::NotPending { state: (state != "-").then_some(state) }),
            1 => Ok(DecideReply::Decided),
            2 => Ok(DecideReply::Conflict),
            _ => Err(malformed("0, 1 or 2")),
        }
    }
}

fn milliseconds(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
