//! The fact about its subject that a token lacks.

/// The fact that a token's claims do not give. The client does not learn which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmapped {
    /// No organisation, or none that the issuer may name.
    Organisation,
    /// No role, or one that the configuration does not have.
    Role,
    /// No tier.
    Tier,
    /// No name, although the configuration names a claim for it.
    Name,
    /// What the configured claim of the agent has is no identifier.
    Agent,
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
            Self::Agent => "agent",
        }
    }
}
