//! `audit report`: a summary of the log for a weekly review.
//!
//! Owns the command. `tally` counts, `summary` sorts, `text` and `html` show.

mod html;
mod plot;
mod summary;
mod tally;
mod text;

use serde_json::json;

use super::filter::Filter;
use super::halt::unwritable;
use super::log::{Logs, Quiet};
use crate::args::{FilterArgs, ReportArgs, Session};
use crate::report::{CliError, Report, Verdict, progress};
use crate::time::Seconds;

use summary::Summary;
use tally::Tally;

pub(crate) fn report(session: &Session, args: &ReportArgs) -> Result<Report, CliError> {
    let logs = Logs::named(&args.logs.files)?;
    let now = Seconds::now();
    let since = Filter::of(session, &args.filter, now)?.since();
    // Older entries show which tools are not new to a caller.
    let filter = Filter::of(session, &FilterArgs { since: None, ..args.filter.clone() }, now)?;
    let mut tally = Tally::new(since, (args.hours.from, args.hours.to));
    let read = logs.each_entry(Quiet::UntilTheEnd, |entry, line| {
        if filter.matches(entry, line) {
            tally.take(entry);
        }
        Ok(())
    });
    let passed_over = match read {
        Ok(passed_over) => passed_over,
        Err(halt) => return halt.outcome(),
    };
    passed_over.warning().iter().for_each(|warning| progress(warning));
    let mut summary = Summary::of(tally, usize::try_from(args.top).unwrap_or(usize::MAX));
    (summary.foreign_lines, summary.damaged_lines) = (passed_over.foreign, passed_over.damaged);
    if let Some(path) = &args.html {
        let page = html::page(&summary);
        let place = path.display().to_string();
        std::fs::write(path, page).map_err(|error| unwritable(&place, &error))?;
    }
    let is_empty = summary.requests == 0 && summary.admin_changes == 0;
    let (verdict, text) = match is_empty {
        true => (Verdict::Wanting, "no entry matches".to_owned()),
        false => (Verdict::Good, text::text(&summary)),
    };
    Ok(Report::judged(verdict, text, json!(summary)))
}
