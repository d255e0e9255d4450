//! The only escape for untrusted text in output: names, reasons, arguments, texts of servers.
//!
//! Owns which characters are shown unchanged. A character that controls a terminal, changes the order of a line or is
//! invisible is written as `\u{202e}`; in JSON as `\u202e`, which has the same value.

use std::fmt::Write as _;

/// A text of several lines.
pub(crate) fn text(text: &str) -> String {
    escaped(text, |letter| letter == '\n')
}

/// A text on one line: line ends are escaped, too.
pub(crate) fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// A complete JSON document: only its texts can have such characters.
pub(crate) fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for letter in document.chars() {
        if letter == '\n' || is_seen(letter) {
            out.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if stays(letter) || is_seen(letter) {
            out.push(letter);
        } else {
            out.extend(letter.escape_default());
        }
    }
    out
}

/// Whether the character is visible at its position.
fn is_seen(letter: char) -> bool {
    match letter {
        ' '..='~' => true,
        // Printable by Unicode's categories, but invisible.
        '\u{34f}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}' => false,
        // A mark that combines with the letter before it is visible; alone it would be escaped.
        letter => {
            let mut pair = String::from("x");
            pair.push(letter);
            pair.escape_debug().count() == 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 6.3: approvals printed U+202E and U+200B of a caller's arguments.
    #[test]
    fn what_is_not_seen_or_turns_a_line_round_is_written_out() {
        assert_eq!(text("a\u{1b}[2J\nb\r\u{9b}c"), "a\\u{1b}[2J\nb\\r\\u{9b}c");
        assert_eq!(line("a\nb\u{202e}c\u{200b}d\u{2028}"), "a\\nb\\u{202e}c\\u{200b}d\\u{2028}");
        assert_eq!(line("\u{85}\u{feff}\u{ad}\u{e0041}\u{fe0f}").matches("\\u{").count(), 5);
        for plain in ["Müller \"a\" 'b' \\ 100 %", "日本語 नमस्ते", "cafe\u{301}"] {
            assert_eq!(line(plain), plain);
        }
    }

    #[test]
    fn json_with_escapes_is_still_the_same_document() {
        let value = serde_json::json!({"a\u{202e}": "b\u{e0041}\u{7f}\n\u{1b}é"});
        let escaped = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(escaped.chars().all(|letter| letter == '\n' || is_seen(letter)), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
