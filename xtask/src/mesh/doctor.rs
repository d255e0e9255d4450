//! `portcullis doctor` in front of an Envoy that a control plane configures: no findings with the shipped files, and a
//! line for each hole.
//!
//! Owns the criteria for no findings. The trials of each control plane own the holes.

use super::Ground;
use super::gateway::within;
use crate::failure::{Failure, Result};
use serde_json::Value;
use std::time::Duration;

/// The bound for a push and for the statistics of Envoy's workers.
const WITHIN: Duration = Duration::from_secs(120);

/// A doctor for one Envoy.
pub(crate) struct Doctor<'a> {
    ground: &'a Ground<'a>,
    /// The URL of Envoy's admin interface.
    admin: String,
}

/// Doctor's report about one Envoy.
struct Said {
    /// The exit status.
    status: Option<i32>,
    checks: Vec<Value>,
}

/// An expected line: the beginning of the check's name, a part of the finding, its state.
pub(super) type Line<'a> = (&'a str, &'a str, &'a str);

impl<'a> Doctor<'a> {
    pub(crate) fn of(ground: &'a Ground<'a>, admin: String) -> Self {
        Self { ground, admin }
    }

    /// Waits for exit status 0, with every check of this Envoy good.
    pub(crate) fn is_content(&self) -> Result<()> {
        let mut last = String::new();
        within(WITHIN, "a doctor that has nothing to say", || {
            let said = self.look().ok()?;
            let wrong = said.lines(|state| state != "good");
            last = format!("exit status {:?}; {}", said.status, wrong.join("; "));
            (said.status == Some(0) && wrong.is_empty()).then_some(())
        })
        .map_err(|failure| Failure::new(format!("{failure}: {last}")))
    }

    /// Waits for this line, with the exit status that its state needs.
    pub(super) fn names(&self, (check, found, state): Line<'_>) -> Result<()> {
        let mut last = String::new();
        within(WITHIN, "doctor's line", || {
            let said = self.look().ok()?;
            last = format!(
                "exit status {:?}; {}",
                said.status,
                said.lines(|it| it != "good").join("; ")
            );
            let status = i32::from(state == "bad");
            let is_it = |line: &Value| {
                text(line, "check").starts_with(check)
                    && text(line, "found").contains(found)
                    && text(line, "state") == state
                    && !text(line, "next").is_empty()
            };
            (said.status == Some(status) && said.checks.iter().any(is_it)).then_some(())
        })
        .map_err(|failure| Failure::new(format!("{failure} ({state} {check}: …{found}…): {last}")))
    }

    fn look(&self) -> Result<Said> {
        let stack = &self.ground.stack;
        let module = self.ground.workspace.artifacts().filter.to_string_lossy().into_owned();
        let arguments =
            ["doctor", "--envoy-admin", &self.admin, "--module", &module, "--output", "json"];
        let vault = stack.openbao.url();
        let output = stack.operator.run_with(&arguments, &[("VAULT_ADDR", &vault)])?;
        let said: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::new(format!("doctor wrote no JSON: {error}")))?;
        let checks = said.get("checks").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Said { status: output.status.code(), checks })
    }
}

impl Said {
    /// Short forms of the lines about this Envoy.
    fn lines(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let of_envoy = self.checks.iter().filter(|line| text(line, "check").starts_with("envoy"));
        let wanted = of_envoy.filter(|line| wanted(text(line, "state")));
        wanted
            .map(|it| format!("{} {}: {}", text(it, "state"), text(it, "check"), text(it, "found")))
            .collect()
    }
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}
