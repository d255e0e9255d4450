//! The shipped files as they are on this machine: loopback in the place of a cluster's names, and the image that was pushed.
//!
//! Owns what a user has to change in them, too: every name here is one that the pages tell to change. All else is
//! applied as it is shipped.

use crate::failure::{Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What is replaced by what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here {
    replacements: Vec<(String, String)>,
    /// Lines with this text are left out.
    left_out: Option<&'static str>,
    dir: PathBuf,
}

impl Here {
    /// Adapted files go to `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { replacements: Vec::new(), left_out: None, dir: dir.to_owned() }
    }

    /// Without the lines that have `text` in them.
    pub(crate) fn without_lines(mut self, text: Option<&'static str>) -> Self {
        self.left_out = text;
        self
    }

    /// `shipped` stands for `here`; a later one of the same name counts.
    pub(crate) fn with(mut self, shipped: &str, here: impl std::fmt::Display) -> Self {
        self.replacements.retain(|(name, _)| name != shipped);
        self.replacements.push((shipped.to_owned(), here.to_string()));
        self
    }

    /// `shipped` for this machine, under a name of its own.
    pub(crate) fn file(&self, shipped: &Path, name: &str) -> Result<PathBuf> {
        self.edited(shipped, name, Ok)
    }

    /// As [`Here::file`], after `edit` has changed it as a trial needs it.
    pub(crate) fn edited(
        &self,
        shipped: &Path,
        name: &str,
        edit: impl FnOnce(String) -> Result<String>,
    ) -> Result<PathBuf> {
        let fault = |error| Failure::new(format!("could not adapt {}: {error}", shipped.display()));
        let mut text = fs::read_to_string(shipped).map_err(fault)?;
        if let Some(left_out) = self.left_out {
            // The seal is the end of a file, and says nothing without its values.
            for seal in ["\n---\n# The seal.", "\n  # The seal."] {
                if let Some((before, _)) = text.split_once(seal) {
                    text = format!("{before}\n");
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

/// `text` with `old` replaced wherever it stands; it has to be there.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> Result<String> {
    if text.contains(old) {
        return Ok(text.replace(old, new));
    }
    Err(Failure::new(format!("no {old:?} to replace")))
}
