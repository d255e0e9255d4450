//! Who is compared with whom. One more entry here is one more row of the table.
//!
//! Owns names, order and what each variant claims to do, which `checks` then asks it to prove. Starts nothing.

use serde::{Deserialize, Serialize};

/// One way to serve the same `tools/call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Variant {
    /// Envoy with its router alone.
    Plain,
    /// Envoy's own filters, as far as they do the same.
    Native,
    /// The same without its buckets.
    NativeUnlimited,
    /// The filter with a token, the policy in its configuration, without Redis.
    Token,
    /// The filter with an API key and three windows in Redis.
    Key,
    /// The same in split mode.
    KeySplit,
}

/// What a caller shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    Nothing,
    Token,
    Key,
}

/// What becomes of `envoy/envoy.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The filter and its log are taken out.
    RouterOnly,
    /// `envoy/bench/native.yaml` takes their place.
    Native,
    /// The same, less the filter that limits.
    NativeUnlimited,
    /// The filter with the policy and the issuer's keys in its configuration, without Redis and Vault.
    Inline,
    /// As shipped, in this mode of the filter.
    Filter { mode: &'static str },
}

impl Variant {
    pub(crate) const ALL: [Self; 6] =
        [Self::Plain, Self::Native, Self::NativeUnlimited, Self::Token, Self::Key, Self::KeySplit];

    /// The letter in tables and file names.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Plain => "a",
            Self::Native => "b",
            Self::NativeUnlimited => "b2",
            Self::Token => "c",
            Self::Key => "d",
            Self::KeySplit => "d2",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain Envoy",
            Self::Native => "Envoy's own filters, JWT, 3 buckets",
            Self::NativeUnlimited => "the same without buckets",
            Self::Token => "Portcullis, JWT, no Redis",
            Self::Key => "Portcullis, API key, 3 windows",
            Self::KeySplit => "the same in split mode",
        }
    }

    /// What of Envoy's own does most nearly the same: whoever counts calls is compared with buckets,
    /// whoever does not, with none.
    pub(crate) fn native(self) -> Option<Self> {
        match self {
            Self::Token => Some(Self::NativeUnlimited),
            Self::Key | Self::KeySplit => Some(Self::Native),
            Self::Plain | Self::Native | Self::NativeUnlimited => None,
        }
    }

    pub(crate) fn chain(self) -> Chain {
        match self {
            Self::Plain => Chain::RouterOnly,
            Self::Native => Chain::Native,
            Self::NativeUnlimited => Chain::NativeUnlimited,
            Self::Token => Chain::Inline,
            Self::Key => Chain::Filter { mode: "hold" },
            Self::KeySplit => Chain::Filter { mode: "split" },
        }
    }

    pub(crate) fn credential(self) -> Credential {
        match self {
            Self::Plain => Credential::Nothing,
            Self::Native | Self::NativeUnlimited | Self::Token => Credential::Token,
            Self::Key | Self::KeySplit => Credential::Key,
        }
    }

    /// Whether it writes a line per request.
    pub(crate) fn logs(self) -> bool {
        self.chain() != Chain::RouterOnly
    }

    /// Whether it counts calls.
    pub(crate) fn limits(self) -> bool {
        match self {
            Self::Native | Self::Key | Self::KeySplit => true,
            Self::Plain | Self::NativeUnlimited | Self::Token => false,
        }
    }

    /// Whether it asks Redis about every request.
    pub(crate) fn asks_redis(self) -> bool {
        self.credential() == Credential::Key
    }
}
