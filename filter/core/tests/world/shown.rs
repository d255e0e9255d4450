//! Calls and audit entries as scenarios show them.

use portcullis_core::driver::call::DependencyCall;
use portcullis_redis_lua::{Key, ScriptCall};
use serde_json::{Value, json};

use super::readable;
use super::rules::approval;

pub(super) fn call(call: DependencyCall) -> String {
    match call {
        DependencyCall::Admit(script) => readable(&admission(&script)),
        DependencyCall::Charge(script) => {
            let arg = |at: usize| String::from_utf8_lossy(&script.args[at]).into_owned();
            format!("charge {} {}", script.keys[0], arg(4))
        }
        DependencyCall::Complete(script) => {
            let arg = |at: usize| String::from_utf8_lossy(&script.args[at]).into_owned();
            format!("complete {} at {}", script.keys[0], arg(2))
        }
        DependencyCall::Observe(script) => {
            let states = script.args.iter().skip(2).map(|state| String::from_utf8_lossy(state));
            format!("observe {} tools: {}", script.keys.len(), states.collect::<Vec<_>>().join(" "))
        }
        DependencyCall::Bind(script) if script.script.name == "keep" => {
            let keys: Vec<_> = script.keys.iter().map(|key| undigested(key.as_str())).collect();
            let arg = |at: usize| String::from_utf8_lossy(&script.args[at]).into_owned();
            format!("keep {} of {} for {} ms", keys.join(" "), arg(0), arg(1))
        }
        DependencyCall::Bind(script) => {
            let key = script.keys[0].as_str();
            let (kind, _) = key.rsplit_once(':').unwrap();
            format!("bind {kind}:<digest> to {}", String::from_utf8_lossy(&script.args[0]))
        }
        DependencyCall::Approval(script) => approval(&script),
        DependencyCall::Policy(version) => readable(&format!("policy {version}")),
        DependencyCall::Credential(reference, _) => format!("secret {reference}"),
        DependencyCall::Token(token, ..) => format!("token of {}", token.server()),
        DependencyCall::Keys(issuer) => format!("keys {issuer}"),
    }
}

/// The arguments of `admit.lua` by meaning, one key per line.
fn admission(call: &ScriptCall) -> String {
    let mut args = call.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned());
    let mut next = || args.next().unwrap();
    // `g` or `g,o`: the key shows which of the guards is the policy. Then `+` for an intent, which is visible as well.
    let guards: usize = next().split([',', '+']).next().unwrap().parse().unwrap();
    let (guards, rest) = call.keys.split_at(guards);
    let mut lines = vec!["admit".to_owned()];
    lines.extend(guards.iter().map(|key| format!("  guard {} at {}", shown(key), next())));
    let windows = rest.iter().take_while(|key| key.as_str().contains(":window:")).count();
    let (windows, rest) = rest.split_at(windows);
    let mut rest = rest.iter();
    for key in windows {
        let [limit, length, grain, cost, alert] = std::array::from_fn(|_| next());
        let dated = if grain == "1" { String::new() } else { format!(", dated to {grain} us") };
        lines.push(format!(
            "  draw {cost} of {limit} in {}{dated} from {}",
            time(&length),
            shown(key)
        ));
        if alert != "0" {
            lines.push(format!("  alert at {alert} in {}", shown(rest.next().unwrap())));
        }
    }
    for key in rest.by_ref() {
        lines.push(match key.as_str().ends_with(":intents") {
            true => format!("  append {} to {}", next(), shown(key)),
            false => format!("  note use of {} in {}", next(), shown(key)),
        });
    }
    assert!(rest.next().is_none() && args.next().is_none(), "more than admit.lua takes: {call:?}");
    lines.join("\n")
}

/// Microseconds, in the largest unit without a fraction.
fn time(us: &str) -> String {
    let us: u64 = us.parse().unwrap();
    let units = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "min"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    let whole = units.into_iter().find(|(length, _)| us.is_multiple_of(*length));
    whole.map_or_else(|| format!("{us} us"), |(length, unit)| format!("{} {unit}", us / length))
}

/// The key without the common prefix of the scenarios' organisation.
fn shown(key: &Key) -> String {
    let key = undigested(key.as_str());
    key.strip_prefix("portcullis:{acme}:").map_or(key.clone(), ToOwned::to_owned)
}

/// The members of an audit entry, one per line: those that differ from a plain allowed call of the analyst, and the
/// names of those that this entry lacks.
pub(super) fn entry(entry: &Value) -> String {
    let usual = json!({
        "api_key_id": "kanalyst", "auth_method": "api_key", "credits": 1, "decision": {"effect": "allow"},
        "events": [{"client_id": "kanalyst", "event": "auth_success"}], "http_method": "POST", "http_status": 200,
        "latency_ms": 5, "mcp_method": "tools/call", "org_id": "acme", "principal": "analyst bot", "role": "analyst",
        "status": "success", "timestamp": "2026-11-20T22:00:00.000000Z", "upstream_ms": 3,
    });
    let (members, usual) = (entry.as_object().unwrap(), usual.as_object().unwrap());
    let differing = members.iter().filter(|(name, value)| usual.get(*name) != Some(value));
    let mut lines = vec!["audit".to_owned()];
    lines.extend(differing.map(|(name, value)| format!("  {name}: {value}")));
    let missing: Vec<_> =
        usual.keys().filter(|name| !members.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        lines.push(format!("  without {}", missing.join(", ")));
    }
    lines.join("\n")
}

/// The key of a binding or an owner without the digest of the bound id.
fn undigested(key: &str) -> String {
    if let Some((org, _)) = key.split_once(":approval:") {
        return format!("{org}:approval:<digest>");
    }
    for infix in [":bound:", ":owner:"] {
        if let Some((before, rest)) = key.split_once(infix) {
            let (kind, _) = rest.split_once(':').unwrap();
            return format!("{before}{infix}{kind}:<digest>");
        }
    }
    key.to_owned()
}
