//! Writes pins into a hand-written policy file.
//!
//! Owns the edit of YAML by lines: comments, order and all other content stay. The edited text is parsed again, and
//! written only if its content is exactly the intended one.

use std::path::Path;

use portcullis_core::pin::Definition;
use portcullis_core::{json, policy, schema};
use serde_json::{Map, Value};

use super::change::Change;
use crate::document::Document;
use crate::report::CliError;

/// The policy's names of pinned members.
const FIELDS: [(&str, &str); 5] = [
    ("title", "title"),
    ("description", "description"),
    ("inputSchema", "input_schema"),
    ("outputSchema", "output_schema"),
    ("annotations", "annotations"),
];

pub(crate) fn write(file: &Path, document: &Document, changes: &[&Change]) -> Result<(), CliError> {
    let refusal = |found: String| {
        CliError::new(found, &document.place)
            .expected("connectors written as blocks, one key per line; nothing was changed")
            .next("portcullis discover --output json shows the definitions to write by hand")
    };
    let mut wanted = document.value.clone();
    for change in changes {
        pin(&mut wanted, change).ok_or_else(|| refusal("no such connector".to_owned()))?;
    }
    let faults = match policy::compile(&wanted) {
        Ok(policy) => policy.schema_faults(),
        Err(faults) => faults,
    };
    if !faults.is_empty() {
        return Err(CliError::new("the live definitions make no valid policy", &document.place)
            .expected("schemas of 2020-12 or draft-07 without references to other documents")
            .faults(document.located(&faults)));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refusal(error.to_string()))?;
    let edited = if json::parse_strict(text.as_bytes()).is_ok() {
        serde_json::to_string_pretty(&wanted).map_err(|error| refusal(error.to_string()))? + "\n"
    } else {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for change in changes {
            splice(&mut lines, &wanted, change)
                .ok_or_else(|| refusal(format!("{} cannot be edited by line", change.connector)))?;
        }
        lines.join("\n") + "\n"
    };
    // Writes a temporary file and renames it: a reader sees either the old file or the new one.
    let staged = file.with_extension("discovered.yaml");
    std::fs::write(&staged, edited).map_err(|error| {
        let _ = std::fs::remove_file(&staged);
        refusal(error.to_string())
    })?;
    let read = Document::read(&staged);
    if !read.is_ok_and(|read| schema::same(&read.value, &wanted)) {
        let _ = std::fs::remove_file(&staged);
        return Err(refusal("the edited file would say something else".to_owned()));
    }
    std::fs::rename(&staged, file).map_err(|error| refusal(error.to_string()))
}

/// The change in the document's value.
fn pin(document: &mut Value, change: &Change) -> Option<()> {
    let connector = document.get_mut("connectors")?.get_mut(change.connector.as_str())?;
    let tools = connector.as_object_mut()?.entry("tools").or_insert_with(|| Map::new().into());
    let tools = tools.as_object_mut()?;
    let entry = tools.entry(change.tool.clone()).or_insert_with(|| Map::new().into());
    let entry = entry.as_object_mut()?;
    for (_, field) in FIELDS {
        entry.shift_remove(field);
    }
    let empty = entry.is_empty();
    match &change.live {
        Some(live) => entry.extend(fields(live)),
        None if empty => _ = tools.shift_remove(&change.tool),
        None => {}
    }
    Some(())
}

fn fields(definition: &Definition) -> impl Iterator<Item = (String, Value)> {
    FIELDS.iter().filter_map(|(member, field)| {
        Some(((*field).to_owned(), definition.member(member)?.clone()))
    })
}

/// The lines of a mapping's member, with its key line.
struct Block {
    start: usize,
    end: usize,
    indent: usize,
    /// Whether the value is below the key, not on its line.
    below: bool,
}

/// The change in the lines of a file.
fn splice(lines: &mut Vec<String>, wanted: &Value, change: &Change) -> Option<()> {
    let connectors = find(lines, 0..lines.len(), "connectors")?;
    let connector = find(lines, inside(&connectors)?, change.connector.as_str())?;
    let body = inside(&connector)?;
    let child = lines.get(body.clone())?.iter().find_map(|line| indent_of(line))?;
    if child <= connector.indent {
        return None;
    }
    let tools_value = wanted.pointer(&format!("/connectors/{}/tools", change.connector))?;
    let tools = match find(lines, body, "tools") {
        Some(tools) if tools.below => tools,
        found => {
            let (start, end) =
                found.map_or((connector.end, connector.end), |it| (it.start, it.end));
            let new = written("tools", tools_value, child);
            lines.splice(start..end, new);
            return Some(());
        }
    };
    let own = tools_value.get(&change.tool);
    let (start, end, indent) = match find(lines, inside(&tools)?, &change.tool) {
        Some(tool) => (tool.start, tool.end, tool.indent),
        None => {
            let first = lines.get(inside(&tools)?)?.iter().find_map(|line| indent_of(line));
            (tools.end, tools.end, first.unwrap_or(child.checked_add(2)?))
        }
    };
    let comments = lines.get(start..end)?.iter().skip(1).filter(|line| is_comment(line)).cloned();
    let mut new = own.map(|own| written(&change.tool, own, indent)).unwrap_or_default();
    let after_key = usize::from(!new.is_empty());
    new.splice(after_key..after_key, comments.collect::<Vec<_>>());
    let empty = tools_value.as_object().is_some_and(Map::is_empty);
    let range = if empty { tools.start..tools.end } else { start..end };
    lines.splice(range, if empty { Vec::new() } else { new });
    Some(())
}

fn inside(block: &Block) -> Option<std::ops::Range<usize>> {
    block.below.then(|| block.start.saturating_add(1)..block.end)
}

/// The member `key` among the outermost ones in these lines.
fn find(lines: &[String], range: std::ops::Range<usize>, key: &str) -> Option<Block> {
    let outermost = lines.get(range.clone())?.iter().find_map(|line| indent_of(line))?;
    let mut found: Option<Block> = None;
    for (number, line) in lines.iter().enumerate().take(range.end).skip(range.start) {
        let Some(indent) = indent_of(line) else {
            continue;
        };
        match &mut found {
            Some(block) if indent <= block.indent => return found,
            Some(block) => block.end = number.saturating_add(1),
            None => {
                let value = (indent == outermost).then(|| value_beside(line, key)).flatten();
                found = value.map(|value| Block {
                    start: number,
                    end: number.saturating_add(1),
                    indent,
                    below: value.is_empty(),
                });
            }
        }
    }
    found
}

/// The text after `key` on its line, without comments; `None` when the line has another key.
fn value_beside<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let line = line.trim_start();
    let spellings = [key.to_owned(), Value::from(key).to_string(), format!("'{key}'")];
    let rest =
        spellings.iter().find_map(|key| line.strip_prefix(key.as_str())?.strip_prefix(':'))?;
    let value = rest.trim();
    Some(if value.starts_with('#') { "" } else { value })
}

fn indent_of(line: &str) -> Option<usize> {
    let text = line.trim_start();
    let counts = !text.is_empty() && !text.starts_with('#');
    counts.then(|| line.len().saturating_sub(text.len()))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// A member as YAML: the policy's own mappings as blocks, definitions as JSON on one line.
fn written(key: &str, value: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    let schema = FIELDS.iter().any(|(_, field)| *field == key);
    match value {
        Value::Object(members) if !schema && !members.is_empty() => {
            let below = indent.saturating_add(2);
            let members = members.iter().flat_map(|(key, value)| written(key, value, below));
            std::iter::once(format!("{pad}{}:", plain_key(key))).chain(members).collect()
        }
        value => vec![format!("{pad}{}: {}", plain_key(key), visible(&value.to_string()))],
    }
}

fn plain_key(key: &str) -> String {
    let plain = key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&key.to_ascii_lowercase().as_str());
    if plain { key.to_owned() } else { visible(&Value::from(key).to_string()) }
}

/// JSON with escapes for all invisible characters, because a reviewer reads this file.
fn visible(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        let hidden = !letter.is_ascii() && letter.escape_debug().count() > 1;
        if hidden || letter == '\u{7f}' {
            out.push_str(&format!("\\U{:08X}", u32::from(letter)));
        } else {
            out.push(letter);
        }
    }
    out
}
