//! One object of canonical JSON (RFC 8785), written by who knows the order of its members.
//!
//! Owns how texts and numbers are written. Sorts nothing: members are named in the order of RFC 8785 §3.2.3, so what
//! each request writes costs neither a sort nor a copy. For everything else there is [`canonical`].

use std::fmt::Write as _;

use super::{EXACT, canonical};

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Object {
    text: String,
    /// The name of the last member: the next one is greater.
    last: &'static str,
}

impl Object {
    /// One without members, with room for so many bytes.
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
            _ = write!(self.text, "{value}");
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

/// A text as RFC 8785 §3.2.2.2 writes it. Hardly any has something to escape.
fn string(value: &str, text: &mut String) {
    match value.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
        true => text.push_str(&canonical(value)),
        false => quoted(value, text),
    }
}

fn quoted(value: &str, text: &mut String) {
    text.push('"');
    text.push_str(value);
    text.push('"');
}
