//! The verdict on a request, from the caller's records in Redis and a policy.
//!
//! Owns the order of checks: identity first, so that an unauthenticated client learns nothing else; then the message,
//! the path, the tool. Asks no dependency; returns the data that is missing.

use std::rc::Rc;

use serde_json::Map;

use super::pinned_tools;
use super::snapshot::{CredentialState, Known, Snapshot};
use crate::audit::{AuditEvent, Entry, Redaction, actors, oauth_client};
use crate::auth::api_key::PresentedKey;
use crate::auth::certificate::{Fingerprint, PeerCertificate};
use crate::auth::deny_list::DenyListEntry;
use crate::auth::record::Peer;
use crate::auth::{AuthFailure, IdentityKind, PresentedIdentity, Principal, VerifiedCredential};
use crate::authz::{self, Case, Ruling, Seen, Trail};
use crate::connector_credential::CallerFacts;
use crate::denial::Denial;
use crate::driver::call::{CallFailure, Dependency};
use crate::exchange::grant::{CallerCredential, Grant, RequiredApproval};
use crate::exchange::request::{Audience, Request, RequestPart};
use crate::exchange::session::SessionRef;
use crate::http::query;
use crate::id::{PolicyName, PolicyVersion};
use crate::limit::{CALL, Called};
use crate::mcp::{Era, Message, Operation};
use crate::observed::Watched;
use crate::policy::{Check, Connector, Policy};
use crate::route::Selected;
use crate::time::UnixTime;
use crate::worker::{Cached, CachedRecord, EffectivePolicy, Worker};

/// The decision, if its basis still holds.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The decision needs more states from Redis.
    Open,
    /// The decision needs this policy.
    NeedsPolicy(PolicyVersion),
    /// The request is refused.
    Refused(Denial),
    /// The request is allowed, within these windows.
    Allowed(Box<Grant>),
}

impl Verdict {
    /// Whether the caller is verified, by the records that this worker has cached. The questions to Redis for any other
    /// caller have a constant size.
    pub(crate) fn proves_identity(&self) -> bool {
        match self {
            Self::Allowed(_) => true,
            // The policy is fetched for verified callers, and is judged again once it is here.
            Self::Open | Self::NeedsPolicy(_) => false,
            Self::Refused(denial) => !matches!(
                denial,
                Denial::Unauthenticated(_) | Denial::Unavailable(..) | Denial::Internal(_)
            ),
        }
    }
}

/// The most characters of a host in the audit log: a DNS name has no more.
const MOST_HOST_CHARS: usize = 255;

/// Judges `request` on `snapshot`; writes the facts that it learns into `entry`.
pub(crate) fn judge(
    request: &mut Request,
    snapshot: &Snapshot,
    worker: &mut Worker,
    now: UnixTime,
    entry: &mut Entry,
) -> Verdict {
    let caller = (&request.identity, request.certificate.as_ref());
    let principal = match authenticate(caller, &snapshot.credential, worker, now, entry) {
        Some(Ok(principal)) => principal,
        Some(Err(denial)) => return Verdict::Refused(denial),
        None => return Verdict::Open,
    };
    let version = match &snapshot.policy {
        Known::Unknown => return Verdict::Open,
        Known::Present(active) => {
            let holder = request.identity.holder();
            worker.version_for(&principal.org, active, holder, now).clone()
        }
        Known::Absent => match worker.inline_version(&principal.org) {
            Some(version) => version.clone(),
            None => return Verdict::Refused(no_policy(&request.identity)),
        },
    };
    entry.policy_version = Some(version.as_str().to_owned());
    if worker.is_foreign(&principal.org, &version) {
        let event = AuditEvent::PolicyUnusable { version: version.to_string() };
        if !entry.events.contains(&event) {
            entry.events.push(event);
        }
    }
    let (version, policy) = match worker.effective_policy(&principal.org, &version, now) {
        EffectivePolicy::On(version, policy) => (version, policy),
        undecided => {
            // Another policy may have allowed the audit log to show the input; this one may not.
            entry.input = None;
            return match undecided {
                EffectivePolicy::Needs(version) => Verdict::NeedsPolicy(version),
                EffectivePolicy::On(..) | EffectivePolicy::Nothing => {
                    Verdict::Refused(Denial::PolicyUnusable)
                }
            };
        }
    };
    // A canary policy is not the last good policy of all callers.
    if !matches!(&snapshot.policy, Known::Present(active) if active.version != version) {
        worker.set_good(&principal.org, &version);
    }
    entry.policy_version = Some(version.as_str().to_owned());
    if let Err(denial) = meant_for(&request.audience, &request.path, &policy, worker, now) {
        return Verdict::Refused(denial);
    }
    let relaying = relaying(request, &principal, &policy);
    let mut watched = None;
    let granted = grant(request, (principal, now), policy, (worker, &mut watched), entry);
    request.watched = watched;
    match granted {
        Ok(grant) => Verdict::Allowed(grant),
        // A message without content is also refused when the router selected another destination, and with a query that
        // may not go on.
        Err(denial @ (Denial::Misrouted(_) | Denial::Query)) => Verdict::Refused(denial),
        Err(denial) => match relaying.and_then(|grant| grant.refused(&denial, request, entry)) {
            Some(grant) => Verdict::Allowed(Box::new(grant)),
            None => Verdict::Refused(denial),
        },
    }
}

/// The facts for relaying the refusal of `request` on the caller's stream; `None` when there is no such stream.
fn relaying(request: &Request, principal: &Rc<Principal>, policy: &Rc<Policy>) -> Option<Grant> {
    let (name, connector) = policy.connector_at(&request.path)?;
    let session = request.bound.iter().any(|bound| matches!(bound, SessionRef::Session(_)));
    let whole = !matches!(request.part, RequestPart::Head(_));
    (whole && session && connector.relays_refusals(&request.path)).then(|| Grant {
        principal: principal.clone(),
        policy: policy.clone(),
        connector: name.clone(),
        credential: credential(request, (principal, name, connector)),
        quotas: Vec::new(),
        price: None,
        ruling: Ruling::default(),
        required_approval: None,
        shadowed: Vec::new(),
        relayed: None,
    })
}

/// A claimed identity, and the client certificate of the request, when certificates count.
type Caller<'a> = (&'a PresentedIdentity, Option<&'a PeerCertificate>);

/// The caller, with everything that must vouch for it; `None` while the decision needs more states from Redis.
pub(crate) fn authenticate(
    caller: Caller<'_>,
    credential: &CredentialState,
    worker: &Worker,
    now: UnixTime,
    entry: &mut Entry,
) -> Option<Result<Rc<Principal>, Denial>> {
    let principal = match identify(caller, credential, now, entry)? {
        Ok(principal) => principal,
        Err(denial) => return Some(Err(denial)),
    };
    Some(second_factor(&principal, caller, worker).map(|()| principal))
}

/// The caller according to the records.
fn identify(
    (identity, certificate): Caller<'_>,
    credential: &CredentialState,
    now: UnixTime,
    entry: &mut Entry,
) -> Option<Result<Rc<Principal>, Denial>> {
    match (identity, credential) {
        (PresentedIdentity::Key(key), CredentialState::Record(record)) => match record {
            Known::Unknown => None,
            Known::Absent => Some(Err(Denial::Unauthenticated(AuthFailure::UnknownKey))),
            Known::Present(cached) => {
                let certificate = certificate.map(|certificate| &certificate.sha256);
                Some(holder((key, certificate), cached, now, entry))
            }
        },
        (PresentedIdentity::Verified(verified), CredentialState::DenyList(deny_list)) => {
            entry.identify(&verified.principal);
            entry.actors = actors(&verified.claims);
            entry.oauth_client_id = oauth_client(&verified.claims);
            Some(undenied(verified, deny_list).map(|()| verified.principal.clone()))
        }
        (PresentedIdentity::Key(_), CredentialState::DenyList(_))
        | (PresentedIdentity::Verified(_), CredentialState::Record(_)) => {
            Some(Err(Denial::Internal("standing")))
        }
    }
}

/// The holder of a key, if its record confirms it.
fn holder(
    (key, certificate): (&PresentedKey, Option<&Fingerprint>),
    cached: &CachedRecord,
    now: UnixTime,
    entry: &mut Entry,
) -> Result<Rc<Principal>, Denial> {
    let record = cached.record.as_ref().ok_or(UNREADABLE)?;
    let peer = Peer { address: &entry.client_address, certificate };
    let principal = record.authenticate(key, now, peer);
    let proven = match &principal {
        Ok(_) => true,
        Err(failure) => failure.proves_holder(),
    };
    if proven {
        match &principal {
            Ok(principal) => entry.identify(principal),
            Err(_) => entry.identify(&record.principal()),
        }
        entry.secret = record.secret_of(key);
    }
    principal.map(Rc::new).map_err(Denial::Unauthenticated)
}

/// Whether the certificate is acceptable with a key or a token.
fn second_factor(
    principal: &Principal,
    (identity, certificate): Caller<'_>,
    worker: &Worker,
) -> Result<(), Denial> {
    match principal.identity.kind() {
        IdentityKind::Certificate(_) => Ok(()),
        IdentityKind::Key(_) | IdentityKind::Token { .. } => {
            let cnf_thumbprint = match identity {
                PresentedIdentity::Key(_) => None,
                PresentedIdentity::Verified(verified) => verified.cnf_thumbprint.as_ref(),
            };
            let rules = &worker.config.auth.certificates;
            rules
                .beside(&principal.org, cnf_thumbprint, certificate)
                .map_err(|failure| Denial::Unauthenticated(AuthFailure::Certificate(failure)))
        }
    }
}

/// Whether a token for another path is for the connector of the request's path: the POST path of HTTP+SSE is no
/// resource of its own.
fn meant_for(
    audience: &Audience,
    path: &str,
    policy: &Policy,
    worker: &Worker,
    now: UnixTime,
) -> Result<(), Denial> {
    let token = match audience {
        Audience::Fits => return Ok(()),
        Audience::Elsewhere(token) => token,
    };
    let connector = policy.connector_at(path).map(|(_, connector)| connector);
    let connector = connector.filter(|connector| connector.messages.as_deref() == Some(path));
    let auth = &worker.config.auth;
    let resource = connector.and_then(|connector| auth.resource(&connector.path));
    let meant = auth
        .issuer(&token.issuer)
        .zip(resource)
        .is_some_and(|(issuer, resource)| token.check(issuer, Some(&resource), now).is_ok());
    if meant { Ok(()) } else { Err(Denial::Unauthenticated(AuthFailure::WrongAudience)) }
}

/// Refuses a denied credential. An unreadable deny-list entry may deny this credential, so the request is refused as
/// well.
fn undenied(
    verified: &VerifiedCredential,
    deny_list: &[Known<Rc<Cached<DenyListEntry>>>],
) -> Result<(), Denial> {
    deny_list.iter().try_for_each(|entry| match entry {
        // An unknown entry counts as stale: Redis reports it before the admission.
        Known::Unknown | Known::Absent => Ok(()),
        Known::Present(cached) => match &cached.record {
            Some(record) if verified.is_denied_by(record) => {
                Err(Denial::Unauthenticated(AuthFailure::Denied))
            }
            Some(_) => Ok(()),
            None => Err(UNREADABLE),
        },
    })
}

const UNREADABLE: Denial = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);

/// A key's organisation existed when the key was issued, so its policy is missing. A token's organisation is its
/// issuer's text: a caller of an unknown organisation has nothing here.
fn no_policy(identity: &PresentedIdentity) -> Denial {
    match identity {
        PresentedIdentity::Key(_) => Denial::PolicyUnusable,
        PresentedIdentity::Verified(_) => Denial::Forbidden { rule: "organisations".to_owned() },
    }
}

fn grant(
    request: &Request,
    (principal, now): (Rc<Principal>, UnixTime),
    policy: Rc<Policy>,
    (worker, watched): (&mut Worker, &mut Option<Watched>),
    entry: &mut Entry,
) -> Result<Box<Grant>, Denial> {
    let message = request.message.as_ref().map_err(Denial::clone)?;
    let input = match request.part {
        // The headers have no arguments.
        RequestPart::Head(_) => None,
        RequestPart::Whole | RequestPart::Body => message.said(),
    };
    if let Some(input) = input {
        let max_bytes = worker.config.audit_input_max_bytes;
        let paths = match &message.operation {
            Operation::CallTool(call) => policy.secret_places_at(&request.path, &call.name),
            _ => &[],
        };
        entry.note_input(input, Redaction { names: &policy.redact, paths, max_bytes });
    }
    let (name, connector) = policy.connector_at(&request.path).ok_or(Denial::UnknownPath)?;
    entry.connector = Some(name.as_str().to_owned());
    if !worker.config.reach.allows(&principal.org, connector) {
        // The refusal is the same as for a path that does not exist: the policy had no right to name it.
        return Err(Denial::UnknownPath);
    }
    bound_for(request, (name, connector), worker, entry)?;
    if !query::is_named(&request.query, &connector.query) {
        return Err(Denial::Query);
    }
    let posts_to_stream = connector.messages.as_ref() == Some(&request.path);
    if let (false, Some(missing)) = (posts_to_stream, &request.unmirrored) {
        return Err(missing.clone());
    }
    if posts_to_stream && !request.bound.iter().any(|bound| matches!(bound, SessionRef::Session(_)))
    {
        return Err(Denial::UnknownSession);
    }
    let unclaimed = Map::new();
    let case = Case {
        policy: &policy,
        principal: &principal,
        claims: request.identity.claims().unwrap_or(&unclaimed),
        name,
        connector,
        message,
        seen: match request.part {
            RequestPart::Head(_) => Seen::Head,
            RequestPart::Whole | RequestPart::Body => Seen::Whole,
        },
        now,
        source: &entry.client_address,
    };
    let mut trail = Trail::default();
    let ruling = match authz::judge(&case, &mut trail) {
        // A client assigns a response with status 200 by its id, which is in the body.
        Err(denial)
            if matches!(request.part, RequestPart::Head(_))
                && denial.status(Era::Modern) == 200 =>
        {
            Ruling::default()
        }
        ruling => ruling?,
    };
    if let (Operation::CallTool(call), false) =
        (&message.operation, matches!(request.part, RequestPart::Head(_)))
    {
        let parameters = request.parameters.as_ref();
        *watched = pinned_tools::watched(call, (&principal.org, connector), worker, now);
        let place = (&principal.org, name, connector);
        match pinned_tools::check(call, parameters, place, watched.as_ref(), worker) {
            Err(denial @ Denial::InvalidArguments(_)) => {
                trail.judged(&policy, Check::Schema, denial)?;
            }
            checked => checked?,
        }
    }
    let shadowed = trail.shadowed;
    // An announced call draws nothing yet.
    let called = match request.part {
        RequestPart::Head(_) => None,
        RequestPart::Whole | RequestPart::Body => Some(called(message, request, (name, connector))),
    };
    let price = called.filter(|called| called.method == CALL).map(|called| called.price(&policy));
    let mut quotas = called.map(|called| called.quotas(&policy, &principal)).unwrap_or_default();
    // Without Redis nothing is bound, and tasks could not be counted.
    if let Some(called) = called
        && called.opens
        && worker.config.redis.is_some()
    {
        quotas.extend(called.opening(&policy, &principal));
    }
    if let Operation::CallTool(call) = &message.operation
        && policy.names_tool(name, &call.name)
    {
        worker.labels.learn(&principal.org, &call.name);
    }
    let credential = credential(request, (&principal, name, connector));
    let connector = name.clone();
    let policy = policy.clone();
    let required_approval =
        RequiredApproval::of(&ruling, &principal, &connector, &message.operation);
    Ok(Box::new(Grant {
        principal,
        policy,
        connector,
        credential,
        quotas,
        price,
        ruling,
        required_approval,
        shadowed,
        relayed: None,
    }))
}

/// The credential of the connector's server for this caller.
fn credential(
    request: &Request,
    (principal, name, connector): (&Principal, &PolicyName, &Connector),
) -> Option<CallerCredential> {
    let unclaimed = Map::new();
    let claims = request.identity.claims().unwrap_or(&unclaimed);
    let token = request.identity.token().map(|token| token.bytes());
    let facts = CallerFacts { token, ..principal.facts(claims, name) };
    connector.credential.as_ref().map(|stated| CallerCredential::of(stated, facts))
}

/// Whether the router selected the destination that the connector's policy names.
fn bound_for(
    request: &Request,
    (name, connector): (&PolicyName, &Connector),
    worker: &Worker,
    entry: &mut Entry,
) -> Result<(), Denial> {
    let guard = worker.config.guards.wanted(&request.path);
    connector.upstream.check(&request.selected, guard).map_err(|what| {
        let Selected { cluster, authority } = &request.selected;
        let host = authority.chars().take(MOST_HOST_CHARS).collect();
        let (connector, cluster) = (name.to_string(), cluster.clone());
        let event = AuditEvent::Misrouted { connector, cluster, host };
        if !entry.events.contains(&event) {
            entry.events.push(event);
        }
        Denial::Misrouted(what)
    })
}

/// A request as the limits see it. The server decides on the tasks of the modern era, so they are unknown before.
fn called<'a>(
    message: &'a Message,
    request: &Request,
    (name, connector): (&'a PolicyName, &Connector),
) -> Called<'a> {
    let stream = connector.messages.is_some() && connector.path == request.path;
    let (method, tool, opens) = match &message.operation {
        Operation::CallTool(call) => (CALL, call.name.as_str(), call.as_task),
        Operation::Listen => ("GET", "", stream),
        Operation::EndSession => ("DELETE", "", false),
        Operation::Initialize => (message.method.as_str(), "", true),
        Operation::Housekeeping
        | Operation::List(_)
        | Operation::Prompt(_)
        | Operation::Resource(_)
        | Operation::Subscriptions { .. }
        | Operation::Task(_)
        | Operation::Response
        | Operation::Unknown => (message.method.as_str(), "", false),
    };
    Called { connector: name, method, tool, opens, bytes: request.body.length() }
}
