//! The only file that calls the host.
//!
//! Owns the imports of proxy-wasm 0.2.1. Maps and buffers are read as bytes, and every failure is a
//! value: a panic ends the VM and with it every request of the worker.
#![allow(unsafe_code, reason = "calls into the host; each takes slices that outlive the call")]

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use portcullis_core::driver::event::Headers;
use portcullis_core::http::local_reply::LocalReply;
use portcullis_core::metric::Kind;
use portcullis_core::secret::Wiping;
use portcullis_core::time::{UnixTime, micros};
use portcullis_core::token_exchange::TokenRequest;

/// A buffer of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferType {
    HttpRequestBody = 0,
    HttpResponseBody = 1,
    HttpCallResponseBody = 4,
    GrpcReceiveBuffer = 5,
    PluginConfiguration = 7,
}

/// A header map of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapType {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    CallResponseHeaders = 6,
}

/// The host refused; nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostError;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_stream(
        cluster: *const u8,
        cluster_size: usize,
        service: *const u8,
        service_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_send(token: u32, message: *const u8, size: usize, last: u32) -> u32;
    fn proxy_grpc_cancel(token: u32) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, data: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
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
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
}

const OK: u32 = 0;
const REQUEST_STREAM: u32 = 0;
const RESPONSE_STREAM: u32 = 1;

/// The severity of a line of the host's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// Writes a line to the host's log.
pub(crate) fn log(level: Level, line: &str) {
    // SAFETY: the pointer comes from a live slice. A line that cannot be written has no other place.
    let _ = unsafe { proxy_log(level as u32, line.as_ptr(), line.len()) };
}

/// How old what is known of the wall clock may be, in microseconds: each reading costs a call of the host.
const WALL_READ_EVERY: u64 = 1_000;

/// The clocks of this VM.
#[derive(Clone, Copy)]
struct Clock {
    started: Instant,
    /// What the wall clock showed then.
    epoch: u64,
    /// What it showed when it was last read, and at which moment that was.
    wall: u64,
    read: u64,
}

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// Now, by both clocks.
pub(crate) fn now() -> UnixTime {
    let mut clock = CLOCK.get().unwrap_or_else(|| {
        let epoch = wall_clock();
        Clock { started: Instant::now(), epoch, wall: epoch, read: epoch }
    });
    let elapsed = micros(clock.started.elapsed());
    let steady = clock.epoch.saturating_add(elapsed);
    if steady.saturating_sub(clock.read) >= WALL_READ_EVERY {
        (clock.wall, clock.read) = (wall_clock(), steady);
    }
    CLOCK.set(Some(clock));
    let since = steady.saturating_sub(clock.read);
    UnixTime::from_micros(steady).with_wall_clock(clock.wall.saturating_add(since))
}

/// The wall clock, in microseconds since the epoch.
fn wall_clock() -> u64 {
    let mut nanos: u64 = 0;
    // SAFETY: the host writes one integer and keeps no pointer.
    let _ = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) };
    nanos / 1_000
}

/// A header map as the host writes it; empty when there is no such map now.
fn serialized(map: MapType) -> Vec<u8> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both pointers are valid for writes; on success the host has allocated `size` bytes.
    let bytes = unsafe {
        let status = proxy_get_header_map_pairs(map as u32, &raw mut data, &raw mut size);
        taken(status, data, size)
    };
    bytes.unwrap_or_default()
}

/// All pairs of a header map, in order; empty when there is no such map now.
pub(crate) fn headers(map: MapType) -> Headers {
    let bytes = serialized(map);
    match located(&bytes) {
        Some(lines) => Headers::located(bytes, lines),
        None => Headers::default(),
    }
}

/// The values of the headers `names`, of each the first; empty where there is none.
pub(crate) fn values<const N: usize>(map: MapType, names: [&str; N]) -> [Vec<u8>; N] {
    let headers = headers(map);
    names.map(|name| {
        let found = headers.iter().find(|(found, _)| *found == name.as_bytes());
        found.map(|(_, value)| value.to_vec()).unwrap_or_default()
    })
}

/// Sets a header to one value, whatever it had.
pub(crate) fn set_header(map: MapType, name: &str, value: &str) -> Result<(), HostError> {
    // SAFETY: all pointers come from live slices.
    done(unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes every value of a header.
pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), HostError> {
    // SAFETY: the pointer comes from a live slice.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Empties a header map.
pub(crate) fn clear_headers(map: MapType) -> Result<(), HostError> {
    let none = 0_u32.to_le_bytes();
    // SAFETY: the pointer comes from a live array.
    done(unsafe { proxy_set_header_map_pairs(map as u32, none.as_ptr(), none.len()) })
}

/// The first `size` bytes of a buffer. The host is not asked for none.
pub(crate) fn buffer(buffer: BufferType, size: usize) -> Result<Vec<u8>, HostError> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let (mut data, mut read) = (std::ptr::null_mut(), 0);
    // SAFETY: both pointers are valid for writes; on success the host has allocated `read` bytes.
    unsafe {
        let status = proxy_get_buffer_bytes(buffer as u32, 0, size, &raw mut data, &raw mut read);
        taken(status, data, read)
    }
}

/// Puts `bytes` in the place of the first `size` bytes of a buffer: before them all when that is none.
pub(crate) fn replace_buffer(
    buffer: BufferType,
    size: usize,
    bytes: &[u8],
) -> Result<(), HostError> {
    // SAFETY: the pointer comes from a live slice.
    done(unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) })
}

/// A property of the stream or the plugin, by its path.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: as for `buffer`.
    unsafe {
        let status = proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size);
        taken(status, data, size).ok()
    }
}

/// An integer property: eight bytes, little-endian.
pub(crate) fn integer_property(path: &[&str]) -> Option<u64> {
    property(path)?.try_into().ok().map(u64::from_le_bytes)
}

/// Puts `value` into the stream's filter state, as `wasm.<name>`, for access loggers to read.
pub(crate) fn set_filter_state(name: &str, value: &str) -> Result<(), HostError> {
    // SAFETY: all pointers come from live slices.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Answers the client in the upstream's place.
pub(crate) fn send_reply(reply: &LocalReply) -> Result<(), HostError> {
    let headers = serialize_pairs(&reply.headers);
    // SAFETY: all pointers come from live slices.
    done(unsafe {
        proxy_send_local_response(
            u32::from(reply.status),
            std::ptr::null(),
            0,
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Lets the held request go on.
pub(crate) fn resume_request() -> Result<(), HostError> {
    // SAFETY: takes no pointer.
    done(unsafe { proxy_continue_stream(REQUEST_STREAM) })
}

/// Lets the held response go on.
pub(crate) fn resume_response() -> Result<(), HostError> {
    // SAFETY: takes no pointer.
    done(unsafe { proxy_continue_stream(RESPONSE_STREAM) })
}

/// Makes `context` the one that host calls are about; fails when it is gone.
pub(crate) fn enter(context: u32) -> Result<(), HostError> {
    // SAFETY: takes no pointer.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Starts a `GET` to a cluster, of a host; the token names its reply.
pub(crate) fn http_get(
    (cluster, authority): (&str, &str),
    path: &str,
    request_id: Option<&str>,
    timeout: Duration,
) -> Result<u32, HostError> {
    http_call("GET", (cluster, authority), path, request_id, timeout)
}

/// Starts a `PUT` without a body to a cluster, of a host; the token names its reply.
pub(crate) fn http_put(
    (cluster, authority): (&str, &str),
    path: &str,
    timeout: Duration,
) -> Result<u32, HostError> {
    http_call("PUT", (cluster, authority), path, None, timeout)
}

fn http_call(
    method: &str,
    (cluster, authority): (&str, &str),
    path: &str,
    request_id: Option<&str>,
    timeout: Duration,
) -> Result<u32, HostError> {
    let mut headers = vec![
        (":method", method),
        (":path", path),
        (":authority", authority),
        ("accept", "application/json"),
    ];
    headers.extend(request_id.map(|id| ("x-request-id", id)));
    let headers: Vec<_> =
        headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let headers = serialize_pairs(&headers);
    let trailers = serialize_pairs(&[]);
    let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let mut token = 0;
    // SAFETY: all pointers come from live slices; the host writes one token.
    done(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            std::ptr::null(),
            0,
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Starts a `POST` of a form to a cluster, of a host; the token names its reply.
pub(crate) fn http_post(request: &TokenRequest, request_id: &str) -> Result<u32, HostError> {
    let TokenRequest { cluster, authority, path, timeout, authorization, body } = request;
    let mut headers = vec![
        (":method", "POST"),
        (":path", path),
        (":authority", authority),
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-request-id", request_id),
    ];
    headers.extend(authorization.as_ref().map(|value| ("authorization", value.expose())));
    // What is made of it has the secret in it; it must not be found in memory that was given back.
    let _wiping = Wiping::begin();
    let headers: Vec<_> =
        headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let serialized = serialize_pairs(&headers);
    let trailers = serialize_pairs(&[]);
    let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let body = body.expose();
    let mut token = 0;
    // SAFETY: all pointers come from live slices; the host writes one token.
    done(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            serialized.as_ptr(),
            serialized.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Opens a stream; the root context hears of it.
pub(crate) fn open_stream(cluster: &str) -> Result<u32, HostError> {
    let (service, method) = ("portcullis", "redis");
    let metadata = serialize_pairs(&[]);
    let mut token = 0;
    // SAFETY: all pointers come from live slices; the host writes one token.
    done(unsafe {
        proxy_grpc_stream(
            cluster.as_ptr(),
            cluster.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Sends one message on a stream that has not ended.
pub(crate) fn send(stream: u32, bytes: &[u8]) -> Result<(), HostError> {
    // SAFETY: the pointer comes from a live slice.
    done(unsafe { proxy_grpc_send(stream, bytes.as_ptr(), bytes.len(), 0) })
}

/// Ends a stream at once; nothing more is heard of it. Not for a stream that has ended, and not from
/// inside its callbacks: Envoy frees what it still uses.
pub(crate) fn reset_stream(stream: u32) {
    // SAFETY: takes no pointer. There is nothing to do about a stream that the host does not know.
    let _ = unsafe { proxy_grpc_cancel(stream) };
}

/// Asks for ticks of the current root context.
pub(crate) fn tick_every(period: Duration) {
    let period = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: takes no pointer. The host takes any period.
    let _ = unsafe { proxy_set_tick_period_milliseconds(period) };
}

/// A queue that wakes the current root context, on its own thread, when something is put in.
pub(crate) fn register_queue(name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: the pointer comes from a live slice; the host writes one id.
    done(unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Puts one empty item into a queue.
pub(crate) fn enqueue(queue: u32) -> Result<(), HostError> {
    // SAFETY: the host reads no bytes.
    done(unsafe { proxy_enqueue_shared_queue(queue, [].as_ptr(), 0) })
}

/// Takes one item out of a queue.
pub(crate) fn dequeue(queue: u32) -> Result<(), HostError> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: as for `buffer`.
    let taken = unsafe {
        let status = proxy_dequeue_shared_queue(queue, &raw mut data, &raw mut size);
        taken(status, data, size)
    };
    taken.map(drop)
}

/// Defines a metric, or finds the one of that name: ids are the VM's, values the process's.
pub(crate) fn define_metric(kind: Kind, name: &str) -> Result<u32, HostError> {
    let kind = match kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Histogram => 2,
    };
    let mut id = 0;
    // SAFETY: the host writes one id and keeps no pointer.
    done(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds to a counter.
pub(crate) fn increment_metric(id: u32, value: u64) -> Result<(), HostError> {
    let value = i64::try_from(value).map_err(|_| HostError)?;
    // SAFETY: takes no pointer.
    done(unsafe { proxy_increment_metric(id, value) })
}

/// Sets a gauge, or adds a value to a histogram.
pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: takes no pointer.
    done(unsafe { proxy_record_metric(id, value) })
}

fn done(status: u32) -> Result<(), HostError> {
    if status == OK { Ok(()) } else { Err(HostError) }
}

/// # Safety
/// When `status` is [`OK`] and `data` is not null, the host has allocated `size` bytes at `data`
/// through this module's allocator, and has no other owner.
unsafe fn taken(status: u32, data: *mut u8, size: usize) -> Result<Vec<u8>, HostError> {
    match status {
        OK if data.is_null() => Ok(Vec::new()),
        // SAFETY: the contract of this function.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        _ => Err(HostError),
    }
}

/// Where each name and its value are. The host writes their count, then the sizes of each name and value, then the bytes,
/// each followed by a NUL.
fn located(bytes: &[u8]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let sizes = rest.get(..count.checked_mul(8)?)?;
    let mut next = count.checked_mul(8)?.checked_add(4)?;
    let mut take = |size: [u8; 4]| {
        let from = next;
        let to = from.checked_add(u32::from_le_bytes(size) as usize)?;
        next = to.checked_add(1)?;
        (next <= bytes.len()).then_some(from..to)
    };
    let (sizes, _) = sizes.as_chunks::<4>();
    let (sizes, _) = sizes.as_chunks::<2>();
    sizes.iter().map(|[name, value]| Some((take(*name)?, take(*value)?))).collect()
}

fn serialize_pairs(pairs: &[(&'static str, String)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let mut bytes = u32::try_from(pairs.len()).unwrap_or(0).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [*name, value.as_str()]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}
