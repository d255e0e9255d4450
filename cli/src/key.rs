//! `portcullis key`: issue, list, show, revoke.
//!
//! Owns what an operator may ask of a key. The key's text and digest are the core's business; a key
//! is seen here once, between its minting and the end of `issue`.

use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::auth::record::{KeyRecord, Revocation, StoredSecret};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::policy;
use portcullis_redis_lua::Expected;
use serde_json::{Value, json};

use crate::args::{IssueArgs, ListArgs, RevokeArgs, Session, ShowKeyArgs};
use crate::moment::Seconds;
use crate::report::{Refusal, Report, table};
use crate::store::{Store, Stored, Written};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 10;
/// A revocation is tried again when somebody changes the record at the same moment.
const TRIES: usize = 5;

pub(crate) fn issue(session: &Session, args: IssueArgs) -> Result<Report, Refusal> {
    let now = Seconds::now();
    let not_before = args.not_before.map(|moment| moment.seconds(now));
    let expires_at = args.expires.map(|moment| moment.seconds(now));
    if expires_at.is_some_and(|end| end <= not_before.unwrap_or(now).max(now)) {
        return Err(Refusal::usage("the key would never be valid")
            .expected("--expires after now and after --not-before"));
    }
    let created_by = session.actor_name()?;
    let mut store = Store::open(session)?;
    known_to_policy(&mut store, &args)?;

    let id = KeyId::new(&random_base62(ID_LENGTH)?);
    let id = id.ok_or_else(|| Refusal::new("no valid id was drawn", "key issue"))?;
    let key = mint(&args.org, &id, &random_base62(SECRET_LENGTH)?)
        .ok_or_else(|| Refusal::new("no valid secret was drawn", "key issue"))?;
    let sha256 = KeyDigest::of(key.expose().as_bytes()).to_hex();
    let record = KeyRecord {
        id,
        org: args.org,
        name: args.name,
        role: args.role,
        tier: args.tier,
        secrets: vec![StoredSecret { sha256, not_after: None }],
        created_at: now.0,
        created_by,
        not_before: not_before.map(|start| start.0),
        expires_at: expires_at.map(|end| end.0),
        revoked: None,
    };
    // First the organisation, then the key: a key that is there is always listed.
    store.add_organisation(&record.org)?;
    let Written::As { rev } = store.put_record(&record, Expected::Absent)? else {
        return Err(Refusal::new(format!("the id {} is taken", record.id), "key issue")
            .next("try again; ids are drawn at random"));
    };
    let stored = Stored { rev, record };
    let json = json!({ "key": key.expose(), "record": view(&stored, now) });
    let text = format!(
        "{}\n\n  {}\n\nOnly its SHA-256 is stored: it cannot be shown again. Keep it in a secrets manager.",
        details(&stored, now),
        key.expose()
    );
    Ok(Report::done(text, json))
}

pub(crate) fn list(session: &Session, args: &ListArgs) -> Result<Report, Refusal> {
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let mut keys = Vec::new();
    for org in &organisations {
        for id in store.record_ids(org)? {
            keys.extend(store.record(org, &id)?);
        }
    }
    keys.sort_by(|a, b| {
        let order = |key: &Stored| (key.record.org.clone(), key.record.created_at);
        order(a).cmp(&order(b)).then_with(|| a.record.id.cmp(&b.record.id))
    });

    let header = ["ID", "ORG", "NAME", "ROLE", "TIER", "STATUS", "EXPIRES", "ISSUED", "BY"];
    let rows = keys.iter().map(|Stored { record, .. }| {
        [
            record.id.to_string(),
            record.org.to_string(),
            record.name.clone(),
            record.role.to_string(),
            record.tier.to_string(),
            status(record, now).to_owned(),
            record.expires_at.map_or_else(|| "never".to_owned(), |end| Seconds(end).rfc3339()),
            Seconds(record.created_at).rfc3339(),
            record.created_by.clone(),
        ]
    });
    let text = if keys.is_empty() { "no keys".to_owned() } else { table(header, rows.collect()) };
    let views: Vec<Value> = keys.iter().map(|key| view(key, now)).collect();
    Ok(Report::done(text, json!({ "keys": views })))
}

pub(crate) fn show(session: &Session, args: &ShowKeyArgs) -> Result<Report, Refusal> {
    let now = Seconds::now();
    let stored = find(&mut Store::open(session)?, args)?;
    Ok(Report::done(details(&stored, now), json!({ "record": view(&stored, now) })))
}

pub(crate) fn revoke(session: &Session, args: &RevokeArgs) -> Result<Report, Refusal> {
    let now = Seconds::now();
    let by = session.actor_name()?;
    let mut store = Store::open(session)?;
    for _ in 0..TRIES {
        let Stored { rev, mut record } = find(&mut store, &args.key)?;
        if let Some(Revocation { at, by, reason }) = &record.revoked {
            let at = Seconds(*at).rfc3339();
            let text = format!("key {} was revoked before: {at} by {by}: {reason}", record.id);
            let stored = Stored { rev, record };
            let json = json!({ "changed": false, "record": view(&stored, now) });
            return Ok(Report::done(text, json));
        }
        let reason = args.reason.clone();
        record.revoked = Some(Revocation { at: now.0, by: by.clone(), reason });
        if let Written::As { rev } = store.put_record(&record, Expected::Revision(rev))? {
            let stored = Stored { rev, record };
            let text = format!(
                "{}\n\nRevoked: the next request with this key is refused, at every gateway.",
                details(&stored, now)
            );
            return Ok(Report::done(
                text,
                json!({ "changed": true, "record": view(&stored, now) }),
            ));
        }
    }
    Err(Refusal::new(
        format!("key {} keeps being changed by somebody else", args.key.id),
        "key revoke",
    )
    .expected("a moment without another change; the key is not revoked")
    .next("try again"))
}

/// Refuses an organisation, role or tier that the active policy does not know.
fn known_to_policy(store: &mut Store, args: &IssueArgs) -> Result<(), Refusal> {
    let push = "portcullis policy push FILE --reason …";
    let Some(version) = store.active(&args.org)? else {
        let mut known = Vec::new();
        for org in store.organisations()? {
            if store.active(&org)?.is_some() {
                known.push(org);
            }
        }
        let refusal = if known.is_empty() {
            Refusal::new("there is no policy yet", "the active policy")
                .expected(format!("a policy that names the organisation {}", args.org))
        } else {
            Refusal::new(
                format!("no active policy knows the organisation {}", args.org),
                "the active policies",
            )
            .expected(one_of(&known))
        };
        return Err(refusal.next(push));
    };
    let place = format!("policy {version}, active for {}", args.org);
    let document = store
        .policy(&version)?
        .ok_or_else(|| Refusal::new("the active policy document is missing", &place).next(push))?;
    let policy = policy::compile(&document).map_err(|faults| {
        Refusal::new(format!("the active policy has {} faults", faults.len()), &place).next(push)
    })?;
    let unknown = |what: &str, name: &PolicyName, known: &[PolicyName]| {
        Refusal::new(format!("the policy has no {what} {name}"), &place)
            .expected(one_of(known))
            .next(format!("--{what} with one of these, or {push}"))
    };
    if !policy.roles.contains_key(&args.role) {
        let known: Vec<_> = policy.roles.into_keys().collect();
        return Err(unknown("role", &args.role, &known));
    }
    if !policy.tiers.contains_key(&args.tier) {
        let known: Vec<_> = policy.tiers.into_keys().collect();
        return Err(unknown("tier", &args.tier, &known));
    }
    Ok(())
}

fn one_of(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    format!("one of {}", names.join(", "))
}

/// The one record with this id, in the organisation given or in any.
fn find(store: &mut Store, args: &ShowKeyArgs) -> Result<Stored, Refusal> {
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let mut found: Vec<Stored> = Vec::new();
    for org in &organisations {
        found.extend(store.record(org, &args.id)?);
    }
    let place = match &args.org {
        Some(org) => format!("the keys of {org}"),
        None => "the keys of all organisations".to_owned(),
    };
    match (found.pop(), found.is_empty()) {
        (Some(stored), true) => Ok(stored),
        (None, _) => Err(Refusal::new(format!("there is no key {}", args.id), place)
            .expected("the id of a key that was issued")
            .next("portcullis key list")),
        (Some(last), false) => {
            let owners: Vec<OrgId> =
                found.into_iter().chain([last]).map(|stored| stored.record.org).collect();
            Err(Refusal::new(format!("several keys have the id {}", args.id), place)
                .expected(format!("--org: {}", one_of(&owners))))
        }
    }
}

/// What the record comes to now.
fn status(record: &KeyRecord, now: Seconds) -> &'static str {
    if record.revoked.is_some() {
        "revoked"
    } else if record.expires_at.is_some_and(|end| now.0 >= end) {
        "expired"
    } else if record.not_before.is_some_and(|start| now.0 < start) {
        "not yet valid"
    } else {
        "active"
    }
}

/// The record for scripts: times as RFC 3339.
fn view(Stored { rev, record }: &Stored, now: Seconds) -> Value {
    let secrets = record.secrets.iter().map(
        |secret| json!({ "sha256": secret.sha256, "not_after": secret.not_after.map(rfc3339) }),
    );
    json!({
        "id": record.id,
        "org": record.org,
        "name": record.name,
        "role": record.role,
        "tier": record.tier,
        "status": status(record, now),
        "rev": rev,
        "secrets": secrets.collect::<Vec<_>>(),
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "not_before": record.not_before.map(rfc3339),
        "expires_at": record.expires_at.map(rfc3339),
        "revoked": record.revoked.as_ref().map(|revocation| json!({
            "at": rfc3339(revocation.at),
            "by": revocation.by,
            "reason": revocation.reason,
        })),
    })
}

/// The record for people.
fn details(Stored { rev, record }: &Stored, now: Seconds) -> String {
    let created = format!("{} by {}", rfc3339(record.created_at), record.created_by);
    let mut lines = vec![
        ("key", record.id.to_string()),
        ("name", record.name.clone()),
        ("org", record.org.to_string()),
        ("role", record.role.to_string()),
        ("tier", record.tier.to_string()),
        ("status", status(record, now).to_owned()),
        ("issued", created),
    ];
    lines.extend(record.not_before.map(|start| ("valid from", rfc3339(start))));
    lines.push(("expires", record.expires_at.map_or_else(|| "never".to_owned(), rfc3339)));
    lines.extend(record.revoked.as_ref().map(|Revocation { at, by, reason }| {
        ("revoked", format!("{} by {by}: {reason}", rfc3339(*at)))
    }));
    lines.push(("revision", rev.clone()));
    let lines: Vec<_> = lines.iter().map(|(label, value)| format!("{label:<11}{value}")).collect();
    lines.join("\n")
}

fn rfc3339(seconds: u64) -> String {
    Seconds(seconds).rfc3339()
}

/// Uniform base62 characters from the operating system's generator.
fn random_base62(length: usize) -> Result<String, Refusal> {
    // 248 = 4 * 62: the bytes from there on would favour the first characters.
    const FAIR: u8 = 248;
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).map_err(|error| {
            Refusal::new(format!("no random bits: {error}"), "the operating system")
        })?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let digits = fair.filter_map(|byte| BASE62.get(usize::from(byte % 62)));
        let missing = length.saturating_sub(text.len());
        text.extend(digits.take(missing).copied().map(char::from));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_text_is_base62_of_the_length_asked_and_uses_every_character() {
        let text = random_base62(20_000).unwrap();
        assert_eq!(text.len(), 20_000);
        for digit in BASE62 {
            let count = text.bytes().filter(|byte| byte == digit).count();
            // 322 expected; ten standard deviations either way.
            assert!((140..=505).contains(&count), "{}: {count}", char::from(*digit));
        }
        assert!(text.bytes().all(|byte| BASE62.contains(&byte)));
    }
}
