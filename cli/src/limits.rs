//! `portcullis limits`: list, show, reset.
//!
//! Owns which windows belong to a caller, and how they are shown. What a call draws from the core says;
//! how much is in use, Redis. Nearly all names of windows follow from the policy and the caller; Redis has those of
//! the tools that were called.

mod list;

use std::time::Duration;

use portcullis_core::audit::AdminAction;
use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::PolicyName;
use portcullis_core::limit::{self, CALL, Called, Quota};
use portcullis_core::policy::{Dimension, Limit, Policy};
use portcullis_redis_lua::{Key, Window, WindowStanding};
use serde_json::{Map, Value, json};

use crate::admin_log::AdminLog;
use crate::args::{CallerArgs, OneKey, ResetArgs, Session};
use crate::key::{Active, find};
use crate::report::{CliError, Report, progress, table};
use crate::session::beyond;
use crate::store::Store;
use crate::time::in_short;

pub(crate) use list::{list, used_over};

/// Why some windows are not found.
const NO_SCAN: &str = "this Redis user may not SCAN";

/// A window of a caller, as it stands.
struct WindowUsage {
    quota: Quota,
    of: Partition,
    own: Whose,
    state: WindowStanding,
}

/// The dimensions that a window is kept per, with their values.
type Partition = Vec<(String, String)>;

/// Whose calls a window counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This caller's alone.
    Own,
    /// Others' of the organisation as well.
    Shared,
    /// Those of all organisations.
    Everyone,
}

pub(crate) fn show(session: &Session, args: &CallerArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let caller = caller(&mut store, args)?;
    let usages = usages(&mut store, &caller)?;
    let text = match usages.is_empty() {
        true => format!("no limit counts calls of {}", named(&caller)),
        false => rows(&usages),
    };
    let views: Vec<Value> = usages.iter().map(WindowUsage::view).collect();
    Ok(Report::done(text, of(&caller, [("windows", json!(views))])))
}

pub(crate) fn reset(session: &Session, args: &ResetArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    store.until_done("nothing was reset", |store| {
        let caller = caller(store, &args.caller)?;
        let last = store.last_entry(&caller.org)?;
        let mut chosen = usages(store, &caller)?;
        if let Some(limit) = &args.limit {
            unknown(limit, &caller, &chosen)?;
        }
        chosen.retain(|usage| match &args.limit {
            Some(limit) => is_called(&usage.quota.name, limit),
            None => usage.own == Whose::Own,
        });
        let shared = chosen.iter().find(|usage| usage.own == Whose::Everyone);
        if let (Some(only), Some(shared)) = (&session.organisation, shared) {
            let what = format!("{} counts calls of all organisations", shared.quota.name);
            return Err(beyond(only, &what, "--limit"));
        }
        chosen.retain(|usage| usage.used() > 0);
        let changed = !chosen.is_empty();
        if changed {
            let changes = chosen
                .iter()
                .map(|usage| (usage.label(), json!({ "from": usage.used(), "to": 0 })));
            let changes = changes.collect::<Map<_, _>>();
            let entry =
                admin_log.of_limits(AdminAction::LimitsReset, &caller, changes, last.as_deref());
            let keys: Vec<&Key> = chosen.iter().flat_map(WindowUsage::keys).collect();
            if store.forget(&keys, &caller.org, (last.as_deref(), &entry))?.is_none() {
                return Ok(None);
            }
        }
        let text = match changed {
            false => "nothing is drawn there; nothing was changed".to_owned(),
            true => format!("{}\n\nReset: nothing is used there now.", forgotten(&chosen)),
        };
        let views: Vec<Value> = chosen.iter().map(WindowUsage::view).collect();
        let members = [("changed", json!(changed)), ("reset", json!(views))];
        Ok(Some(Report::done(text, of(&caller, members))))
    })
}

/// The caller: the holder of a key as its record has it, or a caller without one, as the operator says.
fn caller(store: &mut Store, args: &CallerArgs) -> Result<Principal, CliError> {
    if let Some(id) = args.id.clone() {
        let args = OneKey { id, org: args.org.clone() };
        return Ok(find(store, &args)?.record.principal());
    }
    let identity = match (&args.subject, &args.issuer, &args.certificate) {
        (Some(subject), Some(issuer), None) => {
            Some(IdentityKind::Token { issuer: issuer.clone(), subject: subject.clone() })
        }
        (None, None, Some(name)) => Some(IdentityKind::Certificate(name.clone())),
        (_, _, _) => None,
    };
    let (Some(identity), Some(org), Some(role), Some(tier)) =
        (identity, &args.org, &args.role, &args.tier)
    else {
        let expected =
            "ID, or --subject SUB --issuer ISS or --certificate NAME with --org, --role and --tier";
        return Err(CliError::usage("no caller is named").expected(expected));
    };
    let active = Active::of(org, store)?;
    active.knows_role(role)?;
    active.knows_tier(tier)?;
    Ok(Principal {
        org: org.clone(),
        name: caller_name(&identity).to_owned(),
        identity: identity.into(),
        role: role.clone(),
        tier: tier.clone(),
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    })
}

/// The name of a caller in audit entries.
fn caller_name(identity: &IdentityKind) -> &str {
    match identity {
        IdentityKind::Key(id) => id.as_str(),
        IdentityKind::Token { subject, .. } => subject,
        IdentityKind::Certificate(name) => name,
    }
}

fn named(caller: &Principal) -> String {
    let name = caller_name(caller.identity.kind());
    match caller.identity.kind() {
        IdentityKind::Key(_) => format!("key {name}"),
        IdentityKind::Token { issuer, .. } => format!("subject {name} of {issuer}"),
        IdentityKind::Certificate(_) => format!("certificate {name}"),
    }
}

/// The caller for scripts, and what else there is to say.
fn of<const N: usize>(caller: &Principal, more: [(&str, Value); N]) -> Value {
    let (kind, issuer) = match caller.identity.kind() {
        IdentityKind::Key(_) => ("key", None),
        IdentityKind::Token { issuer, .. } => ("subject", Some(issuer)),
        IdentityKind::Certificate(_) => ("certificate", None),
    };
    let name = (kind, json!(caller_name(caller.identity.kind())));
    let issuer = issuer.map(|issuer| ("issuer", json!(issuer)));
    let members = [("org", json!(caller.org)), name].into_iter().chain(issuer).chain(more);
    members.map(|(member, value)| (member.to_owned(), value)).collect::<Map<_, _>>().into()
}

/// Whether `limit` is the name, or the short name, of the limit called `name`: `month` of `tiers.free.month`.
fn is_called(name: &str, limit: &str) -> bool {
    name == limit || name.rsplit('.').next() == Some(limit)
}

/// Refuses the name of a limit that does not count calls of this caller.
fn unknown(limit: &str, caller: &Principal, usages: &[WindowUsage]) -> Result<(), CliError> {
    let mut known: Vec<&str> = usages.iter().map(|usage| usage.quota.name.as_str()).collect();
    known.dedup();
    let meant: Vec<&&str> = known.iter().filter(|name| is_called(name, limit)).collect();
    if let [first, rest @ ..] = &*meant
        && rest.iter().all(|name| name == first)
    {
        return Ok(());
    }
    Err(CliError::new(
        format!("nothing is drawn from a limit {limit} by {}", named(caller)),
        "the policy that decides about that caller",
    )
    .expected(format!("one of {}", known.join(", ")))
    .next("portcullis limits show, with the same caller"))
}

/// Every window that requests of `principal` draw from, also those that open sessions; of those kept per connector or tool, the ones that
/// were drawn from.
fn usages(store: &mut Store, principal: &Principal) -> Result<Vec<WindowUsage>, CliError> {
    let active = Active::of_caller(principal, store)?;
    let policy: &Policy = active.policy();
    let further = policy.limits.iter().filter(|limit| limit.counts_role(&principal.role));
    let mut quotas = Vec::new();
    let opening = policy.sessions.opened.as_ref();
    for limit in limit::of_key(policy, principal).chain(further).chain(opening) {
        for (quota, of) in windows(store, limit, principal)? {
            let counts = |dimension| limit.per.contains(&dimension);
            let own = match (counts(Dimension::Key), counts(Dimension::Global)) {
                (true, _) => Whose::Own,
                (false, true) => Whose::Everyone,
                (false, false) => Whose::Shared,
            };
            quotas.push((quota, of, own));
        }
    }
    let windows: Vec<Window> = quotas.iter().map(|(quota, ..)| quota.window.clone()).collect();
    let states = store.look_at(&windows)?;
    let usages = quotas.into_iter().zip(states);
    Ok(usages.map(|((quota, of, own), state)| WindowUsage { quota, of, own, state }).collect())
}

/// The windows of one limit, each with what it is kept per.
fn windows(
    store: &mut Store,
    limit: &Limit,
    principal: &Principal,
) -> Result<Vec<(Quota, Partition)>, CliError> {
    let prefix = limit.prefix(principal);
    let names = match limit.is_per_target() {
        true => store.names_with(&prefix)?.unwrap_or_else(|| {
            progress(&format!("windows of {} per tool are not shown: {NO_SCAN}", limit.name));
            Vec::new()
        }),
        false => vec![prefix.to_string()],
    };
    let windows = names.iter().filter_map(|name| {
        let of = Key::partition(name)?;
        let value = |dimension: &str| {
            of.iter().find(|(name, _)| name == dimension).map(|(_, value)| value.as_str())
        };
        let connector = PolicyName::new(value("connector").unwrap_or("none"))?;
        let called = Called {
            connector: &connector,
            method: CALL,
            tool: value("tool").unwrap_or_default(),
            opens: false,
            bytes: 0,
        };
        let quota = limit.quota(principal, &called, 0);
        // Another caller's, whose name starts like this one's.
        (quota.window.key.as_str() == name).then_some((quota, of))
    });
    Ok(windows.collect())
}

impl WindowUsage {
    fn used(&self) -> u64 {
        self.state.used
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        let mark = self.quota.window.alert.as_ref().map(|alert| &alert.mark);
        std::iter::once(&self.quota.window.key).chain(mark)
    }

    /// `limits.storm`, or `limits.storm tool=x` where a limit has several windows.
    fn label(&self) -> String {
        let targets = self.of.iter().filter(|(name, _)| name == "connector" || name == "tool");
        let targets = targets.map(|(name, value)| format!(" {name}={value}"));
        std::iter::once(self.quota.name.clone()).chain(targets).collect()
    }

    /// For people: `org acme, tool query_users`.
    fn per(&self) -> String {
        let of: Vec<_> = self.of.iter().map(|(name, value)| format!("{name} {value}")).collect();
        if of.is_empty() { "everybody".to_owned() } else { of.join(", ") }
    }

    fn unit(&self) -> &'static str {
        self.quota.cost.units_of(&self.quota.name)
    }

    fn view(&self) -> Value {
        let Window { limit, grain_us, alert, .. } = &self.quota.window;
        let of: Map<String, Value> =
            self.of.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "limit": self.quota.name,
            "of": of,
            "shared": self.own != Whose::Own,
            "unit": self.unit(),
            "used": self.used(),
            "max": limit,
            "percent": percent(self.used(), *limit),
            "remaining": self.state.remaining,
            "window_ms": self.quota.length.as_millis(),
            "lease": self.quota.lease,
            "precision_ms": grain_us / 1_000,
            "alert_at": alert.as_ref().map(|alert| alert.from),
            "next_back_ms": self.state.reset.as_millis(),
        })
    }
}

/// How much of a window is used, in parts of a hundred.
fn percent(used: u64, max: u64) -> u64 {
    used.saturating_mul(100).checked_div(max).unwrap_or_default()
}

/// What a reset took out of each window.
fn forgotten(usages: &[WindowUsage]) -> String {
    let rows = usages.iter().map(|usage| {
        let (name, unit) = (usage.quota.name.clone(), usage.unit().to_owned());
        let max = usage.quota.window.limit.to_string();
        [name, usage.per(), unit, usage.used().to_string(), max]
    });
    table(["LIMIT", "PER", "UNIT", "FORGOTTEN", "MAX"], rows.collect())
}

fn rows(usages: &[WindowUsage]) -> String {
    let header = ["LIMIT", "PER", "UNIT", "USED", "MAX", "%", "LEFT", "WINDOW", "UNITS BACK IN"];
    let rows = usages.iter().map(|usage| {
        let max = usage.quota.window.limit;
        [
            usage.quota.name.clone(),
            usage.per(),
            usage.unit().to_owned(),
            usage.used().to_string(),
            max.to_string(),
            percent(usage.used(), max).to_string(),
            usage.state.remaining.to_string(),
            span(u64::try_from(usage.quota.length.as_millis()).unwrap_or(u64::MAX)),
            match usage.state.reset.as_millis() {
                0 => "-".to_owned(),
                millis => in_short(u64::try_from(millis).unwrap_or(u64::MAX)),
            },
        ]
    });
    table(header, rows.collect())
}

/// A duration in the largest unit that divides it, as a policy writes it; rounded to seconds above a minute.
fn span(millis: u64) -> String {
    const MINUTE: u64 = 60_000;
    let seconds = Duration::from_millis(millis).as_secs();
    let millis = if millis > MINUTE { seconds.saturating_mul(1_000) } else { millis };
    let units = [(86_400_000, "d"), (3_600_000, "h"), (MINUTE, "m"), (1_000, "s"), (1, "ms")];
    let whole = |(unit, name)| {
        let exact = millis >= unit && millis.is_multiple_of(unit);
        exact.then(|| millis.checked_div(unit).map(|count| format!("{count}{name}")))
    };
    units.into_iter().find_map(whole).flatten().unwrap_or_else(|| "0ms".to_owned())
}
