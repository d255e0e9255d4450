//! Callers, and their state in the gateway and in Redis: records, tokens and certificates, the deny list, approvals,
//! windows, drifts, cool-off, a canary.
//!
//! Owns an honest Redis: the answers of the admission script for a generated state.

use std::time::Duration;

use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::auth::certificate::PeerCertificate;
use portcullis_core::auth::certificate::mapping::{self, CertificateConfig};
use portcullis_core::authz::outcome::PersonsWord;
use portcullis_core::config::Config;
use portcullis_core::decode::{Faults, Node};
use portcullis_core::driver::call::DependencyCall;
use portcullis_core::id::{KeyId, OrgId};
use portcullis_redis_lua::{Value as Redis, Window, WindowStanding};
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::START;
use super::document::{globs, put};
use crate::mint::{inline, issuers};

/// The caller.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// A key with this record.
    Key(Value),
    /// A token with these claims in addition to issuer, times and audience.
    Token(Value),
    /// A certificate that maps to this role and tier.
    Certificate(&'static str, &'static str),
}

pub(super) fn caller() -> BoxedStrategy<Caller> {
    let role = || prop_oneof![18 => Just("analyst"), 1 => Just("other"), 1 => Just("gone")];
    let tier = || prop_oneof![29 => Just("free"), 1 => Just("gone")];
    let scopes = weighted(0.8, subsequence(vec!["use", "read", "write"], 1..=3));
    let claims = (role(), tier(), scopes, weighted(0.4, select(vec!["red", "blue"])));
    let token = claims.prop_map(|(role, tier, scopes, team)| {
        let mut claims = json!({"sub": "agent-1", "org": "acme", "role": role, "tier": tier});
        put(&mut claims, "scope", scopes.map(|it| json!(it.join(" "))));
        put(&mut claims, "team", team.map(|it| json!(it)));
        Caller::Token(claims)
    });
    prop_oneof![
        4 => record().prop_map(Caller::Key),
        2 => token,
        1 => (role(), tier()).prop_map(|(role, tier)| Caller::Certificate(role, tier)),
    ]
    .boxed()
}

pub(super) fn record() -> impl Strategy<Value = Value> {
    let role = prop_oneof![18 => Just("analyst"), 1 => Just("other"), 1 => Just("gone")];
    let tier = prop_oneof![29 => Just("free"), 1 => Just("gone")];
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

pub(super) fn arguments() -> impl Strategy<Value = Map<String, Value>> {
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

/// The state.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The observation of the tool in lists.
    pub(super) observed: &'static str,
    /// The state of the request for approval; whether there is room for another one.
    pub(super) approval: (Option<PersonsWord>, bool),
    /// The fill level of each window, and the time until enough of it is free.
    windows: Vec<(Fill, u64)>,
    /// Whether the deny list has the caller: with `issued_before`, seconds from now.
    pub(super) denied: Option<Option<i64>>,
    pub(super) cools_off: bool,
    /// Another policy as a canary, for a share of the callers, or for this one by name.
    pub(super) canary: Option<(Value, u8, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Empty,
    Half,
    AllButOne,
    Full,
}

pub(super) fn state(canary: BoxedStrategy<Value>) -> BoxedStrategy<State> {
    let fill = prop_oneof![
        5 => Just(Fill::Empty), 2 => Just(Fill::Half), 1 => Just(Fill::AllButOne), 1 => Just(Fill::Full)
    ];
    let word = select(vec![PersonsWord::Pending, PersonsWord::Granted, PersonsWord::Denied]);
    (
        select(vec!["-", "same", "text", "widening", "breaking", "suspicious"]),
        (of(word), any::<bool>()),
        vec((fill, 1_u64..90_000_000), 4),
        weighted(0.05, weighted(0.6, -20_i64..20)),
        weighted(0.3, Just(())),
        weighted(0.2, (canary, select(vec![0, 10, 50, 99]), any::<bool>())),
    )
        .prop_map(|(observed, approval, windows, denied, cools_off, canary)| {
            let cools_off = cools_off.is_some();
            State { observed, approval, windows, denied, cools_off, canary }
        })
        .boxed()
}

/// The text of the key.
pub(super) fn key() -> String {
    let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2b3c4").unwrap());
    mint(&org, &id, &"s".repeat(SECRET_LENGTH)).unwrap().expose().to_owned()
}

pub(super) const CERTIFICATE: &str = "CN=agent";

pub(super) fn certificate() -> PeerCertificate {
    PeerCertificate::told(&[], &[], CERTIFICATE.as_bytes(), "5a".repeat(32).as_bytes()).unwrap()
}

/// The plugin configuration: an issuer, and certificates that make a caller.
pub(super) fn config(caller: &Caller) -> Config {
    thread_local! {
        static BASE: Config = {
            let mut config = Config::parse(&json!({"redis": {"cluster": "redis"}})).unwrap();
            config.auth.issuers = issuers(&[inline(json!({}))]);
            config.auth.external_url = Some("https://mcp.example".into());
            config
        };
    }
    let mut config = BASE.with(Clone::clone);
    if let Caller::Certificate(role, tier) = caller {
        config.auth.certificates = certificates(role, tier);
    }
    config
}

fn certificates(role: &str, tier: &str) -> CertificateConfig {
    let agent = json!({"match": {"cn": "agent"}, "org": "acme", "role": role, "tier": tier});
    let document = json!({"mode": "optional", "identities": [agent]});
    let mut faults = Faults::default();
    let config = mapping::read(Node::root(&document), &mut faults);
    faults.unless(config).unwrap()
}

/// The contents of Redis.
pub(super) struct Stored<'a> {
    pub(super) state: &'a State,
    pub(super) record: Option<&'a Value>,
    /// The revision and document of the activation.
    pub(super) activation: (String, String),
    /// The deny-list entry.
    pub(super) denial: Option<String>,
}

impl State {
    /// The state of the nth window of a call.
    pub(super) fn standing(&self, nth: usize, limit: u64, cost: u64) -> WindowStanding {
        let (fill, wait) = self.windows[nth % self.windows.len()];
        let used = match fill {
            Fill::Empty => 0,
            Fill::Half => limit / 2,
            Fill::AllButOne => limit - 1,
            Fill::Full => limit,
        };
        let fits = cost == 0 || used + cost <= limit;
        WindowStanding {
            remaining: limit - used,
            used,
            reset: Duration::from_micros(if used == 0 { 0 } else { wait }),
            wait: match fits {
                true => Some(Duration::ZERO),
                false => (cost <= limit).then(|| Duration::from_micros(wait)),
            },
        }
    }

    pub(super) fn stands(&self, nth: usize, window: &Window) -> WindowStanding {
        self.standing(nth, window.limit, window.cost)
    }
}

impl Stored<'_> {
    pub(super) fn reply(&self, call: &DependencyCall) -> Redis {
        match call {
            DependencyCall::Admit(call) => self
                .admit(&call.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), &call.args),
            DependencyCall::Approval(call) if call.keys.len() == 3 && call.args.len() == 1 => {
                Redis::Array(vec![Redis::Int(1), bulk("{}".into())])
            }
            DependencyCall::Approval(_) => {
                let (tag, state) = match self.state.approval {
                    (None, true) => (1, "pending"),
                    (None, false) => (0, "full"),
                    (Some(word), _) => (0, word.name()),
                };
                Redis::Array(vec![Redis::Int(tag), bulk(state.into())])
            }
            other => panic!("{other:?}"),
        }
    }

    fn admit(&self, keys: &[&str], args: &[Vec<u8>]) -> Redis {
        let guards = String::from_utf8_lossy(&args[0]);
        let guards: usize = guards.split(',').next().unwrap().parse().unwrap();
        let mut moved = false;
        let mut states = vec![Redis::Int(0)];
        for (key, expected) in keys[..guards].iter().zip(&args[1..]) {
            let (rev, doc) = self.guard(key);
            let current = rev.as_bytes() == expected.as_slice();
            let told = !current && rev != "-";
            moved |= !current;
            states.extend([bulk(rev), if told { bulk(doc) } else { Redis::Nil }]);
        }
        if moved {
            return Redis::Array(states);
        }
        let numbers: Vec<u64> = args[1 + guards..]
            .iter()
            .map_while(|number| String::from_utf8_lossy(number).parse().ok())
            .collect();
        let standings = numbers.chunks_exact(5).enumerate();
        let standings: Vec<(WindowStanding, u64)> = standings
            .map(|(nth, numbers)| (self.state.standing(nth, numbers[0], numbers[3]), numbers[3]))
            .collect();
        // As in the script: a window that never fits, or the longest wait.
        let (mut longest, mut index) = (0, None);
        for (at, (standing, _)) in standings.iter().enumerate() {
            let wait = standing.wait.map_or(-1, |wait| i64::try_from(wait.as_micros()).unwrap());
            if wait != 0 && longest != -1 && (wait == -1 || wait > longest) {
                (longest, index) = (wait, Some(at));
            }
        }
        let head = match index {
            Some(index) => vec![2, longest, i64::try_from(index).unwrap()],
            None => vec![1],
        };
        let states = standings.iter().flat_map(|(standing, cost)| {
            let drawn = if index.is_some() { 0 } else { *cost };
            let remaining = i64::try_from(standing.remaining - drawn).unwrap();
            [remaining, i64::try_from(standing.reset.as_micros()).unwrap(), 0]
        });
        Redis::Array(head.into_iter().chain(states).map(Redis::Int).collect())
    }

    fn guard(&self, key: &str) -> (String, String) {
        let nothing = || ("-".to_owned(), String::new());
        match key {
            key if key.contains("}:key:") => {
                self.record.map_or_else(nothing, |record| ("1".to_owned(), record.to_string()))
            }
            key if key.ends_with("}:policy") => self.activation.clone(),
            key if key.contains("}:tool:") => (self.state.observed.to_owned(), String::new()),
            key if key.contains("}:approval:") => {
                let word = self.state.approval.0;
                word.map_or_else(nothing, |word| (word.name().to_owned(), "{}".to_owned()))
            }
            key if key.contains("}:denied:subject:") || key.contains("}:denied:certificate:") => {
                let denial = self.denial.clone();
                denial.map_or_else(nothing, |denial| ("1".to_owned(), denial))
            }
            key if key.contains("}:denied:") => nothing(),
            key => panic!("{key}"),
        }
    }
}

/// The deny-list entry for the caller, at `now`.
pub(super) fn denial(state: &State, now: u64) -> Option<Value> {
    let issued_before = state.denied?;
    let mut entry = json!({"what": "agent", "at": START, "by": "ops", "reason": "lost"});
    put(&mut entry, "issued_before", issued_before.map(|it| json!(now.saturating_add_signed(it))));
    Some(entry)
}

fn bulk(text: String) -> Redis {
    Redis::Bulk(text.into_bytes())
}
