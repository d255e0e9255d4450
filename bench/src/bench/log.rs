//! An Envoy's log: waits until it is complete, counts its lines, and empties it.
//!
//! Knows nothing about the content of a line.

use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::ready;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

/// Envoy flushes its logs every 100 ms; a busy machine takes its time.
const WITHIN: Duration = Duration::from_secs(20);
/// Three flushes without a line mean that no more lines follow.
const QUIET: Duration = Duration::from_millis(300);

/// Waits for `expected` lines, and counts once no more lines come. Empties the file, and keeps one line in a file
/// beside it.
pub(crate) fn drained(log: &Path, expected: u64) -> Result<u64> {
    let awaited = format!("{expected} lines in {}", log.display());
    ready::eventually(&awaited, WITHIN, || {
        lines(log).is_ok_and(|lines| lines >= expected).then_some(())
    })?;
    quiet(log)?;
    let counted = lines(log).and_then(|lines| {
        keep_first_line(log)?;
        empty(log)?;
        Ok(lines)
    });
    counted.map_err(|error| Failure::new(format!("could not use {}: {error}", log.display())))
}

/// The line that [`drained`] kept.
pub(crate) fn example(log: &Path) -> Result<String> {
    let kept = log.with_extension("example.json");
    fs::read_to_string(&kept)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", kept.display())))
}

/// Empties the log once no more lines come.
pub(crate) fn forget(log: &Path) -> Result<()> {
    quiet(log)?;
    empty(log).map_err(|error| Failure::new(format!("could not empty {}: {error}", log.display())))
}

/// Envoy appends: its next line becomes the first one.
fn empty(log: &Path) -> io::Result<()> {
    File::options().write(true).truncate(true).open(log).map(drop)
}

fn lines(log: &Path) -> io::Result<u64> {
    let mut reader = BufReader::new(File::open(log)?);
    let mut count = 0;
    loop {
        let chunk = reader.fill_buf()?;
        let length = chunk.len();
        if length == 0 {
            return Ok(count);
        }
        count += chunk.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        reader.consume(length);
    }
}

fn keep_first_line(log: &Path) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(File::open(log)?).read_line(&mut line)?;
    fs::write(log.with_extension("example.json"), line)
}

fn quiet(log: &Path) -> Result<()> {
    let length = || fs::metadata(log).map_or(0, |metadata| metadata.len());
    let (mut last, mut since) = (length(), Instant::now());
    ready::eventually("the end of the log", WITHIN, || {
        let now = length();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= QUIET).then_some(())
    })?;
    Ok(())
}
