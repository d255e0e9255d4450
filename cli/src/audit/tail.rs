//! `audit tail`: the last entries of logs, and new ones as they arrive.
//!
//! Owns which entries are the last ones. `follow` follows a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::entry::Entry;
use super::filter::Filter;
use super::follow::Follower;
use super::halt::Halt;
use super::lines::{End, Lines};
use super::log::{GZIP, Item, Logs, PassedOver, Place, Quiet};
use super::rows::Rows;
use crate::args::{Session, TailArgs};
use crate::report::{CliError, Report, Verdict, progress};
use crate::time::Seconds;

/// The first read covers this many bytes at the end of a file.
const FIRST: u64 = 1_024 * 1_024;

pub(crate) fn tail(session: &Session, args: &TailArgs) -> Result<Report, CliError> {
    let logs = Logs::named(&args.logs.files)?;
    let filter = Filter::of(session, &args.filter, Seconds::now())?;
    let mut tail = Tail {
        filter,
        rows: Rows::new(session.output),
        most: usize::try_from(args.lines).unwrap_or(usize::MAX),
        passed_over: PassedOver::default(),
        unended: if args.follow { Unended::ComesLater } else { Unended::Counts },
    };
    let ended = if args.follow { tail.follow(&logs) } else { tail.last_of(&logs).map(|_| ()) };
    match ended.and_then(|()| tail.rows.flush().map_err(Halt::from)) {
        Err(halt) => halt.outcome(),
        Ok(()) => {
            tail.passed_over.warning().iter().for_each(|warning| progress(warning));
            let found = tail.rows.written() > 0;
            Ok(Report::written(if found { Verdict::Good } else { Verdict::Wanting }))
        }
    }
}

struct Tail {
    filter: Filter,
    rows: Rows,
    most: usize,
    passed_over: PassedOver,
    unended: Unended,
}

/// What becomes of a last line without an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unended {
    /// It is a line like the others.
    Counts,
    /// The file is followed: the line is read once its end is there.
    ComesLater,
}

/// The last matching lines.
type Last = VecDeque<String>;

/// What the end of a file has.
struct Ending {
    last: Last,
    passed_over: PassedOver,
    /// Where its first line begins.
    start: u64,
    /// Where its last line ends.
    end: u64,
}

impl Tail {
    /// Writes the last entries; returns followers for the files that can grow, from the end of the read.
    fn last_of(&mut self, logs: &Logs) -> Result<Vec<Follower>, Halt> {
        let mut last = Last::new();
        let mut followers = Vec::new();
        // The newest file first: a compressed one, which no gateway writes to any more, is read only if those have too
        // few. Plain ones may be the logs of several gateways.
        for file in logs.files().rev() {
            let opened = File::open(&file.path).map_err(|error| file.unreadable(&error))?;
            if is_plain(&opened).map_err(|error| file.unreadable(&error))? {
                let mut found = self
                    .end_of(&opened, &file.place, self.most)
                    .map_err(|error| file.unreadable(&error))?;
                found.last.append(&mut last);
                last = found.last;
                self.passed_over.add_earlier(found.passed_over);
                followers.push(Follower::new(opened, &file.path, &file.place, found.end));
            } else if last.len() < self.most {
                let (mut found, passed_over) =
                    self.last_of_all(&Logs::named(std::slice::from_ref(&file.path))?)?;
                found.append(&mut last);
                last = found;
                self.passed_over.add_earlier(passed_over);
            }
        }
        if logs.has_stdin() {
            let (mut found, mut passed_over) =
                self.last_of_all(&Logs::named(&[Path::new("-").to_owned()])?)?;
            last.append(&mut found);
            passed_over.add_earlier(std::mem::take(&mut self.passed_over));
            self.passed_over = passed_over;
        }
        self.write_last(last)?;
        followers.reverse();
        Ok(followers)
    }

    /// Writes the last of the entries of several files, by their time.
    fn write_last(&mut self, last: Last) -> Result<(), Halt> {
        let lines = Vec::from(last);
        let mut entries: Vec<_> =
            lines.iter().filter_map(|line| Entry::read(line.as_bytes()).ok()).collect();
        // Entries of one time stay in the order of their file.
        entries.sort_by_key(|(entry, _)| entry.time());
        for (entry, line) in entries.split_off(entries.len().saturating_sub(self.most)) {
            self.rows.write(&entry, line)?;
        }
        Ok(())
    }

    /// The last entries of inputs that can only be read from the start.
    fn last_of_all(&self, logs: &Logs) -> Result<(Last, PassedOver), Halt> {
        let mut last = Last::new();
        let (filter, most) = (&self.filter, self.most);
        let passed_over = logs.each_entry(Quiet::UntilTheEnd, |entry, line| {
            if filter.matches(entry, line) {
                last.push_back(line.to_owned());
                if last.len() > most {
                    last.pop_front();
                }
            }
            Ok(())
        })?;
        Ok((last, passed_over))
    }

    /// The last `most` entries of a file, read from its end.
    fn end_of(&self, file: &File, place: &str, most: usize) -> std::io::Result<Ending> {
        let length = file.metadata()?.len();
        let mut span = FIRST;
        loop {
            let start = length.saturating_sub(span);
            let mut ending = self.entries_from(file, place, start, length, most)?;
            if ending.last.len() >= most || start == 0 {
                if ending.passed_over.damaged > 0 {
                    let lines = lines_until(file, ending.start)?;
                    ending.passed_over = ending.passed_over.numbered_after(lines);
                }
                return Ok(ending);
            }
            span = span.saturating_mul(4);
        }
    }

    fn entries_from(
        &self,
        file: &File,
        place: &str,
        start: u64,
        length: u64,
        most: usize,
    ) -> std::io::Result<Ending> {
        let mut input = BufReader::with_capacity(256 * 1_024, file);
        // One byte earlier, so that a line that begins here is complete.
        let from = input.seek(SeekFrom::Start(start.saturating_sub(1)))?;
        let mut end = from;
        let (mut last, mut passed_over) = (Last::new(), PassedOver::default());
        if start > 0 {
            end = end.saturating_add(u64::try_from(input.skip_until(b'\n')?).unwrap_or(u64::MAX));
        }
        let start = end;
        let mut lines = Lines::new(input);
        while end < length {
            let Some(line) = lines.next()? else { break };
            if line.end == End::OfInput && self.unended == Unended::ComesLater {
                break;
            }
            end = end.saturating_add(line.length).saturating_add(1);
            let place = Place { file: place, line: line.number };
            if let Some((entry, text)) = passed_over.entry(place, &Item::of(&line))
                && self.filter.matches(&entry, text)
            {
                last.push_back(text.to_owned());
                if last.len() > most {
                    last.pop_front();
                }
            }
        }
        Ok(Ending { last, passed_over, start, end })
    }

    /// Writes the last entries, then each new one, until the command is interrupted.
    fn follow(&mut self, logs: &Logs) -> Result<(), Halt> {
        if logs.has_stdin() {
            return self.follow_stdin(logs);
        }
        let mut followers = self.last_of(logs)?;
        self.rows.flush()?;
        std::mem::take(&mut self.passed_over)
            .warning()
            .iter()
            .for_each(|warning| progress(warning));
        if followers.is_empty() {
            return Err(CliError::new(
                "nothing to follow: compressed logs do not grow",
                "the command line",
            )
            .expected("the log that Envoy writes to")
            .next("name it, or leave --follow out")
            .into());
        }
        loop {
            for follower in &mut followers {
                let (filter, rows, passed_over) =
                    (&self.filter, &mut self.rows, &mut self.passed_over);
                follower.poll(|place, item| {
                    if let Some((entry, line)) = passed_over.entry(place, &item)
                        && filter.matches(&entry, line)
                    {
                        rows.write(&entry, line)?;
                    }
                    Ok(())
                })?;
            }
            self.rows.flush()?;
            let added = std::mem::take(&mut self.passed_over);
            added.warning_of_added().iter().for_each(|warning| progress(warning));
            std::thread::sleep(super::follow::PAUSE);
        }
    }

    fn follow_stdin(&mut self, logs: &Logs) -> Result<(), Halt> {
        let (filter, rows) = (&self.filter, &mut self.rows);
        let passed_over = logs.each_entry(Quiet::No, |entry, line| {
            if filter.matches(entry, line) {
                rows.write(entry, line)?;
                rows.flush()?;
            }
            Ok(())
        });
        self.passed_over = passed_over?;
        Ok(())
    }
}

/// The number of lines that end in the first `most` bytes of a file.
fn lines_until(mut file: &File, most: u64) -> std::io::Result<u64> {
    file.rewind()?;
    let mut input = BufReader::with_capacity(256 * 1_024, file.take(most));
    let mut lines = 0_u64;
    while input.skip_until(b'\n')? > 0 {
        lines = lines.saturating_add(1);
    }
    Ok(lines)
}

/// Whether a file is not compressed.
fn is_plain(file: &File) -> std::io::Result<bool> {
    let mut input = BufReader::with_capacity(2, file);
    let plain = !input.fill_buf()?.starts_with(&GZIP);
    input.rewind()?;
    Ok(plain)
}
