//! `explain` against the gateway: random policies, callers, arguments and times through a whole exchange, and the
//! same question asked of `explain`. Never another answer.
//!
//! Owns an honest Redis, whose windows have room. `PROPTEST_CASES=100000` makes it longer.

use std::rc::Rc;

use portcullis_core::audit::Chain;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::auth::record::KeyRecord;
use portcullis_core::authz::explain::{Answer, Decision, Question, explain};
use portcullis_core::config::Config;
use portcullis_core::driver::call::{CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Closing, Event, Head, Headers};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::{KeyId, OrgId, PolicyName, PolicyVersion, RequestId};
use portcullis_core::observed::Observed;
use portcullis_core::policy::{self, Enforcement, Policy, Unverified, WarningKind};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_core::{authz, json};
use portcullis_redis_lua::Value as Redis;
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::cases;

const TOOLS: [&str; 3] = ["query_users", "create_note", "delete_user"];
const CONDITIONS: [&str; 27] = [
    // The same for every call that fits one of the pinned schemas below.
    "arguments.limit <= 100",
    "!has(arguments.limit) || arguments.limit <= 200",
    "arguments.limit > 100 || time.hour < 12",
    "arguments.plan in ['free', 'pro', 'gold']",
    "has(arguments.plan) && arguments.plan != 'gold'",
    "size(arguments.ids) <= 9",
    "size(arguments.ids) < 1",
    "time.hour >= 8 && time.hour < 18",
    "arguments.limit <= 50",
    "!has(arguments.limit) || arguments.limit <= 50",
    "principal.role == 'analyst'",
    "tool != 'delete_user'",
    "source.address == '192.0.2.7'",
    "arguments.plan == 'free'",
    "size(arguments.ids) < 3",
    "inRange(source.address, '192.0.2.0/24')",
    "arguments.ids.all(id, id != 'x')",
    "arguments.plan.matches('^fr[ae]+$')",
    "!matches(tool, 'delete') || arguments.ids.exists(id, id.matches('^(?!x)[a-z]$'))",
    "arguments.ids.all(id, id.matches('^[a-c]{1,3}$'))",
    "has(arguments.limit) && arguments.limit <= 10",
    // The same for every call; the last four are said to be so by `policy check`.
    "time.hours < 24",
    "time.hour < '8'",
    "time.hour >= 18 && time.hour < 8",
    "time.hour < 24 || arguments.limit == 1",
    "principal.tier == 'gold' || tool == 'x' && tool == 'y'",
    "arguments.limit < 1 && arguments.limit > 2",
];

/// 2026-11-20T22:00:00Z.
const START: u64 = 1_795_212_000;

/// One call, and all that decides about it.
#[derive(Clone, Debug)]
struct RandomCall {
    policy: Value,
    record: Value,
    tool: &'static str,
    arguments: Map<String, Value>,
    hours: u64,
    source: &'static str,
    observed: &'static str,
}

fn shadowed() -> impl Strategy<Value = Option<&'static str>> {
    weighted(0.15, select(vec!["shadow", "enforce"]))
}

fn conditions(about_tools: bool) -> impl Strategy<Value = Option<Value>> {
    let tools = weighted(0.4, subsequence(TOOLS.to_vec(), 1..=2));
    let tools = tools.prop_map(move |tools| tools.filter(|_| about_tools));
    let one = (select(CONDITIONS.to_vec()), tools, shadowed()).prop_map(|(when, tools, shadow)| {
        let mut condition = json!({ "when": when });
        put(&mut condition, "tools", tools.map(|tools| json!(tools)));
        put(&mut condition, "enforcement", shadow.map(|it| json!(it)));
        condition
    });
    weighted(0.3, vec(one, 1..=2).prop_map(|all| json!(all)))
}

fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[name] = value;
    }
}

/// What the policy demands of arguments.
fn demands() -> impl Strategy<Value = Option<Value>> {
    let limit = select(vec![
        json!({"maximum": 50}),
        json!({"minimum": 1, "maximum": 10.5}),
        json!({"enum": [1, 10, null]}),
        json!({"maximum": 500}),
        json!({"enum": [200]}),
        json!({"required": true}),
    ]);
    let plan = select(vec![
        json!({"enum": ["free"]}),
        json!({"pattern": "^(?=f)[a-z]+$", "max_length": 4}),
        json!({"min_length": 4, "required": true}),
        json!({"max_length": 9}),
        json!({"enum": ["free", "pro"]}),
    ]);
    let ids = select(vec![json!({"max_items": 2}), json!({"items": {"pattern": "^[a-c]$"}})]);
    let each = (weighted(0.5, limit), weighted(0.5, plan), weighted(0.5, ids), shadowed());
    let all = each.prop_filter_map("some", |(limit, plan, ids, shadow)| {
        let mut all = json!({});
        for (name, rule) in [("limit", limit), ("plan", plan), ("ids", ids)] {
            let rule = rule.map(|mut rule| {
                put(&mut rule, "enforcement", shadow.map(|it| json!(it)));
                rule
            });
            put(&mut all, name, rule);
        }
        (!all.as_object().unwrap().is_empty()).then_some(all)
    });
    weighted(0.25, all)
}

/// Rules about calls, of a tool or of a role.
fn call_rules() -> impl Strategy<Value = Value> {
    let argument = prop_oneof![4 => Just("limit"), 1 => Just("size")];
    let cap = (argument, 1_u64..100, select(vec!["clamp", "refuse"]), shadowed());
    let approval = weighted(0.15, (select(vec!["20m", "1m"]), shadowed()));
    (weighted(0.3, cap), approval, demands(), conditions(false)).prop_map(
        |(cap, approval, demands, conditions)| {
            let mut rules = json!({});
            let cap = cap.map(|(argument, max, on_excess, shadow)| {
                let mut cap = json!({"argument": argument, "max": max, "on_excess": on_excess});
                put(&mut cap, "enforcement", shadow.map(|it| json!(it)));
                cap
            });
            put(&mut rules, "max_records", cap);
            let approval = approval.map(|(expires, shadow)| {
                let mut approval = json!({"expires": expires});
                put(&mut approval, "enforcement", shadow.map(|it| json!(it)));
                approval
            });
            put(&mut rules, "approval", approval);
            put(&mut rules, "arguments", demands);
            put(&mut rules, "conditions", conditions);
            rules
        },
    )
}

fn tool() -> impl Strategy<Value = Value> {
    let schema = select(vec![
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"limit": {"type": "integer", "maximum": 100}}}),
        json!({"type": "object", "properties": {"plan": {"enum": ["free", "pro"]}}, "required": ["plan"]}),
        json!({"type": "object", "properties": {
            "limit": {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 100},
            "plan": {"type": "string", "minLength": 3, "maxLength": 4},
            "ids": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 2}},
        }, "required": ["limit"]}),
    ]);
    (of(any::<bool>()), call_rules(), weighted(0.4, schema)).prop_map(
        |(read_only, mut tool, schema)| {
            put(&mut tool, "read_only", read_only.map(|it| json!(it)));
            put(&mut tool, "input_schema", schema);
            tool
        },
    )
}

/// What a role adds to the rules of tools.
fn role_rules() -> impl Strategy<Value = Option<Value>> {
    let some = |rules: &Value| !rules.as_object().unwrap().is_empty();
    let one = (select(vec!["query_users", "create_note", "query_*", "*_user", "*"]), call_rules());
    let all = vec(one.prop_filter("some", move |(_, rules)| some(rules)), 1..=3);
    let all = all.prop_map(|all| {
        Value::Object(all.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect())
    });
    weighted(0.5, all)
}

fn globs() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(vec!["query_users", "create_note", "query_*", "*_user", "?elete_*"], 0..=2)
}

fn access() -> impl Strategy<Value = Value> {
    let allow = prop_oneof![2 => Just(vec!["*"]), 2 => globs()];
    (
        allow,
        weighted(0.3, globs()),
        weighted(0.3, globs()),
        weighted(0.3, any::<bool>()),
        conditions(true),
        (role_rules(), shadowed()),
    )
        .prop_map(|(allow, show, deny, writes, conditions, (rules, shadow))| {
            let mut access = json!({ "allow": allow });
            put(&mut access, "show", show.map(|it| json!(it)));
            put(&mut access, "deny", deny.map(|it| json!(it)));
            put(&mut access, "allow_write", writes.map(|it| json!(it)));
            put(&mut access, "conditions", conditions);
            put(&mut access, "tools", rules);
            put(&mut access, "enforcement", shadow.map(|it| json!(it)));
            access
        })
}

fn document() -> impl Strategy<Value = Value> {
    let checks = vec![
        "authorisation",
        "scopes",
        "schema",
        "conditions",
        "caps",
        "arguments",
        "approval",
        "limits",
    ];
    let connector = (
        vec(weighted(0.6, tool()), 3),
        conditions(true),
        weighted(0.3, select(vec!["hide", "allow"])),
        weighted(
            0.4,
            (
                select(vec!["text", "widening", "breaking", "suspicious"]),
                select(vec!["allow", "hide", "block"]),
                select(vec!["allow", "block", "block"]),
            ),
        ),
    );
    let role = (weighted(0.9, access()), weighted(0.2, any::<bool>()), conditions(true));
    let whole =
        (weighted(0.15, subsequence(checks, 1..=2)), weighted(0.05, Just("shadow")), any::<bool>());
    (connector, role, whole).prop_map(
        |(
            (tools, of_connector, unpinned, on_drift),
            (access, writes, of_role),
            (shadow, enforcement, limited),
        )| {
            let mut connector = json!({"path": "/demo/mcp"});
            let named = TOOLS
                .iter()
                .zip(tools)
                .filter_map(|(name, tool)| Some(((*name).to_owned(), tool?)));
            connector["tools"] = Value::Object(named.collect());
            put(&mut connector, "conditions", of_connector);
            put(&mut connector, "unpinned", unpinned.map(|it| json!(it)));
            put(
                &mut connector,
                "on_drift",
                on_drift.map(
                    |(class, action, unverified)| json!({class: action, "unverified": unverified}),
                ),
            );
            let mut role = json!({});
            put(&mut role, "demo", access);
            put(&mut role, "allow_write", writes.map(|it| json!(it)));
            put(&mut role, "conditions", of_role);
            let limits =
                if limited { json!({"calls": {"limit": 5, "window": "1s"}}) } else { json!({}) };
            let mut document = json!({
                "version": 1, "organisations": ["acme"], "connectors": {"demo": connector},
                "roles": {"analyst": role, "other": {}}, "tiers": {"free": {"limits": limits}},
            });
            put(&mut document, "shadow", shadow.map(|it| json!(it)));
            put(&mut document, "enforcement", enforcement.map(|it| json!(it)));
            document
        },
    )
}

fn record() -> impl Strategy<Value = Value> {
    let role = prop_oneof![8 => Just("analyst"), 1 => Just("other"), 1 => Just("gone")];
    let tier = prop_oneof![9 => Just("free"), 1 => Just("gone")];
    let tools = weighted(0.15, globs().prop_filter("some", |it| !it.is_empty()));
    let connectors = weighted(0.1, select(vec!["demo", "x*"]));
    (role, tier, tools, connectors, weighted(0.15, Just(true))).prop_map(
        |(role, tier, tools, connectors, read_only)| {
            let mut record = json!({
                "id": "k1a2b3c4", "org": "acme", "name": "bot", "role": role, "tier": tier,
                "created_at": 1, "created_by": "ops",
                "secrets": [{"sha256": KeyDigest::of(key().as_bytes()).to_hex()}],
            });
            put(&mut record, "tools", tools.map(|it| json!(it)));
            put(&mut record, "connectors", connectors.map(|it| json!([it])));
            put(&mut record, "read_only", read_only.map(|it| json!(it)));
            record
        },
    )
}

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let limit = select(vec![
        json!(1),
        json!(10),
        json!(50),
        json!(51),
        json!(500),
        json!(0),
        json!(-1),
        json!("5"),
        json!(null),
        json!(1.5),
    ]);
    let plan = select(vec![json!("free"), json!("fra"), json!("pro"), json!("Pro"), json!(1)]);
    let ids = select(vec![json!([]), json!(["a", "x"]), json!(["a", "b", "c"]), json!("abc")]);
    let odd = select(vec!["Limit", "note", "LIMIT", "size", "Plan"]);
    (of(limit), weighted(0.4, plan), weighted(0.4, ids), weighted(0.1, odd)).prop_map(
        |(limit, plan, ids, odd)| {
            let members = [("limit", limit), ("plan", plan), ("ids", ids)];
            let members = members.into_iter().filter_map(|(name, it)| Some((name.to_owned(), it?)));
            members.chain(odd.map(|name| (name.to_owned(), json!(7)))).collect()
        },
    )
}

prop_compose! {
    fn trial()(
        policy in document(),
        record in record(),
        tool in select(vec!["query_users", "create_note", "delete_user", "made_up"]),
        arguments in arguments(),
        hours in 0_u64..24,
        source in select(vec!["192.0.2.7", "198.51.100.1"]),
        observed in select(vec!["-", "same", "text", "widening", "breaking", "suspicious"]),
    ) -> RandomCall {
        RandomCall { policy, record, tool, arguments, hours, source, observed }
    }
}

fn key() -> String {
    let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2b3c4").unwrap());
    mint(&org, &id, &"s".repeat(SECRET_LENGTH)).unwrap().expose().to_owned()
}

impl RandomCall {
    fn now(&self) -> UnixTime {
        UnixTime::from_micros((START + self.hours * 3_600) * 1_000_000)
    }

    /// What `explain` says.
    fn explained(&self, policy: &Policy) -> Answer {
        let record = KeyRecord::parse(self.record.to_string().as_bytes()).unwrap();
        let (principal, claims) = (record.principal(), Map::new());
        let connector = PolicyName::new("demo").unwrap();
        explain(&Question {
            policy,
            principal: &principal,
            claims: &claims,
            connector: &connector,
            tool: self.tool,
            arguments: &self.arguments,
            now: self.now(),
            source: self.source,
            // Redis has it only for a policy that asks for it.
            observed: match policy.connectors[&connector].pins.unverified {
                Unverified::Block => Observed::read(self.observed),
                Unverified::Allow => Observed::Nothing,
            },
        })
        .unwrap()
    }

    /// What the gateway does: whether the call goes on, and its audit entry.
    fn done(&self, windows: usize) -> (bool, Value) {
        let config = Config::parse(&json!({"redis": {"cluster": "redis"}})).unwrap();
        let mut worker = Worker::new(config, Chain::new("c".into()));
        let version = policy::version_of(&self.policy).unwrap();
        let stored = json::canonical_exact(&self.policy);
        worker.policy_read(&version, Some(stored.as_bytes()), self.now());
        let mut exchange = Exchange::default();
        let mut steps = |event| exchange.step(&mut worker, self.now(), event);
        let _ = steps(Event::Head { head: self.head(), last: false });
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": self.tool, "arguments": self.arguments},
        });
        let mut step = steps(Event::Body(call.to_string().into_bytes()));
        let mut passed = passes(&step);
        for _ in 0..8 {
            let Some((id, call)) = step.effects.iter().find_map(started) else { break };
            let reply = Reply::Redis(self.reply(call, &version, windows));
            step = steps(Event::CallDone { id, reply });
            passed |= passes(&step);
        }
        let step = steps(Event::Closed(Closing { http_status: Some(200), ..Closing::default() }));
        let line = step.effects.iter().find_map(|effect| match effect {
            Effect::Audit(line) => Some(line.to_string()),
            _ => None,
        });
        (passed, serde_json::from_str(&line.expect("an audit entry")).unwrap())
    }

    fn head(&self) -> Head {
        let key = key();
        let headers = [
            (":authority", "localhost"),
            (":path", "/demo/mcp"),
            (":method", "POST"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2025-11-25"),
            ("x-api-key", &key),
        ];
        let headers: Headers = headers.into_iter().collect();
        Head::new(RequestId::numbered(7, 1), self.source.into(), headers)
    }

    fn reply(&self, call: &DependencyCall, version: &PolicyVersion, windows: usize) -> Redis {
        let bulk = |text: String| Redis::Bulk(text.into_bytes());
        match call {
            DependencyCall::Admit(call) => {
                let guards = String::from_utf8_lossy(&call.args[0]);
                let guards: usize = guards.split(',').next().unwrap().parse().unwrap();
                let mut moved = false;
                let mut states = vec![Redis::Int(0)];
                for (key, expected) in call.keys[..guards].iter().zip(&call.args[1..]) {
                    let (rev, doc) = match key.as_str() {
                        key if key.contains("}:key:") => ("1".to_owned(), self.record.to_string()),
                        key if key.ends_with("}:policy") => (version.to_string(), "{}".to_owned()),
                        key if key.contains("}:tool:") => (self.observed.to_owned(), String::new()),
                        // Nobody granted anything.
                        key if key.contains("}:approval:") => ("-".to_owned(), String::new()),
                        key => panic!("{key}"),
                    };
                    let current = rev.as_bytes() == expected.as_slice();
                    let told = !current && rev != "-";
                    moved |= !current;
                    states.extend([bulk(rev), if told { bulk(doc) } else { Redis::Nil }]);
                }
                if moved {
                    return Redis::Array(states);
                }
                let states = (0..windows).flat_map(|_| [4, 1_000, 0]);
                Redis::Array([1].into_iter().chain(states).map(Redis::Int).collect())
            }
            DependencyCall::Approval(_) => {
                Redis::Array(vec![Redis::Int(1), bulk("pending".into())])
            }
            other => panic!("{other:?}"),
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

/// Whether a call fits its pinned schema, as it came.
fn fits(policy: &Policy, trial: &RandomCall) -> bool {
    let tool = policy.connectors.values().find_map(|it| it.tools.get(trial.tool));
    let schema = tool.and_then(|tool| tool.pin.as_ref()?.member("inputSchema"));
    schema.is_some_and(|schema| {
        let compiled = portcullis_core::schema::compile(schema).unwrap();
        compiled.check(&Value::Object(trial.arguments.clone())).is_ok()
    })
}

proptest! {
    #![proptest_config(cases(300))]

    /// Issue 14: `explain` said allow of calls that the gateway refused. Proves: X4
    #[test]
    fn explain_says_what_the_gateway_does(trial in trial()) {
        let policy = Rc::new(policy::compile(&trial.policy).unwrap());
        let answer = trial.explained(&policy);
        let (passed, entry) = trial.done(answer.windows.len());
        let rule = entry["decision"]["rule"].as_str().unwrap_or_default();
        let effect = entry["decision"]["effect"].as_str().unwrap_or_default();
        let expected = match answer.decision {
            Decision::Allow => (true, "allow"),
            Decision::ShadowDeny => (true, "shadow_deny"),
            Decision::NeedsApproval | Decision::Deny => (false, "deny"),
        };
        prop_assert_eq!((passed, effect), expected, "{:?} {}", answer, entry);
        // Who cannot see a tool is not told by which rule, nor is the log's rule finer.
        if rule != "tool.not_visible" {
            prop_assert_eq!(rule, answer.rule.clone().unwrap_or_default(), "{:?} {}", answer, entry);
        }
        let capped = entry["events"].to_string().contains("records_capped");
        let amends = answer.amended.is_some() && answer.decision.lets_pass();
        prop_assert_eq!(capped, amends, "{:?} {}", answer, entry);
        // Of a policy that is in shadow mode as a whole, it is said what would be if it were enforced.
        let fits = policy.enforcement == Enforcement::Enforce && fits(&policy, &trial);
        for (rule, claim, told) in claims(&policy) {
            let step = answer.steps.iter().find(|step| step.rule == rule);
            let Some(step) = step.filter(|_| fits) else { continue };
            let met = step.outcome == authz::Consideration::Passed;
            let others = answer.steps.iter().any(|it| {
                it.rule != rule && it.outcome == authz::Consideration::Refused
            });
            match claim {
                // Of several demands on an argument, another one may refuse.
                Claim::Idle => prop_assert!(
                    met || others || !step.detail.contains(&told), "{:?} {:?}", step, answer
                ),
                Claim::IdleWith => prop_assert!(
                    met || others || trial.arguments.len() < 3, "{:?} {:?}", step, answer
                ),
                Claim::RefusesAll => prop_assert!(!met, "{:?} {:?}", step, answer),
            }
        }
        let [never, always] = constant(&policy);
        for step in &answer.steps {
            let met = step.outcome == authz::Consideration::Passed;
            prop_assert!(!(met && never.contains(&step.rule)), "{:?}", step);
            prop_assert!(met || !always.contains(&step.rule), "{:?}", step);
        }
    }
}
