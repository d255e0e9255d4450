//! A credential in memory.
//!
//! Owns until when it is used. What makes it a header is [`crate::connector_credential`]'s business.

use std::time::Duration;

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
}

impl CachedSecret {
    /// Holds `values` for `life` from `now`.
    #[must_use]
    pub fn new(values: Vec<Secret>, now: UnixTime, life: Duration) -> Self {
        Self { values, read: now, expires: now.after(life), ends: None }
    }

    /// The same, of what is worth nothing after `life` from `now`.
    #[must_use]
    pub fn ending(self, now: UnixTime, life: Duration) -> Self {
        Self { ends: Some(now.after(life)), ..self }
    }

    /// When it was read.
    #[must_use]
    pub fn read_at(&self) -> UnixTime {
        self.read
    }

    /// Whether it may still be used.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// Whether it may be used when it cannot be read again: for `stale` beyond its life.
    #[must_use]
    pub fn is_usable(&self, now: UnixTime, stale: Duration) -> bool {
        now < self.expires.after(stale) && self.ends.is_none_or(|ends| now < ends)
    }
}
