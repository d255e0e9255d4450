//! Parses Markdown pages, as far as checks of documentation need it: blocks, prose, code spans and links.
//!
//! Owns what a fence is. `cargo xtask tidy` and the tests of the command line tool use it; both report line numbers, so
//! it works line by line. Knows nothing of the pages' content.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the fence that opens it; the first line of a page is 1.
    pub line: usize,
    /// The info string of the fence: `json`, `sh`, or empty.
    pub language: String,
    /// Without the indentation of a surrounding list.
    pub text: String,
}

/// The fenced blocks of a page. One that does not end goes to the end of the page.
pub fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut indent): (Vec<Block>, Option<usize>) = (Vec::new(), None);
    for (line, text) in (1..).zip(page.lines()) {
        match (fence(text), indent, blocks.last_mut()) {
            (Some(language), None, _) => {
                let language = language.trim().to_owned();
                blocks.push(Block { line, language, text: String::new() });
                indent = Some(text.len() - text.trim_start().len());
            }
            (Some(_), Some(_), _) => indent = None,
            (None, Some(indent), Some(block)) => {
                // Keeps a line with less indentation as it is: the parser of the block reports the fault.
                let own = text.get(..indent).filter(|it| it.trim().is_empty());
                block
                    .text
                    .push_str(own.and_then(|_| text.get(indent..)).unwrap_or(text.trim_start()));
                block.text.push('\n');
            }
            (None, ..) => {}
        }
    }
    blocks
}

/// The lines outside of fenced blocks, with their numbers.
pub fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let fence = fence(line).is_some();
        inside ^= fence;
        !inside && !fence
    })
}

/// The code spans of a line of prose, and any other text between single backquotes.
pub fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of the links of a line of prose.
pub fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The pages in a folder and its subfolders, in order.
///
/// # Errors
/// When a folder cannot be read.
pub fn pages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The text after the mark of a fence.
fn fence(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("```")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "One `a` [b](c.md#d).\n1. Two\n   ```yaml\n   x:\n     y\n   ```\n`e f` and `g`\n```\n[no](`x`)\n";

    #[test]
    fn blocks_have_a_line_a_language_and_no_indentation() {
        let block = |line, language: &str, text: &str| Block {
            line,
            language: language.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(blocks(PAGE), [block(3, "yaml", "x:\n  y\n"), block(8, "", "[no](`x`)\n")]);
    }

    #[test]
    fn prose_is_what_is_in_no_block() {
        let lines: Vec<_> = prose(PAGE).map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 7]);
        let of = |read: fn(&str) -> Vec<&str>| prose(PAGE).flat_map(|it| read(it.1)).collect();
        let found: [Vec<&str>; 2] =
            [of(|line| spans(line).collect()), of(|line| links(line).collect())];
        assert_eq!(found, [vec!["a", "e f", "g"], vec!["c.md#d"]]);
    }
}
