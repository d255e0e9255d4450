//! The data that Portcullis keeps in Redis, and the only code that changes it: Lua scripts as files of their own, the
//! names of all keys, typed builders for script calls and decoders for their replies.
//!
//! It owns the layout of the data. It does not know connections, wire formats, clocks or JSON: a call leaves as a list
//! of byte strings, a reply comes in as a [`Value`], documents are bytes.
//!
//! ```
//! use portcullis_redis_lua::{Admit, AdmitReply, Expected, Guard, Key, Scope, Value, Window};
//! # fn main() -> Result<(), portcullis_redis_lua::ReplyError> {
//! let admit = Admit {
//!     guards: vec![Guard { key: Key::record("acme", "a1"), expected: Expected::Revision("7".into()) }],
//!     windows: vec![Window {
//!         key: Key::window(Scope::Org("acme"), "calls", &[("key", "a1")]),
//!         limit: 5,
//!         length_us: 1_000_000,
//!         grain_us: 1,
//!         cost: 1,
//!         alert: None,
//!     }],
//!     used: None,
//!     intent: None,
//! };
//! let call = admit.call();
//! let command = call.evalsha(); // send this; on a NOSCRIPT error, send `eval()` once
//! assert_eq!(command.first().map(AsRef::as_ref), Some(&b"EVALSHA"[..]));
//!
//! let reply = Value::Array([1, 4, 1_000_000, 0].map(Value::Int).into());
//! assert!(matches!(admit.decode(reply)?, AdmitReply::Admitted(windows) if windows.len() == 1));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
#![warn(missing_docs)]

mod admit;
mod approval;
mod bind;
mod checkpoint;
mod complete;
mod keep;
mod keys;
mod look;
mod noted;
mod observe;
mod operator;
mod put_policy;
mod record;
mod script;
mod value;

pub use admit::{
    Admit, AdmitReply, Alert, Expected, Generation, Guard, GuardState, Intent, Stamp, Use, Window,
    WindowState,
};
pub use approval::{ApprovalKey, ApprovalReply, Decide, DecideReply, Decision, GRANTED};
pub use bind::{Bind, BindReply};
pub use checkpoint::{ChainEnd, Checkpoint, CheckpointReply};
pub use complete::Complete;
pub use keep::Keep;
pub use keys::{Key, Scope};
pub use look::{Look, WindowStanding};
pub use noted::{AcceptRestore, DenialState, Forget, Note, NotedReply, PutDenial};
pub use observe::Observe;
pub use operator::{Realm, Task, rules, tasks_of};
pub use put_policy::{PutPolicy, PutPolicyReply};
pub use record::{PutRecord, PutRecordReply};
pub use script::{
    ACCEPT_RESTORE, ADMIT, ASK_APPROVAL, BIND, CHECKPOINT, COMPLETE, DECIDE_APPROVAL, FORGET, KEEP,
    LOOK, OBSERVE, PUT_DENIAL, PUT_POLICY, PUT_RECORD, SCRIPTS, Script, ScriptCall, USE_APPROVAL,
};
pub use value::{ReplyError, Value};
