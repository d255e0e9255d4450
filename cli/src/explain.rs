//! `portcullis explain`: would this call be allowed, and why.
//!
//! Owns where the caller and the policy come from, and how the answer is shown. The answer is the core's,
//! which decides in the data path too. Nothing is drawn and nothing is written.

mod request;
mod token;

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::auth::{
    AuthFailure, IdentityKind, Principal, Restrictions, Scopes, VerifiedCredential,
};
use portcullis_core::authz::explain::{Answer, Decision, Question, explain};
use portcullis_core::authz::outcome::{End, PersonsWord, Standing};
use portcullis_core::id::{KeyId, PolicyName, PolicyVersion};
use portcullis_core::observed::{self, Observed};
use portcullis_core::policy::{self, Policy, Unverified};
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::WindowStanding;
use serde_json::{Map, Value, json};

use crate::args::{ExplainArgs, OneKey, Session};
use crate::document::Document;
use crate::escape;
use crate::key;
use crate::report::{CliError, Report, Verdict};
use crate::store::Store;
use crate::time::{Seconds, in_short};
use token::Told;

pub(crate) fn run(session: &Session, args: &ExplainArgs) -> Result<Report, CliError> {
    match &args.request {
        Some(request) => request::explained(session, args, request),
        None => of_call(session, args),
    }
}

/// A call that a caller might make.
fn of_call(session: &Session, args: &ExplainArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let now = args.at.map_or(now, |time| time.seconds(now));
    let at = UnixTime::from_micros(now.0.saturating_mul(1_000_000));
    let holder = match args.token.as_deref().map(|file| token::told(args, file, at)).transpose()? {
        Some(Told::Refused(report)) => return Ok(report),
        Some(Told::Caller(holder)) => Some(holder),
        None => None,
    };
    let in_particular = args.key.is_some() || holder.is_some();
    let (principal, certificate, mut store) = match &holder {
        Some(holder) => {
            let org = std::slice::from_ref(&holder.principal.org);
            session.within(org, "the token", "--token")?;
            (holder.principal.clone(), holder.certificate().cloned(), None)
        }
        None => match caller(session, args, now)? {
            Asker::Refused(report) => return Ok(report),
            Asker::Key(record, store) => (record.principal(), record.certificate, Some(store)),
            Asker::Role(principal) => (*principal, None, None),
        },
    };
    let certificate = certificate.map(|it| {
        let what = if args.key.is_some() { "key" } else { "token" };
        format!("the client certificate {it}, which the {what} is bound to")
    });
    let (policy, version, canary) = match &args.policy {
        Some(file) => from_file(file)?,
        None => active(opened(session, &mut store)?, &principal, in_particular)?,
    };
    let (claims, notes, credential) = match holder {
        Some(holder) => (holder.claims, holder.notes, holder.credential),
        None => (args.claims.clone().map(|claims| claims.0).unwrap_or_default(), Vec::new(), None),
    };
    if let (Some(credential), Some(store)) = (&credential, &mut store)
        && let Some(denied) = denied(store, credential)?
    {
        return Ok(denied);
    }
    let principal = with_tier(principal, &policy, args);
    let connector = connector(&policy, &principal, args)?;
    let asked = ExplainedCall {
        principal,
        claims,
        connector,
        tool: args.tool.clone().unwrap_or_default(),
        arguments: args.arguments.0.clone(),
        at,
        source: args.source.clone(),
        approval: ApprovalId::OfTheArguments,
    };
    // Windows belong to a caller, not to a role; those of another time are unknown.
    let windows = in_particular && args.at.is_none();
    let policy = (&policy, &version, canary.as_deref());
    let Explained { passes, mut lines, mut json } =
        answered(&asked, policy, store.as_mut(), windows, &notes)?;
    let not_checked = not_checked(policy.0, &asked.connector);
    if passes {
        lines.extend(certificate.iter().map(|it| format!("not checked: {it}")));
        lines.push(format!(
            "not checked: {} (portcullis doctor checks that)",
            not_checked.join(", ")
        ));
    }
    if let Value::Object(json) = &mut json {
        let parts = certificate.iter().map(String::as_str).chain(not_checked);
        json.insert("not_checked".to_owned(), parts.collect());
    }
    let verdict = if passes { Verdict::Good } else { Verdict::Wanting };
    Ok(Report::judged(verdict, shown(&lines), json))
}

fn shown(lines: &[String]) -> String {
    lines.iter().map(|line| escape::line(line)).collect::<Vec<_>>().join("\n")
}

/// What an allowed call also needs, and what neither the policy nor Redis knows.
fn not_checked(policy: &Policy, connector: &PolicyName) -> Vec<&'static str> {
    let connector = policy.connectors.get(connector);
    let credential = connector.is_some_and(|connector| connector.credential.is_some());
    let credential = credential.then_some("the connector's credential");
    credential.into_iter().chain(["the route to its server"]).collect()
}

/// What the deny list has against the holder of a token.
fn denied(store: &mut Store, credential: &VerifiedCredential) -> Result<Option<Report>, CliError> {
    for key in credential.deny_list_keys() {
        let Some(entry) = store.denial(key)?.filter(|entry| credential.is_denied_by(entry)) else {
            continue;
        };
        let rule = format!("auth.{}", AuthFailure::Denied.code());
        let text = format!(
            "deny by {rule}\n  the client gets 401\n  {} was denied by {} at {}: {}",
            entry.what,
            entry.by,
            Seconds(entry.at).rfc3339(),
            entry.reason
        );
        let json =
            json!({ "allowed": false, "gateway": "deny", "rule": rule, "denied": entry.what });
        let text = text.lines().map(escape::line).collect::<Vec<_>>().join("\n");
        return Ok(Some(Report::judged(Verdict::Wanting, text, json)));
    }
    Ok(None)
}

/// A call, with all that decides about it.
struct ExplainedCall {
    principal: Principal,
    claims: Map<String, Value>,
    connector: PolicyName,
    tool: String,
    arguments: Map<String, Value>,
    at: UnixTime,
    source: String,
    approval: ApprovalId,
}

/// Where the id of an approval is from: it is the start of a digest of the arguments.
enum ApprovalId {
    OfTheArguments,
    /// The log redacts or cuts the arguments. An entry of a call that waited has the id.
    OfTheLog(Option<String>),
}

/// What is said of a call.
struct Explained {
    passes: bool,
    lines: Vec<String>,
    json: Value,
}

/// How a window that the call draws from stands now.
struct Drawn {
    name: String,
    cost: u64,
    max: u64,
    standing: WindowStanding,
}

impl Drawn {
    fn refuses(&self) -> bool {
        self.standing.wait.is_none_or(|wait| !wait.is_zero())
    }

    fn view(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "limit": self.name, "cost": self.cost, "max": self.max,
            "remaining": self.standing.remaining, "next_back_ms": millis(self.standing.reset),
            "wait_ms": self.standing.wait.map(millis), "refuses": self.refuses(),
        })
    }
}

/// What the policy says, and then what Redis knows: approvals and windows as they stand.
fn answered(
    asked: &ExplainedCall,
    (policy, version, canary): (&Policy, &PolicyVersion, Option<&str>),
    mut store: Option<&mut Store>,
    windows: bool,
    notes: &[String],
) -> Result<Explained, CliError> {
    let ExplainedCall { principal, connector, tool, .. } = asked;
    let observed = observed(policy, asked, store.as_deref_mut())?;
    let question = Question {
        policy,
        principal,
        claims: &asked.claims,
        connector,
        tool,
        arguments: &asked.arguments,
        now: asked.at,
        source: &asked.source,
        observed: observed.unwrap_or(Observed::Same),
    };
    let answer = explain(&question).ok_or_else(|| no_connector(policy, connector))?;
    let state = match (&answer.approval, &mut store) {
        (Some(digest), Some(store)) if matches!(asked.approval, ApprovalId::OfTheArguments) => {
            store.approval(&principal.org, digest)?.map(|approval| approval.state)
        }
        (_, _) => None,
    };
    let drawn = match (windows && answer.decision != Decision::Deny, store) {
        (true, Some(store)) => drawn(store, &answer)?,
        (_, _) => Vec::new(),
    };
    let standing = Standing {
        approval: state.as_deref().and_then(PersonsWord::read),
        windows: drawn.iter().map(|it| it.standing).collect(),
        // Each worker remembers its own callers.
        cooling: None,
    };
    let outcome = answer.outcome(policy, &standing);
    let passes = outcome.end == End::Passes;
    let mut lines = told(&answer, asked, (version, canary), state.as_deref());
    lines.extend(drawn.iter().map(Drawn::text));
    if let (Some(limited), false) = (outcome.window.and_then(|at| drawn.get(at)), passes)
        && outcome.rule.as_ref() == Some(&limited.name)
    {
        let first = lines.first_mut();
        let what = if outcome.end == End::Limited { "limited" } else { "deny" };
        first.into_iter().for_each(|line| *line = format!("{what} by {}", limited.name));
    }
    if let Some(known) = policy.role_hint(&principal.role) {
        lines.insert(1, format!("  the policy has no role {}{known}", principal.role));
    }
    if let Some(note) = unknowable(policy, asked, &answer, observed.is_some()) {
        lines.push(note);
    }
    lines.extend(notes.iter().cloned());
    let gateway = outcome.end.name();
    let mut json = json!({
        "allowed": passes,
        "gateway": gateway,
        "policy_version": version,
        "canary": canary,
        "connector": connector,
        "tool": tool,
        "role": principal.role,
        "approval_state": state,
        "at": Seconds(asked.at.seconds()).rfc3339(),
        "windows_now": drawn.iter().map(Drawn::view).collect::<Vec<_>>(),
        "notes": notes,
    });
    if let (Value::Object(json), Ok(Value::Object(answer))) =
        (&mut json, serde_json::to_value(&answer))
    {
        json.extend(answer);
        if let (ApprovalId::OfTheLog(_), Some(digest)) = (&asked.approval, json.get_mut("approval"))
        {
            // It is that of other arguments.
            *digest = Value::Null;
        }
    }
    Ok(Explained { passes, lines, json })
}

impl Drawn {
    fn text(&self) -> String {
        let wait = match (self.refuses(), self.standing.wait) {
            (true, None) => "; it costs more than there ever is".to_owned(),
            (true, Some(wait)) => {
                let wait = in_short(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                format!("; the call would be 429, enough units come back in {wait}")
            }
            (false, _) => String::new(),
        };
        format!(
            "  {:<24} {} of {} left, the call draws {}{wait}",
            self.name, self.standing.remaining, self.max, self.cost
        )
    }
}

/// The windows that the call draws from, as they stand now.
fn drawn(store: &mut Store, answer: &Answer) -> Result<Vec<Drawn>, CliError> {
    let windows: Vec<_> = answer.quotas.iter().map(|quota| quota.window.clone()).collect();
    let standings = store.look_at(&windows)?;
    let drawn = answer.quotas.iter().zip(standings).map(|(quota, standing)| Drawn {
        name: quota.name.clone(),
        cost: quota.window.cost,
        max: quota.window.limit,
        standing,
    });
    Ok(drawn.collect())
}

/// What lists showed of the tool, where the policy has gateways keep that in Redis, and Redis can be asked.
fn observed(
    policy: &Policy,
    asked: &ExplainedCall,
    store: Option<&mut Store>,
) -> Result<Option<Observed>, CliError> {
    let connector = policy.connectors.get(&asked.connector);
    let blocks = connector.filter(|it| it.pins.unverified == Unverified::Block);
    let pin = blocks.and_then(|it| it.tools.get(&asked.tool)?.pin.as_ref());
    let (Some(connector), Some(pin), Some(store)) = (connector, pin, store) else {
        return Ok(None);
    };
    let tool = observed::listed(&asked.principal.org, &connector.path, &asked.tool);
    store.observed(&observed::key(&tool, pin)).map(Some)
}

/// What only the gateways know: they remember it, Redis does not.
fn unknowable(
    policy: &Policy,
    asked: &ExplainedCall,
    answer: &Answer,
    drift_is_known: bool,
) -> Option<String> {
    let connector = policy.connectors.get(&asked.connector)?;
    let pinned = connector.tools.get(&asked.tool).is_some_and(|tool| tool.pin.is_some());
    let mut what = Vec::new();
    if pinned && !drift_is_known {
        what.push("a drift of the tool (portcullis discover compares it with its pin)");
    }
    if policy.cool_off.is_some() {
        what.push("a cool-off of the caller (the events of the audit log)");
    }
    if answer.quotas.iter().any(|quota| quota.lease.is_some()) {
        what.push("units that it drew in advance (`lease`)");
    }
    (!what.is_empty())
        .then(|| format!("not known here, each gateway remembers it: {}", what.join("; ")))
}

fn opened<'a>(session: &Session, store: &'a mut Option<Store>) -> Result<&'a mut Store, CliError> {
    match store {
        Some(store) => Ok(store),
        None => Ok(store.insert(Store::open(session)?)),
    }
}

/// Who calls.
enum Asker {
    /// The gateway refuses the key.
    Refused(Report),
    Key(Box<KeyRecord>, Store),
    Role(Box<Principal>),
}

/// Who calls; a key that could not be used then is refused at once.
fn caller(session: &Session, args: &ExplainArgs, now: Seconds) -> Result<Asker, CliError> {
    if let Some(id) = &args.key {
        let mut store = Store::open(session)?;
        let which = OneKey { id: id.clone(), org: args.org.clone() };
        let stored = key::find(&mut store, &which)?;
        if let Err(failure) = stored.record.is_alive(now.0) {
            return Ok(Asker::Refused(refused_key(id, failure, "401", "")));
        }
        let sources = stored.record.sources.as_ref();
        if sources.is_some_and(|sources| !sources.contains(&args.source)) {
            let why = format!(" from {}, which --source changes", args.source);
            let failure = AuthFailure::SourceNotAllowed;
            return Ok(Asker::Refused(refused_key(id, failure, "403", &why)));
        }
        return Ok(Asker::Key(Box::new(stored.record), store));
    }
    let (Some(role), Some(org)) = (&args.role, &args.org) else {
        return Err(CliError::usage("no caller").expected("--key ID, or --role ROLE --org ORG"));
    };
    let identity = KeyId::new("nokey").map(IdentityKind::Key);
    let scopes = args.scopes.clone().map(BTreeSet::from_iter);
    Ok(Asker::Role(Box::new(Principal {
        org: org.clone(),
        identity: identity.unwrap_or_else(|| IdentityKind::Certificate(String::new())).into(),
        name: "a caller".to_owned(),
        role: role.clone(),
        tier: args.tier.clone().unwrap_or_else(|| role.clone()),
        scopes: scopes.map_or(Scopes::Unknown, Scopes::Granted),
        agent: args.agent.clone(),
        restrictions: Restrictions::default(),
    })))
}

/// What the gateway answers to a key that it refuses.
fn refused_key(id: &KeyId, failure: AuthFailure, status: &str, why: &str) -> Report {
    let rule = format!("auth.{}", failure.code());
    let lines = [
        format!("deny by {rule}"),
        format!("  the client gets {status}{why}: {}", failure.told()),
        format!("  portcullis key show {id} has its record"),
    ];
    let json = json!({ "allowed": false, "gateway": "deny", "rule": rule, "key": id });
    Report::judged(Verdict::Wanting, shown(&lines), json)
}

/// A role has no tier of its own.
fn with_tier(principal: Principal, policy: &Policy, args: &ExplainArgs) -> Principal {
    match (&args.role, &args.tier, policy.tiers.keys().next()) {
        (Some(_), None, Some(tier)) => Principal { tier: tier.clone(), ..principal },
        (_, _, _) => principal,
    }
}

fn from_file(file: &std::path::Path) -> Result<(Policy, PolicyVersion, Option<String>), CliError> {
    let document = Document::read(file)?;
    let policy = policy::compile(&document.value).map_err(|faults| {
        CliError::new("the document has faults", &document.place)
            .expected("a policy without faults")
            .next(format!("portcullis policy check {}", document.argument()))
            .faults(document.located(&faults))
    })?;
    let version = policy::version_of(&document.value)
        .ok_or_else(|| CliError::new("the document has no version", &document.place))?;
    Ok((policy, version, None))
}

/// The policy that decides about this caller now, a canary included.
fn active(
    store: &mut Store,
    principal: &Principal,
    in_particular: bool,
) -> Result<(Policy, PolicyVersion, Option<String>), CliError> {
    let place = format!("the policy of {}", principal.org);
    let active = store.active_policy(&principal.org)?.target;
    let active = active.ok_or_else(|| {
        CliError::new("there is no active policy", &place)
            .expected("a policy that was pushed for the organisation, or --policy FILE")
            .next("portcullis policy push FILE --reason …")
    })?;
    let version = match in_particular {
        true => active.activation().version_for(principal.identity.holder()).clone(),
        // A canary is for certain callers, not for a role.
        false => active.version.clone(),
    };
    let canary = active.canary.filter(|canary| canary.record.version == version);
    let canary = canary.map(|canary| canary.share().to_string());
    let (policy, version) = stored(store, version, &place)?;
    Ok((policy, version, canary))
}

fn stored(
    store: &mut Store,
    version: PolicyVersion,
    place: &str,
) -> Result<(Policy, PolicyVersion), CliError> {
    let document = store.policy(&version)?.ok_or_else(|| {
        CliError::new(format!("there is no policy {version}"), place)
            .next("portcullis policy push FILE --reason …, or --policy FILE")
    })?;
    let policy = policy::compile(&document).map_err(|faults| {
        CliError::new(format!("policy {version} cannot be read: {faults}"), place)
            .expected("a policy that this version of portcullis understands")
    })?;
    Ok((policy, version))
}

fn connector(
    policy: &Policy,
    principal: &Principal,
    args: &ExplainArgs,
) -> Result<PolicyName, CliError> {
    if let Some(connector) = &args.connector {
        return match policy.connectors.contains_key(connector) {
            true => Ok(connector.clone()),
            false => Err(no_connector(policy, connector)),
        };
    }
    let of_role = policy.roles.get(&principal.role).map(|role| &role.connectors);
    // Whoever has no role is refused at every connector alike.
    if let (None, Some(any)) = (of_role, policy.connectors.keys().next()) {
        return Ok(any.clone());
    }
    let mut names = of_role.into_iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (_, _) => Err(CliError::usage("it is not clear which connector is meant")
            .expected(format!("--connector: {}", names_of(policy)))),
    }
}

fn no_connector(policy: &Policy, connector: &PolicyName) -> CliError {
    CliError::usage(format!("the policy has no connector {connector}"))
        .expected(format!("one of {}", names_of(policy)))
}

fn names_of(policy: &Policy) -> String {
    policy.connectors.keys().map(PolicyName::as_str).collect::<Vec<_>>().join(", ")
}

fn told(
    answer: &Answer,
    asked: &ExplainedCall,
    (version, canary): (&PolicyVersion, Option<&str>),
    state: Option<&str>,
) -> Vec<String> {
    let ExplainedCall { principal, connector, tool, .. } = asked;
    let rule = answer.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let canary = canary.map(|share| format!(", the canary ({share})")).unwrap_or_default();
    let mut lines = vec![
        format!("{}{rule}", answer.decision.name()),
        format!(
            "  {} ({}) calls {connector}/{tool} under policy {version}{canary}",
            principal.name, principal.role
        ),
    ];
    if let Some(refusal) = &answer.refusal {
        let mut message = refusal.message.lines();
        let first = message.next().unwrap_or_default();
        lines.push(format!("  the client gets {}: {first}", refusal.status));
        lines.extend(message.map(|line| format!("    {line}")));
    }
    if let Some(digest) = &answer.approval {
        let id = portcullis_core::authz::approval::id(digest);
        lines.push(match &asked.approval {
            ApprovalId::OfTheArguments => {
                let state =
                    state.map_or("not requested yet".to_owned(), |state| format!("{state} now"));
                format!("  approval {id}: {state}")
            }
            ApprovalId::OfTheLog(Some(id)) => {
                format!("  approval {id}, by the log; portcullis approve list has its state")
            }
            ApprovalId::OfTheLog(None) => {
                "  approval: unknown, its id follows from arguments that the log redacts or cuts"
                    .to_owned()
            }
        });
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
    lines
}
