//! Characters at which some readers of lines break, although lines of an event stream end in CR and LF alone
//! (WHATWG HTML §9.2.5).
//!
//! Owns what takes their place: U+000B, U+000C, U+001C to U+001E, U+0085, U+2028 and U+2029, which Python's
//! `str.splitlines` takes for line ends, and with it clients that read lines that way. To them, what follows would be a
//! line of its own, which nothing here has read. Keeps up to two bytes of a character between chunks.

use std::borrow::Cow;

/// What is written in the place of a line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    /// Its escape. In JSON all of these characters stand in strings, so the text keeps its meaning.
    Escape,
    /// A blank.
    Blank,
}

/// The first bytes of a character that may be a line break, and that are not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    Nothing,
    /// Perhaps U+0085.
    C2,
    /// Perhaps U+2028 or U+2029.
    E2,
    /// The same, after two bytes.
    E280,
}

impl Held {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Nothing => &[],
            Self::C2 => &[0xc2],
            Self::E2 => &[0xe2],
            Self::E280 => &[0xe2, 0x80],
        }
    }
}

/// The bytes of one line.
#[derive(Debug, Default)]
pub(crate) struct LineBreaks {
    held: Held,
}

impl LineBreaks {
    /// The next bytes of the line, without line breaks.
    pub(crate) fn replace<'a>(&mut self, text: &'a [u8], instead: Instead) -> Cow<'a, [u8]> {
        if self.held == Held::Nothing && !text.iter().fold(false, |any, byte| any | begins(*byte)) {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len().saturating_add(8));
        for byte in text {
            self.held = match (self.held, *byte) {
                (Held::E2, 0x80) => Held::E280,
                (Held::C2, 0x85) => instead.write("0085", &mut out),
                (Held::E280, 0xa8) => instead.write("2028", &mut out),
                (Held::E280, 0xa9) => instead.write("2029", &mut out),
                (held, byte) => {
                    out.extend_from_slice(held.bytes());
                    match byte {
                        0xc2 => Held::C2,
                        0xe2 => Held::E2,
                        0x0b => instead.write("000b", &mut out),
                        0x0c => instead.write("000c", &mut out),
                        0x1c => instead.write("001c", &mut out),
                        0x1d => instead.write("001d", &mut out),
                        0x1e => instead.write("001e", &mut out),
                        byte => {
                            out.push(byte);
                            Held::Nothing
                        }
                    }
                }
            };
        }
        Cow::Owned(out)
    }

    /// The end of the line: bytes that were no line break.
    pub(crate) fn rest(&mut self) -> &'static [u8] {
        std::mem::take(&mut self.held).bytes()
    }
}

impl Instead {
    fn write(self, hex: &str, out: &mut Vec<u8>) -> Held {
        match self {
            Self::Escape => {
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(hex.as_bytes());
            }
            Self::Blank => out.push(b' '),
        }
        Held::Nothing
    }
}

/// Whether a line break may begin with this byte.
fn begins(byte: u8) -> bool {
    matches!(byte, 0x0b | 0x0c | 0x1c..=0x1e | 0xc2 | 0xe2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reader_finds_a_line_break_in_any_chunks() {
        let all = "a\u{b}b\u{c}c\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}\u{a0}\u{2027}\u{202a}é“z";
        let kept = "\u{a0}\u{2027}\u{202a}é“z";
        let escapes = "a\\u000bb\\u000cc\\u001c\\u001d\\u001e\\u0085\\u2028\\u2029";
        for (instead, expected) in [
            (Instead::Escape, format!("{escapes}{kept}")),
            (Instead::Blank, format!("a b c      {kept}")),
        ] {
            for size in 1..=all.len() {
                let (mut breaks, mut out) = (LineBreaks::default(), Vec::new());
                for chunk in all.as_bytes().chunks(size) {
                    out.extend_from_slice(&breaks.replace(chunk, instead));
                }
                out.extend_from_slice(breaks.rest());
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
            }
        }
    }

    #[test]
    fn what_only_begins_like_a_line_break_stays() {
        for text in
            [&[0xc2][..], &[0xe2], &[0xe2, 0x80], &[0xe2, 0x80, 0xe2, 0xc2, 0x41], &[0xc2, 0xc2]]
        {
            let mut breaks = LineBreaks::default();
            let mut out = breaks.replace(text, Instead::Blank).into_owned();
            out.extend_from_slice(breaks.rest());
            assert_eq!(out, text);
        }
    }
}
