//! A script as a value, and one invocation of it as the words of a Redis command.

use std::borrow::Cow;

use crate::Key;

/// Checks that a record still has the revision that the filter decided on, then draws from every window or from none.
pub static ADMIT: Script = Script {
    name: "admit",
    source: include_str!("../scripts/admit.lua"),
    sha1: include_str!("../scripts/admit.lua.sha1").trim_ascii(),
};

/// Writes a key record and its entry in the admin chain, if both are unchanged since the writer read them.
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

/// Extends or ends the bindings of a holder.
pub static KEEP: Script = Script {
    name: "keep",
    source: include_str!("../scripts/keep.lua"),
    sha1: include_str!("../scripts/keep.lua.sha1").trim_ascii(),
};

/// Activates a policy for one organisation, if no other writer changed it.
pub static PUT_POLICY: Script = Script {
    name: "put_policy",
    source: include_str!("../scripts/put_policy.lua"),
    sha1: include_str!("../scripts/put_policy.lua.sha1").trim_ascii(),
};

/// Records that a call waits for a person.
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

/// Records a person's decision on a waiting call.
pub static DECIDE_APPROVAL: Script = Script {
    name: "decide_approval",
    source: include_str!("../scripts/decide_approval.lua"),
    sha1: include_str!("../scripts/decide_approval.lua.sha1").trim_ascii(),
};

/// Adds or removes an entry of the deny list, with an entry in the admin chain.
pub static PUT_DENIAL: Script = Script {
    name: "put_denial",
    source: include_str!("../scripts/put_denial.lua"),
    sha1: include_str!("../scripts/put_denial.lua.sha1").trim_ascii(),
};

/// Removes windows, with an entry in the admin chain.
pub static FORGET: Script = Script {
    name: "forget",
    source: include_str!("../scripts/forget.lua"),
    sha1: include_str!("../scripts/forget.lua.sha1").trim_ascii(),
};

/// Lets gateways serve an organisation of a restored Redis.
pub static ACCEPT_RESTORE: Script = Script {
    name: "accept_restore",
    source: include_str!("../scripts/accept_restore.lua"),
    sha1: include_str!("../scripts/accept_restore.lua.sha1").trim_ascii(),
};

/// Reads the state of windows, and writes nothing.
pub static LOOK: Script = Script {
    name: "look",
    source: include_str!("../scripts/look.lua"),
    sha1: include_str!("../scripts/look.lua.sha1").trim_ascii(),
};

/// Records the state of tools in a server's `tools/list`.
pub static OBSERVE: Script = Script {
    name: "observe",
    source: include_str!("../scripts/observe.lua"),
    sha1: include_str!("../scripts/observe.lua.sha1").trim_ascii(),
};

/// Records how far an audit chain has come.
pub static CHECKPOINT: Script = Script {
    name: "checkpoint",
    source: include_str!("../scripts/checkpoint.lua"),
    sha1: include_str!("../scripts/checkpoint.lua.sha1").trim_ascii(),
};

/// Records that a call whose intent was appended has its audit entry.
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

/// A Lua script and the digest under which Redis caches it.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// File name without the extension.
    pub name: &'static str,
    /// The Lua text, byte for byte what [`Script::sha1`] is the digest of.
    pub source: &'static str,
    /// Lower-hex SHA-1 of the source: a checked-in golden, so that nothing computes it at run time.
    pub sha1: &'static str,
}

/// One invocation of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ScriptCall {
    /// The script.
    pub script: &'static Script,
    /// The keys that it uses; all of one organisation, hence of one Redis Cluster slot.
    pub keys: Vec<Key>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

impl ScriptCall {
    /// The command that runs the script by its digest. It is short: send it first.
    pub fn evalsha(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVALSHA", self.script.sha1)
    }

    /// The command that carries the source, which makes Redis remember the script. Send it once,
    /// when [`ScriptCall::evalsha`] was answered with a `NOSCRIPT` error.
    pub fn eval(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVAL", self.script.source)
    }

    /// As [`ScriptCall::evalsha`], for a script that writes nothing and a user without write rights.
    pub fn evalsha_ro(&self) -> Vec<Cow<'_, [u8]>> {
        self.command("EVALSHA_RO", self.script.sha1)
    }

    /// As [`ScriptCall::eval`], to go with [`ScriptCall::evalsha_ro`].
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
