//! Header lines as received.
//!
//! Owns their storage: one piece of memory, because a request has a dozen headers or more, and few of them are read.
//! Knows no name.

use std::ops::Range;

/// Header lines: names in lower case and values, in order.
#[derive(Clone, Default)]
pub struct Headers {
    /// All names and values, and what the host has between them.
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// The position of a header line.
#[derive(Clone, Copy)]
struct Line {
    /// The kind of its name.
    kind: Kind,
    name: Span,
    value: Span,
}

/// A part of the text.
#[derive(Clone, Copy)]
struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// No request has 4 GB of headers; if one had, the rest would be empty.
    fn of(range: &Range<usize>) -> Self {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { from: place(range.start), to: place(range.end) }
    }

    fn in_text(self, text: &[u8]) -> &[u8] {
        let index = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
        text.get(index(self.from)..index(self.to)).unwrap_or_default()
    }
}

/// A name's length and first letters. Some forty names are looked up in a request; this comparison rules out nearly all
/// absent ones without reading the text.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    fn of(name: &[u8]) -> Self {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
        let letter = |at: usize| name.get(at).copied().unwrap_or_default();
        Self(u32::from_le_bytes([length[0], length[1], letter(0), letter(4)]))
    }
}

impl Line {
    fn at(text: &[u8], name: &Range<usize>, value: &Range<usize>) -> Self {
        let name = Span::of(name);
        Self { kind: Kind::of(name.in_text(text)), name, value: Span::of(value) }
    }

    fn name(self, text: &[u8]) -> &[u8] {
        self.name.in_text(text)
    }

    fn value(self, text: &[u8]) -> &[u8] {
        self.value.in_text(text)
    }
}

impl Headers {
    /// The lines in `text`, of each where its name and its value are. Nothing is copied.
    pub fn located(
        text: Vec<u8>,
        lines: impl IntoIterator<Item = (Range<usize>, Range<usize>)>,
    ) -> Self {
        let lines = lines.into_iter().map(|(name, value)| Line::at(&text, &name, &value));
        Self { lines: lines.collect(), text }
    }

    /// Every name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name(&self.text), line.value(&self.text)))
    }

    /// Every value of the header `name`.
    pub(crate) fn values<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let kind = Kind::of(name);
        let alike = self.lines.iter().filter(move |line| line.kind == kind);
        let named = alike.filter(move |line| line.name(&self.text) == name);
        named.map(|line| line.value(&self.text))
    }

    /// The value of the header `name` when there is exactly one.
    pub(crate) fn single(&self, name: &[u8]) -> Option<&[u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        let (least, _) = pairs.size_hint();
        // A name and its value have about forty bytes together.
        let (mut text, mut lines) =
            (Vec::with_capacity(least.saturating_mul(40)), Vec::with_capacity(least));
        for (name, value) in pairs {
            let start = text.len();
            text.extend_from_slice(name.as_ref());
            let middle = text.len();
            text.extend_from_slice(value.as_ref());
            lines.push(Line::at(&text, &(start..middle), &(middle..text.len())));
        }
        Self { text, lines }
    }
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Headers {
    fn from(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_went_in() {
        let pairs = [("a", "1"), ("", ""), ("b", ""), ("a", "é"), ("accept", "2"), ("accext", "3")];
        let headers: Headers = pairs.into_iter().collect();
        let back: Vec<_> = headers.iter().collect();
        assert_eq!(back, pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let asked = [
            ("a", &["1", "é"][..]),
            ("", &[""]),
            ("b", &[""]),
            ("c", &[]),
            ("accept", &["2"]),
            ("acxept", &[]),
        ];
        for (name, values) in asked {
            let found: Vec<_> = headers.values(name.as_bytes()).collect();
            assert_eq!(found, values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_are_where_they_are_said_to_be() {
        let headers = Headers::located(b"..a\x001\0bc\0".to_vec(), [(2..3, 4..5), (6..8, 9..9)]);
        let lines: Vec<(&[u8], &[u8])> = vec![(b"a", b"1"), (b"bc", b"")];
        assert_eq!(headers.iter().collect::<Vec<_>>(), lines);
        assert_eq!(headers.single(b"a"), Some(&b"1"[..]));
        let beyond = Headers::located(b"a".to_vec(), [(0..1, 1..9)]);
        assert_eq!(beyond.single(b"a"), Some(&b""[..]));
    }
}
