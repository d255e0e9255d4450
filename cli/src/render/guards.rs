//! The file of guards: one value for each path. `render` makes missing values.
//!
//! Owns two rules. A value belongs to one path. A manifest with a new value is shown only once the value is on disk.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use portcullis_core::decode::{Faults, Node};
use portcullis_core::guard;
use portcullis_core::secret::Secret;
use serde_json::{Map, Value};

use crate::document::Document;
use crate::report::{CliError, pretty};
use crate::{private_file, random};

/// 256 bits.
const LENGTH: usize = 43;

type Values = BTreeMap<String, Secret>;

/// The guards of one installation.
pub(super) struct Guards {
    file: PathBuf,
    source: Source,
    values: Values,
    /// Old values that routes still accept.
    previous: Values,
    /// The paths that got a new value in this run.
    new: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    File,
    Nothing,
}

/// The guards that a route accepts. Never print it: it holds the values.
#[derive(Clone)]
pub(super) enum Matcher {
    Exact(String),
    Either(Either),
}

/// Two values, while routes still accept the old one.
#[derive(Clone)]
pub(super) struct Either {
    previous: String,
    value: String,
}

impl Either {
    /// A regular expression (RE2) that has to match as a whole.
    pub(super) fn regex(&self) -> String {
        format!("{}|{}", literal(&self.previous), literal(&self.value))
    }
}

impl Matcher {
    /// Every value that the route accepts.
    pub(super) fn values(&self) -> Vec<&str> {
        match self {
            Self::Exact(value) => vec![value],
            Self::Either(Either { previous, value }) => vec![previous, value],
        }
    }
}

impl Guards {
    pub(super) fn open(file: &Path, previous: Option<&Path>) -> Result<Self, CliError> {
        for file in std::iter::once(file).chain(previous) {
            if file == Path::new("-") {
                let found = "guards from standard input";
                return Err(CliError::usage(found).expected("--guards FILE, a file of its own"));
            }
        }
        let source = match std::fs::exists(file) {
            Ok(false) => Source::Nothing,
            Ok(true) | Err(_) => Source::File,
        };
        let values = match source {
            Source::File => read(file)?,
            Source::Nothing => Values::new(),
        };
        let previous = previous.map(read).transpose()?.unwrap_or_default();
        let guards = Self { file: file.to_owned(), source, values, previous, new: Vec::new() };
        guards.each_has_one_path()?;
        Ok(guards)
    }

    /// A team that knows the value of one path, because it owns its routes, must not know that of another path.
    fn each_has_one_path(&self) -> Result<(), CliError> {
        let mut owners = BTreeMap::new();
        for (path, value) in self.values.iter().chain(&self.previous) {
            let owner = *owners.entry(value.expose()).or_insert(path);
            if owner != path {
                let found = format!("{owner} and {path} have the same guard");
                return Err(CliError::new(found, self.place())
                    .expected("a value of its own for each path, also among previous ones")
                    .next("remove the value of one of them; portcullis render makes a new one"));
            }
        }
        Ok(())
    }

    /// The value that the filter sets for `path`.
    pub(super) fn value(&mut self, path: &str) -> Result<String, CliError> {
        if let Some(value) = self.values.get(path) {
            return Ok(value.expose().to_owned());
        }
        let value = random::base62(LENGTH)?;
        self.values.insert(path.to_owned(), Secret::new(value.clone()));
        self.new.push(path.to_owned());
        Ok(value)
    }

    /// The values that routes of `path` accept.
    pub(super) fn matcher(&mut self, path: &str) -> Result<Matcher, CliError> {
        let value = self.value(path)?;
        let previous = self.previous.get(path).map(Secret::expose);
        Ok(match previous.filter(|previous| *previous != value) {
            Some(previous) => Matcher::Either(Either { previous: previous.to_owned(), value }),
            None => Matcher::Exact(value),
        })
    }

    /// The paths that got a new value in this run.
    pub(super) fn new_paths(&self) -> &[String] {
        &self.new
    }

    /// The message about new values.
    pub(super) fn note(&self) -> Option<String> {
        let verb = match self.source {
            Source::File => "added to",
            Source::Nothing => "created",
        };
        let paths = self.new.join(", ");
        (!self.new.is_empty()).then(|| format!("{verb} {}: guards of {paths}", self.place()))
    }

    /// Writes the new values to the file.
    pub(super) fn keep(&self) -> Result<(), CliError> {
        if self.new.is_empty() {
            return Ok(());
        }
        let values: Map<_, _> = self
            .values
            .iter()
            .map(|(path, value)| (path.clone(), Value::from(value.expose())))
            .collect();
        let text = pretty(&Value::Object(values)) + "\n";
        match self.source {
            Source::Nothing => {
                private_file::create(&self.file, &text).map_err(|error| self.unwritable(&error))
            }
            Source::File => self.replace(&text).map_err(|error| self.unwritable(&error)),
        }
    }

    /// Writes beside the file, then renames: a crash leaves the old file or the new one, never a part.
    fn replace(&self, text: &str) -> std::io::Result<()> {
        // Follows a symbolic link, so that the link stays.
        let file = std::fs::canonicalize(&self.file)?;
        let staged = file.with_extension(format!("{}.new", std::process::id()));
        let replaced =
            private_file::create(&staged, text).and_then(|()| std::fs::rename(&staged, &file));
        if replaced.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        replaced
    }

    fn unwritable(&self, error: &std::io::Error) -> CliError {
        let refusal = CliError::new(format!("the guards cannot be written: {error}"), self.place());
        match error.kind() {
            ErrorKind::AlreadyExists => refusal
                .expected("no other program creates the file meanwhile; nothing was printed")
                .next("the same command again"),
            _ => refusal.expected("a file in a directory that can be written; nothing was printed"),
        }
    }

    fn place(&self) -> String {
        self.file.display().to_string()
    }
}

fn read(file: &Path) -> Result<Values, CliError> {
    let document = Document::read(file)?;
    let mut faults = Faults::default();
    let values = guard::values(Node::root(&document.value), &mut faults);
    if faults.is_empty() {
        return Ok(values);
    }
    Err(CliError::new("the guards have faults", &document.place)
        .faults(document.located(&faults))
        .next("docs/reference/render.md has the form of the file"))
}

/// A value as a regular expression: only its dots need an escape.
fn literal(value: &str) -> String {
    value.replace('.', "[.]")
}
