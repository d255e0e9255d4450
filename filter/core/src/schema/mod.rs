//! JSON Schema: whether a value fits a schema, and if not, where and why.
//!
//! Owns the meaning of the keywords of 2020-12 and draft-07, with bounded work: third parties write the schemas of
//! tools, and a crafted value makes validators without a budget run for hours. `format` and `content*` are annotations,
//! the specification's default. Fetches nothing: a `$ref` stays inside its document. Knows nothing of tools or
//! policies.

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
/// The most nested subschemas; far below the stack limit of a worker.
const MAX_NESTING: u32 = 256;
/// The most faults in one report.
const MAX_VIOLATIONS: usize = 5;

/// A schema, ready to check values.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<rule::Node>,
    resources: Vec<locate::Anchors>,
    /// Whether a keyword needs the evaluated members.
    tracks: bool,
}

/// The reason why a document is not a usable schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// The position, as a JSON pointer; empty is the schema itself.
    pub place: String,
    /// The value there.
    pub found: String,
    /// The expected value.
    pub expected: String,
}

/// A fault of a value. It contains only the position, not the value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The position in the value, as a JSON pointer; empty is the value itself.
    pub path: String,
    /// The rule, as a JSON pointer into the schema.
    pub rule: String,
    /// The rule's requirement.
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
    /// The faults, at least one and at most five; a check that would take too long is a fault as well.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        check::check(self, value)
    }
}
