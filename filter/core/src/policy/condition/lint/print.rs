//! Expressions as text, for messages and as names of undecidable parts.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

/// The path of a member of a variable, such as `time.hour`; none for any other expression.
pub(super) fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            path(&select.operand).map(|of| format!("{of}.{}", select.field))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let name = text(call.args.get(1)?)?;
            path(call.args.first()?).map(|of| format!("{of}.{name}"))
        }
        _ => None,
    }
}

/// The text of a literal.
pub(super) fn text(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

const BINARY: [(&str, &str); 14] = [
    (operators::LOGICAL_AND, "&&"),
    (operators::LOGICAL_OR, "||"),
    (operators::SUBSTRACT, "-"),
    (operators::ADD, "+"),
    (operators::MULTIPLY, "*"),
    (operators::DIVIDE, "/"),
    (operators::MODULO, "%"),
    (operators::EQUALS, "=="),
    (operators::NOT_EQUALS, "!="),
    (operators::GREATER_EQUALS, ">="),
    (operators::LESS_EQUALS, "<="),
    (operators::GREATER, ">"),
    (operators::LESS, "<"),
    (operators::IN, "in"),
];

/// The sign of an operator.
pub(super) fn sign(name: &str) -> Option<&'static str> {
    BINARY.iter().find(|(function, _)| *function == name).map(|(_, sign)| *sign)
}

/// The expression as text.
pub(super) fn told(node: &IdedExpr) -> String {
    match &node.expr {
        Expr::Unspecified | Expr::Struct(_) => "…".to_owned(),
        Expr::Ident(name) => name.clone(),
        Expr::Literal(literal) => literal_text(literal),
        Expr::Select(select) if select.test => {
            format!("has({}.{})", told(&select.operand), select.field)
        }
        Expr::Select(select) => {
            format!("{}.{}", operand(&select.operand, operators::INDEX, 0), select.field)
        }
        Expr::List(list) => format!("[{}]", all(&list.elements)),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    format!("{}: {}", told(&entry.key), told(&entry.value))
                }
                EntryExpr::StructField(_) => "…".to_owned(),
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Expr::Comprehension(walk) => {
            format!("a walk of {}: {}", told(&walk.iter_range), told(&walk.loop_step))
        }
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let part = |at: usize| {
                call.args.get(at).map(|part| operand(part, name, at)).unwrap_or_default()
            };
            match (call.func_name.as_str(), &call.target) {
                (operators::CONDITIONAL, _) => format!("{} ? {} : {}", part(0), part(1), part(2)),
                (operators::LOGICAL_NOT, _) => format!("!{}", part(0)),
                (operators::NEGATE, _) => format!("-{}", part(0)),
                (operators::INDEX, _) => {
                    format!("{}[{}]", part(0), call.args.get(1).map(told).unwrap_or_default())
                }
                (name, _) if sign(name).is_some() => {
                    format!("{} {} {}", part(0), sign(name).unwrap_or_default(), part(1))
                }
                (name, Some(target)) => {
                    format!("{}.{name}({})", operand(target, name, 0), all(&call.args))
                }
                (name, None) => format!("{name}({})", all(&call.args)),
            }
        }
    }
}

fn all(nodes: &[IdedExpr]) -> String {
    nodes.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// The precedence of an operator: CEL's language definition, "Syntax". Functions and members bind most.
fn strength(name: &str) -> u8 {
    match name {
        operators::CONDITIONAL => 0,
        operators::LOGICAL_OR => 1,
        operators::LOGICAL_AND => 2,
        operators::ADD | operators::SUBSTRACT => 4,
        operators::MULTIPLY | operators::DIVIDE | operators::MODULO => 5,
        operators::LOGICAL_NOT | operators::NEGATE => 6,
        name if sign(name).is_some() => 3,
        _ => 7,
    }
}

/// The part of `parent` at `at`, with brackets where they change the meaning. Nested `&&` and `||` always have them,
/// because few readers know their precedence.
fn operand(node: &IdedExpr, parent: &str, at: usize) -> String {
    let Expr::Call(call) = &node.expr else { return told(node) };
    let name = call.func_name.as_str();
    let joins = [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::CONDITIONAL];
    let weaker = strength(name) < strength(parent)
        || at > 0 && strength(name) == strength(parent) && sign(name).is_some();
    match joins.contains(&name) || weaker {
        true => format!("({})", told(node)),
        false => told(node),
    }
}

fn literal_text(literal: &LiteralValue) -> String {
    match literal {
        LiteralValue::Boolean(value) => value.inner().to_string(),
        LiteralValue::Int(value) => value.inner().to_string(),
        LiteralValue::UInt(value) => format!("{}u", value.inner()),
        LiteralValue::Double(value) => format!("{:?}", value.inner()),
        LiteralValue::String(value) => format!("{:?}", value.inner()),
        LiteralValue::Null => "null".to_owned(),
        LiteralValue::Bytes(_) => "b\"…\"".to_owned(),
    }
}
