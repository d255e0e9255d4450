//! The hash chain: each entry names the hash of the one before it.
//!
//! Owns sequence numbers and hashes. One chain belongs to one VM, so appending needs no lock; a new VM starts a new
//! chain under a new name. The admin chain of an organisation continues after a line that Redis keeps. Its writer must
//! make sure that no other writer appends at the same time.

use std::fmt::Write as _;

use portcullis_redis_lua::ChainEnd;
use serde::Serialize;
use serde_json::{Map, Value};

use super::link::{GENESIS, Link, hash_text};
use super::{AdminEntry, Entry};
use crate::json;

/// The position of an entry in its chain.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place<'a> {
    pub(super) chain: &'a str,
    pub(super) seq: u64,
    /// The hash of the entry before.
    pub(super) prev_hash: &'a str,
    /// The build of the module, in the first entry of a chain.
    #[serde(rename = "module", skip_serializing_if = "str::is_empty")]
    pub(super) build: &'a str,
}

/// The end of a chain, to which entries are appended.
#[derive(Clone, Debug)]
pub struct Chain {
    name: String,
    seq: u64,
    head: String,
    /// The module build that the first entry names.
    build: &'static str,
}

impl Chain {
    /// A chain without entries; `name` must be unique.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, seq: 0, head: GENESIS.to_owned(), build: "" }
    }

    /// The same chain, whose first entry names the build of the module that writes it.
    #[must_use]
    pub fn of_build(self, build: &'static str) -> Self {
        Self { build, ..self }
    }

    /// The build of the module that writes it, if it is known.
    #[must_use]
    pub const fn build(&self) -> &'static str {
        self.build
    }

    /// The sequence number of the last entry; 0 without one.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The last entry.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        ChainEnd { seq: self.seq, hash: self.head.clone() }
    }

    /// Continues the chain whose last entry is `line`; `None` if it is no audit entry.
    ///
    /// Does not check whether `line` has the hash that it names: verification finds that, and the next action must be
    /// recorded anyway.
    #[must_use]
    pub fn after(line: &str) -> Option<Self> {
        let Link { chain, seq, hash, .. } = Link::read(line).ok()?;
        Some(Self { name: chain, seq, head: hash, build: "" })
    }

    /// The chain's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends an entry; returns the line that records it, without line end.
    pub fn append(&mut self, entry: &Entry) -> String {
        let line = entry.canonical(self.next());
        self.link(line)
    }

    /// As [`Chain::append`], for an administrator's action.
    pub fn append_action(&mut self, entry: &AdminEntry) -> String {
        let place = self.next();
        let line = json::canonical(&Linked { entry, place });
        self.link(line)
    }

    /// Appends an entry with any members, which `sign` signs as described at [`signed`](super::signed).
    ///
    /// # Errors
    /// Errors of `sign`; nothing is appended then.
    pub fn append_signed<E>(
        &mut self,
        mut members: Map<String, Value>,
        sign: impl FnOnce(&str) -> Result<String, E>,
    ) -> Result<String, E> {
        let mut chain = self.clone();
        let Place { chain: name, seq, prev_hash, .. } = chain.next();
        for (member, value) in
            [("chain", name.into()), ("seq", seq.into()), ("prev_hash", prev_hash.into())]
        {
            members.insert(member.to_owned(), value);
        }
        let signature = sign(&json::canonical(&members))?;
        members.insert("signature".to_owned(), signature.into());
        let line = chain.link(json::canonical(&members));
        *self = chain;
        Ok(line)
    }

    /// The place of the next entry.
    fn next(&mut self) -> Place<'_> {
        self.seq = self.seq.saturating_add(1);
        let build = if self.seq == 1 { self.build } else { "" };
        Place { chain: &self.name, seq: self.seq, prev_hash: &self.head, build }
    }

    /// Puts its hash into the canonical `line` of an entry.
    fn link(&mut self, mut line: String) -> String {
        self.head = hash_text(&line);
        // The canonical text is an object, so its last byte closes it.
        line.pop();
        line.extend([",\"hash\":\"", &self.head, "\"}"]);
        if has_invisible(&line) { escaped(&line) } else { line }
    }
}

/// The line with JSON escapes for letters that a terminal or a line reader could interpret. The value, and so its
/// canonical form and its hash, stay the same.
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for letter in line.chars() {
        if is_invisible(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Whether `line` has a letter that must be escaped. Most lines are ASCII, which is checked faster than letter by
/// letter.
fn has_invisible(line: &str) -> bool {
    match line.is_ascii() {
        true => line.as_bytes().contains(&0x7f),
        false => line.contains(is_invisible),
    }
}

/// Line ends and controls beyond ASCII, marks of direction, letters without width.
fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}'
    )
}

/// An administrator's action at its position in the chain.
#[derive(Serialize)]
struct Linked<'a> {
    #[serde(flatten)]
    entry: &'a AdminEntry,
    #[serde(flatten)]
    place: Place<'a>,
}
