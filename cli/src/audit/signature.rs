//! Ed25519 signatures of anchors: made with a key file or by Vault's transit engine, checked with a public key.
//!
//! Owns the forms of keys. The core owns the signed text.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_compact::{KeyPair, PublicKey, Signature};
use serde_json::{Value, json};

use crate::args::SignerArgs;
use crate::http;
use crate::report::CliError;

const BOUND: Duration = Duration::from_secs(10);
const KEY: &str =
    "an Ed25519 private key in PEM (PKCS#8), as `openssl genpkey -algorithm ed25519` makes it";
const PUBLIC_KEY: &str =
    "an Ed25519 public key: PEM, as `openssl pkey -pubout` prints it, or base64, as Vault shows it";

/// The signer.
pub(super) enum Signer {
    /// A private key from a file.
    Key(Box<KeyPair>),
    /// A key that never leaves Vault.
    Transit(Transit),
}

/// A key of Vault's transit engine.
pub(super) struct Transit {
    url: String,
    token: String,
    mount: String,
    name: String,
}

impl Signer {
    pub(super) fn of(args: &SignerArgs) -> Result<Self, CliError> {
        if let Some(file) = &args.key {
            let pem = read(file)?;
            let pair = KeyPair::from_pem(&pem);
            let place = file.display().to_string();
            let pair =
                pair.map_err(|_| CliError::new("no key in this file", place).expected(KEY))?;
            return Ok(Self::Key(Box::new(pair)));
        }
        let (Some(name), Some(url), Some(token)) = (&args.vault_key, &args.vault, &args.token)
        else {
            return Err(CliError::usage("nothing to sign with").expected(
                "--key FILE; or --vault-key NAME with --vault (VAULT_ADDR) and VAULT_TOKEN",
            ));
        };
        Ok(Self::Transit(Transit {
            url: url.trim_end_matches('/').to_owned(),
            token: token.clone(),
            mount: args.vault_mount.trim_matches('/').to_owned(),
            name: name.clone(),
        }))
    }

    /// The signature in base64.
    pub(super) fn sign(&self, text: &str) -> Result<String, CliError> {
        match self {
            Self::Key(pair) => Ok(BASE64.encode(pair.sk.sign(text, None).as_ref())),
            Self::Transit(transit) => transit.sign(text),
        }
    }

    /// The public key for its signatures.
    pub(super) fn public_key(&self) -> Result<PublicKey, CliError> {
        match self {
            Self::Key(pair) => Ok(pair.pk),
            Self::Transit(transit) => transit.public_key(),
        }
    }
}

impl Transit {
    fn sign(&self, text: &str) -> Result<String, CliError> {
        let path = format!("{}/v1/{}/sign/{}", self.url, self.mount, self.name);
        let body = json!({ "input": BASE64.encode(text) }).to_string();
        let asked = http::agent(BOUND)
            .post(&path)
            .header("x-vault-token", &self.token)
            .header("content-type", "application/json")
            .send(body);
        let answer = self.answer(asked, &path)?;
        let signature = answer.pointer("/data/signature").and_then(Value::as_str);
        // vault:v1:BASE64
        let signature = signature.and_then(|it| it.rsplit(':').next()).map(str::to_owned);
        signature.ok_or_else(|| {
            CliError::new("an answer without a signature", path)
                .expected("a transit key of type ed25519")
        })
    }

    fn public_key(&self) -> Result<PublicKey, CliError> {
        let path = format!("{}/v1/{}/keys/{}", self.url, self.mount, self.name);
        let asked = http::agent(BOUND).get(&path).header("x-vault-token", &self.token).call();
        let answer = self.answer(asked, &path)?;
        let latest = answer.pointer("/data/latest_version").and_then(Value::as_u64);
        let latest = latest.unwrap_or_default().to_string();
        let key = answer.pointer(&format!("/data/keys/{latest}/public_key"));
        let key = key.and_then(Value::as_str).and_then(public_key);
        key.ok_or_else(|| {
            CliError::new("no public key of its latest version", path)
                .expected("a transit key of type ed25519")
        })
    }

    fn answer(
        &self,
        asked: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        path: &str,
    ) -> Result<Value, CliError> {
        let mut answer = asked.map_err(|error| {
            CliError::new(error.to_string(), path)
                .expected("an answer of Vault")
                .next("check --vault")
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_vec().unwrap_or_default();
        let next = match status {
            200 => return Ok(serde_json::from_slice(&body).unwrap_or_default()),
            403 => "a VAULT_TOKEN that may update sign/KEY and read keys/KEY of the transit engine",
            404 => {
                "vault write transit/keys/NAME type=ed25519; --vault-mount if the engine is elsewhere"
            }
            _ => "look into Vault's log",
        };
        Err(CliError::new(format!("Vault answers with {status}"), path).expected("200").next(next))
    }
}

/// Reads a public key from a file.
pub(super) fn read_public_key(file: &Path) -> Result<PublicKey, CliError> {
    let text = read(file)?;
    public_key(text.trim()).ok_or_else(|| {
        CliError::new("no public key in this file", file.display().to_string()).expected(PUBLIC_KEY)
    })
}

fn public_key(text: &str) -> Option<PublicKey> {
    if text.starts_with("-----BEGIN") {
        return PublicKey::from_pem(text).ok();
    }
    PublicKey::from_slice(&BASE64.decode(text).ok()?).ok()
}

/// The key as entries name it.
pub(super) fn shown(key: &PublicKey) -> String {
    BASE64.encode(key.as_ref())
}

/// Whether `signature` is a signature of `text` by `key`.
pub(super) fn is_signed(text: &str, signature: &str, key: &PublicKey) -> bool {
    let signature = BASE64.decode(signature).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    signature.is_some_and(|signature| key.verify(text, &signature).is_ok())
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::new(error.to_string(), file.display().to_string()).expected("a file with a key")
    })
}
