//! `portcullis top`: which callers call which tools, how fast, which rules refuse, and which windows are nearly used
//! up.
//!
//! Owns the loop: it reads new log lines and draws. `recent` counts; `frame` shows.

mod frame;
mod growing;
mod recent;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use portcullis_core::id::OrgId;
use serde_json::Value;

use self::frame::Frame;
use self::growing::Growing;
use self::recent::Recent;
use super::filter::Filter;
use super::halt::Halt;
use super::log::PassedOver;
use crate::args::{Session, TopArgs};
use crate::limits;
use crate::report::{CliError, Output, Report, Verdict, progress};
use crate::store::Store;
use crate::time::{Seconds, since_1970};

/// The least time between two searches for windows: Redis has to list every window in use.
const WINDOWS_EVERY: Duration = Duration::from_secs(10);

pub(crate) fn top(session: &Session, args: &TopArgs) -> Result<Report, CliError> {
    match watch(session, args) {
        Ok(()) => Ok(Report::written(Verdict::Good)),
        Err(halt) => halt.outcome(),
    }
}

fn watch(session: &Session, args: &TopArgs) -> Result<(), Halt> {
    let span = Duration::from_secs(args.window.0.max(1));
    let filter = Filter::of(session, &args.filter, Seconds::now())?;
    let mut passed_over = PassedOver::default();
    let mut recent = Recent::new(span);
    let mut logs = Growing::open(&args.logs, since_1970().saturating_sub(span))?;
    let mut windows = Windows::new(session, args);
    let screen = Screen::new(session.output);
    loop {
        let grows = logs.read(|place, item| {
            if let Some((entry, line)) = passed_over.entry(place, &item)
                && filter.matches(&entry, line)
            {
                recent.count(&entry);
            }
        })?;
        if !args.once || !grows || logs.is_at_its_end() {
            let summary = recent.summary(since_1970());
            let rows = usize::try_from(args.rows).unwrap_or(usize::MAX);
            let near = windows.near();
            screen.draw(&Frame { summary: &summary, rows, windows: near, over: args.over })?;
            if args.once || !grows {
                passed_over.warning().iter().for_each(|warning| progress(warning));
                return Ok(());
            }
        }
        logs.wait(Duration::from_secs(args.every.0.max(1)));
    }
}

/// The windows that are nearly used up, as the last search found them.
struct Windows<'a> {
    session: &'a Session,
    organisation: Option<OrgId>,
    over: u8,
    seen: Option<(Instant, Result<Vec<Value>, String>)>,
}

impl<'a> Windows<'a> {
    fn new(session: &'a Session, args: &TopArgs) -> Self {
        let organisation = session.organisation.clone();
        Self { session, organisation, over: args.over, seen: None }
    }

    /// Those windows, or the reason why `top` does not know them.
    fn near(&mut self) -> Result<&[Value], &str> {
        let stale = |(at, _): &(Instant, _)| at.elapsed() >= WINDOWS_EVERY;
        if self.seen.as_ref().is_none_or(stale) {
            let found = self.look().map_err(|refusal| refusal.found().to_owned());
            self.seen = Some((Instant::now(), found));
        }
        match &self.seen {
            Some((_, Ok(windows))) => Ok(windows),
            Some((_, Err(why))) => Err(why),
            None => Ok(&[]),
        }
    }

    fn look(&self) -> Result<Vec<Value>, CliError> {
        let mut store = Store::open(self.session)?;
        let organisations = match &self.organisation {
            Some(org) => vec![org.clone()],
            None => store.organisations()?,
        };
        limits::used_over(&mut store, &organisations, self.over)
    }
}

/// The output for frames.
struct Screen {
    output: Output,
    /// Columns and lines of a terminal. Without a terminal, each frame follows the one before.
    is_terminal: bool,
}

impl Screen {
    fn new(output: Output) -> Self {
        let is_terminal = output == Output::Table && std::io::stdout().is_terminal();
        Self { output, is_terminal }
    }

    fn draw(&self, frame: &Frame<'_>) -> Result<(), Halt> {
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", frame.json())?,
            Output::Table if self.is_terminal => {
                let size = terminal_size::terminal_size();
                let (columns, lines) = size.map_or((usize::MAX, usize::MAX), |(width, height)| {
                    (usize::from(width.0), usize::from(height.0))
                });
                // Cursor home; clear each line to its end; clear the rest of the screen.
                write!(out, "\x1b[H")?;
                for line in frame.text().lines().take(lines.saturating_sub(1)) {
                    writeln!(out, "{}\x1b[K", frame::cut(line, columns))?;
                }
                write!(out, "\x1b[J")?;
            }
            Output::Table => writeln!(out, "{}\n", frame.text())?,
        }
        Ok(out.flush()?)
    }
}
