//! Server-sent events, rewritten one at a time (WHATWG HTML §9.2).
//!
//! Owns event boundaries, whatever the chunks: lines end in CRLF, LF or CR. An event whose data is
//! not replaced passes byte for byte. Holds at most one event.

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// One event beyond this many bytes is not held.
pub const MAX_EVENT_BYTES: usize = 1_048_576;

/// Sees the name and the data of an event; may replace the data by one line.
pub type Rewrite<'a> = dyn FnMut(&str, &str) -> Option<String> + 'a;

/// An event stream in passing.
#[derive(Debug, Default)]
pub struct Rewriter {
    /// The bytes of the event that has not ended yet.
    event: Vec<u8>,
    /// Where in `event` the current line starts.
    line: usize,
    /// The last byte seen was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first event is behind us, and with it the one place where a byte-order mark means nothing.
    started: bool,
}

/// An event grew beyond [`MAX_EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge;

impl Rewriter {
    /// Takes the next bytes; gives what may go on. `rewrite` sees the data of each whole event and
    /// may replace it by one line.
    ///
    /// # Errors
    /// [`EventTooLarge`]; nothing of that event has gone on.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Vec<u8>, EventTooLarge> {
        let mut out = Vec::with_capacity(chunk.len());
        for byte in chunk {
            if self.after_cr && *byte == b'\n' {
                self.after_cr = false;
                // The second half of a line end that was already acted upon.
                if self.event.is_empty() {
                    out.push(b'\n');
                } else {
                    self.event.push(b'\n');
                    self.line = self.event.len();
                }
                continue;
            }
            self.after_cr = *byte == b'\r';
            self.event.push(*byte);
            if self.event.len() > MAX_EVENT_BYTES {
                return Err(EventTooLarge);
            }
            if matches!(*byte, b'\r' | b'\n') {
                let blank = self.event.len() == self.line.saturating_add(1);
                self.line = self.event.len();
                if blank {
                    self.end_event(&mut out, rewrite);
                }
            }
        }
        Ok(out)
    }

    /// The stream is over: what is left of an event that never ended. Clients discard it, but not
    /// all of them do, so it is rewritten like any other.
    pub fn finish(&mut self, rewrite: &mut Rewrite<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.end_event(&mut out, rewrite);
        out
    }

    fn end_event(&mut self, out: &mut Vec<u8>, rewrite: &mut Rewrite<'_>) {
        let event = std::mem::take(&mut self.event);
        self.line = 0;
        let first = !std::mem::replace(&mut self.started, true);
        let fields = match event.strip_prefix(BYTE_ORDER_MARK).filter(|_| first) {
            Some(fields) => {
                out.extend_from_slice(BYTE_ORDER_MARK);
                fields
            }
            None => event.as_slice(),
        };
        match data(fields).and_then(|data| rewrite(&name(fields), &data)) {
            Some(text) => replace_data(fields, &text, out),
            None => out.extend_from_slice(fields),
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
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).map_or(rest.len(), |at| {
            let crlf = rest.get(at..).is_some_and(|tail| tail.starts_with(b"\r\n"));
            at.saturating_add(if crlf { 2 } else { 1 })
        });
        let (line, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(line)
    })
}

/// The value of a line of the field `field`.
fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let end = line.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(line.len());
    let rest = line.get(..end)?.strip_prefix(field)?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None if rest.is_empty() => Some(rest),
        None => None,
    }
}

fn data_value(line: &[u8]) -> Option<&[u8]> {
    value(line, b"data")
}

/// The name of an event: its last `event` line, `message` without one.
fn name(event: &[u8]) -> String {
    let named = lines(event).filter_map(|line| value(line, b"event")).last();
    named.map_or("message".to_owned(), |name| String::from_utf8_lossy(name).into_owned())
}

/// All data of an event, joined by LF; `None` when it has none.
fn data(event: &[u8]) -> Option<String> {
    let values: Vec<&[u8]> = lines(event).filter_map(data_value).collect();
    if values.is_empty() {
        return None;
    }
    Some(String::from_utf8_lossy(&values.join(&b'\n')).into_owned())
}

/// The event with `text` in the place of its first data line, and no other data line.
fn replace_data(event: &[u8], text: &str, out: &mut Vec<u8>) {
    let mut text = Some(text);
    for line in lines(event) {
        if data_value(line).is_none() {
            if line == b"\n" && out.ends_with(b"\r") {
                // What stood between is gone: without another LF, the two would be one line end.
                out.push(b'\n');
            }
            out.extend_from_slice(line);
        } else if let Some(text) = text.take() {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(text.as_bytes());
            let content = line.iter().position(|b| matches!(b, b'\r' | b'\n'));
            out.extend_from_slice(content.and_then(|at| line.get(at..)).unwrap_or(b"\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b": hello\r\n\r\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}\n\n\
        data: keep\r\rid: 2\rdata\r\rretry: 5\n\ndata:swap\r\n\r\nevent:x\ndata: swap";

    fn run(chunks: &[&[u8]]) -> (String, Vec<String>) {
        let (mut rewriter, mut seen, mut out) = (Rewriter::default(), Vec::new(), Vec::new());
        let mut rewrite = |name: &str, data: &str| {
            seen.push(format!("{name}={data}"));
            data.contains("swap").then(|| "SWAPPED".to_owned())
        };
        for chunk in chunks {
            out.extend(rewriter.feed(chunk, &mut rewrite).unwrap());
        }
        out.extend(rewriter.finish(&mut rewrite));
        (String::from_utf8(out).unwrap(), seen)
    }

    // Proves: B3, X17
    #[test]
    fn chunk_boundaries_change_nothing() {
        let whole = run(&[STREAM]);
        assert_eq!(
            whole.1,
            ["message={\"a\":\n1}", "message=keep", "message=", "message=swap", "x=swap"]
        );
        assert!(
            whole.0.ends_with("data: SWAPPED\r\n\r\nevent:x\ndata: SWAPPED\n"),
            "{:?}",
            whole.0
        );
        assert!(
            whole.0.starts_with(": hello\r\n\r\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}")
        );
        for size in 1..STREAM.len() {
            assert_eq!(run(&STREAM.chunks(size).collect::<Vec<_>>()), whole, "chunks of {size}");
        }
        for at in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(at);
            assert_eq!(run(&[head, tail]), whole, "cut at {at}");
        }
    }

    #[test]
    fn an_event_still_ends_when_the_line_before_its_end_is_dropped() {
        let (out, _) = run(&[b"data: swap\rdata: x\n\ndata: y\n\n"]);
        assert_eq!(out, "data: SWAPPED\r\n\ndata: y\n\n");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_field_name_only_where_a_stream_starts() {
        let (out, seen) = run(&[b"\xef\xbb\xbfdata: swap\n\n\xef\xbb\xbfdata: a\ndata: b\n\n"]);
        assert_eq!(seen, ["message=swap", "message=b"]);
        assert_eq!(out, "\u{feff}data: SWAPPED\n\n\u{feff}data: a\ndata: b\n\n");
    }

    #[test]
    fn an_endless_event_is_not_held() {
        let mut rewriter = Rewriter::default();
        let chunk = vec![b'x'; MAX_EVENT_BYTES];
        assert!(rewriter.feed(&chunk, &mut |_, _| None).is_ok());
        assert_eq!(rewriter.feed(b"x", &mut |_, _| None), Err(EventTooLarge));
    }
}
