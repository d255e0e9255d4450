//! The progress of a long read, on standard error.
//!
//! Owns when it is shown, and that it is erased at the end.

use std::cell::Cell;
use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

const MEGABYTE: u64 = 1_048_576;
/// How many lines are read between two looks at the clock.
const LINES: u32 = 4_096;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Progress {
    read: Rc<Cell<u64>>,
    /// Bytes of all files; `None` when nothing is shown.
    total: Option<u64>,
    lines: u32,
    last: Instant,
    shown: bool,
}

impl Progress {
    pub(super) fn hidden() -> Self {
        Self { read: Rc::default(), total: None, lines: 0, last: Instant::now(), shown: false }
    }

    pub(super) fn of(total: u64) -> Self {
        let mut progress = Self::hidden();
        progress.total = Some(total);
        progress
    }

    /// The counter of bytes.
    pub(super) fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.read)
    }

    /// Counts a line.
    pub(super) fn tick(&mut self) {
        let Some(total) = self.total else { return };
        self.lines = self.lines.saturating_add(1);
        if self.lines < LINES {
            return;
        }
        self.lines = 0;
        if self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            self.shown = true;
            // A failed write to standard error cannot be reported.
            let _ = write!(std::io::stderr(), "\r{}", told(self.read.get(), total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

fn told(read: u64, total: u64) -> String {
    let percent = read.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let megabytes = |bytes: u64| bytes.checked_div(MEGABYTE).unwrap_or_default();
    format!("{percent:>3} %, {} of {} MB", megabytes(read), megabytes(total))
}

#[cfg(test)]
mod tests {
    #[test]
    fn progress_has_a_percentage_and_sizes() {
        assert_eq!(super::told(3 << 30, 4 << 30), " 75 %, 3072 of 4096 MB");
        assert_eq!(super::told(1, 0), "100 %, 0 of 0 MB");
    }
}
