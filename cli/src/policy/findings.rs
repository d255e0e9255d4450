//! Everything that is wrong with a document, and everything that is probably not meant.
//!
//! Owns how one mistake does not hide others: what cannot be read is taken out, and the rest is looked at.
//! What a mistake is, the core says.

use portcullis_core::id::PolicyVersion;
use portcullis_core::json;
use portcullis_core::policy::{self, Policy, Warning, WarningKind};
use serde::Serialize;
use serde_json::{Value, json};

use crate::document::Document;
use crate::report::LocatedFault;

/// What was found in a document.
pub(super) struct Findings {
    /// The policy, where nothing is wrong.
    pub(super) policy: Option<(Policy, PolicyVersion)>,
    pub(super) faults: Vec<LocatedFault>,
    pub(super) warnings: Vec<LocatedWarning>,
}

/// Something that is probably not meant, and the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LocatedWarning {
    #[serde(flatten)]
    fault: LocatedFault,
    kind: &'static str,
}

impl LocatedWarning {
    /// `policy.yaml:17: warning: roles.analyst.crm.deny: found …, expected …`.
    pub(super) fn text(&self, file: &str) -> String {
        let line = self.fault.line.map(|line| format!(":{line}")).unwrap_or_default();
        let file = self.fault.file.as_deref().unwrap_or(file);
        let text = LocatedFault { file: None, ..self.fault.clone() }.text("");
        let rest = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
        format!("{file}{line}: warning: {rest}")
    }
}

impl From<LocatedWarning> for LocatedFault {
    fn from(warning: LocatedWarning) -> Self {
        warning.fault
    }
}

/// Looks at all of a document.
pub(super) fn findings(document: &Document) -> Findings {
    let canonical = json::canonical_exact(&document.value);
    if canonical.len() > policy::LONGEST {
        let faults = vec![too_long(canonical.len())];
        return Findings { policy: None, faults, warnings: Vec::new() };
    }
    match policy::compile(&document.value) {
        Ok(policy) => {
            let mut faults = document.located(&policy.review());
            let warnings = located(document, &policy, &faults, &[]);
            let version = policy::version_of_canonical(canonical.as_bytes());
            faults.sort();
            let policy = version.filter(|_| faults.is_empty()).map(|version| (policy, version));
            Findings { policy, faults, warnings }
        }
        Err(wrong) => {
            let mut faults = document.located(&wrong);
            let mut warnings = Vec::new();
            if let Some((rest, removed)) = without_faults(&document.value) {
                let review = document.located(&rest.review());
                let certain =
                    review.into_iter().filter(|it| is_certain(it, &document.value, &removed));
                faults.extend(certain);
                warnings = located(document, &rest, &faults, &removed);
            }
            faults.sort();
            faults.dedup();
            Findings { policy: None, faults, warnings }
        }
    }
}

fn located(
    document: &Document,
    policy: &Policy,
    faults: &[LocatedFault],
    removed: &[String],
) -> Vec<LocatedWarning> {
    let void = policy.void_members(&document.value);
    let warnings = policy.warnings().into_iter().chain(void).filter(|warning| {
        let told = faults.iter().any(|fault| fault.path == warning.path);
        let part = removed.iter().any(|path| warning.path.starts_with(path.as_str()));
        let absent = match warning.kind {
            WarningKind::UnknownTool
            | WarningKind::NeverStated
            | WarningKind::NeverReached
            | WarningKind::OpensNothing => names_tools(removed),
            // What makes a thing void may have been read wrongly.
            WarningKind::NeverCounted | WarningKind::UnknownLimit | WarningKind::NoEffect => {
                !removed.is_empty()
            }
            WarningKind::UnknownMember
            | WarningKind::WrongType
            | WarningKind::NeverTrue
            | WarningKind::AlwaysTrue
            | WarningKind::NothingLeft
            | WarningKind::ShownAndAllowed
            | WarningKind::NeverMatches
            | WarningKind::Secret
            | WarningKind::LookAlike => false,
        };
        !told && !part && !absent
    });
    let located = warnings.map(|Warning { path, kind, found, expected }| LocatedWarning {
        fault: document.fault_at(path, found, expected),
        kind: kind.name(),
    });
    let mut located: Vec<_> = located.collect();
    located.sort();
    located
}

/// Whether what was taken out could have named tools.
fn names_tools(removed: &[String]) -> bool {
    let sections = ["connectors", "roles"];
    removed.iter().any(|path| sections.iter().any(|section| path.starts_with(section)))
}

/// Whether a fault of the rest is one of the whole: not the absence of something that was taken out.
fn is_certain(fault: &LocatedFault, document: &Value, removed: &[String]) -> bool {
    if removed.iter().any(|path| fault.path.starts_with(path.as_str())) {
        return false;
    }
    let written = ["connectors", "roles", "tiers"].iter().any(|section| {
        let members = document.get(section).and_then(Value::as_object);
        members.is_some_and(|members| members.keys().any(|name| fault.found == format!("{name:?}")))
    });
    let by_absence =
        fault.expected.contains("nobody reaches") || fault.found.contains("no tool here");
    let perhaps_absent = by_absence && names_tools(removed);
    !written && !perhaps_absent
}

/// More rounds would be for a document that is another kind of thing.
const ROUNDS: usize = 6;

/// The policy that is left without what cannot be read, and the paths of that.
fn without_faults(document: &Value) -> Option<(Policy, Vec<String>)> {
    let (mut rest, mut removed) = (document.clone(), Vec::new());
    for _ in 0..ROUNDS {
        let faults = match policy::compile(&rest) {
            Ok(policy) => return Some((policy, removed)),
            Err(faults) => faults,
        };
        // From the end, so that what is taken out of a list moves nothing that is still to be found.
        let mut paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        paths.reverse();
        for path in paths {
            removed.push(take_out(&mut rest, path)?);
        }
    }
    None
}

/// Takes out what stands at `path`, or, where nothing does, what should contain it; the path of what was taken.
fn take_out(document: &mut Value, path: &str) -> Option<String> {
    let steps = resolved(document, path);
    let (last, parents) = steps.split_last()?;
    let mut parent = document;
    for step in parents {
        parent = step.of(parent)?;
    }
    let at: String = steps.iter().map(PathSegment::told).collect();
    let at = at.trim_start_matches('.').to_owned();
    match (parent, last) {
        (Value::Object(members), PathSegment::Member(name)) => {
            members.remove(name)?;
        }
        (Value::Array(items), PathSegment::Item(index)) => {
            let is_condition =
                matches!(parents.last(), Some(PathSegment::Member(name)) if name == "conditions");
            match items.get_mut(*index) {
                // The others keep their numbers.
                Some(item) if is_condition => *item = json!({ "when": "true" }),
                Some(_) => {
                    items.remove(*index);
                }
                None => return None,
            }
        }
        (_, _) => return None,
    }
    Some(at)
}

enum PathSegment {
    Member(String),
    Item(usize),
}

impl PathSegment {
    fn of<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Member(name) => value.get_mut(name),
            Self::Item(index) => value.get_mut(index),
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Member(name) => format!(".{name}"),
            Self::Item(index) => format!("[{index}]"),
        }
    }
}

/// The steps of a path as far as the document goes. Names may have dots in them: the document tells.
fn resolved(document: &Value, path: &str) -> Vec<PathSegment> {
    let (mut steps, mut value, mut rest) = (Vec::new(), document, path);
    loop {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let step = match value {
            Value::Object(members) => {
                let ends = |name: &&String| {
                    let behind = rest.strip_prefix(name.as_str());
                    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '[']))
                };
                let name = members.keys().filter(ends).max_by_key(|name| name.len());
                name.and_then(|name| {
                    Some((PathSegment::Member(name.clone()), members.get(name)?, name.len()))
                })
            }
            Value::Array(items) => rest.strip_prefix('[').and_then(|inside| {
                let (index, _) = inside.split_once(']')?;
                let at: usize = index.parse().ok()?;
                Some((PathSegment::Item(at), items.get(at)?, index.len().saturating_add(2)))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        let Some((step, inner, length)) = step else { return steps };
        steps.push(step);
        value = inner;
        rest = rest.get(length..).unwrap_or_default();
    }
}

pub(super) fn too_long(bytes: usize) -> LocatedFault {
    let expected = format!(
        "at most {} bytes as JSON, which every worker reads in one piece: leave out output schemas, or give each \
         organisation a policy with the connectors that it uses",
        policy::LONGEST
    );
    let found = format!("a document of {bytes} bytes");
    LocatedFault { file: None, line: Some(1), path: String::new(), found, expected }
}
