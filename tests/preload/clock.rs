//! A wall clock that a test moves. The dynamic linker loads it into a program (`LD_PRELOAD`), whose calls to libc's
//! clocks then come here.
//!
//! Owns what is added: the seconds in the file `PORTCULLIS_CLOCK`, eight bytes in native order, mapped once. Only
//! `CLOCK_REALTIME` moves. The test builds it with `rustc`; it is no part of the workspace.

use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

#[repr(C)]
pub struct Timeval {
    seconds: i64,
    microseconds: c_long,
}

const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;
#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
}

/// The seconds to add; nothing where there is no such file.
fn offset() -> i64 {
    static MAPPED: OnceLock<Option<&'static AtomicI64>> = OnceLock::new();
    MAPPED.get_or_init(mapped).map_or(0, |seconds| seconds.load(Ordering::Relaxed))
}

fn mapped() -> Option<&'static AtomicI64> {
    const READ: c_int = 1;
    const SHARED: c_int = 1;
    let file = File::open(std::env::var_os("PORTCULLIS_CLOCK")?).ok()?;
    // SAFETY: a page that the kernel chooses, of a file of at least eight bytes; it stays mapped for ever.
    let page = unsafe { mmap(std::ptr::null_mut(), 8, READ, SHARED, file.as_raw_fd(), 0) };
    if page as isize == -1 {
        return None;
    }
    // SAFETY: the page is aligned, mapped and never unmapped, and is only read.
    Some(unsafe { &*page.cast::<AtomicI64>() })
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: what the caller passes is passed on.
    let outcome = unsafe { syscall(SYS_CLOCK_GETTIME, clock, time) } as c_int;
    if outcome == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel wrote to it a moment ago.
        unsafe { (*time).seconds += offset() };
    }
    outcome
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Timeval, _zone: *mut c_void) -> c_int {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `now` is ours.
    let outcome = unsafe { clock_gettime(CLOCK_REALTIME, &mut now) };
    if outcome == 0 && !time.is_null() {
        let microseconds = now.nanoseconds / 1_000;
        // SAFETY: libc writes to it, too.
        unsafe { *time = Timeval { seconds: now.seconds, microseconds } };
    }
    outcome
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(out: *mut i64) -> i64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `now` is ours.
    unsafe { clock_gettime(CLOCK_REALTIME, &mut now) };
    if !out.is_null() {
        // SAFETY: libc writes to it, too.
        unsafe { *out = now.seconds };
    }
    now.seconds
}
