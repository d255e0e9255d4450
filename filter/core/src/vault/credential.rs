//! What a connector's server gets instead of the client's credential.
//!
//! Owns how values become headers and query parameters, and what is stated for callers that have none.

use std::rc::Rc;
use std::time::Duration;

use super::CredentialRef;
use super::pattern::{CallerFacts, SecretPattern, Unresolved};
use super::reference::SecretRef;
use super::template::Template;
use crate::secret::Secret;

/// What a connector's server gets instead of the client's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorCredential {
    pattern: SecretPattern,
    fields: Vec<String>,
    /// The same for every caller: made once.
    stated: Option<Rc<SecretRef>>,
    headers: Templates,
    query: Templates,
    /// What a caller without a credential is told.
    pub missing: Option<Missing>,
    /// For how long beyond its life it is used when it cannot be read again.
    pub stale: Stale,
}

/// Named templates.
pub(super) type Templates = Vec<(String, Template)>;

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
        (pattern, fields): (SecretPattern, Vec<String>),
        (headers, query): (Templates, Templates),
        missing: Option<Missing>,
        stale: Stale,
    ) -> Self {
        let stated = pattern.is_stated().then(|| pattern.stated_ref(&fields)).flatten();
        Self { pattern, fields, stated: stated.map(Rc::new), headers, query, missing, stale }
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

    /// Where it is.
    #[must_use]
    pub fn pattern(&self) -> &SecretPattern {
        &self.pattern
    }

    /// The reference that every caller has; none where the path depends on the caller.
    #[must_use]
    pub fn stated(&self) -> Option<&Rc<SecretRef>> {
        self.stated.as_ref()
    }

    /// Where this caller's is.
    ///
    /// # Errors
    /// The caller has none.
    pub fn of(&self, facts: CallerFacts<'_>) -> Result<CredentialRef, Unresolved> {
        match &self.stated {
            Some(stated) => Ok(CredentialRef::Secret(stated.clone())),
            None => {
                let secret = self.pattern.resolve(facts, &self.fields)?;
                Ok(CredentialRef::Secret(Rc::new(secret)))
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

    /// What goes on a request, with `values` in the order of the fields.
    #[must_use]
    pub fn render(&self, values: &[Secret]) -> Injected {
        let each = |(name, template): &(String, Template)| (name.clone(), template.render(values));
        Injected {
            headers: self.headers.iter().map(each).collect(),
            query: self.query.iter().map(each).collect(),
        }
    }
}
