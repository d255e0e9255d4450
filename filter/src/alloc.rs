//! The allocator: lists of free blocks, by size, in front of the C library's.
//!
//! Owns blocks of up to [`LARGEST`] bytes. A request makes some two hundred allocations, nearly all of
//! them small and freed by its end. The C library's allocator looks for the best fit, splits it and joins
//! it again, which touches memory all over; here a block is taken off a list and put back.
//!
//! While a secret is read or written ([`portcullis_core::secret::Wiping`]), what is given back is wiped before.
//!
//! A block stays of its size class for ever, so what a class once had at most is what it keeps. Larger
//! blocks are the C library's.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::ptr;

use portcullis_core::secret;

/// Larger blocks, and what wants another alignment, are the C library's.
const LARGEST: usize = 1_024;
/// Sizes are multiples of it; it aligns whatever Rust asks for without saying so.
const GRAIN: usize = 16;
/// How much is asked of the C library at once.
const PIECE: usize = 65_536;
/// The sizes of blocks: at most a quarter of one is wasted, but for the smallest.
const SIZES: [usize; 20] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1_024,
];
/// The class of every multiple of [`GRAIN`], from none to [`LARGEST`].
const CLASSES: [u8; LARGEST / GRAIN + 1] = classes();

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "runs when the module is compiled, where both are errors"
)]
const fn classes() -> [u8; LARGEST / GRAIN + 1] {
    let mut classes = [0; LARGEST / GRAIN + 1];
    let (mut at, mut class) = (0, 0);
    while at < classes.len() {
        if at * GRAIN > SIZES[class as usize] {
            class += 1;
        }
        classes[at] = class;
        at += 1;
    }
    classes
}

/// A free block: the next one of its class stands in it.
struct Free {
    next: *mut Free,
}

struct Blocks {
    /// The free blocks of each class.
    free: [*mut Free; SIZES.len()],
    /// What was not handed out yet of the last piece.
    rest: *mut u8,
    left: usize,
}

/// The allocator of the module.
struct Classed(UnsafeCell<Blocks>);

// SAFETY: a module without threads; the host calls into it one call at a time.
unsafe impl Sync for Classed {}

#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: Classed = Classed::new();

impl Classed {
    #[cfg_attr(
        not(any(target_family = "wasm", test)),
        expect(dead_code, reason = "has threads there")
    )]
    const fn new() -> Self {
        let free = [ptr::null_mut(); SIZES.len()];
        Self(UnsafeCell::new(Blocks { free, rest: ptr::null_mut(), left: 0 }))
    }

    /// The class that serves `layout`, if one does.
    fn class(layout: Layout) -> Option<usize> {
        if layout.align() > GRAIN {
            return None;
        }
        CLASSES.get(layout.size().div_ceil(GRAIN)).map(|class| usize::from(*class))
    }
}

impl Blocks {
    /// A block that was never used; null when there is no memory.
    #[cold]
    fn cut(&mut self, size: usize) -> *mut u8 {
        if self.left < size {
            // What is left is less than a block of this size, and lost: at most one part in sixty-four.
            let Ok(piece) = Layout::from_size_align(PIECE, GRAIN) else { return ptr::null_mut() };
            // SAFETY: the layout has a size.
            let rest = unsafe { System.alloc(piece) };
            if rest.is_null() {
                return rest;
            }
            (self.rest, self.left) = (rest, PIECE);
        }
        let block = self.rest;
        self.rest = block.wrapping_add(size);
        self.left = self.left.saturating_sub(size);
        block
    }
}

/// Overwrites what is given back. The compiler must not see that it is not read any more.
///
/// # Safety
/// `block` is writable for `size` bytes.
#[cold]
unsafe fn wipe(block: *mut u8, size: usize) {
    // SAFETY: the caller's contract.
    unsafe { ptr::write_bytes(block, 0, size) };
    black_box(block);
}

// SAFETY: a block of a class is at least as large as every layout of the class and aligned to
// `GRAIN`; it is on a list or in use, never both. Everything else is the C library's.
unsafe impl GlobalAlloc for Classed {
    // One copy each: inlined into some ten thousand places they made the module a tenth larger, and code that is not in the
    // caches is what a request waits for.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Self::class(layout) else {
            // SAFETY: the caller's contract is the same.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: no threads, and nothing below calls back: this is the only reference.
        let blocks = unsafe { &mut *self.0.get() };
        let (Some(head), Some(size)) = (blocks.free.get_mut(class), SIZES.get(class)) else {
            return ptr::null_mut();
        };
        let block = *head;
        if block.is_null() {
            return blocks.cut(*size);
        }
        // SAFETY: what is on a list is a free block, in which `dealloc` wrote this.
        *head = unsafe { (*block).next };
        block.cast()
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if secret::wipes() {
            // What had more bytes before has them in the rest of its block.
            let of_class = Self::class(layout).and_then(|class| SIZES.get(class).copied());
            // SAFETY: the caller gives it back, and no other holder has it.
            unsafe { wipe(block, of_class.unwrap_or(layout.size())) };
        }
        let Some(class) = Self::class(layout) else {
            // SAFETY: the caller's contract is the same.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: as in `alloc`.
        let blocks = unsafe { &mut *self.0.get() };
        if let Some(head) = blocks.free.get_mut(class) {
            let block = block.cast::<Free>();
            // SAFETY: the block came from `alloc`, is at least `GRAIN` bytes and has no holder any more.
            unsafe { block.write(Free { next: *head }) };
            *head = block;
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that this is a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Self::class(layout), Self::class(wanted)) {
            (None, None) if secret::wipes() => {
                // SAFETY: as below; the C library would leave a copy where the block was.
                unsafe { self.moved(block, layout, wanted) }
            }
            // SAFETY: the caller's contract is the same.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some(old), Some(new)) if old == new => block,
            // SAFETY: the caller's contract is the same.
            _ => unsafe { self.moved(block, layout, wanted) },
        }
    }
}

impl Classed {
    /// Puts what is in `block` into another one.
    ///
    /// # Safety
    /// That of [`GlobalAlloc::realloc`].
    unsafe fn moved(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        // SAFETY: the new block is another one, and both have as many bytes as are copied.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(wanted.size()));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

// `filter/core/tests/alloc.rs` runs these natively.
#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_core::secret::Wiping;

    const SECRET: u8 = 0xa5;

    /// The bytes of a block that was given back, but for the grain in which its list has a pointer. A piece is never given
    /// back to the C library, so they are there to be read.
    fn left_in(block: *mut u8, size: usize) -> Vec<u8> {
        // SAFETY: the block is a part of a piece, and all of it was written before.
        (GRAIN..size).map(|at| unsafe { block.add(at).read() }).collect()
    }

    fn filled(allocator: &Classed, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has a size, and the block is written within it.
        unsafe {
            let block = allocator.alloc(layout);
            assert!(!block.is_null());
            block.write_bytes(SECRET, layout.size());
            block
        }
    }

    // Proves: A5, X12
    #[test]
    fn what_is_given_back_is_wiped_while_a_secret_is_read_and_only_then() {
        for size in SIZES {
            let (allocator, layout) = (Classed::new(), Layout::from_size_align(size, 1).unwrap());
            let block = filled(&allocator, layout);
            // SAFETY: the block is of this allocator and layout.
            unsafe { allocator.dealloc(block, layout) };
            assert!(left_in(block, size).iter().all(|byte| *byte == SECRET), "{size}");
            let block = filled(&allocator, layout);
            let wiping = Wiping::begin();
            // SAFETY: as before.
            unsafe { allocator.dealloc(block, layout) };
            drop(wiping);
            assert!(left_in(block, size).iter().all(|byte| *byte == 0), "{size}");
        }
    }

    // A text that grows leaves its former places behind, and one that shrank has its end in the rest of the block.
    // Proves: A5, X12
    #[test]
    fn the_places_that_a_text_had_before_are_wiped() {
        let (allocator, layout) = (Classed::new(), Layout::from_size_align(64, 1).unwrap());
        let shorter = Layout::from_size_align(50, 1).unwrap();
        let _wiping = Wiping::begin();
        let block = filled(&allocator, layout);
        // SAFETY: the block is of this allocator and layout, each time.
        let grown = unsafe {
            assert_eq!(allocator.realloc(block, layout, shorter.size()), block);
            allocator.realloc(block, shorter, 512)
        };
        assert_ne!(grown, block);
        assert!(left_in(block, layout.size()).iter().all(|byte| *byte == 0));
        // SAFETY: the first bytes were copied.
        let copied = (0..shorter.size()).map(|at| unsafe { grown.add(at).read() });
        assert!(copied.eq(std::iter::repeat_n(SECRET, shorter.size())));
    }
}
