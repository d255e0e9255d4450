//! `explain` against the gateway: random policies, callers, arguments, times and states through a whole exchange, and
//! the same question asked of `explain`. Never another answer.
//!
//! `PROPTEST_CASES=100000` makes it longer.

mod document;
mod state;

use std::collections::BTreeMap;
use std::rc::Rc;

use portcullis_core::audit::Chain;
use portcullis_core::auth::deny_list::DenyListEntry;
use portcullis_core::auth::record::KeyRecord;
use portcullis_core::auth::token::jws::PresentedToken;
use portcullis_core::auth::token::keyring::{Keyring, Verification};
use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::authz;
use portcullis_core::authz::explain::{Answer, Question, explain};
use portcullis_core::authz::outcome::{End, Outcome, Standing};
use portcullis_core::driver::call::{CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Closing, Event, Head, Headers};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::{OrgId, PolicyName, RequestId};
use portcullis_core::json;
use portcullis_core::limit::cool_off::Reason;
use portcullis_core::observed::Observed;
use portcullis_core::policy::{
    self, Activation, Canary, Enforcement, Policy, Unverified, WarningKind,
};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::cases;
use crate::mint::{RESOURCE, claims_with, token};
use document::document;
use state::{Caller, State, Stored, arguments, caller, certificate, config, denial, key, state};

/// 2026-11-20T22:00:00Z.
const START: u64 = 1_795_212_000;

/// One call, and all that decides about it.
#[derive(Clone, Debug)]
struct RandomCall {
    policy: Value,
    caller: Caller,
    tool: &'static str,
    arguments: Map<String, Value>,
    hours: u64,
    source: &'static str,
    state: State,
}

prop_compose! {
    fn trial()(
        policy in document(),
        caller in caller(),
        tool in prop_oneof![
            9 => select(vec!["query_users", "create_note", "delete_user"]), 1 => Just("made_up")
        ],
        arguments in arguments(),
        hours in 0_u64..24,
        source in select(vec!["192.0.2.7", "198.51.100.1"]),
        state in state(document()),
    ) -> RandomCall {
        RandomCall { policy, caller, tool, arguments, hours, source, state }
    }
}

/// Whom a credential makes of its holder, as `explain` finds out.
struct Known {
    principal: Principal,
    claims: Map<String, Value>,
    /// Whether the deny list has it.
    denied: bool,
}

/// What `explain` says.
struct Explained {
    policy: Rc<Policy>,
    answer: Answer,
    outcome: Outcome,
}

/// What the gateway did.
struct Done {
    passed: bool,
    /// Of a refusal while the caller cools off there is none.
    entry: Option<Value>,
    /// The rule of the last refusal.
    refused_by: Option<String>,
}

impl RandomCall {
    fn now(&self) -> UnixTime {
        UnixTime::from_micros((START + self.hours * 3_600) * 1_000_000)
    }

    fn token(&self, claims: &Value) -> String {
        let now = self.now().seconds();
        let mut all = json!({"iat": now - 10, "exp": now + 300, "scope": null, "tier": null});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        token(&claims_with(all))
    }

    /// The version for all, and the activation as Redis has it.
    fn activation(&self, holder: &str) -> (Activation, String, String) {
        let version = policy::version_of(&self.policy).unwrap();
        let canary = self.state.canary.as_ref().map(|(document, percent, named)| Canary {
            version: policy::version_of(document).unwrap(),
            percent: *percent,
            callers: named.then(|| holder.to_owned()).into_iter().collect(),
        });
        let rev = Activation::revision(&version, canary.as_ref());
        let doc =
            canary.map_or_else(|| json!({}), |canary| json!({ "canary": canary })).to_string();
        (Activation::parse(&rev, doc.as_bytes()).unwrap(), rev, doc)
    }

    fn known(&self) -> Known {
        let denial = denial(&self.state, self.now().seconds());
        let denial = denial.map(|it| DenyListEntry::parse(it.to_string().as_bytes()).unwrap());
        match &self.caller {
            Caller::Key(record) => {
                let record = KeyRecord::parse(record.to_string().as_bytes()).unwrap();
                Known { principal: record.principal(), claims: Map::new(), denied: false }
            }
            Caller::Token(claims) => {
                let (text, mut keyring) = (self.token(claims), Keyring::new(0));
                let token = PresentedToken::parse(text.as_bytes(), 16_384).unwrap();
                let issuers = config(&self.caller).auth.issuers;
                let found = keyring.verify(&token, &issuers, Some(RESOURCE), self.now());
                let Verification::Verified(verified) = found else { panic!("{found:?}") };
                let credential = &verified.credential;
                Known {
                    principal: (*credential.principal).clone(),
                    claims: credential.claims.clone(),
                    denied: denial.is_some_and(|it| credential.is_denied_by(&it)),
                }
            }
            Caller::Certificate(..) => {
                let rules = config(&self.caller).auth.certificates;
                let found = rules.identify(&certificate()).unwrap();
                let principal = Principal {
                    org: found.org,
                    identity: IdentityKind::Certificate(found.name.clone()).into(),
                    name: found.name,
                    role: found.role,
                    tier: found.tier,
                    scopes: Scopes::Unknown,
                    agent: None,
                    restrictions: Restrictions::default(),
                };
                // It does not say when it was issued, so every entry is about it.
                Known { principal, claims: Map::new(), denied: denial.is_some() }
            }
        }
    }

    /// The policy that decides, by what Redis says of the caller.
    fn decisive(&self, principal: &Principal) -> Rc<Policy> {
        let document = match (&self.state.canary, self.is_tried(principal)) {
            (Some((document, ..)), true) => document,
            (Some(_) | None, _) => &self.policy,
        };
        Rc::new(policy::compile(document).unwrap())
    }

    /// Whether the canary takes the caller.
    fn is_tried(&self, principal: &Principal) -> bool {
        let holder = principal.identity.holder();
        let (activation, ..) = self.activation(holder);
        activation.version_for(holder) != &activation.version
    }

    fn explained(&self, known: &Known) -> Explained {
        let Known { principal, claims, .. } = known;
        let policy = self.decisive(principal);
        let connector = PolicyName::new("demo").unwrap();
        let answer = explain(&Question {
            policy: &policy,
            principal,
            claims,
            connector: &connector,
            tool: self.tool,
            arguments: &self.arguments,
            now: self.now(),
            source: self.source,
            // Redis has it only for a policy that asks for it.
            observed: match policy.connectors[&connector].pins.unverified {
                Unverified::Block => Observed::read(self.state.observed),
                Unverified::Allow => Observed::Nothing,
            },
        })
        .unwrap();
        let windows = answer.quotas.iter().enumerate();
        let standing = Standing {
            approval: self.state.approval.0,
            windows: windows.map(|(nth, it)| self.state.stands(nth, &it.window)).collect(),
            cooling: self.state.cools_off.then_some(Reason::Repeats),
        };
        let outcome = answer.outcome(&policy, &standing);
        Explained { policy, answer, outcome }
    }

    fn done(&self, known: &Known) -> Done {
        let mut worker = Worker::new(config(&self.caller), Chain::new("c".into()));
        let tried = self.state.canary.as_ref().map(|(document, ..)| document);
        for document in [&self.policy].into_iter().chain(tried) {
            let version = policy::version_of(document).unwrap();
            let stored = json::canonical_exact(document);
            worker.policy_read(&version, Some(stored.as_bytes()), self.now());
        }
        let holder = known.principal.identity.holder();
        let (_, rev, doc) = self.activation(holder);
        let denial = denial(&self.state, self.now().seconds()).map(|it| it.to_string());
        let record = match &self.caller {
            Caller::Key(record) => Some(record),
            Caller::Token(_) | Caller::Certificate(..) => None,
        };
        let stored = Stored { state: &self.state, record, activation: (rev, doc), denial };
        // A worker that lets a caller cool off has seen it.
        let policy = self.decisive(&known.principal);
        if let (true, Some(rule)) = (self.state.cools_off, &policy.cool_off) {
            self.called(&mut worker, &stored);
            let org = OrgId::new("acme").unwrap();
            let mut again = || worker.callers.called(rule, (&org, holder), "again", self.now());
            while again().is_none() {}
        }
        self.called(&mut worker, &stored)
    }

    fn called(&self, worker: &mut Worker, stored: &Stored<'_>) -> Done {
        let mut exchange = Exchange::default();
        let mut refused_by = None;
        let mut steps = |event| {
            let step = exchange.step(worker, self.now(), event);
            if let Gate::Request(RequestGate::Refuse(denial)) = &step.gate {
                refused_by = Some(denial.rule());
            }
            step
        };
        let mut step = steps(Event::Head { head: self.head(), last: false });
        let mut passed = false;
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": self.tool, "arguments": self.arguments},
        });
        if matches!(step.gate, Gate::Hold) {
            step = steps(Event::Body(call.to_string().into_bytes()));
            passed |= passes(&step);
        }
        for _ in 0..8 {
            let Some((id, call)) = step.effects.iter().find_map(started) else { break };
            let reply = Reply::Redis(stored.reply(call));
            step = steps(Event::CallDone { id, reply });
            passed |= passes(&step);
        }
        let step = steps(Event::Closed(Closing { http_status: Some(200), ..Closing::default() }));
        let line = step.effects.iter().find_map(|effect| match effect {
            Effect::Audit(line) => Some(line.to_string()),
            _ => None,
        });
        Done { passed, entry: line.map(|line| serde_json::from_str(&line).unwrap()), refused_by }
    }

    fn head(&self) -> Head {
        let (key, bearer) = match &self.caller {
            Caller::Key(_) => (Some(key()), None),
            Caller::Token(claims) => (None, Some(format!("Bearer {}", self.token(claims)))),
            Caller::Certificate(..) => (None, None),
        };
        let credential = key.as_ref().map(|key| ("x-api-key", key.as_str()));
        let credential = credential.or(bearer.as_ref().map(|it| ("authorization", it.as_str())));
        let headers = [
            (":authority", "localhost"),
            (":path", "/demo/mcp"),
            (":method", "POST"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        let headers: Headers = headers.into_iter().chain(credential).collect();
        let head = Head::new(RequestId::numbered(7, 1), self.source.into(), headers);
        match self.caller {
            Caller::Certificate(..) => head.with_certificate(Ok(certificate())),
            Caller::Key(_) | Caller::Token(_) => head,
        }
    }
}

fn passes(step: &Step) -> bool {
    matches!(step.gate, Gate::Request(RequestGate::Pass))
}

fn started(effect: &Effect) -> Option<(CallId, &DependencyCall)> {
    match effect {
        Effect::Start { id, call } => Some((*id, call)),
        _ => None,
    }
}

/// The rules of conditions that `policy check` says no call, or every call, meets.
fn constant(policy: &Policy) -> [Vec<String>; 2] {
    let of = |kind: WarningKind, whole: &str| {
        let warnings = policy.warnings().into_iter();
        let said = warnings.filter(|it| it.kind == kind && it.expected.starts_with(whole));
        said.filter_map(|it| it.path.strip_suffix(".when").map(str::to_owned)).collect()
    };
    [
        of(WarningKind::NeverTrue, "a condition that can be true"),
        of(WarningKind::AlwaysTrue, "a condition that can be false"),
    ]
}

/// What `policy check` says of a rule and the calls that fit the pinned schema.
#[derive(Clone, Copy)]
enum Claim {
    /// It refuses none.
    Idle,
    /// It refuses only calls without an argument.
    IdleWith,
    /// No call meets it.
    RefusesAll,
}

/// By rule, with the demand that they are about; a condition is one demand.
fn claims(policy: &Policy) -> Vec<(String, Claim, String)> {
    let warnings = policy.warnings().into_iter();
    let claims = warnings.filter_map(|it| {
        let demand = it.found.split_once(", where the pinned schema");
        let told = demand.map(|(demand, _)| demand.to_owned()).unwrap_or_default();
        let claim = match it.found {
            found if found.contains("only calls without it are refused") => Claim::IdleWith,
            found
                if found
                    .contains("fits the pinned schema meets: the condition refuses nothing") =>
            {
                Claim::Idle
            }
            found if found.contains("no call that fits the pinned schema can meet") => {
                Claim::RefusesAll
            }
            found if found.contains("the rule refuses nothing") => Claim::Idle,
            _ => return None,
        };
        // Of one tool among several, the step does not say which.
        let rule = it.path.rsplit_once('.')?.0;
        (!matches!(claim, Claim::RefusesAll) || rule.contains(".tools."))
            .then(|| (rule.to_owned(), claim, told))
    });
    claims.collect()
}

fn pinned<'a>(policy: &'a Policy, trial: &RandomCall) -> Option<&'a Value> {
    let tool = policy.connectors.values().find_map(|it| it.tools.get(trial.tool));
    tool?.pin.as_ref()?.member("inputSchema")
}

/// Whether a call fits its pinned schema, as it came.
fn fits(policy: &Policy, trial: &RandomCall) -> bool {
    pinned(policy, trial).is_some_and(|schema| {
        let compiled = portcullis_core::schema::compile(schema).unwrap();
        compiled.check(&Value::Object(trial.arguments.clone())).is_ok()
    })
}

/// Whether a call has every argument of its pinned schema; it may have others, too.
fn is_complete(policy: &Policy, trial: &RandomCall) -> bool {
    let properties = pinned(policy, trial).and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flatten().all(|(name, _)| trial.arguments.contains_key(name))
}

/// What `policy check` says of rules and conditions is so of this call.
fn claims_hold(policy: &Policy, answer: &Answer, trial: &RandomCall) -> Result<(), TestCaseError> {
    // Of a policy that is in shadow mode as a whole, it is said what would be if it were enforced.
    let fits = policy.enforcement == Enforcement::Enforce && fits(policy, trial);
    for (rule, claim, told) in claims(policy) {
        let step = answer.steps.iter().find(|step| step.rule == rule);
        let Some(step) = step.filter(|_| fits) else { continue };
        let met = step.outcome == authz::Consideration::Passed;
        let others = answer
            .steps
            .iter()
            .any(|it| it.rule != rule && it.outcome == authz::Consideration::Refused);
        match claim {
            // Of several demands on an argument, another one may refuse.
            Claim::Idle => prop_assert!(
                met || others || !step.detail.contains(&told),
                "{:?} {:?}",
                step,
                answer
            ),
            Claim::IdleWith => prop_assert!(
                met || others || !is_complete(policy, trial),
                "{:?} {:?}",
                step,
                answer
            ),
            Claim::RefusesAll => prop_assert!(!met, "{:?} {:?}", step, answer),
        }
    }
    let [never, always] = constant(policy);
    for step in &answer.steps {
        let met = step.outcome == authz::Consideration::Passed;
        prop_assert!(!(met && never.contains(&step.rule)), "{:?}", step);
        prop_assert!(met || !always.contains(&step.rule), "{:?}", step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    /// Issue 14: `explain` said allow of calls that the gateway refused. Proves: X4
    #[test]
    fn explain_says_what_the_gateway_does(trial in trial()) {
        let known = trial.known();
        let Explained { policy, answer, outcome } = trial.explained(&known);
        // Whoever calls, and whatever keeps this call from being judged.
        claims_hold(&policy, &answer, &trial)?;
        let Done { passed, entry, refused_by } = trial.done(&known);
        if known.denied {
            prop_assert!(!passed && refused_by.as_deref() == Some("auth.denied"), "{:?}", entry);
            return Ok(());
        }
        prop_assert_eq!(passed, outcome.end == End::Passes, "{:?} {:?} {:?}", outcome, answer, entry);
        let Some(entry) = entry else {
            // Calls of a caller that cools off leave none.
            prop_assert_eq!((outcome.end, refused_by), (End::Limited, outcome.rule), "{:?}", answer);
            return Ok(());
        };
        let expected = match (outcome.end, &outcome.rule) {
            (End::Passes, None) => ("allow", None),
            (End::Passes, Some(_)) => ("shadow_deny", None),
            (End::Limited, _) => ("deny", Some("limited")),
            (End::Waits | End::Refused, _) => ("deny", Some("denied")),
        };
        let effect = entry["decision"]["effect"].as_str().unwrap_or_default();
        let status = entry["status"].as_str().filter(|_| !passed);
        prop_assert_eq!((effect, status), expected, "{:?} {:?} {}", outcome, answer, entry);
        let rule = entry["decision"]["rule"].as_str().unwrap_or_default();
        // Who cannot see a tool does not learn which rule hides it, nor is the log's rule finer.
        if rule != "tool.not_visible" {
            let told = outcome.rule.clone().unwrap_or_default();
            prop_assert_eq!(rule, told, "{:?} {:?} {}", outcome, answer, entry);
        }
        let capped = entry["events"].to_string().contains("records_capped");
        let amends = answer.amended.is_some() && passed;
        prop_assert_eq!(capped, amends, "{:?} {}", answer, entry);
    }
}

/// What random calls come to, so that the property is about all of it.
#[test]
fn random_calls_reach_every_outcome_for_every_kind_of_caller() {
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..1_500 {
        let trial = trial().new_tree(&mut runner).unwrap().current();
        let known = trial.known();
        let Explained { answer, outcome, .. } = trial.explained(&known);
        let kind = match trial.caller {
            Caller::Key(_) => "key",
            Caller::Token(_) => "token",
            Caller::Certificate(..) => "certificate",
        };
        let mut reach = |what: &str| *reached.entry(what.to_owned()).or_default() += 1;
        if known.denied {
            reach("denied");
            continue;
        }
        reach(&format!("{kind} {}", outcome.end.name()));
        let cools = outcome.rule.as_deref() == Some("cool_off.repeats");
        let asked = answer.approval.is_some();
        for (what, is) in [
            ("cools off", cools),
            ("tried on it", trial.is_tried(&known.principal)),
            ("granted", asked && outcome.end == End::Passes),
            ("no by a person", asked && outcome.end == End::Refused),
            ("waits, and limited", asked && !cools && outcome.end == End::Limited),
            ("costs too much", !asked && outcome.window.is_some() && outcome.end == End::Refused),
            ("limits on trial", outcome.window.is_some() && outcome.end == End::Passes),
        ] {
            if is {
                reach(what);
            }
        }
    }
    let ends = ["allow", "limited", "needs_approval", "deny"];
    let ends = ["key", "token", "certificate"]
        .iter()
        .flat_map(|kind| ends.map(|end| format!("{kind} {end}")));
    let others = [
        "denied",
        "cools off",
        "tried on it",
        "granted",
        "no by a person",
        "waits, and limited",
        "costs too much",
        "limits on trial",
    ];
    for what in ends.chain(others.map(str::to_owned)) {
        assert!(reached.get(&what).is_some_and(|count| *count >= 5), "{what}: {reached:?}");
    }
}
