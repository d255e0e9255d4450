//! An issuer of tokens for the demo and for scripts: a key pair, made anew for each stack.
//!
//! Owns the private key's file. There is no server: whoever may read the file mints tokens, and the gateway has the public
//! half in its configuration. A real deployment names an identity provider instead.

use crate::error::{Result, StackError};
use crate::files::write_private;
use jwt_simple::prelude::ES256KeyPair;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The `iss` of its tokens; nobody is asked there.
const NAME: &str = "https://issuer.demo.invalid";

/// Who may mint tokens.
#[derive(Debug)]
pub struct DemoIssuer {
    private_key: PathBuf,
    jwk: Value,
}

impl DemoIssuer {
    /// A new ES256 key; the private half, as PEM, lies in `dir`.
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
        Ok(Self { private_key, jwk })
    }

    /// The `iss` of its tokens.
    pub fn name(&self) -> &str {
        NAME
    }

    /// The file with the private key.
    pub fn private_key(&self) -> &Path {
        &self.private_key
    }

    /// The gateway's `auth.issuers` entry.
    pub fn configuration(&self) -> Value {
        json!({"issuer": NAME, "jwks_inline": {"keys": [self.jwk]}})
    }
}
