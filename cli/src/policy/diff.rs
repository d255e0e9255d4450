//! What would change, or has: two documents side by side.
//!
//! Owns which documents are meant. How they are compared is in `difference`.

use portcullis_core::id::{KeyId, OrgId, PolicyVersion};
use portcullis_core::policy::{self, Policy};
use serde_json::{Value, json};

use super::change::OrgChange;
use super::difference::{Difference, differences, summary};
use super::orphans::{self, Orphan, Orphaning};
use super::replay::{self, Replayed, Sides};
use super::test::Tally;
use super::{active_policies, listed, no_policy, stored_document, unknown_keys};
use crate::args::{DiffArgs, ReviewArgs, Session, Side};
use crate::document::Document;
use crate::escape;
use crate::report::{CliError, Report, Verdict};
use crate::store::{ActivePolicy, Store};

/// A document, and what it is called.
#[derive(Clone)]
struct Named {
    version: Option<PolicyVersion>,
    /// What it is, for people.
    name: String,
    document: Value,
}

struct Comparison {
    /// Whose calls it is about; all that the new side names, if none is.
    organisations: Vec<OrgId>,
    from: Named,
    to: Named,
    differences: Vec<Difference>,
}

pub(crate) fn diff(session: &Session, args: &DiffArgs) -> Result<Report, CliError> {
    let comparisons = match (&args.first, &args.second) {
        (Some(first), Some(second)) => {
            let mut store = None;
            let from = side(first, session, &mut store)?;
            vec![Comparison::of(from, side(second, session, &mut store)?)]
        }
        (Some(new), None) => {
            let mut store = None;
            let to = side(new, session, &mut store)?;
            let store = opened(session, &mut store)?;
            let organisations = match &args.org {
                Some(org) => vec![org.clone()],
                None => organisations(&to)?,
            };
            session.within(&organisations, "the document", &to.name)?;
            let active_policies = organisations.into_iter().map(|org| {
                let active_policy = store.active_policy(&org)?;
                Ok((org, active_policy.target.map(|target| target.version)))
            });
            with_active(active_policies.collect::<Result<Vec<_>, CliError>>()?, &to, store)?
        }
        (None, _) => with_canaries(args.org.as_ref(), &mut Store::open(session)?)
            .map_err(|refusal| taken_as_logs(args, refusal))?,
    };
    let different = comparisons.iter().any(Comparison::is_different);
    if !args.against.is_empty() {
        return against(session, args, &comparisons);
    }
    let json = json!({
        "different": different,
        "comparisons": comparisons.iter().map(Comparison::view).collect::<Vec<_>>(),
    });
    let verdict = if different && args.exit_code { Verdict::Wanting } else { Verdict::Good };
    Ok(Report::judged(verdict, text(&comparisons), json))
}

/// `--against LOG A B` reads A and B as further logs.
fn taken_as_logs(args: &DiffArgs, refusal: CliError) -> CliError {
    match args.against.as_slice() {
        [_, further @ ..] if !further.is_empty() => {
            let further: Vec<String> = further.iter().map(|it| it.display().to_string()).collect();
            refusal.next(format!(
                "documents stand before --against, which takes {} as further logs: policy diff {} --against LOG",
                further.join(", "),
                further.join(" ")
            ))
        }
        _ => refusal,
    }
}

/// What the calls in an audit log would get under both sides of each comparison.
fn against(
    session: &Session,
    args: &DiffArgs,
    comparisons: &[Comparison],
) -> Result<Report, CliError> {
    let mut sides = comparisons.iter().map(Comparison::sides).collect::<Result<Vec<_>, _>>()?;
    for sides in sides.iter_mut().filter(|sides| sides.organisations.is_empty()) {
        sides.organisations.extend(session.organisation.clone());
    }
    // Tiers and restrictions of keys are in Redis, if that is there.
    let mut store = match session.redis {
        Some(_) => Some(Store::open(session)?),
        None => None,
    };
    let Replayed { different, text, views } =
        replay::replay(&args.against, &sides, store.as_mut())?;
    let verdict = if different && args.exit_code { Verdict::Wanting } else { Verdict::Good };
    Ok(Report::judged(verdict, text, json!({ "different": different, "replays": views })))
}

/// What a push would mean for keys.
pub(super) struct Keys<'a> {
    pub(super) orphans: &'a [Orphan],
    pub(super) orphaning: Orphaning,
    /// That the policy names and that do not exist.
    pub(super) unknown: &'a [KeyId],
    pub(super) policy: &'a Policy,
}

/// What is looked at beside the difference.
pub(super) struct Beside<'a> {
    pub(super) cases: Option<&'a Tally>,
    pub(super) args: &'a ReviewArgs,
}

/// What a push would do.
pub(super) struct Preview {
    /// What becomes of which version, and what that means for keys.
    told: String,
    comparisons: Vec<Comparison>,
    replayed: Option<Replayed>,
    cases: Vec<String>,
    json: Value,
    refused: bool,
}

impl Preview {
    pub(super) fn of(
        store: &mut Store,
        document: &Document,
        version: &PolicyVersion,
        steps: &[OrgChange],
        keys: &Keys<'_>,
        beside: &Beside<'_>,
    ) -> Result<Self, CliError> {
        let Keys { orphans, orphaning, unknown, policy } = *keys;
        let active = |step: &OrgChange| (step.org.clone(), step.before.version().cloned());
        let to = Named::of_file(document);
        let comparisons = with_active(steps.iter().map(active).collect(), &to, store)?;
        let share = steps.first().and_then(OrgChange::share);
        let what = share.map_or_else(|| "active".to_owned(), |share| format!("tried on {share}"));
        let mut told = format!("policy {version} would be {what}");
        for step in steps {
            told.push_str(&format!("\n  {}  {}", step.org, step.told()));
        }
        if !orphans.is_empty() {
            let needs = match orphaning {
                Orphaning::Refused => "; a push needs --orphan-keys",
                Orphaning::Warned => "",
            };
            told.push_str(&format!("\n{}{needs}", escape::line(&orphans::told(orphans))));
        }
        if !unknown.is_empty() {
            told.push_str(&format!("\nwarning: {}", unknown_keys::told(unknown, policy)));
        }
        let replayed = replayed(&comparisons, beside.args, store)?;
        let failing = beside.cases.is_some_and(|cases| cases.failed > 0);
        let mut json = json!({
            "dry_run": true,
            "version": version,
            "organisations": steps.iter().map(OrgChange::view).collect::<Vec<_>>(),
            "orphaned_keys": orphans,
            "unknown_keys": unknown,
            "different": comparisons.iter().any(Comparison::is_different),
            "comparisons": comparisons.iter().map(Comparison::view).collect::<Vec<_>>(),
        });
        if let Some(members) = json.as_object_mut() {
            let cases = beside.cases.map(|cases| ("cases".to_owned(), cases.view()));
            let replays =
                replayed.as_ref().map(|it| ("replays".to_owned(), it.views.clone().into()));
            members.extend(cases.into_iter().chain(replays));
        }
        let mut cases = beside.cases.map(Tally::lines).unwrap_or_default();
        if failing && !beside.args.failing_cases {
            cases.push("a push needs --failing-cases".to_owned());
        }
        Ok(Self {
            told,
            comparisons,
            replayed,
            cases,
            json,
            refused: orphaning == Orphaning::Refused && !orphans.is_empty()
                || failing && !beside.args.failing_cases,
        })
    }

    /// For people: what differs, what the cases say, and what calls would get.
    pub(super) fn text(&self) -> String {
        let mut parts = vec![format!("{}\n{}", self.told, text(&self.comparisons))];
        parts.extend(Some(self.cases.join("\n")).filter(|cases| !cases.is_empty()));
        parts.extend(self.replayed().map(str::to_owned));
        parts.join("\n\n")
    }

    /// What calls would get, where that was asked for.
    pub(super) fn replayed(&self) -> Option<&str> {
        self.replayed.as_ref().map(|it| it.text.as_str())
    }

    /// Of a push that changes nothing.
    pub(super) fn report(self) -> Report {
        let verdict = if self.refused { Verdict::Wanting } else { Verdict::Good };
        let text = format!("a dry run, nothing was changed: {}", self.text());
        Report::judged(verdict, text, self.json)
    }
}

/// What the calls in the logs that were named would get. Where nothing was active, all were refused.
fn replayed(
    comparisons: &[Comparison],
    args: &ReviewArgs,
    store: &mut Store,
) -> Result<Option<Replayed>, CliError> {
    if args.against.is_empty() {
        return Ok(None);
    }
    let active = comparisons.iter().filter(|it| it.from.version.is_some());
    let sides = active.map(Comparison::sides).collect::<Result<Vec<_>, _>>()?;
    replay::replay(&args.against, &sides, Some(store)).map(Some)
}

/// What the named organisations have active, each version once, and `to`.
fn with_active(
    mut active: Vec<(OrgId, Option<PolicyVersion>)>,
    to: &Named,
    store: &mut Store,
) -> Result<Vec<Comparison>, CliError> {
    let mut comparisons = Vec::new();
    while let Some((_, version)) = active.first().cloned() {
        let same: Vec<OrgId> =
            active.extract_if(.., |(_, other)| *other == version).map(|(org, _)| org).collect();
        let from = match version {
            Some(version) => {
                let name = format!("policy {version}, active for {}", listed(&same));
                Named { document: stored_document(store, &version)?, version: Some(version), name }
            }
            None => {
                let name = format!("nothing: {} without a policy", listed(&same));
                Named { version: None, name, document: json!({}) }
            }
        };
        let organisations = same.clone();
        comparisons.push(Comparison { organisations, ..Comparison::of(from, to.clone()) });
    }
    Ok(comparisons)
}

/// Each canary and the active version beside it.
fn with_canaries(only: Option<&OrgId>, store: &mut Store) -> Result<Vec<Comparison>, CliError> {
    let mut active_policies = active_policies(store)?;
    active_policies.retain(|(org, _)| only.is_none_or(|only| only == org));
    if active_policies.iter().all(|(_, active_policy)| active_policy.target.is_none()) {
        return Err(no_policy());
    }
    let pair = |active_policy: &ActivePolicy| {
        let target = active_policy.target.as_ref()?;
        Some((target.version.clone(), target.canary.as_ref()?.record.version.clone()))
    };
    let mut pairs: Vec<_> =
        active_policies.iter().filter_map(|(_, active_policy)| pair(active_policy)).collect();
    pairs.sort();
    pairs.dedup();
    if pairs.is_empty() {
        return Err(CliError::new("no policy is tried on some callers", "the active policies")
            .expected("a canary; or a version or file to compare with the active version")
            .next("portcullis policy diff FILE; portcullis policy history lists versions"));
    }
    let compare = |(active, canary): (PolicyVersion, PolicyVersion)| {
        let of = |active_policy: &ActivePolicy| {
            pair(active_policy) == Some((active.clone(), canary.clone()))
        };
        let of: Vec<OrgId> =
            active_policies.iter().filter(|(_, it)| of(it)).map(|(org, _)| org.clone()).collect();
        let mut named = |version: &PolicyVersion, what: &str| -> Result<Named, CliError> {
            let name = format!("policy {version}, {what} {}", listed(&of));
            let document = stored_document(store, version)?;
            Ok(Named { version: Some(version.clone()), name, document })
        };
        let from = named(&active, "active for")?;
        let comparison = Comparison::of(from, named(&canary, "the canary of")?);
        Ok(Comparison { organisations: of.clone(), ..comparison })
    };
    pairs.into_iter().map(compare).collect()
}

fn side(side: &Side, session: &Session, store: &mut Option<Store>) -> Result<Named, CliError> {
    match side {
        Side::Version(version) => {
            let document = stored_document(opened(session, store)?, version)?;
            let name = format!("policy {version}");
            Ok(Named { version: Some(version.clone()), name, document })
        }
        Side::File(file) => Ok(Named::of_file(&Document::read(file)?)),
    }
}

/// Two files need no Redis.
fn opened<'a>(session: &Session, store: &'a mut Option<Store>) -> Result<&'a mut Store, CliError> {
    match store {
        Some(store) => Ok(store),
        None => Ok(store.insert(Store::open(session)?)),
    }
}

/// Whom a document is for, be the rest of it good or not.
fn organisations(named: &Named) -> Result<Vec<OrgId>, CliError> {
    let names = named.document.get("organisations").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    let organisations: Vec<OrgId> = names.filter_map(OrgId::new).collect();
    match organisations.is_empty() {
        false => Ok(organisations),
        true => Err(CliError::new("the document names no organisation", &named.name)
            .expected("organisations, whose active version is compared; or --org ORG")
            .next("portcullis policy check FILE")),
    }
}

fn text(comparisons: &[Comparison]) -> String {
    comparisons.iter().map(Comparison::text).collect::<Vec<_>>().join("\n\n")
}

impl Named {
    fn of_file(document: &Document) -> Self {
        let version = policy::version_of(&document.value);
        let told = version.as_ref().map(|version| format!(", version {version}"));
        let name = format!("{}{}", document.place, told.unwrap_or_default());
        Self { version, name, document: document.value.clone() }
    }
}

impl Comparison {
    fn of(from: Named, to: Named) -> Self {
        let differences = differences(&from.document, &to.document);
        Self { organisations: Vec::new(), from, to, differences }
    }

    /// Both sides as policies that decide.
    fn sides(&self) -> Result<Sides, CliError> {
        let compiled = |named: &Named| {
            policy::compile(&named.document).map_err(|faults| {
                CliError::new(format!("it has {} faults: {faults}", faults.len()), &named.name)
                    .expected("a policy that decides about calls")
                    .next("portcullis policy check FILE")
            })
        };
        Ok(Sides {
            name: format!("{} -> {}", self.from.name, self.to.name),
            organisations: self.organisations.clone(),
            from: compiled(&self.from)?,
            to: compiled(&self.to)?,
        })
    }

    fn is_different(&self) -> bool {
        !self.differences.is_empty()
    }

    fn text(&self) -> String {
        let mut lines =
            vec![format!("from  {}", self.from.name), format!("to    {}", self.to.name)];
        lines.extend(self.differences.iter().map(Difference::text));
        lines.push(match self.is_different() {
            true => summary(&self.differences),
            false => "no difference".to_owned(),
        });
        lines.join("\n")
    }

    fn view(&self) -> Value {
        let side = |named: &Named| json!({ "version": named.version, "name": named.name });
        json!({
            "from": side(&self.from),
            "to": side(&self.to),
            "changes": self.differences.iter().map(Difference::view).collect::<Vec<_>>(),
        })
    }
}
