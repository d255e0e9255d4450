//! The module's allocator, natively: the filter itself links the host's functions, which exist only inside a proxy.
//!
//! Owns nothing: the tests stand beside the code.

#[path = "../../src/alloc.rs"]
mod alloc;
