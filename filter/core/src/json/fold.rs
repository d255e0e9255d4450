//! Names of members as case-insensitive readers compare them.
//!
//! Owns the folding: that of Go's `encoding/json` (`strings.EqualFold`) and of .NET's `OrdinalIgnoreCase`, and no other
//! normalisation, because no reader has one. `ſ` is `s` to both, and the Kelvin sign is `k`.

use serde_json::{Map, Value};

/// `name` with its letters folded: simple case folding, one letter for one.
pub(crate) fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    fn single(mut letters: impl Iterator<Item = char>, or: char) -> char {
        match (letters.next(), letters.next()) {
            (Some(letter), None) => letter,
            _ => or,
        }
    }
    let fold = |letter: char| {
        let upper = single(letter.to_uppercase(), letter);
        single(upper.to_lowercase(), upper)
    };
    name.chars().map(fold).collect()
}

/// Whether a case-insensitive reader takes `name` for `known`, and a case-sensitive one does not.
pub(crate) fn is_misspelt(name: &str, known: &str) -> bool {
    name != known
        && match name.is_ascii() && known.is_ascii() {
            true => name.eq_ignore_ascii_case(known),
            false => folded(name) == folded(known),
        }
}

/// The first member that differs from one of the `known` names only by case. Most members are known ones.
pub(crate) fn misspelt<'m>(members: &'m Map<String, Value>, known: &[&str]) -> Option<&'m str> {
    let mut names = members.keys().map(String::as_str).filter(|name| !known.contains(name));
    names.find(|name| known.iter().any(|known| is_misspelt(name, known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 4.2.
    #[test]
    fn names_are_folded_as_readers_fold_them() {
        for (name, known) in [
            ("Name", "name"),
            ("TASKIDS", "taskIds"),
            ("param\u{17f}", "params"),
            ("ta\u{17f}\u{212a}Ids", "taskIds"),
            ("GRÖSSE", "grösse"),
            ("ΣΊΣΥΦΟς", "σίσυφοσ"),
        ] {
            assert!(is_misspelt(name, known) && is_misspelt(known, name), "{name}");
        }
        for (name, known) in
            [("name", "name"), ("names", "name"), ("n\u{e4}me", "name"), ("straße", "strasse")]
        {
            assert!(!is_misspelt(name, known), "{name}");
        }
    }
}
