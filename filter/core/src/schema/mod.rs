//! JSON Schema: whether a value is what a schema describes, and if not, where and why.
//!
//! Owns the meaning of the keywords of 2020-12 and draft-07, with bounded work: schemas of tools are
//! written by strangers, and a crafted value makes validators without a budget run for hours.
//! `format` and `content*` are annotations, as the specification has it by default. Fetches nothing:
//! a `$ref` stays inside its document. Knows nothing of tools or policies.

mod check;
mod compile;
mod locate;
mod mirror;
mod number;
mod read;
mod rule;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

pub use mirror::{Mirror, mirrors};
pub use number::same;

/// The longest schema, as JSON.
pub const MAX_SCHEMA_BYTES: usize = 65_536;
/// The most subschemas of one schema.
const MAX_NODES: usize = 4_000;
/// The most steps one check takes; a step is about one keyword at one place.
const MAX_STEPS: u32 = 100_000;
/// How deep subschemas may lead into each other; far below the stack of a worker.
const MAX_NESTING: u32 = 256;
/// The most faults that are told at once.
const MAX_VIOLATIONS: usize = 5;

/// A schema, ready to check values.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<rule::Node>,
    resources: Vec<locate::Anchors>,
    /// Whether anything asks what was evaluated.
    tracks: bool,
}

/// What keeps a document from being a usable schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// Where, as a JSON pointer; empty is the schema itself.
    pub place: String,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

/// What is wrong with a value. Says nothing of the value but where: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the value, as a JSON pointer; empty is the value itself.
    pub path: String,
    /// The rule, as a JSON pointer into the schema.
    pub rule: String,
    /// What the rule asks for.
    pub expected: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the arguments" } else { &self.path };
        write!(f, "{path}: expected {} (rule {})", self.expected, self.rule)
    }
}

/// Reads a schema.
///
/// # Errors
/// The first fault.
pub fn compile(document: &Value) -> Result<Schema, SchemaFault> {
    compile::compile(document)
}

impl Schema {
    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong, at least one and at most five; a check that would take too long is one, too.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        check::check(self, value)
    }
}
