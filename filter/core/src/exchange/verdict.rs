//! The verdict on a request, given a record and a policy.
//!
//! Owns the order of checks: identity first, so that a stranger learns nothing else; then the
//! message, the path, the tool. Asks nobody; says what it would have to know.

use std::rc::Rc;

use portcullis_redis_lua::{Expected, GuardState, Window};

use super::admission::{Leg, Request};
use super::binding::Bound;
use crate::audit::Entry;
use crate::auth::record::KeyRecord;
use crate::auth::{AuthFailure, Principal};
use crate::call::{CallFailure, Dependency};
use crate::denial::Denial;
use crate::id::{PolicyName, PolicyVersion};
use crate::mcp::{Era, Operation};
use crate::policy::Policy;
use crate::time::UnixTime;
use crate::vault::CredentialTemplate;
use crate::worker::{CachedRecord, Worker};
use crate::{authz, limit};

/// What is known of something that Redis holds.
#[derive(Clone, Debug)]
pub(super) enum Known<T> {
    /// Nothing yet.
    Unknown,
    /// It is not there.
    Absent,
    /// This.
    Present(T),
}

/// What a verdict rests on.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    pub(super) record: Known<Rc<CachedRecord>>,
    pub(super) policy: Known<PolicyVersion>,
}

/// What may happen if the basis still holds.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Redis has to say more first.
    Open,
    /// This policy has to be read first.
    NeedsPolicy(PolicyVersion),
    /// No.
    Refused(Denial),
    /// Yes, within these windows.
    Allowed(Box<Grant>),
}

/// Everything that passing a request takes.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) principal: Principal,
    pub(super) policy: Rc<Policy>,
    pub(super) connector: PolicyName,
    pub(super) credential: Option<CredentialTemplate>,
    /// By name, in the order of the admission call.
    pub(super) windows: Vec<(String, Window)>,
}

impl Basis {
    /// What this worker remembers; a policy that it would have to fetch counts as unknown.
    pub(super) fn remembered(request: &Request, worker: &mut Worker) -> Self {
        let key = &request.key;
        let record = match worker.record(&key.org, &key.id) {
            Some(record) => Known::Present(record),
            None => Known::Unknown,
        };
        let policy = match worker.active(&key.org).cloned() {
            Some(version) if worker.policy(&version).is_some() => Known::Present(version),
            _ => Known::Unknown,
        };
        Self { record, policy }
    }

    /// The guards of the admission call: the record's, then the policy's.
    pub(super) fn expected(&self) -> (Expected, Expected) {
        let record = match &self.record {
            Known::Unknown => Expected::Unknown,
            Known::Absent => Expected::Absent,
            Known::Present(record) => Expected::Revision(record.rev.clone()),
        };
        let policy = match &self.policy {
            Known::Unknown => Expected::Unknown,
            Known::Absent => Expected::Absent,
            Known::Present(version) => Expected::Revision(version.to_string()),
        };
        (record, policy)
    }

    /// Takes over what Redis said, and has the worker remember it.
    pub(super) fn learn(
        &mut self,
        request: &Request,
        record: GuardState,
        policy: GuardState,
        worker: &mut Worker,
    ) {
        let key = &request.key;
        match record {
            GuardState::Unmoved => {}
            GuardState::Absent => {
                self.record = Known::Absent;
                worker.set_record(&key.org, &key.id, None);
            }
            GuardState::Present { rev, doc } => {
                let record = Rc::new(CachedRecord { rev, record: KeyRecord::parse(&doc).ok() });
                worker.set_record(&key.org, &key.id, Some(record.clone()));
                self.record = Known::Present(record);
            }
        }
        match policy {
            GuardState::Unmoved => {}
            GuardState::Absent => {
                self.policy = Known::Absent;
                worker.set_active(&key.org, None);
            }
            GuardState::Present { rev, .. } => {
                let version = PolicyVersion::new(&rev);
                worker.set_active(&key.org, version.clone());
                self.policy = version.map_or(Known::Absent, Known::Present);
            }
        }
    }
}

/// Judges `request` on `basis`; writes into `entry` what becomes known on the way.
pub(super) fn judge(
    request: &Request,
    basis: &Basis,
    worker: &mut Worker,
    now: UnixTime,
    entry: &mut Entry,
) -> Verdict {
    let principal = match &basis.record {
        Known::Unknown => return Verdict::Open,
        Known::Absent => {
            return Verdict::Refused(Denial::Unauthenticated(AuthFailure::UnknownKey));
        }
        Known::Present(cached) => match identify(request, cached, now, entry) {
            Ok(principal) => principal,
            Err(denial) => return Verdict::Refused(denial),
        },
    };
    let version = match &basis.policy {
        Known::Unknown => return Verdict::Open,
        Known::Absent => return Verdict::Refused(Denial::PolicyUnusable),
        Known::Present(version) => version,
    };
    entry.policy_version = Some(version.to_string());
    let Some(policy) = worker.policy(version) else {
        // What another policy let the audit log show, this one may not.
        entry.input = None;
        return Verdict::NeedsPolicy(version.clone());
    };
    match grant(request, principal, policy, worker, entry) {
        Ok(grant) => Verdict::Allowed(Box::new(grant)),
        Err(denial) => Verdict::Refused(denial),
    }
}

fn identify(
    request: &Request,
    cached: &CachedRecord,
    now: UnixTime,
    entry: &mut Entry,
) -> Result<Principal, Denial> {
    let unreadable = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);
    let record = cached.record.as_ref().ok_or(unreadable)?;
    let principal = record.authenticate(&request.key, now);
    match &principal {
        Ok(principal) => entry.identify(principal),
        Err(failure) if failure.proves_holder() => entry.identify(&record.principal()),
        Err(_) => {}
    }
    principal.map_err(Denial::Unauthenticated)
}

fn grant(
    request: &Request,
    principal: Principal,
    policy: Rc<Policy>,
    worker: &Worker,
    entry: &mut Entry,
) -> Result<Grant, Denial> {
    let message = request.message.as_ref().map_err(Denial::clone)?;
    if let Operation::CallTool(call) = &message.operation {
        let max_bytes = worker.config.audit_input_max_bytes;
        entry.note_input(&call.arguments, &policy.redact, max_bytes);
    }
    let (name, connector) = policy.connector_at(&request.path).ok_or(Denial::UnknownPath)?;
    entry.connector = Some(name.to_string());
    let posts_to_stream = connector.messages.as_ref() == Some(&request.path);
    if posts_to_stream && !request.bound.iter().any(|bound| matches!(bound, Bound::Session(_))) {
        return Err(Denial::UnknownSession);
    }
    match authz::judge(&policy, &principal, (name, connector), message) {
        // A client knows an answer with status 200 by its id only, and that comes with the body.
        Err(denial) if matches!(request.leg, Leg::Head(_)) && denial.status(Era::Modern) == 200 => {
        }
        verdict => verdict?,
    }
    let windows = match &message.operation {
        // Of a call that is only announced, nothing is drawn yet.
        _ if matches!(request.leg, Leg::Head(_)) => Vec::new(),
        Operation::CallTool(call) => limit::windows(&policy, &principal, name, &call.name),
        // Only calls are counted.
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::Prompt(_)
        | Operation::Resource(_)
        | Operation::Subscriptions { .. }
        | Operation::Task(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession
        | Operation::Unknown => Vec::new(),
    };
    let (connector, credential) = (name.clone(), connector.credential.clone());
    Ok(Grant { principal, policy: policy.clone(), connector, credential, windows })
}
