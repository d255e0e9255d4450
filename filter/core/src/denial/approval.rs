//! What was decided about a call that a person has to agree to.
//!
//! Owns the states and their names. Who agrees, and how, is [`crate::approval`]'s business.

/// What was decided about a call that needs approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    /// Nothing yet.
    Pending,
    /// No.
    Denied,
    /// Nothing, and nobody was asked: too many calls wait already.
    Full,
    /// Nothing, and nobody was asked: too many calls of this caller wait already.
    CallerFull,
}

impl ApprovalState {
    /// The name in refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::CallerFull => "caller_full",
        }
    }
}
