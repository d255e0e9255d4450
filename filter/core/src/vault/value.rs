//! What a KV read answers.
//!
//! Owns which values a header can carry, and why another one is refused. No fault repeats a value.

use serde_json::Value;

use super::lease::Lease;
use crate::json;
use crate::secret::{Secret, Wiping};

/// The longest value: Envoy and servers take some 60 KiB of headers in all, most of which is the client's.
pub const MAX_SECRET_BYTES: usize = 8_192;

/// Why what Vault holds is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// The reply is not JSON with one meaning; a member that occurs twice has none.
    NotJson,
    /// The reply is not that of a KV read.
    NotKv,
    /// The secret does not have the field.
    NoSuchField,
    /// The field is neither a text nor a number.
    NotText,
    /// The field is empty.
    Empty,
    /// The field is longer than [`MAX_SECRET_BYTES`].
    TooLong,
    /// The field holds something other than printable ASCII, such as a line break inside.
    NotAscii,
}

impl SecretFault {
    /// Its name in audit events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotKv => "not_kv",
            Self::NoSuchField => "no_such_field",
            Self::NotText => "not_text",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::NotAscii => "not_ascii",
        }
    }

    /// What a person reads about it.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::NotJson => "the answer is not JSON with one meaning",
            Self::NotKv => "the answer is not that of a KV read: check the mount and its version",
            Self::NoSuchField => "the secret does not have the field",
            Self::NotText => "the value is neither a text nor a number",
            Self::Empty => "the field is empty",
            Self::TooLong => "the value is longer than 8192 bytes",
            Self::NotAscii => {
                "the value is not one line of printable ASCII, so no header can carry it"
            }
        }
    }

    /// Whether the answer is not Vault's: something in between, or a Vault that is not well.
    #[must_use]
    pub const fn is_garbage(self) -> bool {
        matches!(self, Self::NotJson | Self::NotKv)
    }
}

/// What a read answers.
#[derive(Debug)]
pub struct SecretData {
    /// The values, in the order of the fields.
    pub values: Vec<Secret>,
    /// Of a secret that an engine made for this read, such as a user of a database.
    pub lease: Option<Lease>,
}

/// The values of `fields` in the body of a KV read, version 2 (`data.data`) or 1 (`data`), or of one that made a secret
/// (`data`, with a lease).
pub(super) fn values(body: &[u8], fields: &[String]) -> Result<SecretData, SecretFault> {
    let _wiping = Wiping::begin();
    let reply = json::parse_reply(body).map_err(|_| SecretFault::NotJson)?;
    let data = reply.get("data").and_then(Value::as_object).ok_or(SecretFault::NotKv)?;
    // Version 2 has `data` and `metadata` here; a secret of version 1 may have a field `data` among others.
    let second = data.keys().all(|name| matches!(name.as_str(), "data" | "metadata"));
    let found = match data.get("data") {
        Some(Value::Object(found)) if second => found,
        Some(Value::Null) => return Err(SecretFault::NotKv),
        _ => data,
    };
    let value = |field: &String| found.get(field).ok_or(SecretFault::NoSuchField).and_then(text);
    let values = fields.iter().map(value).collect::<Result<_, _>>()?;
    Ok(SecretData { values, lease: Lease::of(&reply) })
}

fn text(value: &Value) -> Result<Secret, SecretFault> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(SecretFault::NotText),
    };
    let mut text = Secret::new(text);
    // `echo` and editors end a file with a line break, which is not meant.
    text.drop_line_break();
    fit(text)
}

/// The value, if a header can carry it.
pub(crate) fn fit(text: Secret) -> Result<Secret, SecretFault> {
    match text.expose().as_bytes() {
        [] => Err(SecretFault::Empty),
        bytes if bytes.len() > MAX_SECRET_BYTES => Err(SecretFault::TooLong),
        bytes if bytes.iter().all(|b| (0x20..0x7f).contains(b)) => Ok(text),
        _ => Err(SecretFault::NotAscii),
    }
}
