//! Whether an expression is the same for every call.
//!
//! Owns the search: each path that is compared with literals takes one value of each class that the
//! literals make, every other part is both true and false. So "never" and "always" are never said of
//! what is not so; what is too large to search through varies.

use std::collections::{BTreeMap, BTreeSet};

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::print::{path, told};
use super::{Kind, Mistake};

/// All values that a path can have.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// These texts.
    Texts(BTreeSet<String>),
    /// These texts, or it is not there.
    SomeOf(BTreeSet<String>),
    /// Whole numbers from one to the other.
    Numbers(i32, i32),
    /// Any text, and it is there.
    AnyText,
    /// Any whole number, and it is there.
    AnyNumber,
}

/// What an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constancy {
    /// True for every call.
    Always,
    /// For none.
    Never,
    /// For some, as far as that can be told.
    Varies,
}

/// More combinations are not looked at.
const MOST_COMBINATIONS: usize = 20_000;
const MOST_PATHS: usize = 8;

/// The outermost part that is constant.
pub(super) fn mistake(
    expression: &IdedExpr,
    domains: &BTreeMap<String, Domain>,
) -> Option<Mistake> {
    let whole = told(expression);
    match constancy(expression, domains) {
        Constancy::Always => Some(Mistake {
            kind: Kind::AlwaysTrue,
            found: format!("{whole}, which is true for every call: the condition refuses nothing"),
            expected: format!("a condition that can be false{}", values(expression, domains)),
        }),
        Constancy::Never => Some(Mistake {
            kind: Kind::NeverTrue,
            found: format!("{whole}, which no call can meet: every call is refused"),
            expected: format!("a condition that can be true{}", meant(expression, domains)),
        }),
        Constancy::Varies => parts(expression).into_iter().find_map(|part| inner(part, domains)),
    }
}

/// A part that is constant within a whole that is not.
fn inner(part: &IdedExpr, domains: &BTreeMap<String, Domain>) -> Option<Mistake> {
    // Somebody may write `true` to switch a part on.
    if matches!(part.expr, Expr::Literal(_)) {
        return None;
    }
    let (kind, what) = match constancy(part, domains) {
        Constancy::Always => (Kind::AlwaysTrue, "always true"),
        Constancy::Never => (Kind::NeverTrue, "never true"),
        Constancy::Varies => {
            return parts(part).into_iter().find_map(|part| inner(part, domains));
        }
    };
    Some(Mistake {
        kind,
        found: format!("{}, a part that is {what}", told(part)),
        expected: format!("a part that can be either{}", values(part, domains)),
    })
}

/// What is joined by `&&`, `||` and `!`.
fn parts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Call(call)
            if [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT]
                .contains(&call.func_name.as_str()) =>
        {
            call.args.iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The way out that nearly every `&&` of two ends of a range is meant as.
fn meant(expression: &IdedExpr, domains: &BTreeMap<String, Domain>) -> String {
    if let Expr::Call(call) = &expression.expr
        && call.func_name == operators::LOGICAL_AND
        && let [one, other] = &*call.args
        && constancy(one, domains) == Constancy::Varies
        && constancy(other, domains) == Constancy::Varies
    {
        return format!("; did you mean {} || {}?", told(one), told(other));
    }
    values(expression, domains)
}

/// The values that there are, where only one path is asked for.
fn values(expression: &IdedExpr, domains: &BTreeMap<String, Domain>) -> String {
    let mut search = Search { domains, paths: BTreeMap::new(), free: BTreeSet::new() };
    search.collect(expression);
    let mut paths = search.paths.keys();
    let (Some(path), None) = (paths.next(), paths.next()) else {
        return String::new();
    };
    match domains.get(path) {
        Some(Domain::Texts(texts) | Domain::SomeOf(texts)) => {
            let known: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found =
                search.paths.get(path).into_iter().flatten().find_map(|value| match value {
                    Literal::Text(text) if !texts.contains(text) => Some(text.as_str()),
                    _ => None,
                });
            crate::nearest::one_of(&format!("; {path} is one of "), found.unwrap_or("\0"), &known)
        }
        Some(Domain::Numbers(least, most)) => format!("; {path} is {least} to {most}"),
        Some(Domain::AnyText | Domain::AnyNumber) | None => String::new(),
    }
}

/// The texts that `path` is compared with.
pub(super) fn texts_compared_with(expression: &IdedExpr, path: &str) -> Vec<String> {
    let domains = BTreeMap::new();
    let mut search = Search { domains: &domains, paths: BTreeMap::new(), free: BTreeSet::new() };
    search.collect(expression);
    let literals = search.paths.remove(path).into_iter().flatten();
    let texts = literals.filter_map(|literal| match literal {
        Literal::Text(text) => Some(text),
        Literal::Number(_) | Literal::Bool(_) => None,
    });
    texts.collect()
}

/// Whether `expression` is the same for every call.
pub(super) fn constancy(expression: &IdedExpr, domains: &BTreeMap<String, Domain>) -> Constancy {
    let mut search = Search { domains, paths: BTreeMap::new(), free: BTreeSet::new() };
    search.collect(expression);
    search.result(expression)
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Number(f64),
    Text(String),
    Bool(bool),
}

/// A value that a path takes in one combination.
#[derive(Clone, Debug, PartialEq)]
enum Sample {
    Is(Literal),
    /// It is not there, or of a kind that no literal has.
    Otherwise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    True,
    False,
    /// It cannot be decided.
    Undecided,
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

struct Search<'a> {
    domains: &'a BTreeMap<String, Domain>,
    /// The literals that each path is compared with.
    paths: BTreeMap<String, Vec<Literal>>,
    /// Parts of which nothing is known.
    free: BTreeSet<String>,
}

struct Combination<'a> {
    paths: BTreeMap<&'a str, &'a Sample>,
    free: BTreeMap<&'a str, bool>,
}

/// A comparison of a path with literals.
struct Atom<'a> {
    path: String,
    operator: &'a str,
    literals: Vec<Literal>,
}

/// `1 < x` is `x > 1`.
fn turned(operator: &str) -> &str {
    match operator {
        operators::LESS => operators::GREATER,
        operators::LESS_EQUALS => operators::GREATER_EQUALS,
        operators::GREATER => operators::LESS,
        operators::GREATER_EQUALS => operators::LESS_EQUALS,
        same => same,
    }
}

const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

fn atom(node: &IdedExpr) -> Option<Atom<'_>> {
    let Expr::Call(call) = &node.expr else {
        return match &node.expr {
            // A member that is true or false by itself.
            Expr::Select(select) if !select.test => {
                let literals = vec![Literal::Bool(true)];
                Some(Atom { path: path(node)?, operator: operators::EQUALS, literals })
            }
            _ => None,
        };
    };
    let (first, second) = (call.args.first()?, call.args.get(1));
    match call.func_name.as_str() {
        operators::IN => {
            let Expr::List(list) = &second?.expr else { return None };
            let literals: Option<Vec<_>> = list.elements.iter().map(literal).collect();
            Some(Atom { path: path(first)?, operator: operators::IN, literals: literals? })
        }
        operator if COMPARISONS.contains(&operator) => {
            let second = second?;
            if let (Some(path), Some(literal)) = (path(first), literal(second)) {
                return Some(Atom { path, operator, literals: vec![literal] });
            }
            let (path, literal) = (path(second)?, literal(first)?);
            Some(Atom { path, operator: turned(operator), literals: vec![literal] })
        }
        _ => None,
    }
}

fn literal(node: &IdedExpr) -> Option<Literal> {
    match &node.expr {
        Expr::Literal(LiteralValue::Boolean(value)) => Some(Literal::Bool(*value.inner())),
        Expr::Literal(LiteralValue::Int(value)) => number(&value.inner().to_string()),
        Expr::Literal(LiteralValue::UInt(value)) => number(&value.inner().to_string()),
        Expr::Literal(LiteralValue::Double(value)) => Some(Literal::Number(*value.inner())),
        Expr::Literal(LiteralValue::String(value)) => Some(Literal::Text(value.inner().to_owned())),
        Expr::Call(call) if call.func_name == operators::NEGATE => {
            match literal(call.args.first()?)? {
                Literal::Number(number) => Some(Literal::Number(-number)),
                Literal::Text(_) | Literal::Bool(_) => None,
            }
        }
        _ => None,
    }
}

/// Beyond what a double holds, neighbours would be one value.
fn number(digits: &str) -> Option<Literal> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number: f64 = digits.parse().ok()?;
    (number.abs() < EXACT).then_some(Literal::Number(number))
}

impl Search<'_> {
    fn collect(&mut self, node: &IdedExpr) {
        if matches!(node.expr, Expr::Literal(_)) {
            return;
        }
        if is_joined(node) {
            return arguments(node).iter().for_each(|part| self.collect(part));
        }
        match (atom(node), constant_pair(node)) {
            (Some(atom), _) => self.paths.entry(atom.path).or_default().extend(atom.literals),
            (None, Some(_)) => {}
            (None, None) => {
                self.free.insert(told(node));
            }
        }
    }

    fn samples(&self, path: &str, literals: &[Literal]) -> Vec<Sample> {
        let is = |literals: Vec<Literal>| literals.into_iter().map(Sample::Is).collect();
        let numbers = || sampled(literals);
        match self.domains.get(path) {
            Some(Domain::Texts(texts)) => is(texts.iter().cloned().map(Literal::Text).collect()),
            Some(Domain::SomeOf(texts)) => {
                let mut samples: Vec<Sample> =
                    is(texts.iter().cloned().map(Literal::Text).collect());
                samples.push(Sample::Otherwise);
                samples
            }
            Some(Domain::Numbers(least, most)) => {
                is((*least..=*most).map(|number| Literal::Number(number.into())).collect())
            }
            Some(Domain::AnyNumber) => is(numbers()),
            Some(Domain::AnyText) => is(texts(literals)),
            None => {
                let mut samples: Vec<Sample> = is([numbers(), texts(literals)].concat());
                samples.extend([true, false].map(|value| Sample::Is(Literal::Bool(value))));
                samples.push(Sample::Otherwise);
                samples
            }
        }
    }

    fn result(&self, expression: &IdedExpr) -> Constancy {
        let samples: Vec<(&str, Vec<Sample>)> = self
            .paths
            .iter()
            .map(|(path, literals)| (path.as_str(), self.samples(path, literals)))
            .collect();
        let free: Vec<&str> = self.free.iter().map(String::as_str).collect();
        let mut total = 1_usize;
        for count in samples.iter().map(|(_, of)| of.len()).chain(free.iter().map(|_| 2)) {
            total = total.saturating_mul(count);
        }
        if total > MOST_COMBINATIONS || samples.len().saturating_add(free.len()) > MOST_PATHS {
            return Constancy::Varies;
        }
        let (mut always, mut never) = (true, true);
        for nth in 0..total {
            let combination = combination(nth, &samples, &free);
            match truth(expression, &combination) {
                Truth::True => never = false,
                Truth::False | Truth::Undecided => always = false,
            }
            if !always && !never {
                return Constancy::Varies;
            }
        }
        match (always, never) {
            (_, true) => Constancy::Never,
            // It is refused where a member of the arguments is spelled otherwise, whatever it says of it.
            (true, false) if told(expression).contains("arguments") => Constancy::Varies,
            (true, false) => Constancy::Always,
            (false, false) => Constancy::Varies,
        }
    }
}

/// The `nth` way to give each path one of its values.
fn combination<'a>(
    nth: usize,
    samples: &'a [(&'a str, Vec<Sample>)],
    free: &[&'a str],
) -> Combination<'a> {
    let mut rest = nth;
    let mut paths = BTreeMap::new();
    for (path, values) in samples {
        let at = rest.checked_rem(values.len()).unwrap_or_default();
        rest = rest.checked_div(values.len()).unwrap_or_default();
        paths.extend(values.get(at).map(|value| (*path, value)));
    }
    let mut either = BTreeMap::new();
    for name in free {
        either.insert(*name, !rest.is_multiple_of(2));
        rest >>= 1;
    }
    Combination { paths, free: either }
}

/// One number of each class that the literals make.
fn sampled(literals: &[Literal]) -> Vec<Literal> {
    let mut numbers: Vec<f64> = literals
        .iter()
        .filter_map(|literal| match literal {
            Literal::Number(number) => Some(*number),
            Literal::Text(_) | Literal::Bool(_) => None,
        })
        .collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else {
        return vec![Literal::Number(0.0)];
    };
    let between = numbers.windows(2).map(|pair| pair.iter().sum::<f64>() / 2.0);
    let all: Vec<f64> = between.chain([first - 1.0, last + 1.0]).chain(numbers.clone()).collect();
    all.into_iter().map(Literal::Number).collect()
}

/// One text of each class that the literals make, by order.
fn texts(literals: &[Literal]) -> Vec<Literal> {
    let mut texts = BTreeSet::from([String::new(), "\u{1}".to_owned()]);
    for literal in literals {
        if let Literal::Text(text) = literal {
            texts.insert(format!("{text}\u{1}"));
            texts.insert(text.clone());
        }
    }
    texts.into_iter().map(Literal::Text).collect()
}

fn arguments(node: &IdedExpr) -> &[IdedExpr] {
    match &node.expr {
        Expr::Call(call) => &call.args,
        _ => &[],
    }
}

fn is_joined(node: &IdedExpr) -> bool {
    const JOINED: [&str; 3] =
        [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT];
    matches!(&node.expr, Expr::Call(call) if JOINED.contains(&call.func_name.as_str()))
}

/// A comparison of two literals.
fn constant_pair(node: &IdedExpr) -> Option<Truth> {
    let Expr::Call(call) = &node.expr else { return None };
    if !COMPARISONS.contains(&call.func_name.as_str()) {
        return None;
    }
    let (one, other) = (literal(call.args.first()?)?, literal(call.args.get(1)?)?);
    Some(compared(&one, &call.func_name, &other))
}

fn truth(node: &IdedExpr, on: &Combination<'_>) -> Truth {
    if let Expr::Literal(LiteralValue::Boolean(value)) = &node.expr {
        return Truth::from(*value.inner());
    }
    let parts = arguments(node);
    let of = |at: usize| parts.get(at).map_or(Truth::Undecided, |part| truth(part, on));
    if let (true, Expr::Call(call)) = (is_joined(node), &node.expr) {
        // As in CEL: what one side decides, a fault of the other does not undo.
        return match (call.func_name.as_str(), of(0), of(1)) {
            (operators::LOGICAL_NOT, Truth::True, _) => Truth::False,
            (operators::LOGICAL_NOT, Truth::False, _) => Truth::True,
            (operators::LOGICAL_NOT, Truth::Undecided, _) => Truth::Undecided,
            (operators::LOGICAL_AND, Truth::False, _)
            | (operators::LOGICAL_AND, _, Truth::False) => Truth::False,
            (operators::LOGICAL_AND, Truth::True, Truth::True) => Truth::True,
            (operators::LOGICAL_OR, Truth::True, _) | (operators::LOGICAL_OR, _, Truth::True) => {
                Truth::True
            }
            (operators::LOGICAL_OR, Truth::False, Truth::False) => Truth::False,
            (_, _, _) => Truth::Undecided,
        };
    }
    if let Some(Atom { path, operator, literals }) = atom(node) {
        return match on.paths.get(path.as_str()) {
            Some(Sample::Is(value)) if operator == operators::IN => {
                Truth::from(literals.contains(value))
            }
            Some(Sample::Is(value)) => {
                literals.first().map_or(Truth::Undecided, |it| compared(value, operator, it))
            }
            Some(Sample::Otherwise) | None => Truth::Undecided,
        };
    }
    if let Some(constant) = constant_pair(node) {
        return constant;
    }
    on.free.get(told(node).as_str()).map_or(Truth::Undecided, |value| Truth::from(*value))
}

fn compared(value: &Literal, operator: &str, with: &Literal) -> Truth {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (value, with) {
        (Literal::Number(one), Literal::Number(other)) => one.partial_cmp(other),
        (Literal::Text(one), Literal::Text(other)) => Some(one.cmp(other)),
        (Literal::Bool(one), Literal::Bool(other)) => Some(one.cmp(other)),
        (_, _) => None,
    };
    match (operator, order) {
        (operators::EQUALS, order) => Truth::from(order == Some(Equal)),
        (operators::NOT_EQUALS, order) => Truth::from(order != Some(Equal)),
        (_, None) => Truth::Undecided,
        (operators::LESS, Some(order)) => Truth::from(order == Less),
        (operators::LESS_EQUALS, Some(order)) => Truth::from(order != Greater),
        (operators::GREATER, Some(order)) => Truth::from(order == Greater),
        (operators::GREATER_EQUALS, Some(order)) => Truth::from(order != Less),
        (_, Some(_)) => Truth::Undecided,
    }
}
