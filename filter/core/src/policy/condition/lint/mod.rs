//! Mistakes in a condition that compiles: wrong members and types, and conditions with the same value for every call.
//!
//! Owns the findings, from the known facts about the calls. `policy check` uses it, and so does a push; no worker does.
//! Decides nothing about a call.

pub mod allowed;
mod constant;
mod idle;
mod print;
mod types;

use super::Condition;
pub use constant::{Arguments, Domain, Domains, Literal, Span};
pub use types::{Shape, Type};

/// The known facts about the calls of a condition.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The type of `arguments`.
    pub arguments: Type,
    /// The sets of values of paths such as `principal.role`.
    pub domains: Domains,
}

/// One mistake in a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// What kind it is.
    pub kind: Kind,
    /// The finding and its consequence.
    pub found: String,
    /// The correct form.
    pub expected: String,
}

/// Kinds of mistakes in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A member that the object does not have.
    UnknownMember,
    /// A member of the arguments that the pinned schema does not have.
    UnknownArgument,
    /// The same, but only tested with `has`.
    UnknownOptional,
    /// Incompatible types.
    WrongType,
    /// It is never true.
    NeverTrue,
    /// It is always true.
    AlwaysTrue,
}

impl Condition {
    /// All type mistakes in it, as far as `known` has the types.
    #[must_use]
    pub fn type_mistakes(&self, known: &Known) -> Vec<Mistake> {
        types::check(&self.expression, known)
    }

    /// A part of it, or all of it, with the same value for every call. Used when its types are right.
    #[must_use]
    pub fn constant_part(&self, domains: &Domains) -> Option<Mistake> {
        constant::mistake(&self.expression, domains)
    }

    /// A part of it, or all of it, with the same value for every call that fits the pinned schema of `domains`. Used
    /// when [`Self::constant_part`] finds nothing without the schema.
    #[must_use]
    pub fn part_beyond_schema(&self, domains: &Domains) -> Option<Mistake> {
        constant::beyond_schema(&self.expression, domains)
    }

    /// Function calls with the same result for every value: the empty text, a size from zero; and comparisons of an
    /// address with a text that is no address.
    #[must_use]
    pub fn idle_calls(&self) -> Vec<Mistake> {
        idle::calls(&self.expression)
    }

    /// The texts with which the variable or member `path` is compared.
    #[must_use]
    pub fn texts_compared_with(&self, path: &str) -> Vec<String> {
        constant::texts_compared_with(&self.expression, path)
    }
}
