//! Compares the compliance map with the list of requirements and the tests that prove them.
//!
//! Owns how a row of the map is read. Does not judge whether a control is met: the named tests do.

use crate::requirements::{self, Claim};
use crate::source::Source;
use portcullis_markdown::spans;

const PAGE: &str = "docs/reference/compliance.md";
/// With fewer rows than this, the check has misread the page.
const LEAST: usize = 20;

/// The content of a row about one control.
struct Row<'a> {
    line: usize,
    requirements: Vec<&'a str>,
    tests: Vec<&'a str>,
}

/// Unknown requirements, and tests that prove none of their row's requirements.
pub(super) fn proven(sources: &[Source]) -> Vec<String> {
    let claims = requirements::claims(sources);
    let mut complaints = requirements::unknown_in(sources, &claims);
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        complaints.push(format!("{PAGE}:0: the compliance map is missing"));
        return complaints;
    };
    let rows: Vec<Row<'_>> = page.lines().filter_map(|(line, text)| row(line, text)).collect();
    if rows.len() < LEAST {
        complaints.push(format!("{PAGE}:0: only {} controls found, expected {LEAST}", rows.len()));
    }
    complaints.extend(rows.iter().flat_map(|row| wrong(row, &claims)));
    complaints
}

/// A row with four cells whose last two are requirements and tests. A control that another party is responsible for has
/// neither.
fn row(line: usize, text: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = text.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [_, _, requirements, tests] = cells.as_slice() else { return None };
    let tests: Vec<&str> = spans(tests).collect();
    (!tests.is_empty()).then(|| Row {
        line,
        requirements: requirements.split(", ").map(str::trim).collect(),
        tests,
    })
}

fn wrong(row: &Row<'_>, claims: &[Claim]) -> Vec<String> {
    let mut complaints = Vec::new();
    for test in &row.tests {
        let of_test = claims.iter().filter(|claim| claim.test == *test);
        let ids: Vec<&str> = of_test.map(|claim| claim.id.as_str()).collect();
        if ids.iter().any(|id| row.requirements.contains(id)) {
            continue;
        }
        complaints.push(format!(
            "{PAGE}:{}: `{test}` proves {}, expected one of {}",
            row.line,
            if ids.is_empty() { "nothing".to_owned() } else { ids.join(", ") },
            row.requirements.join(", ")
        ));
    }
    let proven = |id: &&&str| {
        claims.iter().any(|claim| claim.id == **id && row.tests.contains(&claim.test.as_str()))
    };
    let missing = row.requirements.iter().filter(|id| !proven(id));
    complaints.extend(missing.map(|id| format!("{PAGE}:{}: no test here proves {id}", row.line)));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    // Proves: X15
    #[test]
    fn a_control_whose_test_proves_something_else_is_named() {
        let list = source("docs/requirements.md", "| A1 | One |\n| A2 | Two |\n");
        let tests = source("a.rs", "// Proves: A1\nfn one() {}\n// Proves: A2\nfn two() {}\n");
        let good = "| MCP01 | keys | A1 | `one` |\n| NSA | somebody else's | | |\n";
        let complaints = |page: &str| {
            let all = [source(list.path.as_str(), &list.text), source("a.rs", &tests.text)];
            let all: Vec<Source> = all.into_iter().chain([source(PAGE, page)]).collect();
            proven(&all).into_iter().filter(|it| !it.contains("only")).collect::<Vec<_>>()
        };
        assert_eq!(complaints(good), Vec::<String>::new());
        assert_eq!(
            complaints("| MCP01 | keys | A1 | `one` `two` |\n"),
            [format!("{PAGE}:1: `two` proves A2, expected one of A1")]
        );
        assert_eq!(
            complaints("| MCP01 | keys | A1, A9 | `one` `gone` |\n"),
            [
                format!("{PAGE}:1: `gone` proves nothing, expected one of A1, A9"),
                format!("{PAGE}:1: no test here proves A9")
            ]
        );
    }
}
