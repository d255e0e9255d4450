//! Secrets in Vault, and the texts that contain their values.
//!
//! Owns references, templates, the reply of a KV read, how long its value is used, and leases. Fetches nothing, and knows no
//! caller. Values live in [`Secret`](crate::secret::Secret)s only.

mod cached;
mod echo;
mod lease;
mod read_again;
mod reference;
mod template;
mod value;

pub use cached::CachedSecret;
pub(crate) use cached::DueStep;
pub use echo::{Echo, EchoMask, Masked};
pub use lease::{Lease, LeaseId, LeaseOutcome, Revocation, Revocations};
pub(crate) use read_again::BETWEEN_READS;
pub use read_again::{ReadsAgain, Refusal};
pub use reference::{KvVersion, Mount, SecretRef};
pub use template::Template;
pub(crate) use value::fit;
pub use value::{MAX_SECRET_BYTES, SecretData, SecretFault};

/// Whether segments stay unchanged in a URL: no `.`, no `..`, nothing that a URL parser would interpret.
pub(crate) fn is_plain(text: &str) -> bool {
    text.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    })
}
