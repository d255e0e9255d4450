//! What is wrong with a condition that compiles: members and types that do not fit, and conditions that
//! are the same for every call.
//!
//! Owns the judgement, given what is known of the calls that the condition is about. Asked by
//! `policy check` and before a push; no worker asks. Decides nothing about a call.

pub mod allowed;
mod constant;
mod idle;
mod print;
mod types;

use super::Condition;
pub use allowed::Arguments;
pub use constant::{Domain, Domains, Literal, Span};
pub use types::{Shape, Type};

/// What is known of the calls that a condition is about.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The type of `arguments`.
    pub arguments: Type,
    /// All values that paths such as `principal.role` can have.
    pub domains: Domains,
}

/// One mistake in a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// What kind it is.
    pub kind: Kind,
    /// What was found, and what follows.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

/// Kinds of mistakes in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A member that the object does not have.
    UnknownMember,
    /// A member of the arguments that the pinned schema does not have.
    UnknownArgument,
    /// As before, but only asked for with `has`.
    UnknownOptional,
    /// Types that do not go together.
    WrongType,
    /// It never holds.
    NeverTrue,
    /// It always holds.
    AlwaysTrue,
}

impl Condition {
    /// Every mistake of type in it, as far as `known` tells.
    #[must_use]
    pub fn type_mistakes(&self, known: &Known) -> Vec<Mistake> {
        types::check(&self.expression, known)
    }

    /// Whether it, or a part of it, is the same for every call. Asked where its types are right.
    #[must_use]
    pub fn constant_part(&self, domains: &Domains) -> Option<Mistake> {
        constant::mistake(&self.expression, domains)
    }

    /// Whether it, or a part of it, is the same for every call that fits the pinned schema of `domains`. Asked where
    /// [`Self::constant_part`] finds nothing without the schema.
    #[must_use]
    pub fn part_beyond_schema(&self, domains: &Domains) -> Option<Mistake> {
        constant::beyond_schema(&self.expression, domains)
    }

    /// Calls of functions that say the same of every value: the empty text, a size from zero; and an address compared with
    /// what is none.
    #[must_use]
    pub fn idle_calls(&self) -> Vec<Mistake> {
        idle::calls(&self.expression)
    }

    /// The texts that the variable or member `path` is compared with.
    #[must_use]
    pub fn texts_compared_with(&self, path: &str) -> Vec<String> {
        constant::texts_compared_with(&self.expression, path)
    }
}
