//! The requests that a release's admission policies deny on a real API server, and those that they allow.
//!
//! Owns the manifests that other teams might apply.

use super::cases::{CASES, Helm};
use super::releases::{delete_kept, uninstalled, written};
use crate::failure::{Failure, Result};
use crate::mesh::cluster::Cluster;
use crate::mesh::report::Report;
use std::path::Path;
use std::time::{Duration, Instant};

/// A manifest, and a part of the API server's message; `None` where it is allowed.
struct Manifest {
    name: &'static str,
    text: &'static str,
    said: Option<&'static str>,
}

const fn denied(name: &'static str, said: &'static str, text: &'static str) -> Manifest {
    Manifest { name, text, said: Some(said) }
}

const fn taken(name: &'static str, text: &'static str) -> Manifest {
    Manifest { name, text, said: None }
}

const ISTIO: [Manifest; 15] = [
    denied(
        "a route that matches by an empty list",
        "x-portcullis-guard",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: istio-ingress}\nspec: {hosts: [mcp.example.com], gateways: [portcullis], http: [{match: [], route: [{destination: {host: demo}}], retries: {attempts: 0}}]}\n",
    ),
    denied(
        "a route of the Gateway as ./NAME",
        "x-portcullis-guard",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: istio-ingress}\nspec: {hosts: [mcp.example.com], gateways: [./portcullis], http: [{route: [{destination: {host: demo}}], retries: {attempts: 0}}]}\n",
    ),
    denied(
        "a route of the Gateway as NAME.NAMESPACE",
        "x-portcullis-guard",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: istio-ingress}\nspec: {hosts: [mcp.example.com], gateways: [portcullis.istio-ingress], http: [{route: [{destination: {host: demo}}], retries: {attempts: 0}}]}\n",
    ),
    denied(
        "a route of the Gateway as a host",
        "x-portcullis-guard",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: istio-ingress}\nspec: {hosts: [mcp.example.com], gateways: [portcullis.istio-ingress.svc.cluster.local], http: [{route: [{destination: {host: demo}}], retries: {attempts: 0}}]}\n",
    ),
    denied(
        "a patch of the root namespace that removes the filter",
        "not portcullis or its seal",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: other, namespace: istio-system}\nspec: {configPatches: [{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: portcullis}}}}}, patch: {operation: REMOVE}}]}\n",
    ),
    denied(
        "a patch that removes the WasmPlugin's filter",
        "not portcullis or its seal",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: other, namespace: istio-ingress}\nspec: {configPatches: [{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: 'extensions.istio.io/trafficextension/istio-ingress.portcullis~istio-translated-wasmplugin'}}}}}, patch: {operation: REMOVE}}]}\n",
    ),
    denied(
        "a route without the guard",
        "x-portcullis-guard",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: mcp}\nspec: {hosts: [mcp.example.com], gateways: [istio-ingress/portcullis], http: [{route: [{destination: {host: demo}}], retries: {attempts: 0}}]}\n",
    ),
    denied(
        "a mirror",
        "a mirror would receive",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: mcp}\nspec: {hosts: [mcp.example.com], gateways: [istio-ingress/portcullis], http: [{match: [{headers: {x-portcullis-guard: {exact: not-a-secret-demo}}}], route: [{destination: {host: demo}}], mirror: {host: other}, retries: {attempts: 0}}]}\n",
    ),
    denied(
        "retries",
        "a retry executes a call again",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: mcp}\nspec: {hosts: [mcp.example.com], gateways: [istio-ingress/portcullis], http: [{match: [{headers: {x-portcullis-guard: {exact: not-a-secret-demo}}}], route: [{destination: {host: demo}}], retries: {attempts: 3}}]}\n",
    ),
    denied(
        "a listener that the patches do not know",
        "`listeners` and `hosts` of the chart",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: portcullis, namespace: istio-ingress}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: [mcp.example.com]}, {port: {number: 9090, name: more, protocol: HTTP}, hosts: [mcp.example.com]}]}\n",
    ),
    denied(
        "a WasmPlugin with FAIL_OPEN",
        "use FAIL_RELOAD",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: other, namespace: istio-ingress}\nspec: {url: 'oci://registry.example/other:1', failStrategy: FAIL_OPEN}\n",
    ),
    denied(
        "a patch that removes the filter",
        "not portcullis or its seal",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: other, namespace: istio-ingress}\nspec: {configPatches: [{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: portcullis}}}}}, patch: {operation: REMOVE}}]}\n",
    ),
    denied(
        "a TCP route",
        "would pass the filter by",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: mcp}\nspec: {hosts: [mcp.example.com], gateways: [istio-ingress/portcullis], tcp: [{route: [{destination: {host: demo}}]}]}\n",
    ),
    taken(
        "a route of another Gateway",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: mcp}\nspec: {hosts: [web.example.com], gateways: [istio-ingress/web], http: [{route: [{destination: {host: web}}]}]}\n",
    ),
    taken(
        "a WasmPlugin that fails closed",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: other, namespace: istio-ingress}\nspec: {url: 'oci://registry.example/other:1', failStrategy: FAIL_CLOSE}\n",
    ),
];

// `retry` of an HTTPRoute is a field of Gateway API's experimental channel, which is not defined here.
const ENVOY_GATEWAY: [Manifest; 17] = [
    denied(
        "a route that matches by an empty list",
        "x-portcullis-guard",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: other, namespace: mcp}\nspec: {parentRefs: [{name: mcp}], rules: [{matches: [], backendRefs: [{name: demo, port: 8080}]}]}\n",
    ),
    denied(
        "a route without the guard",
        "x-portcullis-guard",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: other, namespace: mcp}\nspec: {parentRefs: [{name: mcp}], rules: [{backendRefs: [{name: demo, port: 8080}]}]}\n",
    ),
    denied(
        "a gRPC route without the guard",
        "x-portcullis-guard",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: other, namespace: mcp}\nspec: {parentRefs: [{name: mcp}], rules: [{backendRefs: [{name: demo, port: 8080}]}]}\n",
    ),
    denied(
        "a mirror",
        "a mirror would receive",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: other, namespace: mcp}\nspec: {parentRefs: [{name: mcp}], rules: [{matches: [{headers: [{name: x-portcullis-guard, value: not-a-secret-demo}]}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: other, port: 80}}}], backendRefs: [{name: demo, port: 8080}]}]}\n",
    ),
    denied(
        "a listener that no patch covers",
        "the listeners are those",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: mcp, namespace: mcp}\nspec: {gatewayClassName: portcullis, listeners: [{name: http, protocol: HTTP, port: 8080}, {name: more, protocol: HTTP, port: 9090}]}\n",
    ),
    denied(
        "failOpen",
        "failOpen stays false",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: portcullis, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: mcp}], wasm: [{name: portcullis, rootID: portcullis, failOpen: true, code: {type: Image, image: {url: registry.example/portcullis/portcullis}}}]}\n",
    ),
    denied(
        "a more specific extension policy",
        "replaces the gateway's",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: demo}]}\n",
    ),
    denied(
        "a patch of the Gateway by others",
        "can take off the filter",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyPatchPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: mcp}, type: JSONPatch, jsonPatches: [{type: type.googleapis.com/envoy.config.listener.v3.Listener, name: mcp/mcp/http, operation: {op: remove, path: /default_filter_chain/filters/0}}]}\n",
    ),
    denied(
        "another ClientTrafficPolicy of a listener",
        "another one would replace it",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: mcp, sectionName: http}], connection: {bufferLimit: 1Mi}}\n",
    ),
    denied(
        "the ClientTrafficPolicy without the early removal",
        "takes a client's own x-portcullis-guard off",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: portcullis, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: mcp}], headers: {earlyRequestHeaders: {removeOnMatch: [{type: Exact, value: x-other}]}}}\n",
    ),
    denied(
        "the ClientTrafficPolicy for one listener",
        "is for the whole Gateway",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: portcullis, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: mcp, sectionName: http}], headers: {earlyRequestHeaders: {removeOnMatch: [{type: Exact, value: x-portcullis-guard}]}}}\n",
    ),
    denied(
        "the ClientTrafficPolicy for another Gateway",
        "is for the whole Gateway",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: portcullis, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], headers: {earlyRequestHeaders: {removeOnMatch: [{type: Exact, value: x-portcullis-guard}]}}}\n",
    ),
    denied(
        "retries",
        "a retry executes a call again",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: demo}], retry: {numRetries: 3}}\n",
    ),
    taken(
        "traffic of another Gateway",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], connection: {bufferLimit: 1Mi}}\n",
    ),
    taken(
        "a patch of another Gateway",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyPatchPolicy\nmetadata: {name: other, namespace: mcp}\nspec: {targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: web}, type: JSONPatch, jsonPatches: [{type: type.googleapis.com/envoy.config.listener.v3.Listener, name: mcp/web/http, operation: {op: remove, path: /default_filter_chain/filters/0}}]}\n",
    ),
    taken(
        "a route of another Gateway",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: other, namespace: mcp}\nspec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 8080}]}]}\n",
    ),
    taken(
        "another Gateway",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: mcp}\nspec: {gatewayClassName: other, listeners: [{name: http, protocol: HTTP, port: 80}]}\n",
    ),
];

/// How long a policy may take from its creation to its first refusal.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(helm: &Helm, cluster: &Cluster, dir: &Path, report: &mut Report) -> Result<()> {
    for (name, manifests) in [("istio", &ISTIO[..]), ("envoy-gateway", &ENVOY_GATEWAY[..])] {
        let Some(case) = CASES.iter().find(|case| case.name == name) else { continue };
        helm.release("install", case, &[], cluster.kubeconfig())?;
        for (nth, manifest) in manifests.iter().enumerate() {
            let verb = if manifest.said.is_some() { "denied" } else { "not touched" };
            let file = written(dir, &format!("{name}-others-{nth}"), manifest.text)?;
            report.trial(name, &format!("{verb}: {}", manifest.name), || {
                judged(cluster, &file, manifest.said)
            });
        }
        uninstalled(helm, cluster, case)?;
        delete_kept(cluster, case)?;
    }
    Ok(())
}

fn judged(cluster: &Cluster, file: &Path, said: Option<&str>) -> Result<()> {
    let file = file.to_string_lossy();
    // `--force-conflicts` takes the field over from its other manager: such a conflict is not a denial.
    let how = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename"];
    let apply = || cluster.kubectl(&[&how[..], &[&file]].concat()).map(drop);
    let Some(said) = said else { return apply() };
    let started = Instant::now();
    loop {
        match apply() {
            Err(failure) if failure.to_string().contains(said) => return Ok(()),
            Err(failure) => return Err(Failure::new(format!("another message: {failure}"))),
            // A policy is in force once the API server has compiled it.
            Ok(()) if started.elapsed() < IN_FORCE_WITHIN => {}
            Ok(()) => return Err(Failure::new("the API server takes it")),
        }
    }
}
