//! Audit logs as operators have them: rotated, compressed, in any order, with lines of other programs between the
//! entries.
//!
//! Owns files, their order, line numbers, and which lines are entries. The core defines an intact chain. Memory is
//! bounded for lines of any length.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use serde::de::IgnoredAny;

use super::entry::Entry;
use super::halt::Halt;
use super::lines::{End, LONGEST, Lines, RawLine};
use super::progress::Progress;
use crate::report::CliError;

/// The first bytes of every gzip file.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How many lines are searched for an entry with the start time of a file.
const LOOKED_AT: usize = 1_000;
/// The size of one read.
const AT_ONCE: usize = 256 * 1_024;
/// The name of standard input in errors.
const STDIN: &str = "standard input";

/// The logs of one command, in order.
pub(super) struct Logs {
    files: Vec<LogFile>,
    stdin: bool,
}

/// The position of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) line: u64,
}

/// The kind of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// An entry, or a damaged one.
    Entry(&'a [u8]),
    /// A line of another program, or a blank one.
    Foreign,
    /// The last line of a file, which ends inside an entry.
    Cut,
    /// Longer than any entry.
    TooLong(u64),
    /// The rest of the file cannot be decompressed.
    Damaged(String),
}

/// The lines that commands skipped, for the final report.
#[derive(Debug, Default, Clone)]
pub(super) struct PassedOver {
    pub(super) foreign: u64,
    /// Lines that are damaged entries.
    pub(super) damaged: u64,
    first: Option<DamagedLine>,
}

/// A damaged entry, and why it cannot be read.
#[derive(Debug, Clone)]
struct DamagedLine {
    file: String,
    line: u64,
    why: String,
}

impl Logs {
    /// Opens only the files whose order must be known.
    pub(super) fn named(paths: &[PathBuf]) -> Result<Self, CliError> {
        let mut logs = Self { files: Vec::new(), stdin: false };
        for path in paths {
            match path == Path::new("-") {
                true => logs.stdin = true,
                false => logs.files.push(LogFile::new(path)?),
            }
        }
        logs.files.sort_by(|a, b| a.since.cmp(&b.since));
        Ok(logs)
    }

    /// Passes on each line with its position; files in the order of their first entries, standard input last.
    pub(super) fn each(
        &self,
        quiet: Quiet,
        mut take: impl FnMut(Place<'_>, Item<'_>) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let mut progress = self.progress(quiet);
        for file in &self.files {
            let input = opened(&file.path, &file.place, progress.counter())?;
            each(input, &file.place, &mut progress, &mut take)?;
        }
        if self.stdin {
            let input = Counted { input: std::io::stdin(), read: progress.counter() };
            let input = decoded(input).map_err(|error| unreadable(STDIN, &error))?;
            each(input, STDIN, &mut progress, &mut take)?;
        }
        Ok(())
    }

    /// Passes on each readable entry; counts everything else.
    pub(super) fn each_entry(
        &self,
        quiet: Quiet,
        mut take: impl FnMut(&Entry<'_>, &str) -> Result<(), Halt>,
    ) -> Result<PassedOver, Halt> {
        let mut passed_over = PassedOver::default();
        self.each(quiet, |place, item| match passed_over.entry(place, &item) {
            Some((entry, line)) => take(&entry, line),
            None => Ok(()),
        })?;
        Ok(passed_over)
    }

    /// The progress for files with a known size, when standard error is a terminal and nothing else is shown.
    fn progress(&self, quiet: Quiet) -> Progress {
        let watched = std::io::stderr().is_terminal()
            && (quiet == Quiet::UntilTheEnd || !std::io::stdout().is_terminal());
        if !watched || self.stdin {
            return Progress::hidden();
        }
        let sizes = self.files.iter().filter_map(|file| std::fs::metadata(&file.path).ok());
        Progress::of(sizes.map(|file| file.len()).fold(0, u64::saturating_add))
    }

    pub(super) fn files(&self) -> impl DoubleEndedIterator<Item = &LogFile> {
        self.files.iter()
    }

    pub(super) fn has_stdin(&self) -> bool {
        self.stdin
    }
}

/// Whether a command prints while it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    No,
    UntilTheEnd,
}

impl PassedOver {
    /// The entry in a line, if it can be read.
    pub(super) fn entry<'a>(
        &mut self,
        place: Place<'_>,
        item: &Item<'a>,
    ) -> Option<(Entry<'a>, &'a str)> {
        let why = match item {
            Item::Foreign => {
                self.foreign = self.foreign.saturating_add(1);
                return None;
            }
            Item::Entry(text) => match Entry::read(text) {
                Ok((entry, line)) if entry.is_linked() => return Some((entry, line)),
                Ok(_) => "no chain or no seq".to_owned(),
                Err(why) => why,
            },
            Item::Cut => CUT.to_owned(),
            Item::TooLong(length) => too_long(*length),
            Item::Damaged(why) => why.clone(),
        };
        self.damaged = self.damaged.saturating_add(1);
        let (file, line) = (place.file.to_owned(), place.line);
        self.first.get_or_insert(DamagedLine { file, line, why });
        None
    }

    /// What was skipped in a part of a log, with the line numbers of the whole one.
    pub(super) fn numbered_after(mut self, lines: u64) -> Self {
        if let Some(first) = &mut self.first {
            first.line = first.line.saturating_add(lines);
        }
        self
    }

    /// Adds what was skipped before it.
    pub(super) fn add_earlier(&mut self, earlier: Self) {
        self.foreign = self.foreign.saturating_add(earlier.foreign);
        self.damaged = self.damaged.saturating_add(earlier.damaged);
        self.first = earlier.first.or(self.first.take());
    }

    /// A warning about damaged lines; nothing when there are none.
    pub(super) fn warning(&self) -> Option<String> {
        let DamagedLine { file, line, why } = self.first.as_ref()?;
        Some(format!(
            "warning: {} lines are damaged entries and are left out; the first: {file}:{line}: {why}; \
             portcullis audit verify names all",
            self.damaged
        ))
    }

    /// A warning about damaged lines that were added to a log while it was followed.
    pub(super) fn warning_of_added(&self) -> Option<String> {
        let DamagedLine { file, why, .. } = self.first.as_ref()?;
        Some(format!(
            "warning: {} damaged entries were added and are left out; the first, to {file}: {why}",
            self.damaged
        ))
    }
}

/// One file of a log.
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) place: String,
    /// The time of its first entry; `None` when it has none.
    since: Option<String>,
}

impl LogFile {
    fn new(path: &Path) -> Result<Self, CliError> {
        let place = path.display().to_string();
        let mut lines = Lines::new(opened(path, &place, Rc::default())?);
        let mut since = None;
        for _ in 0..LOOKED_AT {
            // Damage is reported when the whole file is read.
            let Ok(Some(line)) = lines.next() else { break };
            if let Ok((entry, _)) = Entry::read(line.text)
                && entry.is_linked()
            {
                // RFC 3339 in UTC: the order of the texts is the order of the times.
                since = Some(entry.timestamp.to_string());
                break;
            }
        }
        Ok(Self { path: path.to_owned(), place, since })
    }

    pub(super) fn unreadable(&self, error: &std::io::Error) -> CliError {
        unreadable(&self.place, error)
    }
}

fn each(
    input: Input,
    place: &str,
    progress: &mut Progress,
    take: &mut impl FnMut(Place<'_>, Item<'_>) -> Result<(), Halt>,
) -> Result<(), Halt> {
    let mut lines = Lines::new(input);
    loop {
        progress.tick();
        let read = lines.number();
        match lines.next() {
            Ok(Some(line)) => {
                let number = line.number;
                take(Place { file: place, line: number }, Item::of(&line))?;
            }
            Ok(None) => return Ok(()),
            Err(error) => match damage(&error) {
                Some(why) => {
                    let line = read.saturating_add(1);
                    return take(Place { file: place, line }, Item::Damaged(why));
                }
                None => return Err(unreadable(place, &error).into()),
            },
        }
    }
}

impl<'a> Item<'a> {
    /// The kind of a line that has an end.
    pub(super) fn whole(text: &'a [u8]) -> Self {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if is_foreign(text) { Self::Foreign } else { Self::Entry(text) }
    }

    pub(super) fn of(line: &RawLine<'a>) -> Self {
        let text = line.text;
        if line.end == End::OfInput && is_cut(text) {
            return Self::Cut;
        }
        if is_foreign(text) {
            return Self::Foreign;
        }
        match line.length > u64::try_from(LONGEST).unwrap_or(u64::MAX) {
            true => Self::TooLong(line.length),
            false => Self::Entry(text),
        }
    }
}

/// The message for a line without an end.
pub(super) const CUT: &str =
    "the last line is cut off: Envoy is writing it now, or stopped in the middle of it";

/// The message for a line that is longer than any entry.
pub(super) fn too_long(length: u64) -> String {
    format!("{length} bytes in one line: an entry has at most {LONGEST}")
}

/// Whether a line never was an audit entry: blank, or of another log in the same file. A damaged entry still has one of
/// these members' names; a removed entry leaves a gap.
fn is_foreign(line: &[u8]) -> bool {
    ["\"chain\"", "\"prev_hash\"", "\"seq\""]
        .iter()
        .all(|member| memchr::memmem::find(line, member.as_bytes()).is_none())
}

/// Whether a line stops inside an object.
pub(super) fn is_cut(line: &[u8]) -> bool {
    line.starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

type Input = Box<dyn BufRead>;

fn opened(path: &Path, place: &str, read: Rc<Cell<u64>>) -> Result<Input, CliError> {
    let opened = File::open(path).and_then(|input| decoded(Counted { input, read }));
    opened.map_err(|error| unreadable(place, &error))
}

/// The text of a file, compressed or not: its first bytes decide, not its name.
fn decoded(input: impl Read + 'static) -> std::io::Result<Input> {
    let mut input = BufReader::with_capacity(AT_ONCE, input);
    let compressed = input.fill_buf()?.starts_with(&GZIP);
    Ok(match compressed {
        true => Box::new(BufReader::with_capacity(AT_ONCE, MultiGzDecoder::new(input))),
        false => Box::new(input),
    })
}

/// Counts the bytes that come from a file, for the progress.
struct Counted<R> {
    input: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        let all = self.read.get().saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        self.read.set(all);
        Ok(read)
    }
}

/// The damage of compressed data, if the error is about that.
fn damage(error: &std::io::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::UnexpectedEof => Some("the compressed file is cut off here".to_owned()),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Some(format!("the compressed file is damaged from here on: {error}"))
        }
        _ => None,
    }
}

pub(super) fn unreadable(place: &str, error: &std::io::Error) -> CliError {
    CliError::new(format!("cannot be read: {error}"), place)
        .expected("an audit log: one JSON object a line, also compressed with gzip")
        .next("name the files themselves, such as /var/log/portcullis/audit.jsonl*; `-` is standard input")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<String> {
        let input: Input = Box::new(BufReader::new(std::io::Cursor::new(text.to_owned())));
        let mut items = Vec::new();
        let all = each(input, "f", &mut Progress::hidden(), &mut |place, item| {
            items.push(match item {
                Item::Entry(text) => format!("{} entry {}", place.line, text.len()),
                item => format!("{} {item:?}", place.line),
            });
            Ok(())
        });
        assert!(all.is_ok());
        items
    }

    // Proves: A20
    #[test]
    fn a_line_is_an_entry_or_of_another_program_or_cut() {
        let entry = r#"{"chain":"a","hash":"","prev_hash":"","seq":1}"#;
        assert_eq!(
            items(&format!("{entry}\r\n\n[info] started\n{{\"a\":1}}\n{entry}")),
            ["1 entry 46", "2 Foreign", "3 Foreign", "4 Foreign", "5 entry 46"]
        );
        // Cut before any name of an entry's member, and after an inner brace.
        for cut in [r#"{"api_key_id":"a"#, r#"{"chain":"a","decision":{"effect":"allow"}"#] {
            assert_eq!(items(&format!("{entry}\n{cut}")), ["1 entry 46", "2 Cut"]);
            assert_ne!(items(&format!("{cut}\n"))[0], "1 Cut");
        }
    }
}
