//! The exports of proxy-wasm 0.2.1 that the host calls, and the context of each call.
//!
//! Owns the table of contexts and the logger. No borrow of the table is held while a context runs.
//!
//! The `proxy-wasm` crate is not used. Its dispatcher keeps the table borrowed during a callback and
//! panics when the host calls back from inside a host call. Envoy defers such calls until the module
//! has returned, except for two: `proxy_on_grpc_receive_initial_metadata` and
//! `proxy_on_grpc_receive_trailing_metadata`, which come from inside `proxy_grpc_send` when the peer
//! has closed the stream. The crate exports both; this module exports neither, so Envoy does not call
//! them. The crate also drops replies to HTTP calls of streams that have ended.
#![allow(unsafe_code, reason = "the host finds exports by their unmangled names")]

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use log::error;
use portcullis_core::hashing::Map;

use crate::host;
use crate::http_context::{Action, HttpContext};
use crate::root::Root;

type Stream = Rc<RefCell<Box<dyn HttpContext>>>;

#[derive(Default)]
struct Contexts {
    roots: Map<u32, Rc<Root>>,
    streams: Map<u32, Stream>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Gives `act` the table. `act` calls neither the host nor a context.
fn contexts<T>(act: impl FnOnce(&mut Contexts) -> T) -> T {
    CONTEXTS.with(|contexts| act(&mut contexts.borrow_mut()))
}

fn root(id: u32) -> Option<Rc<Root>> {
    contexts(|contexts| contexts.roots.get(&id).cloned())
}

/// Runs a callback of the stream `id`. A stream that is unknown, or is in a callback already, is held.
fn on_stream(id: u32, callback: impl FnOnce(&mut dyn HttpContext) -> Action) -> Action {
    let stream = contexts(|contexts| contexts.streams.get(&id).cloned());
    let Some(stream) = stream else { return Action::Pause };
    match stream.try_borrow_mut() {
        Ok(mut stream) => callback(stream.as_mut()),
        Err(_) => {
            error!("a callback inside a callback of the same stream: refused");
            Action::Pause
        }
    }
}

unsafe extern "C" {
    /// Constructors of the C library.
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this once, before anything else.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|panic| host::log(host::Level::Critical, &panic.to_string())));
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// The host detects the module's ABI by this name.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory that the host fills and passes on; `host` takes ownership of it as a vector of that capacity.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    ManuallyDrop::new(vec![0_u8; size]).as_mut_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, root_id: u32) {
    if root_id == 0 {
        contexts(|contexts| contexts.roots.insert(id, Rc::new(Root::new(id))));
    } else if let Some(root) = root(root_id) {
        let stream = Rc::new(RefCell::new(root.create_http_context(id)));
        contexts(|contexts| contexts.streams.insert(id, stream));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: u32, size: usize) -> bool {
    root(id).is_some_and(|root| root.on_configure(size))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(id: u32) {
    if let Some(root) = root(id) {
        root.on_tick();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(id: u32, queue: u32) {
    if let Some(root) = root(id) {
        root.on_queue_ready(queue);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, count: usize, last: bool) -> Action {
    on_stream(id, |stream| stream.on_http_request_headers(count, last))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(id: u32, size: usize, last: bool) -> Action {
    on_stream(id, |stream| stream.on_http_request_body(size, last))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(id: u32, count: usize) -> Action {
    on_stream(id, |stream| stream.on_http_request_trailers(count))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, count: usize, last: bool) -> Action {
    on_stream(id, |stream| stream.on_http_response_headers(count, last))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(id: u32, size: usize, last: bool) -> Action {
    on_stream(id, |stream| stream.on_http_response_body(size, last))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(id: u32, count: usize) -> Action {
    on_stream(id, |stream| stream.on_http_response_trailers(count))
}

/// Calls belong to the root context, regardless of the stream that made them.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    id: u32,
    token: u32,
    headers: usize,
    size: usize,
    _trailers: usize,
) {
    if let Some(root) = root(id) {
        root.on_http_call_response(token, headers, size);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(id: u32, token: u32, size: usize) {
    if let Some(root) = root(id) {
        root.on_grpc_stream_message(token, size);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(id: u32, token: u32, _status: u32) {
    if let Some(root) = root(id) {
        root.on_grpc_stream_close(token);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(id: u32) {
    let _ = on_stream(id, |stream| {
        stream.on_log();
        Action::Continue
    });
}

/// `proxy_on_done` is not exported: without it the host skips that call, which saves one per request.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    // Dropped when the table is free again: the gateway forgets the stream's state.
    let stream = contexts(|contexts| contexts.streams.remove(&id));
    if stream.is_none() {
        let root = contexts(|contexts| contexts.roots.remove(&id));
        if let Some(root) = root {
            root.on_delete();
        }
    }
}

/// Sends log records to the host's log.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Trace => host::Level::Trace,
            log::Level::Debug => host::Level::Debug,
            log::Level::Info => host::Level::Info,
            log::Level::Warn => host::Level::Warn,
            log::Level::Error => host::Level::Error,
        };
        host::log(level, &record.args().to_string());
    }

    fn flush(&self) {}
}
