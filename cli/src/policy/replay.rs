//! The calls of an audit log under two policies: what would be decided otherwise.
//!
//! Owns how a call is made again from its entry, and what counts as different. Each is decided by the core,
//! once by each policy, on the same facts: what the log does not say changes both answers alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::authz::explain::{Answer, Decision, Question, explain};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::observed::Observed;
use portcullis_core::policy::Policy;
use serde_json::{Map, Value, json};

use super::count;
use crate::audit::{Call, each_call};
use crate::escape;
use crate::report::CliError;
use crate::store::Store;

/// Two policies, and whose calls they decide.
pub(super) struct Sides {
    pub(super) name: String,
    /// All that the new policy names, if it is empty.
    pub(super) organisations: Vec<OrgId>,
    pub(super) from: Policy,
    pub(super) to: Policy,
}

/// What is different for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Refused,
    Waits,
    Allowed,
    OtherArguments,
    OtherPrice,
}

const EFFECTS: [(Effect, &str, &str); 5] = [
    (Effect::Refused, "newly_refused", "newly refused"),
    (Effect::Waits, "newly_waiting", "newly waiting for a person"),
    (Effect::Allowed, "newly_allowed", "newly allowed"),
    (Effect::OtherArguments, "other_arguments", "with other arguments"),
    (Effect::OtherPrice, "priced_otherwise", "priced otherwise"),
];

/// Calls that are alike: who, what, by which rule.
type Alike = (String, String, String);

#[derive(Default)]
struct Group {
    calls: u64,
    request_id: String,
}

#[derive(Default)]
struct Tally {
    calls: u64,
    callers: BTreeSet<String>,
    groups: BTreeMap<Effect, BTreeMap<Alike, Group>>,
    credits: (u64, u64),
    /// Calls whose arguments the log does not show whole.
    inexact: u64,
    /// Calls of callers whose tier is not known.
    guessed: u64,
    /// Calls that the old side decides otherwise than the log says.
    otherwise: u64,
}

/// So many groups are shown of each effect.
const SHOWN: usize = 20;

/// What the calls of some logs get by each pair of policies.
pub(super) struct Replayed {
    pub(super) different: bool,
    pub(super) text: String,
    pub(super) views: Vec<Value>,
}

pub(super) fn replay(
    logs: &[PathBuf],
    sides: &[Sides],
    store: Option<&mut Store>,
) -> Result<Replayed, CliError> {
    let mut tallies: Vec<Tally> = sides.iter().map(|_| Tally::default()).collect();
    let mut keys = Keys { store, known: BTreeMap::new(), failed: None };
    each_call(logs, |call| {
        let Some(org) = OrgId::new(&call.org) else { return };
        for (sides, tally) in sides.iter().zip(&mut tallies) {
            let meant = match sides.organisations.is_empty() {
                true => sides.to.organisations.contains(&org),
                false => sides.organisations.contains(&org),
            };
            if meant {
                tally.add(&call, &org, sides, &mut keys);
            }
        }
    })?;
    if let Some(refusal) = keys.failed {
        return Err(refusal);
    }
    let different = tallies.iter().any(|tally| !tally.groups.is_empty());
    let both = || sides.iter().zip(&tallies);
    let text: Vec<String> = both().map(|(sides, tally)| tally.text(&sides.name)).collect();
    let views = both().map(|(sides, tally)| tally.view(&sides.name)).collect();
    Ok(Replayed { different, text: text.join("\n\n"), views })
}

/// Records of keys, each read once.
struct Keys<'a> {
    store: Option<&'a mut Store>,
    known: BTreeMap<(OrgId, KeyId), Option<Principal>>,
    failed: Option<CliError>,
}

impl Keys<'_> {
    fn principal(&mut self, org: &OrgId, key: &str) -> Option<Principal> {
        let (id, store) = (KeyId::new(key)?, self.store.as_mut()?);
        let place = (org.clone(), id);
        if let Some(known) = self.known.get(&place) {
            return known.clone();
        }
        let read = store.record(org, &place.1);
        let principal = match read {
            Ok(stored) => stored.map(|stored| stored.record.principal()),
            Err(refusal) => {
                self.failed.get_or_insert(refusal);
                None
            }
        };
        self.known.insert(place, principal.clone());
        principal
    }
}

/// The caller of an entry; whether its tier had to be guessed.
fn caller(
    call: &Call,
    org: &OrgId,
    sides: &Sides,
    keys: &mut Keys<'_>,
) -> Option<(Principal, bool)> {
    let role = PolicyName::new(&call.role)?;
    if let Some(principal) = keys.principal(org, &call.key) {
        return Some((Principal { role, ..principal }, false));
    }
    let identity = match (KeyId::new(&call.key), call.auth_method.as_str()) {
        (Some(id), _) => IdentityKind::Key(id),
        (None, "jwt") => {
            IdentityKind::Token { issuer: String::new(), subject: call.caller.clone() }
        }
        (None, _) => IdentityKind::Certificate(call.caller.clone()),
    };
    let mut tiers = sides.from.tiers.keys();
    let tier =
        tiers.clone().find(|tier| sides.to.tiers.contains_key(*tier)).or_else(|| tiers.next());
    let principal = Principal {
        org: org.clone(),
        identity: identity.into(),
        name: call.name.clone(),
        tier: tier.cloned().unwrap_or_else(|| role.clone()),
        role,
        scopes: Scopes::Unknown,
        agent: call.agent.clone(),
        restrictions: Restrictions::default(),
    };
    Some((principal, true))
}

impl Tally {
    fn add(&mut self, call: &Call, org: &OrgId, sides: &Sides, keys: &mut Keys<'_>) {
        let Some((principal, guessed)) = caller(call, org, sides, keys) else { return };
        let Some(connector) = PolicyName::new(&call.connector) else { return };
        let (claims, bump) = (Map::new(), |number: &mut u64| *number = number.saturating_add(1));
        let asked = |policy: &Policy| {
            explain(&Question {
                policy,
                principal: &principal,
                claims: &claims,
                connector: &connector,
                tool: &call.tool,
                arguments: &call.arguments,
                now: call.at,
                source: &call.source,
                // What servers list is not looked at here.
                observed: Observed::Same,
            })
        };
        bump(&mut self.calls);
        self.callers.insert(call.caller.clone());
        let (from, to) = (asked(&sides.from), asked(&sides.to));
        if !call.exact {
            bump(&mut self.inexact);
        }
        if guessed {
            bump(&mut self.guessed);
        }
        let passed = call.effect == "allow" || call.effect == "shadow_deny";
        if call.exact && call.status != "limited" && passed != passes(from.as_ref()) {
            bump(&mut self.otherwise);
        }
        for (effect, rule) in different(from.as_ref(), to.as_ref(), &connector) {
            let alike = (call.caller.clone(), format!("{connector}/{}", call.tool), rule);
            let group = self.groups.entry(effect).or_default().entry(alike).or_default();
            bump(&mut group.calls);
            if group.request_id.is_empty() {
                group.request_id.clone_from(&call.request_id);
            }
        }
        let credits = |answer: Option<&Answer>| {
            answer.filter(|it| it.decision.lets_pass()).map(|it| it.credits).unwrap_or_default()
        };
        self.credits.0 = self.credits.0.saturating_add(credits(from.as_ref()));
        self.credits.1 = self.credits.1.saturating_add(credits(to.as_ref()));
    }

    fn text(&self, name: &str) -> String {
        let mut lines = vec![
            name.to_owned(),
            format!("{} of {}", count_of(self.calls, "call"), count(self.callers.len(), "caller")),
        ];
        for (effect, _, words) in EFFECTS {
            let Some(groups) = self.groups.get(&effect) else { continue };
            let calls = groups.values().fold(0, |sum: u64, group| sum.saturating_add(group.calls));
            let callers: BTreeSet<&String> = groups.keys().map(|(caller, ..)| caller).collect();
            lines.push(format!(
                "{words}: {} of {}",
                count_of(calls, "call"),
                count(callers.len(), "caller")
            ));
            let mut sorted: Vec<_> = groups.iter().collect();
            sorted.sort_by(|a, b| b.1.calls.cmp(&a.1.calls).then(a.0.cmp(b.0)));
            for ((caller, tool, rule), group) in sorted.iter().take(SHOWN) {
                lines.push(format!("  {:>6}  {caller}  {tool}  {rule}", group.calls));
            }
            if sorted.len() > SHOWN {
                lines.push(format!(
                    "  … and {} more; --output json has all",
                    sorted.len().saturating_sub(SHOWN)
                ));
            }
        }
        if self.groups.is_empty() {
            lines.push("each call is decided alike".to_owned());
        }
        if self.credits.0 != self.credits.1 {
            lines.push(format!("credits of all calls: {} -> {}", self.credits.0, self.credits.1));
        }
        let notes = [
            (self.inexact, "with arguments that the log redacts or cuts: decided on what it shows"),
            (
                self.guessed,
                "of callers whose tier, scopes and claims are not known (no key record): decided by the first tier",
            ),
            (
                self.otherwise,
                "decided otherwise when they were made, by what a policy alone does not tell: portcullis explain --request shows one",
            ),
        ];
        let notes = notes.iter().filter(|(number, _)| *number > 0);
        lines.extend(
            notes.map(|(number, why)| format!("note: {} {why}", count_of(*number, "call"))),
        );
        lines.iter().map(|line| escape::line(line)).collect::<Vec<_>>().join("\n")
    }

    fn view(&self, name: &str) -> Value {
        let groups = |effect: Effect| -> Vec<Value> {
            let groups = self.groups.get(&effect).into_iter().flatten();
            groups
                .map(|((caller, tool, rule), group)| {
                    json!({
                        "caller": caller, "tool": tool, "rule": rule,
                        "calls": group.calls, "request_id": group.request_id,
                    })
                })
                .collect()
        };
        let mut view = json!({
            "name": name,
            "calls": self.calls,
            "callers": self.callers.len(),
            "credits": {"from": self.credits.0, "to": self.credits.1},
            "inexact": self.inexact,
            "guessed": self.guessed,
            "decided_otherwise": self.otherwise,
        });
        if let Some(members) = view.as_object_mut() {
            let effects = EFFECTS
                .iter()
                .map(|(effect, name, _)| ((*name).to_owned(), json!(groups(*effect))));
            members.extend(effects);
        }
        view
    }
}

fn count_of(number: u64, what: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), what)
}

fn passes(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| answer.decision.lets_pass())
}

/// What is different, and by which rule.
fn different(
    from: Option<&Answer>,
    to: Option<&Answer>,
    connector: &PolicyName,
) -> Vec<(Effect, String)> {
    let gone = || format!("connectors.{connector}");
    let rule = |answer: Option<&Answer>| match answer {
        Some(answer) => answer.rule.clone().unwrap_or_default(),
        None => gone(),
    };
    let refused =
        |answer: Option<&Answer>| answer.is_none_or(|answer| answer.decision == Decision::Deny);
    let waits = |answer: Option<&Answer>| {
        answer.is_some_and(|answer| answer.decision == Decision::NeedsApproval)
    };
    let mut found = Vec::new();
    match (refused(from), refused(to)) {
        (false, true) => found.push((Effect::Refused, rule(to))),
        (true, false) if waits(to) => found.push((Effect::Waits, rule(to))),
        (true, false) => found.push((Effect::Allowed, rule(from))),
        (true, true) => {}
        (false, false) => {
            match (waits(from), waits(to)) {
                (false, true) => found.push((Effect::Waits, rule(to))),
                (true, false) => found.push((Effect::Allowed, rule(from))),
                (true, true) | (false, false) => {}
            }
            if let (Some(from), Some(to)) = (from, to) {
                if from.amended != to.amended {
                    let told = to.amended.clone().map(Value::Object);
                    let told = told.map_or_else(|| "as sent".to_owned(), |it| it.to_string());
                    found.push((Effect::OtherArguments, told));
                }
                let price = |answer: &Answer| (answer.credits, answer.credits_per_row);
                if price(from) != price(to) {
                    let told = format!(
                        "{} + {} a row -> {} + {} a row",
                        from.credits, from.credits_per_row, to.credits, to.credits_per_row
                    );
                    found.push((Effect::OtherPrice, told));
                }
            }
        }
    }
    found
}
