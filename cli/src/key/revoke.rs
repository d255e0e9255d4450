//! `key revoke`.

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::record::Revocation;
use serde_json::json;

use super::view::{details, view};
use super::{Change, change};
use crate::admin_log::AdminLog;
use crate::args::{RevokeArgs, Session};
use crate::report::{CliError, Report};
use crate::store::Store;
use crate::time::Seconds;

pub(crate) fn revoke(session: &Session, args: &RevokeArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let changed =
        change(&mut store, &admin_log, AdminAction::KeyRevoke, &args.key, |_, record| {
            let revocation =
                Revocation { at: now.0, by: admin_log.actor.clone(), reason: args.reason.clone() };
            // The first revocation counts.
            record.revoked.get_or_insert(revocation);
            Ok(())
        })?;
    let (stored, changed) = match changed {
        Change::Made(stored) => (stored, true),
        Change::Needless(stored) => (stored, false),
    };
    let used = store.used(&stored.record.org, &stored.record.id)?;
    let end = if changed {
        "Revoked: the next request with this key is refused, at every gateway."
    } else {
        "It was revoked before; nothing was changed."
    };
    let text = format!("{}\n\n{end}", details(&stored, &used, now));
    Ok(Report::done(text, json!({ "changed": changed, "record": view(&stored, &used, now) })))
}
