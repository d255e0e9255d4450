//! One worker's cache of issuers' keys and of verified tokens.
//!
//! Owns when keys are fetched: in the background before they are old, once for an unknown key, and never more often
//! than configured, whatever tokens arrive. Fetches nothing itself; the driver runs one fetch per issuer at a time and
//! passes in its result.

mod ring;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::claims::VerifiedToken;
use super::issuer::{Issuer, IssuerId, KeySource};
use super::jwks::{KeySet, MAX_SET_BYTES, SignatureCheck};
use super::jws::{Jws, PresentedToken, TokenDigest};
use crate::auth::AuthFailure;
use crate::driver::call::CallFailure;
use crate::time::UnixTime;
use ring::{Remedy, Ring};

/// The most verified tokens in the cache; the least recently used are dropped.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);

/// The result of verifying a token.
#[derive(Debug)]
pub enum Verification {
    /// The token is valid for this time and resource.
    Verified(Rc<VerifiedToken>),
    /// The token is not valid; with its content, if its signature is valid.
    Refused(AuthFailure, Option<Rc<VerifiedToken>>),
    /// The token depends on keys that must be fetched first.
    Fetch(IssuerId),
    /// The token depends on keys whose fetch failed a moment ago.
    Unavailable(CallFailure),
}

/// The keys of every issuer, and the tokens that they verified.
#[derive(Debug)]
pub struct Keyring {
    rings: BTreeMap<IssuerId, Ring>,
    tokens: LruCache<TokenDigest, Rc<VerifiedToken>>,
    /// Spreads the fetches of workers that start together.
    seed: u64,
}

impl Keyring {
    /// A worker without keys.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rings: BTreeMap::new(), tokens: LruCache::new(MAX_TOKENS), seed }
    }

    /// Drops everything: the issuers' configuration may have changed.
    pub fn reset(&mut self) {
        *self = Self::new(self.seed);
    }

    /// How many verified tokens are in the cache.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tokens.len()
    }

    /// Verifies `token` at `now` for `resource`, the canonical URI of an endpoint.
    ///
    /// A cached token needs no signature check. Its key must still be in the set, and its times and its audience are
    /// checked each time.
    pub fn verify(
        &mut self,
        token: &PresentedToken<'_>,
        issuers: &[Issuer],
        resource: Option<&str>,
        now: UnixTime,
    ) -> Verification {
        let known = self.tokens.get(&token.digest).cloned();
        let (issuer, jws) = match &known {
            Some(verified) => (by_id(issuers, verified.issuer.as_str()), None),
            None => match Jws::read(token) {
                Ok(jws) => (jws.issuer().and_then(|iss| by_id(issuers, iss)), Some(jws)),
                Err(failure) => return Verification::Refused(failure, None),
            },
        };
        let Some(issuer) = issuer else {
            return Verification::Refused(AuthFailure::UnknownIssuer, None);
        };
        let ring = self.rings.entry(issuer.id.clone()).or_default();
        let Some(keys) = keys(ring, issuer, now) else {
            return wanting(ring, issuer, now);
        };
        let verified = match (known.filter(|it| keys.holds(it.key)), jws) {
            (Some(verified), _) => return judged(verified, issuer, resource, now),
            (None, Some(jws)) => prove(token, &jws, &keys, issuer, now),
            (None, None) => match Jws::read(token) {
                Ok(jws) => prove(token, &jws, &keys, issuer, now),
                Err(failure) => return Verification::Refused(failure, None),
            },
        };
        match verified {
            Ok(verified) => {
                self.tokens.put(token.digest, verified.clone());
                judged(verified, issuer, resource, now)
            }
            Err(Unproven::Refused(failure)) => {
                self.tokens.pop(&token.digest);
                Verification::Refused(failure, None)
            }
            Err(Unproven::NoSuchKey(failure)) => {
                self.tokens.pop(&token.digest);
                lacking(ring, failure, issuer, now)
            }
            Err(Unproven::Mismatched(failure)) => {
                self.tokens.pop(&token.digest);
                match lacking(ring, failure, issuer, now) {
                    // The key is here and does not match; only a new key under the same name could.
                    Verification::Unavailable(_) => Verification::Refused(failure, None),
                    other => other,
                }
            }
        }
    }

    /// Takes the result of a fetch: the body of a good response, or the failure.
    pub fn fetched(
        &mut self,
        id: &IssuerId,
        issuers: &[Issuer],
        now: UnixTime,
        outcome: Result<&[u8], CallFailure>,
    ) {
        let Some(issuer) = by_id(issuers, id.as_str()) else {
            return;
        };
        let ring = self.rings.entry(id.clone()).or_default();
        let keys = outcome.and_then(|body| read(issuer, body).ok_or(CallFailure::Unreadable));
        match keys {
            Ok(keys) => ring.brought(keys, now),
            Err(why) => ring.failed(why, now),
        }
    }

    /// The issuers whose keys must be fetched again now, in the background: only those whose keys a token used, so that
    /// an idle worker fetches nothing.
    pub fn due(&mut self, issuers: &[Issuer], now: UnixTime) -> Vec<IssuerId> {
        let seed = self.seed;
        let mut due = Vec::new();
        for (id, ring) in &mut self.rings {
            let Some(refresh) = by_id(issuers, id.as_str()).and_then(|it| it.keys.refresh()) else {
                continue;
            };
            if ring.refresh(early(refresh.every, seed, id), now) {
                due.push(id.clone());
            }
        }
        due
    }

    /// How many keys of an issuer's last set were left out, because the set has too many.
    #[must_use]
    pub fn left_out(&self, id: &IssuerId) -> usize {
        self.rings.get(id).map_or(0, Ring::left_out)
    }

    /// The result of the last fetch of each issuer's keys; `None` for a success.
    pub fn health(&self) -> impl Iterator<Item = (&IssuerId, Option<CallFailure>)> {
        self.rings.iter().map(|(id, ring)| (id, ring.failure()))
    }
}

/// The usable keys of `issuer`: the configured secret, or the fetched keys.
fn keys(ring: &mut Ring, issuer: &Issuer, now: UnixTime) -> Option<Rc<KeySet>> {
    match issuer.keys.refresh() {
        None => issuer.keys.inline(),
        Some(refresh) => ring.used(refresh.stale, now),
    }
}

/// The result when there are no keys.
fn wanting(ring: &Ring, issuer: &Issuer, now: UnixTime) -> Verification {
    match ring.wanting(now) {
        Some(why) => Verification::Unavailable(why),
        None => Verification::Fetch(issuer.id.clone()),
    }
}

/// The result when no key matches the token.
fn lacking(ring: &Ring, failure: AuthFailure, issuer: &Issuer, now: UnixTime) -> Verification {
    let Some(refresh) = issuer.keys.refresh() else {
        return Verification::Refused(failure, None);
    };
    match ring.lacking(refresh.unknown, now) {
        Remedy::Fetch => Verification::Fetch(issuer.id.clone()),
        // The token may be valid, but it cannot be verified now.
        Remedy::Unavailable(why) => Verification::Unavailable(why),
        Remedy::Fresh => Verification::Refused(failure, None),
    }
}

/// The reason for a failed signature check.
enum Unproven {
    Refused(AuthFailure),
    NoSuchKey(AuthFailure),
    /// The key that the token names did not sign it.
    Mismatched(AuthFailure),
}

fn prove(
    token: &PresentedToken<'_>,
    jws: &Jws,
    keys: &KeySet,
    issuer: &Issuer,
    now: UnixTime,
) -> Result<Rc<VerifiedToken>, Unproven> {
    if !issuer.algorithms.contains(&jws.algorithm) {
        return Err(Unproven::Refused(AuthFailure::TokenAlgorithm));
    }
    match keys.prove(token, jws) {
        SignatureCheck::Signed(key) => {
            VerifiedToken::read(&jws.claims, token.digest, key, issuer, now)
                .map(Rc::new)
                .map_err(Unproven::Refused)
        }
        SignatureCheck::NoSuchKey(failure) => Err(Unproven::NoSuchKey(failure)),
        SignatureCheck::Mismatched(failure) => Err(Unproven::Mismatched(failure)),
        SignatureCheck::Refused(failure) => Err(Unproven::Refused(failure)),
    }
}

fn judged(
    verified: Rc<VerifiedToken>,
    issuer: &Issuer,
    resource: Option<&str>,
    now: UnixTime,
) -> Verification {
    match verified.check(issuer, resource, now) {
        Ok(()) => Verification::Verified(verified),
        Err(failure) => Verification::Refused(failure, Some(verified)),
    }
}

fn read(issuer: &Issuer, body: &[u8]) -> Option<KeySet> {
    if body.len() > MAX_SET_BYTES {
        return None;
    }
    match &issuer.keys {
        KeySource::Jwks(_) => KeySet::parse(body, &issuer.algorithms),
        KeySource::Inline(_) => None,
        KeySource::Secret { secret, .. } => KeySet::of_secret(&secret.read_one(body).ok()?),
    }
}

/// The entry of the issuer that a token names: the only one, since a configuration with two of one id is refused.
pub(crate) fn by_id<'a>(issuers: &'a [Issuer], id: &str) -> Option<&'a Issuer> {
    issuers.iter().find(|issuer| issuer.id.as_str() == id)
}

/// Up to a tenth of the time earlier, different for each worker and issuer.
fn early(every: Duration, seed: u64, id: &IssuerId) -> Duration {
    let mut hasher = Sha256::new_with_prefix(seed.to_be_bytes());
    hasher.update(id.as_str());
    let byte = hasher.finalize().first().copied().unwrap_or(0);
    let tenth = every.checked_div(10).unwrap_or(Duration::ZERO);
    let part = tenth.saturating_mul(u32::from(byte)).checked_div(256).unwrap_or(Duration::ZERO);
    every.saturating_sub(part)
}
