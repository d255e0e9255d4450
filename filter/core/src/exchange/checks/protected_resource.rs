//! The gateway as a protected resource (RFC 9728), for clients that have no token yet.
//!
//! Owns the metadata documents and the URL in a challenge. The documents are the same for every client, so they reveal
//! nothing of an organisation's policy.

use serde_json::{Map, Value, json};

use super::cors;
use crate::config::AuthConfig;
use crate::denial::Denial;
use crate::driver::event::Head;
use crate::exchange::session::session_of;
use crate::http::local_reply::LocalReply;

/// The path of the documents (RFC 9728 §3); the path of an endpoint follows.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The document that `head` asks for, if it exists: only when an issuer is configured, because otherwise a client with
/// an API key would look for a token in vain.
pub(crate) fn document(head: &Head, auth: &AuthConfig, page: Option<&str>) -> Option<LocalReply> {
    if !matches!(head.method(), b"GET" | b"HEAD") {
        return None;
    }
    let (url, path) = (auth.external_url.as_deref()?, head.path());
    let endpoint = path.strip_prefix(WELL_KNOWN)?;
    let endpoint = match endpoint {
        "" | "/" => "",
        path if is_plain(path) => path,
        _ => return None,
    };
    let issuers: Vec<&str> = auth.issuers_at(endpoint).map(|issuer| issuer.id.as_str()).collect();
    if issuers.is_empty() {
        return None;
    }
    let mut document = Map::from_iter([
        ("resource".to_owned(), json!(format!("{url}{endpoint}"))),
        ("authorization_servers".to_owned(), json!(issuers)),
        ("bearer_methods_supported".to_owned(), json!(["header"])),
    ]);
    if !auth.scopes.is_empty() {
        document.insert("scopes_supported".to_owned(), json!(auth.scopes));
    }
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "max-age=300".to_owned()),
    ];
    headers.extend(page.into_iter().flat_map(cors::headers));
    Some(LocalReply { status: 200, headers, body: Value::from(document).to_string().into_bytes() })
}

/// The additions to a challenge for an OAuth client (RFC 9728 §5.1, RFC 6750 §3); none when no issuer's tokens are
/// accepted, because the client would look for a login in vain.
pub(crate) fn hint(head: &Head, auth: &AuthConfig) -> Option<Hint> {
    let (url, path) = (auth.external_url.as_deref()?, head.path());
    auth.issuers_at(path).next()?;
    let path = if is_plain(path) { path } else { "" };
    // The POST path of HTTP+SSE is no resource. Its client knows the resource of its stream, and looks there unless the
    // challenge names another. Only a policy has that path, and an unauthenticated client has no policy.
    let metadata = (!posts_elsewhere(head)).then(|| [url, WELL_KNOWN, path].concat());
    Some(Hint { metadata, scopes: auth.scopes.join(" ") })
}

/// Whether the request looks like a POST of HTTP+SSE, whose response comes on a stream of another path.
pub(crate) fn posts_elsewhere(head: &Head) -> bool {
    matches!(session_of(head.query()), Ok(Some(_)))
}

/// The place where a client learns how to get a token.
#[derive(Clone, Debug)]
pub(crate) struct Hint {
    metadata: Option<String>,
    scopes: String,
}

impl Hint {
    /// Completes the challenge of `denial`.
    pub(crate) fn complete(&self, denial: &Denial, reply: &mut LocalReply) {
        let challenges = reply.headers.iter_mut().filter(|(name, _)| *name == "www-authenticate");
        for (_, challenge) in challenges {
            // A refusal because of missing scopes names the scopes itself.
            if matches!(denial, Denial::Unauthenticated(_)) && !self.scopes.is_empty() {
                challenge.push_str(&format!(r#", scope="{}""#, self.scopes));
            }
            if let Some(metadata) = &self.metadata {
                challenge.push_str(&format!(r#", resource_metadata="{metadata}""#));
            }
        }
    }
}

/// Whether a path has the same meaning in a URL, in JSON and between quotes.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    path.starts_with('/') && path.bytes().all(plain) && !path.contains("..") && path.len() <= 256
}
