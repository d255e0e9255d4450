//! The logs that `top` reads: the end of files and what they gain, or standard input.
//!
//! Owns how far back a file is read first. A thread reads standard input, so that the picture is redrawn while no line
//! arrives.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use crate::args::LogArgs;
use crate::audit::entry::Entry;
use crate::audit::follow::Follower;
use crate::audit::halt::Halt;
use crate::audit::lines::{End, Lines};
use crate::audit::log::{Item, Logs, Place};
use crate::report::CliError;

/// The first read covers this many bytes at the end of a file, and more when they do not go back far enough.
const FIRST: u64 = 1_024 * 1_024;
/// How many lines of standard input may wait to be counted.
const AHEAD: usize = 10_000;
const STDIN: &str = "standard input";

pub(super) enum Growing {
    Files(Vec<Follower>),
    Input {
        lines: Receiver<Vec<u8>>,
        number: u64,
        /// The line that ended a wait.
        next: Option<Vec<u8>>,
        ended: bool,
    },
}

impl Growing {
    /// Opens logs and reads every entry since `since` (since 1970), and perhaps earlier ones.
    pub(super) fn open(args: &LogArgs, since: Duration) -> Result<Self, CliError> {
        let logs = Logs::named(&args.files)?;
        if logs.has_stdin() {
            return match logs.files().next() {
                None => Ok(Self::input()),
                Some(file) => Err(CliError::usage(format!("{} beside `-`", file.place))
                    .expected("files, or standard input alone")),
            };
        }
        let mut followers = Vec::new();
        for file in logs.files() {
            let opened = File::open(&file.path).map_err(|error| file.unreadable(&error))?;
            let start = start(&opened, since).map_err(|error| file.unreadable(&error))?;
            followers.push(Follower::new(opened, &file.path, &file.place, start));
        }
        Ok(Self::Files(followers))
    }

    fn input() -> Self {
        let (sender, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            let mut input = Lines::new(BufReader::new(std::io::stdin()));
            while let Ok(Some(line)) = input.next() {
                if sender.send(line.text.to_vec()).is_err() {
                    return;
                }
            }
        });
        Self::Input { lines, number: 0, next: None, ended: false }
    }

    /// Passes new lines to `take`. Returns whether more may come.
    pub(super) fn read(&mut self, mut take: impl FnMut(Place<'_>, Item<'_>)) -> Result<bool, Halt> {
        match self {
            Self::Files(followers) => {
                for follower in followers {
                    follower.poll(|place, item| {
                        take(place, item);
                        Ok(())
                    })?;
                }
                Ok(true)
            }
            Self::Input { lines, number, next, ended } => {
                // Only as many lines as wait now: a log that grows faster than it is read is still drawn.
                for _ in 0..=AHEAD {
                    let line = match next.take().map_or_else(|| lines.try_recv(), Ok) {
                        Ok(line) => line,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            *ended = true;
                            break;
                        }
                    };
                    *number = number.saturating_add(1);
                    take(Place { file: STDIN, line: *number }, Item::whole(&line));
                }
                Ok(!*ended)
            }
        }
    }

    /// Whether every available line was read. Files are read to their end at once.
    pub(super) fn is_at_its_end(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Input { ended, .. } => *ended,
        }
    }

    /// Waits for `time`. Returns at once when standard input has ended.
    pub(super) fn wait(&mut self, time: Duration) {
        let Self::Input { lines, next, ended, .. } = self else {
            return std::thread::sleep(time);
        };
        let until = Instant::now().checked_add(time);
        match lines.recv_timeout(time) {
            Ok(line) => {
                *next = Some(line);
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                // A line arrived early: the picture still changes no more often than it should.
                std::thread::sleep(left.unwrap_or_default().min(time));
            }
            Err(RecvTimeoutError::Disconnected) => *ended = true,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The offset from which to read a file, so that no entry since `since` is missed.
fn start(file: &File, since: Duration) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let mut span = FIRST;
    loop {
        let start = length.saturating_sub(span);
        if start == 0 {
            return Ok(0);
        }
        let mut input = BufReader::new(file);
        input.seek(SeekFrom::Start(start))?;
        let skipped = u64::try_from(input.skip_until(b'\n')?).unwrap_or(u64::MAX);
        if is_before(&mut Lines::new(input), since)? {
            return Ok(start.saturating_add(skipped));
        }
        span = span.saturating_mul(4);
    }
}

/// Whether the next entry is older than `since`.
fn is_before(lines: &mut Lines<impl std::io::BufRead>, since: Duration) -> std::io::Result<bool> {
    while let Some(line) = lines.next()? {
        if line.end == End::OfInput {
            break;
        }
        let entry = Entry::read(line.text).ok();
        let time = entry.filter(|(entry, _)| entry.is_linked()).and_then(|(entry, _)| entry.time());
        if let Some(time) = time {
            let since = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
            return Ok(time.as_nanosecond() < since);
        }
    }
    Ok(false)
}
