//! What a caller is told of a call that a person has to agree to.
//!
//! Owns the states and their words. Who agrees, and how, is [`crate::approval`]'s business.

/// What was decided about a call that needs approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    /// Nothing yet.
    Pending,
    /// No.
    Denied,
    /// Nothing, and nobody was asked: too many calls wait already.
    Full,
}

impl ApprovalState {
    /// The name in refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Denied => "denied",
            Self::Full => "full",
        }
    }

    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Pending => {
                "This call waits for a person to approve it; repeat it unchanged once that is done"
            }
            Self::Denied => "A person decided against this call",
            Self::Full => "This call needs a person's approval, and too many calls wait for one",
        }
    }
}
