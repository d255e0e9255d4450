//! Calls as scenarios show them.

use portcullis_core::call::DependencyCall;

use super::readable;
use super::rules::approval;

pub(super) fn call(call: DependencyCall) -> String {
    match call {
        DependencyCall::Admit(script) => {
            let mut args: Vec<_> =
                script.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
            // Which of the guards is the policy goes without saying.
            args[0] = args[0].split(',').next().unwrap().to_owned();
            let keys: Vec<_> = script.keys.iter().map(|key| undigested(key.as_str())).collect();
            readable(&format!("admit {} ({})", keys.join(" "), args.join(" ")))
        }
        DependencyCall::Charge(script) => {
            let arg = |at: usize| String::from_utf8_lossy(&script.args[at]).into_owned();
            format!("charge {} {}", script.keys[0], arg(4))
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
        DependencyCall::Secret(secret) => format!("secret {secret}"),
        DependencyCall::Keys(issuer) => format!("keys {issuer}"),
    }
}

/// The key of a binding or an owner without the digest of what is bound.
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
