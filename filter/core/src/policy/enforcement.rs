//! Whether a rule is in shadow mode.

/// Whether what a rule refuses is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is.
    #[default]
    Enforce,
    /// It passes, and that it would have been refused is written down and counted.
    Shadow,
}

impl Enforcement {
    /// Shadow, if either is: a rule in shadow mode stays one under a policy that is enforced.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Enforce, Self::Enforce) => Self::Enforce,
            (Self::Shadow, _) | (_, Self::Shadow) => Self::Shadow,
        }
    }
}
