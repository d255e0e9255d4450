//! Server-sent events: a client's view after the filter, compared with an independent reader.
//!
//! Owns a simple reader after WHATWG HTML §9.2.6, for the whole stream at once.

use portcullis_core::mcp::Listing;
use portcullis_core::mcp::body::Substitute;
use portcullis_core::mcp::filter::{Reader, Seen, Shown, Unreadable};
use portcullis_core::mcp::sse::{EventFilter, Events};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::cases;

/// Pieces of event streams, in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "(\r\n|\r|\n){1,3}".prop_map(String::into_bytes),
        3 => "data: ?[\\[\\]{} a]{0,4}".prop_map(String::into_bytes),
        3 => "data: ?(\\{\\}|\\[\\{\"result\":|\\{\"tools\":\\[1,|0\\]\\}|\\}\\]|\\{\"id\":1\\})".prop_map(String::into_bytes),
        1 => "data|:data: \\{|datax: 1|id: 7|retry|event|event: message".prop_map(String::into_bytes),
        1 => Just(b"\xef\xbb\xbf".to_vec()),
        1 => vec(any::<u8>(), 0..3),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

const REFUSED: &str = "{\"error\":1}";

/// Hides ones.
#[derive(Default)]
struct Hides;

impl Reader for Hides {
    fn item(&mut self, _: Listing, item: &[u8]) -> Shown {
        if item.trim_ascii() == b"1" { Shown::No } else { Shown::Yes }
    }
    fn unreadable(&mut self, _: Listing, _: Unreadable) {}
    fn message(&mut self, _: Seen) {}
}

impl Substitute for Hides {
    fn refused(&mut self, _: Option<&Value>) -> String {
        REFUSED.to_owned()
    }
}

impl Events for Hides {
    fn endpoint(&mut self, _: &str) -> Option<String> {
        None
    }
    fn stands_for(&mut self, _: &[u8]) -> Option<String> {
        None
    }
}

/// The stream after the filter, fed in chunks that end at `cuts`.
fn filtered(stream: &[u8], cuts: &[Index]) -> Vec<u8> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let (mut filter, mut out, mut from) = (EventFilter::default(), Vec::new(), 0);
    for end in ends {
        out.extend(filter.feed(&stream[from..end], &mut Hides));
        from = end;
    }
    out.extend(filter.finish(&mut Hides));
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

/// The expected message; a text that is no message becomes an error.
fn expected(data: &str) -> Value {
    let whole: Option<Value> = serde_json::from_str(data.trim_start_matches('\u{feff}')).ok();
    let message = whole.filter(|value| value.is_object() || value.is_array());
    let mut message = message.unwrap_or_else(|| serde_json::from_str(REFUSED).unwrap());
    hide(&mut message);
    message
}

fn hide(message: &mut Value) {
    match message {
        Value::Array(batch) => batch.iter_mut().for_each(hide),
        message => {
            let tools = message.pointer_mut("/result/tools").and_then(Value::as_array_mut);
            tools.into_iter().for_each(|tools| tools.retain(|tool| *tool != 1));
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: B3, X17
    #[test]
    fn chunks_change_nothing(stream in stream(), cuts in vec(any::<Index>(), 0..8)) {
        prop_assert_eq!(filtered(&stream, &cuts), filtered(&stream, &[]));
    }

    // Proves: B3, X17
    #[test]
    fn a_client_reads_each_event_as_filtered_and_no_other(stream in stream()) {
        // An event that the stream leaves unfinished gets its end, and is one.
        let sent = dispatched(&[&stream[..], b"\n\n\n"].concat());
        let read = dispatched(&filtered(&stream, &[]));
        prop_assert_eq!(sent.len(), read.len());
        for (sent, read) in sent.iter().zip(read) {
            // An event without data is no message.
            if sent.chars().all(|letter| letter == '\n') {
                prop_assert_eq!(sent, &read);
            } else if let Ok(read) = serde_json::from_str::<Value>(read.trim_start_matches('\u{feff}')) {
                prop_assert_eq!(read, expected(sent));
            } else {
                // Words and escapes are not checked: a client refuses them, with or without the filter.
                prop_assert_eq!(&read, sent);
            }
        }
    }
}
