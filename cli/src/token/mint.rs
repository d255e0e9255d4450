//! Keys and tokens for trials: a local issuer, so that you can try a policy without an identity provider.
//!
//! Owns the claims of such a token. Anyone who has the key file can mint any token of that issuer.

use std::path::{Path, PathBuf};

use clap::Args;
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike as _, ES256KeyPair, Ed25519KeyPair, EdDSAKeyPairLike as _, JWTClaims,
};
use portcullis_core::json as strict;
use serde_json::{Map, Value, json};

use crate::private_file;
use crate::random::base62;
use crate::report::{CliError, Report};
use crate::time::{Seconds, Span};
use crate::values;

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// File for the private key, PEM; made for its owner only. There must be none of that name.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Issuer: the `iss` of its tokens.
    #[arg(long, value_name = "ISS", value_parser = values::line, default_value = "https://trial.example/")]
    issuer: String,
}

#[derive(Debug, Args)]
pub(crate) struct MintArgs {
    /// File with the private key, PEM: Ed25519, as `token keygen` makes it, or P-256 (ES256).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the key (`kid`) in the issuer's key set.
    #[arg(long, value_name = "KID", value_parser = values::line, default_value = KEY_ID)]
    key_id: String,
    /// Issuer: the `iss`, as given to `token keygen`.
    #[arg(long, value_name = "ISS", value_parser = values::line, default_value = "https://trial.example/")]
    issuer: String,
    /// Audience: the URL of the MCP endpoint, or one of the issuer's `audiences`.
    #[arg(long, value_name = "AUD", value_parser = values::line)]
    audience: String,
    /// Subject.
    #[arg(long, value_name = "SUB", value_parser = values::line, default_value = "trial")]
    subject: String,
    /// Further claims, such as {"org": "acme", "role": "analyst"}; they replace those of the other options.
    #[arg(long, value_name = "JSON", value_parser = claims, default_value = "{}")]
    claims: Claims,
    /// For how long it is valid.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "5m")]
    expires: Span,
}

/// A JSON object on the command line.
#[derive(Debug, Clone)]
struct Claims(Map<String, Value>);

fn claims(text: &str) -> Result<Claims, String> {
    match strict::parse_strict(text.as_bytes()) {
        Ok(Value::Object(members)) => Ok(Claims(members)),
        Ok(_) => Err("expected a JSON object, such as {\"role\": \"analyst\"}".to_owned()),
        Err(fault) => {
            Err(format!("{fault}; expected a JSON object, such as {{\"role\": \"analyst\"}}"))
        }
    }
}

const KEY_ID: &str = "trial";

/// Makes a key, and prints the issuer's entry for the gateway's configuration.
pub(super) fn keygen(args: &KeygenArgs) -> Result<Report, CliError> {
    let place = args.out.display().to_string();
    let pair = Ed25519KeyPair::generate();
    private_file::create(&args.out, &pair.to_pem()).map_err(|error| {
        CliError::new(format!("cannot be written: {error}"), &place)
            .expected("a file that is not there yet, in a directory that is writable")
    })?;
    let jwk = pair.with_key_id(KEY_ID).public_key().to_jwk();
    let jwk: Value =
        serde_json::from_str(&jwk).map_err(|error| CliError::new(error.to_string(), place))?;
    let issuers = json!([{ "issuer": args.issuer, "jwks_inline": { "keys": [jwk] } }]);
    // On one line, because it goes into an environment variable.
    Ok(Report::done(issuers.to_string(), issuers))
}

/// Mints a token with a key of [`keygen`].
pub(super) fn mint(args: &MintArgs) -> Result<Report, CliError> {
    let pair = read(&args.key)?;
    let now = Seconds::now().0;
    let mut claims = json!({
        "iss": args.issuer,
        "sub": args.subject,
        "aud": args.audience,
        "iat": now,
        "exp": now.saturating_add(args.expires.0),
        "jti": base62(16)?,
    });
    if let Some(members) = claims.as_object_mut() {
        members.extend(args.claims.0.clone());
    }
    let refused = |error: String| {
        CliError::new(error, "--claims")
            .expected("claims of RFC 7519: exp, iat and nbf are numbers of seconds")
    };
    let typed: JWTClaims<Map<String, Value>> =
        serde_json::from_value(claims.clone()).map_err(|error| refused(error.to_string()))?;
    let token = match pair {
        KeyPair::Ed25519(pair) => pair.with_key_id(&args.key_id).sign(typed),
        KeyPair::P256(pair) => pair.with_key_id(&args.key_id).sign(typed),
    };
    let token = token.map_err(|error| refused(error.to_string()))?;
    Ok(Report::done(token.clone(), json!({ "token": token, "claims": claims })))
}

/// The signing key.
enum KeyPair {
    Ed25519(Ed25519KeyPair),
    P256(ES256KeyPair),
}

fn read(file: &Path) -> Result<KeyPair, CliError> {
    let refusal = |found: String| {
        CliError::new(found, file.display().to_string())
            .expected("a private key in PEM (PKCS #8): Ed25519 or P-256")
            .next("portcullis token keygen --out FILE")
    };
    let pem = std::fs::read_to_string(file)
        .map_err(|error| refusal(format!("cannot be read: {error}")))?;
    let ed25519 = Ed25519KeyPair::from_pem(&pem).map(KeyPair::Ed25519);
    let pair = ed25519.or_else(|_| ES256KeyPair::from_pem(&pem).map(KeyPair::P256));
    pair.map_err(|_| {
        let what = match pem.lines().find_map(|line| line.strip_prefix("-----BEGIN ")) {
            Some(kind) => format!(
                "no private key of these kinds, but {:?} (not shown)",
                kind.trim_end().trim_end_matches('-')
            ),
            None => "no private key in PEM (not shown)".to_owned(),
        };
        refusal(what)
    })
}
