//! Paths into arguments, as a policy writes them: `$.customer.ssn`, `$.items[*].iban`.
//!
//! Owns their form, a part of JSONPath (RFC 9535). Does not know a path's purpose.

use std::fmt;

/// The separator between steps; no name contains it.
pub(crate) const SEPARATOR: char = '\u{1f}';
/// The step to every member and every item.
pub(crate) const EACH: &str = "*";
/// The most steps: the depth to which the audit log shows arguments.
pub(crate) const MOST_STEPS: usize = 16;
const LONGEST: usize = 256;

/// One path. Names are compared as in `redact` of the policy: case and separators do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Box<str>);

impl JsonPath {
    /// The form that [`JsonPath::new`] accepts.
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

    /// Its steps, with [`SEPARATOR`] between them.
    pub(crate) fn joined(&self) -> &str {
        &self.0
    }

    /// The names of the steps; `*` for every member or item.
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

/// The first step of the rest of a path, and the rest after it.
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

/// Whether a name is valid without quotes.
fn is_plain(name: &str) -> bool {
    is_name(name) && name.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter))
}

/// Whether a name has a letter or a digit: a name without one equals no other.
fn is_name(name: &str) -> bool {
    let bad = |letter: char| letter.is_control() || "'\"\\".contains(letter);
    !name.contains(bad) && name.chars().any(char::is_alphanumeric)
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
