//! Server-sent events: what a client reads after the rewriting, compared with a reader of our own.
//!
//! Owns a plain reading of WHATWG HTML §9.2.6, whole stream at once.

use portcullis_core::mcp::sse::{Rewrite, Rewriter};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::cases;

/// Pieces of event streams, in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "(\r\n|\r|\n){1,3}".prop_map(String::into_bytes),
        3 => "data: ?[a-c ]{0,4}".prop_map(String::into_bytes),
        1 => "data|data:swap|data: swap|:data: swap|datax: 1|id: 7|retry".prop_map(String::into_bytes),
        1 => Just(b"\xef\xbb\xbf".to_vec()),
        1 => vec(any::<u8>(), 0..3),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn swap(_: &str, data: &str) -> Option<String> {
    data.contains("swap").then(|| "SWAPPED".to_owned())
}

/// The stream after rewriting, fed in chunks that end at `cuts`.
fn rewritten(stream: &[u8], cuts: &[Index], rewrite: &mut Rewrite<'_>) -> Vec<u8> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let (mut rewriter, mut out, mut from) = (Rewriter::default(), Vec::new(), 0);
    for end in ends {
        out.extend(rewriter.feed(&stream[from..end], rewrite).unwrap());
        from = end;
    }
    out.extend(rewriter.finish(rewrite));
    out
}

/// The data of every event that a client dispatches.
fn dispatched(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    let (mut events, mut data) = (Vec::new(), String::new());
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        match field {
            "data" => data = data + value.strip_prefix(' ').unwrap_or(value) + "\n",
            "" if line.is_empty() => {
                events.extend(data.strip_suffix('\n').map(str::to_owned));
                data.clear();
            }
            _ => {}
        }
    }
    events
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: B3, X17
    #[test]
    fn chunks_change_nothing(stream in stream(), cuts in vec(any::<Index>(), 0..8)) {
        let (mut seen, mut seen_whole) = (Vec::new(), Vec::new());
        let mut note = |name: &str, data: &str| { seen.push(data.to_owned()); swap(name, data) };
        let chunked = rewritten(&stream, &cuts, &mut note);
        let mut note = |name: &str, data: &str| { seen_whole.push(data.to_owned()); swap(name, data) };
        let whole = rewritten(&stream, &[], &mut note);
        prop_assert_eq!(chunked, whole);
        prop_assert_eq!(seen, seen_whole);
    }

    #[test]
    fn what_is_not_rewritten_passes_byte_for_byte(
        stream in stream(),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        prop_assert_eq!(rewritten(&stream, &cuts, &mut |_, _| None), stream);
    }

    // Proves: B3, X17
    #[test]
    fn a_client_reads_each_event_as_rewritten_and_no_other(stream in stream()) {
        let expected: Vec<_> = dispatched(&stream)
            .into_iter()
            .map(|data| swap("", &data).unwrap_or(data))
            .collect();
        prop_assert_eq!(dispatched(&rewritten(&stream, &[], &mut swap)), expected);
    }
}
