//! A credential in memory.
//!
//! Owns until when it is used. What makes it a header is [`crate::connector_credential`]'s business.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::secret::Secret;
use crate::time::UnixTime;

/// A credential in memory, and until when it is used.
#[derive(Debug)]
pub struct CachedSecret {
    /// The values, in the order of the reference's fields.
    pub values: Vec<Secret>,
    read: UnixTime,
    expires: UnixTime,
    /// When it is worth nothing any more, if that is known.
    ends: Option<UnixTime>,
    /// What its server said of it.
    accepted: Accepted,
}

/// What the server that a credential is for says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// Nothing against it.
    Yes,
    /// It answered 401: another one is asked for.
    No,
}

impl CachedSecret {
    /// Holds `values` for `life` from `now`.
    #[must_use]
    pub fn new(values: Vec<Secret>, now: UnixTime, life: Duration) -> Self {
        let (expires, ends, accepted) = (now.after(life), None, Accepted::Yes);
        Self { values, read: now, expires, ends, accepted }
    }

    /// The same, of what is worth nothing after `life` from `now`.
    #[must_use]
    pub fn ending(self, now: UnixTime, life: Duration) -> Self {
        Self { ends: Some(now.after(life)), ..self }
    }

    /// What tells its values from others.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        // A value is one line.
        let values: Vec<_> = self.values.iter().map(Secret::expose).collect();
        Sha256::digest(Secret::new(values.join("\n")).expose()).into()
    }

    /// When it was read.
    #[must_use]
    pub fn read_at(&self) -> UnixTime {
        self.read
    }

    /// Whether it may still be used.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.accepted == Accepted::Yes && now < self.expires
    }

    /// Its server refused it: nobody gets it any more, unless another one cannot be had.
    pub fn refuse(&mut self) {
        self.accepted = Accepted::No;
    }

    /// Nobody can say that there is another one: it is used on.
    pub fn accept(&mut self) {
        self.accepted = Accepted::Yes;
    }

    /// Whether it may be used when it cannot be read again: for `stale` beyond its life.
    #[must_use]
    pub fn is_usable(&self, now: UnixTime, stale: Duration) -> bool {
        now < self.expires.after(stale) && self.ends.is_none_or(|ends| now < ends)
    }
}
