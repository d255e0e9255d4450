//! `key set`: changes what a key may do, from which addresses and until when.

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::record::KeyRecord;
use serde_json::json;

use super::policy::Active;
use super::view::{details, view};
use super::{Change, change};
use crate::admin_log::AdminLog;
use crate::args::{Session, SetArgs, Switch, Terms};
use crate::report::{CliError, Report};
use crate::store::Store;
use crate::time::Seconds;

pub(crate) fn set(session: &Session, args: &SetArgs) -> Result<Report, CliError> {
    if !asks_for_anything(args) {
        return Err(CliError::usage("nothing to change was named")
            .expected("at least one of the options that portcullis key set --help lists"));
    }
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let changed =
        change(&mut store, &admin_log, AdminAction::KeySet, &args.key, |store, record| {
            if record.revoked.is_some() {
                return Err(CliError::new(format!("key {} is revoked", record.id), "key set")
                    .expected("a key that can be used; a revocation is for good")
                    .next("portcullis key issue"));
            }
            edit(record, args, now);
            known(record, args, store)?;
            let never =
                record.expires_at.zip(record.not_before).is_some_and(|(end, start)| end <= start);
            if never {
                return Err(CliError::usage("the key would never be valid")
                    .expected("an expiry after the first valid moment"));
            }
            Ok(())
        })?;
    let (stored, changed, end) = match changed {
        Change::Made(stored) if stored.record.expires_at.is_some_and(|end| end <= now.0) => {
            (stored, true, "Changed: the key has expired, and its next request is refused.")
        }
        Change::Made(stored) => (stored, true, "Changed: it holds from the next request on."),
        Change::Needless(stored) => {
            (stored, false, "Nothing was changed: it is like that already.")
        }
    };
    let used = store.used(&stored.record.org, &stored.record.id)?;
    let text = format!("{}\n\n{end}", details(&stored, &used, now));
    Ok(Report::done(text, json!({ "changed": changed, "record": view(&stored, &used, now) })))
}

fn asks_for_anything(args: &SetArgs) -> bool {
    let Terms { connectors, tools, read_only, sources, certificate, expires, not_before } =
        &args.terms;
    args.name.is_some()
        || args.role.is_some()
        || args.tier.is_some()
        || connectors.is_some()
        || tools.is_some()
        || read_only.is_some()
        || sources.is_some()
        || certificate.is_some()
        || expires.is_some()
        || not_before.is_some()
}

fn edit(record: &mut KeyRecord, args: &SetArgs, now: Seconds) {
    let SetArgs { name, role, tier, .. } = args;
    record.name = name.clone().unwrap_or_else(|| record.name.clone());
    record.role = role.clone().unwrap_or_else(|| record.role.clone());
    record.tier = tier.clone().unwrap_or_else(|| record.tier.clone());
    apply(record, &args.terms, now);
}

/// Applies the given options, and leaves the rest as it is.
pub(super) fn apply(record: &mut KeyRecord, terms: &Terms, now: Seconds) {
    let Terms { connectors, tools, read_only, sources, certificate, expires, not_before } = terms;
    if let Some(bound) = connectors {
        record.connectors = bound.clone().into_option();
    }
    if let Some(bound) = tools {
        record.tools = bound.clone().into_option();
    }
    if let Some(switch) = read_only {
        record.read_only = *switch == Switch::On;
    }
    if let Some(bound) = sources {
        record.sources = bound.clone().into_option();
    }
    if let Some(bound) = certificate {
        record.certificate = bound.clone().into_option();
    }
    if let Some(bound) = expires {
        record.expires_at = bound.clone().into_option().map(|time| time.seconds(now).0);
    }
    if let Some(bound) = not_before {
        record.not_before = bound.clone().into_option().map(|time| time.seconds(now).0);
    }
}

/// Refuses names that the active policy does not have. Checks only the given options: a key whose role is gone can
/// still be narrowed.
fn known(record: &KeyRecord, args: &SetArgs, store: &mut Store) -> Result<(), CliError> {
    let connectors = record.connectors.as_ref().filter(|_| args.terms.connectors.is_some());
    if args.role.is_none() && args.tier.is_none() && connectors.is_none() {
        return Ok(());
    }
    let active = Active::of(&record.org, store)?;
    args.role.as_ref().map_or(Ok(()), |role| active.knows_role(role))?;
    args.tier.as_ref().map_or(Ok(()), |tier| active.knows_tier(tier))?;
    connectors.map_or(Ok(()), |names| active.knows_connectors(names))
}
