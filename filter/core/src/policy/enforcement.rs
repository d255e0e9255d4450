//! Whether a rule is in shadow mode.

/// Whether a rule's refusals take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// They do.
    #[default]
    Enforce,
    /// The request passes, and the refusal is logged and counted.
    Shadow,
}

impl Enforcement {
    /// Shadow, if either is: a rule in shadow mode stays in it under an enforced policy.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Enforce, Self::Enforce) => Self::Enforce,
            (Self::Shadow, _) | (_, Self::Shadow) => Self::Shadow,
        }
    }
}
