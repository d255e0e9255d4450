//! A list of names and patterns as a record holds it.
//!
//! Owns the original text, so that a list is shown and written as it was read.

use serde::{Deserialize, Serialize};

use crate::glob::Globs;

/// Names in which `*` and `?` are wildcards; an empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct NameList {
    names: Vec<String>,
    globs: Globs,
}

impl NameList {
    /// The names as they were written, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, String> {
        self.names.iter()
    }

    /// The compiled patterns.
    #[must_use]
    pub fn globs(&self) -> &Globs {
        &self.globs
    }
}

impl From<Vec<String>> for NameList {
    fn from(names: Vec<String>) -> Self {
        let mut globs = Globs::default();
        for name in &names {
            globs.insert(name);
        }
        Self { names, globs }
    }
}

impl From<NameList> for Vec<String> {
    fn from(list: NameList) -> Self {
        list.names
    }
}

impl<'a> IntoIterator for &'a NameList {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
