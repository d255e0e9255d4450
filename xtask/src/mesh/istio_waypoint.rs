//! The filter on a waypoint, with waypoint.yaml: callers come through a tunnel (HBONE), as ztunnel opens one.
//!
//! Owns the resources that a cluster with nodes would make around a waypoint, and the parts that stock Envoy cannot
//! load.

use super::Ground;
use super::Options;
use super::beside::ztunnel;
use super::doctor::Doctor;
use super::gateway::{Gateway, Kind, within};
use super::here::{Here, replaced};
use super::istio::{DEMO_SERVER, Dataplane, Ingress, Istiod, Role};
use super::istio_inbound::{Inbound, Parts, Scope};
use super::istio_inbound_operations::Plane;
use super::operations::{After, flows, under_load};
use super::report::Report;
use super::tools::{EnvoyGatewayTools, IstioTools};
use crate::failure::{Failure, Result};
use portcullis_stack::Process;
use portcullis_stack::ports::{free_port, loopback};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "Istio, waypoint";
const TARGET: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]";
/// The address of the service; nothing listens there.
const VIP: &str = "240.240.0.1";
const PUSHED_WITHIN: Duration = Duration::from_secs(90);

/// A waypoint with the shipped file, and a workload that calls it.
struct Waypoint<'a> {
    inbound: Inbound<'a>,
    here: &'a Here,
    around: PathBuf,
    _ztunnel: Process,
    proxy: Ingress,
    istiod: Istiod,
}

/// Runs everything on the waypoint.
pub(super) fn run(
    ground: &Ground<'_>,
    tools: &IstioTools,
    here: &Here,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let mut waypoint = Waypoint::start(ground, tools, here, options)?;
    let inbound = &waypoint.inbound;
    let works = if options.without_guards {
        report.trial(NAME, "an allowed call is answered", || inbound.answers())
    } else {
        waypoint.trials(report)
    };
    if works && options.operations {
        waypoint.operations(report);
        let istiod = &mut waypoint.istiod;
        inbound.operations(&mut Plane { tools, istiod }, report);
    }
    // Kept to investigate failures.
    if let Ok(dump) = waypoint.proxy.admin("config_dump?include_eds") {
        fs::write(ground.logs.join("waypoint-dump.json"), dump.text())
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    if let Ok(stats) = waypoint.proxy.admin("stats") {
        fs::write(ground.logs.join("waypoint-stats.txt"), stats.text())
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    ground.cluster.delete(&inbound.parts.all)?;
    ground.cluster.delete(&waypoint.around)?;
    // Restores the entry that the waypoint's form of it replaced.
    ground.cluster.apply(&ground.dir.join(DEMO_SERVER))
}

impl<'a> Waypoint<'a> {
    fn start(
        ground: &'a Ground<'a>,
        tools: &IstioTools,
        here: &'a Here,
        options: &Options,
    ) -> Result<Self> {
        let cluster = &ground.cluster;
        let gateway_api = &EnvoyGatewayTools::install(ground.workspace)?.crds[0];
        cluster.define(gateway_api)?;
        let port = free_port()?;
        let around = ground.dir.join("waypoint-around.yaml");
        fs::write(&around, surroundings(port, ground.front.address().port()))
            .map_err(|error| Failure::new(error.to_string()))?;
        cluster.apply(&around)?;
        cluster.has_address("gateway", "waypoint", "waypoint.mcp.svc.cluster.local")?;
        let parts = Parts::of(ground, here, "waypoint.yaml")?;
        cluster.apply(&parts.all)?;
        let places = (ground.dir.as_path(), ground.logs.as_path());
        let istiod = Istiod::start(Dataplane::Ambient, tools, cluster, places)?;
        let authority = &ground.stack.certificates.authority;
        let waypoint = Ingress::start(
            Role::Waypoint,
            (tools, ground.tools.envoy.as_path()),
            &istiod,
            &ground.registry,
            authority,
            places,
        )?;
        let identity =
            authority.workload("workload-agent", "spiffe://cluster.local/ns/agents/sa/agent")?;
        let service = format!("{VIP}:8080");
        let (tunnel, entrance) = ztunnel(ground, (&identity, loopback(port)), &service)?;
        cluster.delete(&parts.filter)?;
        let url = format!("http://{entrance}");
        let inbound = Inbound {
            ground,
            name: NAME,
            gateway: Gateway {
                is_guarded: !options.without_guards,
                ..Gateway::of(&ground.stack, &ground.front, url, waypoint.log().to_owned())
            },
            admin: waypoint.admin_url(),
            parts,
            scope: Scope {
                filters: TARGET.to_owned(),
                policies: TARGET.to_owned(),
                listener: "name: main_internal".to_owned(),
                routes: "inbound-vip|8080|http|demo.mcp.svc.cluster.local".to_owned(),
            },
        };
        Ok(Self { inbound, here, around, _ztunnel: tunnel, proxy: waypoint, istiod })
    }

    /// The trials of the shipped file.
    fn trials(&self, report: &mut Report) -> bool {
        let inbound = &self.inbound;
        let judges = || inbound.judges();
        if !report.trial(NAME, "waypoint.yaml: judged, and closed without the filter", judges) {
            return false;
        }
        report.trial(NAME, "waypoint.yaml: doctor is content", || inbound.doctor_is_content());
        report.trial(NAME, "waypoint.yaml: the filter removed, and applied again", || {
            inbound.without_the_filter()
        });
        report.trial(
            NAME,
            "waypoint.yaml: doctor names a VirtualService that undoes the routes",
            || self.is_undone_by_a_virtual_service(),
        );
        report.trial(NAME, "wasmplugin.yaml with the waypoint as its target", || {
            self.runs_a_plugin()
        });
        true
    }

    /// The operations that only a waypoint has.
    fn operations(&self, report: &mut Report) {
        let Inbound { ground, gateway, .. } = &self.inbound;
        let operation = "a VirtualService for the service, which undoes the routes";
        under_load(gateway, NAME, operation, After::Closed, report, || {
            self.inbound.ground.apply_own("undoes.yaml", UNDOES)
        });
        under_load(gateway, NAME, "that VirtualService removed", After::Flows, report, || {
            ground.cluster.delete(&ground.dir.join("undoes.yaml"))
        });
    }

    /// Checks the filter as a WasmPlugin: wasmplugin.yaml with the waypoint as its target, in `split` mode.
    fn runs_a_plugin(&self) -> Result<()> {
        let Inbound { ground, gateway, parts, .. } = &self.inbound;
        let shipped = ground.workspace.root.join("envoy/istio/wasmplugin.yaml");
        let plugin = self.here.edited(&shipped, "waypoint-plugin.yaml", |text| {
            let selector = "  selector:\n    matchLabels: {istio: ingressgateway}\n";
            let text = replaced(&text, selector, &format!("  {TARGET}\n"))?;
            replaced(&text, "namespace: istio-ingress", "namespace: mcp")
        })?;
        ground.cluster.delete(&parts.filter)?;
        self.inbound.is_closed("plugin-before")?;
        ground.cluster.apply(&plugin)?;
        let judged = flows(gateway, &self.inbound.label("plugin-install"))
            .and_then(|()| self.inbound.judges_each_kind("plugin"));
        ground.cluster.delete(&plugin)?;
        let closed = self.inbound.is_closed("plugin-removed");
        ground.cluster.apply(&parts.filter)?;
        let again = flows(gateway, &self.inbound.label("plugin-gone"));
        judged.and(closed).and(again)
    }

    /// With a VirtualService, Istio makes the routes of a service without any patch and without a warning.
    fn is_undone_by_a_virtual_service(&self) -> Result<()> {
        let ground = self.inbound.ground;
        let file = ground.dir.join("undoes.yaml");
        self.inbound.ground.apply_own("undoes.yaml", UNDOES)?;
        let doctor = Doctor::of(ground, self.inbound.admin.clone());
        let named = doctor.names(("envoy.route inbound|http|8080/", "wants no guard", "bad"));
        ground.cluster.delete(&file)?;
        named?;
        let label = self.inbound.label("routes-again");
        within(PUSHED_WITHIN, "the routes of waypoint.yaml", || {
            self.inbound.gateway.call(Kind::Allowed, &label, 0).result.then_some(())
        })?;
        doctor.is_content()
    }
}

const UNDOES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: undoes, namespace: mcp}
spec:
  hosts: [demo.mcp.svc.cluster.local]
  http:
  - route: [{destination: {host: demo.mcp.svc.cluster.local, port: {number: 8080}}}]
";

/// The waypoint's Gateway and Service, which Istio makes in a cluster; the server as a service with its own address;
/// loopback addresses; and no filters that only Istio's build of Envoy has.
fn surroundings(port: u16, server: u16) -> String {
    let removed = |listener: &str, filter: &str| {
        format!(
            "  - applyTo: HTTP_FILTER\n    match: {{context: SIDECAR_INBOUND, listener: {{name: {listener}, filterChain: {{filter: \
             {{name: envoy.filters.network.http_connection_manager, subFilter: {{name: {filter}}}}}}}}}}}\n    patch: {{operation: REMOVE}}\n"
        )
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: istio-waypoint}}\n\
         spec: {{controllerName: istio.io/mesh-controller}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: waypoint, namespace: mcp, labels: {{istio.io/waypoint-for: all}}}}\n\
         spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: waypoint, namespace: mcp, labels: {{gateway.networking.k8s.io/gateway-name: waypoint}}}}\n\
         spec: {{selector: {{gateway.networking.k8s.io/gateway-name: waypoint}}, ports: [{{name: mesh, port: 15008, appProtocol: hbone}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: demo, namespace: mcp, labels: {{istio.io/use-waypoint: waypoint}}}}\nspec:\n  \
         hosts: [demo.mcp.svc.cluster.local]\n  addresses: [{VIP}]\n  ports: [{{number: 8080, name: http, protocol: HTTP}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 127.0.0.1, ports: {{http: {server}}}}}]\n---\n\
         apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: waypoint-here, namespace: mcp}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}}]\n  priority: 5\n  configPatches:\n  \
         - applyTo: LISTENER\n    match: {{context: SIDECAR_INBOUND, listener: {{name: connect_terminate}}}}\n    \
         patch: {{operation: MERGE, value: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}\n\
         {}{}",
        removed("connect_terminate", "waypoint_downstream_peer_metadata"),
        removed("main_internal", "waypoint_upstream_peer_metadata"),
    )
}
