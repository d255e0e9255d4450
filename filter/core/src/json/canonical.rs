//! Canonical JSON (RFC 8785), the form that is hashed.
//!
//! It has two forms. RFC 8785 itself rounds numbers to doubles; the audit chain uses it, so that standard tools can
//! verify the chain. The hash of foreign documents (policies, arguments) must differ for two different numbers: there,
//! a number that a double cannot represent stays as written.
//!
//! Owns the order of members. A value is serialised once, into one buffer, and the members of each object are sorted
//! there when the object ends: no tree is built. [`Writer`] takes a value piece by piece, from callers who decide about
//! each piece; everything else comes through `serde`.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use serde_json::{Map, Value};

use crate::order;

use super::number::{in_double, is_plain_integer};
use super::plain_text::is_plain;

/// Canonical JSON (RFC 8785), the form of the audit chain.
#[must_use]
pub fn canonical<T: Serialize + ?Sized>(value: &T) -> String {
    written(value, Form::Rounded)
}

/// Canonical JSON, except for numbers that a double cannot represent: those stay as written.
#[must_use]
pub fn canonical_exact<T: Serialize + ?Sized>(value: &T) -> String {
    written(value, Form::Exact)
}

/// The same, of the members of an object.
pub(crate) fn canonical_exact_members(members: &Map<String, Value>) -> String {
    let mut text = Writer::new(Form::Exact);
    text.members(members);
    text.end()
}

fn written<T: Serialize + ?Sized>(value: &T, form: Form) -> String {
    let mut text = Writer::new(form);
    // Fails for a value without JSON form: an object whose names are not texts, which does not occur here.
    match text.serialized(value) {
        Ok(()) => text.end(),
        Err(_) => String::new(),
    }
}

/// Up to this integer every integer has its own double.
pub(super) const EXACT: u64 = 1 << 53;

/// What is written otherwise than it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 8785: members are sorted, and numbers are doubles.
    Rounded,
    /// The same, but a number that a double cannot represent stays as written.
    Exact,
    /// Nothing but white space: members stay in their order, numbers as written.
    AsRead,
}

/// A JSON text that is being written.
pub(crate) struct Writer {
    form: Form,
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

impl Writer {
    /// With capacity for the arguments of most calls: a buffer that grows from nothing is copied each time.
    pub(crate) fn new(form: Form) -> Self {
        let (out, members) = (Vec::with_capacity(512), Vec::with_capacity(16));
        Self { form, out, members, open: Vec::new(), mixed: Vec::new() }
    }

    /// The whole text.
    pub(crate) fn end(self) -> String {
        String::from_utf8(self.out).unwrap_or_default()
    }

    /// An object, whose members `write` adds.
    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.open.push(self.members.len());
        self.out.push(b'{');
        write(self);
        self.arrange();
        self.out.push(b'}');
    }

    /// A member of the innermost object, whose value `write` adds.
    pub(crate) fn member(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.separate();
        let start = self.out.len();
        self.text(name);
        let colon = self.out.len();
        self.out.push(b':');
        write(self);
        self.members.push(Member { start, colon, end: self.out.len() });
    }

    /// A list, whose items `write` adds.
    pub(crate) fn list(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'[');
        write(self);
        self.out.push(b']');
    }

    /// An item of the innermost list, which `write` adds.
    pub(crate) fn item(&mut self, write: impl FnOnce(&mut Self)) {
        self.separate();
        write(self);
    }

    /// No value ends with an opening bracket.
    fn separate(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    /// A text. Few need an escape.
    pub(crate) fn text(&mut self, text: &str) {
        if is_plain(text.as_bytes()) {
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        } else {
            _ = self.serialized(text);
        }
    }

    /// A value as it is.
    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Object(members) => self.members(members),
            Value::Array(items) => self.list(|list| {
                items.iter().for_each(|item| list.item(|place| place.value(item)));
            }),
            Value::String(text) => self.text(text),
            Value::Number(number) => _ = self.number(number.as_str()),
            Value::Null | Value::Bool(_) => _ = self.serialized(value),
        }
    }

    fn members(&mut self, members: &Map<String, Value>) {
        self.object(|object| {
            for (name, value) in members {
                object.member(name, |place| place.value(value));
            }
        });
    }

    fn serialized<T: Serialize + ?Sized>(&mut self, value: &T) -> serde_json::Result<()> {
        value.serialize(&mut Serializer::with_formatter(Nowhere, self))
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
        if is_plain_integer(text) || self.form == Form::AsRead {
            return self.put(text.as_bytes());
        }
        match (in_double(text), self.form) {
            (Some(written), _) => self.put(written.as_bytes()),
            (None, Form::Exact | Form::AsRead) => self.put(text.as_bytes()),
            (None, Form::Rounded) => {
                self.double(text.parse().map_err(|_| io::ErrorKind::InvalidData)?)
            }
        }
    }

    /// Sorts the members of the innermost object.
    fn arrange(&mut self) {
        let from = self.open.pop().unwrap_or_default();
        if self.form == Form::AsRead {
            self.members.truncate(from);
            return;
        }
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

/// All output goes to [`Writer::out`]; other output is an error.
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

impl Formatter for &mut Writer {
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
