//! The allowed content of an expression.
//!
//! Owns the list of names and functions. A wrong name is found when the policy is compiled, not when it refuses the
//! first call.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError};

use super::matching::{self, MATCHES};
use super::{Cost, DEEPEST, MOST_NODES, Unusable, Variable};
use crate::auth::source::{SourceRange, SourceRanges};
use crate::nearest::one_of;
use crate::pattern;

/// The parts of a checked expression.
pub(super) struct Checked {
    pub(super) variables: BTreeSet<Variable>,
    pub(super) cost: Cost,
    /// The members of the arguments that it names.
    pub(super) members: BTreeSet<String>,
    /// Its regular expressions.
    pub(super) patterns: BTreeSet<String>,
}

/// Whether an address is in a range: `inRange(source.address, "10.0.0.0/8")`.
const IN_RANGE: &str = "inRange";
const LOWER: &str = "lowerAscii";

/// The allowed functions; each costs as much as reading its operands, and [`MATCHES`] has a budget.
const FUNCTIONS: [&str; 10] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "double",
    "string",
    LOWER,
    IN_RANGE,
    MATCHES,
];

/// Macros that the parser expands to loops.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

pub(super) fn environment() -> Env {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    // Neither name is in the standard library, so there is no conflict.
    let _ = env.add_overload(
        IN_RANGE,
        "in_range_string_string",
        vec![STRING_TYPE, STRING_TYPE],
        in_range,
    );
    let _ = env.add_member_overload(LOWER, "lower_ascii_string", STRING_TYPE, vec![], lower_ascii);
    let (of_text, pattern) = ("matches_string_string", vec![STRING_TYPE]);
    let _ = env.add_member_overload(MATCHES, of_text, STRING_TYPE, pattern, matching::matches);
    let both = vec![STRING_TYPE, STRING_TYPE];
    let _ = env.add_overload(MATCHES, "matches_string", both, matching::matches);
    env
}

fn in_range<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut texts = args.iter().map(|arg| arg.downcast_ref::<CelString<'_>>());
    let (Some(Some(address)), Some(Some(range))) = (texts.next(), texts.next()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let range = SourceRange::new(range.inner())
        .ok_or_else(|| ExecutionError::function_error(IN_RANGE, "not a range of addresses"))?;
    let inside = SourceRanges::new(vec![range]).contains(address.inner());
    Ok(CowVal::owned(CelBool::from(inside)))
}

fn lower_ascii<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|arg| arg.downcast_ref::<CelString<'_>>());
    let text = text.ok_or_else(ExecutionError::missing_argument_or_target)?;
    Ok(CowVal::owned(CelString::from(text.inner().to_ascii_lowercase())))
}

/// Whether `text` nests brackets no deeper than a parser may recurse; brackets in texts count too.
pub(super) fn is_flat(text: &str) -> bool {
    let mut open = 0_u16;
    text.bytes().all(|byte| {
        match byte {
            b'(' | b'[' | b'{' => open = open.saturating_add(1),
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open <= DEEPEST
    })
}

/// Checks a parsed expression.
pub(super) fn check(text: &str, expression: &IdedExpr) -> Result<Checked, Unusable> {
    let (variables, members, patterns) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let checked = Checked { variables, cost: Cost::Linear, members, patterns };
    let mut walk = Walk { text, checked, bound: Vec::new(), nodes: 0, depth: 0 };
    walk.visit(expression)?;
    Ok(walk.checked)
}

struct Walk<'a> {
    text: &'a str,
    checked: Checked,
    /// Names that a loop over a list binds.
    bound: Vec<String>,
    nodes: usize,
    depth: u16,
}

impl Walk<'_> {
    /// Checks a node. An evaluation recurses as deeply as this does, on the stack of a VM.
    fn visit(&mut self, node: &IdedExpr) -> Result<(), Unusable> {
        self.nodes = self.nodes.saturating_add(1);
        self.depth = self.depth.saturating_add(1);
        if self.nodes > MOST_NODES || self.depth > DEEPEST {
            let expected = format!("at most {MOST_NODES} nodes, {DEEPEST} deep");
            return Err(unusable("a larger expression", expected));
        }
        self.parts(node)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    fn parts(&mut self, node: &IdedExpr) -> Result<(), Unusable> {
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                self.member(&select.operand, &select.field);
                self.visit(&select.operand)
            }
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.visit(item)),
            Expr::Call(call) => {
                self.function(&call.func_name)?;
                let target = call.target.iter().map(|target| &**target);
                if call.func_name == IN_RANGE {
                    self.range(call.args.get(1))?;
                }
                if call.func_name == MATCHES {
                    self.pattern(call.args.last())?;
                }
                let of = match call.func_name.as_str() {
                    operators::INDEX => Some((call.args.first(), call.args.get(1))),
                    operators::IN => Some((call.args.get(1), call.args.first())),
                    _ => None,
                };
                if let Some((Some(of), Some(Expr::Literal(LiteralValue::String(name))))) =
                    of.map(|(of, name)| (of, name.map(|name| &name.expr)))
                {
                    self.member(of, name.inner());
                }
                target.chain(&call.args).try_for_each(|part| self.visit(part))
            }
            Expr::Comprehension(walk) => {
                self.visit(&walk.iter_range)?;
                if !self.bound.is_empty() {
                    let expected = "one walk of a list, not one inside another";
                    return Err(unusable("all, exists, map or filter inside another", expected));
                }
                self.checked.cost = Cost::Walks;
                self.bound.extend([walk.iter_var.clone(), walk.accu_var.clone()]);
                self.bound.extend(walk.iter_var2.clone());
                let parts = [&walk.accu_init, &walk.loop_cond, &walk.loop_step, &walk.result];
                parts.into_iter().try_for_each(|part| self.visit(part))?;
                self.bound.clear();
                Ok(())
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key)?;
                    self.visit(&entry.value)
                }
                EntryExpr::StructField(_) => Err(self.nothing_to_build()),
            }),
            Expr::Struct(_) | Expr::Unspecified => Err(self.nothing_to_build()),
        }
    }

    /// Records a name that is looked up in `of`, unless that is one of our own objects.
    fn member(&mut self, of: &IdedExpr, name: &str) {
        let mut root = of;
        loop {
            root = match &root.expr {
                Expr::Select(select) => &select.operand,
                Expr::Call(call) if call.func_name == operators::INDEX => match call.args.first() {
                    Some(of) => of,
                    None => break,
                },
                _ => break,
            };
        }
        let ours = |known: &str| {
            let variable = Variable::ALL.into_iter().find(|variable| variable.name() == known);
            variable.is_some_and(|variable| variable != Variable::Arguments)
                && !self.bound.iter().any(|bound| bound == known)
        };
        if !matches!(&root.expr, Expr::Ident(known) if ours(known)) {
            self.checked.members.insert(name.to_owned());
        }
    }

    fn nothing_to_build(&self) -> Unusable {
        unusable("a message literal", "true or false, from names, literals and operators")
    }

    fn name(&mut self, name: &str) -> Result<(), Unusable> {
        if self.bound.iter().any(|bound| bound == name) {
            return Ok(());
        }
        let known = Variable::ALL.into_iter().find(|variable| variable.name() == name);
        let Some(variable) = known else {
            return Err(self.unknown("the unknown name", name, &Variable::ALL.map(Variable::name)));
        };
        self.checked.variables.insert(variable);
        Ok(())
    }

    fn function(&mut self, name: &str) -> Result<(), Unusable> {
        if name == operators::ADD {
            self.checked.cost = Cost::Walks;
        }
        // The names of expanded macros start with `@`, which an expression cannot contain.
        if OPERATORS.contains(&name) || FUNCTIONS.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        Err(self.unknown("the unknown function", name, &[&FUNCTIONS[..], &MACROS].concat()))
    }

    /// A regular expression must be a literal, so that no caller chooses one; it is parsed now.
    fn pattern(&mut self, argument: Option<&IdedExpr>) -> Result<(), Unusable> {
        let Some(Expr::Literal(LiteralValue::String(source))) =
            argument.map(|argument| &argument.expr)
        else {
            let expected = "a text, such as arguments.query.matches('^[a-z]+$')";
            return Err(unusable("matches with a pattern that is not written out", expected));
        };
        match pattern::mistake(source.inner()) {
            None => {
                self.checked.patterns.insert(source.inner().to_owned());
                Ok(())
            }
            Some(found) => Err(unusable(found, pattern::EXPECTED)),
        }
    }

    /// A literal range is parsed now.
    fn range(&self, argument: Option<&IdedExpr>) -> Result<(), Unusable> {
        let Some(Expr::Literal(LiteralValue::String(range))) =
            argument.map(|argument| &argument.expr)
        else {
            return Ok(());
        };
        match SourceRange::new(range.inner()) {
            Some(_) => Ok(()),
            None => Err(unusable(format!("{:?}", range.inner()), SourceRange::EXPECTED)),
        }
    }

    fn unknown(&self, what: &str, name: &str, known: &[&str]) -> Unusable {
        let place = self.text.find(name).map(|at| place(self.text, at));
        let place = place.map(|(line, column)| format!(" at {line}:{column}")).unwrap_or_default();
        unusable(format!("{what} {name}{place}"), one_of("one of ", name, known))
    }
}

fn unusable(found: impl Into<String>, expected: impl Into<String>) -> Unusable {
    Unusable { found: found.into(), expected: expected.into() }
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    (line, column)
}
