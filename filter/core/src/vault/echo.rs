//! A server that says the connector's credential back.
//!
//! Owns what of an answer is masked. The credential is looked for as it was sent, as JSON writes it, and field by field;
//! an escape that nothing needs (`\u0073`) hides it.

use std::fmt;

use memchr::{memchr_iter, memmem};
use zeroize::{Zeroize as _, Zeroizing};

use crate::order;
use crate::secret::{Secret, Wiping};

/// What happens to an answer that has the credential in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// It passes unread.
    #[default]
    Pass,
    /// Asterisks take the place of the credential.
    Mask,
}

/// Shorter values are found in texts that have nothing to do with them.
const SHORTEST: usize = 8;

/// Looks for one credential in one answer.
pub struct EchoMask {
    needles: Vec<Secret>,
    /// The end of what came, as it came, where it may be the beginning of a credential.
    held: Zeroizing<Vec<u8>>,
    /// So many of the first bytes of it are the end of a credential that went on before.
    masked: usize,
}

impl fmt::Debug for EchoMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchoMask").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

/// What goes on of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Masked {
    /// As many bytes as came, but for those that are held for the next chunk.
    pub bytes: Vec<u8>,
    /// Whether there was a credential in it.
    pub found: bool,
}

impl EchoMask {
    /// Looks for these texts.
    #[must_use]
    pub fn new<'a>(texts: impl Iterator<Item = &'a Secret>) -> Self {
        let _wiping = Wiping::begin();
        let mut needles: Vec<Secret> = Vec::new();
        for text in texts.map(Secret::expose).filter(|text| text.len() >= SHORTEST) {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let slashes = escaped.replace('/', "\\/");
            for form in [text.to_owned(), escaped, slashes] {
                if needles.iter().all(|known| known.expose() != form) {
                    needles.push(Secret::new(form));
                }
            }
        }
        // The longest first: a header's value has the field's in it.
        order::sort_by(&mut needles, |one, other| other.expose().len().cmp(&one.expose().len()));
        Self { needles, held: Zeroizing::default(), masked: 0 }
    }

    /// Takes the next bytes of the answer; `last` when none follow.
    pub fn feed(&mut self, bytes: &[u8], last: bool) -> Masked {
        let _wiping = Wiping::begin();
        let mut text = std::mem::take(&mut *self.held);
        text.extend_from_slice(bytes);
        let needles = self.needles.iter().map(|needle| needle.expose().as_bytes());
        let mut echoes = vec![(0, std::mem::take(&mut self.masked))];
        for needle in needles.clone() {
            let found = memmem::find_iter(&text, needle);
            echoes.extend(found.map(|at| (at, at.saturating_add(needle.len()))));
        }
        // Also where one credential ends that another one begins with.
        let begun = needles.filter(|_| !last).filter_map(|needle| begins_at(&text, needle)).min();
        if let Some(begun) = begun {
            self.held.extend_from_slice(text.get(begun..).unwrap_or_default());
            text.get_mut(begun..).unwrap_or_default().zeroize();
            text.truncate(begun);
            let ends = echoes.iter().filter(|(from, _)| *from <= begun).map(|(_, to)| *to);
            self.masked = ends.max().unwrap_or_default().saturating_sub(begun);
        }
        let (mut found, length) = (false, text.len());
        for (from, to) in echoes {
            let echo = text.get_mut(from..to.min(length)).unwrap_or_default();
            echo.fill(b'*');
            found |= !echo.is_empty();
        }
        Masked { bytes: text, found }
    }
}

/// Where at the end of `text` a `needle` may begin that goes on in the next chunk.
fn begins_at(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let start = text.len().saturating_sub(needle.len().saturating_sub(1));
    let window = text.get(start..)?;
    let mut places = memchr_iter(first, window);
    places
        .find(|at| window.get(*at..).is_some_and(|end| needle.starts_with(end)))
        .map(|at| start.saturating_add(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(texts: &[&str]) -> EchoMask {
        let secrets: Vec<_> = texts.iter().map(|text| Secret::new((*text).to_owned())).collect();
        EchoMask::new(secrets.iter())
    }

    // Proves: A5
    #[test]
    fn an_echo_is_masked_however_the_answer_is_cut() {
        let answer = br#"{"a":"Bearer s3cret-of-crm","b":"s3cret-of-crm s3cret-of-cr","c":"s3cr"}"#;
        let expected =
            br#"{"a":"********************","b":"************* s3cret-of-cr","c":"s3cr"}"#;
        for first in 0..answer.len() {
            for second in first..answer.len() {
                let mut mask = mask(&["Bearer s3cret-of-crm", "s3cret-of-crm"]);
                let parts = [&answer[..first], &answer[first..second], &answer[second..]];
                let [one, two, three] = parts;
                let fed = [mask.feed(one, false), mask.feed(two, false), mask.feed(three, true)];
                let all = fed.iter().flat_map(|masked| masked.bytes.clone()).collect::<Vec<_>>();
                assert_eq!(all, expected, "{first} {second}");
                assert!(fed.iter().any(|masked| masked.found));
            }
        }
    }

    // The rest of the longer one went through where the answer was cut behind the shorter one.
    // Proves: A5
    #[test]
    fn of_credentials_that_are_parts_of_each_other_nothing_is_left() {
        let all = ["gateway-of-crm", "gateway-of-crm-s3cret", "s3cret-and-more", "of-crm-s3"];
        let answer =
            b"gateway-of-crm gateway-of-crm-s3cret gateway-of-crm-s3cret-and-more s3cret-and- end";
        let [one, two, three] = [14, 21, 30].map(|length| "*".repeat(length));
        let expected = format!("{one} {two} {three} s3cret-and- end").into_bytes();
        for texts in [all, [all[1], all[0], all[3], all[2]]] {
            for first in 0..answer.len() {
                for second in first..answer.len() {
                    let mut mask = mask(&texts);
                    let parts = [&answer[..first], &answer[first..second], &answer[second..]];
                    let [one, two, three] = parts;
                    let fed =
                        [mask.feed(one, false), mask.feed(two, false), mask.feed(three, true)];
                    let came = fed.iter().flat_map(|it| it.bytes.clone()).collect::<Vec<_>>();
                    let shown = String::from_utf8_lossy(&came);
                    assert_eq!(came, expected, "{first} {second}: {shown}");
                }
            }
        }
        // Byte by byte.
        let mut mask = mask(&all);
        let bytes = answer.iter().flat_map(|byte| mask.feed(&[*byte], false).bytes);
        let mut came: Vec<u8> = bytes.collect();
        came.extend(mask.feed(b"", true).bytes);
        assert_eq!(came, expected);
    }

    #[test]
    fn nothing_is_held_that_cannot_be_an_echo_and_short_values_are_not_looked_for() {
        let mut mask = mask(&["s3cret-of-crm", "short", "a\"b/c\\d-e"]);
        assert_eq!(mask.feed(b"data: plain\n\n", false).bytes, b"data: plain\n\n");
        assert_eq!(
            mask.feed(b"short a\\\"b/c\\\\d-e a\\\"b\\/c\\\\d-e", false).bytes,
            b"short *********** ************"
        );
        assert_eq!(mask.feed(b"s3cret", false).bytes, b"");
        assert_eq!(mask.feed(b"", true).bytes, b"s3cret");
    }
}
