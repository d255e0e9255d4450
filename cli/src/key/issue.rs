//! `key issue`.

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::record::{KeyRecord, StoredSecret};
use portcullis_core::id::KeyId;
use portcullis_redis_lua::Expected;

use super::minted;
use super::out::{KeyFile, New};
use super::policy::Active;
use super::set::apply;
use crate::admin_log::AdminLog;
use crate::args::{IssueArgs, Session};
use crate::random::base62;
use crate::report::{CliError, Report};
use crate::store::{Store, Stored, Used, Written};
use crate::time::Seconds;

const ID_LENGTH: usize = 10;

pub(crate) fn issue(session: &Session, args: IssueArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let id = KeyId::new(&base62(ID_LENGTH)?);
    let id = id.ok_or_else(|| CliError::new("no valid id was drawn", "key issue"))?;
    let (key, sha256) = minted(&args.org, &id)?;
    let mut record = KeyRecord {
        id,
        org: args.org,
        name: args.name,
        role: args.role,
        tier: args.tier,
        connectors: None,
        tools: None,
        read_only: false,
        sources: None,
        certificate: None,
        secrets: vec![StoredSecret { sha256, issued_at: Some(now.0), not_after: None }],
        created_at: now.0,
        created_by: String::new(),
        not_before: None,
        expires_at: None,
        rotated: None,
        revoked: None,
    };
    apply(&mut record, &args.terms, now);
    if record.expires_at.is_some_and(|end| end <= record.not_before.unwrap_or(now.0).max(now.0)) {
        return Err(CliError::usage("the key would never be valid")
            .expected("--expires after now and after --not-before"));
    }

    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    record.created_by.clone_from(&admin_log.actor);
    let active = Active::of(&record.org, &mut store)?;
    active.knows_role(&record.role)?;
    active.knows_tier(&record.tier)?;
    record.connectors.as_ref().map_or(Ok(()), |names| active.knows_connectors(names))?;
    let mut file = args.out.as_deref().map(KeyFile::create).transpose()?;
    // The organisation first, then the key, so that every stored key is listed.
    store.add_organisation(&record.org)?;
    let stored =
        KeyFile::around(file.as_mut(), (&record, &key), || write(&mut store, &admin_log, &record))?;

    let new = New { stored: &stored, key: &key, file: file.as_ref() };
    Ok(new.report(&Used::new(), now, ""))
}

fn write(store: &mut Store, admin_log: &AdminLog, record: &KeyRecord) -> Result<Stored, CliError> {
    store.until_done("no key was issued", |store| {
        let last = store.last_entry(&record.org)?;
        let entry = admin_log.of_key(AdminAction::KeyIssue, None, record, last.as_deref());
        match store.put_record(record, Expected::Absent, last.as_deref(), &entry)? {
            Written::As { rev } => Ok(Some(Stored { rev, record: record.clone() })),
            Written::Conflict { rev: None } => Ok(None),
            Written::Conflict { rev: Some(_) } => {
                Err(CliError::new(format!("the id {} is taken", record.id), "key issue")
                    .next("try again; ids are drawn at random"))
            }
        }
    })
}
