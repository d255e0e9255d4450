//! Whether the types in an expression go together.
//!
//! Owns the types of our own objects and of arguments as a pinned schema describes them. What is not
//! known is [`Type::Any`], which goes with everything: nothing is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::{Map, Value};

use super::constant::{Constancy, constancy};
use super::print::{path, sign, text, told};
use super::{Kind, Known, Mistake};
use crate::nearest::one_of;
use crate::policy::condition::Variable;

/// The type of a value, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Type {
    /// It may be anything.
    #[default]
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// A number, whole or not.
    Number,
    /// A text.
    Text,
    /// A list of these.
    List(Rc<Type>),
    /// An object.
    Object(Rc<Shape>),
}

/// What is known of an object.
#[derive(Debug, Default, PartialEq)]
pub struct Shape {
    /// What it is called in messages: `time`, `the pinned schema of pay`.
    pub name: String,
    /// Its members.
    pub members: BTreeMap<String, Type>,
    /// Whether it may have others, of which nothing is known.
    pub open: bool,
}

/// Nested objects of a schema deeper than this are not looked into.
const DEEPEST_SHAPE: usize = 6;

impl Type {
    /// What a schema describes. What only a check of values could tell, such as `oneOf` or a reference, is
    /// anything.
    #[must_use]
    pub fn of_schema(schema: &Value, name: &str) -> Self {
        Self::described(schema, name, DEEPEST_SHAPE)
    }

    fn described(schema: &Value, name: &str, depth: usize) -> Self {
        let Some(members) = schema.as_object().filter(|_| depth > 0) else { return Self::Any };
        let deeper = |schema: &Value| Self::described(schema, name, depth.saturating_sub(1));
        match members.get("type").and_then(Value::as_str) {
            Some("string") => Self::Text,
            Some("integer") => Self::Int,
            Some("number") => Self::Number,
            Some("boolean") => Self::Bool,
            Some("null") => Self::Null,
            Some("array") => Self::List(Rc::new(members.get("items").map_or(Self::Any, deeper))),
            Some("object") | None => match members.get("properties").and_then(Value::as_object) {
                Some(properties) => Self::Object(Rc::new(Shape {
                    name: name.to_owned(),
                    members: properties.iter().map(|(it, of)| (it.clone(), deeper(of))).collect(),
                    open: is_open(members),
                })),
                None => Self::Any,
            },
            Some(_) => Self::Any,
        }
    }

    /// What it is called in messages, where it is known.
    #[must_use]
    pub const fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::Null => Some("null"),
            Self::Bool => Some("true or false"),
            Self::Int | Self::Double | Self::Number => Some("a number"),
            Self::Text => Some("a text"),
            Self::List(_) => Some("a list"),
            Self::Object(_) => Some("an object"),
        }
    }

    /// Whether values of both can be the same.
    fn meets(&self, other: &Self) -> bool {
        match (self.kind(), other.kind()) {
            (Some(one), Some(other)) => one == other || one == "null" || other == "null",
            (None, _) | (_, None) => true,
        }
    }

    fn is(&self, kinds: &[&str]) -> bool {
        self.kind().is_none_or(|kind| kinds.contains(&kind))
    }
}

/// Whether a schema has members beyond its `properties` by something else than leaving them open.
fn is_open(members: &Map<String, Value>) -> bool {
    const MORE: [&str; 10] = [
        "$ref",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "patternProperties",
        "dependentSchemas",
        "dependencies",
        "propertyNames",
    ];
    MORE.iter().any(|keyword| members.contains_key(*keyword))
        || members.get("additionalProperties").is_some_and(Value::is_object)
}

/// The type of each variable.
fn variable(name: &str, known: &Known) -> Type {
    let texts = |names: &[&str]| -> Vec<(String, Type)> {
        names.iter().map(|name| ((*name).to_owned(), Type::Text)).collect()
    };
    let object = |members: Vec<(String, Type)>| {
        let members = members.into_iter().collect();
        Type::Object(Rc::new(Shape { name: name.to_owned(), members, open: false }))
    };
    match Variable::ALL.into_iter().find(|variable| variable.name() == name) {
        Some(Variable::Principal) => {
            let mut members = texts(&["org", "name", "role", "tier", "method", "agent"]);
            members.push(("scopes".to_owned(), Type::List(Rc::new(Type::Text))));
            object(members)
        }
        Some(Variable::Time) => {
            let mut members = texts(&["weekday", "date"]);
            let numbers = ["unix", "year", "month", "day", "hour", "minute"];
            members.extend(numbers.map(|name| (name.to_owned(), Type::Int)));
            object(members)
        }
        Some(Variable::Source) => object(texts(&["address"])),
        Some(Variable::Tool | Variable::Connector) => Type::Text,
        Some(Variable::Arguments) => known.arguments.clone(),
        Some(Variable::Claims) | None => Type::Any,
    }
}

/// Every mistake of type.
pub(super) fn check(expression: &IdedExpr, known: &Known) -> Vec<Mistake> {
    let mut asked = BTreeSet::new();
    asked_for(expression, &mut asked);
    let mut walk = Walk { known, asked, bound: BTreeMap::new(), mistakes: Vec::new() };
    let whole = walk.of(expression);
    if !whole.is(&["true or false"]) {
        walk.wrong(
            format!("{}, which is {}, so that no call meets it", told(expression), kind(&whole)),
            "a condition: true or false, such as arguments.amount <= 100",
        );
    }
    walk.mistakes.sort();
    walk.mistakes.dedup();
    walk.mistakes
}

fn kind(of: &Type) -> &'static str {
    of.kind().unwrap_or("something else")
}

/// The paths that `has` asks for.
fn asked_for(node: &IdedExpr, found: &mut BTreeSet<String>) {
    match &node.expr {
        Expr::Select(select) => {
            if select.test {
                let of = path(&select.operand);
                found.extend(of.map(|of| format!("{of}.{}", select.field)));
            }
            asked_for(&select.operand, found);
        }
        Expr::Call(call) => {
            if let (operators::IN, Some(name), Some(of)) = (
                call.func_name.as_str(),
                call.args.first().and_then(text),
                call.args.get(1).and_then(path),
            ) {
                found.insert(format!("{of}.{name}"));
            }
            let parts = call.target.iter().map(|target| &**target).chain(&call.args);
            parts.for_each(|part| asked_for(part, found));
        }
        Expr::Comprehension(walk) => {
            [&walk.iter_range, &walk.loop_step].into_iter().for_each(|it| asked_for(it, found));
        }
        Expr::List(list) => list.elements.iter().for_each(|item| asked_for(item, found)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

struct Walk<'a> {
    known: &'a Known,
    /// Members that are asked for with `has`.
    asked: BTreeSet<String>,
    /// The types of names that a walk of a list binds.
    bound: BTreeMap<String, Type>,
    mistakes: Vec<Mistake>,
}

impl Walk<'_> {
    fn wrong(&mut self, found: String, expected: impl Into<String>) {
        self.mistakes.push(Mistake { kind: Kind::WrongType, found, expected: expected.into() });
    }

    fn of(&mut self, node: &IdedExpr) -> Type {
        match &node.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Int,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::String(_) => Type::Text,
                LiteralValue::Null => Type::Null,
                LiteralValue::Bytes(_) => Type::Any,
            },
            Expr::Ident(name) => match self.bound.get(name) {
                Some(bound) => bound.clone(),
                None => variable(name, self.known),
            },
            Expr::Select(select) => {
                let of = self.of(&select.operand);
                let member = self.member(node, (&select.operand, &of), &select.field);
                if select.test { Type::Bool } else { member }
            }
            Expr::List(list) => {
                let items: Vec<Type> = list.elements.iter().map(|item| self.of(item)).collect();
                let first = items.first().cloned().unwrap_or_default();
                let same = items.iter().all(|item| item.kind() == first.kind());
                Type::List(Rc::new(if same { first } else { Type::Any }))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.of(&entry.value);
                    }
                }
                Type::Any
            }
            Expr::Comprehension(walk) => {
                let range = self.of(&walk.iter_range);
                let item = match &range {
                    Type::List(item) => (**item).clone(),
                    Type::Any => Type::Any,
                    Type::Object(_) => Type::Text,
                    other => {
                        let found = format!(
                            "a walk of {}, which is {}",
                            told(&walk.iter_range),
                            kind(other)
                        );
                        self.wrong(found, "a list or an object");
                        Type::Any
                    }
                };
                let start = match self.of(&walk.accu_init) {
                    Type::List(_) => Type::List(Rc::new(Type::Any)),
                    start => start,
                };
                self.bound.insert(walk.iter_var.clone(), item);
                self.bound.insert(walk.accu_var.clone(), start);
                if let Some(second) = &walk.iter_var2 {
                    self.bound.insert(second.clone(), Type::Any);
                }
                self.of(&walk.loop_step);
                let result = self.of(&walk.result);
                self.bound.clear();
                result
            }
            Expr::Call(call) => self.call(node, call),
            Expr::Struct(_) | Expr::Unspecified => Type::Any,
        }
    }

    /// The type of a member of `of`.
    fn member(&mut self, node: &IdedExpr, (operand, of): (&IdedExpr, &Type), name: &str) -> Type {
        let shape = match of {
            Type::Object(shape) => shape,
            Type::Any => return Type::Any,
            other => {
                let found =
                    format!("the member {name} of {}, which is {}", told(operand), kind(other));
                self.wrong(found, "a member of an object");
                return Type::Any;
            }
        };
        if let Some(member) = shape.members.get(name) {
            return member.clone();
        }
        if shape.open {
            return Type::Any;
        }
        let names: Vec<&str> = shape.members.keys().map(String::as_str).collect();
        let whole = path(operand).map(|of| format!("{of}.{name}"));
        let asked = whole.as_ref().is_some_and(|whole| self.asked.contains(whole));
        let ours = variable_of(operand).is_some_and(|variable| variable != Variable::Arguments);
        let (kind, why) = match (ours, asked) {
            (true, _) => (Kind::UnknownMember, "which does not exist: no call meets it"),
            (false, false) => (
                Kind::UnknownArgument,
                "which the pinned schema does not have: no call that fits it meets the condition",
            ),
            (false, true) => (Kind::UnknownOptional, "which the pinned schema does not have"),
        };
        let told = whole.unwrap_or_else(|| told(node));
        let found = format!("{told}, {why}");
        let expected = one_of(&format!("a member of {}: ", shape.name), name, &names);
        self.mistakes.push(Mistake { kind, found, expected });
        Type::Any
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Type {
        let name = call.func_name.as_str();
        if [operators::LOGICAL_AND, operators::LOGICAL_OR].contains(&name) {
            return self.joined(call);
        }
        let target = call.target.as_deref().map(|target| self.of(target));
        let types: Vec<Type> = call.args.iter().map(|argument| self.of(argument)).collect();
        let of = |at: usize| types.get(at).cloned().unwrap_or_default();
        match name {
            operators::LOGICAL_NOT => {
                self.boolean(call.args.first(), &of(0), "!");
                Type::Bool
            }
            operators::CONDITIONAL => {
                self.boolean(call.args.first(), &of(0), "?");
                if of(1).kind() == of(2).kind() { of(1) } else { Type::Any }
            }
            operators::EQUALS | operators::NOT_EQUALS => {
                if !of(0).meets(&of(1)) {
                    let always = if name == operators::EQUALS { "false" } else { "true" };
                    self.unlike(node, (&of(0), &of(1)), &format!("always {always}"));
                }
                Type::Bool
            }
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => {
                if !of(0).meets(&of(1)) {
                    self.unlike(node, (&of(0), &of(1)), "never decided, so that no call meets it");
                }
                Type::Bool
            }
            operators::IN => {
                match &of(1) {
                    Type::List(item) if !of(0).meets(item) => {
                        self.unlike(node, (&of(0), item), "always false");
                    }
                    list if !list.is(&["a list", "an object"]) => {
                        let found = format!(
                            "{}, where {} is looked for in {}",
                            told(node),
                            kind(&of(0)),
                            kind(list)
                        );
                        self.wrong(found, "a list, such as [\"mon\", \"tue\"]");
                    }
                    _ => {}
                }
                Type::Bool
            }
            operators::INDEX => self.index(node, call, (&of(0), &of(1))),
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO => self.arithmetic(node, name, (&of(0), &of(1))),
            operators::NEGATE => of(0),
            _ => self.function(node, call, target, &types),
        }
    }

    /// `&&` and `||`: what one side decides for all calls that are meant here, the other is not asked.
    fn joined(&mut self, call: &CallExpr) -> Type {
        let decides = match call.func_name.as_str() {
            operators::LOGICAL_OR => Constancy::Always,
            _ => Constancy::Never,
        };
        let decided = self.bound.is_empty()
            && call.args.iter().any(|part| {
                speaks_of_target(part) && constancy(part, &self.known.domains) == decides
            });
        if decided {
            return Type::Bool;
        }
        for part in &call.args {
            let of = self.of(part);
            self.boolean(Some(part), &of, sign(&call.func_name).unwrap_or_default());
        }
        Type::Bool
    }

    fn boolean(&mut self, part: Option<&IdedExpr>, of: &Type, operator: &str) {
        if let (false, Some(part)) = (of.is(&["true or false"]), part) {
            let found = format!("{}, which is {}, beside {operator}", told(part), kind(of));
            self.wrong(found, "true or false");
        }
    }

    fn unlike(&mut self, node: &IdedExpr, (one, other): (&Type, &Type), what: &str) {
        let found =
            format!("{}, which compares {} with {}: {what}", told(node), kind(one), kind(other));
        let hint = match (one.kind(), other.kind()) {
            (Some("a number"), Some("a text")) | (Some("a text"), Some("a number")) => {
                "; a number stands without quotes"
            }
            _ => "",
        };
        self.wrong(found, format!("two values of one kind{hint}"));
    }

    fn index(&mut self, node: &IdedExpr, call: &CallExpr, (of, by): (&Type, &Type)) -> Type {
        if let (Some(operand), Some(name)) = (call.args.first(), call.args.get(1).and_then(text)) {
            return self.member(node, (operand, of), name);
        }
        match of {
            Type::List(item) if by.is(&["a number"]) => (**item).clone(),
            Type::List(_) => {
                self.wrong(format!("{}, a list by {}", told(node), kind(by)), "a number in [ ]");
                Type::Any
            }
            Type::Any | Type::Object(_) => Type::Any,
            Type::Null | Type::Bool | Type::Int | Type::Double | Type::Number | Type::Text => {
                let found = format!("{}, which is a part of {}", told(node), kind(of));
                self.wrong(found, "a part of a list or an object");
                Type::Any
            }
        }
    }

    fn arithmetic(&mut self, node: &IdedExpr, name: &str, (one, other): (&Type, &Type)) -> Type {
        let kinds: &[&str] = match name {
            operators::ADD => &["a number", "a text", "a list"],
            _ => &["a number"],
        };
        let fit = one.is(kinds) && other.is(kinds) && one.meets(other);
        let whole = matches!((one, other), (Type::Int, Type::Double) | (Type::Double, Type::Int));
        if !fit || whole {
            let why = match whole {
                true => "a whole number with one that has a fraction",
                false => kind(if one.is(kinds) { other } else { one }),
            };
            let found = format!(
                "{}, arithmetic on {why}: never decided, so that no call meets it",
                told(node)
            );
            self.wrong(found, "numbers of one kind: int(…) and double(…) convert");
            return Type::Any;
        }
        match (one, other) {
            (Type::Any, other) => other.clone(),
            (one, _) => one.clone(),
        }
    }

    fn function(
        &mut self,
        node: &IdedExpr,
        call: &CallExpr,
        target: Option<Type>,
        types: &[Type],
    ) -> Type {
        let name = call.func_name.as_str();
        let all: Vec<Type> = target.into_iter().chain(types.iter().cloned()).collect();
        let first = all.first().cloned().unwrap_or_default();
        let (count, kinds, result): (usize, &[&str], Type) = match name {
            "size" => (1, &["a text", "a list", "an object"], Type::Int),
            "contains" | "startsWith" | "endsWith" | "matches" => (2, &["a text"], Type::Bool),
            "inRange" => (2, &["a text"], Type::Bool),
            "lowerAscii" => (1, &["a text"], Type::Text),
            "int" => (1, &["a number", "a text"], Type::Int),
            "double" => (1, &["a number", "a text"], Type::Double),
            "string" => (1, &["a number", "a text", "true or false"], Type::Text),
            // What macros are made of.
            _ => return Type::Any,
        };
        if all.len() != count {
            let found = format!("{}, {name} with {} values", told(node), all.len());
            self.wrong(found, format!("{count}, such as {}", example(name)));
        } else if let Some(other) = all.iter().find(|of| !of.is(kinds)) {
            let found = format!(
                "{}, {name} of {}: never decided, so that no call meets it",
                told(node),
                kind(other)
            );
            self.wrong(found, format!("{}, such as {}", kinds.join(" or "), example(name)));
        } else if name == "contains" && matches!(first, Type::List(_)) {
            self.wrong(told(node), "a text; for a list write value in list");
        }
        result
    }
}

fn example(name: &str) -> &'static str {
    match name {
        "size" => "size(arguments.ids) <= 10",
        "inRange" => "inRange(source.address, \"10.0.0.0/8\")",
        "matches" => "arguments.query.matches('^[a-z]+$')",
        "lowerAscii" => "arguments.plan.lowerAscii()",
        "int" => "int(arguments.amount)",
        "double" => "double(arguments.amount)",
        "string" => "string(arguments.id)",
        _ => "tool.startsWith(\"query_\"); in a list: value in list",
    }
}

/// The variable at the beginning of a path.
fn variable_of(node: &IdedExpr) -> Option<Variable> {
    let path = path(node)?;
    let root = path.split('.').next()?;
    Variable::ALL.into_iter().find(|variable| variable.name() == root)
}

/// Whether a part is about which tool or connector is called and nothing else.
fn speaks_of_target(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Ident(name) => name == "tool" || name == "connector",
        Expr::Literal(_) => true,
        Expr::List(list) => list.elements.iter().all(speaks_of_target),
        Expr::Call(call) => {
            call.target.iter().all(|it| speaks_of_target(it))
                && call.args.iter().all(speaks_of_target)
        }
        Expr::Select(_)
        | Expr::Comprehension(_)
        | Expr::Map(_)
        | Expr::Struct(_)
        | Expr::Unspecified => false,
    }
}
