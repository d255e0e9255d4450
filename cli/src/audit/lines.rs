//! Lines of a stream, in bounded memory.
//!
//! Owns line ends and how much of a line is kept. Does not know the content of lines.

use std::io::{BufRead, ErrorKind, Result};

/// The most bytes of a line that are kept; no entry is longer, for any `audit.input_max_bytes`.
pub(super) const LONGEST: usize = 32 * 1_024 * 1_024;
/// The capacity that a line buffer keeps between lines.
const USUAL: usize = 64 * 1_024;

/// Reads one line after the other.
pub(super) struct Lines<R> {
    input: R,
    kept: Vec<u8>,
    number: u64,
}

/// One line, without its end.
pub(super) struct RawLine<'a> {
    pub(super) number: u64,
    /// The line, or its first [`LONGEST`] bytes.
    pub(super) text: &'a [u8],
    /// The length of the line.
    pub(super) length: u64,
    /// The kind of its end.
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Newline,
    /// The input ends inside the line, or without a last line end.
    OfInput,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, kept: Vec::new(), number: 0 }
    }

    /// The number of the line that was read last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> Result<Option<RawLine<'_>>> {
        self.kept.clear();
        self.kept.shrink_to(USUAL);
        let mut length = 0_usize;
        let end = loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break End::OfInput;
            }
            let newline = memchr::memchr(b'\n', chunk);
            let part = chunk.get(..newline.unwrap_or(chunk.len())).unwrap_or_default();
            let room = LONGEST.saturating_sub(self.kept.len()).min(part.len());
            self.kept.extend_from_slice(part.get(..room).unwrap_or_default());
            length = length.saturating_add(part.len());
            let used = part.len().saturating_add(usize::from(newline.is_some()));
            self.input.consume(used);
            if newline.is_some() {
                break End::Newline;
            }
        };
        if length == 0 && end == End::OfInput {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        let text = self.kept.strip_suffix(b"\r").unwrap_or(&self.kept);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        Ok(Some(RawLine { number: self.number, text, length, end }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    fn all(input: impl Read) -> Vec<(u64, usize, u64, End)> {
        let mut lines = Lines::new(BufReader::with_capacity(7, input));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.text.len(), line.length, line.end));
        }
        all
    }

    // Proves: A20
    #[test]
    fn lines_are_counted_and_the_last_one_says_how_it_ends() {
        let lines = all(&b"a\n\nlonger than the buffer\r\nlast"[..]);
        assert_eq!(
            lines,
            [
                (1, 1, 1, End::Newline),
                (2, 0, 0, End::Newline),
                (3, 22, 23, End::Newline),
                (4, 4, 4, End::OfInput)
            ]
        );
        assert_eq!(all(&b""[..]), []);
        assert_eq!(all(&b"\n"[..]), [(1, 0, 0, End::Newline)]);
    }

    #[test]
    fn of_a_line_without_end_a_bounded_part_is_kept() {
        let long = u64::try_from(LONGEST).unwrap() + 100;
        let input = std::io::repeat(b'x').take(long).chain(&b"\nshort\n"[..]);
        let mut lines = Lines::new(BufReader::with_capacity(1 << 16, input));
        let line = lines.next().unwrap().unwrap();
        assert_eq!((line.text.len(), line.length), (LONGEST, long));
        assert_eq!(lines.next().unwrap().unwrap().text, b"short");
        assert!(lines.kept.capacity() <= USUAL);
    }
}
