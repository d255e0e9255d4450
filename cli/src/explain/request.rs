//! A call that was made, as the audit log has it.
//!
//! Owns what of the log is the answer, and what the policy of that time says of the call beside it. The log decides: an
//! entry has what was known then, and the policy alone does not.

use std::collections::BTreeSet;

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::{KeyId, OrgId, PolicyName, PolicyVersion};
use portcullis_core::policy::Policy;
use serde_json::{Map, Value, json};

use super::{ApprovalId, Explained, ExplainedCall, answered, from_file, opened, shown, stored};
use crate::args::{ExplainArgs, Session};
use crate::audit::{Call, each_call};
use crate::report::{CliError, Report, Verdict};
use crate::store::Store;

/// What the policy alone does not tell of a time that is over.
const NOT_REPLAYED: &str = "not replayed: windows, keys and deny list, approvals, drift, cool-offs and dependencies of that time";

pub(super) fn explained(
    session: &Session,
    args: &ExplainArgs,
    request: &str,
) -> Result<Report, CliError> {
    let mut found: Option<Call> = None;
    each_call(&args.log, |call| {
        if call.request_id == request {
            found = Some(call);
        }
    })?;
    let call = found.ok_or_else(|| {
        CliError::new(format!("no call of a tool has the request id {request}"), "the audit logs")
            .expected("the id of a tools/call by a caller that proved who it is")
            .next(format!("portcullis audit search LOG --request {request} shows every entry"))
    })?;
    let org = OrgId::new(&call.org);
    session.within(org.as_slice(), "its entry", &format!("--request {request}"))?;
    let logged = Logged::of(&call);
    let mut told = vec![logged.headline(), format!("  {}", logged.told)];
    let (mut same_as_log, mut replay_json, mut not_decided_again) =
        (Value::Null, Value::Null, Value::Null);
    match replayed(session, args, call) {
        Ok(Explained { passes, lines, json: replay }) => {
            let mut lines = lines.into_iter();
            let same = logged.is_same(passes, &replay);
            let compared = match same {
                true => "the same".to_owned(),
                false => format!("{}; the log counts", lines.next().unwrap_or_default()),
            };
            told.push(format!("  decided again by the policy of that time: {compared}"));
            if same {
                lines.next();
            } else {
                told.push(format!("  {NOT_REPLAYED}"));
            }
            told.extend(lines);
            (same_as_log, replay_json) = (json!(same), replay);
        }
        // The log has the answer; what else there is to say needs the policy of that time.
        Err(refusal) => {
            told.push(format!("  not decided again: {}", refusal.found()));
            let next = Some(refusal.next_step()).filter(|next| !next.is_empty());
            told.extend(next.map(|next| format!("  next: {next}")));
            not_decided_again = json!(refusal.found());
        }
    }
    let json = json!({
        "allowed": logged.passed,
        "gateway": logged.gateway,
        "decision": logged.effect,
        "rule": logged.rule,
        "log": {
            "request_id": request, "effect": logged.effect, "rule": logged.rule,
            "status": logged.status, "at": logged.at,
        },
        "same": same_as_log,
        "replay": replay_json,
        "not_decided_again": not_decided_again,
    });
    let verdict = if logged.passed { Verdict::Good } else { Verdict::Wanting };
    Ok(Report::judged(verdict, shown(&told), json))
}

/// What the log says became of the call.
struct Logged {
    passed: bool,
    /// As `gateway` says it of a call that might be made.
    gateway: &'static str,
    effect: String,
    rule: String,
    status: String,
    at: String,
    told: String,
}

impl Logged {
    fn of(call: &Call) -> Self {
        let passed = call.effect != "deny";
        let gateway = match (passed, call.status.as_str()) {
            (true, _) => "allow",
            (false, "limited") => "limited",
            (false, _) => "deny",
        };
        let at = call.at.rfc3339();
        let told = format!("the log has status {} at {at}", call.status);
        let (effect, rule) = (call.effect.clone(), call.rule.clone());
        Self { passed, gateway, effect, rule, status: call.status.clone(), at, told }
    }

    /// Whether the policy alone says so, too. The log's rule for a hidden tool does not say what hides it, and a call that
    /// waited for a person is refused like one that a person denied.
    fn is_same(&self, passes: bool, replay: &Value) -> bool {
        let rule = replay.get("rule").and_then(Value::as_str).unwrap_or_default();
        passes == self.passed && (rule == self.rule || !passes && self.rule == "tool.not_visible")
    }

    /// As the headline of a call that might be made.
    fn headline(&self) -> String {
        let name = match self.gateway {
            "allow" => &self.effect,
            refused => refused,
        };
        match self.rule.is_empty() {
            true => name.to_owned(),
            false => format!("{name} by {}", self.rule),
        }
    }
}

/// What the policy of that time says of the call.
fn replayed(session: &Session, args: &ExplainArgs, call: Call) -> Result<Explained, CliError> {
    let mut store = None;
    let request = call.request_id.clone();
    let unusable =
        || CliError::new("an entry without organisation, role or connector", request.clone());
    let org = OrgId::new(&call.org).ok_or_else(unusable)?;
    let role = PolicyName::new(&call.role).ok_or_else(unusable)?;
    let connector = PolicyName::new(&call.connector).ok_or_else(unusable)?;
    let (policy, version, _) = match (&args.policy, PolicyVersion::new(&call.policy_version)) {
        (Some(file), _) => from_file(file)?,
        (None, Some(version)) => {
            let place = format!("the policy of {org}");
            let (policy, version) = stored(opened(session, &mut store)?, version, &place)?;
            (policy, version, None)
        }
        (None, None) => return Err(unusable().expected("policy_version, or --policy FILE")),
    };
    let (principal, known) = caller_of(&call, (org, role), &policy, store.as_mut())?;
    // The log has not what a token was granted; where that decided, it says so.
    let lacked_scopes = !known && call.rule == "credential.scopes";
    let principal = match lacked_scopes {
        true => Principal { scopes: Scopes::Granted(BTreeSet::new()), ..principal },
        false => principal,
    };
    let mut notes = Vec::new();
    if !call.exact {
        notes.push("the log redacts or cuts arguments: decided on what it shows".to_owned());
    }
    if lacked_scopes {
        notes.push(
            "which scopes the token had is not in the log: decided as if it had none; explain --role … --scopes asks with some"
                .to_owned(),
        );
    }
    if !known {
        notes.push(
            "the caller's tier, scopes and claims are not in the log: decided by the first tier"
                .to_owned(),
        );
    }
    let approval = match call.exact {
        true => ApprovalId::OfTheArguments,
        false => ApprovalId::OfTheLog(call.approval),
    };
    let asked = ExplainedCall {
        principal,
        claims: Map::new(),
        connector,
        tool: call.tool,
        arguments: call.arguments,
        at: call.at,
        source: call.source,
        approval,
    };
    answered(&asked, (&policy, &version, None), store.as_mut(), false, &notes)
}

/// The caller of an entry; whether its key's record says what the entry does not.
fn caller_of(
    call: &Call,
    (org, role): (OrgId, PolicyName),
    policy: &Policy,
    store: Option<&mut Store>,
) -> Result<(Principal, bool), CliError> {
    let key = KeyId::new(&call.key);
    if let (Some(id), Some(store)) = (&key, store)
        && let Some(stored) = store.record(&org, id)?
    {
        return Ok((Principal { role, ..stored.record.principal() }, true));
    }
    let identity = match key {
        Some(id) => IdentityKind::Key(id),
        None => IdentityKind::Certificate(call.caller.clone()),
    };
    let tier = policy.tiers.keys().next().cloned().unwrap_or_else(|| role.clone());
    let (scopes, restrictions) = (Scopes::Unknown, Restrictions::default());
    let (identity, name, agent) = (identity.into(), call.name.clone(), call.agent.clone());
    Ok((Principal { org, identity, name, role, tier, scopes, agent, restrictions }, false))
}
