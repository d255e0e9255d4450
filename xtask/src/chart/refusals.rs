//! Values that the chart refuses, each with its error message.
//!
//! Owns the list. Helm makes the decision.

use super::cases::{CASES, Case, Helm};
use crate::failure::{Failure, Result};
use crate::mesh::report::Report;

/// Additional options for a case, and a part of Helm's message.
struct Refusal {
    name: &'static str,
    options: &'static [&'static str],
    said: &'static str,
}

const REFUSALS: [Refusal; 24] = [
    refusal("failOpen", &["--set", "failOpen=true"], "additional properties 'failOpen'"),
    refusal(
        "failOpen of the module",
        &["--set", "module.failOpen=true"],
        "additional properties 'failOpen'",
    ),
    refusal("split without consent", &["--set", "mode=split"], "/split_consent"),
    refusal(
        "split with another consent",
        &["--set", "mode=split,split_consent=yes"],
        "value must be 'a refused call sends the server its headers'",
    ),
    refusal("a tag for a digest", &["--set", "module.digest=0.1.0"], "/module/digest"),
    refusal("no digest", &["--set", "module.digest=null"], "missing property 'digest'"),
    refusal(
        "a digest without its algorithm",
        &["--set-string", "framing.digest=1111"],
        "/framing/digest",
    ),
    refusal("an unknown key", &["--set", "listener=1"], "additional properties 'listener'"),
    refusal(
        "an unknown key of a connector",
        &["--set", "connectors.demo.timeout=1s"],
        "additional properties 'timeout'",
    ),
    refusal(
        "an unknown key of the configuration",
        &["--set", "configuration.request.fail_open=true"],
        "additional properties 'fail_open'",
    ),
    refusal(
        "unguarded routes",
        &["--set", "configuration.unguarded_routes=allow"],
        "/configuration/unguarded_routes",
    ),
    refusal(
        "guards among the configuration",
        &["--set", "configuration.guards.a=b"],
        "additional properties 'guards'",
    ),
    refusal(
        "another mode in the configuration",
        &["--set", "configuration.request.mode=split"],
        "additional properties 'mode'",
    ),
    refusal("no hosts", &["--set", "hosts=null"], "hosts"),
    refusal(
        "another control plane",
        &["--set", "control_plane=linkerd"],
        "must be one of 'istio', 'envoy-gateway'",
    ),
    refusal("no guards", &["--set-file", "guards=/dev/null"], "guards: nothing is given"),
    refusal(
        "the guard of the shipped files",
        &["--set-literal", "guards={\"/demo/mcp\": \"YOUR-GUARD\"}"],
        "expected 16 to 128 letters",
    ),
    refusal(
        "no guard for a path",
        &["--set-literal", "guards={\"/other\": \"not-a-secret-other\"}"],
        "there is no value for /demo/mcp",
    ),
    refusal(
        "one guard for two paths",
        &[
            "--set-literal",
            "guards={\"/demo/mcp\": \"not-a-secret-demo\", \"/b\": \"not-a-secret-demo\"}",
        ],
        "each path needs one of its own",
    ),
    refusal(
        "a port of its own in split mode",
        &[
            "--set",
            "gateway.own_ports=true,mode=split,split_consent=a refused call sends the server its headers",
        ],
        "gateway.own_ports: only with",
    ),
    refusal(
        "a host beside *",
        &["--set-json", "hosts=[\"*\", \"mcp.example.com\"]"],
        "expected * alone",
    ),
    refusal(
        "a connector with the name of a route",
        &[
            "--set-json",
            "connectors.demo-listen={\"path\": \"/crm/sse\", \"upstream\": {\"service\": {\"host\": \"b\", \"port\": 80}}}",
        ],
        "demo-listen is the name of a route of demo",
    ),
    refusal(
        "several Gateways",
        &[
            "--set-json",
            "istio.gateways=[\"a\", \"b\"]",
            "--set-json",
            "gateway_api.parent_refs=[{\"name\": \"a\"}, {\"name\": \"b\"}]",
        ],
        "maxItems: got 2, want 1",
    ),
    refusal("a probe image without a digest", &["--set", "tests.digest="], "/tests/digest"),
];

/// Values that the chart refuses only for Istio.
const OF_ISTIO: [Refusal; 2] = [
    refusal(
        "a port twice",
        &[
            "--set-json",
            "listeners=[{\"name\": \"http\", \"port\": 8080}, {\"name\": \"b\", \"port\": 8080}]",
        ],
        "port 8080 is there twice",
    ),
    refusal(
        "one port for the probes of several listeners",
        &[
            "--set-json",
            "listeners=[{\"name\": \"http\", \"port\": 8080}, {\"name\": \"b\", \"port\": 8081}]",
            "--set",
            "tests.address=gateway.svc:8080",
        ],
        "expected a host without a port",
    ),
];

/// Values that the chart refuses only for Envoy Gateway.
const OF_ENVOY_GATEWAY: [Refusal; 2] = [
    refusal(
        "other listeners in the description",
        &["--set", "listeners[0].name=web,listeners[0].port=80"],
        "expected the names of `listeners`",
    ),
    refusal(
        "a drain below the longest stream",
        &["--set", "envoy_gateway.drain_seconds=60"],
        "expected more than the longest idle_timeout, which is 3600s",
    ),
];

const fn refusal(
    name: &'static str,
    options: &'static [&'static str],
    said: &'static str,
) -> Refusal {
    Refusal { name, options, said }
}

/// Tries every refusal, for each control plane that has it.
pub(super) fn run(helm: &Helm, report: &mut Report) {
    for name in ["istio", "envoy-gateway"] {
        let Some(case) = CASES.iter().find(|case| case.name == name) else { continue };
        let own = if name == "istio" { &OF_ISTIO[..] } else { &OF_ENVOY_GATEWAY[..] };
        for refusal in REFUSALS.iter().chain(own) {
            report.trial(name, &format!("refused: {}", refusal.name), || {
                refused(helm, case, refusal)
            });
        }
    }
}

fn refused(helm: &Helm, case: &Case, Refusal { options, said, .. }: &Refusal) -> Result<()> {
    match helm.render(case, options) {
        Ok(_) => Err(Failure::new("Helm takes it")),
        Err(failure) if failure.to_string().contains(said) => Ok(()),
        Err(failure) => Err(Failure::new(format!("expected {said:?}, and Helm says: {failure}"))),
    }
}
