//! The trials on Envoy Gateway: the API server accepts the shipped files of `envoy/envoy-gateway/` with its admission
//! policies, then Envoy Gateway translates them for a real Envoy.
//!
//! Owns the trials and the operations. Without nodes, Envoy Gateway cannot start Envoy in a cluster: it reads the
//! accepted files from a folder, and starts Envoy here.

use super::envoy_gateway::EnvoyGateway;
use super::gateway::{Gateway, HOST, Kind, within};
use super::here::{Here, replaced};
use super::operations::flows;
use super::report::Report;
use super::tools::EnvoyGatewayTools;
use super::{Ground, Options, rendered, upgrades};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::files;
use portcullis_stack::ports::{free_port, loopback};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const NAME: &str = "Envoy Gateway";
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The Gateway's listeners in all trials: without an API server, each listens on all addresses until a patch changes
/// that.
const LISTENERS: [&str; 5] = ["http", "other", "renamed", "https", "https-quic"];
/// What follows the first route of routes.yaml.
const FILTER_OF_ROUTES: &str =
    "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: HTTPRouteFilter\n";
/// A route without any condition before it.
const EMPTY_MATCHES: &str = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: any, namespace: mcp}\nspec:\n  \
     parentRefs: [{name: mcp}]\n  rules:\n  - {matches: [], backendRefs: [{name: demo, port: 8080}]}\n\
     ---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: HTTPRouteFilter\n";
/// What the shipped EnvoyProxy says of pods.
const PODS: [&str; 2] = ["  provider:\n    type: Kubernetes\n", "  telemetry:\n"];

/// A running Envoy Gateway.
pub(super) struct Mesh<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) tools: EnvoyGatewayTools,
    pub(super) controller: EnvoyGateway,
    here: Here,
    pub(super) gateway: Gateway,
    guard: String,
}

/// Runs everything on Envoy Gateway.
pub(super) fn run(ground: &Ground<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let mut mesh = Mesh::start(ground, options)?;
    // Its policies deny routes without a guard.
    if !options.without_guards {
        mesh.admission(report);
    }
    if options.operations {
        mesh.first_install(report);
    }
    report.trial(NAME, "the API server takes gateway.yaml and routes.yaml", || {
        mesh.apply("gateway.yaml")?;
        mesh.apply("routes.yaml")
    });
    if !mesh.trials(report) {
        return Ok(());
    }
    if options.records_configurations() {
        let shown = (mesh.gateway.port(), mesh.guard.as_str());
        let kept = &rendered::ENVOY_GATEWAY;
        let outcome = rendered::write(kept, ground, &|page| mesh.controller.admin(page), shown);
        report.trial(NAME, "what Envoy Gateway made of it is written down", || outcome);
    }
    let doctor = "doctor: content with the files, a line for each hole";
    if !options.without_guards && options.wants(doctor) {
        report.trial(NAME, doctor, || mesh.doctor_names_holes());
    }
    if options.operations {
        mesh.operations(report);
    }
    Ok(())
}

impl<'a> Mesh<'a> {
    fn start(ground: &'a Ground<'a>, options: &Options) -> Result<Self> {
        let tools = EnvoyGatewayTools::install(ground.workspace)?;
        let (cluster, stack) = (&ground.cluster, &ground.stack);
        step("defining Envoy Gateway's resources", || {
            tools.crds.iter().try_for_each(|file| cluster.define(file))
        })?;
        cluster.namespace("mcp")?;
        let envoy = &ground.tools.envoy;
        let controller = step("starting Envoy Gateway", || {
            EnvoyGateway::start(&tools, envoy, &ground.dir, &ground.logs)
        })?;
        let port = free_port()?;
        let address = |host: &str, port: u16| format!("address: {host}, port_value: {port}");
        let framing = ground.workspace.artifacts().framing;
        let guard = files::random_hex(16)?;
        let here = Here::new(&ground.dir.join("applied-envoy-gateway"))
            .without_lines(options.left_out())
            .with(
                &address("redis.portcullis.svc.cluster.local", 6379),
                address("127.0.0.1", stack.valkey.address().port()),
            )
            .with(
                &address("vault.vault.svc.cluster.local", 8200),
                address("127.0.0.1", stack.openbao.address().port()),
            )
            .with("/var/local/portcullis-token/token.yaml", stack.openbao.token_sds().display())
            .with("/var/local/portcullis-framing/plugin.wasm", framing.display())
            .with("registry.example/portcullis/portcullis:0.1.0", ground.registry.image("1"))
            .with(NO_DIGEST, &ground.digest)
            .with("YOUR-GUARD", &guard)
            .with("protocol: HTTP, port: 8080", format!("protocol: HTTP, port: {port}"))
            .with(
                "fqdn: {hostname: demo.mcp.svc.cluster.local, port: 8080}",
                format!("ip: {{address: 127.0.0.1, port: {}}}", ground.front.address().port()),
            )
            .with("timeout_ms: 50}", "timeout_ms: 1000}")
            .with(
                "auth: {external_url: \"https://mcp.example.com\"}",
                "auth: {external_url: \"https://mcp.example.com\", slowdown: {failures: 0}}",
            );
        let url = format!("http://{}", loopback(port));
        let of = Gateway::of(stack, &ground.front, url, controller.log().to_owned());
        let gateway = Gateway { is_guarded: !options.without_guards, ..of };
        let mesh = Self { ground, tools, controller, here, gateway, guard };
        let secret = mesh.controller.envoy_secret()?;
        mesh.write("envoy-secret.yaml", &secret)?;
        mesh.write("here.yaml", &mesh.patches_for_here())?;
        Ok(mesh)
    }

    /// Patches for what only this machine has.
    pub(super) fn patches_for_here(&self) -> String {
        self.controller.patches_for_here(&LISTENERS)
    }

    fn shipped(&self, name: &str) -> PathBuf {
        self.ground.workspace.root.join("envoy/envoy-gateway").join(name)
    }

    pub(super) fn apply(&self, name: &str) -> Result<()> {
        self.apply_edited(name, Ok)
    }

    /// Applies a changed shipped file to the API server, and then gives it to Envoy Gateway.
    pub(super) fn apply_edited(
        &self,
        name: &str,
        edit: impl FnOnce(String) -> Result<String>,
    ) -> Result<()> {
        let file = self.here.edited(&self.shipped(name), name, edit)?;
        self.ground.cluster.apply(&file)?;
        let text = fs::read_to_string(&file).map_err(|error| Failure::new(error.to_string()))?;
        self.write(name, &without_pods(&text)?)
    }

    /// Writes a file for Envoy Gateway in one step.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.controller.folder().join(name);
        let staged = self.ground.dir.join("staged.yaml");
        let written = fs::write(&staged, text).and_then(|()| fs::rename(&staged, &file));
        written
            .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
    }

    /// Gives a file only to Envoy Gateway, as if admission.yaml were not applied.
    pub(super) fn unadmitted(
        &self,
        name: &str,
        edit: impl FnOnce(String) -> Result<String>,
    ) -> Result<()> {
        let file = self.here.edited(&self.shipped(name), "unadmitted.yaml", edit)?;
        let text = fs::read_to_string(&file).map_err(|error| Failure::new(error.to_string()))?;
        self.write(name, &without_pods(&text)?)
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let file = self.controller.folder().join(name);
        fs::remove_file(&file)
            .map_err(|error| Failure::new(format!("could not remove {}: {error}", file.display())))
    }

    /// The requests that the API server denies once admission.yaml is applied.
    fn admission(&self, report: &mut Report) {
        report.trial(NAME, "the API server takes admission.yaml", || {
            self.ground.cluster.apply(&self.shipped("admission.yaml"))
        });
        let refused = [
            (
                "a listener without patches",
                "gateway.yaml",
                "  - {name: http, protocol: HTTP",
                "  - {name: other, protocol: HTTP, port: 9999}\n  - {name: http, protocol: HTTP",
            ),
            ("failOpen", "gateway.yaml", "failOpen: false", "failOpen: true"),
            (
                "a route to a server without the guard",
                "routes.yaml",
                "      headers: [{type: Exact, name: x-portcullis-guard, value: ",
                "      headers: [{type: Exact, name: x-other, value: ",
            ),
            (
                "a route to a server that matches by an empty list",
                "routes.yaml",
                FILTER_OF_ROUTES,
                EMPTY_MATCHES,
            ),
            ("retries", "routes.yaml", "retry: {numRetries: 0}", "retry: {numRetries: 3}"),
            (
                "a gateway that leaves a client its guard",
                "gateway.yaml",
                "removeOnMatch: [{type: Exact, value: x-portcullis-guard}]",
                "removeOnMatch: [{type: Exact, value: x-other}]",
            ),
            (
                "a patch policy of another name",
                "gateway.yaml",
                "kind: EnvoyPatchPolicy\nmetadata: {name: portcullis,",
                "kind: EnvoyPatchPolicy\nmetadata: {name: other,",
            ),
            (
                "a mirror of what goes to a server",
                "routes.yaml",
                "    - type: RequestHeaderModifier\n",
                "    - {type: RequestMirror, requestMirror: {backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: demo}}}\n    - type: RequestHeaderModifier\n",
            ),
        ];
        for (what, file, old, new) in refused {
            report.trial(NAME, &format!("the API server refuses {what}"), || {
                // A policy takes a moment to be in force.
                within(Duration::from_secs(30), what, || self.refuses(file, old, new).then_some(()))
            });
        }
    }

    fn refuses(&self, file: &str, old: &str, new: &str) -> bool {
        let edited = self.here.edited(&self.shipped(file), &format!("refused-{file}"), |text| {
            replaced(&text, old, new)
        });
        let answer = edited.and_then(|file| self.ground.cluster.apply(&file));
        answer.is_err_and(|failure| failure.to_string().contains("denied request"))
    }

    fn trials(&self, report: &mut Report) -> bool {
        let gateway = &self.gateway;
        // Without a working call, the next trials mean nothing.
        if !report.trial(NAME, "an allowed call is answered", || flows(gateway, "eg-install")) {
            return false;
        }
        for (kind, executed, what) in [
            (Kind::Allowed, 1, "an allowed call has one execution and one entry"),
            (Kind::Danger, 0, "a tool that the caller may not call: nothing executed, one entry"),
            (Kind::NoKey, 0, "no credential: nothing executed, one entry"),
        ] {
            report.trial(NAME, what, || {
                let label = "envoy-gateway-core";
                let reply = gateway.call(kind, label, 0);
                if reply.result != (executed == 1) || !reply.judged {
                    return Err(Failure::new(format!("found {reply:?}")));
                }
                gateway.traces(label, kind, executed, 1)
            });
        }
        report.trial(NAME, "a body of 900 KB over HTTP/1.1", || {
            let reply = gateway.large("envoy-gateway-large");
            match (reply.judged, reply.status) {
                (true, 200) => Ok(()),
                _ => Err(Failure::new(format!("found {reply:?}"))),
            }
        });
        if gateway.is_guarded {
            report.trial(
                NAME,
                "an upgrade to WebSocket is refused, and no route offers one",
                || {
                    let more = [("connection", "upgrade"), ("upgrade", "websocket")];
                    let label = "envoy-gateway-upgrade";
                    let reply = gateway.send(HOST, Kind::Allowed, label, ("", &more));
                    if !(400..=503).contains(&reply.status) {
                        return Err(Failure::new(format!("found {reply:?}")));
                    }
                    upgrades::are_refused(&|page| self.controller.admin(page))
                },
            );
        }
        true
    }
}

/// The shipped EnvoyProxy without its pods: here Envoy Gateway starts Envoy itself.
fn without_pods(text: &str) -> Result<String> {
    let [from, to] = PODS;
    if !text.contains(from) {
        return Ok(text.to_owned());
    }
    let (before, rest) = text.split_once(from).unwrap_or((text, ""));
    let (_, after) =
        rest.split_once(to).ok_or_else(|| Failure::new("the EnvoyProxy has no telemetry"))?;
    let host = "  provider: {type: Host, host: {envoyVersion: 1.40.0}}\n  concurrency: 2\n  extraArgs: [\"--file-flush-interval-msec 100\", \"--disable-hot-restart\"]\n";
    Ok(format!("{before}{host}{to}{after}"))
}
