//! `audit search`: the matching entries of logs.
//!
//! Owns which of them are shown, and their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entry::Entry;
use super::filter::Filter;
use super::halt::Halt;
use super::log::{Logs, PassedOver, Quiet};
use super::rows::Rows;
use super::vault_log::VaultLog;
use crate::args::{SearchArgs, Session};
use crate::report::{CliError, Report, Verdict, progress};
use crate::time::Seconds;

pub(crate) fn search(session: &Session, args: &SearchArgs) -> Result<Report, CliError> {
    let logs = Logs::named(&args.logs.files)?;
    let filter = Filter::of(session, &args.filter, Seconds::now())?;
    let vault = VaultLog::named(&args.vault_log)?;
    let mut rows = Rows::new(session.output).beside(vault);
    let read = match args.limit {
        None => logs.each_entry(Quiet::No, |entry, line| {
            if filter.matches(entry, line) {
                rows.write(entry, line)?;
            }
            Ok(())
        }),
        Some(limit) => newest(&logs, &filter, limit, &mut rows),
    };
    let ended = read.and_then(|passed_over| rows.flush().map(|()| passed_over).map_err(Halt::from));
    match ended {
        Err(halt) => halt.outcome(),
        Ok(passed_over) => {
            passed_over.warning().iter().for_each(|warning| progress(warning));
            if rows.written() == 0 {
                progress("no entry matches");
                return Ok(Report::written(Verdict::Wanting));
            }
            Ok(Report::written(Verdict::Good))
        }
    }
}

/// Writes the newest matching entries, by time. Older ones are dropped during the read.
fn newest(logs: &Logs, filter: &Filter, limit: u32, rows: &mut Rows) -> Result<PassedOver, Halt> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut kept: BinaryHeap<Reverse<(String, u64, String)>> = BinaryHeap::new();
    let mut number = 0_u64;
    let passed_over = logs.each_entry(Quiet::UntilTheEnd, |entry, line| {
        let oldest = kept.peek().map(|Reverse((time, ..))| time.as_str());
        let is_late =
            kept.len() < limit || oldest.is_some_and(|oldest| &*entry.timestamp >= oldest);
        if is_late && filter.matches(entry, line) {
            // RFC 3339 in UTC: the order of the texts is the order of the times; then the order of the log.
            number = number.saturating_add(1);
            kept.push(Reverse((entry.timestamp.to_string(), number, line.to_owned())));
            if kept.len() > limit {
                kept.pop();
            }
        }
        Ok(())
    })?;
    let mut kept: Vec<_> = kept.into_iter().map(|Reverse(entry)| entry).collect();
    kept.sort();
    for (_, _, line) in &kept {
        if let Ok((entry, line)) = Entry::read(line.as_bytes()) {
            rows.write(&entry, line)?;
        }
    }
    Ok(passed_over)
}
