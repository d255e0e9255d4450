//! Runs and shows a tour: for each step the requests, the answers, and PASS or FAIL.
//!
//! Knows nothing about the gateway.

use super::guide::Guide;
use super::notes::Notes;
use crate::failure::Result;
use portcullis_stack::process;
use std::io::{IsTerminal, stdout};

/// Steps that belong together.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) steps: &'static [TourStep],
}

/// One step: its title, and its code.
pub(crate) struct TourStep {
    pub(crate) title: &'static str,
    pub(crate) walk: fn(&Guide<'_>, &mut Notes) -> Result<()>,
}

/// How many steps passed and failed.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

/// Runs all steps; a failed step does not stop the next ones.
pub(crate) fn walk(groups: &[Group], guide: &Guide<'_>) -> Score {
    let mut score = Score::default();
    let mut number = 0;
    for group in groups {
        println!("\n{}", bold(group.title));
        for step in group.steps {
            if process::is_stopping() {
                return score;
            }
            number += 1;
            println!("{number:>3} {}", step.title);
            let mut notes = Notes::default();
            if let Err(failure) = (step.walk)(guide, &mut notes) {
                notes.unmet.push(failure.to_string());
            }
            if notes.unmet.is_empty() {
                println!("    {}", coloured("PASS", "32"));
                score.passed += 1;
            } else {
                for unmet in &notes.unmet {
                    println!("    {} expected {unmet}", coloured("FAIL", "31"));
                }
                score.failed += 1;
            }
        }
    }
    score
}

fn bold(text: &str) -> String {
    coloured(text, "1")
}

fn coloured(text: &str, code: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
