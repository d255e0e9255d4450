//! Compares bytes, eight at a time.
//!
//! Owns the module's `memcmp`, which Rust calls when two slices or texts are compared: some 140 times per request. The
//! C library's compares single bytes.
#![allow(unsafe_code, reason = "what the compiler calls has C's interface")]

use std::cmp::Ordering;

// Not inlined: inlined at every comparison, it made the module a twentieth larger.
/// # Safety
/// As in C: `count` bytes are readable at `one` and at `other`.
#[cfg(target_family = "wasm")]
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's contract is the same.
    unsafe { order(one, other, count) }
}

/// # Safety
/// `count` bytes are readable at `one` and at `other`.
#[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "has a C library there"))]
unsafe fn order(one: *const u8, other: *const u8, count: usize) -> i32 {
    const WORD: usize = size_of::<u64>();
    const HALF: usize = size_of::<u32>();
    let Some(last) = count.checked_sub(WORD) else {
        let Some(last) = count.checked_sub(HALF) else {
            // Three bytes at most.
            for at in 0..count {
                // SAFETY: `at` is less than `count`.
                let (one, other) = unsafe { (one.add(at).read(), other.add(at).read()) };
                if one != other {
                    return told(one.cmp(&other));
                }
            }
            return 0;
        };
        // The second read overlaps the first one only in equal bytes.
        for at in [0, last] {
            // SAFETY: `at` is at most `last`, and a half word from there is within `count`.
            let (one, other) = unsafe {
                (
                    one.add(at).cast::<u32>().read_unaligned(),
                    other.add(at).cast::<u32>().read_unaligned(),
                )
            };
            if one != other {
                return told(u32::from_be(one).cmp(&u32::from_be(other)));
            }
        }
        return 0;
    };
    let mut at = 0;
    loop {
        // SAFETY: `at` is at most `last`, and a word from there is within `count`.
        let (one, other) = unsafe {
            (
                one.add(at).cast::<u64>().read_unaligned(),
                other.add(at).cast::<u64>().read_unaligned(),
            )
        };
        if one != other {
            return told(u64::from_be(one).cmp(&u64::from_be(other)));
        }
        if at == last {
            return 0;
        }
        // The last word may overlap the previous one, which was equal.
        at = at.saturating_add(WORD).min(last);
    }
}

const fn told(order: Ordering) -> i32 {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}
