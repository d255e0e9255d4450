//! Reads one keyword at a time: each has a required type of value.
//!
//! Owns the faults of keywords with a wrong form. `compile` owns their meaning.

use serde_json::{Map, Number, Value};

use super::SchemaFault;
use super::compile::Reader;
use super::locate::join;
use super::rule::{Id, Kind, Range};
use crate::pattern::Pattern;

impl<'d> Reader<'_, 'd> {
    pub(super) fn schema(&mut self, keyword: &str) -> Option<Id> {
        self.members.get(keyword)?;
        Some(self.compiler.id(join(self.place, keyword)))
    }

    pub(super) fn schemas(
        &mut self,
        keyword: &'static str,
    ) -> Result<Option<Vec<Id>>, SchemaFault> {
        let Some(items) = self.list(keyword)? else {
            return Ok(None);
        };
        let place = join(self.place, keyword);
        let ids = (0..items.len()).map(|index| self.compiler.id(format!("{place}/{index}")));
        Ok(Some(ids.collect()))
    }

    pub(super) fn schema_map(
        &mut self,
        keyword: &'static str,
    ) -> Result<Option<Vec<(String, Id)>>, SchemaFault> {
        let Some(members) = self.object(keyword)? else {
            return Ok(None);
        };
        let place = join(self.place, keyword);
        let ids = members.keys().map(|name| (name.clone(), self.compiler.id(join(&place, name))));
        Ok(Some(ids.collect()))
    }

    pub(super) fn kinds(&self) -> Result<Option<Vec<Kind>>, SchemaFault> {
        let kinds = match self.members.get("type") {
            None => return Ok(None),
            Some(Value::Array(items)) => {
                items.iter().map(|item| Kind::named(item.as_str()?)).collect()
            }
            Some(value) => value.as_str().and_then(Kind::named).map(|kind| vec![kind]),
        };
        let expected = "null, boolean, integer, number, string, array, object, or a list of them";
        kinds.map(Some).ok_or_else(|| self.wrong("type", expected))
    }

    pub(super) fn pattern(&self, keyword: &str, source: &str) -> Result<Pattern, SchemaFault> {
        let expected = "a regular expression of ECMA-262 without \\p{…}, of at most 1,000 bytes";
        let place = join(self.place, keyword);
        Pattern::new(source).map_err(|found| fault(&place, found, expected))
    }

    pub(super) fn text(&self, keyword: &str) -> Result<Option<&'d str>, SchemaFault> {
        self.typed(keyword, "a text", Value::as_str)
    }

    pub(super) fn list(&self, keyword: &str) -> Result<Option<&'d Vec<Value>>, SchemaFault> {
        self.typed(keyword, "a list", Value::as_array)
    }

    pub(super) fn object(
        &self,
        keyword: &str,
    ) -> Result<Option<&'d Map<String, Value>>, SchemaFault> {
        self.typed(keyword, "an object", Value::as_object)
    }

    pub(super) fn boolean(&self, keyword: &str) -> Result<Option<bool>, SchemaFault> {
        self.typed(keyword, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, keyword: &str) -> Result<Option<Number>, SchemaFault> {
        self.typed(keyword, "a number", |value| value.as_number().cloned())
    }

    pub(super) fn count(&self, keyword: &str) -> Result<Option<u64>, SchemaFault> {
        self.typed(keyword, "a whole number, 0 or more", |value| {
            value.as_u64().or_else(|| whole(value.as_f64()?))
        })
    }

    pub(super) fn names(&self, keyword: &str) -> Result<Option<Vec<String>>, SchemaFault> {
        self.typed(keyword, "a list of names", |value| texts(value.as_array()?))
    }

    fn typed<T>(
        &self,
        keyword: &str,
        expected: &str,
        read: impl FnOnce(&'d Value) -> Option<T>,
    ) -> Result<Option<T>, SchemaFault> {
        match self.members.get(keyword) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(keyword, expected)),
        }
    }

    pub(super) fn wrong(&self, keyword: &str, expected: &str) -> SchemaFault {
        let found = self.members.get(keyword).map_or("nothing".to_owned(), kind_of);
        fault(&join(self.place, keyword), found, expected)
    }
}

impl Range {
    pub(super) fn at_least(least: u64) -> Self {
        Self { least, most: u64::MAX }
    }

    pub(super) fn at_most(most: u64) -> Self {
        Self { least: 0, most }
    }
}

pub(super) fn texts(items: &[Value]) -> Option<Vec<String>> {
    items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

pub(super) fn kind_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
        other => other.to_string().chars().take(80).collect(),
    }
}

pub(super) fn fault(
    place: &str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> SchemaFault {
    SchemaFault { place: place.to_owned(), found: found.into(), expected: expected.into() }
}

#[expect(clippy::as_conversions, reason = "exact: whole, not negative, below 2^53")]
fn whole(number: f64) -> Option<u64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..LIMIT).contains(&number)).then_some(number as u64)
}
