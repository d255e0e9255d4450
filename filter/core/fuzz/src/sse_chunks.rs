//! Event streams: chunks change nothing, and a client reads each event as rewritten and no other.
//!
//! Owns a plain reading of WHATWG HTML §9.2.6, the whole stream at once.

use portcullis_core::mcp::sse::{Rewrite, Rewriter};

/// The first byte says how the stream, which is the rest, is cut.
pub fn check(input: &[u8]) {
    let Some((seed, stream)) = input.split_first() else {
        return;
    };
    let (mut seen, mut seen_whole) = (Vec::new(), Vec::new());
    let chunked = rewritten(stream, &cuts(*seed, stream.len()), &mut |name, data| {
        seen.push((name.to_owned(), data.to_owned()));
        swap(data)
    });
    let whole = rewritten(stream, &[], &mut |name, data| {
        seen_whole.push((name.to_owned(), data.to_owned()));
        swap(data)
    });
    assert_eq!(chunked, whole);
    assert_eq!(seen, seen_whole);
    assert_eq!(rewritten(stream, &cuts(*seed, stream.len()), &mut |_, _| None), stream);
    let expected: Vec<_> =
        dispatched(stream).into_iter().map(|data| swap(&data).unwrap_or(data)).collect();
    assert_eq!(dispatched(&whole), expected);
}

fn swap(data: &str) -> Option<String> {
    data.contains("swap").then(|| "SWAPPED".to_owned())
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

fn rewritten(stream: &[u8], cuts: &[usize], rewrite: &mut Rewrite<'_>) -> Vec<u8> {
    let (mut rewriter, mut out, mut from) = (Rewriter::default(), Vec::new(), 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        let passed = rewriter.feed(&stream[from..end], rewrite);
        out.extend(passed.expect("inputs are shorter than the longest event"));
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
