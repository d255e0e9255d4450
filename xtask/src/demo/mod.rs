//! `cargo xtask demo`: a tour of what the gateway does, on the real parts, each step checked.
//!
//! Owns the order of the steps and what happens after them. What a step does is in the module of its group; how it is
//! shown is in `tour`.

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

/// The evidence comes last: it speaks of every request of the tour.
const GROUPS: &[Group] = &[
    access::GROUP,
    tools::GROUP,
    drift::GROUP,
    limits::GROUP,
    operations::GROUP,
    outage::GROUP,
    evidence::GROUP,
];

/// Starts the stack, walks, and stays or ends. Fails when a step did.
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

/// Everything that is needed to go on by oneself.
fn invite(stack: &Stack, guide: &Guide<'_>) {
    println!("\nThe stack stays up until Ctrl-C.\n");
    up::describe(stack);
    println!("\nA key (role analyst): {}", stack.analyst.key);
    println!("\nAn unmodified MCP client:\n  {}", guide.ready_made_command());
    println!("\nThe operator's tool, after `. {}`:", stack.dir().join("env").display());
    println!("  portcullis key list\n  portcullis audit verify \"$PORTCULLIS_AUDIT_LOG\"");
}
