//! The filter in the sidecar of an MCP server: the shipped files for that sidecar's inbound listener.
//!
//! Owns what of the files changes for it. There is no VirtualService: the inbound listener's one route leads to the server, and
//! is patched to want the guard.

use super::Ground;
use super::calls::{Gateway, Kind, within};
use super::here::Here;
use super::istio::{Ingress, Istiod, Role};
use super::tools::IstioTools;
use crate::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use std::fs;
use std::time::Duration;

const PUSHED_WITHIN: Duration = Duration::from_secs(90);

/// Applies the files, calls, takes the filter away and calls again.
pub(super) fn judges(
    ground: &Ground<'_>,
    (tools, istiod): (&IstioTools, &Istiod),
    here: &Here,
    guard: &str,
) -> Result<()> {
    let (authority, envoy) = (&ground.stack.certificates.authority, &ground.tools.envoy);
    let places = (ground.dir.as_path(), ground.logs.as_path());
    let programs = (tools, envoy.as_path());
    let sidecar = Ingress::start(
        Role::Sidecar,
        programs,
        istiod,
        &ground.registry,
        authority.certificate(),
        places,
    )?;
    let port = free_port()?;
    let folder = ground.workspace.root.join("envoy/istio");
    let mut manifests = vec![inbound(port, ground.front.address().port())];
    for name in ["base.yaml", "routes.yaml"] {
        let file = here.edited(&folder.join(name), &format!("sidecar-{name}"), Ok)?;
        let text = read(&file)?;
        let text = if name == "base.yaml" { text } else { guarded(&text, guard)? };
        manifests.push(for_the_sidecar(&text));
    }
    let filter =
        here.edited(&folder.join("envoyfilter.yaml"), "sidecar-envoyfilter.yaml", |text| {
            Ok(for_the_sidecar(&text))
        })?;
    let around = ground.dir.join("sidecar.yaml");
    fs::write(&around, manifests.join("\n---\n"))
        .map_err(|error| Failure::new(error.to_string()))?;
    let of = Gateway::of(
        &ground.stack,
        &ground.front,
        format!("http://{}", loopback(port)),
        sidecar.log().to_owned(),
    );
    let tried = ground.cluster.apply(&around).and_then(|()| {
        ground.cluster.apply(&filter)?;
        called(&of)?;
        ground.cluster.delete(&filter)?;
        within(PUSHED_WITHIN, "calls that no filter has judged, refused by the sidecar", || {
            let replies = Kind::ALL.map(|kind| of.call(kind, "sidecar-without", 0));
            replies.iter().all(|reply| !reply.result && !reply.judged).then_some(())
        })?;
        let before = Kind::ALL.map(|kind| of.reached("sidecar-without", kind));
        let replies = Kind::ALL.map(|kind| of.call(kind, "sidecar-without", 1));
        let after = Kind::ALL.map(|kind| of.reached("sidecar-without", kind));
        if before == after && after[1..] == [0, 0] && replies.iter().all(|reply| !reply.result) {
            return Ok(());
        }
        Err(Failure::new(format!("without the filter: {after:?} at the server, {replies:?}")))
    });
    ground.cluster.delete(&around)?;
    tried
}

fn called(gateway: &Gateway) -> Result<()> {
    let label = "sidecar";
    let mut last = String::new();
    within(PUSHED_WITHIN, "an allowed call through the sidecar", || {
        let reply = gateway.call(Kind::Allowed, "sidecar-first", 0);
        last = format!("{reply:?}");
        reply.result.then_some(())
    })
    .map_err(|failure| Failure::new(format!("{failure}: {last}")))?;
    for (kind, executed) in [(Kind::Allowed, 1), (Kind::Danger, 0), (Kind::NoKey, 0)] {
        let reply = gateway.call(kind, label, 0);
        if !reply.judged || reply.result != (executed == 1) {
            return Err(Failure::new(format!("{reply:?}")));
        }
        gateway.traces(label, kind, executed, 1)?;
    }
    Ok(())
}

/// A listener for the server on a port of the sidecar, without redirection of traffic; nothing here signs certificates.
fn inbound(port: u16, server: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: demo, namespace: mcp}}\nspec:\n  \
         workloadSelector: {{labels: {{app: demo}}}}\n  ingress:\n  \
         - port: {{number: {port}, protocol: HTTP, name: http}}\n    bind: 127.0.0.1\n    captureMode: NONE\n    \
         defaultEndpoint: 127.0.0.1:{server}\n  egress: [{{hosts: [\"./*\"]}}]\n---\n\
         apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: demo, namespace: mcp}}\nspec:\n  \
         selector: {{matchLabels: {{app: demo}}}}\n  mtls: {{mode: DISABLE}}\n"
    )
}

fn for_the_sidecar(text: &str) -> String {
    text.replace("context: GATEWAY", "context: SIDECAR_INBOUND")
        .replace("{istio: ingressgateway}", "{app: demo}")
        .replace("namespace: istio-ingress", "namespace: mcp")
}

/// The EnvoyFilter of routes.yaml alone, whose patches of routes become one of the inbound route.
fn guarded(text: &str, guard: &str) -> Result<String> {
    let absent =
        || Failure::new("routes.yaml has no EnvoyFilter with patches of routes and the seal");
    let filter =
        text.split("\n---\n").find(|it| it.contains("kind: EnvoyFilter")).ok_or_else(absent)?;
    let (head, rest) = filter.split_once("  - applyTo: HTTP_ROUTE\n").ok_or_else(absent)?;
    let (_, seal) = rest.split_once("  # The seal.").ok_or_else(absent)?;
    let route = format!(
        "  - applyTo: HTTP_ROUTE\n    match:\n      context: GATEWAY\n      \
         routeConfiguration: {{vhost: {{route: {{name: default}}}}}}\n    patch:\n      operation: MERGE\n      value:\n        \
         metadata: {{filter_metadata: {{portcullis: {{guards: [{guard}]}}}}}}\n        \
         match: {{headers: [{{name: x-portcullis-guard, string_match: {{exact: {guard}}}}}]}}\n        \
         request_headers_to_remove: [x-portcullis-guard]\n        \
         route: {{host_rewrite_literal: demo, regex_rewrite: {{pattern: {{regex: \"^/.*$\"}}, substitution: /mcp}}}}\n"
    );
    Ok(format!("{head}{route}  # The seal.{seal}"))
}

fn read(file: &std::path::Path) -> Result<String> {
    fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", file.display())))
}
