//! A token issuer for the demo and for scripts: a new key pair for each stack.
//!
//! Owns the private key's file, and the file with the issuer's entry for `portcullis explain --issuers`. There is no
//! server: anyone who can read the private key can mint tokens, and the gateway's configuration has the public key. A
//! real deployment configures an identity provider instead.

use crate::error::{Result, StackError};
use crate::files::write_private;
use jwt_simple::prelude::ES256KeyPair;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The `iss` of its tokens; the gateway sends no request there.
const NAME: &str = "https://issuer.demo.invalid";

/// The issuer.
#[derive(Debug)]
pub struct DemoIssuer {
    private_key: PathBuf,
    issuers: PathBuf,
    jwk: Value,
}

impl DemoIssuer {
    /// Makes a new ES256 key; writes the private key to `dir` as PEM, and the list of issuers as JSON.
    pub fn create(dir: &Path) -> Result<Self> {
        let attempted = |answer: String| StackError::Refused {
            attempted: "make a key for demo tokens".into(),
            answer,
        };
        let pair = ES256KeyPair::generate().with_key_id("demo");
        let pem = pair.to_pem().map_err(|error| attempted(error.to_string()))?;
        let private_key = dir.join("jwt-private-key.pem");
        write_private(&private_key, &pem)?;
        let jwk = serde_json::from_str(&pair.public_key().to_jwk())
            .map_err(|error| attempted(error.to_string()))?;
        let issuers = dir.join("issuers.json");
        let issuer = Self { private_key, issuers, jwk };
        write_private(&issuer.issuers, &json!([issuer.configuration()]).to_string())?;
        Ok(issuer)
    }

    /// The `iss` of its tokens.
    pub fn name(&self) -> &str {
        NAME
    }

    /// The file with the private key.
    pub fn private_key(&self) -> &Path {
        &self.private_key
    }

    /// The file with the gateway's `auth.issuers`.
    pub fn issuers(&self) -> &Path {
        &self.issuers
    }

    /// The gateway's `auth.issuers` entry.
    pub fn configuration(&self) -> Value {
        json!({"issuer": NAME, "jwks_inline": {"keys": [self.jwk]}})
    }
}
