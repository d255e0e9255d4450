//! The project's own rules that neither the compiler nor clippy checks.
//!
//! Owns the list of rules; each is a function from one file to its faults. Reads files, changes none.

mod alerts;
mod circles;
mod compliance;
mod directions;
mod names;
mod pages;
mod paths;
mod rules;

use crate::failure::{Failure, Result};
use crate::source::{self, Source};
use portcullis_stack::Workspace;

/// A fault and its line (0: the file as a whole).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    line: usize,
    message: String,
}

impl Finding {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

type Rule = fn(&Source) -> Vec<Finding>;

const RULES: &[Rule] = &[
    rules::whitespace,
    rules::last_newline,
    rules::tabs,
    rules::machine_paths,
    rules::length,
    rules::module_docs,
    rules::owned_todos,
    rules::strict_shell,
    rules::host_boundary,
    directions::one_way,
    pages::json,
    pages::measure,
];

/// `cargo xtask tidy`.
pub(crate) fn tidy(workspace: &Workspace) -> Result<()> {
    let sources = source::all(workspace)?;
    let mut complaints = Vec::new();
    for source in &sources {
        let findings = RULES.iter().flat_map(|rule| rule(source));
        for Finding { line, message } in findings.chain(paths::existing(source, &workspace.root)) {
            complaints.push(format!("{}:{line}: {message}", source.path));
        }
    }
    complaints.extend(rules::stale_allowances(&sources));
    complaints.extend(pages::dead_anchors(&sources));
    complaints.extend(pages::unlisted(&sources));
    complaints.extend(circles::too_large(&sources));
    complaints.extend(names::explained(&sources));
    complaints.extend(alerts::sound(&sources));
    complaints.extend(compliance::proven(&sources));
    if complaints.is_empty() { Ok(()) } else { Err(Failure::new(complaints.join("\n"))) }
}
