//! Signs of a text that is meant for the model and hidden from its user.
//!
//! Owns a heuristic: it knows hidden characters, and published phrases of tool poisoning. A finding in the new text
//! that the pinned one does not have is the worst class of drift; a change without a finding is still drift.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Definition;

/// A suspicious property of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// Invisible characters: zero-width, tags, variation selectors in a row, private use.
    HiddenCharacters,
    /// Characters that change the order in which a text is displayed.
    Bidirectional,
    /// Terminal control characters other than line ends and tabs.
    ControlCharacters,
    /// Orders to ignore other instructions.
    Overrides,
    /// Orders to hide something from the user.
    Secrecy,
    /// Orders that claim priority, or pretend to come from the system.
    Authority,
    /// Requests for credentials, or for files that contain them.
    Credentials,
    /// Requests to call another tool, or to pass data on.
    OtherTools,
    /// A long run of base64 or hex.
    Encoded,
}

const OVERRIDES: [&str; 9] = [
    "ignore previous",
    "ignore all previous",
    "ignore any previous",
    "ignore prior",
    "ignore the above",
    "ignore your instructions",
    "disregard previous",
    "disregard the above",
    "forget your instructions",
];
const SECRECY: [&str; 13] = [
    "do not tell the user",
    "don't tell the user",
    "never tell the user",
    "without telling the user",
    "do not mention",
    "don't mention",
    "never mention this",
    "do not inform the user",
    "do not reveal",
    "hide this from",
    "without the user knowing",
    "do not show the user",
    "keep this secret",
];
const AUTHORITY: [&str; 11] = [
    "<important>",
    "<system>",
    "[system]",
    "system prompt",
    "you must always",
    "before using this tool",
    "before calling this tool",
    "before using any other tool",
    "this instruction overrides",
    "new instructions:",
    "</tool",
];
const CREDENTIALS: [&str; 14] = [
    "~/.ssh",
    "id_rsa",
    ".aws/credentials",
    ".env file",
    "/etc/passwd",
    "/etc/shadow",
    "mcp.json",
    "private key",
    "your api key",
    "the api key",
    "user's password",
    "your password",
    "access token as",
    "environment variables as",
];
const OTHER_TOOLS: [&str; 8] = [
    "instead of the tool",
    "instead of using",
    "first call the tool",
    "must first call",
    "pass its contents as",
    "pass the contents as",
    "send the conversation",
    "include the conversation",
];
/// A longer run of base64 or hex in one word is not a text.
const MAX_RUN: usize = 200;

/// All findings in the texts of a definition: title, description, and every text in its schemas and annotations.
#[must_use]
pub fn suspicions(definition: &Definition) -> BTreeSet<Suspicion> {
    let mut found = BTreeSet::new();
    for (_, value) in definition.members() {
        texts(value, &mut |text| of_text(text, &mut found));
    }
    found
}

/// The parser that read the value bounds its depth.
fn texts(value: &Value, see: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, see)),
        Value::Object(members) => {
            for (name, value) in members {
                see(name);
                texts(value, see);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn of_text(text: &str, found: &mut BTreeSet<Suspicion>) {
    found.extend(text.chars().filter_map(of_character));
    // Blanks, case and invisible characters must not split a phrase.
    let plain: String = text
        .chars()
        .filter(|it| of_character(*it).is_none())
        .flat_map(char::to_lowercase)
        .collect();
    let plain = plain.replace('\u{2019}', "'");
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    for (phrases, suspicion) in [
        (OVERRIDES.as_slice(), Suspicion::Overrides),
        (&SECRECY, Suspicion::Secrecy),
        (&AUTHORITY, Suspicion::Authority),
        (&CREDENTIALS, Suspicion::Credentials),
        (&OTHER_TOOLS, Suspicion::OtherTools),
    ] {
        if phrases.iter().any(|phrase| plain.contains(phrase)) {
            found.insert(suspicion);
        }
    }
    let coded = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    if plain.split(' ').any(|word| word.len() > MAX_RUN && word.bytes().all(coded)) {
        found.insert(Suspicion::Encoded);
    }
}

fn of_character(character: char) -> Option<Suspicion> {
    match character {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {
            Some(Suspicion::Bidirectional)
        }
        '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{fe00}'..='\u{fe0e}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e0fff}'
        | '\u{f0000}'..='\u{10ffff}' => Some(Suspicion::HiddenCharacters),
        '\n' | '\r' | '\t' => None,
        character if character.is_control() => Some(Suspicion::ControlCharacters),
        _ => None,
    }
}

impl Suspicion {
    /// A short description for operators.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::HiddenCharacters => "characters that are not seen",
            Self::Bidirectional => "characters that change the order of a text",
            Self::ControlCharacters => "control characters",
            Self::Overrides => "an order to ignore other instructions",
            Self::Secrecy => "an order to keep something from the user",
            Self::Authority => "a text that poses as the system, or puts itself first",
            Self::Credentials => "a request for credentials or the files that hold them",
            Self::OtherTools => "a request to use other tools, or to pass data along",
            Self::Encoded => "a long encoded text",
        }
    }
}
