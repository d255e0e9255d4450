//! Event streams: chunks change nothing, and a client reads as many events as were sent.
//!
//! Owns a plain reading of WHATWG HTML §9.2.6, the whole stream at once.

use portcullis_core::mcp::Listing;
use portcullis_core::mcp::body::Substitute;
use portcullis_core::mcp::filter::{Reader, Seen, Shown, Unreadable};
use portcullis_core::mcp::sse::{EventFilter, Events};

/// The first byte says how the stream, which is the rest, is cut.
pub fn check(input: &[u8]) {
    let Some((seed, stream)) = input.split_first() else {
        return;
    };
    let (mut heard, mut heard_whole) = (Heard::default(), Heard::default());
    let chunked = filtered(stream, &cuts(*seed, stream.len()), &mut heard);
    let whole = filtered(stream, &[], &mut heard_whole);
    assert_eq!(chunked, whole);
    assert_eq!(heard.0, heard_whole.0);
    // An event that the stream leaves unfinished gets its end.
    let ended = [stream, b"\n\n\n"].concat();
    assert_eq!(dispatched(&whole).len(), dispatched(&ended).len());
}

/// Hides every other item, and remembers what it saw.
#[derive(Default)]
struct Heard(Vec<String>);

impl Reader for Heard {
    fn item(&mut self, _: Listing, item: &[u8]) -> Shown {
        self.0.push(String::from_utf8_lossy(item).into_owned());
        if item.len().is_multiple_of(2) { Shown::No } else { Shown::Yes }
    }
    fn unreadable(&mut self, _: Listing, why: Unreadable) {
        self.0.push(why.name().to_owned());
    }
    fn message(&mut self, seen: Seen) {
        self.0.push(format!("{seen:?}"));
    }
}

impl Substitute for Heard {
    fn refused(&mut self, _: Option<&serde_json::Value>) -> String {
        "{}".to_owned()
    }
}

impl Events for Heard {
    fn endpoint(&mut self, data: &str) -> Option<String> {
        self.0.push(data.to_owned());
        None
    }
    fn stands_for(&mut self, _: &[u8]) -> Option<String> {
        None
    }
}

/// Where chunks end, the same for the same seed; `0` cuts after every byte.
fn cuts(seed: u8, length: usize) -> Vec<usize> {
    let (mut state, mut ends, mut at) = (u32::from(seed), Vec::new(), 0);
    loop {
        // Numerical Recipes' generator; its high bits are the good ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        at += if seed == 0 { 1 } else { usize::from((state >> 24) as u8 % seed) };
        if at >= length || ends.len() > length {
            return ends;
        }
        ends.push(at);
    }
}

fn filtered(stream: &[u8], cuts: &[usize], heard: &mut Heard) -> Vec<u8> {
    let (mut filter, mut out, mut from) = (EventFilter::default(), Vec::new(), 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        out.extend(filter.feed(&stream[from..end], heard));
        from = end;
    }
    out.extend(filter.finish(heard));
    out
}

/// The data of every event named `message` that a client dispatches.
fn dispatched(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    let (mut events, mut data, mut name) = (Vec::new(), String::new(), String::new());
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data = data + value + "\n",
            "event" => value.clone_into(&mut name),
            "" if line.is_empty() => {
                let named = ["", "message"].contains(&name.as_str());
                events.extend(data.strip_suffix('\n').filter(|_| named).map(str::to_owned));
                data.clear();
                name.clear();
            }
            _ => {}
        }
    }
    events
}
