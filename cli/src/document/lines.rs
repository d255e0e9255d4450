//! On which lines the values of a document stand.
//!
//! Owns the lines without the paths: a large document has hundreds of thousands of values, and a path is looked up for
//! few of them. So there is one entry a value, in the order of the text, and a path is followed through the document.

use std::collections::BTreeMap;

use serde_json::Value;

/// The line of each value by its path, such as `limits.storm.per[0]`.
pub(super) type ByPath = BTreeMap<String, usize>;

/// The lines of all values, each value before those inside it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// For a member, the line of its name.
    line: usize,
    /// The entry after those of the values inside.
    end: usize,
}

/// A value that begins.
#[derive(Clone, Copy)]
pub(super) struct Begun(usize);

impl Lines {
    /// A value begins on `line`.
    pub(super) fn begin(&mut self, line: usize) -> Begun {
        let at = self.0.len();
        self.0.push(Entry { line, end: at.saturating_add(1) });
        Begun(at)
    }

    /// It ends after the values that began since.
    pub(super) fn end(&mut self, Begun(at): Begun) {
        let end = self.0.len();
        if let Some(entry) = self.0.get_mut(at) {
            entry.end = end;
        }
    }

    /// What will begin next is not a value of its own: the name of a member.
    pub(super) fn mark(&self) -> Begun {
        Begun(self.0.len())
    }

    /// What began since `mark` is no value.
    pub(super) fn forget_since(&mut self, Begun(at): Begun) {
        self.0.truncate(at);
    }

    /// The value that began at `mark` is a member whose name is on `line`.
    pub(super) fn is_named_on(&mut self, Begun(at): Begun, line: usize) {
        if let Some(entry) = self.0.get_mut(at) {
            entry.line = line;
        }
    }

    /// The lines of a JSON text that can be read.
    pub(super) fn of_json(text: &str) -> Self {
        let mut lines = Self::default();
        let mut open: Vec<(Begun, char)> = Vec::new();
        let (mut line, mut name) = (1_usize, None);
        // Whether a text is the name of a member.
        let mut is_name = false;
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            match letter {
                '\n' => line = line.saturating_add(1),
                '{' | '[' => {
                    open.push((lines.begin(name.take().unwrap_or(line)), letter));
                    is_name = letter == '{';
                }
                '}' | ']' => {
                    if let Some((begun, _)) = open.pop() {
                        lines.end(begun);
                    }
                }
                ',' => is_name = open.last().is_some_and(|(_, kind)| *kind == '{'),
                '"' => {
                    while let Some(letter) = rest.next_if(|letter| *letter != '"') {
                        if letter == '\\' {
                            rest.next();
                        }
                    }
                    rest.next();
                    match is_name {
                        true => name = Some(line),
                        false => _ = lines.begin(name.take().unwrap_or(line)),
                    }
                    is_name = false;
                }
                ':' | ' ' | '\t' | '\r' => {}
                _ => {
                    while rest.next_if(|letter| !",}] \t\r\n".contains(*letter)).is_some() {}
                    lines.begin(name.take().unwrap_or(line));
                }
            }
        }
        lines
    }

    /// The line of the value at `path` in `document`, or of what should contain it if it is missing.
    pub(super) fn line_of(&self, document: &Value, path: &str) -> Option<usize> {
        let Some(root) = self.0.first() else {
            return path.is_empty().then_some(1);
        };
        if path.is_empty() {
            return Some(root.line);
        }
        let (left, line) = self.nearest(document, 0, path)?;
        (left < path.len()).then_some(line)
    }

    /// How much of the path is left, and the line of the value there. A name may have dots in it, so several members may
    /// be meant: the one that leaves least is.
    fn nearest(&self, value: &Value, at: usize, rest: &str) -> Option<(usize, usize)> {
        let own = (rest.len(), self.0.get(at)?.line);
        let inside = match value {
            Value::Object(members) => {
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                let mut at = at.saturating_add(1);
                let mut best: Option<(usize, usize)> = None;
                for (name, inner) in members {
                    let behind = rest.strip_prefix(name.as_str());
                    let behind = behind.filter(|it| it.is_empty() || it.starts_with(['.', '[']));
                    let found = behind.and_then(|behind| self.nearest(inner, at, behind));
                    best = [best, found].into_iter().flatten().min_by_key(|(left, _)| *left);
                    at = self.0.get(at)?.end;
                }
                best
            }
            Value::Array(items) => item(rest).and_then(|(nth, behind)| {
                let inner = items.get(nth)?;
                let mut at = at.saturating_add(1);
                for _ in 0..nth {
                    at = self.0.get(at)?.end;
                }
                self.nearest(inner, at, behind)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        inside.or(Some(own))
    }

    /// The lines of `document` by path.
    pub(super) fn by_path(&self, document: &Value) -> ByPath {
        let mut by_path = ByPath::new();
        let mut entries = self.0.iter().map(|entry| entry.line);
        named(document, String::new(), &mut entries, &mut by_path);
        by_path
    }
}

fn named(
    value: &Value,
    path: String,
    lines: &mut impl Iterator<Item = usize>,
    by_path: &mut ByPath,
) {
    let Some(line) = lines.next() else { return };
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                let dot = if path.is_empty() { "" } else { "." };
                named(inner, format!("{path}{dot}{name}"), lines, by_path);
            }
        }
        Value::Array(items) => {
            for (nth, inner) in items.iter().enumerate() {
                named(inner, format!("{path}[{nth}]"), lines, by_path);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    by_path.insert(path, line);
}

/// `[3]` at the start of a path, and the rest of it.
fn item(rest: &str) -> Option<(usize, &str)> {
    let (index, behind) = rest.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, behind))
}
