//! Adapts the shipped files to this machine: loopback addresses for a cluster's names, and the pushed image.
//!
//! Owns the values that a user has to change as well: the pages name each of them. Everything else is applied
//! unchanged.

use crate::failure::{Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Between two documents of a file.
const DOCUMENT: &str = "\n---\n";

/// The replacements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here {
    replacements: Vec<(String, String)>,
    /// Lines with this text are removed.
    left_out: Option<&'static str>,
    dir: PathBuf,
}

impl Here {
    /// Writes adapted files to `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { replacements: Vec::new(), left_out: None, dir: dir.to_owned() }
    }

    /// Removes the lines that contain `text`.
    pub(crate) fn without_lines(mut self, text: Option<&'static str>) -> Self {
        self.left_out = text;
        self
    }

    /// Replaces `shipped` by `here`; a later replacement of the same text overrides an earlier one.
    pub(crate) fn with(mut self, shipped: &str, here: impl std::fmt::Display) -> Self {
        self.replacements.retain(|(name, _)| name != shipped);
        self.replacements.push((shipped.to_owned(), here.to_string()));
        self
    }

    /// `shipped`, adapted to this machine, in a file called `name`.
    pub(crate) fn file(&self, shipped: &Path, name: &str) -> Result<PathBuf> {
        self.edited(shipped, name, Ok)
    }

    /// As [`Here::file`], after `edit` has changed the text.
    pub(crate) fn edited(
        &self,
        shipped: &Path,
        name: &str,
        edit: impl FnOnce(String) -> Result<String>,
    ) -> Result<PathBuf> {
        let fault = |error| Failure::new(format!("could not adapt {}: {error}", shipped.display()));
        let mut text = fs::read_to_string(shipped).map_err(fault)?;
        if let Some(left_out) = self.left_out {
            // The seal is the end of its document, and is useless without its values.
            for seal in ["\n---\n# The seal.", "\n  # The seal."] {
                if let Some((before, rest)) = text.split_once(seal) {
                    let after = rest.split_once(DOCUMENT).map(|(_, after)| after);
                    let after = after.map(|after| format!("{DOCUMENT}{after}"));
                    text = format!("{before}{}", after.unwrap_or_else(|| "\n".to_owned()));
                }
            }
            text = text.split_inclusive('\n').filter(|line| !line.contains(left_out)).collect();
        }
        for (shipped, here) in &self.replacements {
            text = text.replace(shipped, here);
        }
        fs::create_dir_all(&self.dir).map_err(fault)?;
        let file = self.dir.join(name);
        fs::write(&file, edit(text)?).map_err(fault)?;
        Ok(file)
    }
}

/// `text` with every `old` replaced; fails when there is none.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> Result<String> {
    if text.contains(old) {
        return Ok(text.replace(old, new));
    }
    Err(Failure::new(format!("no {old:?} to replace")))
}
