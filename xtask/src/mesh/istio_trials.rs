//! The trials on Istio: the shipped files of `envoy/istio/`, applied with kubectl, through istiod and its agent.
//!
//! Owns the ways to install, the trials of each, and the operations on them.

use super::beside::{TlsFront, ext_authz, idle_module};
use super::cluster::{FRAMING, MODULE};
use super::gateway::{Gateway, HOST, Kind, expect, within};
use super::here::{Here, replaced};
use super::istio::{
    DEMO_SERVER, Dataplane, Ingress, Istiod, NAMESPACE, OTHER_HOST, Role, demo_server,
};
use super::operations::{After, flows, settle, under_load};
use super::report::Report;
use super::tools::IstioTools;
use super::{Ground, Options, rendered, upgrades};
use super::{istio_sidecar, istio_waypoint};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Process, files};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The placeholder for a digest in the shipped files.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The placeholder for the digest of the framing filter's image.
const NO_FRAMING_DIGEST: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// In other-hosts.yaml.
const WEB_HOST: &str = "web.example.com";
/// From kubectl to Envoy's configuration, on a busy machine.
pub(super) const PUSHED_WITHIN: Duration = Duration::from_secs(150);

/// A way to install the filter; `base.yaml` and `routes.yaml` are the same for all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Install {
    /// EnvoyFilter, `hold` mode.
    Hold,
    /// WasmPlugin, `split` mode.
    Plugin,
}

impl Install {
    const ALL: [Self; 2] = [Self::Hold, Self::Plugin];

    fn name(self) -> &'static str {
        match self {
            Self::Hold => "Istio, EnvoyFilter",
            Self::Plugin => "Istio, WasmPlugin",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Hold => "envoyfilter.yaml",
            Self::Plugin => "wasmplugin.yaml",
        }
    }
}

/// A running Istio.
pub(super) struct Mesh<'a> {
    pub(super) ground: &'a Ground<'a>,
    tools: IstioTools,
    istiod: Istiod,
    pub(super) ingress: Ingress,
    here: Here,
    pub(super) gateway: Gateway,
    guard: String,
    /// The ext_authz server of another team.
    authorizer: Option<Process>,
    /// TLS in front of Redis and OpenBao.
    tls: Option<TlsFront>,
}

/// Runs everything on Istio.
pub(super) fn run(ground: &Ground<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let mut mesh = Mesh::start(ground, options)?;
    let install = Install::Hold.name();
    report.trial(install, "the API server takes base.yaml and routes.yaml", || {
        mesh.apply("base.yaml")?;
        mesh.apply("routes.yaml")
    });
    if !options.without_guards {
        report.trial(install, "a server without the filter gets nothing", || {
            mesh.nothing_without_it()
        });
    }
    for install in Install::ALL {
        if install != Install::Hold && !options.wants(install.name()) {
            continue;
        }
        let works = mesh.trials(install, report);
        // Before the operations, which add other teams' hosts.
        if options.records_configurations() && works {
            let kept = match install {
                Install::Hold => &rendered::ISTIO,
                Install::Plugin => &rendered::ISTIO_PLUGIN,
            };
            let shown = (mesh.gateway.port(), mesh.guard.as_str());
            let outcome = rendered::write(kept, ground, &|page| mesh.ingress.admin(page), shown);
            report.trial(install.name(), "what Istio made of it is written down", || outcome);
        }
        if works && install == Install::Hold {
            mesh.further(options, report)?;
        }
        if options.operations && works && options.wants(install.name()) {
            mesh.operations(install, report);
            mesh.without_others()?;
        }
        let removed =
            || mesh.file(install.file()).and_then(|file| mesh.ground.cluster.delete(&file));
        if options.without_guards {
            removed()?;
        } else {
            report.trial(
                install.name(),
                "once the filter is removed, a server gets nothing",
                || {
                    removed()?;
                    settle(&mesh.gateway, &format!("{}-removed", install.file()), After::Closed)
                },
            );
        }
    }
    Ok(())
}

/// A trial of the EnvoyFilter form.
type Further = (&'static str, fn(&Mesh<'_>) -> Result<()>);

const FURTHER: [Further; 6] = [
    ("other-hosts.yaml leaves out the host that it names", |mesh| mesh.leaves_other_hosts_out()),
    ("other-hosts.yaml leaves out the route that it names", |mesh| mesh.leaves_other_routes_out()),
    ("telemetry.yaml in place of the access log", |mesh| mesh.audits_by_telemetry()),
    ("a port of its own: others' ports have nothing of ours", |mesh| mesh.has_a_port_of_its_own()),
    ("doctor: content with the files, a line for each hole", |mesh| mesh.doctor_names_holes()),
    ("docs/get-started/istio.md, step by step", |mesh| mesh.follows_the_page()),
];

impl<'a> Mesh<'a> {
    /// The trials after the install.
    fn further(&mut self, options: &Options, report: &mut Report) -> Result<()> {
        let name = Install::Hold.name();
        for (what, run) in FURTHER {
            if options.wants(what) && !options.without_guards {
                report.trial(name, what, || run(self));
            }
        }
        if options.wants("sidecar") {
            let plane = (&self.tools, &mut self.istiod);
            istio_sidecar::run(self.ground, plane, &self.here, options, report)?;
        }
        if options.wants("waypoint") {
            istio_waypoint::run(self.ground, &self.tools, &self.here, options, report)?;
        }
        Ok(())
    }

    fn start(ground: &'a Ground<'a>, options: &Options) -> Result<Self> {
        let tools = IstioTools::install(ground.workspace)?;
        let (cluster, stack) = (&ground.cluster, &ground.stack);
        step("defining Istio's resources", || cluster.define(&tools.crds))?;
        for namespace in ["istio-system", NAMESPACE, "mcp"] {
            cluster.namespace(namespace)?;
        }
        let istiod = step("starting istiod", || {
            Istiod::start(Dataplane::Sidecars, &tools, cluster, (&ground.dir, &ground.logs))
        })?;
        let envoy = &ground.tools.envoy;
        let ingress = step("starting Istio's agent and Envoy", || {
            let places = (ground.dir.as_path(), ground.logs.as_path());
            Ingress::start(
                Role::Ingress,
                (&tools, envoy),
                &istiod,
                &ground.registry,
                &stack.certificates.authority,
                places,
            )
        })?;
        let port = free_port()?;
        let listen =
            format!("bind: 127.0.0.1\n    port: {{number: {port}, name: http, protocol: HTTP}}");
        let address = |host: &str, port: u16| format!("address: {host}, port_value: {port}");
        let guard = files::random_hex(16)?;
        let image = format!("oci://{}", ground.registry.image("1"));
        let here = Here::new(&ground.dir.join("applied"))
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
            .with("oci://registry.example/portcullis/portcullis:0.1.0", image)
            .with(NO_DIGEST, &ground.digest)
            .with(
                "oci://registry.example/portcullis/redis-framing:0.1.0",
                format!("oci://{}", ground.registry.image_of(FRAMING, "1")),
            )
            .with(NO_FRAMING_DIGEST, &ground.framing_digest)
            .with("YOUR-GUARD", &guard)
            .with("port: {number: 8080, name: http, protocol: HTTP}", listen)
            .with("web.example.com:8080", format!("{WEB_HOST}:{port}"))
            .with("shop.example.com:8080", format!("shop.example.com:{port}"))
            // Longer for a busy machine, and for a load of refused calls from one address.
            .with("\"timeout_ms\": 50}", "\"timeout_ms\": 1000}")
            .with("timeout_ms: 250}", "timeout_ms: 1000}")
            .with(
                "\"external_url\": \"https://mcp.example.com\"",
                "\"slowdown\": {\"failures\": 0}, \"external_url\": \"https://mcp.example.com\"",
            )
            .with(
                "auth: {external_url: \"https://mcp.example.com\"}",
                "auth: {external_url: \"https://mcp.example.com\", slowdown: {failures: 0}}",
            );
        let url = format!("http://{}", loopback(port));
        let of = Gateway::of(stack, &ground.front, url, ingress.log().to_owned());
        let gateway = Gateway { is_guarded: !options.without_guards, ..of };
        let mesh = Self {
            ground,
            tools,
            istiod,
            ingress,
            here,
            gateway,
            guard,
            authorizer: None,
            tls: None,
        };
        mesh.serve_demo()?;
        Ok(mesh)
    }

    /// Adds the demo's MCP server under its name in `routes.yaml`.
    fn serve_demo(&self) -> Result<()> {
        let entry = demo_server(self.ground.front.address().port());
        let file = self.ground.dir.join(DEMO_SERVER);
        fs::write(&file, entry).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        self.ground.cluster.apply(&file)
    }

    fn shipped(&self, name: &str) -> PathBuf {
        self.ground.workspace.root.join("envoy/istio").join(name)
    }

    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        self.here.file(&self.shipped(name), name)
    }

    pub(super) fn apply(&self, name: &str) -> Result<()> {
        self.ground.cluster.apply(&self.file(name)?)
    }

    /// Applies a shipped file with a change.
    pub(super) fn apply_edited(
        &self,
        name: &str,
        edit: impl FnOnce(String) -> Result<String>,
    ) -> Result<()> {
        self.ground.cluster.apply(&self.here.edited(&self.shipped(name), name, edit)?)
    }

    /// Checks the routes without the filter: the guard has to refuse.
    fn nothing_without_it(&self) -> Result<()> {
        within(PUSHED_WITHIN, "the route that answers what is not judged", || {
            (self.gateway.call(Kind::Allowed, "unguarded", 0).status == 503).then_some(())
        })?;
        for kind in [Kind::Allowed, Kind::Danger, Kind::NoKey] {
            let reply = self.gateway.call(kind, "unguarded", 1);
            expect(reply.status == 503, "503", &reply)?;
        }
        let reached: usize = [Kind::Allowed, Kind::Danger, Kind::NoKey]
            .map(|kind| self.gateway.reached("unguarded", kind))
            .iter()
            .sum();
        if reached == 0 {
            Ok(())
        } else {
            Err(Failure::new(format!("{reached} calls reached the server")))
        }
    }

    /// The basic trials of one way to install.
    fn trials(&self, install: Install, report: &mut Report) -> bool {
        let (name, gateway) = (install.name(), &self.gateway);
        let applied =
            report.trial(name, &format!("the API server takes {}", install.file()), || {
                self.apply(install.file())
            });
        let label = format!("{}-install", install.file());
        // Without a working call, the next trials mean nothing.
        if !(applied
            && report.trial(name, "an allowed call is answered", || flows(gateway, &label)))
        {
            return false;
        }
        report.trial(name, "an allowed call has one execution and one entry", || {
            let label = format!("{}-one", install.file());
            let reply = gateway.call(Kind::Allowed, &label, 0);
            expect(reply.result, "a result", &reply)?;
            gateway.traces(&label, Kind::Allowed, 1, 1)
        });
        report.trial(
            name,
            "a tool that the caller may not call: nothing executed, one entry",
            || {
                let label = format!("{}-danger", install.file());
                let reply = gateway.call(Kind::Danger, &label, 0);
                expect(!reply.result && reply.judged, "a refusal by the filter", &reply)?;
                gateway.traces(&label, Kind::Danger, 0, 1)
            },
        );
        report.trial(name, "no credential: 401, nothing executed, one entry", || {
            let label = format!("{}-nokey", install.file());
            let reply = gateway.call(Kind::NoKey, &label, 0);
            expect(reply.status == 401 && reply.judged, "401 by the filter", &reply)?;
            gateway.traces(&label, Kind::NoKey, 0, 1)
        });
        report.trial(name, "a body of 900 KB over HTTP/1.1", || {
            let label = format!("{}-large", install.file());
            let reply = gateway.large(&label);
            expect(
                reply.judged && (reply.status == 200),
                "an answer of the tool or of the filter",
                &reply,
            )
        });
        if gateway.is_guarded {
            report.trial(
                name,
                "an upgrade to WebSocket is refused, and no route offers one",
                || {
                    let label = format!("{}-upgrade", install.file());
                    let more = [("connection", "upgrade"), ("upgrade", "websocket")];
                    let reply = gateway.send(HOST, Kind::Allowed, &label, ("", &more));
                    expect((400..=503).contains(&reply.status), "a refusal", &reply)?;
                    upgrades::are_refused(&|page| self.ingress.admin(page))
                },
            );
        }
        true
    }

    /// Runs the table of operations.
    fn operations(&mut self, install: Install, report: &mut Report) {
        let name = install.name();
        let gateway = self.gateway.clone();
        let file = install.file();
        // After a failed load of image or configuration, a WasmPlugin refuses calls; an EnvoyFilter keeps the last good
        // one.
        let faulty = match install {
            Install::Hold => After::Flows,
            Install::Plugin => After::Either,
        };
        let remove = |mesh: &Self| mesh.ground.cluster.delete(&mesh.file(file)?);
        let mut operate = |operation: &str, after, run: &mut dyn FnMut(&mut Self) -> Result<()>| {
            under_load(&gateway, name, operation, after, report, || run(&mut *self));
        };
        operate("filter removed", After::Closed, &mut |mesh| remove(mesh));
        operate("filter applied on a running gateway", After::Flows, &mut |mesh| mesh.apply(file));
        operate("configuration changed", After::Flows, &mut |mesh| {
            mesh.apply_edited(file, |text| replaced(&text, "4096", "2048"))
        });
        operate("faulty configuration", faulty, &mut |mesh| {
            mesh.apply_edited(file, |text| replaced(&text, "max_body_bytes", "no_such_field"))
        });
        operate("configuration corrected", After::Flows, &mut |mesh| mesh.apply(file));
        operate("upgrade to another image", After::Flows, &mut |mesh| mesh.upgrade(file));
        operate("image that is not there", faulty, &mut |mesh| {
            let missing = format!("oci://{}", mesh.ground.registry.image("missing"));
            let present = format!("oci://{}", mesh.ground.registry.image("1"));
            let digest = mesh.ground.digest.clone();
            mesh.apply_edited(file, |text| {
                // Also changes the digest: the agent already has the module of this one.
                replaced(&replaced(&text, &present, &missing)?, &digest, &digest.replace('a', "b"))
            })
        });
        operate("image corrected", After::Flows, &mut |mesh| mesh.apply(file));
        operate("wrong digest", faulty, &mut |mesh| {
            let digest = mesh.ground.digest.clone();
            mesh.apply_edited(file, |text| replaced(&text, &digest, &digest.replace('a', "b")))
        });
        operate("digest corrected", After::Flows, &mut |mesh| mesh.apply(file));
        operate("registry that does not answer", faulty, &mut |mesh| mesh.slow_pull(file));
        operate("registry corrected", After::Flows, &mut |mesh| mesh.apply(file));
        operate("base.yaml removed", After::ClosedWithoutAudit, &mut |mesh| {
            mesh.ground.cluster.delete(&mesh.file("base.yaml")?)
        });
        operate("base.yaml applied again", After::FlowsWithAuditAgain, &mut |mesh| {
            mesh.apply("base.yaml")
        });
        operate("a second port with the same host", After::Flows, &mut |mesh| mesh.second_port());
        operate(
            "another team's route to the server, same path, another host",
            After::Flows,
            &mut |mesh| mesh.other_team(),
        );
        operate("our host delegated in part to another team", After::Flows, &mut |mesh| {
            mesh.delegated()
        });
        operate("routes.yaml as shipped", After::Flows, &mut |mesh| mesh.apply("routes.yaml"));
        operate("another EnvoyFilter takes the filter out", After::Closed, &mut |mesh| {
            mesh.ground.apply_own("taken-out.yaml", &taken_out(install))
        });
        operate("that EnvoyFilter removed", After::Flows, &mut |mesh| {
            mesh.ground.cluster.delete(&mesh.ground.dir.join("taken-out.yaml"))
        });
        operate(
            "ext_authz and another Wasm filter, in front and behind",
            After::Flows,
            &mut |mesh| mesh.beside(),
        );
        operate("the ext_authz server gone", After::Closed, &mut |mesh| {
            mesh.authorizer = None;
            Ok(())
        });
        operate("those filters removed", After::Flows, &mut |mesh| {
            mesh.ground.cluster.delete(&mesh.ground.dir.join("beside.yaml"))
        });
        operate("mTLS to Redis and Vault", After::Flows, &mut |mesh| mesh.with_tls(file));
        operate("plaintext to both again", After::Flows, &mut |mesh| {
            mesh.apply("base.yaml")?;
            mesh.apply(file)
        });
        operate("FAIL_OPEN with a faulty configuration", faulty, &mut |mesh| {
            mesh.apply_edited(file, |text| {
                let open = replaced(&text, "FAIL_RELOAD", "FAIL_OPEN")?;
                replaced(&open, "max_body_bytes", "no_such_field")
            })
        });
        operate("FAIL_RELOAD again", After::Flows, &mut |mesh| mesh.apply(file));
        operate("control plane gone", After::Flows, &mut |mesh| {
            mesh.istiod.stop();
            Ok(())
        });
        operate("control plane restarted", After::Flows, &mut |mesh| {
            let places = (mesh.ground.dir.as_path(), mesh.ground.logs.as_path());
            mesh.istiod.restart(&mesh.tools, &mesh.ground.cluster, places)
        });
    }

    /// Removes the resources that the operations have added for other teams.
    fn without_others(&self) -> Result<()> {
        for name in ["second-port.yaml", "other-team.yaml", "delegate.yaml"] {
            let file = self.ground.dir.join(name);
            if file.exists() {
                self.ground.cluster.delete(&file)?;
            }
        }
        Ok(())
    }

    /// Upgrades to another image of the same code, hence with another digest.
    fn upgrade(&self, file: &str) -> Result<()> {
        let ground = self.ground;
        let newer = ground.newer_module()?;
        let digest = ground.registry.push(&ground.tools, &newer, (MODULE, "2"))?;
        let (old, new) = (ground.registry.image("1"), ground.registry.image("2"));
        self.apply_edited(file, |text| {
            replaced(&replaced(&text, &old, &new)?, &ground.digest, &digest)
        })
    }

    /// Serves the host of the MCP servers on an unexpected port.
    fn second_port(&self) -> Result<()> {
        let port = free_port()?;
        let gateway = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: other, namespace: {NAMESPACE}}}\nspec:\n  \
             selector: {{istio: ingressgateway}}\n  servers:\n  - bind: 127.0.0.1\n    \
             port: {{number: {port}, name: http-2, protocol: HTTP}}\n    hosts: [{HOST}]\n"
        );
        self.ground.apply_own("second-port.yaml", &gateway)
    }

    /// A Gateway and a VirtualService for `host`, whose route to the MCP server requires no guard.
    pub(super) fn host_without_guard(&self, name: &str, host: &str) -> String {
        let port = self.gateway.port();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
             selector: {{istio: ingressgateway}}\n  servers:\n  - bind: 127.0.0.1\n    \
             port: {{number: {port}, name: http-{name}, protocol: HTTP}}\n    hosts: [{host}]\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
             hosts: [{host}]\n  gateways: [{name}]\n  http:\n  - match: [{{uri: {{exact: /demo/mcp}}}}]\n    \
             rewrite: {{uri: /mcp, authority: demo}}\n    \
             route: [{{destination: {{host: demo.mcp.svc.cluster.local, port: {{number: 8080}}}}}}]\n"
        )
    }

    /// Adds another team's host on the same port, whose route to the MCP server requires no guard.
    pub(super) fn other_team(&self) -> Result<()> {
        let manifest = self.host_without_guard("other-team", OTHER_HOST);
        self.ground.apply_own("other-team.yaml", &manifest)?;
        let label = "istio-other-team";
        let call = |kind, number| self.gateway.call_host(OTHER_HOST, kind, label, number);
        // The status is 404 until the host is active.
        within(PUSHED_WITHIN, "the other host", || {
            (call(Kind::NoKey, 0).status != 404).then_some(())
        })?;
        self.gateway.refuses(OTHER_HOST, label, &[])
    }

    /// Delegates a part of our host to another team, whose route leads to the same server.
    fn delegated(&self) -> Result<()> {
        let delegate = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: delegate, namespace: {NAMESPACE}}}\nspec:\n  \
             http:\n  - match: [{{uri: {{exact: /demo/mcp}}, headers: {{x-team: {{exact: a}}}}}}]\n    rewrite: {{uri: /mcp, authority: demo}}\n    \
             route: [{{destination: {{host: demo.mcp.svc.cluster.local, port: {{number: 8080}}}}}}]\n"
        );
        self.ground.apply_own("delegate.yaml", &delegate)?;
        self.apply_edited("routes.yaml", |text| {
            let root = format!(
                "  http:\n  - match: [{{uri: {{prefix: /demo}}, headers: {{x-team: {{exact: a}}}}}}]\n    \
                 delegate: {{name: delegate, namespace: {NAMESPACE}}}\n"
            );
            replaced(&text, "  http:\n", &root)
        })?;
        if !self.gateway.is_guarded {
            // Without guards, a call on their route is like any other: judged, and sent to the same server.
            return Ok(());
        }
        let label = "istio-delegated";
        let call = |kind: Kind, number| {
            let (tool, name) = match kind {
                Kind::Allowed => ("query_users", "allowed"),
                Kind::Danger => ("delete_user", "danger"),
                Kind::NoKey => ("query_users", "nokey"),
            };
            let message = json!({"jsonrpc": "2.0", "id": format!("{label}-{name}-{number}"), "method": "tools/call",
                "params": {"name": tool, "arguments": {"limit": 1}}});
            self.gateway.send(HOST, kind, label, (&message.to_string(), &[("x-team", "a")]))
        };
        // Until the route is active, the header has no effect, and the call is like any other.
        within(PUSHED_WITHIN, "the delegated route", || {
            (!call(Kind::Allowed, 0).result).then_some(())
        })?;
        let before = self.gateway.reached(label, Kind::Allowed);
        for kind in Kind::ALL {
            let reply = call(kind, 1);
            expect(!reply.result, "a refusal", &reply)?;
        }
        let after = Kind::ALL.map(|kind| self.gateway.reached(label, kind));
        expect(after == [before, 0, 0], "no further call at the server", &after)
    }

    /// Adds third-party filters to the same connection managers.
    fn beside(&mut self) -> Result<()> {
        let (process, address) = ext_authz(&self.ground.tools, &self.ground.logs)?;
        self.authorizer = Some(process);
        let module = self.ground.dir.join("idle.wasm");
        fs::write(&module, idle_module()).map_err(|error| Failure::new(error.to_string()))?;
        self.ground.apply_own("beside.yaml", &filters_of_others(address.port(), &module))?;
        within(PUSHED_WITHIN, "the filters of others", || {
            let dump = self.ingress.admin("config_dump").ok()?.text();
            dump.contains("beside_behind").then_some(())
        })
    }

    /// Applies base.yaml with its lines for TLS, and makes a new VM of the filter, which reads the credential again.
    fn with_tls(&mut self, file: &str) -> Result<()> {
        let front = TlsFront::start(self.ground, &format!("istio-{file}"))?;
        self.apply_edited("base.yaml", |text| front.in_the_way(self.ground, &text))?;
        self.apply_edited(file, |text| replaced(&text, "4096", "1024"))?;
        within(PUSHED_WITHIN, "a client with a certificate at Redis and OpenBao", || {
            front.is_used().then_some(())
        })?;
        self.tls = Some(front);
        Ok(())
    }

    /// Checks for one entry for each call, written by Telemetry alone.
    fn audits_by_telemetry(&self) -> Result<()> {
        self.apply_edited("base.yaml", |text| {
            let (before, rest) = text.split_once("          access_log:\n").unwrap_or((&text, ""));
            let (_, after) = rest.split_once("\n\n").ok_or_else(|| {
                Failure::new("base.yaml has no access_log with a blank line behind it")
            })?;
            Ok(format!("{before}\n{after}"))
        })?;
        self.apply("telemetry.yaml")?;
        let mut number = 0;
        // There may be no entry yet, and two while both logs are active.
        within(PUSHED_WITHIN, "one entry for a call", || {
            number += 1;
            let label = format!("istio-telemetry-{number}");
            let sent = Kind::ALL.map(|kind| self.gateway.call(kind, &label, 0));
            if !sent.iter().all(|reply| reply.judged) {
                return None;
            }
            std::thread::sleep(Duration::from_secs(3));
            Kind::ALL.iter().all(|kind| self.gateway.entries(&label, *kind) == 1).then_some(())
        })?;
        self.ground.cluster.delete(&self.file("telemetry.yaml")?)?;
        self.apply("base.yaml")?;
        within(PUSHED_WITHIN, "one entry for a call, by base.yaml", || {
            number += 1;
            let label = format!("istio-telemetry-{number}");
            self.gateway.call(Kind::Allowed, &label, 0);
            std::thread::sleep(Duration::from_secs(3));
            (self.gateway.entries(&label, Kind::Allowed) == 1).then_some(())
        })
    }

    /// Points to a registry that accepts connections and sends nothing. The digest is new, because the agent already
    /// has the module of this one.
    fn slow_pull(&self, file: &str) -> Result<()> {
        let silent = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|error| Failure::new(format!("could not listen: {error}")))?;
        let (there, digest) = (self.ground.registry.image("1"), self.ground.digest.as_str());
        let other = format!("{}/portcullis:1", silent.0);
        self.apply_edited(file, |text| {
            replaced(&replaced(&text, &there, &other)?, digest, &digest.replace('a', "b"))
        })?;
        std::thread::sleep(Duration::from_secs(15));
        Ok(())
    }

    /// Checks a host without MCP servers on the same port: the filter judges it until other-hosts.yaml names it.
    fn leaves_other_hosts_out(&self) -> Result<()> {
        let name = "web.yaml";
        self.ground.apply_own(name, &self.host_without_guard("web", WEB_HOST))?;
        let label = "istio-web";
        let call = |kind, number| self.gateway.call_host(WEB_HOST, kind, label, number);
        within(PUSHED_WITHIN, "the filter's refusal on the other host", || {
            (call(Kind::NoKey, 0).status == 401).then_some(())
        })?;
        self.apply("other-hosts.yaml")?;
        // The server refuses the call itself, since the connector's credential is missing.
        within(PUSHED_WITHIN, "a call that reaches the other host's server unjudged", || {
            let reply = call(Kind::NoKey, 1);
            (!reply.judged && self.gateway.reached(label, Kind::NoKey) > 0).then_some(())
        })?;
        let reached = self.gateway.reached(label, Kind::NoKey);
        for kind in [Kind::Danger, Kind::NoKey] {
            let reply = self.gateway.call(kind, label, 2);
            expect(!reply.result && reply.judged, "a refusal by the filter", &reply)?;
        }
        let after = self.gateway.reached(label, Kind::NoKey);
        expect(after == reached, "no further call at the server", &after)?;
        self.ground.cluster.delete(&self.file("other-hosts.yaml")?)?;
        self.ground.cluster.delete(&self.ground.dir.join(name))
    }
}

/// An EnvoyFilter that removes ours, like a cleanup by another team.
pub(super) fn taken_out(install: Install) -> String {
    let name = match install {
        Install::Hold => "portcullis",
        Install::Plugin => {
            "extensions.istio.io/trafficextension/istio-ingress.portcullis~istio-translated-wasmplugin"
        }
    };
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: taken-out, namespace: {NAMESPACE}}}\nspec:\n  \
         workloadSelector: {{labels: {{istio: ingressgateway}}}}\n  priority: 90\n  configPatches:\n  - applyTo: HTTP_FILTER\n    \
         match: {{context: GATEWAY, listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager, \
         subFilter: {{name: \"{name}\"}}}}}}}}}}\n    patch: {{operation: REMOVE}}\n"
    )
}

/// An ext_authz filter and a Wasm filter before all others, and the same Wasm filter just before the router.
fn filters_of_others(port: u16, module: &std::path::Path) -> String {
    let manager =
        "listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager";
    let wasm = |name: &str| {
        format!(
            "{{name: {name}, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: \
             {{name: {name}, root_id: {name}, vm_config: {{vm_id: {name}, runtime: envoy.wasm.runtime.v8, \
             code: {{local: {{filename: \"{}\"}}}}}}}}}}}}",
            module.display()
        )
    };
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: beside, namespace: {NAMESPACE}}}\nspec:\n  \
         workloadSelector: {{labels: {{istio: ingressgateway}}}}\n  priority: 50\n  configPatches:\n  \
         - applyTo: CLUSTER\n    match: {{context: GATEWAY}}\n    patch: {{operation: ADD, value: {{name: beside_authorizer, type: STATIC, \
         connect_timeout: 1s, load_assignment: {{cluster_name: beside_authorizer, endpoints: [{{lb_endpoints: [{{endpoint: \
         {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}}}\n  \
         - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY, {manager}}}}}}}}}\n    patch: {{operation: INSERT_FIRST, value: \
         {{name: envoy.filters.http.ext_authz, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, http_service: {{server_uri: \
         {{uri: \"http://127.0.0.1:{port}\", cluster: beside_authorizer, timeout: 1s}}}}}}}}}}\n  \
         - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY, {manager}}}}}}}}}\n    patch: {{operation: INSERT_FIRST, value: {}}}\n  \
         - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY, {manager}, subFilter: {{name: envoy.filters.http.router}}}}}}}}}}\n    \
         patch: {{operation: INSERT_BEFORE, value: {}}}\n",
        wasm("beside_front"),
        wasm("beside_behind")
    )
}
