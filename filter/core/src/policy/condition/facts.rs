//! What is known of a call when its conditions are decided.
//!
//! Owns how JSON and a principal look from within an expression. Texts are borrowed, never copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde_json::{Map, Number, Value};

use super::{MOST_TEXT, MOST_VALUES, Undecided, Variable};
use crate::auth::{Principal, Scopes};
use crate::id::PolicyName;
use crate::json;
use crate::time::UnixTime;

/// The circumstances of one call.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// What the caller's token says besides.
    pub claims: &'a Map<String, Value>,
    /// On which connector.
    pub connector: &'a PolicyName,
    /// Which tool.
    pub tool: &'a str,
    /// With which arguments.
    pub arguments: &'a Map<String, Value>,
    /// When.
    pub now: UnixTime,
    /// From which address, without port.
    pub source: &'a str,
}

type Boxed<'a> = Box<dyn Val + 'a>;

impl<'a> Facts<'a> {
    /// The value of a variable.
    pub(super) fn value(&self, variable: Variable) -> Boxed<'a> {
        match variable {
            Variable::Principal => principal(self.principal),
            Variable::Claims => object(self.claims),
            Variable::Tool => text(self.tool),
            Variable::Connector => text(self.connector.as_str()),
            Variable::Arguments => object(self.arguments),
            Variable::Time => time(self.now),
            Variable::Source => members([("address", text(self.source))]),
        }
    }

    /// Whether every reader finds in the arguments what an evaluation finds: each of the `named` members under
    /// that name alone, and no number that is rounded.
    pub(super) fn have_one_meaning(
        &self,
        named: &BTreeMap<String, BTreeSet<String>>,
    ) -> Result<(), Undecided> {
        let spelled = |members: &Map<String, Value>| {
            members.keys().all(|name| match named.get(&json::folded(name)) {
                Some(exact) => exact.contains(name),
                None => true,
            })
        };
        let mut waiting: Vec<&Value> = self.arguments.values().collect();
        if !spelled(self.arguments) {
            return Err(Undecided::Misspelt);
        }
        while let Some(value) = waiting.pop() {
            match value {
                Value::Array(items) => waiting.extend(items),
                Value::Object(members) if !spelled(members) => return Err(Undecided::Misspelt),
                Value::Object(members) => waiting.extend(members.values()),
                Value::Number(number) if !is_exact(number) => return Err(Undecided::Inexact),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(())
    }

    /// Whether the arguments are small enough to be walked.
    pub(super) fn arguments_fit(&self) -> bool {
        let (mut values, mut bytes) = (0_usize, 0_usize);
        let mut waiting: Vec<&Value> = self.arguments.values().collect();
        bytes = self.arguments.keys().fold(bytes, |sum, name| sum.saturating_add(name.len()));
        while let Some(value) = waiting.pop() {
            values = values.saturating_add(1);
            match value {
                Value::String(text) => bytes = bytes.saturating_add(text.len()),
                Value::Array(items) => waiting.extend(items),
                Value::Object(members) => {
                    bytes = members.keys().fold(bytes, |sum, name| sum.saturating_add(name.len()));
                    waiting.extend(members.values());
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
            if values > MOST_VALUES || bytes > MOST_TEXT {
                return false;
            }
        }
        true
    }
}

fn principal(principal: &Principal) -> Boxed<'_> {
    let scopes: Vec<Boxed<'_>> = match &principal.scopes {
        Scopes::Granted(scopes) => scopes.iter().map(|scope| text(scope)).collect(),
        Scopes::Unknown => Vec::new(),
    };
    members([
        ("org", text(principal.org.as_str())),
        ("name", text(&principal.name)),
        ("role", text(principal.role.as_str())),
        ("tier", text(principal.tier.as_str())),
        ("method", text(principal.identity.method())),
        ("scopes", Box::new(CelList::from(scopes))),
        ("agent", text(principal.agent.as_deref().unwrap_or_default())),
    ])
}

fn time<'a>(now: UnixTime) -> Boxed<'a> {
    const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let second = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let (date, time) = (now.utc().date(), now.utc().time());
    let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or_default();
    let day = now.rfc3339().split_once('T').map_or_else(String::new, |(day, _)| day.to_owned());
    let number = |number: i64| -> Boxed<'a> { Box::new(CelInt::from(number)) };
    members([
        ("unix", number(second)),
        ("year", number(date.year().into())),
        ("month", number(date.month().into())),
        ("day", number(date.day().into())),
        ("hour", number(time.hour().into())),
        ("minute", number(time.minute().into())),
        ("weekday", text(WEEKDAYS.get(weekday).copied().unwrap_or_default())),
        ("date", Box::new(CelString::from(day))),
    ])
}

fn text(text: &str) -> Boxed<'_> {
    Box::new(CelString::from(text))
}

fn members<'a, const N: usize>(members: [(&'static str, Boxed<'a>); N]) -> Boxed<'a> {
    let members = members.into_iter().map(|(name, value)| (CelMapKey::from(name), value));
    Box::new(CelMap::from(members.collect::<HashMap<_, _>>()))
}

fn object(object: &Map<String, Value>) -> Boxed<'_> {
    let members = object.iter().map(|(name, value)| (CelMapKey::from(name.as_str()), of(value)));
    Box::new(CelMap::from(members.collect::<HashMap<_, _>>()))
}

/// Whether [`of`] keeps the number as it is.
fn is_exact(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || json::in_double(number.as_str()).is_some()
}

/// A JSON value. Numbers keep their kind: comparisons are across kinds, arithmetic is not.
fn of(value: &Value) -> Boxed<'_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Box::new(CelInt::from(integer)),
            (None, Some(natural)) => Box::new(CelUInt::from(natural)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(value) => text(value),
        Value::Array(items) => {
            let items: Vec<Boxed<'_>> = items.iter().map(of).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(members) => object(members),
    }
}
