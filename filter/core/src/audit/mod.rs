//! The audit log: entries, their chain, its verification.
//!
//! Owns what is written down and how it is made tamper-evident. Where lines go is the driver's
//! business; an access-log sink takes them.

mod admin;
mod anchor;
mod chain;
mod checkpoint;
mod entry;
mod event;
mod link;
mod opened;
mod redact;
mod verify;

pub use admin::{AdminAction, AdminEntry};
pub use anchor::{Anchor, Anchors, Found};
pub use chain::Chain;
pub use checkpoint::{CheckpointConfig, Checkpoints};
pub use entry::{Decision, Entry, actors, oauth_client};
pub use event::AuditEvent;
pub use link::{GENESIS, hash_of, signed};
pub use opened::{OpenResponses, ResponseNumber};
pub use redact::{Redacted, Redaction, redact, shown, shown_text};
pub(crate) use redact::{has_token, same_name};
pub use verify::{ChainSummary, LineFault, Start, Verifier};
