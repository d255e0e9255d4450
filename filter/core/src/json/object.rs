//! One object of canonical JSON (RFC 8785), for callers that know the order of its members.
//!
//! Owns how texts and numbers are written. Sorts nothing: callers add members in the order of RFC 8785 §3.2.3, so the
//! JSON of each request costs neither a sort nor a copy. Everything else uses [`canonical()`].

use super::plain_text::is_plain;
use super::{EXACT, canonical};

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Object {
    text: String,
    /// The name of the last member: the next one is greater.
    last: &'static str,
}

impl Object {
    /// An object without members, with capacity for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self { text, last: "" }
    }

    fn name(&mut self, name: &'static str) {
        debug_assert!(self.last < name, "{name} stands behind {}", self.last);
        if !self.last.is_empty() {
            self.text.push(',');
        }
        self.last = name;
        quoted(name, &mut self.text);
        self.text.push(':');
    }

    /// A member that is a text.
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        string(value, &mut self.text);
    }

    /// The same, if there is one.
    pub(crate) fn some_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A member that is a number, if there is one.
    pub(crate) fn number(&mut self, name: &'static str, value: Option<u64>) {
        let Some(value) = value else { return };
        self.name(name);
        if value <= EXACT {
            self.text.push_str(itoa::Buffer::new().format(value));
        } else {
            self.text.push_str(&canonical(&value));
        }
    }

    /// A member that is a list of texts, if there are any.
    pub(crate) fn texts(&mut self, name: &'static str, values: &[impl AsRef<str>]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        for (nth, value) in values.iter().enumerate() {
            self.text.push(if nth == 0 { '[' } else { ',' });
            string(value.as_ref(), &mut self.text);
        }
        self.text.push(']');
    }

    /// A member whose value is canonical already.
    pub(crate) fn written(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.text.push_str(value);
    }

    /// The whole object.
    pub(crate) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// A text as RFC 8785 §3.2.2.2 writes it. Few texts need an escape.
fn string(value: &str, text: &mut String) {
    match is_plain(value.as_bytes()) {
        true => quoted(value, text),
        false => text.push_str(&canonical(value)),
    }
}

fn quoted(value: &str, text: &mut String) {
    text.push('"');
    text.push_str(value);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_the_canonical_writer_does() {
        for letter in ('\0'..='\u{ff}').chain(['\u{2028}', '\u{1f600}']) {
            for (before, behind) in [(0, 0), (0, 9), (3, 8), (7, 0), (8, 1), (17, 20)] {
                let text = ["a".repeat(before), letter.to_string(), "z".repeat(behind)].concat();
                let mut written = String::new();
                string(&text, &mut written);
                assert_eq!(written, canonical(&text), "{text:?}");
                assert!(is_plain(text.as_bytes()) == !matches!(letter, '"' | '\\' | ..' '));
            }
        }
    }

    #[test]
    fn numbers_are_rounded_as_the_canonical_writer_does() {
        for number in [0, 7, EXACT, EXACT + 1, u64::MAX] {
            let mut object = Object::with_capacity(0);
            object.number("n", Some(number));
            assert_eq!(object.end(), format!(r#"{{"n":{}}}"#, canonical(&number)));
        }
    }
}
