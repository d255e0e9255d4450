//! Joins the list of requirements with the tests that claim to prove them.
//!
//! Owns the two notations: the table in `docs/requirements.md`, and the comment line above a test. Knows nothing about
//! whether a test passes.

use crate::Output;
use crate::failure::{Failure, Result};
use crate::source::{self, Source};
use portcullis_stack::Workspace;
use serde_json::{Value, json};

const LIST: &str = "docs/requirements.md";
/// Files in which tests are written.
const TEST_FILES: [&str; 4] = ["rs", "lua", "py", "txt"];
/// The characters at the start of a comment in them.
const COMMENT_MARKS: [char; 4] = ['/', '!', '#', '-'];
/// How many lines below its comment a test's name may be.
const NAME_WITHIN: usize = 12;

/// One row of the table.
struct Requirement {
    id: String,
    text: String,
}

/// A test's claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: String,
    file: String,
    line: usize,
    pub(crate) test: String,
}

/// `cargo xtask requirements`.
pub(crate) fn requirements(workspace: &Workspace, output: Output) -> Result<()> {
    let sources = source::all(workspace)?;
    let requirements = list(&sources);
    let claims = claims(&sources);
    match output {
        Output::Table => print_table(&requirements, &claims),
        Output::Json => println!("{}", as_json(&requirements, &claims)),
    }
    let unknown = unknown(&requirements, &claims);
    if unknown.is_empty() { Ok(()) } else { Err(Failure::new(unknown.join("\n"))) }
}

fn list(sources: &[Source]) -> Vec<Requirement> {
    sources.iter().find(|source| source.path == LIST).map(listed).unwrap_or_default()
}

/// The requirements that the tests in these files claim to prove.
pub(crate) fn claims(sources: &[Source]) -> Vec<Claim> {
    sources.iter().flat_map(claimed).collect()
}

/// Complaints about claims of unknown requirements.
pub(crate) fn unknown_in(sources: &[Source], claims: &[Claim]) -> Vec<String> {
    unknown(&list(sources), claims)
}

/// The claims that name no requirement of the list.
fn unknown(requirements: &[Requirement], claims: &[Claim]) -> Vec<String> {
    claims
        .iter()
        .filter(|claim| !requirements.iter().any(|requirement| requirement.id == claim.id))
        .map(|claim| {
            format!("{}:{}: {LIST} has no requirement {:?}", claim.file, claim.line, claim.id)
        })
        .collect()
}

fn listed(list: &Source) -> Vec<Requirement> {
    list.lines()
        .filter_map(|(_, line)| {
            let (id, text) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
            let id = id.trim();
            is_id(id).then(|| Requirement { id: id.to_owned(), text: text.trim().to_owned() })
        })
        .collect()
}

fn is_id(text: &str) -> bool {
    let (letter, number) = text.split_at_checked(1).unwrap_or_default();
    ["A", "B", "C", "X"].contains(&letter)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn claimed(source: &Source) -> Vec<Claim> {
    if !TEST_FILES.contains(&source.extension()) {
        return Vec::new();
    }
    let mut claims = Vec::new();
    for (number, line) in source.lines() {
        let trimmed = line.trim_start();
        let comment = trimmed.trim_start_matches(COMMENT_MARKS);
        // A line without a mark is not a comment, but perhaps a sentence or a string.
        let Some(ids) =
            comment.trim_start().strip_prefix("Proves:").filter(|_| comment.len() < trimmed.len())
        else {
            continue;
        };
        let test = name_below(source, number);
        claims.extend(ids.split(',').map(|id| Claim {
            id: id.trim().to_owned(),
            file: source.path.clone(),
            line: number,
            test: test.clone(),
        }));
    }
    claims
}

/// The name of the next function or trial, or else of the file.
fn name_below(source: &Source, number: usize) -> String {
    let below = source.lines().skip(number).take(NAME_WITHIN);
    let named =
        below.into_iter().find_map(|(_, line)| function_name(line).or_else(|| trial_name(line)));
    named.unwrap_or_else(|| {
        let file = source.path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().to_owned()
    })
}

fn function_name(line: &str) -> Option<String> {
    let words = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
    let words = words.trim_start_matches("local ").trim_start_matches("async ");
    let rest =
        ["fn ", "def ", "function "].iter().find_map(|keyword| words.strip_prefix(keyword))?;
    let name: String =
        rest.chars().take_while(|c| c.is_alphanumeric() || "_.".contains(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// `Trial::test("name", …)`, `trial("name", …)`, `("name", …)`: a quoted word as the first argument of a call.
fn trial_name(line: &str) -> Option<String> {
    let (before, rest) = line.split_once("(\"")?;
    let called = before.trim().chars().all(|c| c.is_alphanumeric() || "_:.".contains(c));
    let (name, _) = rest.split_once('"')?;
    called.then(|| name.to_owned())
}

fn proofs<'a>(id: &'a str, claims: &'a [Claim]) -> impl Iterator<Item = &'a Claim> {
    claims.iter().filter(move |claim| claim.id == id)
}

fn unproven(requirements: &[Requirement], claims: &[Claim]) -> usize {
    requirements
        .iter()
        .filter(|requirement| proofs(&requirement.id, claims).next().is_none())
        .count()
}

fn print_table(requirements: &[Requirement], claims: &[Claim]) {
    for Requirement { id, text } in requirements {
        println!("{id:<4} {text}");
        let mut proven = false;
        for claim in proofs(id, claims) {
            println!("       {}:{} {}", claim.file, claim.line, claim.test);
            proven = true;
        }
        if !proven {
            println!("       unproven");
        }
    }
    let missing = unproven(requirements, claims);
    println!(
        "{} requirements: {} proven, {missing} unproven",
        requirements.len(),
        requirements.len() - missing
    );
}

fn as_json(requirements: &[Requirement], claims: &[Claim]) -> Value {
    let rows: Vec<Value> = requirements
        .iter()
        .map(|Requirement { id, text }| {
            let tests: Vec<Value> = proofs(id, claims)
                .map(|claim| json!({"file": claim.file, "line": claim.line, "name": claim.test}))
                .collect();
            json!({"id": id, "requirement": text, "tests": tests})
        })
        .collect();
    let missing = unproven(requirements, claims);
    json!({"requirements": rows, "proven": requirements.len() - missing, "unproven": missing})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn names(path: &str, text: &str) -> Vec<(String, String)> {
        claimed(&source(path, text)).into_iter().map(|claim| (claim.id, claim.test)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(id, test)| ((*id).to_owned(), (*test).to_owned())).collect()
    }

    #[test]
    fn claims_name_the_test_below_them() {
        let rust = "// Proves: A1, X2\n#[test]\nfn it_works() {}\n";
        assert_eq!(names("a.rs", rust), pairs(&[("A1", "it_works"), ("X2", "it_works")]));
        let trial = "    // Proves: A3\n    Trial::test(\"revoked key\", || {\n";
        assert_eq!(names("a.rs", trial), pairs(&[("A3", "revoked key")]));
        assert_eq!(names("a.py", "# Proves: B1\ndef test_x():\n"), pairs(&[("B1", "test_x")]));
        assert_eq!(names("dir/hold.txt", "# Proves: B2\nheaders …\n"), pairs(&[("B2", "hold")]));
    }

    #[test]
    fn sentences_and_other_files_claim_nothing() {
        assert_eq!(names("a.rs", "Proves: A1\n// it proves: A1\n"), Vec::new());
        assert_eq!(names("a.md", "# Proves: A1\n"), Vec::new());
    }

    #[test]
    fn a_claim_beyond_the_list_is_named() {
        let list =
            listed(&source(LIST, "| ID | Requirement |\n|---|---|\n| A1 | One |\n| A2 | Two |\n"));
        let claims = claimed(&source("a.rs", "// Proves: A1, A9\nfn f() {}\n"));
        assert_eq!(
            unknown(&list, &claims),
            ["a.rs:1: docs/requirements.md has no requirement \"A9\""]
        );
        assert_eq!(unproven(&list, &claims), 1);
    }
}
