//! Filters server-sent events while they pass (WHATWG HTML §9.2).
//!
//! Owns event boundaries, for any chunks: lines end in CRLF, LF or CR. Each event has one message, which
//! [`super::filter`] reads. An unchanged event passes byte for byte, but for characters that some clients take for line
//! ends ([`super::line_breaks`]). The start of an event is held, so that an unreadable message is replaced without
//! affecting another.

use memchr::memchr2;

use super::Listing;
use super::body::{MAX_HELD_BYTES, Substitute};
use super::filter::{MessageFilter, Reader, Seen, Shown, Unreadable};
use super::line_breaks::{Instead, LineBreaks};
use crate::json::lexer::Malformed;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
/// The longest field name with a meaning here.
const LONGEST_FIELD: usize = 5;
/// The longest event name with a meaning here.
const LONGEST_NAME: usize = 64;

/// The most messages of one event, a batch, that wait for its end; their receiver learns of others at once.
const MOST_DEFERRED: usize = 64;

/// The receiver of events.
pub trait Events: Substitute {
    /// The endpoint to which an HTTP+SSE client posts (MCP 2024-11-05), from the server; returns the client's endpoint,
    /// if the client may use it.
    fn endpoint(&mut self, data: &str) -> Option<String>;

    /// The replacement of the response to a message that was sent upstream instead of another.
    fn stands_for(&mut self, data: &[u8]) -> Option<String>;
}

/// The state of a passing event stream.
#[derive(Debug, Default)]
pub struct EventFilter {
    /// How many bytes of a byte-order mark were seen; a larger value means that the stream has begun.
    mark: usize,
    line: Line,
    breaks: LineBreaks,
    /// The last byte was a CR: an LF after it belongs to the same line end.
    after_cr: bool,
    event: Event,
    state: State,
    /// Whether an event had an id, from which a client can resume (MCP 2025-11-25, Resumability).
    ids: bool,
}

/// The position of the next byte in its line.
#[derive(Debug, Default)]
enum Line {
    /// At its start.
    #[default]
    Start,
    /// In its field name: these bytes so far.
    Field(Vec<u8>),
    /// After `data:`, where one space is ignored.
    DataSpace,
    Data,
    /// In the event's name; the line so far.
    Name(Vec<u8>),
    /// In an id.
    Id,
    /// In a line without a meaning here.
    Other,
}

/// The event that has not ended yet.
#[derive(Debug, Default)]
struct Event {
    /// Its bytes as received, while none were forwarded.
    raw: Vec<u8>,
    /// Its filtered bytes.
    filtered: Vec<u8>,
    message: MessageFilter,
    name: Name,
    /// How many lines of data it has.
    data_lines: u64,
    /// Whether they are not empty.
    data: bool,
    /// A line of data began, and the message filter does not know it yet.
    line_due: bool,
    /// Its message, whose receiver learns of it at the end: the name of an event may come behind its data.
    seen: Vec<Seen>,
    /// Whether it has an id that is not empty.
    id: bool,
    broken: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Name {
    /// `message`, or none.
    #[default]
    Message,
    Endpoint,
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The event is held.
    #[default]
    Held,
    /// It is forwarded as it arrives.
    Passing,
    /// The rest of it is not forwarded.
    Dropped,
}

impl EventFilter {
    /// Whether a client can read the rest on another stream.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.ids
    }

    /// Takes the next bytes; returns their replacement.
    pub fn feed(&mut self, chunk: &[u8], events: &mut dyn Events) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            if let Some(expected) = BYTE_ORDER_MARK.get(self.mark) {
                if byte == *expected {
                    self.mark = self.mark.saturating_add(1);
                    rest = tail;
                    if self.mark == BYTE_ORDER_MARK.len() {
                        out.extend_from_slice(&BYTE_ORDER_MARK);
                    }
                    continue;
                }
                // It was no byte-order mark, and its bytes are part of a line.
                let seen = std::mem::replace(&mut self.mark, BYTE_ORDER_MARK.len());
                let mut seen = BYTE_ORDER_MARK.get(..seen).unwrap_or_default();
                while !seen.is_empty() {
                    seen = self.read(seen, &mut out, events);
                }
            }
            rest = self.read(rest, &mut out, events);
        }
        out
    }

    /// The end of the stream: returns the rest of an unfinished event, with the line ends that it lacks. Most clients
    /// discard an event without a blank line, but not all, so it is filtered like any other and all get it.
    pub fn finish(&mut self, events: &mut dyn Events) -> Vec<u8> {
        let mut out = Vec::new();
        let within_line = !matches!(self.line, Line::Start);
        if within_line || self.state != State::Held || !self.event.is_blank() {
            let ends = 1_usize.saturating_add(usize::from(within_line || self.after_cr));
            for _ in 0..ends {
                let _ = self.read(b"\n", &mut out, events);
            }
        }
        out
    }

    /// Reads some of `bytes`, at least one; returns the rest.
    fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
        events: &mut dyn Events,
    ) -> &'a [u8] {
        let Some((&first, tail)) = bytes.split_first() else { return bytes };
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            // The second half of a line end that was handled before.
            if self.event.is_blank() && self.state == State::Held {
                out.push(b'\n');
            } else {
                self.plain(b"\n", out);
            }
            return tail;
        }
        if matches!(first, b'\r' | b'\n') {
            self.after_cr = first == b'\r';
            self.end_line(first, out, events);
            return tail;
        }
        let end = memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        match std::mem::take(&mut self.line) {
            Line::Start => {
                self.line = Line::Field(Vec::new());
                bytes
            }
            Line::Field(mut field) => {
                // Up to the colon, or as long as it may be a known field name.
                let most = LONGEST_FIELD.saturating_add(1).saturating_sub(field.len());
                let colon = text.iter().position(|byte| *byte == b':');
                let taken = colon.map_or(text.len(), |at| at.saturating_add(1)).min(most);
                let (taken, left) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
                field.extend_from_slice(taken);
                self.line = match field.as_slice() {
                    b"data:" => {
                        self.start_data(&field, out);
                        Line::DataSpace
                    }
                    b"event:" => Line::Name(field),
                    b"id:" => {
                        self.plain(&field, out);
                        Line::Id
                    }
                    long if long.ends_with(b":") || long.len() > LONGEST_FIELD => {
                        self.line_of_text(long, out);
                        Line::Other
                    }
                    _ => Line::Field(field),
                };
                left
            }
            Line::DataSpace => {
                self.line = Line::Data;
                if first == b' ' {
                    self.plain(b" ", out);
                    tail
                } else {
                    bytes
                }
            }
            Line::Data => {
                self.line = Line::Data;
                let text = self.breaks.replace(text, Instead::Escape);
                self.data(&text, out, events);
                rest
            }
            Line::Name(mut line) => {
                if line.len().saturating_add(text.len()) > LONGEST_NAME {
                    self.event.name = Name::Other;
                    self.line_of_text(&line, out);
                    self.line = Line::Other;
                    return bytes;
                }
                line.extend_from_slice(text);
                self.line = Line::Name(line);
                rest
            }
            line @ (Line::Id | Line::Other) => {
                // The space in front is no part of it.
                self.event.id |= matches!(line, Line::Id) && text != b" ";
                self.line = line;
                self.line_of_text(text, out);
                self.overflow(out, events);
                rest
            }
        }
    }

    fn end_line(&mut self, end: u8, out: &mut Vec<u8>, events: &mut dyn Events) {
        match std::mem::take(&mut self.line) {
            Line::Start => return self.end_event(&[end], out, events),
            Line::Field(field) => {
                if field == b"data" {
                    self.start_data(&field, out);
                } else {
                    self.field(&field);
                    self.line_of_text(&field, out);
                    let rest = self.breaks.rest();
                    self.plain(rest, out);
                }
            }
            Line::Name(line) => {
                if !self.named(&line, out) {
                    return;
                }
            }
            Line::Data => {
                let rest = self.breaks.rest();
                if !rest.is_empty() {
                    self.data(rest, out, events);
                }
            }
            Line::DataSpace | Line::Id | Line::Other => {
                let rest = self.breaks.rest();
                self.plain(rest, out);
            }
        }
        self.plain(&[end], out);
        if self.event.is_comment() && self.state == State::Held {
            // A sign of life, for clients and load balancers that end what is silent.
            out.append(&mut self.event.raw);
            self.event.filtered.clear();
        }
        self.overflow(out, events);
    }

    /// A line with only a field name.
    fn field(&mut self, field: &[u8]) {
        if field == b"event" {
            self.event.name = Name::Message;
        }
    }

    /// A line that names the event; returns whether it passes. After data was forwarded, it is too late to name it an
    /// endpoint.
    fn named(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let value = line.strip_prefix(b"event:").unwrap_or_default();
        self.event.name = match value.strip_prefix(b" ").unwrap_or(value) {
            b"" | b"message" => Name::Message,
            b"endpoint" => Name::Endpoint,
            _ => Name::Other,
        };
        if self.event.name == Name::Endpoint && self.state != State::Held {
            return false;
        }
        self.line_of_text(line, out);
        let rest = self.breaks.rest();
        self.plain(rest, out);
        true
    }

    /// Bytes of a line that is no data, without its end.
    fn line_of_text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let text = self.breaks.replace(bytes, Instead::Blank);
        self.plain(&text, out);
    }

    /// Bytes that are not data.
    fn plain(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.state {
            State::Held => {
                self.event.raw.extend_from_slice(bytes);
                self.event.filtered.extend_from_slice(bytes);
            }
            State::Passing => out.extend_from_slice(bytes),
            State::Dropped => {}
        }
    }

    fn start_data(&mut self, name: &[u8], out: &mut Vec<u8>) {
        self.plain(name, out);
        let event = &mut self.event;
        event.data_lines = event.data_lines.saturating_add(1);
        event.line_due = event.data_lines > 1;
    }

    fn data(&mut self, text: &[u8], out: &mut Vec<u8>, events: &mut dyn Events) {
        let event = &mut self.event;
        event.data = true;
        match self.state {
            State::Held => {
                event.raw.extend_from_slice(text);
                let mut filtered = std::mem::take(&mut event.filtered);
                event.broken = event.broken || event.read(text, &mut filtered, events).is_err();
                event.filtered = filtered;
                self.overflow(out, events);
            }
            State::Passing => {
                if event.read(text, out, events).is_err() {
                    self.cut(out, events);
                }
            }
            State::Dropped => {}
        }
    }

    /// The event is too long to be held: forwards its filtered bytes.
    fn overflow(&mut self, out: &mut Vec<u8>, events: &mut dyn Events) {
        let held = self.event.raw.len().max(self.event.filtered.len());
        if self.state != State::Held || held <= MAX_HELD_BYTES {
            return;
        }
        let event = &mut self.event;
        if event.broken || (event.data && event.name == Name::Endpoint) {
            let refusal = events.refused(event.message.id());
            replace_data(&std::mem::take(&mut event.raw), Some(&refusal), out);
            if !matches!(out.last(), Some(b'\r' | b'\n')) {
                out.push(b'\n');
            }
            self.state = State::Dropped;
            return;
        }
        event.message.release(&mut event.filtered);
        out.append(&mut event.filtered);
        event.raw = Vec::new();
        self.state = State::Passing;
    }

    /// A message that was forwarded in part, and must not continue: ends the event, and reports the error in another.
    fn cut(&mut self, out: &mut Vec<u8>, events: &mut dyn Events) {
        let refusal = events.refused(self.event.message.id());
        out.extend_from_slice(b"\n\ndata: ");
        out.extend_from_slice(refusal.as_bytes());
        out.extend_from_slice(b"\n\n");
        self.event.broken = true;
        self.state = State::Dropped;
    }

    /// `end` is the blank line, if there was one.
    fn end_event(&mut self, end: &[u8], out: &mut Vec<u8>, events: &mut dyn Events) {
        let mut event = std::mem::take(&mut self.event);
        self.ids |= event.id;
        let state = std::mem::take(&mut self.state);
        if event.name == Name::Message && state != State::Dropped {
            std::mem::take(&mut event.seen).into_iter().for_each(|seen| events.message(seen));
        }
        match state {
            State::Held => event.finish(end, out, events),
            State::Passing if event.data && !event.message.is_complete() => {
                self.event = event;
                self.cut(out, events);
                (self.event, self.state) = (Event::default(), State::Held);
            }
            State::Passing | State::Dropped => out.extend_from_slice(end),
        }
    }
}

impl Event {
    fn is_blank(&self) -> bool {
        self.raw.is_empty() && self.data_lines == 0
    }

    /// Whether it has nothing but a comment, which is one line: each passes at its end.
    fn is_comment(&self) -> bool {
        self.raw.starts_with(b":") && self.data_lines == 0
    }

    /// Passes data to the message filter.
    fn read(
        &mut self,
        text: &[u8],
        out: &mut Vec<u8>,
        events: &mut dyn Events,
    ) -> Result<(), Malformed> {
        let mut reader = Deferring { events, seen: &mut self.seen };
        if std::mem::take(&mut self.line_due) {
            self.message.line(out, &mut reader)?;
        }
        self.message.feed(text, out, &mut reader)
    }

    /// Ends an event that was held completely.
    fn finish(mut self, end: &[u8], out: &mut Vec<u8>, events: &mut dyn Events) {
        let whole = !self.broken && self.message.is_complete();
        self.raw.extend_from_slice(end);
        if !self.data {
            out.extend_from_slice(&self.raw);
        } else if self.name == Name::Endpoint {
            let told = events.endpoint(&data(&self.raw));
            let told = told.unwrap_or_else(|| events.refused(None));
            replace_data(&self.raw, Some(&told), out);
        } else if !whole {
            // Clients read messages only from events of that name. An unreadable event of another name, such as a
            // heartbeat, loses its data, so that it does not reach clients that read all events.
            let message = self.name == Name::Message;
            let refusal = message.then(|| events.refused(self.message.id()));
            replace_data(&self.raw, refusal.as_deref(), out);
        } else if let Some(told) = events.stands_for(data(&self.raw).as_bytes()) {
            replace_data(&self.raw, Some(&told), out);
        } else if self.message.edited() {
            out.extend_from_slice(&self.filtered);
            out.extend_from_slice(end);
        } else {
            out.extend_from_slice(&self.raw);
        }
    }
}

/// The receiver of an event's items; its messages are kept until the event ends.
struct Deferring<'a> {
    events: &'a mut dyn Events,
    seen: &'a mut Vec<Seen>,
}

impl Reader for Deferring<'_> {
    fn item(&mut self, listing: Listing, item: &[u8]) -> Shown {
        self.events.item(listing, item)
    }

    fn unreadable(&mut self, listing: Listing, why: Unreadable) {
        self.events.unreadable(listing, why);
    }

    fn message(&mut self, seen: Seen) {
        match self.seen.len() < MOST_DEFERRED {
            true => self.seen.push(seen),
            false => self.events.message(seen),
        }
    }
}

/// Each line with its end.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = event;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr2(b'\r', b'\n', rest).map_or(rest.len(), |at| {
            let crlf = rest.get(at..).is_some_and(|tail| tail.starts_with(b"\r\n"));
            at.saturating_add(if crlf { 2 } else { 1 })
        });
        let (line, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(line)
    })
}

/// The value of a line of data.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let end = memchr2(b'\r', b'\n', line).unwrap_or(line.len());
    let rest = line.get(..end)?.strip_prefix(b"data")?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None if rest.is_empty() => Some(rest),
        None => None,
    }
}

/// All data of an event, joined by LF.
fn data(event: &[u8]) -> String {
    let values: Vec<&[u8]> = lines(event).filter_map(data_value).collect();
    String::from_utf8_lossy(&values.join(&b'\n')).into_owned()
}

/// The event with `text` instead of its first line of data, and without its other data lines.
fn replace_data(event: &[u8], text: Option<&str>, out: &mut Vec<u8>) {
    let mut text = text;
    for line in lines(event) {
        if data_value(line).is_none() {
            if line == b"\n" && out.ends_with(b"\r") {
                // The lines between are gone: without another LF, the two would be one line end.
                out.push(b'\n');
            }
            out.extend_from_slice(line);
        } else if let Some(text) = text.take() {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(text.as_bytes());
            let content = memchr2(b'\r', b'\n', line);
            out.extend_from_slice(content.and_then(|at| line.get(at..)).unwrap_or(b"\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const STREAM: &[u8] = b": hello\r\n\r\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}\n\n\
        data: keep\r\rid: 2\rdata\r\rretry: 5\n\ndata:{\"id\":7,\"result\":{\"tools\":[1,\r\ndata:2\r\ndata: \
        ]}}\r\n\r\nevent:x\ndata: ping\n\nevent: endpoint\ndata: /a\ndata: /b\n\nevent: endpoint\r\ndata: /a\r\n\r\n\
        data: {\"id\":8,";

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Reader for Told {
        fn item(&mut self, _: Listing, item: &[u8]) -> Shown {
            if item.trim_ascii() == b"1" { Shown::No } else { Shown::Yes }
        }
        fn unreadable(&mut self, _: Listing, why: Unreadable) {
            self.0.push(why.name().into());
        }
        fn message(&mut self, seen: Seen) {
            self.0.push(format!("{:?}", seen.id));
        }
    }

    impl Substitute for Told {
        fn refused(&mut self, id: Option<&Value>) -> String {
            format!("REFUSED {}", id.map_or("?".to_owned(), Value::to_string))
        }
    }

    impl Events for Told {
        fn endpoint(&mut self, data: &str) -> Option<String> {
            (data == "/a").then(|| "/ours".to_owned())
        }
        fn stands_for(&mut self, _: &[u8]) -> Option<String> {
            None
        }
    }

    fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<String>) {
        let (mut filter, mut told, mut out) = (EventFilter::default(), Told::default(), Vec::new());
        for chunk in chunks {
            out.extend(filter.feed(chunk, &mut told));
        }
        out.extend(filter.finish(&mut told));
        (String::from_utf8(out).unwrap(), told.0)
    }

    // Proves: B3, X17
    #[test]
    fn chunk_boundaries_change_nothing() {
        let whole = run([STREAM]);
        let expected = ": hello\r\n\r\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}\n\n\
            data: REFUSED ?\r\rid: 2\rdata\r\rretry: 5\n\ndata:{\"id\":7,\"result\":{\"tools\":[\r\ndata:\r\ndata:  2 \
            ]}}\r\n\r\nevent:x\n\nevent: endpoint\ndata: REFUSED ?\n\nevent: endpoint\r\ndata: /ours\r\n\r\n\
            data: REFUSED 8\n\n";
        assert_eq!(whole.0, expected);
        for size in 1..STREAM.len() {
            assert_eq!(run(STREAM.chunks(size)), whole, "chunks of {size}");
        }
        for at in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(at);
            assert_eq!(run([head, tail]), whole, "cut at {at}");
        }
    }

    // Proves: B3
    #[test]
    fn no_reader_of_lines_finds_more_of_them() {
        let hidden = "data: {\"id\":1,\"result\":{\"tools\":[2]}}";
        for (brk, escape) in [
            ("\u{b}", "\\u000b"),
            ("\u{c}", "\\u000c"),
            ("\u{1c}", "\\u001c"),
            ("\u{85}", "\\u0085"),
            ("\u{2028}", "\\u2028"),
            ("\u{2029}", "\\u2029"),
        ] {
            for before in
                [": hi", "id: 1", "event: message", "event: ", "retry: 5", "foo", "foobar: x", ""]
            {
                let stream =
                    format!("{before}{brk}{brk}{hidden}{brk}{brk}\ndata: {{\"id\":7}}\n\n");
                let expected = format!("{before}  {hidden}  \ndata: {{\"id\":7}}\n\n");
                for size in [1, 2, 3, 5, 1_000] {
                    assert_eq!(
                        run(stream.as_bytes().chunks(size)).0,
                        expected,
                        "{stream:?}, {size}"
                    );
                }
            }
            let text = |brk: &str| format!("data: {{\"id\":7,\"x\":\"a{brk}{brk}b\"}}\n\n");
            for size in [1, 2, 3, 5, 1_000] {
                assert_eq!(run(text(brk).as_bytes().chunks(size)).0, text(escape), "{size}");
            }
        }
    }

    // Clients drop an event without a blank line, and ids count at the end of their event.
    // Proves: A15
    #[test]
    fn an_unfinished_event_gets_its_end_and_an_empty_id_resumes_nothing() {
        for (stream, expected) in [
            ("data: {\"id\":7}", "data: {\"id\":7}\n\n"),
            ("data: {\"id\":7}\n", "data: {\"id\":7}\n\n"),
            ("data: {\"id\":7}\r", "data: {\"id\":7}\r\n\n"),
            ("data: {\"id\":7}\r\n", "data: {\"id\":7}\r\n\n"),
            ("data: {\"id\":", "data: REFUSED ?\n\n"),
            (": pi", ": pi\n\n"),
            ("data: {}\r\n\r", "data: {}\r\n\r"),
            ("data: {}\n\n", "data: {}\n\n"),
            ("", ""),
        ] {
            for size in 1..=stream.len().max(1) {
                assert_eq!(run(stream.as_bytes().chunks(size)).0, expected, "{stream:?}, {size}");
            }
        }
        for (stream, resumable) in [
            ("id: 7\n\n", true),
            ("id:7\ndata: {}\n\n", true),
            ("id:\ndata: {}\n\n", false),
            ("id: \ndata: {}\n\n", false),
            ("id\ndata: {}\n\n", false),
            ("id: 7\ndata: {}\n", false),
            ("data: {\"id: 7\": 1}\n\n", false),
        ] {
            for size in 1..=stream.len() {
                let (mut filter, mut told) = (EventFilter::default(), Told::default());
                for chunk in stream.as_bytes().chunks(size) {
                    filter.feed(chunk, &mut told);
                }
                assert_eq!(filter.is_resumable(), resumable, "{stream:?}, {size}");
            }
        }
    }

    // The SDKs read events of the name `message` alone, and a name may come behind the data.
    // Proves: B3
    #[test]
    fn a_message_counts_only_in_an_event_of_that_name() {
        let seen = |stream: &str| run([stream.as_bytes()]).1;
        let message = ["Some(Number(7))"];
        assert_eq!(seen("data: {\"id\":7}\n\n"), message);
        assert_eq!(seen("event: message\ndata: {\"id\":7}\n\n"), message);
        assert_eq!(seen("data: {\"id\":7}\nevent: message\n\n"), message);
        assert_eq!(seen("event: x\ndata: {\"id\":7}\n\n"), [""; 0]);
        assert_eq!(seen("data: {\"id\":7}\nevent: x\n\n"), [""; 0]);
        let batch: Vec<_> = (0..100).map(|id| format!("{{\"id\":{id}}}")).collect();
        assert_eq!(seen(&format!("data: [{}]\n\n", batch.join(","))).len(), 100);
    }

    #[test]
    fn a_comment_passes_at_the_end_of_its_line() {
        let (mut filter, mut told) = (EventFilter::default(), Told::default());
        let mut feed = |chunk: &[u8]| String::from_utf8(filter.feed(chunk, &mut told)).unwrap();
        assert_eq!(feed(b": pi"), "");
        assert_eq!(feed(b"ng\n: again\r"), ": ping\n: again\r");
        assert_eq!(feed(b"\n:\n"), "\n:\n");
        assert_eq!(feed(b"id: 1\n: inside\ndata: {\"id\":"), "");
        assert_eq!(feed(b"7}\n: late\n"), "");
        assert_eq!(feed(b"\n"), "id: 1\n: inside\ndata: {\"id\":7}\n: late\n\n");
    }

    #[test]
    fn an_event_still_ends_when_the_line_before_its_end_is_dropped() {
        let (out, _) = run([&b"data: swap\rdata: x\n\ndata: {}\n\n"[..]]);
        assert_eq!(out, "data: REFUSED ?\r\n\ndata: {}\n\n");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_field_name_only_where_a_stream_starts() {
        let (out, _) = run([&b"\xef\xbb\xbfdata: swap\n\n\xef\xbb\xbfdata: a\ndata: {}\n\n"[..]]);
        assert_eq!(out, "\u{feff}data: REFUSED ?\n\n\u{feff}data: a\ndata: {}\n\n");
    }

    // Finding 5.5.
    #[test]
    fn an_event_of_any_size_passes_and_only_a_broken_one_is_cut() {
        let text = "x".repeat(4_000_000);
        let event = |id: u32, tail: &str| {
            format!("id: {id}\ndata: {{\"id\":{id},\"result\":{{\"text\":\"{text}\"{tail}\n\n")
        };
        let stream = [event(1, "}}"), event(2, "}]"), event(3, "}}")].concat();
        let (mut filter, mut told, mut out) = (EventFilter::default(), Told::default(), Vec::new());
        for chunk in stream.as_bytes().chunks(16_384) {
            out.extend(filter.feed(chunk, &mut told));
            assert!(filter.event.raw.len().max(filter.event.filtered.len()) < 100_000);
        }
        let out = String::from_utf8(out).unwrap();
        assert_eq!(told.0, ["Some(Number(1))", "Some(Number(3))"]);
        assert!(out.starts_with(&event(1, "}}")) && out.ends_with(&event(3, "}}")));
        let cut = "}\n\ndata: REFUSED 2\n\n\nid: 3\n";
        assert!(out.contains(cut), "{:?}", out.get(out.len() - 4_000_100..out.len() - 4_000_000));
    }

    // Finding 5.7.
    #[test]
    fn an_address_is_not_told_once_data_went_on() {
        let long = format!("data: {}\n", " ".repeat(70_000));
        let stream = format!("{long}event: endpoint\ndata: /a\n\ndata: {{}}\n\n");
        let (out, _) = run(stream.as_bytes().chunks(1_000));
        assert!(
            !out.contains("endpoint") && out.ends_with("data: REFUSED ?\n\n\ndata: {}\n\n"),
            "{out}"
        );
    }
}
