//! The form of a file of cases: who calls what, and what is to come of it.
//!
//! Owns what may stand there and every mistake in it. What comes of a call, the core says.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::auth::token::claims;
use portcullis_core::auth::token::issuer::{self, Issuer};
use portcullis_core::auth::{AuthFailure, IdentityKind, Principal, Restrictions, Scopes, Writes};
use portcullis_core::authz::explain::{Answer, Decision};
use portcullis_core::decode::{Faults, Fields, Node};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::policy::{Globs, Policy};
use serde_json::{Map, Value};

use crate::time::{Seconds, Time};

/// One call, and what is to come of it.
pub(super) struct Case {
    /// Where it stands: `cases[3]`.
    pub(super) path: String,
    pub(super) name: String,
    /// Who calls, or why the token makes no caller.
    pub(super) caller: Result<Caller, AuthFailure>,
    pub(super) connector: Option<PolicyName>,
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) at: Seconds,
    pub(super) source: String,
    pub(super) expect: Decision,
    pub(super) rule: Option<String>,
    /// The arguments as they are to go on.
    pub(super) goes_on_with: Option<Map<String, Value>>,
}

/// What came of one case.
pub(super) struct CaseResult {
    pub(super) name: String,
    pub(super) line: Option<usize>,
    /// What is not as expected.
    pub(super) fault: Option<String>,
    pub(super) answer: Answer,
}

#[derive(Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) claims: Map<String, Value>,
}

/// What holds for all cases that say nothing else.
struct Defaults<'a> {
    policy: &'a Policy,
    at: Option<Seconds>,
    issuers: Vec<Issuer>,
    callers: BTreeMap<String, Result<Caller, AuthFailure>>,
}

const AGENT: &str = "the agent that the token names: 1 to 256 bytes without control characters";
const TIME: &str = "a time, such as 2027-01-04T12:00:00Z";
const CALLER: &str = "a caller: the name of one in `callers`, or an object such as {role: analyst} or {token: {iss: …, sub: …}}";

/// What only a key has, and what only a token has.
const OF_KEY: [&str; 4] = ["key", "connectors", "tools", "allow_write"];
const OF_TOKEN: [&str; 3] = ["scopes", "claims", "agent"];
const CREDENTIALS: &str = "a caller with a key (key, connectors, tools, allow_write) or with a token (scopes, claims, agent)";

/// The `policy` of a file of cases, before the rest is read.
pub(super) fn policy_of(document: &Value) -> Option<&str> {
    document.get("policy").and_then(Value::as_str)
}

pub(super) fn read(document: &Value, policy: &Policy) -> Result<Vec<Case>, Faults> {
    let mut faults = Faults::default();
    let cases = cases(document, policy, &mut faults);
    faults.unless(cases)
}

fn cases(document: &Value, policy: &Policy, faults: &mut Faults) -> Option<Vec<Case>> {
    let mut fields = Node::root(document).object(faults, "an object with `cases`")?;
    // Which one it is was asked before.
    fields.optional("policy").and_then(|it| text(it, faults, "the file of the policy"));
    let at = fields.optional("at").and_then(|node| time(node, faults));
    let issuers = fields.optional("issuers").and_then(|node| issuer::read(node, faults));
    let issuers = issuers.unwrap_or_default();
    let mut defaults = Defaults { policy, at, issuers, callers: BTreeMap::new() };
    let callers = fields.optional("callers");
    let callers = callers.and_then(|it| it.members(faults, "one member for each caller"));
    for (name, node) in callers.into_iter().flatten() {
        if let Some(caller) = caller(node, &defaults, faults) {
            defaults.callers.insert(name.to_owned(), caller);
        }
    }
    let expected = "a list of cases, such as [{name: …, caller: {role: analyst}, tool: query_users, expect: allow}]";
    let items =
        fields.required("cases", faults, expected).and_then(|node| node.items(faults, expected));
    // A file that lost its cases tests nothing, and is no success.
    if items.as_ref().is_some_and(Vec::is_empty) {
        fields.fault_at("cases", "no case", expected, faults);
    }
    fields.finish(faults);
    let cases: Vec<_> = items?.into_iter().map(|item| case(item, &defaults, faults)).collect();
    cases.into_iter().collect()
}

fn case(node: Node<'_>, defaults: &Defaults<'_>, faults: &mut Faults) -> Option<Case> {
    const EXPECT: &str = "one of allow, deny, needs_approval, shadow_deny";
    let path = node.path().to_owned();
    let mut fields =
        node.object(faults, "a case: an object with `name`, `caller`, `tool` and `expect`")?;
    let name = fields.required("name", faults, "what the case shows");
    let name = name.and_then(|node| text(node, faults, "what the case shows"));
    let who = fields.required("caller", faults, CALLER);
    let who = who.and_then(|node| caller(node, defaults, faults));
    let tool = fields.required("tool", faults, "the tool that is called");
    let tool = tool.and_then(|node| text(node, faults, "the tool that is called"));
    let connector = match fields.optional("connector") {
        Some(node) => policy_name(node, faults).map(Some),
        None => Some(None),
    };
    let arguments = match fields.optional("arguments") {
        Some(node) => object(&node, faults),
        None => Some(Map::new()),
    };
    let at = fields.optional("at").map_or(Some(None), |node| time(node, faults).map(Some));
    let source = match fields.optional("source") {
        Some(node) => text(node, faults, "an address, such as 10.1.2.3"),
        None => Some("127.0.0.1".to_owned()),
    };
    let expect = fields.required("expect", faults, EXPECT).and_then(|node| {
        node.text(faults, EXPECT, |text| {
            let all =
                [Decision::Allow, Decision::Deny, Decision::NeedsApproval, Decision::ShadowDeny];
            all.into_iter().find(|decision| decision.name() == text)
        })
    });
    let rule = match fields.optional("rule") {
        Some(node) => text(node, faults, "a rule, such as roles.analyst.crm.deny").map(Some),
        None => Some(None),
    };
    let goes_on_with = match fields.optional("goes_on_with") {
        Some(node) => object(&node, faults).map(Some),
        None => Some(None),
    };
    fields.finish(faults);
    let at = at?.or(defaults.at).unwrap_or_else(Seconds::now);
    let (name, caller, tool, expect) = (name?, who?, tool?, expect?);
    let (connector, arguments, source, rule) = (connector?, arguments?, source?, rule?);
    let goes_on_with = goes_on_with?;
    Some(Case {
        path,
        name,
        caller,
        connector,
        tool,
        arguments,
        at,
        source,
        expect,
        rule,
        goes_on_with,
    })
}

fn caller(
    node: Node<'_>,
    defaults: &Defaults<'_>,
    faults: &mut Faults,
) -> Option<Result<Caller, AuthFailure>> {
    if let Some(name) = node.value().as_str() {
        let known = defaults.callers.get(name).cloned();
        if known.is_none() {
            let names: Vec<&str> = defaults.callers.keys().map(String::as_str).collect();
            node.fault(faults, format!("one of the callers: {}", names.join(", ")));
        }
        return known;
    }
    let stated = node.value().as_object();
    let stated = |name: &&&str| stated.is_some_and(|members| members.contains_key(**name));
    let (of_key, of_token) = (OF_KEY.iter().find(stated), OF_TOKEN.iter().find(stated));
    let mut fields = node.object(faults, CALLER)?;
    if let (Some(of_key), Some(of_token)) = (of_key, of_token) {
        let found = format!("`{of_token}` beside `{of_key}`: a key has no `{of_token}`");
        fields.fault_at(of_token, &found, CREDENTIALS, faults);
    }
    if let Some(token) = fields.optional("token") {
        fields.finish(faults);
        return by_token(&token, defaults, faults);
    }
    let caller = by_role(&mut fields, defaults, faults);
    fields.finish(faults);
    caller.map(Ok)
}

/// Whom the claims of a token make of its holder, by the mapping of its issuer.
fn by_token(
    node: &Node<'_>,
    defaults: &Defaults<'_>,
    faults: &mut Faults,
) -> Option<Result<Caller, AuthFailure>> {
    let claims = object(node, faults)?;
    let iss = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let issuer = defaults.issuers.iter().find(|issuer| issuer.id.as_str() == iss);
    let Some(issuer) = issuer else {
        let known: Vec<&str> = defaults.issuers.iter().map(|issuer| issuer.id.as_str()).collect();
        let expected = format!("one of `issuers`, which has: {}", known.join(", "));
        faults.push(&format!("{}.iss", node.path()), format!("{iss:?}"), expected);
        return None;
    };
    match claims::caller(&claims, issuer) {
        Ok(principal) => Some(Ok(Caller { principal, claims })),
        // Signed by its issuer, and no caller here: a case may expect that.
        Err(failure @ AuthFailure::TokenUnmapped(_)) => Some(Err(failure)),
        Err(failure) => {
            let expected =
                "claims that the issuer's mapping makes an organisation, a role and a tier of";
            faults.push(
                node.path(),
                format!("claims that are refused: {}", failure.code()),
                expected,
            );
            None
        }
    }
}

fn by_role(
    fields: &mut Fields<'_>,
    defaults: &Defaults<'_>,
    faults: &mut Faults,
) -> Option<Caller> {
    let policy = defaults.policy;
    let role = fields.required("role", faults, "the caller's role");
    let role = role.and_then(|node| policy_name(node, faults));
    let tier = match fields.optional("tier") {
        Some(node) => policy_name(node, faults).map(Some),
        None => Some(policy.tiers.keys().next().cloned()),
    };
    let org = match fields.optional("org") {
        Some(node) => node.text(faults, OrgId::EXPECTED, OrgId::new),
        None => policy.organisations.first().cloned(),
    };
    let key = match fields.optional("key") {
        Some(node) => node.text(faults, KeyId::EXPECTED, KeyId::new),
        None => KeyId::new("nokey"),
    };
    let name = match fields.optional("name") {
        Some(node) => text(node, faults, "the name of the credential"),
        None => Some("a caller".to_owned()),
    };
    let scopes = match fields.optional("scopes") {
        Some(node) => texts(node, faults).map(|it| Scopes::Granted(BTreeSet::from_iter(it))),
        None => Some(Scopes::Unknown),
    };
    let agent = match fields.optional("agent") {
        Some(node) => {
            let read = |text: &str| claims::is_identifier(text).then(|| text.to_owned());
            node.text(faults, AGENT, read).map(Some)
        }
        None => Some(None),
    };
    let claims = match fields.optional("claims") {
        Some(node) => object(&node, faults),
        None => Some(Map::new()),
    };
    let mut only = |field| match fields.optional(field) {
        Some(node) => texts(node, faults).map(|names| {
            let mut globs = Globs::default();
            names.iter().for_each(|name| globs.insert(name));
            Some(globs)
        }),
        None => Some(None),
    };
    let (connectors, tools) = (only("connectors"), only("tools"));
    let writes = match fields.optional("allow_write") {
        Some(node) => node.boolean(faults).map(|it| if it { Writes::Open } else { Writes::Closed }),
        None => Some(Writes::Open),
    };
    let restrictions = Restrictions { connectors: connectors?, tools: tools?, writes: writes? };
    let (role, tier) = (role?, tier?);
    let tier = tier.unwrap_or_else(|| role.clone());
    let principal = Principal {
        org: org?,
        identity: IdentityKind::Key(key?).into(),
        name: name?,
        role,
        tier,
        scopes: scopes?,
        agent: agent?,
        restrictions,
    };
    Some(Caller { principal, claims: claims? })
}

fn text(node: Node<'_>, faults: &mut Faults, expected: &str) -> Option<String> {
    node.text(faults, expected, |text| (!text.is_empty()).then(|| text.to_owned()))
}

fn texts(node: Node<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = node.items(faults, "a list of texts")?;
    items.into_iter().map(|item| text(item, faults, "a text")).collect()
}

fn policy_name(node: Node<'_>, faults: &mut Faults) -> Option<PolicyName> {
    node.text(faults, PolicyName::EXPECTED, PolicyName::new)
}

fn object(node: &Node<'_>, faults: &mut Faults) -> Option<Map<String, Value>> {
    let members = node.value().as_object().cloned();
    if members.is_none() {
        node.fault(faults, "an object");
    }
    members
}

fn time(node: Node<'_>, faults: &mut Faults) -> Option<Seconds> {
    node.text(faults, TIME, |text| match text.parse() {
        Ok(Time::At(seconds)) => Some(seconds),
        Ok(Time::In(_)) | Err(_) => None,
    })
}
