//! The committed seeds, once each: what a fuzzer starts from holds, and so does what one ever found.

use std::path::Path;

use portcullis_fuzz::{
    condition, exchange_ops, headers, json_readers, jsonrpc_body, replay, schema, sse_chunks, token,
};

fn every_seed_holds(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    assert!(replay::directory(&corpus, check).expect("the corpus can be read") > 0);
}

// Proves: B2
#[test]
fn bodies() {
    every_seed_holds("jsonrpc_body", jsonrpc_body::check);
}

// Proves: B2
#[test]
fn bodies_to_several_readers() {
    every_seed_holds("json_readers", json_readers::check);
}

// Proves: B3
#[test]
fn event_streams() {
    every_seed_holds("sse_chunks", sse_chunks::check);
}

/// Line ends that no text file keeps.
// Proves: B3
#[test]
fn event_streams_with_all_line_ends() {
    for stream in ["3data: swap\r\n\r\ndata: a\r\rdata: b\n\n", "0\u{feff}data: swap\r\r\n\n"] {
        sse_chunks::check(stream.as_bytes());
    }
}

// Proves: B2, B4
#[test]
fn request_headers() {
    every_seed_holds("headers", headers::check);
}

// Proves: A21, C6
#[test]
fn exchanges() {
    every_seed_holds("exchange_ops", exchange_ops::check);
}

// Proves: B18
#[test]
fn access_tokens() {
    every_seed_holds("token", token::check);
}

// Proves: C9
#[test]
fn conditions() {
    every_seed_holds("condition", condition::check);
}

// Proves: X6
#[test]
fn schemas() {
    every_seed_holds("schema", schema::check);
}
