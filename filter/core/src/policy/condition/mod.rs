//! Conditions of a policy: expressions in CEL over who calls what, when, from where and with which arguments.
//!
//! Owns the language: its variables, its functions, and what an evaluation may cost. Knows nothing of
//! rules: what follows from a condition that does not hold is [`crate::authz`]'s business.
//!
//! The bound: an expression has at most [`LONGEST`] bytes, [`MOST_NODES`] nodes and [`DEEPEST`] levels,
//! calls only the functions listed in [`check`], and walks no list inside the walk of another. So the
//! cost is that of reading the arguments a fixed number of times. Only an expression that walks lists or
//! adds texts could multiply that, and it is not evaluated on arguments of more than [`MOST_VALUES`]
//! values or [`MOST_TEXT`] bytes. All regular expressions of one evaluation share a budget ([`matching`]).

mod check;
mod facts;
pub mod lint;
mod matching;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use cel::parser::{Expression, PrattParser};
use cel::{Context, Env, Value};

use crate::json;
pub use facts::Facts;

/// The longest expression, in bytes.
pub const LONGEST: usize = 1_024;
/// The most nodes of an expression, macros expanded.
pub const MOST_NODES: usize = 256;
/// The deepest nesting of an expression.
pub const DEEPEST: u16 = 32;
/// The most values in arguments that are walked.
pub const MOST_VALUES: usize = 1_000;
/// The most bytes of text in arguments that are walked.
pub const MOST_TEXT: usize = 65_536;

/// What an expression may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// `principal`: `org`, `name`, `role`, `tier`, `method`, `scopes`, `agent`.
    Principal,
    /// `claims`: of the caller's token; empty for other credentials.
    Claims,
    /// `tool`: its name.
    Tool,
    /// `connector`: its name.
    Connector,
    /// `arguments`: of the call.
    Arguments,
    /// `time`: `unix`, `year`, `month`, `day`, `hour`, `minute`, `weekday`, `date`, in UTC.
    Time,
    /// `source`: `address`.
    Source,
}

impl Variable {
    const ALL: [Self; 7] = [
        Self::Principal,
        Self::Claims,
        Self::Tool,
        Self::Connector,
        Self::Arguments,
        Self::Time,
        Self::Source,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Claims => "claims",
            Self::Tool => "tool",
            Self::Connector => "connector",
            Self::Arguments => "arguments",
            Self::Time => "time",
            Self::Source => "source",
        }
    }
}

/// How much an evaluation can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// The arguments, read once per node.
    Linear,
    /// It walks lists or adds texts.
    Walks,
}

/// A compiled condition.
#[derive(Clone)]
pub struct Condition {
    text: String,
    expression: Rc<Expression>,
    variables: BTreeSet<Variable>,
    cost: Cost,
    /// The members of the arguments that it names, by how they are folded.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Regular expressions in it.
    patterns: BTreeSet<String>,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// What was found, and where in the text.
    pub found: String,
    /// What was expected instead.
    pub expected: String,
}

/// Why a condition could not be decided; then it does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The arguments are larger than what is walked.
    TooLarge,
    /// It is neither true nor false.
    NoBoolean,
    /// A member of the arguments differs from one that the condition names only by case.
    Misspelt,
    /// A number in the arguments has more digits than an evaluation keeps.
    Inexact,
    /// CEL's own word: a member that is not there, types that do not fit.
    Failed(String),
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(
                f,
                "the arguments have more than {MOST_VALUES} values or {MOST_TEXT} bytes of text"
            ),
            Self::NoBoolean => f.write_str("it is neither true nor false"),
            Self::Misspelt => {
                f.write_str("a member of the arguments differs from one that it names only by case")
            }
            Self::Inexact => f.write_str("a number in the arguments has too many digits"),
            Self::Failed(detail) => f.write_str(detail),
        }
    }
}

/// By its text, which says all.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

/// The functions, once per process: they have no state.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(check::environment()));

impl Condition {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its line and column.
    pub fn compile(text: &str) -> Result<Self, Unusable> {
        if text.len() > LONGEST {
            return Err(Unusable {
                found: format!("an expression of {} bytes", text.len()),
                expected: format!("at most {LONGEST} bytes"),
            });
        }
        if !check::is_flat(text) {
            return Err(Unusable {
                found: "brackets within brackets".to_owned(),
                expected: format!("at most {DEEPEST} of them open at once"),
            });
        }
        let parser = PrattParser::new()
            .max_recursion_depth(DEEPEST)
            .max_expression_node_count(MOST_NODES)
            .enable_optional_syntax(false)
            .error_reporting_limit(1);
        let expression = parser.parse(text).map_err(|errors| {
            let found = errors.errors.first().map_or_else(
                || "something unreadable".to_owned(),
                |error| format!("{} at {}:{}", told(&error.msg), error.pos.0, error.pos.1),
            );
            let meant = match found.contains("input '='") {
                true if text.contains("=>") => "; did you mean >=?",
                true if text.contains("=<") => "; did you mean <=?",
                _ => "",
            };
            let expected = format!(
                "an expression in CEL, such as arguments.amount <= 100; == compares, && and || join{meant}"
            );
            Unusable { found, expected }
        })?;
        let checked = check::check(text, &expression)?;
        let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in checked.members {
            members.entry(json::folded(&name)).or_default().insert(name);
        }
        Ok(Self {
            text: text.to_owned(),
            expression: Rc::new(expression),
            variables: checked.variables,
            cost: checked.cost,
            members,
            patterns: checked.patterns,
        })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The regular expressions in it.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str)
    }

    /// Whether it speaks of the caller.
    #[must_use]
    pub fn asks_for_principal(&self) -> bool {
        self.variables.contains(&Variable::Principal)
    }

    /// Whether it speaks of the arguments of the call.
    #[must_use]
    pub fn asks_for_arguments(&self) -> bool {
        self.variables.contains(&Variable::Arguments)
    }

    /// Whether it speaks of what is called.
    #[must_use]
    pub fn asks_for_target(&self) -> bool {
        [Variable::Tool, Variable::Connector].iter().any(|it| self.variables.contains(it))
    }

    /// Whether it holds. No clock and no address is asked: `facts` has all there is.
    ///
    /// # Errors
    /// Why that cannot be said; then the call must not go on.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Undecided> {
        if self.cost == Cost::Walks && self.asks_for_arguments() && !facts.arguments_fit() {
            return Err(Undecided::TooLarge);
        }
        if self.asks_for_arguments() {
            facts.have_one_meaning(&self.members)?;
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for variable in &self.variables {
            context.add_variable_as_val(variable.name(), facts.value(*variable));
        }
        if !self.patterns.is_empty() {
            matching::begin(&facts.principal.org);
        }
        match Value::resolve(&self.expression, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Undecided::NoBoolean),
            Err(error) => Err(Undecided::Failed(told(&error.to_string()))),
        }
    }
}

/// One line of what CEL says, and not all of a value that it repeats.
fn told(message: &str) -> String {
    const LONGEST_DETAIL: usize = 160;
    let line = message.lines().next().unwrap_or_default();
    line.trim_start_matches("Syntax error: ").chars().take(LONGEST_DETAIL).collect()
}
