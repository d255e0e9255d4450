//! `cargo xtask isolation`: what each container of `docker-compose.yml` reaches.
//!
//! Owns the recorded outcome. `tools/isolation.py` makes the networks and tries them; the test command only checks that
//! the outcome is that of today's networks.

use std::fs;
use std::process::Command;

use portcullis_stack::{Tools, Workspace, process};

use crate::failure::{Failure, Result};

const RECORD: &str = "demo/compose/isolation.txt";
const COMPOSE: &str = "docker-compose.yml";

/// Tries it, prints the outcome, and keeps it if asked.
pub(crate) fn isolation(workspace: &Workspace, record: bool) -> Result<()> {
    let outcome = run(workspace, |trial| trial.arg(workspace.root.join(COMPOSE)))?;
    print!("{outcome}");
    if record {
        fs::write(workspace.root.join(RECORD), outcome)
            .map_err(|error| Failure::new(format!("could not write {RECORD}: {error}")))?;
    }
    Ok(())
}

/// Fails when the recorded outcome is of other networks.
pub(crate) fn is_current(workspace: &Workspace) -> Result<()> {
    let files = [COMPOSE, RECORD].map(|file| workspace.root.join(file));
    run(workspace, |trial| trial.arg("--current").args(files)).map(drop)
}

fn run(workspace: &Workspace, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let mut trial = Tools::install(workspace)?.python_command();
    with(trial.arg(workspace.root.join("tools/isolation.py")));
    let output = process::output("tools/isolation.py", trial)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::new(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    // Proves: C8
    #[test]
    fn an_agent_reaches_the_gateway_alone_and_servers_reach_no_state() {
        let outcome = include_str!("../../demo/compose/isolation.txt");
        let reached = |who: &str| {
            let line = outcome.lines().find_map(|line| line.strip_prefix(&format!("{who}: ")));
            line.unwrap_or_else(|| panic!("{who} was not tried")).split(' ').collect::<Vec<_>>()
        };
        // As any container on a network with a way out.
        assert_eq!(reached("agent"), ["gateway:10000", "internet"]);
        assert_eq!(reached("demo"), ["gateway:10000", "python:8081"]);
        assert_eq!(reached("python"), ["demo:8080", "gateway:10000"]);
        for who in ["redis", "vault"] {
            assert!(!reached(who).contains(&"internet"), "{who}");
        }
    }
}
