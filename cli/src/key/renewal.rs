//! A new secret for a key: written to its file first, then to the record. A lost answer is resolved by reading the
//! record.
//!
//! Owns the error messages of a refused rotation. The core decides what happens to the secrets.

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::record::{
    Insistence, KeyRecord, MOST_SECRETS, Rotation, RotationRefused,
};
use portcullis_core::secret::Secret;

use super::out::KeyFile;
use super::view::rfc3339;
use super::{Change, change, find, minted};
use crate::admin_log::AdminLog;
use crate::args::{OneKey, RotateArgs};
use crate::report::{ActionOutcome, CliError};
use crate::store::{Store, Stored};
use crate::time::Seconds;

/// How to rotate.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) overlap: u64,
    pub(super) insistence: Insistence,
}

impl Terms {
    pub(super) fn of(args: &RotateArgs) -> Self {
        let insistence = if args.force { Insistence::Force } else { Insistence::Refuse };
        Self { overlap: args.overlap.0, insistence }
    }
}

/// Gives the key a new secret, which is in `file` before it becomes valid.
pub(super) fn renew(
    store: &mut Store,
    admin_log: &AdminLog,
    args: &OneKey,
    terms: Terms,
    file: Option<&mut KeyFile>,
) -> Result<(Stored, Secret), CliError> {
    let Stored { record, .. } = find(store, args)?;
    let (key, sha256) = minted(&record.org, &record.id)?;
    let changed = KeyFile::around(file, (&record, &key), || {
        let changed = change(store, admin_log, AdminAction::KeyRotate, args, |_, record| {
            let now = Seconds::now().0;
            let rotation = Rotation {
                at: now,
                by: admin_log.actor.clone(),
                reason: admin_log.reason.clone(),
                overlap_until: now.saturating_add(terms.overlap),
            };
            let rotated = record.rotate(sha256.clone(), rotation, terms.insistence);
            rotated.map_err(|refused| why_not(record, refused))
        });
        match changed {
            Err(refusal) if refusal.outcome() == ActionOutcome::Unknown => {
                found_out(store, args, &sha256, refusal)
            }
            changed => changed,
        }
    })?;
    match changed {
        Change::Made(stored) | Change::Needless(stored) => Ok((stored, key)),
    }
}

/// The answer to a change was lost: reads the record on a new connection to see whether the change was made.
fn found_out(
    store: &mut Store,
    args: &OneKey,
    sha256: &str,
    refusal: CliError,
) -> Result<Change, CliError> {
    let found = store.reopen().and_then(|()| find(store, args));
    match found {
        Ok(stored) if stored.record.secrets.iter().any(|secret| secret.sha256 == sha256) => {
            Ok(Change::Made(stored))
        }
        Ok(_) => Err(refusal.certain()),
        Err(_) => Err(refusal),
    }
}

fn why_not(record: &KeyRecord, refused: RotationRefused) -> CliError {
    let id = &record.id;
    let place = "key rotate";
    match refused {
        RotationRefused::Dead(AuthFailure::Expired) => {
            CliError::new(format!("key {id} has expired"), place)
                .expected("a key that can be used")
                .next(format!("portcullis key set {id} --expires 90d, then rotate it"))
        }
        RotationRefused::Dead(_) => CliError::new(format!("key {id} is revoked"), place)
            .expected("a key that can be used; a revocation is for good")
            .next("portcullis key issue"),
        RotationRefused::InOverlap(end) => CliError::new(
            format!(
                "key {id} was rotated before, and the secret before works until {}",
                rfc3339(end)
            ),
            place,
        )
        .expected("the end of that overlap: a client may not have taken over the last new key yet")
        .next(format!("portcullis key show {id}, then wait, or --force")),
        RotationRefused::TooMany => CliError::new(
            format!("{MOST_SECRETS} secrets of key {id} work at the same time"),
            place,
        )
        .expected("fewer secrets, so that one can be added")
        .next("--overlap 0s ends all of them but the new one, once one has ended"),
    }
}
