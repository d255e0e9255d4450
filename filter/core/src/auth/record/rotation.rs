//! Replacing a key's secret while the old one still works.
//!
//! Owns the end of each secret, and when a rotation is refused. Makes no secret and notifies no client.

use serde::{Deserialize, Serialize};

use super::{KeyRecord, StoredSecret};
use crate::auth::AuthFailure;

/// The most secrets of a record. A record keeps replaced secrets, so that a rotated-out key is distinguished from a
/// wrong one; each is compared with the presented one.
pub const MOST_SECRETS: usize = 8;

/// The operator, time and reason of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The time.
    pub at: u64,
    /// The operator.
    pub by: String,
    /// The reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The first second at which the secret before it no longer works.
    pub overlap_until: u64,
}

/// How to handle a rotation during the overlap of the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insistence {
    /// Refuse: clients may not use the current secret yet.
    Refuse,
    /// Rotate anyway. Secrets that still work keep their own end, or get this overlap's end if that is earlier.
    Force,
}

/// The reason for refusing a rotation. The record is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationRefused {
    /// The new secret would not work either.
    Dead(AuthFailure),
    /// The secret before the current one still works, until this second.
    InOverlap(u64),
    /// As many secrets still work as a record may have.
    TooMany,
}

impl KeyRecord {
    /// The current secret; a record without secrets identifies no caller.
    #[must_use]
    pub fn current(&self) -> Option<&StoredSecret> {
        self.secrets.first()
    }

    /// When the current secret was made.
    #[must_use]
    pub fn current_since(&self) -> u64 {
        self.current().and_then(|secret| secret.issued_at).unwrap_or(self.created_at)
    }

    /// Until when a replaced secret still works, if one does at the second `now`.
    #[must_use]
    pub fn overlap_until(&self, now: u64) -> Option<u64> {
        let replaced = self.secrets.iter().skip(1).filter(|secret| secret.holds(now));
        // A secret without an end was not written by Portcullis; its overlap never ends.
        replaced.map(|secret| secret.not_after.unwrap_or(u64::MAX)).max()
    }

    /// Makes `sha256` the current secret; every other one works until `rotation.overlap_until` at
    /// most, or not any more if that is not in the future.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn rotate(
        &mut self,
        sha256: String,
        rotation: Rotation,
        insistence: Insistence,
    ) -> Result<(), RotationRefused> {
        let now = rotation.at;
        match self.is_alive(now) {
            // A rotation before the first day has a reason, such as a key sent to the wrong recipient.
            Ok(()) | Err(AuthFailure::NotYetValid) => {}
            Err(why) => return Err(RotationRefused::Dead(why)),
        }
        if let (Some(end), Insistence::Refuse) = (self.overlap_until(now), insistence) {
            return Err(RotationRefused::InOverlap(end));
        }
        let holding = self.secrets.iter().filter(|secret| secret.holds(now)).count();
        // Without an overlap the clock does not matter: a gateway's clock may be behind the operator's.
        let end = match rotation.overlap_until > now {
            true if holding >= MOST_SECRETS => return Err(RotationRefused::TooMany),
            true => rotation.overlap_until,
            false => 0,
        };
        for secret in &mut self.secrets {
            secret.not_after = Some(secret.not_after.unwrap_or(u64::MAX).min(end));
        }
        self.secrets.insert(0, StoredSecret { sha256, issued_at: Some(now), not_after: None });
        while self.secrets.len() > MOST_SECRETS {
            // Newest first: the last one that no longer works is the oldest.
            match self.secrets.iter().rposition(|secret| !secret.holds(now)) {
                Some(oldest) => drop(self.secrets.remove(oldest)),
                None => break,
            }
        }
        self.rotated = Some(rotation);
        Ok(())
    }
}
