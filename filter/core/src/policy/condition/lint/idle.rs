//! Function calls with the same result for every value, and comparisons of an address with a text that is no address.
//!
//! Owns which these are. Each is checked separately: the search in `constant` knows no functions.

use std::net::IpAddr;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::print::{path, text, told};
use super::{Kind, Mistake};

const ADDRESS: &str = "source.address";

/// All of them in an expression.
pub(super) fn calls(node: &IdedExpr) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    visit(node, &mut mistakes);
    mistakes
}

fn visit(node: &IdedExpr, mistakes: &mut Vec<Mistake>) {
    let Expr::Call(call) = &node.expr else {
        match &node.expr {
            Expr::Comprehension(walk) => visit(&walk.loop_step, mistakes),
            Expr::Select(select) => visit(&select.operand, mistakes),
            Expr::List(list) => list.elements.iter().for_each(|part| visit(part, mistakes)),
            _ => {}
        }
        return;
    };
    let first = call.target.as_deref().or_else(|| call.args.first());
    let last = call.args.last();
    let always = match (call.func_name.as_str(), last.and_then(text)) {
        ("startsWith" | "endsWith" | "contains", Some("")) => {
            Some(("which every text does", "a text that is not empty"))
        }
        _ => None,
    };
    if let Some((what, expected)) = always {
        mistakes.push(Mistake {
            kind: Kind::AlwaysTrue,
            found: format!("{}, {what}", told(node)),
            expected: expected.to_owned(),
        });
    }
    mistakes.extend(of_size(node, &call.func_name, &call.args));
    let compares = [operators::EQUALS, operators::NOT_EQUALS].contains(&call.func_name.as_str());
    if let (true, [one, other]) = (compares, &*call.args) {
        for (of, with) in [(one, other), (other, one)] {
            let compared = path(of).filter(|path| path == ADDRESS).and_then(|_| text(with));
            mistakes.extend(compared.and_then(|with| of_address(node, &call.func_name, with)));
        }
    }
    if let (operators::IN, Some(of), Some(Expr::List(list))) =
        (call.func_name.as_str(), first.and_then(path), last.map(|it| &it.expr))
        && of == ADDRESS
    {
        let texts = list.elements.iter().filter_map(text);
        mistakes.extend(texts.filter_map(|with| of_address(node, operators::EQUALS, with)));
    }
    call.target.iter().for_each(|target| visit(target, mistakes));
    call.args.iter().for_each(|part| visit(part, mistakes));
}

/// `size(x) >= 0`, which is always true, and `size(x) < 0`, which is never true.
fn of_size(node: &IdedExpr, operator: &str, args: &[IdedExpr]) -> Option<Mistake> {
    let [one, other] = args else { return None };
    let is_size =
        |node: &IdedExpr| matches!(&node.expr, Expr::Call(call) if call.func_name == "size");
    let number = |node: &IdedExpr| match &node.expr {
        Expr::Literal(LiteralValue::Int(value)) => Some(*value.inner()),
        _ => None,
    };
    let (operator, number) = match (is_size(one), is_size(other)) {
        (true, _) => (operator, number(other)?),
        (_, true) => {
            let turned = match operator {
                operators::LESS => operators::GREATER,
                operators::LESS_EQUALS => operators::GREATER_EQUALS,
                operators::GREATER => operators::LESS,
                operators::GREATER_EQUALS => operators::LESS_EQUALS,
                same => same,
            };
            (turned, number(one)?)
        }
        (false, false) => return None,
    };
    let (kind, what) = match (operator, number) {
        (operators::GREATER_EQUALS, ..=0) | (operators::GREATER, ..=-1) => {
            (Kind::AlwaysTrue, "which every value meets")
        }
        (operators::LESS, ..=0) | (operators::LESS_EQUALS, ..=-1) => {
            (Kind::NeverTrue, "which no value meets")
        }
        _ => return None,
    };
    Some(Mistake {
        kind,
        found: format!("{}, {what}: no size is below 0", told(node)),
        expected: "a size from 1 on".to_owned(),
    })
}

/// An address is compared as a text: it never equals a range or a name.
fn of_address(node: &IdedExpr, operator: &str, with: &str) -> Option<Mistake> {
    if with.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (kind, what) = match operator == operators::EQUALS {
        true => (Kind::NeverTrue, "which no address is"),
        false => (Kind::AlwaysTrue, "which every address differs from"),
    };
    let expected = match with.split_once('/').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        true => format!("inRange({ADDRESS}, {with:?})"),
        false => {
            "an address such as 10.0.0.1, or inRange(source.address, \"10.0.0.0/8\")".to_owned()
        }
    };
    Some(Mistake { kind, found: format!("{}, with {with:?}, {what}", told(node)), expected })
}
