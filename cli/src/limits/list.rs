//! Callers near a limit: the windows of all callers of an organisation.
//!
//! Owns the search by limit. It needs no names of callers: Redis has the names of windows in use, and a name contains
//! its caller.

use std::collections::BTreeMap;

use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::policy::{Activation, Dimension, Limit};
use portcullis_redis_lua::{Key, Scope, Window};
use serde_json::{Map, Value, json};

use super::{NO_SCAN, percent};
use crate::args::{ListLimitsArgs, Session};
use crate::key::Active;
use crate::report::{CliError, Report, progress, table};
use crate::store::Store;
use crate::time::in_short;

/// How many windows are requested at once.
const PAGE: usize = 200;

/// A window, and its usage.
struct Row {
    org: OrgId,
    limit: String,
    of: Vec<(String, String)>,
    unit: &'static str,
    used: u64,
    max: u64,
    next_back_ms: u64,
}

/// The holder of a key.
#[derive(Default)]
struct Holder {
    name: String,
    /// The tier from a readable record.
    tier: Option<PolicyName>,
}

impl Holder {
    /// Whether the holder draws from windows of `limit`: a caller whose tier changed draws from the new tier's windows,
    /// and not from the old ones.
    fn draws_from(&self, limit: &str) -> bool {
        let of_tier = limit.strip_prefix("tiers.").and_then(|rest| rest.split('.').next());
        match (of_tier, &self.tier) {
            (Some(of_tier), Some(tier)) => of_tier == tier.as_str(),
            (_, _) => true,
        }
    }
}

pub(crate) fn list(session: &Session, args: &ListLimitsArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let Some(org) = &args.org else {
        return Ok(shown_of(&near(&mut store, &organisations, args.over)?, args.over));
    };
    // A named organisation must have a policy.
    Active::of(org, &mut store)?;
    Ok(shown_of(&near(&mut store, &organisations, args.over)?, args.over))
}

/// Windows with a usage of `over` percent and more, for scripts; the highest usage first.
pub(crate) fn used_over(
    store: &mut Store,
    organisations: &[OrgId],
    over: u8,
) -> Result<Vec<Value>, CliError> {
    Ok(near(store, organisations, over)?.iter().map(|(row, name)| row.view(name.clone())).collect())
}

fn shown_of(rows: &[(Row, Option<String>)], over: u8) -> Report {
    let text = match rows.is_empty() {
        true => format!("no window is used to {over} % or more"),
        false => shown(rows),
    };
    let views: Vec<Value> = rows.iter().map(|(row, name)| row.view(name.clone())).collect();
    Report::done(text, json!({ "over": over, "windows": views }))
}

/// Windows with a usage of `over` percent and more, each with the name of its key.
fn near(
    store: &mut Store,
    organisations: &[OrgId],
    over: u8,
) -> Result<Vec<(Row, Option<String>)>, CliError> {
    let (mut rows, mut holders) = (Vec::new(), BTreeMap::new());
    for org in organisations {
        // An organisation with keys may have no policy yet.
        let Some(target) = store.active_policy(org)?.target else { continue };
        let mut keys = Vec::new();
        for listed in store.records(org)? {
            let holder = match listed.stored {
                Ok(stored) => Holder { name: stored.record.name, tier: Some(stored.record.tier) },
                Err(_) => Holder::default(),
            };
            keys.push(listed.id.to_string());
            holders.insert((org.clone(), listed.id.to_string()), holder);
        }
        rows.extend(used_of(store, org, &target.activation(), &keys)?);
    }
    let holder = |row: &Row| holders.get(&(row.org.clone(), row.caller()?.to_owned()));
    rows.retain(|row| row.used > 0 && row.percent() >= u64::from(over));
    rows.retain(|row| holder(row).is_none_or(|holder| holder.draws_from(&row.limit)));
    rows.sort_by(|a, b| b.percent().cmp(&a.percent()).then_with(|| a.limit.cmp(&b.limit)));
    let named = rows.into_iter().map(|row| {
        let name = holder(&row).map(|holder| holder.name.clone());
        (row, name)
    });
    Ok(named.collect())
}

/// The windows in use of the active version, and of its canary for the canary's callers.
fn used_of(
    store: &mut Store,
    org: &OrgId,
    activation: &Activation,
    keys: &[String],
) -> Result<Vec<Row>, CliError> {
    let mut rows: Vec<Row> = Vec::new();
    let canary = activation.canary.as_ref().map(|canary| &canary.version);
    for version in [&activation.version].into_iter().chain(canary) {
        let active = Active::of_version(version.clone(), org, store)?;
        let policy = active.policy();
        for limit in policy.every_limit().chain(policy.sessions.opened.as_ref()) {
            for row in used(store, org, limit, keys)? {
                // A window of several callers is the same in both, unless one allows more.
                let is_theirs = match row.caller() {
                    Some(caller) => activation.version_for(caller) == version,
                    None => !rows.iter().any(|known| known.is_window_of(&row)),
                };
                if is_theirs {
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

/// The windows of one limit that are in use.
fn used(
    store: &mut Store,
    org: &OrgId,
    limit: &Limit,
    keys: &[String],
) -> Result<Vec<Row>, CliError> {
    if limit.per.contains(&Dimension::Global) {
        // Several organisations share it: `limits show` of a caller has it.
        return Ok(Vec::new());
    }
    let scope = Scope::Org(org.as_str());
    let micros =
        |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut found: Vec<(Vec<(String, String)>, Window)> = Vec::new();
    let names = match store.names_with(&Key::window(scope, &limit.name, &[]))? {
        Some(names) => names,
        None => names_of_keys(scope, limit, keys),
    };
    for name in names {
        let Some(of) = Key::partition(&name) else { continue };
        let partition: Vec<(&str, &str)> =
            of.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let key = Key::window(scope, &limit.name, &partition);
        // A window from an earlier definition of the limit.
        if key.as_str() != name || of.len() != limit.per.len() {
            continue;
        }
        let tenth = limit.window.checked_div(10).unwrap_or_default();
        let lasts = limit
            .lease
            .map_or(std::time::Duration::ZERO, |_| tenth.min(std::time::Duration::from_secs(1)));
        let window = Window {
            key,
            limit: limit.limit,
            length_us: micros(limit.window.saturating_add(lasts)),
            grain_us: micros(limit.precision),
            cost: 0,
            alert: None,
        };
        found.push((of, window));
    }
    let mut rows = Vec::new();
    for page in found.chunks(PAGE) {
        let windows: Vec<Window> = page.iter().map(|(_, window)| window.clone()).collect();
        let states = store.look_at(&windows)?;
        rows.extend(page.iter().zip(states).map(|((of, window), state)| Row {
            org: org.clone(),
            limit: limit.name.clone(),
            of: of.clone(),
            unit: limit.cost.units_of(&limit.name),
            used: state.used,
            max: window.limit,
            next_back_ms: u64::try_from(state.reset.as_millis()).unwrap_or(u64::MAX),
        }));
    }
    Ok(rows)
}

/// The windows whose names are known without a search: of the organisation, and of each key.
fn names_of_keys(scope: Scope<'_>, limit: &Limit, keys: &[String]) -> Vec<String> {
    let known = |dimension: &Dimension| matches!(dimension, Dimension::Org | Dimension::Key);
    if !limit.per.iter().all(known) {
        progress(&format!("windows of {} are not shown: {NO_SCAN}", limit.name));
        return Vec::new();
    }
    let org = match scope {
        Scope::Org(org) => org,
        Scope::Global => return Vec::new(),
    };
    let name = |id: &String| {
        let value = |dimension: &Dimension| match dimension {
            Dimension::Key => ("key", id.as_str()),
            _ => ("org", org),
        };
        let of: Vec<(&str, &str)> = limit.per.iter().map(value).collect();
        Key::window(scope, &limit.name, &of).to_string()
    };
    let mut names: Vec<String> = keys.iter().map(name).collect();
    names.dedup();
    names
}

impl Row {
    fn percent(&self) -> u64 {
        percent(self.used, self.max)
    }

    fn is_window_of(&self, other: &Self) -> bool {
        (&self.limit, &self.of, self.max) == (&other.limit, &other.of, other.max)
    }

    /// The caller in the window's name: the id of a key, or a digest of another credential.
    fn caller(&self) -> Option<&str> {
        self.of.iter().find(|(name, _)| name == "key").map(|(_, value)| value.as_str())
    }

    fn view(&self, name: Option<String>) -> Value {
        let of: Map<String, Value> =
            self.of.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let key = self.caller().filter(|caller| KeyId::new(caller).is_some());
        json!({
            "org": self.org, "limit": self.limit, "of": of, "key": key, "name": name,
            "unit": self.unit, "used": self.used, "max": self.max, "percent": self.percent(), "next_back_ms": self.next_back_ms,
        })
    }
}

fn shown(rows: &[(Row, Option<String>)]) -> String {
    let header = ["ORG", "LIMIT", "PER", "NAME", "UNIT", "USED", "MAX", "%", "UNITS BACK IN"];
    let rows = rows.iter().map(|(row, name)| {
        let of: Vec<String> =
            row.of.iter().map(|(name, value)| format!("{name} {value}")).collect();
        [
            row.org.to_string(),
            row.limit.clone(),
            if of.is_empty() { "everybody".to_owned() } else { of.join(", ") },
            name.clone().unwrap_or_else(|| "-".to_owned()),
            row.unit.to_owned(),
            row.used.to_string(),
            row.max.to_string(),
            row.percent().to_string(),
            in_short(row.next_back_ms),
        ]
    });
    table(header, rows.collect())
}
