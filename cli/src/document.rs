//! A document that a person wrote, in YAML or JSON: its value, and which line each part stands on.
//!
//! Owns the subset of YAML that means exactly one JSON document: no anchors, aliases or tags, no
//! key twice, only texts as keys, no infinity. Of what a document says it knows only how the files of a folder are put
//! together.

mod folder;
mod lines;

pub(crate) use folder::cases as files_of_cases;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use lines::{ByPath, Lines};
use portcullis_core::json;
use portcullis_core::policy::PolicyErrors;
use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

use crate::report::{CliError, LocatedFault};

/// The place of a document that comes over standard input.
const STDIN: &str = "standard input";

pub(crate) struct Document {
    pub(crate) value: Value,
    /// The name of the file or folder as the user gave it.
    pub(crate) place: String,
    lines: WrittenLines,
    /// Of a document of several files: which file says what stands at a path.
    files: BTreeMap<String, String>,
}

/// The lines of a document, looked for when the first one is asked for.
struct WrittenLines {
    /// The text, of JSON.
    json: String,
    found: OnceCell<Lines>,
    /// Of a document of several files, only these.
    by_path: OnceCell<ByPath>,
}

impl WrittenLines {
    fn of_json(json: String) -> Self {
        Self { json, found: OnceCell::new(), by_path: OnceCell::new() }
    }

    fn found(&self) -> &Lines {
        self.found.get_or_init(|| Lines::of_json(&self.json))
    }

    fn by_path(&self, document: &Value) -> &ByPath {
        self.by_path.get_or_init(|| self.found().by_path(document))
    }
}

impl From<Lines> for WrittenLines {
    fn from(lines: Lines) -> Self {
        Self { json: String::new(), found: OnceCell::from(lines), by_path: OnceCell::new() }
    }
}

impl From<ByPath> for WrittenLines {
    fn from(by_path: ByPath) -> Self {
        Self { json: String::new(), found: OnceCell::new(), by_path: OnceCell::from(by_path) }
    }
}

impl Document {
    /// Its place as an argument of a command.
    pub(crate) fn argument(&self) -> &str {
        if self.place == STDIN { "-" } else { &self.place }
    }

    /// The document of a file, or of all files of a folder together.
    pub(crate) fn read(file: &Path) -> Result<Self, CliError> {
        match file.is_dir() {
            true => folder::read(file),
            false => Self::of_file(file),
        }
    }

    fn of_file(file: &Path) -> Result<Self, CliError> {
        let (place, text) = contents(file)?;
        let parsed = match is_json(file, &text) {
            true => from_json(&text).map(|value| (value, WrittenLines::of_json(text))),
            false => from_yaml(&text).map(|(value, lines)| (value, lines.into())),
        };
        match parsed {
            Ok((value, lines)) => Ok(Self { value, place, lines, files: BTreeMap::new() }),
            Err(fault) => Err(CliError::new("the document cannot be read", place)
                .expected("one YAML or JSON document")
                .faults(vec![fault])),
        }
    }

    /// The faults in the order of their lines.
    pub(crate) fn located(&self, faults: &PolicyErrors) -> Vec<LocatedFault> {
        let mut located: Vec<_> = faults
            .iter()
            .map(|fault| {
                self.fault_at(fault.path.clone(), fault.found.clone(), fault.expected.clone())
            })
            .collect();
        located.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        located
    }

    /// A fault of the value at `path`, or of what should contain it.
    pub(crate) fn fault_at(&self, path: String, found: String, expected: String) -> LocatedFault {
        let file = nearest(&self.files, &path).cloned();
        LocatedFault { file, line: self.line_of(&path), path, found, expected }
    }

    /// The line of the value at `path`, or of what should contain it if it is missing.
    pub(crate) fn line_of(&self, path: &str) -> Option<usize> {
        match self.files.is_empty() {
            true => self.lines.found().line_of(&self.value, path),
            false => nearest(self.lines.by_path(&self.value), path).copied(),
        }
    }
}

/// What is known of the value at `path`, or of what should contain it.
fn nearest<'a, T>(known: &'a BTreeMap<String, T>, path: &str) -> Option<&'a T> {
    let mut path = path;
    loop {
        if let Some(found) = known.get(path) {
            return Some(found);
        }
        path = path.get(..path.rfind(['.', '['])?)?;
    }
}

fn contents(file: &Path) -> Result<(String, String), CliError> {
    let (place, read) = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text).map(|_| text);
        (STDIN.to_owned(), read)
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    match read {
        Ok(text) => Ok((place, text)),
        Err(error) => Err(CliError::new(format!("cannot be read: {error}"), place)
            .expected("a file with a YAML or JSON document")
            .unavailable()),
    }
}

fn is_json(file: &Path, text: &str) -> bool {
    file.extension().is_some_and(|extension| extension == "json")
        || text.trim_start().starts_with('{')
}

fn from_json(text: &str) -> Result<Value, LocatedFault> {
    let error = match json::parse_strict(text.as_bytes()) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // A member twice: the other reader knows where both are.
    if let (json::JsonError::DuplicateMember(_), Err(fault)) = (&error, with_paths(text)) {
        return Err(fault);
    }
    let found = error.to_string();
    // `… at line 3 column 7`, as serde_json ends.
    let line = found.rsplit_once(" at line ").and_then(|(_, rest)| rest.split(' ').next());
    let line = line.and_then(|line| line.parse().ok());
    let found = found.replacen("the body is not readable JSON: ", "", 1);
    let expected = "JSON with one meaning".to_owned();
    Err(LocatedFault { file: None, line, path: String::new(), found, expected })
}

fn from_yaml(text: &str) -> Result<(Value, Lines), LocatedFault> {
    let mut reader = Reader::of(text, None);
    // A fault has the path of its place.
    match reader.document() {
        Ok(value) => Ok((value, reader.lines)),
        Err(_) => with_paths(text),
    }
}

fn with_paths(text: &str) -> Result<(Value, Lines), LocatedFault> {
    let mut reader = Reader::of(text, Some(ByPath::new()));
    let value = reader.document()?;
    Ok((value, reader.lines))
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    lines: Lines,
    /// The lines of names, to say where the first of two is. Without them, no path is written either.
    names: Option<ByPath>,
}

impl<'a> Reader<'a> {
    fn of(text: &'a str, names: Option<ByPath>) -> Self {
        Self { events: Parser::new_from_str(text), lines: Lines::default(), names }
    }

    fn document(&mut self) -> Result<Value, LocatedFault> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(document.unwrap_or(Value::Null));
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if document.is_some() => {
                    return Err(fault(span, "", "a second document", "one document"));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    document = Some(self.value(event, span, "", 0)?);
                }
                _ => {
                    return Err(fault(span, "", "a value outside a document", "one document"));
                }
            }
        }
    }

    fn value(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        depth: usize,
    ) -> Result<Value, LocatedFault> {
        if depth > json::MAX_DEPTH {
            let expected = format!("at most {} levels", json::MAX_DEPTH);
            return Err(fault(span, path, "more levels of nesting", &expected));
        }
        let begun = self.lines.begin(span.start.line());
        let plain = PLAIN;
        let value = match event {
            Event::Scalar(text, style, 0, None) => scalar(text, style)
                .map_err(|text| fault(span, path, &text, "a number that JSON can express")),
            Event::SequenceStart(0, None) => self.sequence(path, depth),
            Event::MappingStart(0, None) => self.mapping(path, depth),
            Event::Alias(_) => Err(fault(span, path, "an alias", plain)),
            Event::Scalar(_, _, 0, _) | Event::SequenceStart(0, _) | Event::MappingStart(0, _) => {
                Err(fault(span, path, "a tag", plain))
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                Err(fault(span, path, "an anchor", plain))
            }
            _ => Err(fault(span, path, "nothing", "a value")),
        };
        self.lines.end(begun);
        value
    }

    fn sequence(&mut self, path: &str, depth: usize) -> Result<Value, LocatedFault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let path = self.path(|| format!("{path}[{}]", items.len()));
            items.push(self.value(event, span, &path, depth.saturating_add(1))?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Value, LocatedFault> {
        let mut members = Map::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Object(members));
            }
            let mark = self.lines.mark();
            let name = self.value(event, span, path, depth.saturating_add(1))?;
            self.lines.forget_since(mark);
            let name = match name {
                Value::String(name) => name,
                other => {
                    let found = format!("the key {other}");
                    return Err(fault(span, path, &found, "a text as key; put it in quotes"));
                }
            };
            let path = self.path(|| match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            });
            let line = span.start.line();
            if members.contains_key(&name) {
                let found = match self.names.as_ref().and_then(|names| names.get(&path)) {
                    Some(first) => format!("a second {name:?}, the first is on line {first}"),
                    None => format!("a second {name:?}"),
                };
                return Err(fault(span, &path, &found, "each key once"));
            }
            if let Some(names) = &mut self.names {
                names.insert(path.clone(), line);
            }
            let (event, span) = self.next()?;
            members.insert(name, self.value(event, span, &path, depth.saturating_add(1))?);
            self.lines.is_named_on(mark, line);
        }
    }

    fn path(&self, write: impl FnOnce() -> String) -> String {
        self.names.as_ref().map(|_| write()).unwrap_or_default()
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), LocatedFault> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(LocatedFault {
                file: None,
                line: Some(error.marker().line()),
                path: String::new(),
                found: error.info().to_owned(),
                expected: well_formed(error.info()).to_owned(),
            }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }
}

/// What an unquoted word is, by the core schema of YAML 1.2; a quoted one is a text.
/// The text itself for a number that JSON cannot express.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Result<Value, Cow<'_, str>> {
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.into_owned()));
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    match Scalar::parse_from_cow(Cow::Borrowed(&*text)) {
        Scalar::Null => Ok(Value::Null),
        Scalar::Boolean(value) => Ok(Value::Bool(value)),
        Scalar::Integer(value) => Ok(Value::from(value)),
        Scalar::FloatingPoint(value) => {
            let value = Number::from_f64(value.into_inner());
            // Of a number that a double does not hold, all digits count: a pin has to be what was reviewed.
            let written = text.parse::<Number>().ok().filter(|written| {
                value.as_ref().is_some_and(|value| !json::is_same_number(value, written))
            });
            written.or(value).map(Value::Number).ok_or(text)
        }
        Scalar::String(_) => Ok(Value::String(text.into_owned())),
    }
}

const PLAIN: &str = "a plain value: anchors, aliases and tags mean nothing in JSON";

/// What to look for, given what the parser stumbled over.
fn well_formed(info: &str) -> &'static str {
    match info {
        info if info.contains("anchor") => PLAIN,
        info if info.contains("tab") => "well-formed YAML: spaces for indentation, not tabs",
        info if info.contains("quoted") => "well-formed YAML: a quote that ends the text",
        _ => {
            "well-formed YAML: see indentation, colons, quotes and brackets, here and on the lines before"
        }
    }
}

fn fault(span: Span, path: &str, found: &str, expected: &str) -> LocatedFault {
    LocatedFault {
        file: None,
        line: Some(span.start.line()),
        path: path.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POLICY: &str = "\
# a comment
version: 1
organisations: [acme,
  globex]
tiers:
  free: {limits: {calls: {limit: 5, window: 1s}}}
limits:
  storm:
    per:
      - key
      - tool
text: |
  two
  lines
words: [yes, no, 'true', \"5\", true, ~, null, 0x10, 1.5, 5m, 1e3, -7]
empty:
";

    #[test]
    fn reads_yaml_as_json_with_lines() {
        let (value, lines) = from_yaml(POLICY).unwrap();
        assert_eq!(
            value,
            json!({
                "version": 1,
                "organisations": ["acme", "globex"],
                "tiers": {"free": {"limits": {"calls": {"limit": 5, "window": "1s"}}}},
                "limits": {"storm": {"per": ["key", "tool"]}},
                "text": "two\nlines\n",
                "words": ["yes", "no", "true", "5", true, null, null, 16, 1.5, "5m", 1000.0, -7],
                "empty": null,
            })
        );
        for (path, line) in [
            ("version", 2),
            ("organisations[0]", 3),
            ("organisations[1]", 4),
            ("tiers.free.limits.calls.window", 6),
            ("limits.storm.per", 9),
            ("limits.storm.per[1]", 11),
            ("words[3]", 15),
        ] {
            assert_eq!(lines.line_of(&value, path), Some(line), "{path}");
            assert_eq!(lines.by_path(&value).get(path), Some(&line), "{path}");
        }
    }

    #[test]
    fn a_missing_part_is_on_the_line_of_what_should_contain_it() {
        let (value, lines) = from_yaml(POLICY).unwrap();
        let (place, lines, files) = ("p.yaml".into(), lines.into(), BTreeMap::new());
        let document = Document { value, place, lines, files };
        assert_eq!(document.line_of("limits.storm.window"), Some(8));
        assert_eq!(document.line_of("organisations[1]"), Some(4));
        assert_eq!(document.line_of("organisations[9]"), Some(3));
        assert_eq!(document.line_of("roles"), None);
    }

    #[test]
    fn a_json_text_has_the_lines_of_the_same_yaml() {
        let text = "{ \"a\":\n [true, {}, [],\n-15,null ,\"x, {\\\"\"],\n\"b.c\": {\"d\"\n:\n{\"e]\": \"\"}}\n,\"f\": 1}";
        let (value, lines) = from_yaml(text).unwrap();
        assert_eq!(value, from_json(text).unwrap());
        assert_eq!(Lines::of_json(text), lines);
    }

    #[test]
    fn a_name_with_dots_is_found() {
        let (value, lines) =
            from_yaml("x:\n  y:\n    z: 1\nx.y:\n  w: 2\nx.y.z.v: 3\nb:\n- c\n-\n  d:\n  - 1\n")
                .unwrap();
        for (path, line) in [
            ("x.y.z", Some(3)),
            ("x.y.w", Some(5)),
            ("x.y.z.v", Some(6)),
            ("x.y.q", Some(2)),
            ("b[1].d[0]", Some(11)),
            ("b[1].d[7].e", Some(10)),
            ("b[2]", Some(7)),
            ("bb", None),
            ("", Some(1)),
        ] {
            assert_eq!(lines.line_of(&value, path), line, "{path}");
        }
    }

    #[test]
    fn refuses_what_has_no_single_meaning() {
        for (text, line, found) in [
            ("a: 1\nb: 2\na: 3\n", 3, "a second \"a\", the first is on line 1"),
            ("a: {b: 1,\n  b: 2}\n", 2, "a second \"b\", the first is on line 1"),
            ("a: 1\n\"a\": 3\n", 2, "a second \"a\", the first is on line 1"),
            ("a: &x 1\nb: *x\n", 1, "an anchor"),
            ("a: !!str 1\n", 1, "a tag"),
            ("a: !secret {}\n", 1, "a tag"),
            ("1: a\n", 1, "the key 1"),
            ("? [a]\n: b\n", 1, "the key [\"a\"]"),
            ("a: .inf\n", 1, ".inf"),
            ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ] {
            let fault = from_yaml(text).unwrap_err();
            assert_eq!((fault.line, fault.found.as_str()), (Some(line), found), "{text}");
        }
        assert!(from_yaml("a: [1\n").is_err());
        assert!(from_yaml("a: *x\n").is_err());
        assert!(from_yaml(&"[".repeat(100_000)).is_err());
        assert!(from_yaml(&format!("{}1{}", "[".repeat(70), "]".repeat(70))).is_err());
    }

    #[test]
    fn reads_json_with_lines() {
        let text = "{\n\t\"a\": {\n\t\t\"b\": [1,\n2]}}";
        let value = from_json(text).unwrap();
        assert_eq!(value, json!({"a": {"b": [1, 2]}}));
        let lines = Lines::of_json(text);
        for (path, line) in [("", 1), ("a", 2), ("a.b", 3), ("a.b[0]", 3), ("a.b[1]", 4)] {
            assert_eq!(lines.line_of(&value, path), Some(line), "{path}");
        }
        assert!(from_json("{\"a\": 1, \"a\": 2}").is_err());
        assert!(from_json("{\"a\": 1,}").is_err());
    }
}
