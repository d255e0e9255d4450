//! `x-forwarded-client-cert`: a proxy's statement about its client's certificate.
//!
//! Owns the header's grammar, as Envoy documents and writes it. [`super::mapping`] decides before whether the proxy is
//! trusted.
//!
//! Envoy inserts subject alternative names without quotes or escapes: a name with `;`, `,` or `=` could change the
//! meaning. So the parser accepts only headers with one possible reading, and fields only in Envoy's order: fields that
//! a name smuggles in are out of order.

use super::{CertificateFailure, PeerCertificate};

/// How many elements the header may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elements {
    /// One: the proxy replaces what it received (`SANITIZE_SET`). A second one was smuggled in.
    #[default]
    One,
    /// Any number, of which the last counts: the proxy appends its own (`APPEND_FORWARD`).
    Last,
}

/// Parses the header into the client's certificate.
///
/// # Errors
/// [`CertificateFailure::Forwarded`] when the header has no possible reading, or more than one.
pub fn parse(header: &[u8], elements: Elements) -> Result<PeerCertificate, CertificateFailure> {
    let read = || {
        let header = std::str::from_utf8(header).ok()?;
        let all = split(header, ',')?;
        let element = match (all.as_slice(), elements) {
            ([one], Elements::One) | ([.., one], Elements::Last) => *one,
            ([] | [..], Elements::One | Elements::Last) => return None,
        };
        certificate(element.trim_matches([' ', '\t']))
    };
    read().ok_or(CertificateFailure::Forwarded)
}

/// The fields, in the order in which Envoy writes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    By,
    Hash,
    Cert,
    Chain,
    Subject,
    Uri,
    Dns,
}

impl Field {
    const ALL: [(&'static str, Self); 7] = [
        ("By", Self::By),
        ("Hash", Self::Hash),
        ("Cert", Self::Cert),
        ("Chain", Self::Chain),
        ("Subject", Self::Subject),
        ("URI", Self::Uri),
        ("DNS", Self::Dns),
    ];

    /// Field names are case-insensitive; an unknown field makes the header unreadable.
    fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, field)| field)
    }

    /// The proxy's certificate may have several URIs, the client's several DNS names. Several URIs in a client's
    /// certificate are possible, but SPIFFE forbids them (X.509-SVID §2), and they look like a URI that smuggles in a
    /// second one.
    const fn repeats(self) -> bool {
        match self {
            Self::By | Self::Dns => true,
            Self::Hash | Self::Cert | Self::Chain | Self::Subject | Self::Uri => false,
        }
    }

    /// The value without quotes. Envoy always quotes the first three fields and no other: quotes around a URI are part
    /// of the certificate's name.
    ///
    /// The quoted text is not unescaped. Envoy does not escape the subject again: its backslashes are RFC 2253's.
    fn value(self, text: &str) -> Option<&str> {
        match self {
            Self::Cert | Self::Chain | Self::Subject => {
                text.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
            }
            Self::By | Self::Hash | Self::Uri | Self::Dns => {
                (!text.contains(['"', '='])).then_some(text)
            }
        }
    }
}

fn certificate(element: &str) -> Option<PeerCertificate> {
    let mut fields: Vec<(Field, &str)> = Vec::new();
    for pair in split(element, ';')? {
        let (name, value) = pair.split_once('=')?;
        let field = Field::named(name)?;
        let in_order = match fields.last() {
            Some((last, _)) if *last == field => field.repeats(),
            Some((last, _)) => *last < field,
            None => true,
        };
        fields.push((in_order.then_some(field)?, field.value(value)?));
    }
    let values = |wanted: Field| {
        let matching = fields.iter().filter(move |(field, _)| *field == wanted);
        matching.map(|(_, value)| value.as_bytes()).collect::<Vec<_>>()
    };
    let subject = values(Field::Subject).first().copied().unwrap_or_default();
    let hash = *values(Field::Hash).first()?;
    PeerCertificate::told(&values(Field::Uri), &values(Field::Dns), subject, hash).ok()
}

/// The parts between separators outside quotes. `None` when a quote is not around a whole value, or is not closed.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut state = State::Bare;
    for (at, letter) in text.char_indices() {
        state = match (state, letter) {
            (State::Bare | State::Value | State::Closed, letter) if letter == separator => {
                parts.push(text.get(start..at)?);
                start = at.checked_add(letter.len_utf8())?;
                State::Bare
            }
            (State::Bare, '=') => State::Value,
            (State::Value, '"') => State::Quoted,
            (State::Bare, '"') => return None,
            (State::Quoted, '\\') => State::Escaped,
            (State::Quoted, '"') => State::Closed,
            (State::Quoted | State::Escaped, _) => State::Quoted,
            // After a closed quote only another separator may follow within the element.
            (State::Closed, ';' | ' ' | '\t') => State::Bare,
            (State::Closed, _) => return None,
            (State::Bare | State::Value, _) => State::Bare,
        };
    }
    parts.push(text.get(start..)?);
    match state {
        State::Bare | State::Value | State::Closed => Some(parts),
        State::Quoted | State::Escaped => None,
    }
}

/// The state of [`split`].
#[derive(Clone, Copy)]
enum State {
    /// Anywhere outside quotes.
    Bare,
    /// Right after `=`, the only place where a quote may open.
    Value,
    /// Within quotes.
    Quoted,
    /// Within quotes, after a backslash.
    Escaped,
    /// Right after the closing quote.
    Closed,
}

#[cfg(test)]
mod tests;
