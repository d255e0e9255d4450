//! `portcullis explain`: would this call be allowed, and why.
//!
//! Owns where the caller and the policy come from, and how the answer is shown. The answer is the core's,
//! which decides in the data path too. Nothing is drawn and nothing is written.

use std::collections::BTreeSet;

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::explain::{Answer, Question, explain};
use portcullis_core::id::{KeyId, PolicyName, PolicyVersion};
use portcullis_core::policy::{self, Policy};
use portcullis_core::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::args::{ExplainArgs, Session, ShowKeyArgs};
use crate::document::Document;
use crate::escape;
use crate::key;
use crate::moment::Seconds;
use crate::report::{Refusal, Report, Verdict};
use crate::store::Store;

pub(crate) fn run(session: &Session, args: &ExplainArgs) -> Result<Report, Refusal> {
    let now = Seconds::now();
    let now = args.at.map_or(now, |moment| moment.seconds(now));
    let (principal, mut store) = caller(session, args, now)?;
    let (policy, version) = match &args.policy {
        Some(file) => from_file(file)?,
        None => active(opened(session, &mut store)?, &principal, args)?,
    };
    let principal = with_tier(principal, &policy, args);
    let connector = connector(&policy, &principal, args)?;
    let empty = Map::new();
    let question = Question {
        policy: &policy,
        principal: &principal,
        claims: args.claims.as_ref().map_or(&empty, |claims| &claims.0),
        connector: &connector,
        tool: &args.tool,
        arguments: &args.arguments.0,
        now: UnixTime::from_micros(now.0.saturating_mul(1_000_000)),
        source: &args.source,
    };
    let answer = explain(&question).ok_or_else(|| no_connector(&policy, &connector))?;
    let state = match (&answer.approval, &mut store) {
        (Some(digest), Some(store)) => {
            store.approval(&principal.org, digest)?.map(|approval| approval.state)
        }
        (Some(_) | None, _) => None,
    };
    let granted = state.as_deref() == Some("granted");
    let passes = answer.decision.lets_pass() || granted;
    let verdict = if passes { Verdict::Good } else { Verdict::Wanting };
    let text = told(&answer, &principal, &connector, args, &version, state.as_deref());
    let mut json = json!({
        "allowed": passes,
        "policy_version": version,
        "connector": connector,
        "tool": args.tool,
        "role": principal.role,
        "approval_state": state,
        "at": now.rfc3339(),
    });
    if let (Value::Object(json), Ok(Value::Object(answer))) =
        (&mut json, serde_json::to_value(&answer))
    {
        json.extend(answer);
    }
    Ok(Report::judged(verdict, text, json))
}

fn opened<'a>(session: &Session, store: &'a mut Option<Store>) -> Result<&'a mut Store, Refusal> {
    match store {
        Some(store) => Ok(store),
        None => Ok(store.insert(Store::open(session)?)),
    }
}

/// Who calls; a key that could not be used then is refused at once.
fn caller(
    session: &Session,
    args: &ExplainArgs,
    now: Seconds,
) -> Result<(Principal, Option<Store>), Refusal> {
    if let Some(id) = &args.key {
        let mut store = Store::open(session)?;
        let which = ShowKeyArgs { id: id.clone(), org: args.org.clone() };
        let stored = key::find(&mut store, &which)?;
        stored.record.is_alive(now.0).map_err(|failure| {
            Refusal::new(format!("the key {id} would be refused: {}", failure.code()), "its record")
                .expected("a key that is valid at that time")
                .next(format!("portcullis key show {id}"))
        })?;
        let sources = stored.record.sources.as_ref();
        if sources.is_some_and(|sources| !sources.contains(&args.source)) {
            return Err(Refusal::new(
                format!("the key {id} may not be used from {}", args.source),
                "its record",
            )
            .expected("--source with an address that it is open to"));
        }
        return Ok((stored.record.principal(), Some(store)));
    }
    let (Some(role), Some(org)) = (&args.role, &args.org) else {
        return Err(Refusal::usage("nobody calls").expected("--key ID, or --role ROLE --org ORG"));
    };
    let identity = KeyId::new("nokey").map(IdentityKind::Key);
    let scopes = args.scopes.clone().map(BTreeSet::from_iter);
    Ok((
        Principal {
            org: org.clone(),
            identity: identity.unwrap_or_else(|| IdentityKind::Certificate(String::new())).into(),
            name: "somebody".to_owned(),
            role: role.clone(),
            tier: args.tier.clone().unwrap_or_else(|| role.clone()),
            scopes: scopes.map_or(Scopes::Unknown, Scopes::Granted),
            restrictions: Restrictions::default(),
        },
        None,
    ))
}

/// A role has no tier of its own.
fn with_tier(principal: Principal, policy: &Policy, args: &ExplainArgs) -> Principal {
    match (&args.role, &args.tier, policy.tiers.keys().next()) {
        (Some(_), None, Some(tier)) => Principal { tier: tier.clone(), ..principal },
        (_, _, _) => principal,
    }
}

fn from_file(file: &std::path::Path) -> Result<(Policy, PolicyVersion), Refusal> {
    let document = Document::read(file)?;
    let policy = policy::compile(&document.value).map_err(|faults| {
        Refusal::new("the document has faults", &document.place)
            .expected("a policy without faults")
            .next(format!("portcullis policy check {}", document.place))
            .faults(document.located(&faults))
    })?;
    let version = policy::version_of(&document.value)
        .ok_or_else(|| Refusal::new("the document has no version", &document.place))?;
    Ok((policy, version))
}

/// The policy that decides about this caller now, a canary included.
fn active(
    store: &mut Store,
    principal: &Principal,
    args: &ExplainArgs,
) -> Result<(Policy, PolicyVersion), Refusal> {
    let place = format!("the policy of {}", principal.org);
    let active = store.active_policy(&principal.org)?.target;
    let active = active.ok_or_else(|| {
        Refusal::new("there is no active policy", &place)
            .expected("a policy that was pushed for the organisation, or --policy FILE")
            .next("portcullis policy push FILE --reason …")
    })?;
    let version = match args.key {
        Some(_) => active.activation().version_for(principal.identity.holder()).clone(),
        // Nobody in particular is nobody whom another policy is tried on.
        None => active.version,
    };
    let document = store.policy(&version)?.ok_or_else(|| {
        Refusal::new(format!("there is no policy {version}"), &place)
            .next("portcullis policy push FILE --reason …")
    })?;
    let policy = policy::compile(&document).map_err(|faults| {
        Refusal::new(format!("policy {version} cannot be read: {faults}"), &place)
            .expected("a policy that this version of portcullis understands")
    })?;
    Ok((policy, version))
}

fn connector(
    policy: &Policy,
    principal: &Principal,
    args: &ExplainArgs,
) -> Result<PolicyName, Refusal> {
    if let Some(connector) = &args.connector {
        return match policy.connectors.contains_key(connector) {
            true => Ok(connector.clone()),
            false => Err(no_connector(policy, connector)),
        };
    }
    let of_role = policy.roles.get(&principal.role).map(|role| &role.connectors);
    let mut names = of_role.into_iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (_, _) => Err(Refusal::usage("it is not clear which connector is meant")
            .expected(format!("--connector: {}", names_of(policy)))),
    }
}

fn no_connector(policy: &Policy, connector: &PolicyName) -> Refusal {
    Refusal::usage(format!("the policy has no connector {connector}"))
        .expected(format!("one of {}", names_of(policy)))
}

fn names_of(policy: &Policy) -> String {
    policy.connectors.keys().map(PolicyName::as_str).collect::<Vec<_>>().join(", ")
}

fn told(
    answer: &Answer,
    principal: &Principal,
    connector: &PolicyName,
    args: &ExplainArgs,
    version: &PolicyVersion,
    state: Option<&str>,
) -> String {
    let rule = answer.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let mut lines = vec![
        format!("{}{rule}", answer.decision.name()),
        format!(
            "  {} ({}) calls {connector}/{} under policy {version}",
            principal.name, principal.role, args.tool
        ),
    ];
    if let Some(refusal) = &answer.refusal {
        lines.push(format!("  the client gets {}: {}", refusal.status, refusal.message));
    }
    if let Some(digest) = &answer.approval {
        let id = portcullis_core::approval::id(digest);
        lines.push(format!("  approval {id}: {}", state.unwrap_or("nobody asked yet")));
    }
    lines.push("considered".to_owned());
    lines.extend(answer.steps.iter().map(|step| {
        format!("  {:<13} {}  {}", step.outcome.name(), step.rule, step.detail)
            .trim_end()
            .to_owned()
    }));
    if let Some(arguments) = &answer.amended {
        lines.push(format!("goes on with {}", Value::Object(arguments.clone())));
    }
    if answer.decision.lets_pass() || answer.approval.is_some() {
        let windows = answer.windows.join(", ");
        let windows = if windows.is_empty() { "no window".to_owned() } else { windows };
        lines.push(format!("would draw from {windows}"));
    }
    lines.iter().map(|line| escape::line(line)).collect::<Vec<_>>().join("\n")
}
