//! A script as a value, and one invocation of it as the words of a Redis command.

use std::borrow::Cow;

use crate::Key;

/// Checks that a record is still the revision decided on, then draws from every window or none.
pub static ADMIT: Script = Script {
    name: "admit",
    source: include_str!("../scripts/admit.lua"),
    sha1: include_str!("../scripts/admit.lua.sha1").trim_ascii(),
};

/// Writes a key record and its entry in the admin chain if both are still what the writer read.
pub static PUT_RECORD: Script = Script {
    name: "put_record",
    source: include_str!("../scripts/put_record.lua"),
    sha1: include_str!("../scripts/put_record.lua.sha1").trim_ascii(),
};

/// Binds a session or a task to its holder.
pub static BIND: Script = Script {
    name: "bind",
    source: include_str!("../scripts/bind.lua"),
    sha1: include_str!("../scripts/bind.lua.sha1").trim_ascii(),
};

/// Keeps what is bound to a holder for longer, or ends it.
pub static KEEP: Script = Script {
    name: "keep",
    source: include_str!("../scripts/keep.lua"),
    sha1: include_str!("../scripts/keep.lua.sha1").trim_ascii(),
};

/// Moves one organisation to a policy if nobody else did something meanwhile.
pub static PUT_POLICY: Script = Script {
    name: "put_policy",
    source: include_str!("../scripts/put_policy.lua"),
    sha1: include_str!("../scripts/put_policy.lua.sha1").trim_ascii(),
};

/// Notes that a call waits for a person.
pub static ASK_APPROVAL: Script = Script {
    name: "ask_approval",
    source: include_str!("../scripts/ask_approval.lua"),
    sha1: include_str!("../scripts/ask_approval.lua.sha1").trim_ascii(),
};

/// Takes a granted approval, once.
pub static USE_APPROVAL: Script = Script {
    name: "use_approval",
    source: include_str!("../scripts/use_approval.lua"),
    sha1: include_str!("../scripts/use_approval.lua.sha1").trim_ascii(),
};

/// A person's word on a call that waits.
pub static DECIDE_APPROVAL: Script = Script {
    name: "decide_approval",
    source: include_str!("../scripts/decide_approval.lua"),
    sha1: include_str!("../scripts/decide_approval.lua.sha1").trim_ascii(),
};

/// Denies something, or takes an entry of the deny list back, and its entry in the admin chain.
pub static PUT_DENIAL: Script = Script {
    name: "put_denial",
    source: include_str!("../scripts/put_denial.lua"),
    sha1: include_str!("../scripts/put_denial.lua.sha1").trim_ascii(),
};

/// Removes windows, and writes the entry in the admin chain that tells of it.
pub static FORGET: Script = Script {
    name: "forget",
    source: include_str!("../scripts/forget.lua"),
    sha1: include_str!("../scripts/forget.lua.sha1").trim_ascii(),
};

/// Has gateways serve an organisation of a restored Redis.
pub static ACCEPT_RESTORE: Script = Script {
    name: "accept_restore",
    source: include_str!("../scripts/accept_restore.lua"),
    sha1: include_str!("../scripts/accept_restore.lua.sha1").trim_ascii(),
};

/// Says how windows stand, and writes nothing.
pub static LOOK: Script = Script {
    name: "look",
    source: include_str!("../scripts/look.lua"),
    sha1: include_str!("../scripts/look.lua.sha1").trim_ascii(),
};

/// Notes what a list of a server showed of tools.
pub static OBSERVE: Script = Script {
    name: "observe",
    source: include_str!("../scripts/observe.lua"),
    sha1: include_str!("../scripts/observe.lua.sha1").trim_ascii(),
};

/// Notes how far an audit chain has come.
pub static CHECKPOINT: Script = Script {
    name: "checkpoint",
    source: include_str!("../scripts/checkpoint.lua"),
    sha1: include_str!("../scripts/checkpoint.lua.sha1").trim_ascii(),
};

/// Notes that a call whose intent was appended has its audit entry.
pub static COMPLETE: Script = Script {
    name: "complete",
    source: include_str!("../scripts/complete.lua"),
    sha1: include_str!("../scripts/complete.lua.sha1").trim_ascii(),
};

/// Every script of this crate.
pub static SCRIPTS: [&Script; 15] = [
    &ADMIT,
    &BIND,
    &KEEP,
    &PUT_RECORD,
    &PUT_POLICY,
    &PUT_DENIAL,
    &FORGET,
    &ASK_APPROVAL,
    &USE_APPROVAL,
    &DECIDE_APPROVAL,
    &ACCEPT_RESTORE,
    &LOOK,
    &OBSERVE,
    &CHECKPOINT,
    &COMPLETE,
];

/// A Lua script and the digest by which Redis knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// File name without the extension.
    pub name: &'static str,
    /// The Lua text, byte for byte what [`Script::sha1`] is the digest of.
    pub source: &'static str,
    /// Lower-hex SHA-1 of the source: a checked-in golden, so nothing has to hash at run time.
    pub sha1: &'static str,
}

/// One invocation of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ScriptCall {
    /// What to run.
    pub script: &'static Script,
    /// The keys it touches; all of one organisation, hence of one Redis Cluster slot.
    pub keys: Vec<Key>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

impl ScriptCall {
    /// The command that runs the script by its digest: short, and what to send first.
    pub fn evalsha(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVALSHA", self.script.sha1)
    }

    /// The command that carries the source, which makes Redis remember the script. Send it once,
    /// when [`ScriptCall::evalsha`] was answered with a `NOSCRIPT` error.
    pub fn eval(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVAL", self.script.source)
    }

    /// As [`ScriptCall::evalsha`], for a script that writes nothing and a user who may not write either.
    pub fn evalsha_ro(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVALSHA_RO", self.script.sha1)
    }

    /// As [`ScriptCall::eval`], beside [`ScriptCall::evalsha_ro`].
    pub fn eval_ro(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVAL_RO", self.script.source)
    }

    fn command(&self, verb: &'static str, script: &'static str) -> Vec<Cow<'_, [u8]>> {
        let count = self.keys.len().to_string();
        let head = [verb.as_bytes().into(), script.as_bytes().into(), count.into_bytes().into()];
        let keys = self.keys.iter().map(|key| key.as_str().as_bytes().into());
        let args = self.args.iter().map(|arg| arg.as_slice().into());
        head.into_iter().chain(keys).chain(args).collect()
    }
}
