//! The caller of an access token, as a gateway with these issuers maps it.
//!
//! Owns where issuers and their keys come from. The core owns signature, times, audience and mapping. The token's text
//! is never shown.

use std::path::Path;
use std::rc::Rc;

use portcullis_core::auth::certificate::Fingerprint;
use portcullis_core::auth::token::claims::{self, VerifiedToken};
use portcullis_core::auth::token::issuer::{self, Issuer, IssuerId, Source};
use portcullis_core::auth::token::jws::{Jws, PresentedToken};
use portcullis_core::auth::token::keyring::{Keyring, Verification};
use portcullis_core::auth::{AuthFailure, Principal, VerifiedCredential};
use portcullis_core::decode::{Faults, Node};
use portcullis_core::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::args::ExplainArgs;
use crate::document::Document;
use crate::report::{CliError, Report, Verdict};
use crate::time::Seconds;

/// A gateway's default limit.
const LONGEST: usize = 16_384;
/// Claims with seconds since 1970.
const TIMES: [&str; 3] = ["iat", "nbf", "exp"];

/// The result for a token.
pub(super) enum Told {
    /// The token is valid for this caller.
    Caller(Box<Holder>),
    /// The gateway answers 401.
    Refused(Report),
}

/// The caller.
pub(super) struct Holder {
    pub(super) principal: Principal,
    pub(super) claims: Map<String, Value>,
    /// The credential for the deny list; none for an unverified token.
    pub(super) credential: Option<Rc<VerifiedCredential>>,
    pub(super) notes: Vec<String>,
}

impl Holder {
    /// The client certificate that the token is bound to.
    pub(super) fn certificate(&self) -> Option<&Fingerprint> {
        self.credential.as_ref()?.cnf_thumbprint.as_ref()
    }
}

pub(super) fn told(args: &ExplainArgs, file: &Path, now: UnixTime) -> Result<Told, CliError> {
    let text = read(file)?;
    let issuers = issuers(args)?;
    let token = match PresentedToken::parse(text.trim().as_bytes(), LONGEST) {
        Ok(token) => token,
        Err(failure) => return Ok(refused(failure, None, (&issuers, None))),
    };
    let jws = match Jws::read(&token) {
        Ok(jws) => jws,
        Err(failure) => return Ok(refused(failure, None, (&issuers, None))),
    };
    let mut keyring = Keyring::new(0);
    if let (Some(keys), Some(iss)) = (&args.jwks, jws.issuer()) {
        let keys = read(keys)?;
        keyring.fetched(&IssuerId::new(iss), &issuers, now, Ok(keys.as_bytes()));
    }
    let endpoint = args.endpoint.as_deref();
    Ok(match keyring.verify(&token, &issuers, endpoint, now) {
        Verification::Verified(token) => Told::Caller(Box::new(holder(&token, Vec::new()))),
        Verification::Refused(AuthFailure::WrongAudience, Some(token)) if endpoint.is_none() => {
            let note = "its audience was not compared with the endpoint: --endpoint URL";
            Told::Caller(Box::new(holder(&token, vec![note.to_owned()])))
        }
        Verification::Refused(failure, _) => refused(failure, Some(&jws), (&issuers, endpoint)),
        // A gateway would fetch these keys.
        Verification::Fetch(_) | Verification::Unavailable(_) => unproven(&jws, &issuers),
    })
}

fn read(file: &Path) -> Result<String, CliError> {
    let read = match file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    read.map_err(|error| {
        CliError::new(format!("cannot be read: {error}"), file.display().to_string())
            .expected("a file with a token, or a key set")
    })
}

/// The issuers of a file: a list, as `token keygen` prints it, or a plugin configuration.
fn issuers(args: &ExplainArgs) -> Result<Vec<Issuer>, CliError> {
    const EXPECTED: &str = "the list of issuers, as `auth.issuers` of the plugin configuration and as portcullis token keygen prints it";
    let Some(file) = &args.issuers else {
        return Err(CliError::usage("no issuers").expected("--issuers FILE"));
    };
    let document = Document::read(file)?;
    let list = document.value.pointer("/auth/issuers").or_else(|| document.value.get("issuers"));
    let list = list.unwrap_or(&document.value);
    let mut faults = Faults::default();
    let issuers = issuer::read(Node::root(list), &mut faults);
    faults.unless(issuers).map_err(|faults| {
        CliError::new("the issuers have faults", &document.place)
            .expected(EXPECTED)
            .faults(document.located(&faults))
    })
}

fn holder(token: &VerifiedToken, notes: Vec<String>) -> Holder {
    let credential = token.credential.clone();
    let principal = (*credential.principal).clone();
    Holder { principal, claims: credential.claims.clone(), credential: Some(credential), notes }
}

/// The result from the claims alone.
fn unproven(jws: &Jws, issuers: &[Issuer]) -> Told {
    let known = issuers.iter().find(|issuer| Some(issuer.id.as_str()) == jws.issuer());
    let Some(issuer) = known else {
        return refused(AuthFailure::UnknownIssuer, Some(jws), (issuers, None));
    };
    match claims::caller(&jws.claims, issuer) {
        Ok(principal) => {
            let note = "its signature, times and audience were not checked: --jwks FILE with the issuer's key set";
            Told::Caller(Box::new(Holder {
                principal,
                claims: jws.claims.clone(),
                credential: None,
                notes: vec![note.to_owned()],
            }))
        }
        Err(failure) => refused(failure, Some(jws), (issuers, None)),
    }
}

fn refused(
    failure: AuthFailure,
    jws: Option<&Jws>,
    (issuers, endpoint): (&[Issuer], Option<&str>),
) -> Told {
    let rule = format!("auth.{}", failure.code());
    let status = match failure {
        AuthFailure::SourceNotAllowed => 403,
        _ => 401,
    };
    let mut lines =
        vec![format!("deny by {rule}"), format!("  the client gets {status}: {}", failure.told())];
    let why = why(failure, jws, (issuers, endpoint));
    lines.extend(why.iter().map(|line| format!("  {line}")));
    let claims = jws.map(|jws| Value::Object(jws.claims.clone()));
    let json =
        json!({ "allowed": false, "gateway": "deny", "rule": rule, "why": why, "claims": claims });
    let text = lines.iter().map(|line| crate::escape::line(line)).collect::<Vec<_>>().join("\n");
    Told::Refused(Report::judged(Verdict::Wanting, text, json))
}

/// The parts of the token that an operator should check.
fn why(
    failure: AuthFailure,
    jws: Option<&Jws>,
    (issuers, endpoint): (&[Issuer], Option<&str>),
) -> Vec<String> {
    let Some(jws) = jws else { return Vec::new() };
    let claim = |name: &str| match jws.claims.get(name) {
        Some(value) if TIMES.contains(&name) => match value.as_u64() {
            Some(seconds) => format!("{name} is {value}, {}", Seconds(seconds).rfc3339()),
            None => format!("{name} is {value}"),
        },
        Some(value) => format!("{name} is {value}"),
        None => format!("{name} is missing"),
    };
    let known = issuers.iter().find(|issuer| Some(issuer.id.as_str()) == jws.issuer());
    match failure {
        AuthFailure::UnknownIssuer => {
            let names: Vec<&str> = issuers.iter().map(|issuer| issuer.id.as_str()).collect();
            vec![claim("iss"), format!("configured: {}", names.join(", "))]
        }
        AuthFailure::Expired | AuthFailure::NotYetValid => {
            ["iat", "nbf", "exp"].map(claim).to_vec()
        }
        AuthFailure::TokenLifetime => {
            let most =
                known.map(|issuer| format!("max_lifetime is {} s", issuer.max_lifetime.as_secs()));
            [claim("iat"), claim("exp")].into_iter().chain(most).collect()
        }
        AuthFailure::WrongAudience => {
            let own = known.map(|issuer| issuer.audiences.as_slice()).unwrap_or_default();
            let accepted: Vec<&str> =
                endpoint.into_iter().chain(own.iter().map(String::as_str)).collect();
            vec![claim("aud"), format!("accepted: {}", accepted.join(", "))]
        }
        AuthFailure::TokenUnmapped(_) => {
            known.into_iter().flat_map(|issuer| mapped(issuer, jws)).collect()
        }
        AuthFailure::TokenClaims => ["sub", "exp", "iat", "nbf", "jti", "aud"].map(claim).to_vec(),
        _ => Vec::new(),
    }
}

/// The result of an issuer's mapping: organisation, role and tier.
fn mapped(issuer: &Issuer, jws: &Jws) -> Vec<String> {
    let mapping = &issuer.mapping;
    let parts = [("organisation", &mapping.org), ("role", &mapping.role), ("tier", &mapping.tier)];
    let mut lines: Vec<String> = parts
        .into_iter()
        .map(|(what, source)| match source {
            Source::Fixed(value) => format!("{what}: {value} for every token"),
            Source::Claim(path) => match at(&jws.claims, path) {
                Some(value) => format!("{what}: the claim {path} is {value}"),
                None => format!("{what}: the claim {path} is missing"),
            },
        })
        .collect();
    if !mapping.roles.is_empty() {
        let roles: Vec<&str> =
            mapping.roles.iter().map(|(external, _)| external.as_str()).collect();
        lines.push(format!("roles that the mapping knows: {}", roles.join(", ")));
    }
    lines
}

/// The claim with this name, or at this path.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut steps = path.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}
