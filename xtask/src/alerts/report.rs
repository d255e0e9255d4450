//! The results of a run: the page that is committed, and whether every alert and query works.

use super::causes::NOT_CAUSED;
use super::rules::{DIGEST, SEEN};
use super::scene::write;
use super::watch::Expected;
use crate::failure::{Failure, Result};
use portcullis_stack::Workspace;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// One alert of one cause.
pub(crate) struct Row {
    pub(crate) expected: Expected,
    pub(crate) what: &'static str,
    pub(crate) fired: Option<Duration>,
    pub(crate) cleared: Option<Duration>,
}

impl Row {
    fn holds(&self) -> bool {
        self.fired.is_some() && self.cleared.is_some()
    }

    fn name(&self) -> String {
        let labels: Vec<&str> = self.expected.labels.iter().map(|(_, value)| *value).collect();
        let more =
            if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        format!("`{}`{more}", self.expected.alert)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.holds() { "ok  " } else { "FAIL" };
        let (fired, cleared) = (seconds(self.fired), seconds(self.cleared));
        write!(f, "{mark} {}: fired after {fired}, cleared after {cleared}", self.name())
    }
}

fn seconds(after: Option<Duration>) -> String {
    after.map_or_else(|| "never".to_owned(), |it| format!("{} s", it.as_secs_f64().round()))
}

/// A query of the dashboard, and the number of its series.
pub(crate) struct Asked {
    pub(crate) panel: String,
    pub(crate) query: String,
    pub(crate) series: usize,
}

pub(crate) struct Report {
    pub(crate) digest: String,
    pub(crate) prometheus: String,
    pub(crate) faster: u32,
    pub(crate) took: Duration,
    pub(crate) rows: Vec<Row>,
    pub(crate) asked: Vec<Asked>,
    /// Descriptions whose template failed.
    pub(crate) broken: Vec<String>,
}

impl Report {
    /// Writes the page if it is to be recorded, and fails when a result is wrong.
    pub(crate) fn conclude(&self, workspace: &Workspace, record: bool) -> Result<()> {
        let empty: Vec<&Asked> = self.asked.iter().filter(|it| it.series == 0).collect();
        for Asked { panel, query, .. } in &empty {
            println!("FAIL no data: {panel}: {query}");
        }
        for description in &self.broken {
            println!("FAIL a description: {description}");
        }
        let held = self.rows.iter().filter(|row| row.holds()).count();
        println!("{held} of {} alerts fired and cleared", self.rows.len());
        println!(
            "{} of {} queries returned data",
            self.asked.len() - empty.len(),
            self.asked.len()
        );
        let file = if record {
            workspace.root.join(SEEN)
        } else {
            workspace.target.join(format!("alerts/{}/seen.md", self.faster))
        };
        write(&file, &self.page())?;
        if held == self.rows.len() && empty.is_empty() && self.broken.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("not all of it holds; {} has the table", file.display())))
    }

    fn page(&self) -> String {
        let Self { digest, prometheus, faster, took, rows, asked, .. } = self;
        let times = match faster {
            1 => "with the rules as they are".to_owned(),
            times => format!("with every window and wait of the rules {times} times shorter"),
        };
        let with_data = asked.iter().filter(|it| it.series > 0).count();
        let held = rows.iter().filter(|row| row.holds()).count();
        let mut text = format!(
            "# Alerts, as they fired\n\n\
             Written by `cargo xtask alerts --record`; do not edit. A real Prometheus\n\
             ({prometheus}) scrapes three gateways every second,\n\
             {times},\n\
             while the condition of each alert is caused and undone. {held} of {} fired and cleared, in {} s.\n\
             Times depend on the machine and on how often calls are made. Causes that run side by side hold\n\
             each other up: one takes nine in ten connections of a gateway for minutes.\n\n\
             | alert | cause | fired after | cleared after |\n|---|---|---|---|\n",
            rows.len(),
            took.as_secs(),
        );
        for row in rows {
            // Writing to a `String` does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.name(),
                row.what,
                seconds(row.fired),
                seconds(row.cleared)
            );
        }
        text.push_str("\n## Not caused here\n\n`promtool test rules` makes all alerts fire and clear, also these.\n\n| alert | why |\n|---|---|\n");
        for (alert, why) in NOT_CAUSED {
            let _ = writeln!(text, "| `{alert}` | {why} |");
        }
        let _ = write!(
            text,
            "\n## The dashboard\n\n{with_data} of {} queries of the dashboard returned data from this Prometheus.\n",
            asked.len()
        );
        for Asked { panel, .. } in asked.iter().filter(|it| it.series == 0) {
            let _ = writeln!(text, "\n- no data: {panel}");
        }
        let _ = writeln!(
            text,
            "\n{DIGEST}{digest}`.\n`cargo xtask tidy` compares it: changed rules need a new run."
        );
        text
    }
}
