//! `cargo xtask demo`: a tour of the gateway on the real parts, with a check of each step.
//!
//! Owns the order of the steps and the end of the tour. The module of each group has its steps; `tour` shows them.

mod access;
mod drift;
mod evidence;
mod guide;
mod limits;
mod notes;
mod operations;
mod outage;
mod rotation;
mod tools;
mod tour;

use crate::failure::{Failure, Result};
use crate::{signals, up};
use guide::Guide;
use portcullis_stack::{Stack, Tools, Workspace};
use tour::{Group, walk};

/// What happens after the tour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Exit,
    StayUp,
}

/// The evidence comes last: it covers every request of the tour.
const GROUPS: &[Group] = &[
    access::GROUP,
    tools::GROUP,
    drift::GROUP,
    limits::GROUP,
    operations::GROUP,
    outage::GROUP,
    evidence::GROUP,
];

/// Starts the stack, runs the tour, and stays or ends. Fails when a step failed.
pub(crate) fn demo(workspace: &Workspace, port_base: Option<u16>, then: Then) -> Result<()> {
    let stack = up::start(workspace, port_base)?;
    up::describe(&stack);
    let guide = Guide::new(&stack, Tools::install(workspace)?);
    let score = walk(GROUPS, &guide);
    println!("\n{} of {} steps passed", score.passed, score.passed + score.failed);
    match then {
        Then::StayUp => {
            invite(&stack, &guide);
            signals::end_with(i32::from(score.failed > 0));
            up::watch(&stack)
        }
        Then::Exit if score.failed == 0 => Ok(()),
        Then::Exit => Err(Failure::new(format!(
            "{} of the tour's steps failed; the logs are in {}",
            score.failed,
            stack.options().logs().display()
        ))),
    }
}

/// Prints everything that a user needs to continue alone.
fn invite(stack: &Stack, guide: &Guide<'_>) {
    println!("\nThe stack stays up until Ctrl-C.\n");
    up::describe(stack);
    println!("\nA key (role analyst): {}", stack.analyst.key);
    println!("\nAn unmodified MCP client:\n  {}", guide.ready_made_command());
    println!("\nThe operator's tool, after `. {}`:", stack.dir().join("env").display());
    println!("  portcullis key list\n  portcullis audit verify \"$PORTCULLIS_AUDIT_LOG\"");
}
