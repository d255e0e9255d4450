//! A compact JWS (RFC 7515) from a request.
//!
//! Owns the form: three base64url segments, a header and claims with one meaning each. Nothing in it is verified yet; a
//! header may name a key that this worker knows, but never contain one.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memchr_iter;
use serde_json::{Map, Value};
use siphasher::sip128::SipHasher24;

use crate::auth::AuthFailure;
use crate::json;
use crate::secret::Secret;

/// The upper limit of the configured token size: all headers together have no more in the shipped Envoy configuration
/// (`max_request_headers_kb: 60`).
pub const MOST_TOKEN_BYTES: usize = 61_440;
/// The most bytes of an encoded header.
const MAX_HEADER_BYTES: usize = 2_048;
/// The longest `kid`.
const MAX_KID_BYTES: usize = 256;

/// How a token is signed (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// RSA, PKCS #1 v1.5.
    Rs256,
    /// RSA, PSS.
    Ps256,
    /// Ed25519.
    EdDsa,
    /// HMAC with a shared secret; never with a key of a JWKS.
    Hs256,
}

impl Algorithm {
    /// The algorithms whose keys may be published.
    pub const PUBLIC: [Self; 5] = [Self::Es256, Self::Es384, Self::Rs256, Self::Ps256, Self::EdDsa];

    /// The name in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    /// Reads a name. RFC 9864 calls EdDSA on this curve `Ed25519`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }
}

/// A whole token in the worker's memory: its SipHash-2-4 of 128 bits under a key that this process drew at random, and
/// that nothing shows. It never leaves the process. Without the key, no text with the digest of another token can be
/// found. A token comes with each request, and this costs a fifth of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 16]);

/// The key, from the standard library's random keys of hash maps: 128 bits of the system for each process.
static DIGEST_KEY: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(0_u8), random.hash_one(1_u8)]
});

impl TokenDigest {
    fn of(token: &[u8]) -> Self {
        let [first, second] = *DIGEST_KEY;
        Self(SipHasher24::new_with_keys(first, second).hash(token).as_bytes())
    }

    /// The digest, in as many bytes as that of an API key has.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (byte, own) in bytes.iter_mut().zip(self.0) {
            *byte = own;
        }
        bytes
    }
}

/// Where a digest is written, others could compare it.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

/// A token with the right form, in the headers of its request; not yet parsed, not yet verified.
#[derive(Clone, Copy)]
pub struct PresentedToken<'h> {
    text: &'h str,
    /// Its digest.
    pub digest: TokenDigest,
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedToken").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// A token that outlives the headers of its request. Few do: the worker remembers most by their digest.
#[derive(Clone, Debug)]
pub struct KeptToken {
    text: Rc<Secret>,
    /// Its digest.
    pub digest: TokenDigest,
}

impl KeptToken {
    /// The same token.
    #[must_use]
    pub fn presented(&self) -> PresentedToken<'_> {
        PresentedToken { text: self.text(), digest: self.digest }
    }

    /// The token's text. Anyone who has it can act as its subject.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.expose()
    }
}

/// The letters of base64url, and the dot. A token has hundreds of letters and comes with each request; a table is fast.
const OF_TOKEN: [bool; 256] = of_token();

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "runs when the crate is compiled, where all of them are errors"
)]
const fn of_token() -> [bool; 256] {
    let (mut letters, mut at) = ([false; 256], 0);
    while at < 256 {
        let byte = at as u8;
        letters[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        at += 1;
    }
    letters
}

fn is_of_token(byte: u8) -> bool {
    OF_TOKEN.get(usize::from(byte)).copied().unwrap_or_default()
}

impl<'h> PresentedToken<'h> {
    /// Takes three segments of base64url, of at most `max_bytes` together.
    ///
    /// # Errors
    /// [`AuthFailure::TokenTooLarge`] and [`AuthFailure::TokenMalformed`].
    pub fn parse(text: &'h [u8], max_bytes: usize) -> Result<Self, AuthFailure> {
        if text.len() > max_bytes.min(MOST_TOKEN_BYTES) {
            return Err(AuthFailure::TokenTooLarge);
        }
        let mut dots = memchr_iter(b'.', text);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(AuthFailure::TokenMalformed);
        };
        let claims = second.saturating_sub(first) > 1;
        // Without a branch for each letter: nearly all tokens consist of nothing else.
        let lettered = text.iter().fold(true, |lettered, byte| lettered & is_of_token(*byte));
        let token = std::str::from_utf8(text).ok().filter(|_| first > 0 && claims && lettered);
        let token = token.ok_or(AuthFailure::TokenMalformed)?;
        Ok(Self { text: token, digest: TokenDigest::of(text) })
    }

    /// The token's text. Anyone who has it can act as its subject.
    #[must_use]
    pub const fn text(&self) -> &'h str {
        self.text
    }

    /// A copy that outlives the headers.
    #[must_use]
    pub fn keep(&self) -> KeptToken {
        KeptToken { text: Rc::new(Secret::new(self.text.to_owned())), digest: self.digest }
    }
}

/// The content of a token, unverified.
#[derive(Clone, Debug)]
pub struct Jws {
    /// The algorithm that its header names.
    pub algorithm: Algorithm,
    /// The key that it names.
    pub kid: Option<String>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

impl Jws {
    /// Reads a token's header and claims.
    ///
    /// # Errors
    /// Segments that are no strict base64url or no strict JSON object are malformed; then an unknown algorithm, and a
    /// header that requires an unsupported feature.
    pub fn read(token: &PresentedToken<'_>) -> Result<Self, AuthFailure> {
        let mut segments = token.text().split('.');
        let (Some(header), Some(claims), Some(signature)) =
            (segments.next(), segments.next(), segments.next())
        else {
            return Err(AuthFailure::TokenMalformed);
        };
        if header.len() > MAX_HEADER_BYTES {
            return Err(AuthFailure::TokenTooLarge);
        }
        let (header, claims) = (object(header)?, object(claims)?);
        bytes(signature)?;
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(AuthFailure::TokenAlgorithm)?;
        if !is_plain(&header) {
            return Err(AuthFailure::TokenHeader);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=MAX_KID_BYTES).contains(&kid.len()) => {
                Some(kid.clone())
            }
            Some(_) => return Err(AuthFailure::TokenHeader),
        };
        Ok(Self { algorithm, kid, claims })
    }

    /// The issuer that it claims.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }
}

/// Whether a header requires nothing beyond a signature. Critical extensions (RFC 7515 §4.1.11) are not supported; a
/// key inside a token proves nothing (RFC 8725 §3.5); `jku`, `x5u` and the like are not followed (§3.10).
fn is_plain(header: &Map<String, Value>) -> bool {
    const REFUSED: [&str; 5] = ["crit", "jwk", "b64", "zip", "enc"];
    let nested = header.get("cty").is_some_and(|cty| is_text(cty, &["jwt", "application/jwt"]));
    let typed =
        header.get("typ").is_none_or(|typ| is_text(typ, &["jwt", "at+jwt", "application/at+jwt"]));
    typed && !nested && !REFUSED.iter().any(|name| header.contains_key(*name))
}

fn is_text(value: &Value, choices: &[&str]) -> bool {
    value
        .as_str()
        .is_some_and(|text| choices.iter().any(|choice| text.eq_ignore_ascii_case(choice)))
}

fn bytes(segment: &str) -> Result<Vec<u8>, AuthFailure> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| AuthFailure::TokenMalformed)
}

fn object(segment: &str) -> Result<Map<String, Value>, AuthFailure> {
    match json::parse_strict(&bytes(segment)?) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(AuthFailure::TokenMalformed),
    }
}
