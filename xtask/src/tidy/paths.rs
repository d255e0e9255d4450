//! Documents that name files which do not exist (any more).

use super::Finding;
use crate::source::Source;
use portcullis_markdown as markdown;
use std::path::Path;

/// MCP methods that look like files in `tools/`.
const METHODS: [&str; 2] = ["tools/list", "tools/call"];

/// Paths in backquotes and link targets in Markdown files that do not exist.
pub(super) fn existing(source: &Source, root: &Path) -> Vec<Finding> {
    if source.extension() != "md" {
        return Vec::new();
    }
    let folder = root.join(&source.path);
    let folder = folder.parent().unwrap_or(root);
    let mut findings = Vec::new();
    for (number, line) in markdown::prose(&source.text) {
        let dead_spans =
            spans(line).filter(|span| is_path(span, root)).filter(|span| !root.join(span).exists());
        let dead_links = links(line).filter(|link| !folder.join(link).exists());
        for dead in dead_spans.chain(dead_links) {
            findings.push(Finding::new(number, format!("`{dead}` does not exist")));
        }
    }
    findings
}

/// Text between single backquotes, without `:12` for a line at its end.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    markdown::spans(line).map(|span| match span.rsplit_once(':') {
        Some((path, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => span,
    })
}

/// Whether it looks like a file of the project: it starts with a directory of the root. Build results do not count.
fn is_path(span: &str, root: &Path) -> bool {
    let plain = span.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    match span.split_once('/') {
        Some((first, _)) => {
            let ours = !first.is_empty() && first != "target" && root.join(first).is_dir();
            plain && ours && !METHODS.contains(&span)
        }
        None => false,
    }
}

/// Targets of `[text](target)` within the project, without `#anchor`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    markdown::links(line).filter_map(|target| {
        let file = target.split('#').next()?;
        (!file.is_empty() && !file.contains(':')).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = Source { path: "README.md".to_owned(), text: text.to_owned() };
        existing(&source, root).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn dead_paths_and_links_are_found() {
        assert_eq!(dead("see `src/main.rs:3` and `src/gone.rs`"), ["`src/gone.rs` does not exist"]);
        assert_eq!(dead("[a](src/main.rs#x) [b](gone.md)"), ["`gone.md` does not exist"]);
    }

    #[test]
    fn other_words_are_left_alone() {
        let fine =
            "`a/b` `https://x/y` `/demo/mcp` `src/*.rs` [x](https://x/y)\n```\n`src/gone.rs`\n```";
        assert_eq!(dead(fine), Vec::<String>::new());
    }
}
