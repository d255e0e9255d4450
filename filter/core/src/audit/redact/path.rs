//! Places in arguments that a policy calls secret: `$.customer.ssn`, `$.items[*].iban`.
//!
//! Owns their form, a part of JSONPath (RFC 9535), and what a place is inside of a member or an item.

use std::fmt;

use super::name;

/// Between steps; no name has it.
const SEPARATOR: char = '\u{1f}';
/// The step to every member and every item.
const EACH: &str = "*";
/// The most steps, which is how deep arguments are shown.
const MOST_STEPS: usize = super::DEEPEST;
const LONGEST: usize = 256;

/// One place, or one of each item. Names count as they do in `redact` of the policy: whatever their case and separators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Box<str>);

impl JsonPath {
    /// What [`JsonPath::new`] takes.
    pub const EXPECTED: &str = "a JSON path of 1 to 16 names and [*], such as $.customer.ssn, $.items[*].iban or $['account no']";

    /// Reads `$`, then `.name`, `['name']`, `[*]` or `.*`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$').filter(|_| text.len() <= LONGEST)?;
        let mut steps: Vec<&str> = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = step(rest)?;
            steps.push(step);
            rest = behind;
        }
        (1..=MOST_STEPS).contains(&steps.len()).then(|| Self(steps.join("\u{1f}").into()))
    }

    /// The names on the way; `*` for every member or item.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.split(SEPARATOR)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.steps().try_for_each(|step| match step {
            EACH => f.write_str("[*]"),
            name if is_plain(name) => write!(f, ".{name}"),
            name => write!(f, "['{name}']"),
        })
    }
}

/// The first step of the rest of a path, and what follows.
fn step(rest: &str) -> Option<(&str, &str)> {
    if let Some(behind) = rest.strip_prefix("[*]").or_else(|| rest.strip_prefix(".*")) {
        return Some((EACH, behind));
    }
    if let Some(name) = rest.strip_prefix('.') {
        let (name, behind) = name.split_at_checked(name.find(['.', '[']).unwrap_or(name.len()))?;
        return is_plain(name).then_some((name, behind));
    }
    let (quote, quoted) = [('\'', "['"), ('"', "[\"")]
        .into_iter()
        .find_map(|(quote, begin)| Some((quote, rest.strip_prefix(begin)?)))?;
    let (name, behind) = quoted.split_once(quote)?;
    Some((name, behind.strip_prefix(']')?)).filter(|_| is_name(name))
}

/// Whether a name stands without quotes.
fn is_plain(name: &str) -> bool {
    is_name(name) && name.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter))
}

/// A name without letter or digit is the same as no other.
fn is_name(name: &str) -> bool {
    let bad = |letter: char| letter.is_control() || "'\"\\".contains(letter);
    !name.contains(bad) && name.chars().any(char::is_alphanumeric)
}

/// The rests of paths from one place on.
#[derive(Clone, Debug, Default)]
pub(super) struct Places<'a>(Vec<&'a str>);

/// What a policy says of a member or an item.
pub(super) enum Inside<'a> {
    Secret,
    Shown(Places<'a>),
}

impl<'a> Places<'a> {
    pub(super) fn of(paths: &'a [JsonPath]) -> Self {
        Self(paths.iter().map(|path| &*path.0).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Inside of the member `name`. An object where a path expects a list hides nothing.
    pub(super) fn member(&self, name: &str) -> Inside<'a> {
        let mut inside = Self::default();
        for place in &self.0 {
            let mut place = *place;
            loop {
                let (step, rest) = place.split_once(SEPARATOR).unwrap_or((place, ""));
                let each = step == EACH;
                if each || name::same(step, name) {
                    if rest.is_empty() {
                        return Inside::Secret;
                    }
                    inside.add(rest);
                }
                if !each {
                    break;
                }
                place = rest;
            }
        }
        Inside::Shown(inside)
    }

    /// Inside of an item. A list on the way to a name is looked through: a caller who sends one for an object hides
    /// nothing.
    pub(super) fn item(&self) -> Inside<'a> {
        let mut inside = Self::default();
        for place in &self.0 {
            match place.split_once(SEPARATOR) {
                Some((EACH, rest)) => inside.add(rest),
                None if *place == EACH => return Inside::Secret,
                _ => inside.add(place),
            }
        }
        Inside::Shown(inside)
    }

    fn add(&mut self, place: &'a str) {
        if !self.0.contains(&place) {
            self.0.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        for text in
            ["$.ssn", "$.customer.ssn", "$.items[*].iban", "$['account no'].a", "$.a-b_c", "$[*]"]
        {
            assert_eq!(JsonPath::new(text).map(|path| path.to_string()).as_deref(), Some(text));
        }
        for (text, same) in [("$.a.*", "$.a[*]"), ("$[\"a\"]", "$.a"), ("$['a.b']", "$['a.b']")] {
            assert_eq!(JsonPath::new(text).map(|path| path.to_string()).as_deref(), Some(same));
        }
        let (deep, long) = (format!("${}", ".a".repeat(17)), format!("$.{}", "a".repeat(255)));
        for text in [
            "",
            "$",
            "ssn",
            "$ssn",
            "$.",
            "$..a",
            "$.a.",
            "$[0]",
            "$.a[0]",
            "$.a[?@.b]",
            "$['a]",
            "$['']",
            "$['-']",
            "$.a b",
            "$['a'",
            "$['a\\'b']",
            &deep,
            &long,
        ] {
            assert_eq!(JsonPath::new(text), None, "{text}");
        }
    }
}
