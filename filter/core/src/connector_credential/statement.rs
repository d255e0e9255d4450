//! What a connector's server gets instead of the client's credential.
//!
//! Owns how values become headers and query parameters, and what is stated for callers that have none.

use std::rc::Rc;
use std::time::Duration;

use url::form_urlencoded::byte_serialize;

use super::CredentialRef;
use super::pattern::{CallerFacts, SecretPattern, Unresolved, owner};
use crate::secret::{Secret, Wiping};
use crate::time::UnixTime;
use crate::token_exchange::{Exchange, TokenKind, TokenRef};
use crate::vault::{CachedSecret, Echo, EchoMask, SecretRef, Template};

/// What a connector's server gets instead of the client's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorCredential {
    source: Source,
    headers: Templates,
    query: Templates,
    /// The message for a caller without a credential.
    pub missing: Option<Missing>,
    /// For how long beyond its life it is used when it cannot be read again.
    pub stale: Stale,
    /// What happens to an answer that has it in it.
    pub echo: Echo,
}

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Fields of a secret in Vault.
    Secret {
        /// Where it is.
        pattern: SecretPattern,
        /// What templates name of it.
        fields: Vec<String>,
        /// The same for every caller, where the path does not depend on one: made once.
        stated: Option<Rc<SecretRef>>,
    },
    /// A token of an authorization server.
    Exchange(Exchange),
}

impl Source {
    /// Fields of a secret in Vault.
    #[must_use]
    pub fn secret(pattern: SecretPattern, fields: Vec<String>) -> Self {
        let stated = pattern.stated_ref(&fields).map(Rc::new);
        Self::Secret { pattern, fields, stated }
    }
}

/// Named templates.
type Templates = Vec<(String, Template)>;

/// How a caller gets a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What a person reads.
    pub message: String,
    /// Where a person gets one.
    pub url: String,
}

/// For how long beyond its life a credential is used when it cannot be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// As the plugin configuration says.
    #[default]
    Configured,
    /// Not at all.
    Never,
    /// For this time.
    For(Duration),
}

impl Stale {
    /// The time, where the plugin configuration says `configured`.
    #[must_use]
    pub fn time(self, configured: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Configured => configured,
            Self::Never => None,
            Self::For(time) => Some(time),
        }
    }
}

/// What is put on a request. In no log: values are secrets.
#[derive(Debug, Default)]
pub struct Injected {
    /// Headers, names in lower case.
    pub headers: Vec<(String, Secret)>,
    /// Query parameters, not escaped.
    pub query: Vec<(String, Secret)>,
    /// What looks for it in the answer, if that is wanted.
    pub echo: Option<Box<EchoMask>>,
    /// When the values were read, if there are any.
    pub read: Option<UnixTime>,
}

impl ConnectorCredential {
    /// What a valid header name looks like.
    pub const HEADER: &'static str =
        "a header name in lower case that is not Envoy's or MCP's own, such as authorization";
    /// What a valid name of a query parameter looks like.
    pub const PARAMETER: &'static str =
        "the name of a query parameter: letters, digits, - and _, such as key";

    /// Puts the parts together.
    #[must_use]
    pub fn new(
        source: Source,
        (headers, query): (Templates, Templates),
        missing: Option<Missing>,
        (stale, echo): (Stale, Echo),
    ) -> Self {
        Self { source, headers, query, missing, stale, echo }
    }

    /// A header that a credential may be put into.
    #[must_use]
    pub fn header_name(text: &str) -> Option<String> {
        let token = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reserved = ["host", "content-length", "content-type", "transfer-encoding", "te"];
        let taken = reserved.contains(&text)
            || ["mcp-", "x-portcullis-", "x-envoy-"].iter().any(|prefix| text.starts_with(prefix));
        (token && !taken).then(|| text.to_owned())
    }

    /// A query parameter that a credential may be put into. One that names a session is the protocol's own.
    #[must_use]
    pub fn parameter_name(text: &str) -> Option<String> {
        let plain = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let session = text.replace(['-', '_'], "").eq_ignore_ascii_case("sessionid");
        (plain && !session).then(|| text.to_owned())
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Where it is in Vault, if it is there.
    #[must_use]
    pub fn pattern(&self) -> Option<&SecretPattern> {
        match &self.source {
            Source::Secret { pattern, .. } => Some(pattern),
            Source::Exchange(_) => None,
        }
    }

    /// Where this caller's is.
    ///
    /// # Errors
    /// The caller has none.
    pub fn of(&self, facts: CallerFacts<'_>) -> Result<CredentialRef, Unresolved> {
        match &self.source {
            Source::Secret { stated: Some(stated), .. } => {
                Ok(CredentialRef::Secret(stated.clone()))
            }
            Source::Secret { pattern, fields, stated: None } => {
                Ok(CredentialRef::Secret(Rc::new(pattern.resolve(facts, fields)?)))
            }
            Source::Exchange(exchange) => {
                let CallerFacts { org, holder, connector, token, .. } = facts;
                let of_caller = exchange.grant.is_of_caller();
                if of_caller && token.is_none() {
                    return Err(Unresolved::Absent);
                }
                Ok(CredentialRef::Token(Rc::new(TokenRef {
                    exchange: exchange.clone(),
                    kind: TokenKind::Access,
                    org: org.clone(),
                    connector: connector.clone(),
                    subject: token.filter(|_| of_caller),
                    owner: of_caller.then(|| owner(org, holder)),
                })))
            }
        }
    }

    /// The headers that it is put into.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the values go into a query parameter, which servers and proxies write into their logs.
    #[must_use]
    pub fn is_in_query(&self) -> bool {
        !self.query.is_empty()
    }

    /// The texts around the values: what a person might have put a secret into.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().chain(&self.query).flat_map(|(_, template)| template.texts())
    }

    /// What goes on a request.
    #[must_use]
    pub fn render(&self, cached: &CachedSecret) -> Injected {
        let _wiping = Wiping::begin();
        cached.note_use();
        let values = cached.values.as_slice();
        let each = |(name, template): &(String, Template)| (name.clone(), template.render(values));
        let headers: Vec<_> = self.headers.iter().map(each).collect();
        let query: Vec<_> = self.query.iter().map(each).collect();
        let echo = (self.echo == Echo::Mask).then(|| {
            let sent = headers.iter().chain(&query).map(|(_, value)| value);
            // A server that says its URL back has the value as the URL has it, and one that parsed `Basic`, its base64.
            let encoded = |(_, value): &(String, Secret)| {
                Secret::new(byte_serialize(value.expose().as_bytes()).collect())
            };
            let templates = self.headers.iter().chain(&self.query);
            let in_base64 = templates.flat_map(|(_, template)| template.in_base64(values));
            let others: Vec<Secret> = query.iter().map(encoded).chain(in_base64).collect();
            Box::new(EchoMask::new(sent.chain(values).chain(&others)))
        });
        Injected { headers, query, echo, read: Some(cached.read_at()) }
    }
}
