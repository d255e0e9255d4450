//! A record as people and scripts see it, and its warnings.
//!
//! Owns the words for states, and when the use of a replaced secret is worth a warning. Does not verify keys.

use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::record::{KeyRecord, NameList, Revocation, Rotation, StoredSecret};
use serde_json::{Value, json};

use crate::admin_log;
use crate::escape;
use crate::store::{Stored, Used};
use crate::time::Seconds;

/// Shown beside a new key.
pub(super) const ONCE: &str =
    "Only its SHA-256 is stored: it cannot be shown again. Keep it in a secrets manager.";

/// The gateway records uses once a minute.
const NOTED_WITHIN: u64 = 60;
/// A secret that ended longer ago than this causes no warning.
const REMEMBERED: u64 = 7 * 86_400;

/// The record's state now.
pub(super) fn status(record: &KeyRecord, now: Seconds) -> &'static str {
    match record.is_alive(now.0) {
        Ok(()) => "active",
        Err(AuthFailure::Revoked) => "revoked",
        Err(AuthFailure::Expired) => "expired",
        Err(_) => "not yet valid",
    }
}

/// When the key was last used, with any of its secrets.
pub(super) fn last_used(used: &Used) -> Option<u64> {
    used.values().max().copied()
}

/// The record for scripts: times as RFC 3339.
pub(super) fn view(Stored { rev, record }: &Stored, used: &Used, now: Seconds) -> Value {
    let secrets: Vec<Value> = secrets(record, now)
        .map(|(secret, state)| {
            json!({
                "sha256": secret.sha256,
                "state": state,
                "issued_at": rfc3339(secret.issued_at.unwrap_or(record.created_at)),
                "not_after": end(secret).map(rfc3339),
                "last_used": used.get(secret.label()).copied().map(rfc3339),
            })
        })
        .collect();
    let mut view = json!({
        "id": record.id,
        "org": record.org,
        "status": status(record, now),
        "rev": rev,
        "secrets": secrets,
        "last_used": last_used(used).map(rfc3339),
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "not_before": record.not_before.map(rfc3339),
        "expires_at": record.expires_at.map(rfc3339),
        "rotated": record.rotated.as_ref().map(|Rotation { at, by, reason, overlap_until }| json!({
            "at": rfc3339(*at),
            "by": by,
            "reason": reason,
            "overlap_until": rfc3339(*overlap_until),
        })),
        "revoked": record.revoked.as_ref().map(|Revocation { at, by, reason }| json!({
            "at": rfc3339(*at),
            "by": by,
            "reason": reason,
        })),
        "warnings": warnings(record, used, now),
    });
    view.as_object_mut().into_iter().for_each(|members| members.extend(admin_log::terms(record)));
    view
}

/// The record for people.
pub(super) fn details(Stored { rev, record }: &Stored, used: &Used, now: Seconds) -> String {
    let names = |names: &NameList| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        ("key", record.id.to_string()),
        ("name", record.name.clone()),
        ("org", record.org.to_string()),
        ("role", record.role.to_string()),
        ("tier", record.tier.to_string()),
    ];
    lines.extend(record.connectors.as_ref().map(|list| ("connectors", names(list))));
    lines.extend(record.tools.as_ref().map(|list| ("tools", names(list))));
    lines.extend(record.read_only.then(|| ("read-only", "yes".to_owned())));
    lines.extend(record.sources.as_ref().map(|ranges| ("sources", ranges.to_string())));
    lines.extend(record.certificate.as_ref().map(|print| ("cert", print.to_string())));
    lines.push(("status", status(record, now).to_owned()));
    lines.push(("issued", by(record.created_at, &record.created_by, "")));
    lines.extend(record.not_before.map(|start| ("valid from", rfc3339(start))));
    lines.push(("expires", record.expires_at.map_or_else(|| "never".to_owned(), rfc3339)));
    lines.extend(
        record
            .rotated
            .as_ref()
            .map(|rotation| ("rotated", by(rotation.at, &rotation.by, &rotation.reason))),
    );
    lines.extend(
        record
            .revoked
            .as_ref()
            .map(|Revocation { at, by: who, reason }| ("revoked", by(*at, who, reason))),
    );
    lines.push(("revision", rev.clone()));
    lines.extend(secrets(record, now).map(|(secret, state)| {
        let until = if record.revoked.is_some() { None } else { end(secret) };
        ("secret", format!("{}  {state}{}", secret.label(), life(secret, until, used)))
    }));
    lines.extend(warnings(record, used, now).into_iter().map(|warning| ("warning", warning)));
    let lines: Vec<_> =
        lines.iter().map(|(label, value)| format!("{label:<11}{}", escape::line(value))).collect();
    lines.join("\n")
}

/// The secrets and the state of each: `current`, `replaced` (it still works), `ended`, or `revoked` with the key.
fn secrets(
    record: &KeyRecord,
    now: Seconds,
) -> impl Iterator<Item = (&StoredSecret, &'static str)> {
    record.secrets.iter().enumerate().map(move |(place, secret)| {
        let state = match (place, secret.holds(now.0)) {
            _ if record.revoked.is_some() => "revoked",
            (_, false) => "ended",
            (0, true) => "current",
            (_, true) => "replaced",
        };
        (secret, state)
    })
}

/// The end of an overlap, if there was one.
fn end(secret: &StoredSecret) -> Option<u64> {
    secret.not_after.filter(|end| *end > 0)
}

fn life(secret: &StoredSecret, end: Option<u64>, used: &Used) -> String {
    let end = end.map(|end| format!(", until {}", rfc3339(end))).unwrap_or_default();
    let last = used.get(secret.label()).copied();
    format!("{end}, last used {}", last.map_or_else(|| "never".to_owned(), rfc3339))
}

/// Warns of replaced secrets that a client still uses near their end, or used until they ended: that client will be, or
/// was, locked out. A use before the replacement is no such use: until then there was no other secret.
pub(super) fn warnings(record: &KeyRecord, used: &Used, now: Seconds) -> Vec<String> {
    if record.is_alive(now.0).is_err() {
        return Vec::new();
    }
    let warning = |(secret, next): (&StoredSecret, &StoredSecret)| {
        let (end, last) = (end(secret)?, *used.get(secret.label())?);
        let replaced = next.issued_at.unwrap_or(record.created_at);
        if last < replaced {
            return None;
        }
        let overlap = end.saturating_sub(replaced);
        // The last quarter of the overlap, and never less than the delay with which uses are recorded.
        let near = (overlap / 4).max(NOTED_WITHIN);
        let label = secret.label();
        if now.0 < end {
            let due = now.0.saturating_add(near) >= end && last.saturating_add(near) >= now.0;
            due.then(|| {
                format!(
                    "the replaced secret {label} is still in use (last {}) and ends {}: find the \
                     client that has not taken over the new key",
                    rfc3339(last),
                    rfc3339(end)
                )
            })
        } else {
            let due = last.saturating_add(near) >= end && end.saturating_add(REMEMBERED) > now.0;
            due.then(|| {
                format!(
                    "the replaced secret {label} was in use until it ended {} (last {}): a client \
                     may be locked out",
                    rfc3339(end),
                    rfc3339(last)
                )
            })
        }
    };
    // Newest first: each secret was replaced by the one before it.
    record.secrets.iter().skip(1).zip(&record.secrets).filter_map(warning).collect()
}

fn by(at: u64, who: &str, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{} by {who}{why}", rfc3339(at))
}

pub(super) fn rfc3339(seconds: u64) -> String {
    Seconds(seconds).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotated at 1000, with an overlap until this second.
    fn record_until(end: u64) -> KeyRecord {
        let json = json!({
            "id": "k1a2", "org": "acme", "name": "n", "role": "r", "tier": "t",
            "secrets": [
                {"sha256": "aaaaaaaaaaaaaaaa", "issued_at": 1_000},
                {"sha256": "bbbbbbbbbbbbbbbb", "issued_at": 1, "not_after": end},
            ],
            "created_at": 1, "created_by": "ops",
        });
        KeyRecord::parse(json.to_string().as_bytes()).unwrap()
    }

    // Proves: X3
    #[test]
    fn a_replaced_secret_in_use_is_worth_a_warning_near_the_end_and_after_it() {
        let old = |last: u64| Used::from([("bbbbbbbbbbbb".to_owned(), last)]);
        let new = Used::from([("aaaaaaaaaaaa".to_owned(), 4_999)]);
        for (used, now, warned) in [
            (old(1_500), 2_000, None),
            (old(3_999), 3_999, None),
            (old(3_999), 4_000, Some("still in use")),
            (old(3_000), 4_999, None),
            (old(4_500), 4_999, Some("still in use")),
            (old(4_500), 5_000, Some("locked out")),
            (old(3_900), 5_000, None),
            (old(4_999), 5_000 + REMEMBERED, None),
            (new.clone(), 4_999, None),
            (new, 5_001, None),
        ] {
            let warnings = warnings(&record_until(5_000), &used, Seconds(now));
            match warned {
                None => assert_eq!(warnings, Vec::<String>::new(), "{now} {used:?}"),
                Some(words) => {
                    assert_eq!(warnings.len(), 1, "{now} {used:?}");
                    assert!(warnings[0].contains(words) && warnings[0].contains("bbbbbbbbbbbb"));
                }
            }
        }
    }

    /// Issue 14, finding of a fresh reader: with an overlap of a minute, a use before the rotation counted as one of
    /// the old secret.
    // Proves: X3
    #[test]
    fn a_use_before_the_rotation_is_no_use_of_a_replaced_secret() {
        let old = |last: u64| Used::from([("bbbbbbbbbbbb".to_owned(), last)]);
        for end in [1_030, 1_060, 1_090] {
            for (last, warned) in [(950, 0), (999, 0), (1_000, 1), (end - 1, 1)] {
                for now in [end - 1, end, end + 60] {
                    let warnings = warnings(&record_until(end), &old(last), Seconds(now));
                    // Of a longer overlap, a use well before its end causes no warning once it has ended.
                    let early = last + NOTED_WITHIN < end;
                    let due = if early { 0 } else { warned };
                    assert_eq!(warnings.len(), due, "{end} {last} {now}: {warnings:?}");
                }
            }
        }
    }

    #[test]
    fn each_secret_was_replaced_by_the_next_one() {
        let json = json!({
            "id": "k1a2", "org": "acme", "name": "n", "role": "r", "tier": "t",
            "secrets": [
                {"sha256": "aaaaaaaaaaaaaaaa", "issued_at": 2_000},
                {"sha256": "bbbbbbbbbbbbbbbb", "issued_at": 1_000, "not_after": 2_030},
                {"sha256": "cccccccccccccccc", "issued_at": 1, "not_after": 2_030},
            ],
            "created_at": 1, "created_by": "ops",
        });
        let record = KeyRecord::parse(json.to_string().as_bytes()).unwrap();
        let used = ["bbbbbbbbbbbb", "cccccccccccc"].map(|label| (label.to_owned(), 1_990));
        let warnings = warnings(&record, &Used::from(used), Seconds(2_010));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("cccccccccccc"), "{warnings:?}");
    }
}
