//! Which fact about its subject a token lacks.

/// What the claims of a token do not tell of its subject. The client is not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmapped {
    /// No organisation, or none that the issuer speaks for.
    Organisation,
    /// No role, or none that the configuration has.
    Role,
    /// No tier.
    Tier,
    /// No name, where a claim is to have one.
    Name,
}

impl Unmapped {
    /// The name in audit entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "org",
            Self::Role => "role",
            Self::Tier => "tier",
            Self::Name => "name",
        }
    }
}
