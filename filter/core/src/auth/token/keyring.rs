//! What one worker knows of issuers' keys and of tokens that they proved.
//!
//! Owns when keys are fetched: in the background before they are old, once for a key that is not
//! among them, never more often than configured, whatever tokens come in. Fetches nothing itself;
//! the driver starts one fetch per issuer at a time and hands in what came of it.

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

/// The most proven tokens that are remembered; the least recently used make room.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);

/// What became of a token.
#[derive(Debug)]
pub enum Verification {
    /// It is good, here and now.
    Verified(Rc<VerifiedToken>),
    /// It is not; whose it is, if it was proven nevertheless.
    Refused(AuthFailure, Option<Rc<VerifiedToken>>),
    /// It depends on keys that have to be fetched first.
    Fetch(IssuerId),
    /// It depends on keys that could not be fetched a moment ago.
    Unavailable(CallFailure),
}

/// The keys of every issuer, and the tokens that they proved.
#[derive(Debug)]
pub struct Keyring {
    rings: BTreeMap<IssuerId, Ring>,
    tokens: LruCache<TokenDigest, Rc<VerifiedToken>>,
    /// Spreads the fetches of workers that started together.
    seed: u64,
}

impl Keyring {
    /// A worker that knows no key yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rings: BTreeMap::new(), tokens: LruCache::new(MAX_TOKENS), seed }
    }

    /// Forgets everything: issuers may mean something else now.
    pub fn reset(&mut self) {
        *self = Self::new(self.seed);
    }

    /// How many proven tokens are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tokens.len()
    }

    /// Whether `token` is good at `now` for `resource`, the canonical URI of an endpoint.
    ///
    /// A remembered token costs no signature; that its key is still in the set, its times and its
    /// audience are looked at each time.
    pub fn verify(
        &mut self,
        token: &PresentedToken,
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
            (Some(verified), _) => Ok(verified),
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
                    // The key is here and says no; another one under its name would have to be published.
                    Verification::Unavailable(_) => Verification::Refused(failure, None),
                    other => other,
                }
            }
        }
    }

    /// What came of a fetch: the body of a good answer, or why there is none.
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

    /// The issuers whose keys are to be fetched again now, in the background: those that tokens
    /// asked for, since an idle worker has no need to.
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

    /// How many keys of an issuer's last set were left out, since there are too many.
    #[must_use]
    pub fn left_out(&self, id: &IssuerId) -> usize {
        self.rings.get(id).map_or(0, Ring::left_out)
    }

    /// How the last fetch of each issuer's keys went; `None` for one that worked.
    pub fn health(&self) -> impl Iterator<Item = (&IssuerId, Option<CallFailure>)> {
        self.rings.iter().map(|(id, ring)| (id, ring.failure()))
    }
}

/// The keys of `issuer`, when they may be used: its own, or those that were fetched.
fn keys(ring: &mut Ring, issuer: &Issuer, now: UnixTime) -> Option<Rc<KeySet>> {
    match issuer.keys.refresh() {
        None => issuer.keys.inline(),
        Some(refresh) => ring.used(refresh.stale, now),
    }
}

/// There are no keys to judge by.
fn wanting(ring: &Ring, issuer: &Issuer, now: UnixTime) -> Verification {
    match ring.wanting(now) {
        Some(why) => Verification::Unavailable(why),
        None => Verification::Fetch(issuer.id.clone()),
    }
}

/// The keys are not those of the token.
fn lacking(ring: &Ring, failure: AuthFailure, issuer: &Issuer, now: UnixTime) -> Verification {
    let Some(refresh) = issuer.keys.refresh() else {
        return Verification::Refused(failure, None);
    };
    match ring.lacking(refresh.unknown, now) {
        Remedy::Fetch => Verification::Fetch(issuer.id.clone()),
        // It might be good, and nobody can tell.
        Remedy::Unavailable(why) => Verification::Unavailable(why),
        Remedy::Fresh => Verification::Refused(failure, None),
    }
}

/// Why a signature was not found right.
enum Unproven {
    Refused(AuthFailure),
    NoSuchKey(AuthFailure),
    /// Not by the key that it names.
    Mismatched(AuthFailure),
}

fn prove(
    token: &PresentedToken,
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

fn by_id<'a>(issuers: &'a [Issuer], id: &str) -> Option<&'a Issuer> {
    issuers.iter().find(|issuer| issuer.id.as_str() == id)
}

/// Up to a tenth earlier, each worker and issuer at a point of its own.
fn early(every: Duration, seed: u64, id: &IssuerId) -> Duration {
    let mut hasher = Sha256::new_with_prefix(seed.to_be_bytes());
    hasher.update(id.as_str());
    let byte = hasher.finalize().first().copied().unwrap_or(0);
    let tenth = every.checked_div(10).unwrap_or(Duration::ZERO);
    let part = tenth.saturating_mul(u32::from(byte)).checked_div(256).unwrap_or(Duration::ZERO);
    every.saturating_sub(part)
}
