//! Header lines as they came.
//!
//! Owns how they are kept: in one piece of memory, since a request has a dozen of them or more, of which
//! hardly any is looked at. Knows no name.

/// Header lines: names in lower case and values, in order.
#[derive(Clone, Default)]
pub struct Headers {
    /// All names and values, one after the other.
    text: Vec<u8>,
    /// How long each name and each value is.
    lengths: Vec<(usize, usize)>,
}

impl Headers {
    /// Every name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.text.as_slice();
        self.lengths.iter().map_while(move |(name, value)| {
            let (name, tail) = rest.split_at_checked(*name)?;
            let (value, tail) = tail.split_at_checked(*value)?;
            rest = tail;
            Some((name, value))
        })
    }

    /// Every value of the header `name`. A request is asked for some forty of them, so what has another length is passed
    /// without a look.
    pub(crate) fn values<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut end = 0_usize;
        self.lengths.iter().filter_map(move |(length, value)| {
            let begin = end;
            end = end.saturating_add(*length).saturating_add(*value);
            if *length != name.len() {
                return None;
            }
            let line = self.text.get(begin..end)?;
            line.strip_prefix(name)
        })
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        let (least, _) = pairs.size_hint();
        // Names and values are some forty bytes long together.
        let (text, lengths) =
            (Vec::with_capacity(least.saturating_mul(40)), Vec::with_capacity(least));
        let mut headers = Self { text, lengths };
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            headers.text.extend_from_slice(name);
            headers.text.extend_from_slice(value);
            headers.lengths.push((name.len(), value.len()));
        }
        headers
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
        let pairs = [("a", "1"), ("", ""), ("b", ""), ("a", "é")];
        let headers: Headers = pairs.into_iter().collect();
        let back: Vec<_> = headers.iter().collect();
        assert_eq!(back, pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        for (name, values) in [("a", &["1", "é"][..]), ("", &[""]), ("b", &[""]), ("c", &[])] {
            let found: Vec<_> = headers.values(name.as_bytes()).collect();
            assert_eq!(found, values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
        }
    }
}
