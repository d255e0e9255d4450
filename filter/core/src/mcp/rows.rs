//! Counts the rows of a tool's result while it passes.
//!
//! Owns where servers put rows: `structuredContent` is a list, or has one under a usual name, or the same holds for the
//! JSON of a single text content. Keeps no row.

use crate::json::lexer::{Kind, Lexer, Token, decoded, quote_or_escape};

/// Members in which servers return lists; the first list counts.
const LISTS: [&[u8]; 6] = [b"rows", b"items", b"results", b"records", b"data", b"result"];

/// Counts the rows of one value, token by token.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    place: Place,
    /// The length of the value itself, if it is a list.
    whole: Option<u64>,
    members: [Option<u64>; LISTS.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the value.
    #[default]
    Outside,
    /// In a list: the one of this member, or the value itself.
    List(Option<usize>),
    /// In the value, an object, after the name of this list.
    Object(Option<usize>),
}

impl Rows {
    /// Takes a token of the value. A container that is not a list of rows is skipped.
    pub(super) fn take(&mut self, token: Token, lexer: &mut Lexer, base: usize) {
        let depth = lexer.depth().saturating_sub(base);
        match (token, self.place) {
            (Token::Start(kind), Place::Outside) => match kind {
                Kind::Array => (self.place, self.whole) = (Place::List(None), Some(0)),
                Kind::Object => self.place = Place::Object(None),
                Kind::String | Kind::Scalar => {}
            },
            (Token::Start(kind), Place::Object(member)) => {
                let count = member.and_then(|at| self.members.get_mut(at));
                match (kind, count) {
                    (Kind::Array, Some(count)) => {
                        *count = Some(0);
                        self.place = Place::List(member);
                    }
                    (kind, count) => {
                        count.into_iter().for_each(|count| *count = None);
                        skip(kind, lexer);
                    }
                }
            }
            (Token::Start(kind), Place::List(member)) => {
                let count = match member {
                    Some(at) => self.members.get_mut(at),
                    None => Some(&mut self.whole),
                };
                if let Some(Some(count)) = count {
                    *count = count.saturating_add(1);
                }
                skip(kind, lexer);
            }
            (Token::End(Kind::Array), Place::List(Some(_))) if depth == 1 => {
                self.place = Place::Object(None);
            }
            (Token::Key, Place::Object(_)) => {
                self.place = Place::Object(lexer.key().and_then(list));
            }
            (Token::Key | Token::End(_), _) => {}
        }
    }

    /// The number of rows, if known.
    pub(super) fn count(&self) -> Option<u64> {
        self.whole.or_else(|| self.members.iter().find_map(|count| *count))
    }
}

fn list(key: &[u8]) -> Option<usize> {
    let text = key.contains(&b'\\').then(|| decoded(key)).flatten();
    let key = text.as_ref().map_or(key, |key| key.as_bytes());
    LISTS.iter().position(|list| *list == key)
}

fn skip(kind: Kind, lexer: &mut Lexer) {
    match kind {
        Kind::Object | Kind::Array => lexer.skip(),
        Kind::String | Kind::Scalar => {}
    }
}

/// How many bytes of a string are unescaped before they are parsed.
const PIECE: usize = 1_024;

/// Counts the rows of a JSON text inside a JSON string.
#[derive(Clone, Debug, Default)]
pub(super) struct TextRows {
    rows: Rows,
    lexer: Lexer,
    escape: Escape,
    text: Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    /// Only white space so far.
    #[default]
    Blank,
    /// It may be JSON.
    Json,
    /// It is not.
    Other,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// The digits so far, and how many are missing.
    Unicode(u32, u8),
}

impl TextRows {
    /// Takes the next bytes of the string, as written. JSON in a string has an escape every few bytes: the unescaped
    /// text is parsed in pieces, not letter by letter.
    pub(super) fn take(&mut self, mut raw: &[u8]) {
        if self.text == Text::Other {
            return;
        }
        let mut plain = Vec::with_capacity(raw.len().min(PIECE));
        while let (Some((&first, rest)), false) = (raw.split_first(), self.text == Text::Other) {
            if plain.len() >= PIECE {
                self.read(&plain);
                plain.clear();
            }
            raw = match self.escape {
                Escape::None if first == b'\\' => {
                    self.escape = Escape::Backslash;
                    rest
                }
                // Its own quotation marks; those inside the text are escaped.
                Escape::None if first == b'"' => rest,
                Escape::None => {
                    let end = quote_or_escape(raw).unwrap_or(raw.len());
                    let end = end.min(PIECE);
                    let (text, tail) = raw.split_at_checked(end).unwrap_or((raw, &[]));
                    plain.extend_from_slice(text);
                    match tail {
                        [b'\\', itself @ (b'"' | b'\\' | b'/'), behind @ ..] => {
                            plain.push(*itself);
                            behind
                        }
                        _ => tail,
                    }
                }
                Escape::Backslash => {
                    self.escape = Escape::None;
                    match first {
                        b'u' => self.escape = Escape::Unicode(0, 4),
                        b'n' => plain.push(b'\n'),
                        b'r' => plain.push(b'\r'),
                        b't' => plain.push(b'\t'),
                        b'b' | b'f' => plain.push(b'\x08'),
                        itself => plain.push(itself),
                    }
                    rest
                }
                Escape::Unicode(value, left) => {
                    let digit = char::from(first).to_digit(16).unwrap_or_default();
                    let value = value.wrapping_shl(4) | digit;
                    self.escape = Escape::Unicode(value, left.saturating_sub(1));
                    if left <= 1 {
                        self.escape = Escape::None;
                        // Half of a surrogate pair only occurs in strings, where it does not change the structure.
                        let letter = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
                        plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    rest
                }
            };
        }
        self.read(&plain);
    }

    fn read(&mut self, plain: &[u8]) {
        if self.text == Text::Blank {
            let first = plain.iter().find(|byte| !byte.is_ascii_whitespace());
            self.text = match first {
                None => Text::Blank,
                Some(b'{' | b'[') => Text::Json,
                Some(_) => Text::Other,
            };
        }
        if self.text == Text::Other {
            return;
        }
        let mut at = 0;
        loop {
            match self.lexer.next(plain, &mut at) {
                Ok(Some(token)) => self.rows.take(token, &mut self.lexer, 0),
                Ok(None) => return,
                Err(_) => {
                    self.text = Text::Other;
                    return;
                }
            }
        }
    }

    /// The number of rows, when the text was JSON and the number is known.
    pub(super) fn count(&self) -> Option<u64> {
        match self.text {
            Text::Json if self.lexer.is_complete() => self.rows.count(),
            Text::Json | Text::Blank | Text::Other => None,
        }
    }
}
