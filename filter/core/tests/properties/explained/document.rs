//! Policies of all shapes, for one connector with a few tools.
//!
//! Owns their generators; every one of them compiles.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const TOOLS: [&str; 3] = ["query_users", "create_note", "delete_user"];
const CONDITIONS: [&str; 29] = [
    // These have the same value for every call that fits one of the pinned schemas below.
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
    // These have the same value for every call; `policy check` reports the last four.
    "time.hours < 24",
    "time.hour < '8'",
    "time.hour >= 18 && time.hour < 8",
    "time.hour < 24 || arguments.limit == 1",
    "principal.tier == 'gold' || tool == 'x' && tool == 'y'",
    "arguments.limit < 1 && arguments.limit > 2",
    // These use claims, which only a token has.
    "claims.team == 'red'",
    "principal.name == 'bot' || has(claims.team)",
];

/// How much a policy forbids. An early refusal hides the later rules, so most policies are lenient.
#[derive(Clone, Copy)]
pub(super) enum Mood {
    Strict,
    Lenient,
}

impl Mood {
    /// The probability of a restriction, given that of the strict policy.
    fn of(self, share: f64) -> f64 {
        match self {
            Self::Strict => share,
            Self::Lenient => share / 5.0,
        }
    }

    fn approvals(self) -> f64 {
        match self {
            Self::Strict => 0.15,
            Self::Lenient => 0.4,
        }
    }
}

/// A policy of any kind.
pub(super) fn document() -> BoxedStrategy<Value> {
    prop_oneof![1 => document_of(Mood::Strict), 3 => document_of(Mood::Lenient)].boxed()
}

fn shadowed() -> impl Strategy<Value = Option<&'static str>> {
    weighted(0.15, select(vec!["shadow", "enforce"]))
}

fn conditions(mood: Mood, about_tools: bool) -> impl Strategy<Value = Option<Value>> {
    let tools = weighted(0.4, subsequence(TOOLS.to_vec(), 1..=2));
    let tools = tools.prop_map(move |tools| tools.filter(|_| about_tools));
    let one = (select(CONDITIONS.to_vec()), tools, shadowed()).prop_map(|(when, tools, shadow)| {
        let mut condition = json!({ "when": when });
        put(&mut condition, "tools", tools.map(|tools| json!(tools)));
        put(&mut condition, "enforcement", shadow.map(|it| json!(it)));
        condition
    });
    weighted(mood.of(0.3), vec(one, 1..=2).prop_map(|all| json!(all)))
}

pub(super) fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[name] = value;
    }
}

/// The policy's rules on arguments.
fn demands(mood: Mood) -> impl Strategy<Value = Option<Value>> {
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
    weighted(mood.of(0.25), all)
}

/// Rules about calls, of a tool or of a role.
fn call_rules(mood: Mood) -> BoxedStrategy<Value> {
    let argument = prop_oneof![4 => Just("limit"), 1 => Just("size")];
    let cap = (argument, 1_u64..100, select(vec!["clamp", "refuse"]), shadowed());
    let approval = weighted(mood.approvals(), (select(vec!["20m", "1m"]), shadowed()));
    (weighted(0.3, cap), approval, demands(mood), conditions(mood, false))
        .prop_map(|(cap, approval, demands, conditions)| {
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
        })
        .boxed()
}

/// The size and unit of a window; names are shared, so that a key's own may replace its tier's.
fn size() -> impl Strategy<Value = Value> {
    (
        select(vec![1, 5, 90, 400]),
        select(vec!["1s", "30d"]),
        select(vec!["calls", "credits", "bytes"]),
    )
        .prop_map(|(limit, window, cost)| json!({"limit": limit, "window": window, "cost": cost}))
}

fn windows() -> impl Strategy<Value = Value> {
    let two = (weighted(0.5, size()), weighted(0.3, size()));
    two.prop_map(|(calls, month)| {
        let mut windows = json!({});
        put(&mut windows, "calls", calls);
        put(&mut windows, "month", month);
        windows
    })
}

/// Further limits, some of which count only some calls.
fn further() -> impl Strategy<Value = Value> {
    let only = select(vec![
        json!({"tools": ["query_*"]}),
        json!({"roles": ["other"]}),
        json!({"connectors": ["demo"], "tools": ["create_note", "delete_user"]}),
    ]);
    let per =
        select(vec![json!(["org"]), json!(["key", "tool"]), json!(["global"]), json!(["role"])]);
    (size(), per, weighted(0.5, only)).prop_map(|(mut size, per, only)| {
        size["per"] = per;
        put(&mut size, "match", only);
        json!({"storm": size})
    })
}

fn tool(mood: Mood) -> BoxedStrategy<Value> {
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
    let price = weighted(0.4, select(vec![0, 3, 100]));
    let scopes = weighted(mood.of(0.1), Just(json!(["write"])));
    (of(any::<bool>()), call_rules(mood), weighted(mood.of(0.4), schema), price, scopes)
        .prop_map(|(read_only, mut tool, schema, price, scopes)| {
            put(&mut tool, "read_only", read_only.map(|it| json!(it)));
            put(&mut tool, "input_schema", schema);
            put(&mut tool, "price", price.map(|it| json!(it)));
            put(&mut tool, "scopes", scopes);
            tool
        })
        .boxed()
}

/// A role's additional rules for tools.
fn role_rules(mood: Mood) -> impl Strategy<Value = Option<Value>> {
    let some = |rules: &Value| !rules.as_object().unwrap().is_empty();
    let one =
        (select(vec!["query_users", "create_note", "query_*", "*_user", "*"]), call_rules(mood));
    let all = vec(one.prop_filter("some", move |(_, rules)| some(rules)), 1..=3);
    let all = all.prop_map(|all| {
        Value::Object(all.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect())
    });
    weighted(0.5, all)
}

pub(super) fn globs() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(vec!["query_users", "create_note", "query_*", "*_user", "?elete_*"], 0..=2)
}

fn access(mood: Mood) -> BoxedStrategy<Value> {
    let allow = match mood {
        Mood::Strict => prop_oneof![2 => Just(vec!["*"]), 2 => globs()],
        Mood::Lenient => prop_oneof![9 => Just(vec!["*"]), 1 => globs()],
    };
    (
        allow,
        weighted(0.3, globs()),
        weighted(mood.of(0.3), globs()),
        weighted(mood.of(0.3), any::<bool>()),
        conditions(mood, true),
        (role_rules(mood), shadowed()),
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
        .boxed()
}

fn document_of(mood: Mood) -> BoxedStrategy<Value> {
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
        vec(weighted(0.6, tool(mood)), 3),
        conditions(mood, true),
        weighted(mood.of(0.3), select(vec!["hide", "allow"])),
        weighted(
            mood.of(0.4),
            (
                select(vec!["text", "widening", "breaking", "suspicious"]),
                select(vec!["allow", "hide", "block"]),
                select(vec!["allow", "block", "block"]),
            ),
        ),
    );
    let role = (
        weighted(0.9, access(mood)),
        weighted(mood.of(0.2), any::<bool>()),
        conditions(mood, true),
    );
    let whole = (weighted(0.15, subsequence(checks, 1..=2)), weighted(0.05, Just("shadow")));
    let limits = (windows(), weighted(0.2, windows()), weighted(0.4, further()));
    let others =
        (weighted(mood.of(0.2), subsequence(vec!["use", "read"], 1..=2)), weighted(0.3, Just(())));
    (connector, role, whole, limits, others)
        .prop_map(
            |(
                (tools, of_connector, unpinned, on_drift),
                (access, writes, of_role),
                (shadow, enforcement),
                (of_tier, of_key, further),
                (scopes, cool_off),
            )| {
                let cool_off = cool_off.is_some();
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
                put(&mut connector, "scopes", scopes.map(|it| json!(it)));
                let mut document = json!({
                    "version": 1, "organisations": ["acme"], "connectors": {"demo": connector},
                    "roles": {"analyst": role, "other": {}}, "tiers": {"free": {"limits": of_tier}},
                });
                put(&mut document, "keys", of_key.map(|it| json!({"k1a2b3c4": {"limits": it}})));
                put(&mut document, "limits", further);
                put(&mut document, "cool_off", cool_off.then(|| json!({"repeats": 9})));
                put(&mut document, "shadow", shadow.map(|it| json!(it)));
                put(&mut document, "enforcement", enforcement.map(|it| json!(it)));
                document
            },
        )
        .boxed()
}
