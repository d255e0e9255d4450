//! `portcullis policy test`: cases beside a policy, decided by the core.
//!
//! Owns what is compared and what of a policy no case reaches. The decision is the core's: the same code
//! decides in the data path.

use std::path::{Path, PathBuf};

use portcullis_core::authz::explain::{Answer, Question, explain};
use portcullis_core::decode::Faults;
use portcullis_core::id::PolicyName;
use portcullis_core::observed::Observed;
use portcullis_core::policy::Policy;
use portcullis_core::time::UnixTime;
use serde_json::{Value, json};

use super::cases::{self, Caller, Case, CaseResult};
use super::coverage::{Coverage, Reached};
use super::findings::findings;
use super::{count, junit, misspelt};
use crate::args::TestArgs;
use crate::document::{Document, files_of_cases};
use crate::report::{CliError, Report, Verdict, progress};

pub(crate) fn test(args: &TestArgs) -> Result<Report, CliError> {
    let mut files = vec![args.file.clone()];
    if args.file.is_dir() {
        files = files_of_cases(&args.file).unwrap_or_default();
        if files.is_empty() {
            return Err(CliError::new("no file of cases", args.file.display().to_string())
                .expected("files that end in .test.yaml"));
        }
    }
    let tried = files.iter().map(|file| tried(file, args)).collect::<Result<Vec<_>, _>>()?;
    if let Some(file) = &args.junit {
        let suites: Vec<_> = tried
            .iter()
            .map(|it| (it.decided.place.as_str(), it.decided.outcomes.as_slice()))
            .collect();
        junit::write(file, &suites)?;
    }
    Ok(report(&tried, args))
}

/// What came of one file of cases, and the policy that decided.
struct Tried {
    policy_file: PathBuf,
    policy: Policy,
    decided: Decided,
}

/// What came of one file of cases.
struct Decided {
    place: String,
    outcomes: Vec<CaseResult>,
    reached: Reached,
}

fn tried(file: &Path, args: &TestArgs) -> Result<Tried, CliError> {
    let document = Document::read(file)?;
    let policy_file = policy_file(file, args, &document);
    let policy = policy(&policy_file)?;
    let decided = decided(document, &policy)?;
    Ok(Tried { policy_file, policy, decided })
}

/// Decides the cases of a file.
fn decided(document: Document, policy: &Policy) -> Result<Decided, CliError> {
    let faulty = |faults: Faults| {
        CliError::new(format!("the cases have {}", count(faults.len(), "fault")), &document.place)
            .expected("cases without faults; docs/guides/test-a-policy.md has their form")
            .faults(document.located(&faults))
    };
    let cases = cases::read(&document.value, policy).map_err(faulty)?;
    let mut faults = Faults::default();
    for case in &cases {
        let connector = case.caller.as_ref().ok();
        let connector = connector.and_then(|caller| connector_of(policy, case, caller));
        misspelt::look(policy, connector.as_ref(), case, &mut faults);
    }
    let cases = faults.unless(Some(cases)).map_err(faulty)?;
    let mut reached = Reached::default();
    let mut outcomes = Vec::new();
    for case in cases {
        let answer = answer(policy, &case, &document)?;
        answer.steps.iter().for_each(|step| reached.note(&step.rule, step.outcome));
        let fault = fault(policy, &case, &answer);
        let line = document.line_of(&case.path);
        outcomes.push(CaseResult { name: case.name, line, fault, answer });
    }
    Ok(Decided { place: document.place, outcomes, reached })
}

/// The file that is named, by the command or by the cases; the folder that is tested; or the file beside the cases:
/// `crm.yaml` of `crm.test.yaml`.
fn policy_file(file: &Path, args: &TestArgs, document: &Document) -> PathBuf {
    if let Some(file) = &args.policy {
        return file.clone();
    }
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    if let Some(name) = cases::policy_of(&document.value) {
        return folder.join(name);
    }
    if args.file.is_dir() {
        return args.file.clone();
    }
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    folder.join(name.replacen(".test.", ".", 1))
}

fn policy(file: &Path) -> Result<Policy, CliError> {
    let document = Document::read(file)?;
    let found = findings(&document);
    found.policy.map(|(policy, _)| policy).ok_or_else(|| {
        CliError::new("the policy has faults", &document.place)
            .expected("a policy without faults: no case was tried")
            .next(format!("portcullis policy check {}", document.argument()))
            .faults(found.faults)
    })
}

fn answer(policy: &Policy, case: &Case, document: &Document) -> Result<Answer, CliError> {
    let caller = match &case.caller {
        Ok(caller) => caller,
        Err(failure) => return Ok(Answer::unauthenticated(*failure, &case.tool)),
    };
    let connector = connector_of(policy, case, caller);
    let question = |connector: &PolicyName| {
        explain(&Question {
            policy,
            principal: &caller.principal,
            claims: &caller.claims,
            connector,
            tool: &case.tool,
            arguments: &case.arguments,
            now: UnixTime::from_micros(case.at.0.saturating_mul(1_000_000)),
            source: &case.source,
            // What servers list is not looked at here.
            observed: Observed::Same,
        })
    };
    connector.and_then(|connector| question(&connector)).ok_or_else(|| {
        let line = document.line_of(&case.path).unwrap_or_default();
        let known: Vec<_> = policy.connectors.keys().map(PolicyName::as_str).collect();
        CliError::new(
            format!("it is not clear which connector the case {:?} means", case.name),
            format!("{}:{line}", document.place),
        )
        .expected(format!("connector: one of {}", known.join(", ")))
    })
}

/// The connector that is named; else the only one of the role, or of the policy.
fn connector_of(policy: &Policy, case: &Case, caller: &Caller) -> Option<PolicyName> {
    if let Some(named) = &case.connector {
        return Some(named.clone());
    }
    let of_role = policy.roles.get(&caller.principal.role).map(|role| &role.connectors);
    let of_role: Vec<&PolicyName> = of_role.into_iter().flat_map(|it| it.keys()).collect();
    let all: Vec<&PolicyName> = policy.connectors.keys().collect();
    match (&*of_role, &*all) {
        ([only], _) | (_, [only]) => Some((*only).clone()),
        (_, _) => None,
    }
}

fn fault(policy: &Policy, case: &Case, answer: &Answer) -> Option<String> {
    let by = |rule: Option<&str>| rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
    let rule = answer.rule.as_deref();
    let other_rule = case.rule.as_deref().is_some_and(|expected| rule != Some(expected));
    if answer.decision != case.expect || other_rule {
        let role = case.caller.as_ref().ok().map(|caller| &caller.principal.role);
        let of_role = role.and_then(|role| {
            policy.role_hint(role).map(|roles| format!("the policy has no role {role}{roles}"))
        });
        let why = answer.steps.last().map(|step| step.detail.clone()).unwrap_or_default();
        let why = of_role.unwrap_or(why);
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        return Some(format!(
            "found {}{}{why}, expected {}{}",
            answer.decision.name(),
            by(rule),
            case.expect.name(),
            by(case.rule.as_deref())
        ));
    }
    let expected = case.goes_on_with.as_ref()?;
    let goes_on = answer.amended.as_ref().unwrap_or(&case.arguments);
    (goes_on != expected).then(|| {
        format!(
            "found that it goes on with {}, expected {}",
            Value::Object(goes_on.clone()),
            Value::Object(expected.clone())
        )
    })
}

/// What came of the cases beside a policy.
pub(super) struct Tally {
    pub(super) cases: usize,
    pub(super) failed: usize,
    /// A line for each case that is not as expected.
    pub(super) failures: Vec<String>,
    files: Vec<String>,
    reached: usize,
    rules: usize,
}

/// Decides the cases of `files` that are about the policy at `place`, with `policy`, which was read from there;
/// nothing where there are none. With `lenient`, a file of cases that has faults is a warning.
pub(super) fn tally(
    files: &[PathBuf],
    place: &Path,
    policy: &Policy,
    lenient: bool,
) -> Result<Option<Tally>, CliError> {
    let mut all = Vec::new();
    for file in files {
        match about(file, place, policy) {
            Ok(decided) => all.extend(decided),
            Err(fault) if lenient => progress(&format!(
                "warning: {}: {}: its cases were not tried",
                file.display(),
                fault.found()
            )),
            Err(fault) => {
                return Err(fault
                    .expected("files of cases without faults; nothing was changed")
                    .next("repair the file of cases; --failing-cases goes on without it"));
            }
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    let mut reached = Reached::default();
    all.iter().for_each(|it| reached.add(&it.reached));
    let coverage = reached.of(policy);
    let failures: Vec<String> = all.iter().flat_map(failures).collect();
    Ok(Some(Tally {
        cases: all.iter().map(|it| it.outcomes.len()).fold(0, usize::saturating_add),
        failed: failures.len(),
        failures,
        files: all.iter().map(verdict).collect(),
        reached: coverage.reached(),
        rules: coverage.rules,
    }))
}

/// What came of the cases of a file, unless it names another policy than the one at `place`.
fn about(file: &Path, place: &Path, policy: &Policy) -> Result<Option<Decided>, CliError> {
    let document = Document::read(file)?;
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let named = cases::policy_of(&document.value).map(|name| folder.join(name));
    let same = |other: &PathBuf| {
        other == place
            || matches!((other.canonicalize(), place.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    match named.is_none_or(|named| same(&named)) {
        true => decided(document, policy).map(Some),
        false => Ok(None),
    }
}

impl Tally {
    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let reached = format!("cases reach {} of {}", self.reached, count(self.rules, "rule"));
        self.failures.iter().chain(&self.files).cloned().chain([reached]).collect()
    }

    pub(super) fn view(&self) -> Value {
        let Self { cases, failed, failures, reached, rules, files: _ } = self;
        json!({
            "cases": cases, "failed": failed, "failures": failures, "rules": rules,
            "rules_reached": reached,
        })
    }
}

/// `FAILED crm.test.yaml:12: at most 50 rows: found …, expected …`.
fn failures(tried: &Decided) -> Vec<String> {
    let failed = tried.outcomes.iter().filter_map(|it| Some((it, it.fault.as_deref()?)));
    failed
        .map(|(it, fault)| {
            let line = it.line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("FAILED {}{line}: {}: {fault}", tried.place, it.name)
        })
        .collect()
}

/// `crm.test.yaml: 14 cases, all as expected`.
fn verdict(tried: &Decided) -> String {
    let told = match failures(tried).len() {
        0 => "all as expected".to_owned(),
        number => format!("{number} not as expected"),
    };
    format!("{}: {}, {told}", tried.place, count(tried.outcomes.len(), "case"))
}

fn report(tried: &[Tried], args: &TestArgs) -> Report {
    let (mut lines, mut views, mut good) = (Vec::new(), Vec::new(), true);
    for it in tried {
        let failed = failures(&it.decided);
        good &= failed.is_empty();
        lines.extend(failed);
        lines.push(verdict(&it.decided));
    }
    for (policy_file, coverage, of) in coverages(tried) {
        lines.push(format!(
            "{}: cases reach {} of {}",
            policy_file.display(),
            coverage.reached(),
            count(coverage.rules, "rule")
        ));
        lines.extend(coverage.unreached.iter().map(|rule| format!("  not reached: {rule}")));
        lines.extend(coverage.never_false.iter().map(|rule| format!("  never false: {rule}")));
        good &= coverage.unreached.is_empty() || !args.covered;
        views.extend(of.iter().map(|it| {
            json!({
                "file": it.decided.place,
                "policy": policy_file.display().to_string(),
                "cases": it.decided.outcomes.iter().map(view).collect::<Vec<_>>(),
                "failed": it.decided.outcomes.iter().filter(|it| it.fault.is_some()).count(),
                "rules": coverage.rules,
                "unreached": coverage.unreached,
                "never_false": coverage.never_false,
            })
        }));
    }
    let json = match views.len() {
        1 => views.pop().unwrap_or_default(),
        _ => json!({ "files": views }),
    };
    let verdict = if good { Verdict::Good } else { Verdict::Wanting };
    Report::judged(verdict, lines.join("\n"), json)
}

/// What the cases of each policy reach together.
fn coverages(tried: &[Tried]) -> Vec<(&Path, Coverage, Vec<&Tried>)> {
    let mut policies: Vec<&Path> = tried.iter().map(|it| it.policy_file.as_path()).collect();
    policies.sort();
    policies.dedup();
    let of = |policy: &&Path| -> Vec<&Tried> {
        tried.iter().filter(|it| it.policy_file == **policy).collect()
    };
    let covered = policies.iter().map(|policy| (*policy, of(policy))).filter_map(|(file, of)| {
        let mut reached = Reached::default();
        of.iter().for_each(|it| reached.add(&it.decided.reached));
        let coverage = reached.of(&of.first()?.policy);
        Some((file, coverage, of))
    });
    covered.collect()
}

fn view(outcome: &CaseResult) -> Value {
    json!({
        "name": outcome.name,
        "line": outcome.line,
        "passed": outcome.fault.is_none(),
        "fault": outcome.fault,
        "decision": outcome.answer.decision,
        "rule": outcome.answer.rule,
        "amended": outcome.answer.amended,
        "windows": outcome.answer.windows,
    })
}
