//! Log files as operators have them: rotated, compressed, named in the order of a shell, with lines of others between.
//!
//! Owns files, their order and line numbers. What an intact chain is, the core decides.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::report::Refusal;

/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// So many lines are looked at for an entry that tells when a file began.
const LOOKED_AT: usize = 1_000;

/// One file of a log.
pub(super) struct LogFile {
    path: PathBuf,
    pub(super) place: String,
    /// The time of its first entry; `None` when it has none.
    since: Option<String>,
}

impl LogFile {
    fn new(path: &Path) -> Result<Self, Refusal> {
        let place = path.display().to_string();
        let mut since = None;
        for line in lines(path, &place)?.take(LOOKED_AT) {
            let line = line.map_err(|error| unreadable(&place, &error))?;
            let entry = serde_json::from_slice::<Value>(&line).unwrap_or_default();
            let member = |name: &str| entry.get(name).unwrap_or(&Value::Null);
            if member("chain").is_string() && member("seq").is_u64() {
                // RFC 3339 in UTC, so that text sorts as time does.
                since = member("timestamp").as_str().map(str::to_owned);
                break;
            }
        }
        Ok(Self { path: path.to_owned(), place, since })
    }

    /// Hands on each line with its number.
    pub(super) fn each_line(&self, mut read: impl FnMut(u64, &[u8])) -> Result<(), Refusal> {
        each(lines(&self.path, &self.place)?, &self.place, &mut read)
    }
}

/// Hands on each line of standard input with its number.
pub(super) fn each_line_of_stdin(mut read: impl FnMut(u64, &[u8])) -> Result<(), Refusal> {
    let place = "standard input";
    let input = decoded(std::io::stdin()).map_err(|error| unreadable(place, &error))?;
    each(BufReader::new(input).split(b'\n'), place, &mut read)
}

/// The files in the order of their first entries, whatever order they were named in.
pub(super) fn in_order(paths: &[PathBuf]) -> Result<Vec<LogFile>, Refusal> {
    let mut files = paths.iter().map(|path| LogFile::new(path)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.since.cmp(&b.since));
    Ok(files)
}

fn each(
    lines: impl Iterator<Item = std::io::Result<Vec<u8>>>,
    place: &str,
    read: &mut impl FnMut(u64, &[u8]),
) -> Result<(), Refusal> {
    for (number, line) in (1..).zip(lines) {
        read(number, &line.map_err(|error| unreadable(place, &error))?);
    }
    Ok(())
}

fn lines(
    path: &Path,
    place: &str,
) -> Result<impl Iterator<Item = std::io::Result<Vec<u8>>>, Refusal> {
    let opened = File::open(path).and_then(decoded);
    let opened = opened.map_err(|error| unreadable(place, &error))?;
    Ok(BufReader::new(opened).split(b'\n'))
}

/// The text of a file, compressed or not: its first bytes tell, not its name.
fn decoded<'a>(input: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::new(input);
    let compressed = input.fill_buf()?.starts_with(&GZIP);
    Ok(if compressed { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) })
}

fn unreadable(place: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("cannot be read: {error}"), place)
        .expected("an audit log: one JSON object a line, also compressed with gzip")
}
