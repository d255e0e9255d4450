//! Verification keys: key sets (RFC 7517), and shared secrets.
//!
//! Owns which key fits which algorithm. A key that names an algorithm is used for that one only, so a public key never
//! becomes the secret of an HMAC. An unfit key is left out; its set stays usable.

use std::collections::HashSet;
use std::fmt;

use jwt_simple::prelude::{
    Duration, ECDSAP256PublicKeyLike as _, ECDSAP384PublicKeyLike as _, ES256PublicKey,
    ES384PublicKey, Ed25519PublicKey, EdDSAPublicKeyLike as _, HS256Key, JWTClaims, MACLike as _,
    NoCustomClaims, PS256PublicKey, RS256PublicKey, RSAPublicKeyLike as _, UnixTimeStamp,
    VerificationOptions,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::jws::{Algorithm, Jws, MOST_TOKEN_BYTES, PresentedToken};
use crate::auth::AuthFailure;
use crate::json;
use crate::order;
use crate::secret::Secret;

/// The most bytes of a key set.
pub const MAX_SET_BYTES: usize = 262_144;
/// The most keys of a set that are used, each for any number of algorithms; a rotation needs two.
pub const MAX_KEYS: usize = 64;
/// The most keys that are tried for one token that names no key.
const MAX_TRIES: usize = 4;
/// The most keys that are tried for a token that names one: an issuer may publish several keys under one name.
const MAX_TRIES_OF_NAME: usize = 16;
/// An HMAC secret is as long as the hash (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Identifies a key by its material, not by its name: the same key under another `kid` has the same thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

/// A key for one algorithm.
#[derive(Clone)]
enum Material {
    Es256(ES256PublicKey),
    Es384(ES384PublicKey),
    Rs256(RS256PublicKey),
    Ps256(PS256PublicKey),
    EdDsa(Ed25519PublicKey),
    Hs256(HS256Key),
}

/// A key that can verify tokens.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Option<String>,
    algorithm: Algorithm,
    thumbprint: Thumbprint,
    material: Material,
}

/// Without its material, which may be a secret.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.algorithm.name(), self.kid)
    }
}

/// Equal when they prove the same tokens.
impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.thumbprint == other.thumbprint
    }
}

impl Eq for VerifyingKey {}

/// The keys of one issuer at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    /// How many keys came after [`MAX_KEYS`].
    left_out: usize,
}

/// What a key set says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureCheck {
    /// This key signed it.
    Signed(Thumbprint),
    /// The set has no key for it. The issuer may have published one since.
    NoSuchKey(AuthFailure),
    /// The key that it names did not sign it. The issuer may have published another one under that name since.
    Mismatched(AuthFailure),
    /// The signature is valid, but the content is not allowed.
    Refused(AuthFailure),
}

impl KeySet {
    /// Reads a set; `allowed` are the algorithms that its issuer may use. `None` when the document is not a key set,
    /// for example an error page.
    #[must_use]
    pub fn parse(bytes: &[u8], allowed: &[Algorithm]) -> Option<Self> {
        let document = json::parse_strict(bytes).ok().filter(|_| bytes.len() <= MAX_SET_BYTES)?;
        Self::read(&document, allowed)
    }

    /// [`KeySet::parse`] for a document that was parsed strictly before.
    #[must_use]
    pub fn read(document: &Value, allowed: &[Algorithm]) -> Option<Self> {
        let keys = document.get("keys")?.as_array()?;
        let mut fit = keys.iter().map(|jwk| fit(jwk, allowed)).filter(|keys| !keys.is_empty());
        let keys = fit.by_ref().take(MAX_KEYS).flatten().collect();
        Some(Self { keys, left_out: fit.count() })
    }

    /// The set of one shared secret; `None` when it is too short to be one.
    #[must_use]
    pub fn of_secret(secret: &Secret) -> Option<Self> {
        let bytes = secret.expose().as_bytes();
        let material = Material::Hs256(HS256Key::from_bytes(bytes));
        let thumbprint = thumbprint(Algorithm::Hs256, bytes);
        let key = VerifyingKey { kid: None, algorithm: Algorithm::Hs256, thumbprint, material };
        (bytes.len() >= MIN_SECRET_BYTES).then(|| Self { keys: vec![key], left_out: 0 })
    }

    /// How many keys of the document are not used, because it has more than [`MAX_KEYS`].
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many keys there are, each counted for each algorithm that it is fit for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the set has no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key is still among these.
    #[must_use]
    pub fn holds(&self, thumbprint: Thumbprint) -> bool {
        self.keys.iter().any(|key| key.thumbprint == thumbprint)
    }

    /// Whether one of these keys signed `token`, whose parsed form is `jws`.
    #[must_use]
    pub fn prove(&self, token: &PresentedToken<'_>, jws: &Jws) -> SignatureCheck {
        let named = |kid: Option<&str>| {
            self.keys.iter().filter(|key| key.kid.as_deref() == kid).collect::<Vec<_>>()
        };
        let (candidates, sure) = match jws.kid.as_deref() {
            None => (self.keys.iter().collect(), false),
            Some(kid) => match named(Some(kid)) {
                // Keys without a name may have any.
                keys if keys.is_empty() => (named(None), false),
                keys => (keys, true),
            },
        };
        let tries = if sure { MAX_TRIES_OF_NAME } else { MAX_TRIES };
        let fit = candidates.iter().filter(|key| key.algorithm == jws.algorithm).take(tries);
        let mut failure = match (candidates.is_empty(), sure) {
            (true, _) => AuthFailure::UnknownSigner,
            (false, _) => AuthFailure::TokenAlgorithm,
        };
        for key in fit {
            match key.verify(token) {
                Ok(()) => return SignatureCheck::Signed(key.thumbprint),
                Err(AuthFailure::TokenClaims) => {
                    return SignatureCheck::Refused(AuthFailure::TokenClaims);
                }
                Err(why) => failure = why,
            }
        }
        if sure { SignatureCheck::Mismatched(failure) } else { SignatureCheck::NoSuchKey(failure) }
    }
}

impl VerifyingKey {
    fn verify(&self, token: &PresentedToken<'_>) -> Result<(), AuthFailure> {
        let (text, options) = (token.text(), signature_only());
        let verified: Result<JWTClaims<NoCustomClaims>, jwt_simple::Error> = match &self.material {
            Material::Es256(key) => key.verify_token(text, options),
            Material::Es384(key) => key.verify_token(text, options),
            Material::Rs256(key) => key.verify_token(text, options),
            Material::Ps256(key) => key.verify_token(text, options),
            Material::EdDsa(key) => key.verify_token(text, options),
            Material::Hs256(key) => key.verify_token(text, options),
        };
        match verified {
            Ok(_) => Ok(()),
            // The signature is valid, but `sub` is a number or the like.
            Err(error) if error.is::<serde_json::Error>() => Err(AuthFailure::TokenClaims),
            Err(_) => Err(AuthFailure::BadSignature),
        }
    }
}

/// Verifies only the signature. The library would compare times with a clock; [`super::claims`] checks them, each with
/// its own reason.
fn signature_only() -> Option<VerificationOptions> {
    Some(VerificationOptions {
        accept_future: true,
        time_tolerance: Some(Duration::from_secs(0)),
        artificial_time: Some(UnixTimeStamp::from_secs(0)),
        max_token_length: Some(MOST_TOKEN_BYTES),
        ..VerificationOptions::default()
    })
}

/// A JWK as a key for each allowed algorithm that it fits: none when its `use`, `key_ops` or `alg` exclude it, when it
/// is weak, and when it contains its private half.
fn fit(jwk: &Value, allowed: &[Algorithm]) -> Vec<VerifyingKey> {
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Vec::new(),
    };
    if !verifies(jwk) {
        return Vec::new();
    }
    let text = json::canonical(jwk);
    let parts = ["kty", "crv", "x", "y", "n", "e"].map(|name| jwk.get(name));
    let parts: String = parts.into_iter().map(|part| format!("{part:?},")).collect();
    let distinct: HashSet<Algorithm> = allowed.iter().copied().collect();
    let mut keys: Vec<VerifyingKey> = distinct
        .into_iter()
        .filter_map(|algorithm| {
            let material = material(algorithm, &text)?;
            let thumbprint = thumbprint(algorithm, parts.as_bytes());
            Some(VerifyingKey { kid: kid.clone(), algorithm, thumbprint, material })
        })
        .collect();
    order::sort_by(&mut keys, |one, other| one.algorithm.cmp(&other.algorithm));
    keys
}

/// Whether a JWK's `key_ops`, when there are any, name verification (RFC 7517 §4.3).
fn verifies(jwk: &Value) -> bool {
    jwk.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|list| list.iter().any(|item| item == "verify"))
    })
}

/// Reads a key with the library, only as its own type and for the given algorithm. The library refuses RSA below 2048
/// bits, points that are not on the curve, and weak Edwards points.
fn material(algorithm: Algorithm, jwk: &str) -> Option<Material> {
    match algorithm {
        Algorithm::Es256 => ES256PublicKey::from_jwk(jwk).ok().map(Material::Es256),
        Algorithm::Es384 => ES384PublicKey::from_jwk(jwk).ok().map(Material::Es384),
        Algorithm::Rs256 => RS256PublicKey::from_jwk(jwk).ok().map(Material::Rs256),
        Algorithm::Ps256 => PS256PublicKey::from_jwk(jwk).ok().map(Material::Ps256),
        Algorithm::EdDsa => Ed25519PublicKey::from_jwk(jwk).ok().map(Material::EdDsa),
        // A published secret is not secret.
        Algorithm::Hs256 => None,
    }
}

fn thumbprint(algorithm: Algorithm, material: &[u8]) -> Thumbprint {
    let name = Sha256::new_with_prefix(algorithm.name());
    Thumbprint(name.chain_update([0]).chain_update(material).finalize().into())
}
