//! A strict reader for hand-written JSON documents, which reports all faults at once.
//!
//! Owns the notion of a fault (path, found, expected) and of fields that must all be known. Knows nothing of a
//! document's meaning. `serde` stops at the first error, so an operator would repair a policy one mistake at a time;
//! this reader continues.

pub(crate) mod settings;

use std::fmt;

use serde_json::{Map, Value};

use crate::nearest::one_of;

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The position: `limits.storm.window`; the empty string is the document itself.
    pub path: String,
    /// The value there, shortened.
    pub found: String,
    /// The expected value, with an example or the valid choices.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        write!(f, "{path}: found {}, expected {}", self.found, self.expected)
    }
}

/// All faults of a document, in document order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds one fault.
    pub fn push(&mut self, path: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.0.push(Fault {
            path: path.to_owned(),
            found: found.into(),
            expected: expected.into(),
        });
    }

    /// The faults, in document order.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many faults there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the document is without fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` with the value when there is one and no fault was found.
    ///
    /// # Errors
    /// All faults otherwise.
    pub fn unless<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// One value of the document and its position.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// The whole document.
    #[must_use]
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// The value's position.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value itself.
    #[must_use]
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether this is the whole number `number`.
    #[must_use]
    pub fn is_integer(&self, number: u64) -> bool {
        self.value.as_u64().or_else(|| whole(self.value.as_f64()?)) == Some(number)
    }

    /// Whether this is the text `text`.
    #[must_use]
    pub fn is_text(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
    }

    /// Whether this is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// The names of an object's members; none when it is not an object.
    #[must_use]
    pub fn names(&self) -> Vec<&'a str> {
        let members = self.value.as_object();
        members.map(|members| members.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Records that this value is not what was `expected`.
    pub fn fault(&self, faults: &mut Faults, expected: impl Into<String>) {
        faults.push(&self.path, describe(self.value), expected);
    }

    /// [`Node::text`] for a place where an operator might have put a secret: the fault does not repeat the value.
    pub fn unseen_text<T>(
        self,
        faults: &mut Faults,
        expected: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let read = self.value.as_str().and_then(read);
        if read.is_none() {
            faults.push(&self.path, "something else (not shown)", expected);
        }
        read
    }

    /// A part of the document with a form of its own, which `read` parses.
    pub fn json<T>(&self, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        read(self.value)
    }

    /// An object whose members must all be read by name.
    pub fn object(self, faults: &mut Faults, expected: &str) -> Option<Fields<'a>> {
        match self.value {
            Value::Object(members) => Some(Fields { path: self.path, members, known: Vec::new() }),
            _ => {
                self.fault(faults, expected);
                None
            }
        }
    }

    /// An object with free names: each member in turn.
    pub fn members(self, faults: &mut Faults, expected: &str) -> Option<Vec<(&'a str, Node<'a>)>> {
        match self.value {
            Value::Object(members) => Some(
                members
                    .iter()
                    .map(|(name, value)| {
                        (name.as_str(), Node { path: join(&self.path, name), value })
                    })
                    .collect(),
            ),
            _ => {
                self.fault(faults, expected);
                None
            }
        }
    }

    /// A list: each item in turn.
    pub fn items(self, faults: &mut Faults, expected: &str) -> Option<Vec<Node<'a>>> {
        match self.value {
            Value::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, value)| Node { path: format!("{}[{index}]", self.path), value })
                    .collect(),
            ),
            _ => {
                self.fault(faults, expected);
                None
            }
        }
    }

    /// A text that `read` accepts.
    pub fn text<T>(
        self,
        faults: &mut Faults,
        expected: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let read = self.value.as_str().and_then(read);
        if read.is_none() {
            self.fault(faults, expected);
        }
        read
    }

    /// `true` or `false`.
    pub fn boolean(self, faults: &mut Faults) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.fault(faults, "true or false");
        }
        value
    }

    /// A number from 0 to 1 in millionths; a smaller fraction is cut off.
    #[must_use]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1,000,000"
    )]
    pub fn millionths(&self) -> Option<u32> {
        let number = self.value.as_f64().filter(|number| (0.0..=1.0).contains(number))?;
        // Adds a thousandth of a millionth, so that 0.1, which a binary number only approximates, is 100,000.
        Some((number * 1_000_000.0 + 0.001) as u32)
    }

    /// A whole number within `range`; `5.0` is one too, because protobuf's `Struct` has only doubles.
    pub fn integer(
        self,
        faults: &mut Faults,
        range: std::ops::RangeInclusive<u64>,
        unit: &str,
    ) -> Option<u64> {
        let number = self.value.as_u64().or_else(|| whole(self.value.as_f64()?));
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.fault(faults, format!("a whole number of {unit} from {low} to {high}"));
        }
        number
    }
}

/// The members of an object, which must all be known.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    members: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The member `name`, or nothing when it is absent.
    pub fn optional(&mut self, name: &'static str) -> Option<Node<'a>> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let value = self.members.get(name)?;
        Some(Node { path: join(&self.path, name), value })
    }

    /// The member `name`; its absence is a fault.
    pub fn required(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        expected: &str,
    ) -> Option<Node<'a>> {
        let node = self.optional(name);
        if node.is_none() {
            faults.push(&join(&self.path, name), "nothing", expected);
        }
        node
    }

    /// Records that the object as a whole is not what was `expected`.
    pub fn fault(&self, faults: &mut Faults, expected: &str) {
        let found = format!("an object of {}", self.members.len());
        faults.push(&self.path, found, expected);
    }

    /// Records that the member `name` is not what was `expected`.
    pub fn fault_at(&self, name: &str, found: &str, expected: &str, faults: &mut Faults) {
        faults.push(&join(&self.path, name), found, expected);
    }

    /// Ends the reading: a member that was not read is a fault.
    pub fn finish(self, faults: &mut Faults) {
        for name in self.members.keys() {
            if !self.known.contains(&name.as_str()) {
                faults.push(
                    &join(&self.path, name),
                    "an unknown field",
                    one_of("one of ", name, &self.known),
                );
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A value for an error message, at most one line long.
fn describe(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
        Value::Null => "an empty value".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
    }
}

#[expect(clippy::as_conversions, reason = "exact: whole, not negative, below 2^53")]
fn whole(number: f64) -> Option<u64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..LIMIT).contains(&number)).then_some(number as u64)
}
