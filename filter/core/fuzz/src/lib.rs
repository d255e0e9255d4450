//! What the fuzz targets check, apart from the engine that makes up inputs.
//!
//! Owns one `check` per target, which panics when an invariant does not hold. Libraries and tests link no fuzzer: the
//! seeds are replayed by `cargo test`, and a found input by `cargo run --bin <target> <input>`.

pub mod condition;
pub mod exchange_ops;
#[path = "../../tests/properties/fixtures.rs"]
mod fixtures;
pub mod headers;
pub mod json_readers;
pub mod jsonrpc_body;
#[expect(dead_code, reason = "the tests of tokens make other ones, too")]
#[path = "../../tests/tokens/mint.rs"]
mod mint;
pub mod replay;
pub mod schema;
pub mod sse_chunks;
pub mod token;
