//! Values that must not be seen: redacted when printed, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

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
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }
}
