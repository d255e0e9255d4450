//! An operation on a running gateway, under load.
//!
//! Owns the order: load, wait for answered calls, operate, wait again, count. Knows no control plane.

use super::gateway::{Gateway, Kind, within};
use super::report::Report;
use crate::failure::{Failure, Result};
use std::thread;
use std::time::Duration;

/// How long the load goes on before and after an operation.
const AROUND: Duration = Duration::from_secs(3);
/// A push, a pull and a compilation take a while on a busy machine.
const FLOWS_WITHIN: Duration = Duration::from_secs(90);

/// How long to wait when calls may or may not be answered.
const EITHER: Duration = Duration::from_secs(10);

/// The expected result of allowed calls after an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// They are answered.
    Flows,
    /// They fail, since a part is missing; nothing is executed.
    Closed,
    /// They fail, and the operation removed the audit log.
    ClosedWithoutAudit,
    /// They are answered again, and the audit log is back.
    FlowsWithAuditAgain,
    /// Either is allowed; the table shows the result.
    Either,
}

impl After {
    /// Whether every judged call of the operation has to be in the audit log.
    fn is_audited(self) -> bool {
        match self {
            Self::Flows | Self::Closed | Self::Either => true,
            Self::ClosedWithoutAudit | Self::FlowsWithAuditAgain => false,
        }
    }
}

/// Runs `operate` under load and counts.
pub(crate) fn under_load(
    gateway: &Gateway,
    install: &str,
    operation: &str,
    after: After,
    report: &mut Report,
    operate: impl FnOnce() -> Result<()>,
) {
    let label = label(install, operation);
    let load = gateway.load(&label);
    thread::sleep(AROUND);
    let operated = operate().and_then(|()| settle(gateway, &label, after));
    thread::sleep(AROUND);
    let counted = if after.is_audited() { load.finish() } else { load.finish_unaudited() };
    match counted {
        Ok(tally) => {
            let holds = if after.is_audited() { tally.holds() } else { tally.refuses() };
            let verdict = holds.and(operated.map_err(|failure| failure.to_string()));
            report.operation(install, operation, tally, verdict);
        }
        Err(failure) => {
            report.trial(install, operation, || Err(failure));
        }
    }
}

/// Waits until allowed calls have the expected result.
pub(crate) fn settle(gateway: &Gateway, label: &str, after: After) -> Result<()> {
    match after {
        After::Flows | After::FlowsWithAuditAgain => flows(gateway, label),
        After::Either => {
            thread::sleep(EITHER);
            Ok(())
        }
        After::Closed | After::ClosedWithoutAudit if !gateway.is_guarded => {
            thread::sleep(EITHER);
            Ok(())
        }
        After::Closed | After::ClosedWithoutAudit => {
            within(FLOWS_WITHIN, "an allowed call that is not answered", || {
                let reply = gateway.call(Kind::Allowed, &format!("{label}-settle"), 0);
                (!reply.result).then_some(())
            })
        }
    }
}

/// Waits until an allowed call is answered.
pub(crate) fn flows(gateway: &Gateway, label: &str) -> Result<()> {
    let mut last = String::new();
    let answered = within(FLOWS_WITHIN, "an allowed call that is answered", || {
        let reply = gateway.call(Kind::Allowed, &format!("{label}-settle"), 0);
        last = format!("{} {}", reply.status, reply.body);
        reply.result.then_some(())
    });
    answered.map_err(|error| Failure::new(format!("{error} (the last reply: {last})")))
}

/// The prefix of ids and entries of this operation.
fn label(install: &str, operation: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("{install}-{operation}").chars().map(plain).collect()
}
