//! Files with secrets: only their owner may read them, and none exists in part.
//!
//! Does not know what they hold.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Creates a file that only its owner may read. If it cannot be written whole, there is none.
pub(crate) fn create(file: &Path, text: &str) -> std::io::Result<()> {
    let mut created: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = created.write_all(text.as_bytes()).and_then(|()| created.sync_all());
    if written.is_err() {
        // A part of it would be read with faults, and the same command would find that the file exists.
        let _ = std::fs::remove_file(file);
    }
    written
}
