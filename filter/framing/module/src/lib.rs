//! The upstream filter of the Redis stream, as a Wasm module of its own.
//!
//! Owns the few exports and imports of proxy-wasm 0.2.1 that it uses, and one [`Framing`] for each connection. The host
//! compiles a module for every `vm_id`: this one has a few kilobytes, the gateway's has megabytes.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![allow(unsafe_code, reason = "exports and imports of the host")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::ptr;

use portcullis_redis_framing::{Framing, prefix};

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
}

unsafe extern "C" {
    /// Constructors of the C library.
    fn __wasm_call_ctors();
}

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const OK: u32 = 0;
/// The host continues with the buffer that it passed.
const CONTINUE: u32 = 0;

thread_local! {
    /// The connections, by context id.
    static CONNECTIONS: RefCell<BTreeMap<u32, Framing>> = const { RefCell::new(BTreeMap::new()) };
}

/// Bytes of the request's body.
fn request_body(size: usize) -> Vec<u8> {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: both pointers are valid for writing, for as long as the call takes.
    let status =
        unsafe { proxy_get_buffer_bytes(REQUEST_BODY, 0, size, &raw mut data, &raw mut length) };
    if status != OK || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host had `length` bytes from `proxy_on_memory_allocate`, which is a vector of that capacity.
    unsafe { Vec::from_raw_parts(data, length, length) }
}

/// Puts `bytes` in place of the first `size` bytes of a buffer.
fn replace(buffer: u32, size: usize, bytes: &[u8]) {
    // If the replacement fails, Redis or the gateway cannot parse the message and ends the stream: no call is admitted
    // by it.
    // SAFETY: the slice outlives the call.
    let _ = unsafe { proxy_set_buffer_bytes(buffer, 0, size, bytes.as_ptr(), bytes.len()) };
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this once, before anything else.
    unsafe { __wasm_call_ctors() };
}

/// The host looks for this name to find the module's ABI version.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory that the host fills and hands over.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    ManuallyDrop::new(vec![0_u8; size]).as_mut_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_id: u32, _root: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(id: u32, size: usize, _last: bool) -> u32 {
    if size > 0 {
        let bytes = request_body(size);
        CONNECTIONS.with_borrow_mut(|connections| {
            let raw = connections.entry(id).or_default().unframe(&bytes);
            replace(REQUEST_BODY, size, &raw);
        });
    }
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(_id: u32, size: usize, _last: bool) -> u32 {
    if size > 0 {
        replace(RESPONSE_BODY, 0, &prefix(size));
    }
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    CONNECTIONS.with_borrow_mut(|connections| connections.remove(&id));
}
