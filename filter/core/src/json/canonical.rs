//! Canonical JSON (RFC 8785), the form that is hashed.
//!
//! It has two forms. RFC 8785 itself rounds numbers to doubles; the audit chain uses it, so that standard tools can
//! verify the chain. The hash of foreign documents (policies, arguments) must differ for two different numbers: there,
//! a number that a double cannot represent stays as written.
//!
//! Owns the order of members. A value is serialised once, into one buffer, and the members of each object are sorted
//! there when the object ends: no tree is built.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

use crate::order;

use super::number::{in_double, is_plain_integer};

/// Canonical JSON (RFC 8785), the form of the audit chain.
#[must_use]
pub fn canonical<T: Serialize + ?Sized>(value: &T) -> String {
    written(value, Inexact::Rounded)
}

/// Canonical JSON, except for numbers that a double cannot represent: those stay as written.
#[must_use]
pub fn canonical_exact<T: Serialize + ?Sized>(value: &T) -> String {
    written(value, Inexact::AsWritten)
}

fn written<T: Serialize + ?Sized>(value: &T, inexact: Inexact) -> String {
    let mut text = Canonical::new(inexact);
    // Fails for a value without JSON form: an object whose names are not texts, which does not occur here.
    match value.serialize(&mut Serializer::with_formatter(Nowhere, &mut text)) {
        Ok(()) => String::from_utf8(text.out).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Up to this integer every integer has its own double.
pub(super) const EXACT: u64 = 1 << 53;

/// How to write a number that a double cannot represent.
#[derive(Clone, Copy)]
enum Inexact {
    /// As the nearest double.
    Rounded,
    AsWritten,
}

struct Canonical {
    inexact: Inexact,
    out: Vec<u8>,
    /// The members of all open objects, those of the innermost last.
    members: Vec<Member>,
    /// For each open object, its first index in `members`.
    open: Vec<usize>,
    /// The buffer for sorting.
    mixed: Vec<u8>,
}

/// The position of a member in the text.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    /// After the name's closing quote.
    colon: usize,
    end: usize,
}

impl Member {
    fn name(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.colon).unwrap_or_default()
    }

    /// Whether a name, compared with its quotes, sorts as RFC 8785 §3.2.3 requires: by UTF-16 code units. The closing
    /// quote is less than every letter that can follow, except a space and an exclamation mark.
    fn is_plain(self, text: &[u8]) -> bool {
        let name = self.name(text);
        let name = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
        name.iter().all(|byte| matches!(byte, b'#'..=b'[' | b']'..=b'~'))
    }

    fn units(self, text: &[u8]) -> Vec<u16> {
        let name: String = serde_json::from_slice(self.name(text)).unwrap_or_default();
        name.encode_utf16().collect()
    }
}

impl Canonical {
    /// With capacity for an audit entry: a buffer that grows from nothing is copied each time.
    fn new(inexact: Inexact) -> Self {
        let (out, mixed) = (Vec::with_capacity(1_024), Vec::with_capacity(1_024));
        let (members, open) = (Vec::with_capacity(64), Vec::with_capacity(8));
        Self { inexact, out, members, open, mixed }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn double(&mut self, value: f64) -> io::Result<()> {
        // serde_json writes a number that is not finite as null.
        self.put(ryu_js::Buffer::new().format(value).as_bytes())
    }

    fn natural(&mut self, value: u64) -> io::Result<()> {
        match value {
            ..=EXACT => CompactFormatter.write_u64(&mut self.out, value),
            _ => self.number(&value.to_string()),
        }
    }

    fn integer(&mut self, value: i64) -> io::Result<()> {
        match value.unsigned_abs() {
            ..=EXACT => CompactFormatter.write_i64(&mut self.out, value),
            _ => self.number(&value.to_string()),
        }
    }

    /// As ECMAScript writes it (RFC 8785 §3.2.2.3).
    fn number(&mut self, text: &str) -> io::Result<()> {
        if is_plain_integer(text) {
            return self.put(text.as_bytes());
        }
        match (in_double(text), self.inexact) {
            (Some(written), _) => self.put(written.as_bytes()),
            (None, Inexact::AsWritten) => self.put(text.as_bytes()),
            (None, Inexact::Rounded) => {
                self.double(text.parse().map_err(|_| io::ErrorKind::InvalidData)?)
            }
        }
    }

    /// Sorts the members of the innermost object.
    fn arrange(&mut self) {
        let from = self.open.pop().unwrap_or_default();
        let members = self.members.get_mut(from..).unwrap_or_default();
        let Some(start) = members.first().map(|member| member.start) else { return };
        let text = &self.out;
        if members.iter().all(|member| member.is_plain(text)) {
            if members.is_sorted_by(|a, b| a.name(text) <= b.name(text)) {
                self.members.truncate(from);
                return;
            }
            order::sort_by(members, |a, b| a.name(text).cmp(b.name(text)));
        } else {
            let keyed = members.iter().map(|member| (member.units(text), *member));
            let mut keyed: Vec<_> = keyed.collect();
            order::sort_by(&mut keyed, |(one, _), (other, _)| one.cmp(other));
            for (member, (_, sorted)) in members.iter_mut().zip(keyed) {
                *member = sorted;
            }
        }
        self.mixed.clear();
        self.mixed.extend(self.out.drain(start..));
        for (nth, member) in members.iter().enumerate() {
            if nth > 0 {
                self.out.push(b',');
            }
            let span = member.start.saturating_sub(start)..member.end.saturating_sub(start);
            self.out.extend_from_slice(self.mixed.get(span).unwrap_or_default());
        }
        self.members.truncate(from);
    }
}

/// All output goes to [`Canonical::out`]; other output is an error.
struct Nowhere;

impl io::Write for Nowhere {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One method of the trait that writes, redirected.
macro_rules! methods {
    ($($method:ident($($name:ident: $type:ty),*) => |$text:ident| $act:expr;)*) => {$(
        #[inline]
        fn $method<W: ?Sized + io::Write>(&mut self, _: &mut W, $($name: $type),*) -> io::Result<()> {
            let $text = &mut **self;
            $act
        }
    )*};
}

impl Formatter for &mut Canonical {
    methods! {
        write_null() => |text| text.put(b"null");
        write_bool(value: bool) => |text| text.put(if value { b"true" } else { b"false" });
        write_i8(value: i8) => |text| text.integer(value.into());
        write_i16(value: i16) => |text| text.integer(value.into());
        write_i32(value: i32) => |text| text.integer(value.into());
        write_i64(value: i64) => |text| text.integer(value);
        write_u8(value: u8) => |text| text.natural(value.into());
        write_u16(value: u16) => |text| text.natural(value.into());
        write_u32(value: u32) => |text| text.natural(value.into());
        write_u64(value: u64) => |text| text.natural(value);
        write_f32(value: f32) => |text| text.double(value.into());
        write_f64(value: f64) => |text| text.double(value);
        write_number_str(value: &str) => |text| text.number(value);
        begin_string() => |text| text.put(b"\"");
        end_string() => |text| text.put(b"\"");
        write_string_fragment(fragment: &str) => |text| text.put(fragment.as_bytes());
        write_char_escape(escape: CharEscape) =>
            |text| CompactFormatter.write_char_escape(&mut text.out, escape);
        begin_array() => |text| text.put(b"[");
        end_array() => |text| text.put(b"]");
        begin_array_value(first: bool) => |text| if first { Ok(()) } else { text.put(b",") };
        begin_object_value() => |text| text.put(b":");
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.open.push(self.members.len());
        self.put(b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if !first {
            self.put(b",")?;
        }
        let start = self.out.len();
        self.members.push(Member { start, colon: start, end: start });
        Ok(())
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let colon = self.out.len();
        self.members.last_mut().into_iter().for_each(|member| member.colon = colon);
        Ok(())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let end = self.out.len();
        self.members.last_mut().into_iter().for_each(|member| member.end = end);
        Ok(())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.arrange();
        self.put(b"}")
    }
}
