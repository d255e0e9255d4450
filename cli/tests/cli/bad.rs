//! Documents with one mistake each: what `policy check` says of them, and what the published schema does.
//!
//! Owns how `files/bad` is read; its README says how to. What the schema says of good documents is in `schema`.

use std::fmt::Write as _;

use crate::harness::{Said, golden_file, run};
use crate::schema::published;

/// What a document gets that says nothing of it.
const BASE: [(&str, &str); 5] = [
    ("version:", "version: 1\n"),
    ("organisations:", "organisations: [acme]\n"),
    ("connectors:", "connectors: {crm: {path: /crm/mcp}}\n"),
    ("roles:", "roles: {}\n"),
    ("tiers:", "tiers: {}\n"),
];

/// Who can see the mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Yaml,
    Form,
    Meaning,
    /// The document can be meant: a warning.
    Warning,
}

struct Case<'a> {
    heading: &'a str,
    kind: Kind,
    text: &'a str,
}

impl Case<'_> {
    fn document(&self) -> String {
        let mut document = format!("{}\n", self.text);
        if self.kind != Kind::Yaml {
            let absent = |name: &str| !self.text.lines().any(|line| line.starts_with(name));
            let base = BASE.into_iter().filter(|(name, _)| absent(name));
            base.for_each(|(_, line)| document.push_str(line));
        }
        document
    }

    fn checked(&self) -> Said {
        run(&["policy", "check", "-"], &[], &self.document())
    }

    /// A warning passes, and not with `--strict`; a fault never does.
    fn exits_as_it_should(&self) -> bool {
        let strict = run(&["policy", "check", "--strict", "-"], &[], &self.document());
        let plain = if self.kind == Kind::Warning { 0 } else { 1 };
        (self.checked().status, strict.status) == (plain, 1)
    }
}

const FILES: [&str; 10] = [
    "yaml",
    "document",
    "connectors",
    "tools",
    "roles",
    "conditions",
    "limits",
    "warnings",
    "bounds",
    "idle",
];

fn name(file: &str) -> String {
    format!("bad/{file}.txt")
}

fn corpus(text: &str) -> (&str, Vec<Case<'_>>) {
    let mut parts = text.split("\n--- ");
    let head = parts.next().unwrap();
    let cases = parts.map(|part| {
        let (heading, rest) = part.split_once('\n').unwrap();
        let (text, _) = rest.split_once("\n=>").expect("an answer");
        let kind = match heading {
            heading if heading.starts_with("[yaml] ") => Kind::Yaml,
            heading if heading.starts_with("[meaning] ") => Kind::Meaning,
            heading if heading.starts_with("[warning] ") => Kind::Warning,
            _ => Kind::Form,
        };
        Case { heading, kind, text }
    });
    (head, cases.collect())
}

/// The faults, without the name of the file and what is said of every document.
fn told(case: &Case<'_>) -> String {
    let said = case.checked();
    let lines = said.stdout.lines().chain(said.stderr.lines());
    let faults: Vec<&str> =
        lines.filter_map(|line| line.trim_start().strip_prefix("standard input:")).collect();
    let summed_up = |line: &&str| {
        let rest = line.trim_start();
        rest.starts_with("good, ")
            || rest.chars().next().is_some_and(|c| c.is_ascii_digit()) && !line.contains(": found ")
    };
    // Beside a fault, warnings may stand; they are not what the case is about.
    let beside = |line: &&str| case.kind != Kind::Warning && line.contains(": warning: ");
    let faults: Vec<&str> =
        faults.into_iter().filter(|line| !summed_up(line) && !beside(line)).collect();
    faults.join("\n   ")
}

#[test]
fn every_mistake_is_told_with_line_path_and_what_is_expected() {
    let (mut tried, mut unclear) = (0, Vec::new());
    for file in FILES {
        let text = golden_file(&name(file));
        let (head, cases) = corpus(&text);
        tried += cases.len();
        let mut written = head.to_owned();
        for case in &cases {
            let told = told(case);
            let (place, fault) = told.split_once(": found ").unwrap_or_default();
            let located = place.split(':').next().is_some_and(|line| line.parse::<usize>().is_ok());
            let shown = ["hunter2", "pk_acme"].iter().any(|secret| told.contains(secret));
            // One mistake, one fault, on its line, with what should stand there, and without secrets.
            if !case.exits_as_it_should() {
                unclear.push(format!("{}: another status", case.heading));
            }
            if !located || !fault.contains(", expected ") || told.contains('\n') || shown {
                unclear.push(format!("{}: {told}", case.heading));
            }
            write!(written, "\n--- {}\n{}\n=> {told}\n", case.heading, case.text).unwrap();
        }
        crate::harness::golden(&name(file), &written);
    }
    assert!(unclear.is_empty(), "{unclear:#?}");
    assert!(tried >= 220, "{tried}");
}

#[test]
fn the_schema_refuses_what_is_wrong_in_form_and_only_that() {
    let schema = published();
    let mut wrong = Vec::new();
    for file in FILES {
        for case in corpus(&golden_file(&name(file))).1 {
            let told = match case.kind {
                Kind::Yaml => continue,
                Kind::Form | Kind::Meaning | Kind::Warning => {
                    schema.check(&crate::schema::document(&case.document()))
                }
            };
            if told.is_err() != (case.kind == Kind::Form) {
                wrong.push((case.heading.to_owned(), told));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
