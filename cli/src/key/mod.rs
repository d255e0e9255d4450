//! `portcullis key`: issue, list, show, set, rotate, revoke.
//!
//! Owns what an operator may do with a key, and how a record changes: read it, edit it, write it together with its
//! entry in the admin chain, and repeat all of it when another writer was faster. The core owns the key's text and
//! digest; a key appears here once, from its minting to the end of the command.

mod bulk;
mod issue;
mod out;
mod policy;
mod renewal;
mod revoke;
mod rotate;
mod set;
mod show;
mod view;

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{KeyId, OrgId};
use portcullis_core::secret::Secret;
use portcullis_redis_lua::Expected;

pub(crate) use issue::issue;
pub(crate) use policy::{Active, lacks};
pub(crate) use revoke::revoke;
pub(crate) use rotate::rotate;
pub(crate) use set::set;
pub(crate) use show::{list, show};

use crate::admin_log::AdminLog;
use crate::args::OneKey;
use crate::random::base62;
use crate::report::CliError;
use crate::store::{Store, Stored, Written};

/// The result of a change to a record.
enum Change {
    Made(Stored),
    /// The record already has the wanted state; nothing was written.
    Needless(Stored),
}

/// Changes the record that `args` name by `edit`, and records the change as `action` in the admin chain.
fn change(
    store: &mut Store,
    admin_log: &AdminLog,
    action: AdminAction,
    args: &OneKey,
    mut edit: impl FnMut(&mut Store, &mut KeyRecord) -> Result<(), CliError>,
) -> Result<Change, CliError> {
    store.until_done(&format!("key {} is not changed", args.id), |store| {
        let before = find(store, args)?;
        let mut record = before.record.clone();
        edit(store, &mut record)?;
        if record == before.record {
            return Ok(Some(Change::Needless(before)));
        }
        let last = store.last_entry(&record.org)?;
        let entry = admin_log.of_key(action, Some(&before.record), &record, last.as_deref());
        let expected = Expected::Revision(before.rev);
        Ok(match store.put_record(&record, expected, last.as_deref(), &entry)? {
            Written::As { rev } => Some(Change::Made(Stored { rev, record })),
            Written::Conflict { .. } => None,
        })
    })
}

/// The one record with this id, in the organisation given or in any.
pub(crate) fn find(store: &mut Store, args: &OneKey) -> Result<Stored, CliError> {
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let mut found: Vec<Stored> = Vec::new();
    for org in &organisations {
        found.extend(store.record(org, &args.id)?);
    }
    let place = match (&args.org, store.organisation()) {
        (Some(org), _) | (None, Some(org)) => format!("the keys of {org}"),
        (None, None) => "the keys of all organisations".to_owned(),
    };
    match (found.pop(), found.is_empty()) {
        (Some(stored), true) => Ok(stored),
        (None, _) => Err(CliError::new(format!("there is no key {}", args.id), place)
            .expected("the id of a key that was issued")
            .next("portcullis key list")),
        (Some(last), false) => {
            let owners: Vec<OrgId> =
                found.into_iter().chain([last]).map(|stored| stored.record.org).collect();
            Err(CliError::new(format!("several keys have the id {}", args.id), place)
                .expected(format!("--org: {}", policy::one_of(&owners))))
        }
    }
}

/// A new text for the key `id`, and its digest.
fn minted(org: &OrgId, id: &KeyId) -> Result<(Secret, String), CliError> {
    let key = mint(org, id, &base62(SECRET_LENGTH)?)
        .ok_or_else(|| CliError::new("no valid secret was drawn", "a new key"))?;
    let sha256 = KeyDigest::of(key.expose().as_bytes()).to_hex();
    Ok((key, sha256))
}
