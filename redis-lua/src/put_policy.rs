//! The call that activates a policy for an organisation. Does not know the policy's content.

use crate::value::{Elements, malformed};
use crate::{Key, PUT_POLICY, ReplyError, ScriptCall, Value};

/// Activates a policy for one organisation, if nothing changed since the writer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutPolicy<'a> {
    /// The organisation.
    pub org: &'a str,
    /// The revision of the active policy, if there was one.
    pub expected: Option<&'a str>,
    /// The new revision: the policy's version, with a suffix while a canary is active.
    pub rev: &'a str,
    /// Who activated it, when and why, and the policy of a canary.
    pub doc: &'a str,
    /// The last entry of the admin chain, byte for byte as it was read, if there was one.
    pub last_entry: Option<&'a [u8]>,
    /// The entry that records this change.
    pub entry: &'a str,
}

/// The result of the activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutPolicyReply {
    /// The policy is active.
    Stale,
    /// Nothing was written: another writer changed the policy or the chain.
    Conflict,
}

impl PutPolicy<'_> {
    /// The script call.
    pub fn call(&self) -> ScriptCall {
        let args = [
            self.expected.unwrap_or("-").as_bytes(),
            self.rev.as_bytes(),
            self.doc.as_bytes(),
            self.last_entry.unwrap_or_default(),
            self.entry.as_bytes(),
        ];
        ScriptCall {
            script: &PUT_POLICY,
            keys: vec![Key::policy(self.org), Key::admin(self.org)],
            args: args.map(<[u8]>::to_vec).to_vec(),
        }
    }

    /// Reads its reply.
    pub fn decode(reply: Value) -> Result<PutPolicyReply, ReplyError> {
        let mut elements = Elements::of(reply)?;
        let tag = elements.int("0 or 1")?;
        elements.end()?;
        match tag {
            0 => Ok(PutPolicyReply::Conflict),
            1 => Ok(PutPolicyReply::Stale),
            _ => Err(malformed("0 or 1")),
        }
    }
}
