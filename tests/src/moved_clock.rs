//! The wall clock of one process, which a test moves while the process runs.
//!
//! Owns the library that replaces libc's clock functions (`tests/preload/clock.rs`) and the file with the offset. The
//! process's monotonic clock and the clocks of all other processes stay as they are.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_stack::process;

/// A clock that is right until a test moves it.
#[derive(Debug)]
pub struct MovedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl MovedClock {
    /// Builds the library in `dir`, with the compiler that built the test.
    pub fn build(source: &Path, dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory of the test's own");
        let (library, offset) = (dir.join("libclock.so"), dir.join("clock"));
        let mut command = Command::new("rustc");
        command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort"]);
        command.arg("-o").arg(&library).arg(source);
        let output = process::output("rustc", command).expect("rustc");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} does not build: {said}", source.display());
        fs::write(&offset, 0_i64.to_ne_bytes()).expect("write the offset");
        Self { library, offset }
    }

    /// The environment variables of the process.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.library.clone()), ("PORTCULLIS_CLOCK", self.offset.clone())]
    }

    /// Sets the clock this many seconds ahead of the right time (or behind it, if negative).
    pub fn set(&self, seconds: i64) {
        let file = fs::OpenOptions::new().write(true).open(&self.offset).expect("the offset");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("write the offset");
    }
}
