//! Credentials of connectors: where they are in Vault, how they become a header.
//!
//! Owns references, templates, the reply of a KV v2 read and how long its value is used. Fetches
//! nothing. Values live in [`Secret`]s only.

use std::time::Duration;

use serde_json::Value;

use crate::json;
use crate::secret::Secret;
use crate::time::UnixTime;

/// `vault://mount/path#field`: one field of a KV v2 secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    mount: String,
    path: String,
    field: String,
}

impl SecretRef {
    /// What a valid reference looks like.
    pub const EXPECTED: &'static str =
        "a reference vault://mount/path#field, such as vault://secret/connectors/demo#api_key";

    /// Reads a reference.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (place, field) = text.strip_prefix("vault://")?.split_once('#')?;
        let (mount, path) = place.split_once('/')?;
        (is_plain(mount) && is_plain(path) && is_plain(field)).then(|| Self {
            mount: mount.to_owned(),
            path: path.to_owned(),
            field: field.to_owned(),
        })
    }

    /// The path of the API read (KV v2, `GET /v1/:mount/data/:path`). The mount is the longest of `mounts` that the
    /// reference begins with, or else its first segment.
    #[must_use]
    pub fn api_path(&self, mounts: &[String]) -> String {
        let place = format!("{}/{}", self.mount, self.path);
        let parts = mounts.iter().filter_map(|mount| {
            Some((mount.as_str(), place.strip_prefix(mount.as_str())?.strip_prefix('/')?))
        });
        let longest = parts.max_by_key(|(mount, _)| mount.len());
        let (mount, path) = longest.unwrap_or((&self.mount, &self.path));
        format!("/v1/{mount}/data/{path}")
    }

    /// Whether it was copied from the API's path, which has `data` between mount and path; a reference has not.
    #[must_use]
    pub fn has_api_form(&self) -> bool {
        self.path.split('/').next() == Some("data")
    }

    /// The field of the secret.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The value in the body of a successful read.
    ///
    /// # Errors
    /// Why there is none that a header can carry.
    pub fn read(&self, body: &[u8]) -> Result<Secret, SecretFault> {
        let reply = json::parse_strict(body).map_err(|_| SecretFault::NotJson)?;
        let fields = reply.pointer("/data/data").and_then(Value::as_object);
        let field = fields.ok_or(SecretFault::NotKv2)?.get(&self.field);
        let Value::String(value) = field.ok_or(SecretFault::NoSuchField)? else {
            return Err(SecretFault::NotText);
        };
        match value.as_bytes() {
            [] => Err(SecretFault::Empty),
            bytes if bytes.len() > MAX_SECRET_BYTES => Err(SecretFault::TooLong),
            bytes if bytes.iter().all(|b| (0x20..0x7f).contains(b)) => {
                Ok(Secret::new(value.clone()))
            }
            _ => Err(SecretFault::NotAscii),
        }
    }
}

/// The longest value: Envoy and servers take some 60 KiB of headers in all, most of which is the client's.
pub const MAX_SECRET_BYTES: usize = 8_192;

/// Why what Vault holds is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// The reply is not JSON with one meaning; a member that occurs twice has none.
    NotJson,
    /// The reply is not that of a KV v2 read.
    NotKv2,
    /// The secret does not have the field.
    NoSuchField,
    /// The field is not a text.
    NotText,
    /// The field is empty.
    Empty,
    /// The field is longer than [`MAX_SECRET_BYTES`].
    TooLong,
    /// The field holds something other than printable ASCII, such as a line break.
    NotAscii,
}

impl SecretFault {
    /// Its name in audit events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotKv2 => "not_kv2",
            Self::NoSuchField => "no_such_field",
            Self::NotText => "not_text",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::NotAscii => "not_ascii",
        }
    }
}

/// Segments that stay where they are: no `.`, no `..`, nothing that a URL would read otherwise.
pub(crate) fn is_plain(text: &str) -> bool {
    text.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    })
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vault://{}/{}#{}", self.mount, self.path, self.field)
    }
}

/// How a secret becomes a request header of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialTemplate {
    secret: SecretRef,
    header: String,
    before: String,
    after: String,
}

impl CredentialTemplate {
    /// What a valid header name looks like.
    pub const HEADER: &'static str =
        "a header name in lower case that is not Envoy's or MCP's own, such as authorization";
    /// What a valid template looks like.
    pub const TEMPLATE: &'static str =
        "a text with {secret} exactly once, such as \"Bearer {secret}\"";

    /// Puts the parts together.
    #[must_use]
    pub fn new(secret: SecretRef, header: String, (before, after): (String, String)) -> Self {
        Self { secret, header, before, after }
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

    /// The text before and after `{secret}`.
    #[must_use]
    pub fn split(text: &str) -> Option<(String, String)> {
        let (before, after) = text.split_once("{secret}")?;
        let plain = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b));
        let once = !after.contains("{secret}") && plain(before) && plain(after);
        once.then(|| (before.to_owned(), after.to_owned()))
    }

    /// Where the secret is.
    #[must_use]
    pub fn secret(&self) -> &SecretRef {
        &self.secret
    }

    /// The header it goes into.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The header's value.
    #[must_use]
    pub fn render(&self, secret: &Secret) -> Secret {
        Secret::new([&self.before, secret.expose(), &self.after].concat())
    }
}

/// A credential in memory, and until when it is used.
#[derive(Debug)]
pub struct CachedSecret {
    /// The value.
    pub secret: Secret,
    read: UnixTime,
    expires: UnixTime,
}

impl CachedSecret {
    /// Holds `secret` for `life` from `now`.
    #[must_use]
    pub fn new(secret: Secret, now: UnixTime, life: Duration) -> Self {
        Self { secret, read: now, expires: now.after(life) }
    }

    /// When it was read.
    #[must_use]
    pub fn read_at(&self) -> UnixTime {
        self.read
    }

    /// Whether it may still be used.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// Whether it may be used when it cannot be read again: for `stale` beyond its life.
    #[must_use]
    pub fn is_usable(&self, now: UnixTime, stale: Duration) -> bool {
        now < self.expires.after(stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: C1
    #[test]
    fn references_name_one_field_and_cannot_leave_their_mount() {
        let secret = SecretRef::parse("vault://secret/connectors/demo#api_key").unwrap();
        assert_eq!(secret.api_path(&[]), "/v1/secret/data/connectors/demo");
        // Finding 7.2: a mount with a slash was read as a mount and a path.
        let deep = SecretRef::parse("vault://team/kvv2/crm#key").unwrap();
        let mounts = ["team".to_owned(), "team/kvv2".to_owned(), "team/kv".to_owned()];
        assert_eq!(deep.api_path(&mounts), "/v1/team/kvv2/data/crm");
        assert_eq!(deep.api_path(&[]), "/v1/team/data/kvv2/crm");
        assert_eq!(secret.api_path(&mounts), "/v1/secret/data/connectors/demo");
        assert!(SecretRef::parse("vault://secret/data/demo#x").unwrap().has_api_form());
        assert!(!secret.has_api_form());
        for bad in [
            "secret/demo#x",
            "vault://secret#x",
            "vault://secret/demo",
            "vault://secret/../sys#x",
            "vault://secret/a//b#x",
            "vault://secret/a?version=1#x",
        ] {
            assert_eq!(SecretRef::parse(bad), None, "{bad}");
        }
    }

    // Proves: A5
    #[test]
    fn a_value_is_taken_only_when_a_header_can_carry_it() {
        let secret = SecretRef::parse("vault://secret/demo#api_key").unwrap();
        let body = br#"{"data":{"data":{"api_key":"s3cret","n":1},"metadata":{}}}"#;
        let value = secret.read(body).unwrap();
        let template = CredentialTemplate::split("Bearer {secret}!").unwrap();
        let template = CredentialTemplate::new(secret.clone(), "authorization".into(), template);
        assert_eq!(template.render(&value).expose(), "Bearer s3cret!");
        for (bad, fault) in [
            (&br#"{"data":{"data":null}}"#[..], SecretFault::NotKv2),
            (br#"{"data":{"data":{"other":"x"}}}"#, SecretFault::NoSuchField),
            (br#"{"data":{"data":{"api_key":""}}}"#, SecretFault::Empty),
            (br#"{"data":{"data":{"api_key":"a\r\nhost: evil"}}}"#, SecretFault::NotAscii),
            (br#"{"data":{"data":{"api_key":7}}}"#, SecretFault::NotText),
            (b"upstream connect error", SecretFault::NotJson),
            // Finding 10.9: the last one counted.
            (br#"{"data":{"data":{"api_key":"a","api_key":"b"}}}"#, SecretFault::NotJson),
            (br#"{"data":{"data":{"api_key":"a"},"data":{"api_key":"b"}}}"#, SecretFault::NotJson),
        ] {
            assert_eq!(secret.read(bad).unwrap_err(), fault);
        }
        // Finding 10.9: 900 KB went into a header.
        let long = |length: usize| {
            format!(r#"{{"data":{{"data":{{"api_key":"{}"}}}}}}"#, "s".repeat(length))
        };
        assert!(secret.read(long(MAX_SECRET_BYTES).as_bytes()).is_ok());
        let fault = secret.read(long(MAX_SECRET_BYTES + 1).as_bytes()).unwrap_err();
        assert_eq!(fault, SecretFault::TooLong);
    }
}
