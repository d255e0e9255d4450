//! A compiled schema: nodes with rules, linked by numbers.
//!
//! Owns the list of rules. `check` owns their meaning, `compile` their written form.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value};

use super::number::is_whole;
use crate::pattern::Pattern;

/// A subschema's index in [`super::Schema::nodes`]; the schema itself is 0.
pub(super) type Id = usize;

/// One subschema.
#[derive(Debug)]
pub(super) struct Node {
    /// Its position, as a JSON pointer.
    pub(super) place: String,
    /// The resource it belongs to.
    pub(super) resource: usize,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// `true` or `false`.
    Constant(bool),
    /// Rules that need the evaluated members come last.
    Rules(Vec<Rule>),
}

#[derive(Debug)]
pub(super) struct Rule {
    /// The keyword, for reports.
    pub(super) keyword: &'static str,
    pub(super) demand: Demand,
}

/// The requirement of a rule.
#[derive(Debug)]
pub(super) enum Demand {
    Type(Vec<Kind>),
    Enum(Vec<Value>),
    Const(Value),
    MultipleOf(Number),
    Bound(Bound, Number),
    Length(Range),
    Pattern(Box<Pattern>),
    ItemCount(Range),
    Unique,
    MemberCount(Range),
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
    AllOf(Vec<Id>),
    AnyOf(Vec<Id>),
    OneOf(Vec<Id>),
    Not(Id),
    If {
        condition: Id,
        then: Option<Id>,
        otherwise: Option<Id>,
    },
    DependentSchemas(Vec<(String, Id)>),
    Ref(Id),
    /// The outermost `$dynamicAnchor` of this name wins, else `fallback`.
    DynamicRef {
        fallback: Id,
        anchor: Option<String>,
    },
    /// The names in the rules, by their folded form; comes first.
    Spelling(BTreeMap<String, BTreeSet<String>>),
    Members {
        named: BTreeMap<String, Id>,
        patterns: Vec<(Pattern, Id)>,
        others: Option<Id>,
    },
    MemberNames(Id),
    Items {
        prefix: Vec<Id>,
        rest: Option<Id>,
    },
    Contains {
        item: Id,
        range: Range,
        evaluates: bool,
    },
    UnevaluatedMembers(Id),
    UnevaluatedItems(Id),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    Least,
    Most,
    Above,
    Below,
}

/// The allowed number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// The parts of a value that valid rules have evaluated.
#[derive(Debug, Default)]
pub(super) struct Evaluated<'v> {
    pub(super) members: BTreeSet<&'v str>,
    pub(super) all_members: bool,
    pub(super) items: BTreeSet<usize>,
    pub(super) all_items: bool,
}

impl<'v> Evaluated<'v> {
    pub(super) fn merge(&mut self, other: Evaluated<'v>) {
        self.members.extend(other.members);
        self.items.extend(other.items);
        self.all_members |= other.all_members;
        self.all_items |= other.all_items;
    }
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Null,
            Self::Boolean,
            Self::Integer,
            Self::Number,
            Self::String,
            Self::Array,
            Self::Object,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    pub(super) fn is_of(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer, Value::Number(number)) => is_whole(number),
            (Self::Null, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::String, Value::String(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_)) => true,
            _ => false,
        }
    }
}

impl Bound {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Least => order.is_ge(),
            Self::Most => order.is_le(),
            Self::Above => order.is_gt(),
            Self::Below => order.is_lt(),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Least => "at least",
            Self::Most => "at most",
            Self::Above => "more than",
            Self::Below => "less than",
        }
    }
}

impl Range {
    pub(super) fn has(self, count: usize) -> bool {
        u64::try_from(count).is_ok_and(|count| (self.least..=self.most).contains(&count))
    }

    pub(super) fn words(self) -> String {
        match (self.least, self.most) {
            (least, u64::MAX) => format!("at least {least}"),
            (0, most) => format!("at most {most}"),
            (least, most) => format!("{least} to {most}"),
        }
    }
}
