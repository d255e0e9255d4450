//! Whether an expression has the same value for every call.
//!
//! Owns the search: each path that is compared with literals takes one value of each class that the literals define,
//! and every other part is both true and false. So a report of "never" or "always" is always right; an expression that
//! is too large to search counts as varying.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use serde_json::Value;

use super::print::{path, text, told};
use super::{Kind, Mistake};
use crate::policy::arguments::Presence;

/// The set of values of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// These texts.
    Texts(BTreeSet<String>),
    /// These values of a pinned schema.
    Listed(Vec<Literal>, Presence),
    /// A number of a pinned schema, or a length.
    Within(Span, Presence),
    /// Whole numbers of a range.
    Numbers(i32, i32),
    /// Any text; always present.
    AnyText,
    /// Any whole number; always present.
    AnyNumber,
}

/// Numbers between two bounds, each with whether it is included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The lower bound.
    pub least: Option<(f64, bool)>,
    /// The upper bound.
    pub most: Option<(f64, bool)>,
    /// Whether only whole numbers are included.
    pub whole: bool,
}

impl Span {
    /// Whether `number` is included.
    #[must_use]
    pub fn has(&self, number: f64) -> bool {
        let above = |(least, closed): (f64, bool)| number > least || (closed && number == least);
        let below = |(most, closed): (f64, bool)| number < most || (closed && number == most);
        self.least.is_none_or(above)
            && self.most.is_none_or(below)
            && (!self.whole || number.fract() == 0.0)
    }

    /// One number of each class that the literals define.
    fn sampled(&self, literals: &[Literal]) -> Vec<Literal> {
        let bounds = [self.least, self.most].into_iter().flatten();
        let mut literals = literals.to_vec();
        literals.extend(bounds.map(|(bound, _)| Literal::Number(bound)));
        let classes = sampled(&literals).into_iter().flat_map(|literal| match literal {
            Literal::Number(number) if self.whole => {
                vec![below(number.floor()), number.floor(), number.ceil(), above(number.ceil())]
            }
            Literal::Number(number) => vec![number],
            Literal::Text(_) | Literal::Bool(_) => Vec::new(),
        });
        let mut numbers: Vec<f64> = classes.filter(|number| self.has(*number)).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        numbers.into_iter().map(Literal::Number).collect()
    }

    /// Its description, after the name of the path.
    #[must_use]
    pub fn told(&self) -> String {
        let bound = |(bound, closed): (f64, bool), closed_word: &str, open_word: &str| {
            format!("{} {bound}", if closed { closed_word } else { open_word })
        };
        let least = self.least.map(|it| bound(it, "at least", "above"));
        let most = self.most.map(|it| bound(it, "at most", "below"));
        match (least, most) {
            (Some(least), Some(most)) => format!("{least} and {most}"),
            (one, other) => one.or(other).unwrap_or_else(|| "any number".to_owned()),
        }
    }
}

/// By path, such as `arguments.limit`; a length has the path `size(arguments.query)`, items have `[]` at the end.
pub type Arguments = BTreeMap<String, Domain>;

/// The known values of paths.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    /// By path.
    pub named: BTreeMap<String, Domain>,
    /// The domains of arguments from a pinned schema, if it is used.
    pub arguments: Option<Rc<Arguments>>,
    /// Whether only calls with the arguments count.
    pub present: bool,
}

impl Domains {
    fn get(&self, path: &str) -> Option<&Domain> {
        self.named.get(path).or_else(|| self.of_schema(path))
    }

    fn of_schema(&self, path: &str) -> Option<&Domain> {
        self.arguments.as_ref()?.get(path)
    }
}

/// The result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constancy {
    /// True for every call.
    Always,
    /// False for every call.
    Never,
    /// Different for different calls, or unknown.
    Varies,
}

/// The most combinations that are searched.
const MOST_COMBINATIONS: usize = 20_000;
const MOST_PATHS: usize = 8;

/// The outermost part that is constant.
pub(super) fn mistake(expression: &IdedExpr, domains: &Domains) -> Option<Mistake> {
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

/// The outermost part that has the same value for every call that fits the pinned schema. Used when [`mistake`] finds
/// none.
pub(super) fn beyond_schema(expression: &IdedExpr, domains: &Domains) -> Option<Mistake> {
    let whole = told(expression);
    let within = "a condition that calls within the pinned schema can";
    match constancy(expression, domains) {
        Constancy::Always => Some(Mistake {
            kind: Kind::AlwaysTrue,
            found: format!(
                "{whole}, which every call that fits the pinned schema meets: the condition refuses nothing"
            ),
            expected: format!("{within} break{}", values(expression, domains)),
        }),
        Constancy::Never => Some(Mistake {
            kind: Kind::NeverTrue,
            found: format!(
                "{whole}, which no call that fits the pinned schema can meet: every call is refused"
            ),
            expected: format!("{within} meet{}", values(expression, domains)),
        }),
        Constancy::Varies if is_idle(expression, domains) => Some(Mistake {
            kind: Kind::AlwaysTrue,
            found: format!(
                "{whole}, which every call with the argument meets that fits the pinned schema: only calls without it are refused"
            ),
            expected: format!("{within} break{}", values(expression, domains)),
        }),
        Constancy::Varies => {
            parts(expression).into_iter().find_map(|part| beyond_part(part, domains))
        }
    }
}

/// Whether it is true whenever the arguments that it names are present.
fn is_idle(expression: &IdedExpr, domains: &Domains) -> bool {
    let present = Domains { present: true, ..domains.clone() };
    let mut search = Search::new(&present);
    search.collect(expression);
    search.asked.is_empty()
        && search.paths.keys().any(|path| present.of_schema(path).is_some())
        && search.result(expression) == Constancy::Always
}

fn beyond_part(part: &IdedExpr, domains: &Domains) -> Option<Mistake> {
    if matches!(part.expr, Expr::Literal(_)) {
        return None;
    }
    let (kind, what) = match constancy(part, domains) {
        Constancy::Always => (Kind::AlwaysTrue, "always true"),
        Constancy::Varies if is_idle(part, domains) => (Kind::AlwaysTrue, "always true"),
        Constancy::Never => (Kind::NeverTrue, "never true"),
        Constancy::Varies => {
            return parts(part).into_iter().find_map(|part| beyond_part(part, domains));
        }
    };
    Some(Mistake {
        kind,
        found: format!(
            "{}, a part that is {what} for calls that fit the pinned schema",
            told(part)
        ),
        expected: format!("a part that can be either{}", values(part, domains)),
    })
}

/// A constant part of an expression that is not constant.
fn inner(part: &IdedExpr, domains: &Domains) -> Option<Mistake> {
    // An author may write `true` to enable a part.
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

/// The operands of `&&`, `||` and `!`.
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

/// The suggestion for an `&&` of two ends of a range, which is nearly always meant as `||`.
fn meant(expression: &IdedExpr, domains: &Domains) -> String {
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

/// The possible values, when the expression uses only one path.
fn values(expression: &IdedExpr, domains: &Domains) -> String {
    let mut search = Search::new(domains);
    search.collect(expression);
    let mut paths = search.paths.keys();
    let (Some(path), None) = (paths.next(), paths.next()) else {
        return String::new();
    };
    match domains.get(path) {
        Some(Domain::Listed(values, _)) => {
            let known: Vec<String> = values.iter().map(Literal::told).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let mut other = search.paths.get(path).into_iter().flatten();
            let other = other.find(|value| !values.contains(value)).map(Literal::told);
            let other = other.as_deref().unwrap_or("\0");
            crate::nearest::one_of(&format!("; {path} is one of "), other, &known)
        }
        Some(Domain::Within(span, _)) => format!("; {path} is {}", span.told()),
        Some(Domain::Texts(texts)) => {
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

/// The texts with which `path` is compared.
pub(super) fn texts_compared_with(expression: &IdedExpr, path: &str) -> Vec<String> {
    let domains = Domains::default();
    let mut search = Search::new(&domains);
    search.collect(expression);
    let literals = search.paths.remove(path).into_iter().flatten();
    let texts = literals.filter_map(|literal| match literal {
        Literal::Text(text) => Some(text),
        Literal::Number(_) | Literal::Bool(_) => None,
    });
    texts.collect()
}

/// Whether `expression` has the same value for every call.
pub(super) fn constancy(expression: &IdedExpr, domains: &Domains) -> Constancy {
    let mut search = Search::new(domains);
    search.collect(expression);
    search.result(expression)
}

/// A literal value.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A number that a double represents exactly.
    Number(f64),
    /// A text.
    Text(String),
    /// True or false.
    Bool(bool),
}

impl Literal {
    /// Its description.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
        }
    }

    /// The value as a literal; none for `null`, lists, objects and numbers that a double cannot represent.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(value) => number(value.as_str()),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The value of a path in one combination.
#[derive(Clone, Debug, PartialEq)]
enum Sample {
    Is(Literal),
    /// The path is absent.
    Absent,
    /// The path is absent, or its type is none of the literals'.
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
    domains: &'a Domains,
    /// The literals with which each path is compared.
    paths: BTreeMap<String, Vec<Literal>>,
    /// Parts with unknown values.
    free: BTreeSet<String>,
    /// Parts that test whether a path is present, with the path that decides.
    asked: BTreeMap<String, String>,
}

struct Combination<'a> {
    paths: BTreeMap<&'a str, &'a Sample>,
    free: BTreeMap<&'a str, bool>,
    asked: &'a BTreeMap<String, String>,
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
            // A boolean member as a part of its own.
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
            Some(Atom { path: compared_path(first)?, operator: operators::IN, literals: literals? })
        }
        operator if COMPARISONS.contains(&operator) => {
            let second = second?;
            if let (Some(path), Some(literal)) = (compared_path(first), literal(second)) {
                return Some(Atom { path, operator, literals: vec![literal] });
            }
            let (path, literal) = (compared_path(second)?, literal(first)?);
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

/// Beyond the precision of a double, two numbers could be one value.
fn number(digits: &str) -> Option<Literal> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number: f64 = digits.parse().ok()?;
    (number.abs() < EXACT).then_some(Literal::Number(number))
}

/// The path in a question for a length: `size(arguments.ids)`, `arguments.ids.size()`.
fn sized(node: &IdedExpr) -> Option<String> {
    let Expr::Call(call) = &node.expr else { return None };
    let of = match (&call.target, &*call.args) {
        (Some(target), []) => &**target,
        (None, [one]) => one,
        _ => return None,
    };
    (call.func_name == "size").then(|| path(of)).flatten().map(|of| format!("size({of})"))
}

/// A path that is compared with literals.
fn compared_path(node: &IdedExpr) -> Option<String> {
    path(node).or_else(|| sized(node))
}

/// The member of the arguments whose presence a part tests.
fn asked_for(node: &IdedExpr) -> Option<String> {
    let (of, name) = match &node.expr {
        Expr::Select(select) if select.test => (&*select.operand, select.field.as_str()),
        Expr::Call(call) if call.func_name == operators::IN => {
            (call.args.get(1)?, call.args.first().and_then(text)?)
        }
        _ => return None,
    };
    // For a nested member it is unknown whether the outer one is present.
    matches!(&of.expr, Expr::Ident(root) if root == "arguments")
        .then(|| format!("arguments.{name}"))
}

impl<'a> Search<'a> {
    fn new(domains: &'a Domains) -> Self {
        Self { domains, paths: BTreeMap::new(), free: BTreeSet::new(), asked: BTreeMap::new() }
    }
}

impl Search<'_> {
    /// The path whose domain decides whether `member` is present.
    fn teller(&self, member: &str) -> Option<String> {
        let sized = format!("size({member})");
        [member, &sized]
            .into_iter()
            .find(|path| self.domains.of_schema(path).is_some())
            .map(str::to_owned)
    }

    fn collect(&mut self, node: &IdedExpr) {
        if matches!(node.expr, Expr::Literal(_)) {
            return;
        }
        if is_joined(node) {
            return arguments(node).iter().for_each(|part| self.collect(part));
        }
        if let Some(teller) = asked_for(node).and_then(|member| self.teller(&member)) {
            self.paths.entry(teller.clone()).or_default();
            self.asked.insert(told(node), teller);
            return;
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
            Some(Domain::Listed(values, presence)) => self.absent(is(values.clone()), *presence),
            Some(Domain::Within(span, presence)) => {
                self.absent(is(span.sampled(literals)), *presence)
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

    fn absent(&self, mut samples: Vec<Sample>, presence: Presence) -> Vec<Sample> {
        if presence == Presence::Optional && !self.domains.present {
            samples.push(Sample::Absent);
        }
        // A schema without valid values gives no information.
        if samples.is_empty() {
            samples.push(Sample::Otherwise);
        }
        samples
    }

    /// Whether the pinned schema describes all arguments that the expression uses.
    fn is_described(&self) -> bool {
        let of_arguments = |text: &String| text.contains("arguments");
        let mut paths = self.paths.keys().filter(|path| of_arguments(path));
        paths.all(|path| self.domains.of_schema(path).is_some())
            && !self.free.iter().any(of_arguments)
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
            let combination = combination(nth, &samples, &free, &self.asked);
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
            // The condition is refused when a member of the arguments is spelled differently, regardless of the rest.
            (true, false) if told(expression).contains("arguments") && !self.is_described() => {
                Constancy::Varies
            }
            (true, false) => Constancy::Always,
            (false, false) => Constancy::Varies,
        }
    }
}

/// The `nth` combination of values of the paths.
fn combination<'a>(
    nth: usize,
    samples: &'a [(&'a str, Vec<Sample>)],
    free: &[&'a str],
    asked: &'a BTreeMap<String, String>,
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
    Combination { paths, free: either, asked }
}

/// One number of each class that the literals define.
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
    let all: Vec<f64> = between.chain([below(first), above(last)]).chain(numbers.clone()).collect();
    all.into_iter().map(Literal::Number).collect()
}

/// A smaller number: for large ones, less 1 is the same.
fn below(number: f64) -> f64 {
    (number - 1.0).min(number.next_down())
}

/// A larger number, likewise.
fn above(number: f64) -> f64 {
    (number + 1.0).max(number.next_up())
}

/// One text of each class that the literals define, by order.
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
        // As in CEL: when one side decides, an error of the other has no effect.
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
    if let Some(teller) = asked_for(node).and_then(|_| on.asked.get(told(node).as_str())) {
        return Truth::from(on.paths.get(teller.as_str()).is_some_and(|it| **it != Sample::Absent));
    }
    if let Some(Atom { path, operator, literals }) = atom(node) {
        return match on.paths.get(path.as_str()) {
            Some(Sample::Is(value)) if operator == operators::IN => {
                Truth::from(literals.contains(value))
            }
            Some(Sample::Is(value)) => {
                literals.first().map_or(Truth::Undecided, |it| compared(value, operator, it))
            }
            Some(Sample::Absent | Sample::Otherwise) | None => Truth::Undecided,
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
