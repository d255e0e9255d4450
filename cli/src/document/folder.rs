//! Reads a document from all files of a folder, so that each team can own its part.
//!
//! Owns which files belong to it, and which parts of a policy may be in several files. The merged document is like any
//! other; its lines are those of the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Document;
use crate::report::{CliError, LocatedFault};

/// A folder with more files is probably the wrong one.
const MOST_FILES: usize = 1_000;
/// The deepest nesting of folders.
const DEEPEST: usize = 4;

/// Sections whose members may be in different files, each in one.
const BY_NAME: [&str; 4] = ["connectors", "tiers", "limits", "keys"];
/// The section in which two files may use the same name: a role, with different connectors in each file.
const ROLES: &str = "roles";
/// Lists that are concatenated.
const LISTS: [&str; 2] = ["redact", "shadow"];
/// Fields that several files may set to the same value.
const SAME: [&str; 2] = ["version", "organisations"];

/// Reads all files of a folder as one document.
pub(super) fn read(folder: &Path) -> Result<Document, CliError> {
    let place = folder.display().to_string();
    let files = files(folder).map_err(|error| {
        CliError::new(format!("cannot be read: {error}"), &place)
            .expected("a folder of policy files")
            .unavailable()
    })?;
    if files.is_empty() || files.len() > MOST_FILES {
        return Err(CliError::new(format!("{} policy files", files.len()), place).expected(format!(
            "1 to {MOST_FILES} files ending in .yaml, .yml or .json, not counting files of cases (.test.yaml)"
        )));
    }
    let mut whole = Whole::default();
    for file in &files {
        let part = Document::of_file(file)?;
        match &part.value {
            Value::Object(members) => whole.add(&part, members),
            Value::Null => {}
            other => whole.faults.push(LocatedFault {
                file: Some(part.place.clone()),
                ..part.fault_at(
                    String::new(),
                    kind(other).to_owned(),
                    "a part of a policy".to_owned(),
                )
            }),
        }
    }
    let Whole { members, lines, files, mut faults } = whole;
    if faults.is_empty() {
        let lines = lines.into();
        return Ok(Document { value: Value::Object(members), place, lines, files });
    }
    faults.sort();
    Err(CliError::new("the files cannot be put together", place)
        .expected("files that state each thing once")
        .faults(faults))
}

/// The policy files below a folder, by name, without hidden files and files of cases.
pub(super) fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    listed(folder, |name| {
        !is_cases(name) && [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
    })
}

/// The files of cases below a folder, by name.
pub(crate) fn cases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    listed(folder, is_cases)
}

fn is_cases(name: &str) -> bool {
    [".test.yaml", ".test.yml", ".test.json"].iter().any(|end| name.ends_with(end))
}

fn listed(folder: &Path, is_meant: fn(&str) -> bool) -> std::io::Result<Vec<PathBuf>> {
    let mut folders = vec![(folder.to_owned(), 0_usize)];
    let mut found = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if depth >= DEEPEST {
                    let found = format!("{}: more than {DEEPEST} folders deep", path.display());
                    return Err(std::io::Error::other(found));
                }
                folders.push((path, depth.saturating_add(1)));
            } else if is_meant(&name) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The merged document so far.
#[derive(Default)]
struct Whole {
    members: Map<String, Value>,
    lines: BTreeMap<String, usize>,
    files: BTreeMap<String, String>,
    faults: Vec<LocatedFault>,
}

impl Whole {
    fn add(&mut self, part: &Document, members: &Map<String, Value>) {
        for (section, value) in members {
            match (self.members.get(section), value) {
                (None, _) => self.take(part, section, section, value.clone()),
                (Some(Value::Object(_)), Value::Object(inner)) if section == ROLES => {
                    for (role, rights) in inner {
                        self.add_role(part, role, rights);
                    }
                }
                (Some(Value::Object(_)), Value::Object(inner))
                    if BY_NAME.contains(&section.as_str()) =>
                {
                    for (name, value) in inner {
                        self.add_member(part, &[section], name, value);
                    }
                }
                (Some(Value::Array(known)), Value::Array(items))
                    if LISTS.contains(&section.as_str()) =>
                {
                    let from = known.len();
                    for (nth, item) in items.iter().enumerate() {
                        let to = format!("{section}[{}]", from.saturating_add(nth));
                        self.note(part, &format!("{section}[{nth}]"), &to);
                        if let Some(Value::Array(known)) = self.members.get_mut(section) {
                            known.push(item.clone());
                        }
                    }
                }
                (Some(known), value) if SAME.contains(&section.as_str()) && known == value => {}
                (Some(_), _) => self.twice(part, section),
            }
        }
    }

    fn add_role(&mut self, part: &Document, role: &str, rights: &Value) {
        let known = self.members.get(ROLES).and_then(|roles| roles.get(role));
        match (known, rights) {
            (Some(Value::Object(_)), Value::Object(rights)) => {
                for (name, value) in rights {
                    self.add_member(part, &[ROLES, role], name, value);
                }
            }
            (_, _) => self.add_member(part, &[ROLES], role, rights),
        }
    }

    /// Adds `name` to the object at `parents`, which exists.
    fn add_member(&mut self, part: &Document, parents: &[&str], name: &str, value: &Value) {
        let path = format!("{}.{name}", parents.join("."));
        let Some((first, rest)) = parents.split_first() else { return };
        let mut object = self.members.get_mut(*first);
        for parent in rest {
            object = object.and_then(|object| object.get_mut(parent));
        }
        let Some(Value::Object(object)) = object else { return };
        if object.contains_key(name) {
            return self.twice(part, &path);
        }
        object.insert(name.to_owned(), value.clone());
        self.note(part, &path, &path);
    }

    fn take(&mut self, part: &Document, section: &str, path: &str, value: Value) {
        self.members.insert(section.to_owned(), value);
        self.note(part, path, path);
    }

    /// Maps the lines of the value at `from` in the part, and of all its parts, to `to`.
    fn note(&mut self, part: &Document, from: &str, to: &str) {
        for (path, line) in part.lines.by_path(&part.value).range(from.to_owned()..) {
            let Some(rest) = path.strip_prefix(from) else { break };
            if rest.is_empty() || rest.starts_with(['.', '[']) {
                self.lines.insert(format!("{to}{rest}"), *line);
                self.files.insert(format!("{to}{rest}"), part.place.clone());
            }
        }
    }

    fn twice(&mut self, part: &Document, path: &str) {
        let file = super::nearest(&self.files, path).map_or("another file", String::as_str);
        let line = super::nearest(&self.lines, path).map(|line| format!(":{line}"));
        let found = format!("a second {path}, the first is in {file}{}", line.unwrap_or_default());
        let expected = match SAME.contains(&path) {
            true => "the same in each file, or only in one",
            false => "each in one file",
        };
        self.faults.push(LocatedFault {
            file: Some(part.place.clone()),
            line: part.line_of(path),
            path: path.to_owned(),
            found,
            expected: expected.to_owned(),
        });
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => "a single value",
    }
}
