//! Values that must not be seen: redacted when printed, wiped when dropped.
//!
//! Owns, too, when the copies are wiped that parsers and growing texts leave behind. The allocator wipes them: here is only
//! when.

use std::cell::Cell;
use std::fmt;

use zeroize::Zeroizing;

thread_local! {
    static WIPES: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, all memory that is given back is wiped before, where the allocator asks [`wipes`]. It stands before all
/// that holds a secret in its scope: what was declared last is dropped first.
#[derive(Debug)]
#[must_use = "it holds for as long as it lives"]
pub struct Wiping {
    before: bool,
}

impl Wiping {
    /// From here on.
    pub fn begin() -> Self {
        Self { before: WIPES.replace(true) }
    }
}

impl Drop for Wiping {
    fn drop(&mut self) {
        WIPES.set(self.before);
    }
}

/// Whether memory that is given back now is to be wiped.
#[inline]
#[must_use]
pub fn wipes() -> bool {
    WIPES.get()
}

/// A secret text. Neither `Debug` nor `Display` show it; only [`Secret::expose`] does.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Without one line break at its end.
    pub fn drop_line_break(&mut self) {
        if self.0.ends_with('\n') {
            self.0.pop();
            if self.0.ends_with('\r') {
                self.0.pop();
            }
        }
    }

    /// The secret itself. Every caller is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_wiped_until_the_outermost_scope_ends() {
        assert!(!wipes());
        let outer = Wiping::begin();
        drop(Wiping::begin());
        assert!(wipes());
        drop(outer);
        assert!(!wipes());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }
}
