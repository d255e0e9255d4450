//! Follows a growing log through rotation.
//!
//! Owns how a rotation is detected: another file under the same name, or other bytes where reading ended.

use std::fs::{File, Metadata};
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::halt::Halt;
use super::lines::LONGEST;
use super::log::{Item, Place};
use crate::report::progress;

/// The time between two reads of a file.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// How long a renamed file is read: Envoy writes to it until it reopens its logs.
const RENAMED: Duration = Duration::from_secs(600);

/// The number of bytes that identify the file that was read.
const MARK: u64 = 128;

pub(super) struct Follower {
    path: PathBuf,
    place: String,
    now: Growing,
    /// The file that had the name before.
    before: Option<(Growing, Instant)>,
}

/// An open file and the part of it that was read.
struct Growing {
    file: File,
    read: u64,
    /// The last bytes that were read. Entries end with their hash, so no other text ends like this one.
    mark: Vec<u8>,
    /// The start of a line whose end is not there yet.
    started: Vec<u8>,
    /// The line is longer than any entry: the rest of it is skipped.
    skipping: bool,
    lines: u64,
}

impl Follower {
    /// Continues after byte `read` of `file`.
    pub(super) fn new(file: File, path: &Path, place: &str, read: u64) -> Self {
        let now = Growing::new(file, read);
        Self { path: path.to_owned(), place: place.to_owned(), now, before: None }
    }

    /// Passes on each line that was added, with its number since the start of following.
    pub(super) fn poll(
        &mut self,
        mut take: impl FnMut(Place<'_>, Item<'_>) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        if let Some((before, since)) = &mut self.before {
            before.read_on(&self.place, &mut take)?;
            if since.elapsed() > RENAMED {
                self.before = None;
            }
        }
        if self.now.is_overwritten() {
            progress(&format!("{}: truncated; read again from its start", self.place));
            self.now.restart();
        }
        self.now.read_on(&self.place, &mut take)?;
        // A missing file means that a rotation is in progress.
        if let Ok(file) = File::open(&self.path)
            && let (Ok(named), Ok(open)) = (file.metadata(), self.now.file.metadata())
            && !is_same(&named, &open)
        {
            progress(&format!("{}: rotated; the new file is followed", self.place));
            // The lines that were added between the last read and the renaming.
            self.now.read_on(&self.place, &mut take)?;
            let old = std::mem::replace(&mut self.now, Growing::new(file, 0));
            self.before = Some((old, Instant::now()));
            self.now.read_on(&self.place, &mut take)?;
        }
        Ok(())
    }
}

impl Growing {
    fn new(file: File, read: u64) -> Self {
        let mut growing =
            Self { file, read, mark: Vec::new(), started: Vec::new(), skipping: false, lines: 0 };
        growing.mark = growing.before_end(read.min(MARK)).unwrap_or_default();
        growing
    }

    /// The last `length` bytes of the part that was read, as they are now.
    fn before_end(&mut self, length: u64) -> std::io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(self.read.saturating_sub(length)))?;
        let mut bytes = Vec::new();
        (&self.file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the bytes before the end of reading changed: the file was truncated, and perhaps has grown again.
    fn is_overwritten(&mut self) -> bool {
        let length = u64::try_from(self.mark.len()).unwrap_or(MARK);
        self.before_end(length).is_ok_and(|now| now != self.mark)
    }

    fn restart(&mut self) {
        self.read = 0;
        self.mark.clear();
        self.started.clear();
        self.skipping = false;
    }

    fn read_on(
        &mut self,
        place: &str,
        take: &mut impl FnMut(Place<'_>, Item<'_>) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let failed = |error| super::log::unreadable(place, &error);
        self.file.seek(SeekFrom::Start(self.read)).map_err(failed)?;
        let mut input = BufReader::with_capacity(64 * 1_024, &self.file);
        let mut chunk = vec![0; 64 * 1_024];
        loop {
            let count = input.read(&mut chunk).map_err(failed)?;
            let Some(mut rest) = chunk.get(..count).filter(|read| !read.is_empty()) else {
                return Ok(());
            };
            self.read = self.read.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            self.mark.extend_from_slice(rest);
            let extra = self.mark.len().saturating_sub(usize::try_from(MARK).unwrap_or(usize::MAX));
            self.mark.drain(..extra);
            while let Some(end) = memchr::memchr(b'\n', rest) {
                let (line, after) = rest.split_at(end);
                rest = after.get(1..).unwrap_or_default();
                self.lines = self.lines.saturating_add(1);
                if !std::mem::take(&mut self.skipping) {
                    self.started.extend_from_slice(line);
                    let line = Place { file: place, line: self.lines };
                    take(line, Item::whole(&self.started))?;
                }
                self.started.clear();
            }
            if !self.skipping {
                self.started.extend_from_slice(rest);
                if self.started.len() > LONGEST {
                    self.skipping = true;
                    self.started = Vec::new();
                }
            }
        }
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    one.dev() == other.dev() && one.ino() == other.ino()
}

/// Without file numbers, only a truncation is detected.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
