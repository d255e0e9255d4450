//! `audit export`: entries in the forms of spreadsheets and security tools, one row an entry.
//!
//! Owns what is written when; each form has a module of its own.

mod cef;
mod csv;
mod ocsf;

use std::io::{BufWriter, Error, Write as _};

use super::filter::Filter;
use super::halt::Halt;
use super::log::{Logs, Quiet};
use super::rows::json_line;
use crate::args::{ExportArgs, ExportFormat, Session};
use crate::report::{CliError, Report, Verdict, progress};
use crate::time::Seconds;

/// As which product entries are known to security tools.
const PRODUCT: &str = "Portcullis";
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn export(session: &Session, args: &ExportArgs) -> Result<Report, CliError> {
    let logs = Logs::named(&args.logs.files)?;
    let filter = Filter::of(session, &args.filter, Seconds::now())?;
    let mut out = BufWriter::with_capacity(64 * 1_024, std::io::stdout());
    let mut rows = 0_u64;
    let header = match args.format {
        ExportFormat::Csv => writeln!(out, "{}\r", csv::header()),
        ExportFormat::Json | ExportFormat::Cef | ExportFormat::Ocsf => Ok(()),
    };
    let read = header.map_err(Halt::from).and_then(|()| {
        logs.each_entry(Quiet::No, |entry, line| {
            if !filter.matches(entry, line) {
                return Ok(());
            }
            rows = rows.saturating_add(1);
            match args.format {
                ExportFormat::Json => writeln!(out, "{}", json_line(line))?,
                ExportFormat::Csv => writeln!(out, "{}\r", csv::row(entry))?,
                ExportFormat::Cef => writeln!(out, "{}", cef::row(entry))?,
                ExportFormat::Ocsf => {
                    let event = serde_json::to_string(&ocsf::event(entry)).map_err(Error::from)?;
                    writeln!(out, "{}", json_line(&event))?;
                }
            }
            Ok(())
        })
    });
    match read.and_then(|passed_over| out.flush().map(|()| passed_over).map_err(Halt::from)) {
        Err(halt) => halt.outcome(),
        Ok(passed_over) => {
            passed_over.warning().iter().for_each(|warning| progress(warning));
            if rows == 0 {
                progress("no entry matches");
            }
            Ok(Report::written(if rows > 0 { Verdict::Good } else { Verdict::Wanting }))
        }
    }
}

#[cfg(test)]
mod samples {
    //! Entries that have every member, and some that have few.

    use portcullis_core::audit::{AdminAction, AdminEntry, AuditEvent, Chain, Decision, Entry};

    pub(super) fn full() -> String {
        let text = |text: &str| Some(text.to_owned());
        Chain::new("worker".into()).append(&Entry {
            timestamp: "2026-11-28T10:00:00.250000Z".into(),
            request_id: "r1".into(),
            trace_id: text("4bf92f3577b34da6a3ce929d0e0e4736"),
            org_id: text("acme"),
            api_key_id: text("k1"),
            principal: text("=cmd|' /C calc'!A0"),
            agent_id: text("bot-7"),
            actors: vec!["desk".into()],
            auth_method: Some("api_key"),
            role: text("analyst"),
            connector: text("demo"),
            http_method: "POST".into(),
            path: "/demo/mcp".into(),
            query: vec!["toolsets".into(), "=x".into()],
            mcp_method: text("tools/call"),
            tool_name: text("query_users"),
            resource_uris: vec!["a:b".into()],
            input: text(r#"{"note":"a=b|c\\d \"q\"\nnext, last"}"#),
            input_sha256: text("d1"),
            status: "denied",
            http_status: Some(403),
            error_code: Some(-31_403),
            decision: Decision { effect: "deny", rule: "tool.blocked".into() },
            latency_ms: 12,
            upstream_ms: Some(3),
            rows_returned: Some(2),
            credits: Some(1),
            policy_version: text("v1"),
            degraded: vec!["redis"],
            events: vec![
                AuditEvent::AuthSuccess { client_id: "k1".into() },
                AuditEvent::ToolAccessDenied { client_id: "k1".into(), tool: "query_users".into() },
            ],
            client_address: "192.0.2.7".into(),
            user_agent: text("+curl"),
            started_at: text("2026-11-28T09:00:00.000000Z"),
            ..Entry::default()
        })
    }

    /// A stranger from an address of IPv6.
    pub(super) fn stranger() -> String {
        Chain::new("worker".into()).append(&Entry {
            timestamp: "2026-11-28T10:00:01.000000Z".into(),
            request_id: "r2".into(),
            http_method: "PROPFIND".into(),
            path: "/x".into(),
            status: "denied",
            http_status: Some(401),
            decision: Decision { effect: "deny", rule: "auth.missing".into() },
            events: vec![AuditEvent::AuthFailed {
                reason: "missing",
                address: "2001:db8::1".into(),
                path: "/x".into(),
            }],
            client_address: "2001:db8::1".into(),
            ..Entry::default()
        })
    }

    pub(super) fn action() -> String {
        let mut entry = AdminEntry::of(
            AdminAction::KeyRotate,
            "2026-11-28T10:00:02.000000Z".into(),
            "acme".into(),
        );
        entry.actor = "alice".into();
        entry.actor_claim = Some("al".into());
        entry.reason = "leaked".into();
        entry.api_key_id = Some("k1".into());
        Chain::new("admin:acme".into()).append_action(&entry)
    }

    pub(super) fn all() -> [String; 3] {
        [full(), stranger(), action()]
    }
}
