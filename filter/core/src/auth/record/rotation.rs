//! Replacing a key's secret while the old one still works.
//!
//! Owns what happens to each secret, and when a rotation is refused. Makes no secret; tells nobody.

use serde::{Deserialize, Serialize};

use super::{KeyRecord, StoredSecret};
use crate::auth::AuthFailure;

/// A record keeps at most so many secrets: replaced ones are kept to tell a rotated-out key from a
/// wrong one, and each is compared with what is presented.
pub const MOST_SECRETS: usize = 8;

/// Who replaced a key's secret, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// When.
    pub at: u64,
    /// Who.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The first second at which the secret before it no longer works.
    pub overlap_until: u64,
}

/// What to do about a rotation that is still in its overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insistence {
    /// Wait: clients may not have taken over the secret before.
    Refuse,
    /// Rotate all the same. Secrets that still work go on to their own end, or to this overlap's if
    /// that is sooner.
    Force,
}

/// Why a key was not rotated. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationRefused {
    /// The new secret would not work either.
    Dead(AuthFailure),
    /// The secret before the current one still works, until this second.
    InOverlap(u64),
    /// As many secrets work as a record keeps.
    TooMany,
}

impl KeyRecord {
    /// The secret that clients are to use; a record without any vouches for nobody.
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
        // One without an end would be somebody's handiwork; it is in overlap for ever.
        replaced.map(|secret| secret.not_after.unwrap_or(u64::MAX)).max()
    }

    /// Makes `sha256` the current secret; every other one works until `rotation.overlap_until` at
    /// most, or not any more if that is not in the future.
    ///
    /// # Errors
    /// Why not.
    pub fn rotate(
        &mut self,
        sha256: String,
        rotation: Rotation,
        insistence: Insistence,
    ) -> Result<(), RotationRefused> {
        let now = rotation.at;
        match self.is_alive(now) {
            // Who rotates before the first day has a reason, such as a key sent by the wrong mail.
            Ok(()) | Err(AuthFailure::NotYetValid) => {}
            Err(why) => return Err(RotationRefused::Dead(why)),
        }
        if let (Some(end), Insistence::Refuse) = (self.overlap_until(now), insistence) {
            return Err(RotationRefused::InOverlap(end));
        }
        if self.secrets.iter().filter(|secret| secret.holds(now)).count() >= MOST_SECRETS {
            return Err(RotationRefused::TooMany);
        }
        // Without an overlap no clock is asked: a gateway's may be behind that of whoever rotates.
        let end = if rotation.overlap_until > now { rotation.overlap_until } else { 0 };
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
