//! Rules that look only at one file's text.

use super::Finding;
use crate::source::Source;

/// The most lines of a file; a longer one has more than one subject.
const MOST_LINES: usize = 800;
/// Files that may be longer, and the reasons.
const LONG_FILES: [(&str, &str); 9] = [
    ("Cargo.lock", "written by Cargo"),
    ("tools/agents-v1.txt", "written by uv, one line per hash"),
    ("tools/agents-v2.txt", "written by uv, one line per hash"),
    ("tools/contextforge.txt", "written by uv, one line per hash"),
    ("tests/node/package-lock.json", "written by npm"),
    ("docs/policy.schema.json", "one document, one value a line"),
    ("envoy/rendered/istio.yaml", "written by cargo xtask mesh"),
    ("envoy/rendered/istio-plugin.yaml", "written by cargo xtask mesh"),
    ("charts/rendered/envoy-gateway-several.yaml", "written by cargo xtask chart"),
];

/// Paths that differ between machines. They are assembled here, so that this file passes its own check.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Names that only one place may use, with that place.
const BOUNDARIES: [(&str, &str); 2] =
    [(concat!("proxy", "_wasm"), "filter/src/"), (concat!("host", "calls"), "filter/src/host.rs")];

pub(super) fn whitespace(source: &Source) -> Vec<Finding> {
    found(source, "trailing white space", |line| line.ends_with([' ', '\t', '\r']))
}

pub(super) fn last_newline(source: &Source) -> Vec<Finding> {
    let text = &source.text;
    if text.is_empty() || (text.ends_with('\n') && !text.ends_with("\n\n")) {
        return Vec::new();
    }
    vec![Finding::new(source.lines().count(), "the file does not end with exactly one newline")]
}

pub(super) fn tabs(source: &Source) -> Vec<Finding> {
    if !["rs", "py", "sh", "lua", "toml", "yaml", "yml", "md"].contains(&source.extension()) {
        return Vec::new();
    }
    found(source, "a tab; indent with spaces", |line| line.contains('\t'))
}

pub(super) fn machine_paths(source: &Source) -> Vec<Finding> {
    found(source, "a path of one machine", |line| {
        MACHINE_PATHS.iter().any(|path| {
            line.match_indices(path).any(|(at, _)| {
                let before = line.get(..at).and_then(|text| text.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.}".contains(c))
            })
        })
    })
}

pub(super) fn length(source: &Source) -> Vec<Finding> {
    let lines = source.lines().count();
    if lines <= MOST_LINES || LONG_FILES.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    vec![Finding::new(
        lines,
        format!("{lines} lines; split it, or allow it in xtask/src/tidy/rules.rs with a reason"),
    )]
}

/// Exceptions that are no longer needed.
pub(super) fn stale_allowances(sources: &[Source]) -> Vec<String> {
    LONG_FILES
        .iter()
        .filter(|(path, _)| {
            !sources.iter().any(|s| s.path == *path && s.lines().count() > MOST_LINES)
        })
        .map(|(path, _)| {
            format!("{path}:0: allowed to be long in xtask/src/tidy/rules.rs, but is not")
        })
        .collect()
}

pub(super) fn module_docs(source: &Source) -> Vec<Finding> {
    if source.extension() != "rs" || source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![Finding::new(1, "a module starts with `//!`: what it owns, what it refuses to know")]
}

pub(super) fn owned_todos(source: &Source) -> Vec<Finding> {
    found(source, concat!("a TO", "DO without an owner: TO", "DO(name)"), |line| {
        [concat!("TO", "DO"), concat!("FIX", "ME")].iter().any(|mark| {
            line.match_indices(mark).any(|(at, _)| {
                let after = line.get(at + mark.len()..).unwrap_or_default();
                let before = line.get(..at).unwrap_or_default();
                !after.starts_with('(')
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
    })
}

pub(super) fn strict_shell(source: &Source) -> Vec<Finding> {
    let is_shell = source.extension() == "sh" || source.text.starts_with("#!/usr/bin/env bash");
    if !is_shell || source.lines().any(|(_, line)| line.starts_with("set -eu")) {
        return Vec::new();
    }
    vec![Finding::new(1, "a shell script without `set -eu`")]
}

/// Only the filter's adapter may use the host, and only its package may depend on it.
pub(super) fn host_boundary(source: &Source) -> Vec<Finding> {
    let manifest = source.path.ends_with("/Cargo.toml") && source.path != "filter/Cargo.toml";
    if manifest {
        let message = "only filter/Cargo.toml may depend on the host's SDK";
        return found(source, message, |line| line.starts_with("proxy-wasm"));
    }
    if source.extension() != "rs" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, place) in BOUNDARIES {
        if !source.path.starts_with(place) {
            findings.extend(found(source, &format!("only {place} may name {name}"), |line| {
                line.contains(name) && !line.trim_start().starts_with("//")
            }));
        }
    }
    findings
}

fn found(source: &Source, message: &str, wrong: impl Fn(&str) -> bool) -> Vec<Finding> {
    // `lines` would hide a carriage return.
    (1..)
        .zip(source.text.split('\n'))
        .filter(|(_, line)| wrong(line))
        .map(|(number, _)| Finding::new(number, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source { path: path.to_owned(), text: text.to_owned() })
            .iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn white_space_at_the_end_is_found() {
        assert_eq!(lines(whitespace, "a.md", "a\nb \nc\r\n"), [2, 3]);
        assert_eq!(lines(last_newline, "a.md", "a\nb"), [2]);
        assert_eq!(lines(last_newline, "a.md", "a\n\n"), [2]);
        assert_eq!(lines(last_newline, "a.md", "a\n"), [0_usize; 0]);
    }

    #[test]
    fn paths_of_a_machine_are_found_and_paths_below_others_are_not() {
        let home = concat!("/ho", "me/");
        assert_eq!(lines(machine_paths, "a.md", &format!("x\nsee {home}me/x\n")), [2]);
        assert_eq!(
            lines(machine_paths, "a.md", &format!("https://example.com{home}page\n")),
            [0_usize; 0]
        );
    }

    #[test]
    fn the_host_is_named_in_its_place_only() {
        let line = concat!("use proxy", "_wasm::types;\n");
        assert_eq!(lines(host_boundary, "filter/core/src/x.rs", line), [1]);
        assert_eq!(lines(host_boundary, "filter/src/root.rs", line), [0_usize; 0]);
        let call = concat!("use proxy", "_wasm::host", "calls;\n");
        assert!(!lines(host_boundary, "filter/src/root.rs", call).is_empty());
    }

    #[test]
    fn a_todo_has_an_owner() {
        let owned = concat!("// TO", "DO(ada): later\n");
        let orphan = concat!("// TO", "DO: later\n");
        assert_eq!(lines(owned_todos, "a.rs", owned), [0_usize; 0]);
        assert_eq!(lines(owned_todos, "a.rs", orphan), [1]);
    }
}
