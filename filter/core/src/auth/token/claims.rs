//! The claims of a token, and whom they make of its holder.
//!
//! Owns what each claim must look like, the times, the audience, and the mapping that an issuer is
//! configured with. Believes every claim: whether the token is signed is [`super::jwks`]'s business.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::issuer::{Issuer, IssuerId, Source};
use super::jwks::Thumbprint;
use super::jws::TokenDigest;
use crate::auth::certificate::Fingerprint;
use crate::auth::deny_list::Deniable;
use crate::auth::{
    AuthFailure, IdentityKind, Principal, Restrictions, Scopes, Unmapped, VerifiedCredential,
};
use crate::id::{OrgId, PolicyName};
use crate::json::lookup;
use crate::order;
use crate::time::UnixTime;

/// The longest subject, name or `jti`; longer ones are no identifiers.
const MAX_TEXT_BYTES: usize = 256;
/// The most scopes or audiences of a token that are read.
const MAX_ITEMS: usize = 256;
/// 9999-12-31T23:59:59Z: a `NumericDate` beyond is not meant.
const LAST_SECOND: u64 = 253_402_300_799;

/// A token that was proven: signed, and saying who its subject is. Whether it is valid now, and
/// here, is asked of it each time it is used.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// Who issued it.
    pub issuer: IssuerId,
    /// Its digest.
    pub digest: TokenDigest,
    /// The key that proved it.
    pub key: Thumbprint,
    /// Whom it makes of its holder.
    pub credential: Rc<VerifiedCredential>,
    times: Times,
    audiences: Vec<String>,
}

/// When a token is valid, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    issued_at: Option<u64>,
    not_before: Option<u64>,
    expires_at: u64,
}

impl VerifiedToken {
    /// Reads the claims of a token that `key` signed for `issuer`.
    ///
    /// # Errors
    /// [`AuthFailure::TokenClaims`] for what is missing or of another type; then the times; then
    /// [`AuthFailure::TokenUnmapped`] for a subject without organisation, role or tier.
    pub fn read(
        claims: &Map<String, Value>,
        digest: TokenDigest,
        key: Thumbprint,
        issuer: &Issuer,
        now: UnixTime,
    ) -> Result<Self, AuthFailure> {
        let times = Times::read(claims)?;
        times.check(issuer, now)?;
        let subject = subject(claims)?;
        let token_id = text(claims, "jti")?;
        let (bound, audiences) = (certificate(claims)?, audiences(claims)?);
        let principal = caller(claims, issuer)?;
        let name = || issuer.id.to_string();
        let token = token_id.map(|id| Deniable::Token { issuer: name(), id });
        let deniable = token.into_iter().chain([Deniable::Subject { issuer: name(), subject }]);
        let deniable: Vec<_> = deniable.collect();
        let credential = VerifiedCredential::new(principal, &deniable, times.issued_at, bound);
        let credential = Rc::new(credential.with_claims(claims.clone(), digest));
        let issuer = issuer.id.clone();
        Ok(Self { issuer, digest, key, credential, times, audiences })
    }

    /// The first second at which it is no longer valid, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> u64 {
        self.times.expires_at
    }

    /// Whether it is valid at `now`, and meant for `resource`: the canonical URI of the endpoint
    /// (RFC 8707 §2, RFC 8725 §3.9), when this gateway knows how clients call it.
    ///
    /// # Errors
    /// [`AuthFailure::Expired`], [`AuthFailure::NotYetValid`], [`AuthFailure::TokenLifetime`],
    /// [`AuthFailure::WrongAudience`].
    pub fn check(
        &self,
        issuer: &Issuer,
        resource: Option<&str>,
        now: UnixTime,
    ) -> Result<(), AuthFailure> {
        self.times.check(issuer, now)?;
        let meant = |audience: &String| {
            issuer.audiences.contains(audience)
                || resource.is_some_and(|resource| same_resource(audience, resource))
        };
        if self.audiences.iter().any(meant) { Ok(()) } else { Err(AuthFailure::WrongAudience) }
    }
}

/// Whom the claims of a token of `issuer` make of its holder. Whether the token is signed, and valid now, is not
/// asked.
///
/// # Errors
/// [`AuthFailure::TokenClaims`] for what is missing or of another type, [`AuthFailure::TokenUnmapped`] for a
/// subject without organisation, role or tier.
pub fn caller(claims: &Map<String, Value>, issuer: &Issuer) -> Result<Principal, AuthFailure> {
    let (subject, scopes) = (subject(claims)?, scopes(claims, issuer)?);
    principal(claims, issuer, &subject, scopes).map_err(AuthFailure::TokenUnmapped)
}

/// Whom the claims of a token of `issuer` name although they make no caller of its holder: the subject, and its
/// organisation where the mapping tells that.
#[must_use]
pub fn named(claims: &Map<String, Value>, issuer: &Issuer) -> (Option<String>, Option<OrgId>) {
    (subject(claims).ok(), organisation(claims, issuer))
}

fn organisation(claims: &Map<String, Value>, issuer: &Issuer) -> Option<OrgId> {
    let speaks =
        |org: &OrgId| issuer.organisations.is_empty() || issuer.organisations.contains(org);
    only(claims, &issuer.mapping.org).and_then(|org| OrgId::new(&org)).filter(speaks)
}

fn subject(claims: &Map<String, Value>) -> Result<String, AuthFailure> {
    let subject = match text(claims, "sub")? {
        Some(subject) => Some(subject),
        // Of client credentials the client itself is the subject (RFC 9068 §2.2).
        None => text(claims, "client_id")?.or(text(claims, "azp")?),
    };
    subject.ok_or(AuthFailure::TokenClaims)
}

impl Times {
    fn read(claims: &Map<String, Value>) -> Result<Self, AuthFailure> {
        let expires_at = date(claims, "exp")?.ok_or(AuthFailure::TokenClaims)?;
        let (issued_at, not_before) = (date(claims, "iat")?, date(claims, "nbf")?);
        Ok(Self { issued_at, not_before, expires_at })
    }

    fn check(&self, issuer: &Issuer, now: UnixTime) -> Result<(), AuthFailure> {
        let (now, leeway) = (now.seconds(), issuer.leeway.as_secs());
        if now >= self.expires_at.saturating_add(leeway) {
            return Err(AuthFailure::Expired);
        }
        let start = self.not_before.max(self.issued_at).unwrap_or(0);
        if now.saturating_add(leeway) < start {
            return Err(AuthFailure::NotYetValid);
        }
        // Without `iat` it is at least as long as it still has to live.
        let life = self.expires_at.saturating_sub(self.issued_at.unwrap_or(now));
        if life > issuer.max_lifetime.as_secs() {
            return Err(AuthFailure::TokenLifetime);
        }
        Ok(())
    }
}

/// A `NumericDate` (RFC 7519 §2): seconds, possibly with a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, AuthFailure> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let fraction = |number: f64| Duration::try_from_secs_f64(number).ok().map(|it| it.as_secs());
    let seconds = value.as_u64().or_else(|| fraction(value.as_f64()?));
    let seconds = seconds.filter(|seconds| *seconds <= LAST_SECOND);
    seconds.map(Some).ok_or(AuthFailure::TokenClaims)
}

/// A text that may stand in a header and in a log.
fn text(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, AuthFailure> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_identifier(text) => Ok(Some(text.clone())),
        Some(_) => Err(AuthFailure::TokenClaims),
    }
}

/// Whether a claim that names a caller or an agent may have this value.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// `aud`: one text, or a list of them (RFC 7519 §4.1.3).
fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, AuthFailure> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.clone()]),
        Some(Value::Array(items)) if items.len() <= MAX_ITEMS => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or(AuthFailure::TokenClaims))
            .collect(),
        Some(_) => Err(AuthFailure::TokenClaims),
    }
}

/// Scheme and host in any case, and a slash at the end or none (MCP, canonical server URI).
fn same_resource(audience: &str, resource: &str) -> bool {
    fn parts(uri: &str) -> Option<(&str, &str, &str)> {
        let uri = uri.strip_suffix('/').unwrap_or(uri);
        let (scheme, rest) = uri.split_once(':')?;
        let rest = rest.strip_prefix("//")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some((scheme, host, path))
    }
    let same = |(scheme, host, path): (&str, &str, &str)| {
        parts(resource).is_some_and(|(its_scheme, its_host, its_path)| {
            let origin =
                scheme.eq_ignore_ascii_case(its_scheme) && host.eq_ignore_ascii_case(its_host);
            origin && path == its_path
        })
    };
    audience == resource || parts(audience).is_some_and(same)
}

/// The scopes: those of the configured claim, or of the usual ones together.
fn scopes(claims: &Map<String, Value>, issuer: &Issuer) -> Result<BTreeSet<String>, AuthFailure> {
    const USUAL: [&str; 3] = ["scope", "scp", "permissions"];
    let found: Vec<&Value> = match &issuer.mapping.scopes {
        Some(path) => lookup(claims, path).into_iter().collect(),
        None => USUAL.iter().filter_map(|name| claims.get(*name)).collect(),
    };
    // Shapes that are no scopes grant none; where one is needed, that is what is missing.
    let scopes = order::set(found.into_iter().filter_map(words).flatten());
    if scopes.len() <= MAX_ITEMS { Ok(scopes) } else { Err(AuthFailure::TokenClaims) }
}

/// The items of a list, or the words of a text.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Whom the claims make of the subject, as the issuer's mapping says.
fn principal(
    claims: &Map<String, Value>,
    issuer: &Issuer,
    subject: &str,
    scopes: BTreeSet<String>,
) -> Result<Principal, Unmapped> {
    let mapping = &issuer.mapping;
    let org = organisation(claims, issuer).ok_or(Unmapped::Organisation)?;
    let role = match mapping.roles.as_slice() {
        [] => only(claims, &mapping.role).and_then(|role| PolicyName::new(&role)),
        roles => values(claims, &mapping.role).and_then(|named| {
            let fits = |(external, _): &&(String, PolicyName)| named.contains(external);
            roles.iter().find(fits).map(|(_, internal)| internal.clone())
        }),
    };
    let role = role.ok_or(Unmapped::Role)?;
    let name = match &mapping.name {
        None => Some(subject.to_owned()),
        Some(path) => {
            let name = lookup(claims, path).and_then(Value::as_str);
            name.filter(|name| is_identifier(name)).map(str::to_owned)
        }
    };
    let name = name.ok_or(Unmapped::Name)?;
    let tier = only(claims, &mapping.tier).and_then(|tier| PolicyName::new(&tier));
    let tier = tier.ok_or(Unmapped::Tier)?;
    let (issuer_id, subject) = (issuer.id.to_string(), subject.to_owned());
    let identity = IdentityKind::Token { issuer: issuer_id, subject }.into();
    let (scopes, restrictions) = (Scopes::Granted(scopes), Restrictions::default());
    let agent = agent(claims, mapping.agent.as_deref())?;
    Ok(Principal { org, identity, name, role, tier, scopes, agent, restrictions })
}

/// The agent that acts: of the claim at `path`, or of the usual ones (the drafts of OAuth for AI agents use `agent_id`, or the
/// actor of RFC 8693 §4.1). Of the usual ones, what is no identifier names none. A claim that the configuration names
/// decides: with a value that is no identifier, an agent would pass for none.
fn agent(claims: &Map<String, Value>, path: Option<&str>) -> Result<Option<String>, Unmapped> {
    const USUAL: [&str; 2] = ["agent_id", "act.sub"];
    let fit = |agent: &&str| is_identifier(agent);
    let Some(path) = path else {
        let named = USUAL.iter().find_map(|path| lookup(claims, path)?.as_str());
        return Ok(named.filter(fit).map(str::to_owned));
    };
    let Some(named) = lookup(claims, path) else { return Ok(None) };
    let named = named.as_str().filter(fit).ok_or(Unmapped::Agent)?;
    Ok(Some(named.to_owned()))
}

fn values(claims: &Map<String, Value>, source: &Source) -> Option<Vec<String>> {
    match source {
        Source::Fixed(value) => Some(vec![value.clone()]),
        Source::Claim(path) => {
            let value = lookup(claims, path)?;
            let whole = value.as_str().map(str::to_owned);
            Some(words(value)?.into_iter().chain(whole).collect())
        }
    }
}

/// The one value: of several, none would be meant.
fn only(claims: &Map<String, Value>, source: &Source) -> Option<String> {
    match source {
        Source::Fixed(value) => Some(value.clone()),
        Source::Claim(path) => match lookup(claims, path)? {
            Value::String(text) => Some(text.clone()),
            Value::Array(items) => match items.as_slice() {
                [item] => item.as_str().map(str::to_owned),
                _ => None,
            },
            _ => None,
        },
    }
}

/// `cnf.x5t#S256`; a binding of another kind cannot be checked here, so it is refused.
fn certificate(claims: &Map<String, Value>) -> Result<Option<Fingerprint>, AuthFailure> {
    let Some(confirmation) = claims.get("cnf") else {
        return Ok(None);
    };
    let thumbprint = confirmation.get("x5t#S256").and_then(Value::as_str);
    let fingerprint = thumbprint.and_then(Fingerprint::from_thumbprint);
    fingerprint.map(Some).ok_or(AuthFailure::TokenClaims)
}
