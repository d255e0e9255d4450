//! One secret in Vault, and the requested fields.
//!
//! Owns the path of the API that reads it. [`crate::connector_credential`] owns where the path comes from.

use std::fmt;

use super::SecretFault;
use super::is_plain;
use super::value::{SecretData, values};
use crate::secret::Secret;

/// The API of a KV mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvVersion {
    /// `GET /v1/:mount/:path`.
    One,
    /// `GET /v1/:mount/data/:path`.
    #[default]
    Two,
}

/// A mount of the KV engine whose path has a slash, or whose version is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its path.
    pub path: String,
    /// Its API.
    pub kv: KvVersion,
}

/// Fields of one secret of the KV engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// Mount and path.
    place: String,
    /// How many of the first segments are literals of the policy. Only these can be the mount: the caller's facts never
    /// select one.
    stated: usize,
    version: Option<u32>,
    fields: Vec<String>,
    /// The owner, when the path depends on the caller.
    owner: Option<String>,
}

impl SecretRef {
    /// The form of a valid reference to one field.
    pub const EXPECTED: &'static str =
        "a reference vault://mount/path#field, such as vault://secret/connectors/demo#api_key";

    /// Reads a reference to one field that does not depend on a caller.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (place, field) = text.strip_prefix("vault://")?.split_once('#')?;
        let plain = is_plain(place) && place.contains('/') && is_plain(field);
        plain.then(|| Self {
            place: place.to_owned(),
            stated: place.split('/').count(),
            version: None,
            fields: vec![field.to_owned()],
            owner: None,
        })
    }

    /// Fields of the secret at `place`; the first `stated` segments of it are the policy's own.
    pub(crate) fn new(
        (place, stated): (String, usize),
        version: Option<u32>,
        fields: Vec<String>,
        owner: Option<String>,
    ) -> Self {
        Self { place, stated, version, fields, owner }
    }

    /// The mount, its API, and the path in it. The mount is the longest of `mounts` that the reference begins with, or
    /// else its first segment, with version 2.
    #[must_use]
    pub fn in_mount<'a>(&'a self, mounts: &'a [Mount]) -> (&'a str, KvVersion, &'a str) {
        let fits = |mount: &&Mount| {
            mount.path.split('/').count() <= self.stated
                && self.place.strip_prefix(&mount.path).is_some_and(|rest| rest.starts_with('/'))
        };
        let longest = mounts.iter().filter(fits).max_by_key(|mount| mount.path.len());
        let first = self.place.split('/').next().unwrap_or_default();
        let (mount, kv) = match longest {
            Some(mount) => (mount.path.as_str(), mount.kv),
            None => (first, KvVersion::Two),
        };
        let path = self.place.get(mount.len()..).unwrap_or_default();
        (mount, kv, path.strip_prefix('/').unwrap_or(path))
    }

    /// The path of the API read.
    #[must_use]
    pub fn api_path(&self, mounts: &[Mount]) -> String {
        let (mount, kv, path) = self.in_mount(mounts);
        match (kv, self.version) {
            (KvVersion::One, _) => format!("/v1/{mount}/{path}"),
            (KvVersion::Two, None) => format!("/v1/{mount}/data/{path}"),
            (KvVersion::Two, Some(version)) => format!("/v1/{mount}/data/{path}?version={version}"),
        }
    }

    /// The requested fields.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The holder of the credential, with its organisation, when the path depends on the caller.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The pinned version of the secret.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    pub(crate) fn breaker(&self) -> String {
        match self.owner {
            None => self.to_string(),
            Some(_) => Self::folder(&self.place.split('/').take(self.stated).collect::<Vec<_>>()),
        }
    }

    /// The name of the folder with these segments.
    pub(crate) fn folder(stated: &[&str]) -> String {
        format!("vault://{}/{{}}", stated.join("/"))
    }

    /// The values in the body of a successful read.
    ///
    /// # Errors
    /// Why they cannot be header values.
    pub fn read(&self, body: &[u8]) -> Result<SecretData, SecretFault> {
        values(body, &self.fields)
    }

    /// The value of the only field.
    ///
    /// # Errors
    /// The same.
    pub fn read_one(&self, body: &[u8]) -> Result<Secret, SecretFault> {
        self.read(body)?.values.into_iter().next().ok_or(SecretFault::NoSuchField)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vault://{}", self.place)?;
        if let Some(version) = self.version {
            write!(f, "?version={version}")?;
        }
        write!(f, "#{}", self.fields.join(","))
    }
}
