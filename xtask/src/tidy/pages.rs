//! Checks of pages: a link leads to an existing heading, and JSON is valid.
//!
//! Owns the form of headings' anchors. `paths` checks that files exist; the tests of the command line tool check YAML
//! and commands, because they have the parsers.

use std::collections::BTreeMap;

use super::Finding;
use crate::source::Source;
use portcullis_markdown::{Block, blocks, links, prose};

/// Links of all pages to headings that do not exist.
pub(super) fn dead_anchors(sources: &[Source]) -> Vec<String> {
    let pages: BTreeMap<&str, Vec<String>> = sources
        .iter()
        .filter(|it| it.extension() == "md")
        .map(|it| (it.path.as_str(), anchors(&it.text)))
        .collect();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|it| it.extension() == "md") {
        for (number, line) in prose(&source.text) {
            for (file, anchor) in targets(line) {
                let page = match file {
                    "" => source.path.clone(),
                    file => joined(&source.path, file),
                };
                let dead =
                    pages.get(page.as_str()).is_some_and(|it| !it.iter().any(|a| a == anchor));
                if dead {
                    let path = &source.path;
                    complaints.push(format!("{path}:{number}: {page} has no heading `#{anchor}`"));
                }
            }
        }
    }
    complaints
}

/// Pages that the index does not link; decisions have a folder of their own.
pub(super) fn unlisted(sources: &[Source]) -> Vec<String> {
    const INDEX: &str = "docs/README.md";
    let Some(index) = sources.iter().find(|it| it.path == INDEX) else { return Vec::new() };
    let files = links(&index.text).filter_map(|target| target.split('#').next());
    let listed: Vec<String> = files.map(|file| joined(INDEX, file)).collect();
    sources
        .iter()
        .filter(|it| it.path.starts_with("docs/") && it.extension() == "md" && it.path != INDEX)
        .filter(|it| !it.path.starts_with("docs/decisions/") && !listed.contains(&it.path))
        .map(|it| format!("{}:0: {INDEX} does not lead to this page", it.path))
        .collect()
}

/// The longest line of prose.
const MOST_COLUMNS: usize = 100;
/// The most words in a cell of a table.
const MOST_WORDS: usize = 20;

/// Lines of prose that are too long, and cells with too many words.
pub(super) fn measure(source: &Source) -> Vec<Finding> {
    let page = source.path.starts_with("docs/") && source.extension() == "md"
        || ["README.md", "CONTRIBUTING.md", "SECURITY.md"].contains(&source.path.as_str());
    // One page is generated from the help texts, and one lists the requirements.
    let other = ["docs/reference/cli.md", "docs/requirements.md"].contains(&source.path.as_str());
    if !page || other || source.path.starts_with("docs/decisions/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in prose(&source.text) {
        if line.trim_start().starts_with('|') {
            let words = line.split('|').map(|cell| cell.split_whitespace().count()).max();
            if let Some(words) = words.filter(|words| *words > MOST_WORDS) {
                let message = format!("a cell of {words} words; at most {MOST_WORDS}");
                findings.push(Finding::new(number, message));
            }
        } else if line.chars().count() > MOST_COLUMNS && line.trim().contains(' ') {
            let message = format!("prose wraps at {MOST_COLUMNS} columns");
            findings.push(Finding::new(number, message));
        }
    }
    findings
}

/// Fenced blocks of JSON that are not valid.
pub(super) fn json(source: &Source) -> Vec<Finding> {
    if source.extension() != "md" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for Block { line, language, text } in blocks(&source.text) {
        // A block may show a part of a document: `"auth": {…}`.
        let part = |error| match text.trim_start().starts_with('"') {
            true => serde_json::from_str::<serde_json::Value>(&format!("{{{text}}}")),
            false => Err(error),
        };
        if language != "json" {
            continue;
        }
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&text).or_else(part) {
            findings.push(Finding::new(line, format!("this is no JSON: {error}")));
        }
    }
    findings
}

/// The file and the anchor of each link with an anchor.
fn targets(line: &str) -> impl Iterator<Item = (&str, &str)> {
    links(line).filter_map(|target| {
        let (file, anchor) = target.split_once('#')?;
        (!file.contains(':')).then_some((file, anchor))
    })
}

/// The anchors of a page's headings, as GitHub makes them.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let plain = title.trim().to_lowercase();
        let slug: String = plain
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let same = |it: &&String| {
            it.strip_prefix(slug.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.parse::<u8>().is_ok())
            })
        };
        let slug = match all.iter().filter(same).count() {
            0 => slug,
            before => format!("{slug}-{before}"),
        };
        all.push(slug);
    }
    all
}

/// The path of `target` relative to the page `from`.
fn joined(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn links_to_headings_that_do_not_exist_are_found() {
        let sources = [
            page(
                "docs/a/x.md",
                "# Title\n[1](../b.md#a-word-two) [2](../b.md#gone) [3](#title) [4](#not)\n",
            ),
            page("docs/b.md", "## A `word`, two\n```\n# gone\n```\n"),
        ];
        assert_eq!(
            dead_anchors(&sources),
            [
                "docs/a/x.md:2: docs/b.md has no heading `#gone`",
                "docs/a/x.md:2: docs/a/x.md has no heading `#not`"
            ]
        );
    }

    #[test]
    fn headings_of_the_same_name_are_numbered() {
        assert_eq!(anchors("# A b\n## A b\n#!/bin/sh\n#tag\n"), ["a-b", "a-b-1"]);
    }

    #[test]
    fn a_page_that_the_index_lacks_is_found() {
        let sources = [
            page("docs/README.md", "[a](guides/a.md#x)\n"),
            page("docs/guides/a.md", ""),
            page("docs/guides/b.md", ""),
            page("docs/decisions/1.md", ""),
        ];
        assert_eq!(
            unlisted(&sources),
            ["docs/guides/b.md:0: docs/README.md does not lead to this page"]
        );
    }

    #[test]
    fn long_lines_and_full_cells_are_found() {
        let long = "word ".repeat(21);
        let text = format!(
            "{}\n| {long}|\n```\n{}\n```\n{}\n",
            "ab ".repeat(34),
            "ab ".repeat(34),
            "x".repeat(120)
        );
        let lines = |path| measure(&page(path, &text)).iter().map(|it| it.line).collect::<Vec<_>>();
        assert_eq!(lines("docs/guides/x.md"), [1, 2]);
        assert_eq!(lines("docs/decisions/x.md"), [0_usize; 0]);
    }

    #[test]
    fn broken_json_is_found() {
        let text = "```json\n{\"a\": 1}\n```\n```json\n\"a\": {}\n```\n```json\n{\"a\": }\n```\n```sh\n{\n```\n";
        let lines: Vec<_> = json(&page("a.md", text)).iter().map(|it| it.line).collect();
        assert_eq!(lines, [7]);
    }
}
