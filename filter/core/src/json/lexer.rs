//! A streaming JSON lexer for texts of any length.
//!
//! Owns the structure of a JSON text: where values start and end, and the names of members. Keeps no value, so its
//! memory does not grow with the text. It is lenient where the structure is not affected (numbers, literals, escapes
//! inside strings); everything else must be RFC 8259.

use memchr::memchr2;

/// Deeper nesting is refused. Two parsers with different limits disagree about no message that a server sends.
pub const MAX_DEPTH: usize = 1_024;
const WORDS: usize = MAX_DEPTH / 64;
/// The longest name of a member, as written, that is kept for comparison.
const LONGEST_KEY: usize = 256;
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{}`.
    Object,
    /// `[]`.
    Array,
    /// A string.
    String,
    /// A number or a literal.
    Scalar,
}

/// The result of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The first byte of a value was read.
    Start(Kind),
    /// The last byte of a value was read; for a scalar, the byte after it was seen.
    End(Kind),
    /// A member's name was read: [`Lexer::key`].
    Key,
}

/// The text is not JSON, or is nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of the text, after this many bytes of a byte-order mark.
    Text(u8),
    Value,
    ItemOrEnd,
    KeyOrEnd,
    Key,
    InKey,
    KeyEscape,
    Colon,
    InString,
    StringEscape,
    InScalar,
    /// After a value.
    Behind,
}

/// A lexer over the chunks of one JSON text.
#[derive(Clone, Debug)]
pub struct Lexer {
    state: State,
    depth: usize,
    /// One bit for each open level: whether it is an object.
    objects: [u64; WORDS],
    /// Inside a skipped container: the depth of its members.
    skipped: Option<usize>,
    key: Vec<u8>,
}

impl Default for Lexer {
    fn default() -> Self {
        let (key, objects) = (Vec::new(), [0; WORDS]);
        Self { state: State::Text(0), depth: 0, objects, skipped: None, key }
    }
}

impl Lexer {
    /// How many containers are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The name of the last member, as written; `None` when it is too long.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        (self.key.len() <= LONGEST_KEY).then_some(&self.key)
    }

    /// Skips the container that just started: only its end is reported.
    pub fn skip(&mut self) {
        self.skipped = Some(self.depth);
    }

    /// Whether the text is one whole value.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.depth == 0 && self.state == State::Behind
    }

    /// The same at the end of the text, which also ends a number.
    #[must_use]
    pub fn is_complete_at_end(&self) -> bool {
        self.depth == 0 && matches!(self.state, State::Behind | State::InScalar)
    }

    /// Reads on in `bytes` from `at`, and advances `at`; `None` at their end.
    ///
    /// # Errors
    /// [`Malformed`], also for all later calls.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Token>, Malformed> {
        while let Some((&byte, _)) = bytes.get(*at..).and_then(<[u8]>::split_first) {
            let token = match self.state {
                State::InString => self.string(bytes, at),
                State::InKey => self.name(bytes, at),
                State::StringEscape => {
                    self.state = State::InString;
                    advance(at, 1)
                }
                State::KeyEscape => {
                    self.keep(&[byte]);
                    self.state = State::InKey;
                    advance(at, 1)
                }
                State::InScalar => {
                    let rest = bytes.get(*at..).unwrap_or_default();
                    match rest.iter().position(|byte| !is_scalar(*byte)) {
                        None => advance(at, rest.len()),
                        Some(end) => {
                            self.state = State::Behind;
                            advance(at, end);
                            Some(Token::End(Kind::Scalar))
                        }
                    }
                }
                State::Text(seen) => {
                    let expected = BYTE_ORDER_MARK.get(usize::from(seen));
                    match (expected, seen) {
                        (Some(expected), _) if byte == *expected => {
                            self.state = State::Text(seen.saturating_add(1));
                            advance(at, 1)
                        }
                        (_, 0 | 3) => {
                            self.state = State::Value;
                            None
                        }
                        _ => return Err(Malformed),
                    }
                }
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => advance(at, 1),
                State::Value
                | State::ItemOrEnd
                | State::KeyOrEnd
                | State::Key
                | State::Colon
                | State::Behind => {
                    advance(at, 1);
                    self.structural(byte)?
                }
            };
            match token {
                Some(token) if self.tells(token) => return Ok(Some(token)),
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    /// Whether `token` is reported: inside a skipped container, only its end is.
    fn tells(&mut self, token: Token) -> bool {
        match (self.skipped, token) {
            (None, _) => true,
            (Some(depth), Token::End(Kind::Object | Kind::Array)) if self.depth < depth => {
                self.skipped = None;
                true
            }
            (Some(_), _) => false,
        }
    }

    /// Reads on in a string value. JSON inside a string has an escape every few bytes, so the byte after an escape is
    /// skipped here.
    fn string(&mut self, bytes: &[u8], at: &mut usize) -> Option<Token> {
        let mut rest = bytes.get(*at..).unwrap_or_default();
        loop {
            let found = quote_or_escape(rest);
            let behind = found.and_then(|found| rest.get(found..)).unwrap_or_default();
            (self.state, rest) = match behind {
                [] => (State::InString, behind),
                [b'\\'] => (State::StringEscape, &[][..]),
                [b'\\', _, behind @ ..] => {
                    rest = behind;
                    continue;
                }
                [_, behind @ ..] => (State::Behind, behind),
            };
            *at = bytes.len().saturating_sub(rest.len());
            return (self.state == State::Behind).then_some(Token::End(Kind::String));
        }
    }

    /// Reads on in the name of a member.
    fn name(&mut self, bytes: &[u8], at: &mut usize) -> Option<Token> {
        let rest = bytes.get(*at..).unwrap_or_default();
        let Some(found) = quote_or_escape(rest) else {
            self.keep(rest);
            return advance(at, rest.len());
        };
        advance(at, found.saturating_add(1));
        match rest.get(found) {
            Some(b'\\') => {
                self.keep(rest.get(..=found).unwrap_or_default());
                self.state = State::KeyEscape;
                None
            }
            _ => {
                self.keep(rest.get(..found).unwrap_or_default());
                self.state = State::Colon;
                Some(Token::Key)
            }
        }
    }

    fn structural(&mut self, byte: u8) -> Result<Option<Token>, Malformed> {
        match (self.state, byte) {
            (State::Value | State::ItemOrEnd, b'{') => self.open(Kind::Object),
            (State::Value | State::ItemOrEnd, b'[') => self.open(Kind::Array),
            (State::Value | State::ItemOrEnd, b'"') => {
                self.state = State::InString;
                Ok(Some(Token::Start(Kind::String)))
            }
            (State::Value | State::ItemOrEnd, byte) if is_scalar(byte) => {
                self.state = State::InScalar;
                Ok(Some(Token::Start(Kind::Scalar)))
            }
            (State::KeyOrEnd | State::Key, b'"') => {
                self.key.clear();
                self.state = State::InKey;
                Ok(None)
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(None)
            }
            (State::ItemOrEnd, b']') => self.close(Kind::Array),
            (State::KeyOrEnd, b'}') => self.close(Kind::Object),
            (State::Behind, b',') if self.depth > 0 => {
                self.state = if self.in_object() { State::Key } else { State::Value };
                Ok(None)
            }
            (State::Behind, b'}') => self.close(Kind::Object),
            (State::Behind, b']') => self.close(Kind::Array),
            _ => Err(Malformed),
        }
    }

    fn open(&mut self, kind: Kind) -> Result<Option<Token>, Malformed> {
        let (word, bit) = place(self.depth);
        let objects = self.objects.get_mut(word).ok_or(Malformed)?;
        (*objects, self.state) = match kind {
            Kind::Object => (*objects | bit, State::KeyOrEnd),
            Kind::Array | Kind::String | Kind::Scalar => (*objects & !bit, State::ItemOrEnd),
        };
        self.depth = self.depth.saturating_add(1);
        Ok(Some(Token::Start(kind)))
    }

    fn close(&mut self, kind: Kind) -> Result<Option<Token>, Malformed> {
        if self.depth == 0 || self.in_object() != (kind == Kind::Object) {
            return Err(Malformed);
        }
        self.depth = self.depth.saturating_sub(1);
        self.state = State::Behind;
        Ok(Some(Token::End(kind)))
    }

    fn in_object(&self) -> bool {
        let (word, bit) = place(self.depth.saturating_sub(1));
        self.objects.get(word).is_some_and(|objects| objects & bit != 0)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipped.is_none() && self.key.len() <= LONGEST_KEY {
            let room = LONGEST_KEY.saturating_add(1).saturating_sub(self.key.len());
            self.key.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }
}

/// The position of a level's bit.
fn place(level: usize) -> (usize, u64) {
    (level / 64, 1_u64.rotate_left(u32::try_from(level % 64).unwrap_or_default()))
}

/// The position of the next quote or escape. Most are near: the first two words are compared directly, and only after
/// them [`memchr2`] is faster.
pub(crate) fn quote_or_escape(rest: &[u8]) -> Option<usize> {
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const ESCAPES: u64 = u64::from_le_bytes([b'\\'; 8]);
    let Some((near, far)) = rest.split_first_chunk::<16>() else {
        return rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    };
    let mut before = 0_usize;
    for word in near.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        let found = (zeros(word ^ QUOTES) | zeros(word ^ ESCAPES)).trailing_zeros() / 8;
        if found < 8 {
            return before.checked_add(usize::try_from(found).ok()?);
        }
        before = before.saturating_add(8);
    }
    memchr2(b'"', b'\\', far)?.checked_add(near.len())
}

/// The highest bit of each byte that is zero, up to the first such byte; bits after it may be wrong.
const fn zeros(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

fn advance(at: &mut usize, by: usize) -> Option<Token> {
    *at = at.saturating_add(by);
    None
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// The text of a string, from its written form between the quotation marks.
pub(crate) fn decoded(raw: &[u8]) -> Option<String> {
    serde_json::from_slice(&[b"\"", raw, b"\""].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], size: usize) -> Result<Vec<Token>, Malformed> {
        let (mut lexer, mut tokens) = (Lexer::default(), Vec::new());
        for chunk in text.chunks(size) {
            let mut at = 0;
            while let Some(token) = lexer.next(chunk, &mut at)? {
                tokens.push(token);
            }
        }
        if lexer.is_complete_at_end() { Ok(tokens) } else { Err(Malformed) }
    }

    #[test]
    fn quotes_and_escapes_are_found_wherever_they_stand() {
        for before in 0..40 {
            for (one, other) in [(b'"', b'\\'), (b'\\', b'"'), (b'"', b'#'), (b'\\', b']')] {
                for fill in [b'!', b'#', b'[', b']', b'a', 0, 0x80, 0xA2, 0xDC, 0xFF] {
                    let mut text = vec![fill; before];
                    text.extend([one, other]);
                    text.extend([fill; 20]);
                    assert_eq!(quote_or_escape(&text), Some(before), "{text:?}");
                    assert_eq!(quote_or_escape(&text[..before]), None);
                }
            }
        }
    }

    #[test]
    fn chunks_change_nothing_and_structure_is_strict() {
        let text = br#" {"a" : [1, -2.5e3,"x\"]",{}, [] ,null],"b\u0022":{"c":true}} "#;
        let whole = read(text, 1_000).unwrap();
        for size in 1..8 {
            assert_eq!(read(text, size), Ok(whole.clone()), "{size}");
        }
        for bad in [
            "",
            "{",
            "}",
            "{]",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "[1 2]",
            "[1]]",
            "{} {}",
            "[,1]",
            "{\"a\" 1}",
            "[\"",
            "//\n1",
            "\u{feff}\u{feff}1",
        ] {
            assert_eq!(read(bad.as_bytes(), 3), Err(Malformed), "{bad}");
        }
        for good in ["\u{feff}[]", "1", " null ", "\"\"", "[NaN]"] {
            assert!(read(good.as_bytes(), 1).is_ok(), "{good}");
        }
        let deep = [b"[".repeat(MAX_DEPTH), b"]".repeat(MAX_DEPTH)].concat();
        assert!(read(&deep, 7).is_ok());
        assert_eq!(read(&b"[".repeat(MAX_DEPTH + 1), 7), Err(Malformed));
    }

    #[test]
    fn what_is_skipped_tells_only_its_end() {
        let text = br#"[{"a":[{}],"b":"}"},2]"#;
        let (mut lexer, mut at, mut tokens) = (Lexer::default(), 0, Vec::new());
        while let Some(token) = lexer.next(text, &mut at).unwrap() {
            if token == Token::Start(Kind::Object) {
                lexer.skip();
            }
            tokens.push(token);
        }
        use Kind::{Array, Object, Scalar};
        use Token::{End, Start};
        let scalar = [Start(Scalar), End(Scalar), End(Array)];
        let object = [Start(Array), Start(Object), End(Object)];
        assert_eq!(tokens, [object, scalar].concat());
    }
}
