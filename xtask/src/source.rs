//! The project's own text files, as input for the checks.
//!
//! Asks git, so that ignored files are left out and new files are included. Knows nothing about the checks.

use crate::failure::{Failure, Result};
use portcullis_stack::{Workspace, process};
use std::fs;
use std::path::Path;
use std::process::Command;

/// One file: its path from the root with slashes, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The end of the name after the last dot; empty without one.
    pub(crate) fn extension(&self) -> &str {
        Path::new(&self.path)
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default()
    }

    /// The lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Every text file that is tracked or untracked, but not ignored. Files that are not UTF-8 are left out.
pub(crate) fn all(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut command = Command::new("git");
    command
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&workspace.root);
    let output = process::output("git ls-files", command)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!(
            "the list of files comes from git, which says: {reason}"
        )));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut sources: Vec<Source> = names
        .split_terminator('\0')
        // A file that was deleted but not yet committed is still listed.
        .filter_map(|path| {
            let bytes = fs::read(workspace.root.join(path)).ok()?;
            Some(Source { path: path.to_owned(), text: String::from_utf8(bytes).ok()? })
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}
