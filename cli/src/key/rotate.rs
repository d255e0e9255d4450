//! `key rotate`: a new secret, and how long the old one stays valid.
//!
//! Owns the wording of a rotation of one key. `renewal` does the rotation; `bulk` rotates many keys.

use super::bulk;
use super::out::{KeyFile, New};
use super::renewal::{Terms, renew};
use super::view::rfc3339;
use crate::admin_log::AdminLog;
use crate::args::{OneKey, RotateArgs, Session};
use crate::report::{CliError, Report};
use crate::store::Store;
use crate::time::Seconds;

pub(crate) fn rotate(session: &Session, args: RotateArgs) -> Result<Report, CliError> {
    let Some(id) = args.id.clone() else {
        return bulk::rotate(session, &args);
    };
    // Clap drops a requirement that conflicts with another given option.
    if args.dry_run || args.role.is_some() {
        return Err(CliError::usage(
            "--dry-run and --role are about several keys, and one was named",
        )
        .expected("--older-than DURATION instead of an ID"));
    }
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, args.reason.as_deref())?;
    let mut file = args.out.as_deref().map(KeyFile::create).transpose()?;
    let wanted = OneKey { id, org: args.org.clone() };
    let (stored, key) = renew(&mut store, &admin_log, &wanted, Terms::of(&args), file.as_mut())?;
    let now = Seconds::now();
    let used = store.used(&stored.record.org, &stored.record.id)?;
    let end = stored.record.rotated.as_ref().map_or(now.0, |rotation| rotation.overlap_until);
    let until = match end > now.0 {
        true => format!("\nThe old one works until {}.", rfc3339(end)),
        false => "\nThe old one no longer works.".to_owned(),
    };
    let new = New { stored: &stored, key: &key, file: file.as_ref() };
    Ok(new.report(&used, now, &until))
}
