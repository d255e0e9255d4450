//! The variants of the comparison. Each one is a row of the table.
//!
//! Owns names, order and the claims of each variant, which `contender` checks. Starts nothing.

use serde::{Deserialize, Serialize};

/// One way to serve the same `tools/call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Variant {
    /// Envoy with its router alone.
    Plain,
    /// Envoy's own filters, as far as they do the same as Portcullis.
    Native,
    /// The same without its buckets.
    NativeUnlimited,
    /// As [`Variant::NativeUnlimited`], with the headers that Portcullis sets.
    NativeHeaders,
    /// The filter with a token, the policy in its configuration, without Redis.
    Token,
    /// The filter with an API key and three windows in Redis.
    Key,
    /// The same in split mode.
    KeySplit,
    /// As [`Variant::Token`], without guards and without the seal.
    TokenUnguarded,
    /// As [`Variant::Key`], without guards and without the seal.
    KeyUnguarded,
}

/// The credential that a caller presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    Nothing,
    Token,
    Key,
}

/// The changes to `envoy/envoy.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Without the filter and its log.
    RouterOnly,
    /// `envoy/bench/native.yaml` replaces them.
    Native,
    /// As [`Chain::Native`], without the rate-limit filter.
    NativeUnlimited,
    /// As [`Chain::NativeUnlimited`], with the headers of that file.
    NativeHeaders,
    /// The filter with the policy, a pinned tool and the issuer's keys in its configuration, without Redis and Vault.
    Inline,
    /// As [`Chain::Inline`], without guards and without the seal.
    InlineUnguarded,
    /// As shipped, in this mode of the filter.
    Filter { mode: &'static str },
    /// As shipped, without guards and without the seal.
    FilterUnguarded,
}

impl Variant {
    pub(crate) const ALL: [Self; 7] = [
        Self::Plain,
        Self::Native,
        Self::NativeUnlimited,
        Self::NativeHeaders,
        Self::Token,
        Self::Key,
        Self::KeySplit,
    ];
    /// The variants that show the cost of guards and seal.
    pub(crate) const GUARDS: [Self; 5] =
        [Self::Plain, Self::Token, Self::TokenUnguarded, Self::Key, Self::KeyUnguarded];

    /// The letter in tables and file names.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Plain => "a",
            Self::Native => "b",
            Self::NativeUnlimited => "b2",
            Self::NativeHeaders => "b3",
            Self::Token => "c",
            Self::Key => "d",
            Self::KeySplit => "d2",
            Self::TokenUnguarded => "c0",
            Self::KeyUnguarded => "d0",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain Envoy",
            Self::Native => "Envoy's own filters, JWT, 3 buckets",
            Self::NativeUnlimited => "the same without buckets",
            Self::NativeHeaders => "(b2) with the headers of (c)",
            Self::Token => "Portcullis, JWT, schema, no Redis",
            Self::Key => "Portcullis, API key, 3 windows",
            Self::KeySplit => "the same in split mode",
            Self::TokenUnguarded => "(c) without guards and seal",
            Self::KeyUnguarded => "(d) without guards and seal",
        }
    }

    /// The closest chain of Envoy's own filters: with buckets for a variant that counts calls, without for one that
    /// does not.
    pub(crate) fn native(self) -> Option<Self> {
        match self {
            Self::Token => Some(Self::NativeUnlimited),
            Self::Key | Self::KeySplit => Some(Self::Native),
            Self::Plain | Self::Native | Self::NativeUnlimited | Self::NativeHeaders => None,
            Self::TokenUnguarded | Self::KeyUnguarded => None,
        }
    }

    /// The chain of Envoy's own filters that sets the same headers.
    pub(crate) fn fair(self) -> Option<Self> {
        (self == Self::Token).then_some(Self::NativeHeaders)
    }

    /// The same without guards and seal.
    pub(crate) fn unguarded(self) -> Option<Self> {
        match self {
            Self::Token => Some(Self::TokenUnguarded),
            Self::Key => Some(Self::KeyUnguarded),
            Self::Plain
            | Self::Native
            | Self::NativeUnlimited
            | Self::NativeHeaders
            | Self::KeySplit
            | Self::TokenUnguarded
            | Self::KeyUnguarded => None,
        }
    }

    pub(crate) fn chain(self) -> Chain {
        match self {
            Self::Plain => Chain::RouterOnly,
            Self::Native => Chain::Native,
            Self::NativeUnlimited => Chain::NativeUnlimited,
            Self::NativeHeaders => Chain::NativeHeaders,
            Self::Token => Chain::Inline,
            Self::Key => Chain::Filter { mode: "hold" },
            Self::KeySplit => Chain::Filter { mode: "split" },
            Self::TokenUnguarded => Chain::InlineUnguarded,
            Self::KeyUnguarded => Chain::FilterUnguarded,
        }
    }

    pub(crate) fn credential(self) -> Credential {
        match self {
            Self::Plain => Credential::Nothing,
            Self::Native
            | Self::NativeUnlimited
            | Self::NativeHeaders
            | Self::Token
            | Self::TokenUnguarded => Credential::Token,
            Self::Key | Self::KeySplit | Self::KeyUnguarded => Credential::Key,
        }
    }

    /// Whether it writes a log line per request.
    pub(crate) fn logs(self) -> bool {
        self.chain() != Chain::RouterOnly
    }

    /// Whether it counts calls.
    pub(crate) fn limits(self) -> bool {
        match self {
            Self::Native | Self::Key | Self::KeySplit | Self::KeyUnguarded => true,
            Self::Plain
            | Self::NativeUnlimited
            | Self::NativeHeaders
            | Self::Token
            | Self::TokenUnguarded => false,
        }
    }

    /// Whether it names the caller and the request to the upstream, and the request to the client.
    pub(crate) fn sets_headers(self) -> bool {
        !matches!(self.chain(), Chain::RouterOnly | Chain::Native | Chain::NativeUnlimited)
    }

    /// Whether it checks the arguments of a call by a pinned schema.
    pub(crate) fn checks_arguments(self) -> bool {
        matches!(self.chain(), Chain::Inline | Chain::InlineUnguarded)
    }

    /// Whether it asks Redis about every request.
    pub(crate) fn asks_redis(self) -> bool {
        self.credential() == Credential::Key
    }
}
