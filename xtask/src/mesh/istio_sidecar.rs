//! The filter in the sidecar of an MCP server, with sidecar.yaml: callers use mutual TLS.
//!
//! Owns the callers and their certificates. There is no pod, so nothing redirects traffic: a Sidecar resource gives the
//! sidecar a listener for the server's port.

use super::Ground;
use super::Options;
use super::beside::workload;
use super::gateway::{Gateway, HOST, Kind, within};
use super::here::Here;
use super::istio::{Ingress, Istiod, Role};
use super::istio_inbound::{Inbound, Parts, Scope};
use super::istio_inbound_operations::Plane;
use super::report::Report;
use super::tools::IstioTools;
use crate::failure::{Failure, Result};
use portcullis_stack::Process;
use portcullis_stack::ports::{free_port, loopback};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "Istio, sidecar";
/// In sidecar.yaml.
const ANALYST: &str = "spiffe://cluster.local/ns/agents/sa/analyst";
const STRANGER: &str = "spiffe://cluster.local/ns/agents/sa/stranger";
/// In waypoint.yaml.
const WAYPOINT: &str = "spiffe://cluster.local/ns/mcp/sa/waypoint";
const PUSHED_WITHIN: Duration = Duration::from_secs(60);

/// A sidecar with the shipped file, and two workloads that call it.
struct Sidecar<'a> {
    inbound: Inbound<'a>,
    /// Calls with the certificate that sidecar.yaml names.
    analyst: Gateway,
    /// By the certificate of a waypoint.
    waypoint: Gateway,
    /// Without a certificate.
    plaintext: Gateway,
    around: PathBuf,
    _sidecar: Ingress,
    _workloads: [Process; 3],
}

/// Runs everything on the sidecar.
pub(super) fn run(
    ground: &Ground<'_>,
    (tools, istiod): (&IstioTools, &mut Istiod),
    here: &Here,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let sidecar = Sidecar::start(ground, (tools, istiod), here, options)?;
    let inbound = &sidecar.inbound;
    let works = if options.without_guards {
        report.trial(NAME, "an allowed call is answered", || inbound.answers())
    } else {
        sidecar.trials(report)
    };
    if works && options.operations {
        inbound.operations(&mut Plane { tools, istiod }, report);
    }
    ground.cluster.delete(&inbound.parts.all)?;
    ground.cluster.delete(&sidecar.around)
}

impl<'a> Sidecar<'a> {
    fn start(
        ground: &'a Ground<'a>,
        (tools, istiod): (&IstioTools, &Istiod),
        here: &Here,
        options: &Options,
    ) -> Result<Self> {
        let (authority, envoy) = (&ground.stack.certificates.authority, &ground.tools.envoy);
        let port = free_port()?;
        let here = here
            .clone()
            .with("portNumber: 8080", format!("portNumber: {port}"))
            .with("inbound|8080||", format!("inbound|{port}||"));
        let parts = Parts::of(ground, &here, "sidecar.yaml")?;
        let around = ground.dir.join("sidecar-around.yaml");
        fs::write(&around, listener(port, ground.front.address().port()))
            .map_err(|error| Failure::new(error.to_string()))?;
        ground.cluster.apply(&around)?;
        ground.cluster.apply(&parts.all)?;
        let sidecar = Ingress::start(
            Role::Sidecar,
            (tools, envoy.as_path()),
            istiod,
            &ground.registry,
            authority,
            (ground.dir.as_path(), ground.logs.as_path()),
        )?;
        let of = |url: String| Gateway {
            is_guarded: !options.without_guards,
            ..Gateway::of(&ground.stack, &ground.front, url, sidecar.log().to_owned())
        };
        let workload_of = |name: &str, uri: &str| {
            let identity = authority.workload(name, uri)?;
            workload(ground, name, &identity, port)
        };
        let (analyst, as_analyst) = workload_of("workload-analyst", ANALYST)?;
        let (stranger, as_stranger) = workload_of("workload-stranger", STRANGER)?;
        let (waypoint, as_waypoint) = workload_of("workload-of-waypoint", WAYPOINT)?;
        // The trials begin without the filter.
        ground.cluster.delete(&parts.filter)?;
        let inbound = Inbound {
            ground,
            name: NAME,
            gateway: of(format!("http://{as_stranger}")),
            admin: sidecar.admin_url(),
            parts,
            scope: Scope {
                filters: "workloadSelector: {labels: {app: demo}}".to_owned(),
                policies: "selector: {matchLabels: {app: demo}}".to_owned(),
                listener: format!("portNumber: {port}"),
                routes: format!("inbound|{port}||"),
            },
        };
        Ok(Self {
            inbound,
            analyst: of(format!("http://{as_analyst}")),
            waypoint: of(format!("http://{as_waypoint}")),
            plaintext: of(format!("http://{}", loopback(port))),
            around,
            _sidecar: sidecar,
            _workloads: [analyst, stranger, waypoint],
        })
    }

    /// The trials of the shipped file.
    fn trials(&self, report: &mut Report) -> bool {
        let inbound = &self.inbound;
        if !report
            .trial(NAME, "sidecar.yaml: judged, and closed without the filter", || inbound.judges())
        {
            return false;
        }
        report.trial(NAME, "sidecar.yaml: a workload's certificate is the caller", || {
            self.knows_workloads()
        });
        report.trial(NAME, "sidecar.yaml: nobody comes without a certificate", || {
            self.refuses_plaintext()
        });
        report.trial(NAME, "sidecar.yaml: doctor is content", || inbound.doctor_is_content());
        report.trial(NAME, "sidecar.yaml: the filter removed, and applied again", || {
            inbound.without_the_filter()
        });
        report.trial(NAME, "waypoint.yaml: pods take nothing but the waypoint", || {
            self.takes_only_the_waypoint()
        });
        true
    }

    /// Checks that the caller's identity comes from its certificate, and never from a header of the caller.
    fn knows_workloads(&self) -> Result<()> {
        let analyst = &self.analyst;
        let label = self.inbound.label("certificate");
        let forged = format!(
            "By=spiffe://cluster.local/ns/mcp/sa/sidecar;Hash=00;Subject=\"\";URI={ANALYST}"
        );
        let forged = [("x-forwarded-client-cert", forged.as_str())];
        // This call has no key.
        let reply = analyst.call_saying(HOST, Kind::NoKey, (&label, 0), &forged);
        if !reply.result {
            return Err(Failure::new(format!("the certificate of sidecar.yaml: {reply:?}")));
        }
        analyst.traces(&label, Kind::NoKey, 1, 1)?;
        let entries = analyst.entries_with(&label, Kind::NoKey);
        let method =
            entries.first().and_then(|entry| entry.get("auth_method")?.as_str().map(str::to_owned));
        if method.as_deref() != Some("mtls") {
            return Err(Failure::new(format!("auth_method is {method:?}")));
        }
        let received = analyst.received(&label, Kind::NoKey).concat();
        if received.contains("x-forwarded-client-cert") || received.contains("x-portcullis-guard") {
            return Err(Failure::new(format!("the server received {received}")));
        }
        // Another workload claims the same identity.
        let label = self.inbound.label("forged");
        let stranger = &self.inbound.gateway;
        let reply = stranger.call_saying(HOST, Kind::NoKey, (&label, 0), &forged);
        if reply.status != 401 {
            return Err(Failure::new(format!("a forged header: {reply:?}")));
        }
        stranger.traces(&label, Kind::NoKey, 0, 1)
    }

    /// Checks PeerAuthentication STRICT.
    fn refuses_plaintext(&self) -> Result<()> {
        let label = self.inbound.label("plaintext");
        let statuses = Kind::ALL.map(|kind| self.plaintext.call(kind, &label, 0).status);
        let reached = Kind::ALL.map(|kind| self.plaintext.reached(&label, kind));
        if (statuses, reached) == ([0; 3], [0; 3]) {
            return Ok(());
        }
        Err(Failure::new(format!("statuses {statuses:?}, {reached:?} at the server")))
    }

    /// A sidecar stands here for ztunnel: both hold a policy for the workload behind them.
    fn takes_only_the_waypoint(&self) -> Result<()> {
        let policies = policies_of_waypoint(self.inbound.ground)?;
        let cluster = &self.inbound.ground.cluster;
        cluster.apply(&policies)?;
        let label = self.inbound.label("around-the-waypoint");
        let others = [&self.inbound.gateway, &self.analyst];
        let denied = within(PUSHED_WITHIN, "403 for every workload but the waypoint", || {
            let statuses = others.map(|it| it.call(Kind::Allowed, &label, 0).status);
            (statuses == [403, 403]).then_some(())
        });
        let label = self.inbound.label("around-the-waypoint-again");
        let statuses = others.map(|it| Kind::ALL.map(|kind| it.call(kind, &label, 0).status));
        let reached = Kind::ALL.map(|kind| self.inbound.gateway.reached(&label, kind));
        let through = self.waypoint.call(Kind::Allowed, &label, 1);
        cluster.delete(&policies)?;
        denied?;
        if statuses != [[403; 3]; 2] || reached != [0; 3] || !through.result {
            return Err(Failure::new(format!(
                "others: {statuses:?}, {reached:?} at the server; by the waypoint: {through:?}"
            )));
        }
        within(PUSHED_WITHIN, "calls of other workloads again", || {
            let label = self.inbound.label("without-waypoint-policies");
            self.inbound.gateway.call(Kind::Allowed, &label, 0).result.then_some(())
        })
    }
}

/// The policies of waypoint.yaml for the pods of the server, as they are shipped.
fn policies_of_waypoint(ground: &Ground<'_>) -> Result<PathBuf> {
    let fault = |error: std::io::Error| Failure::new(error.to_string());
    let shipped = ground.workspace.root.join("envoy/istio/waypoint.yaml");
    let text = fs::read_to_string(shipped).map_err(fault)?;
    let documents = text.split("\n---\n");
    let policies: Vec<_> =
        documents.filter(|it| it.contains("apiVersion: security.istio.io/v1\n")).collect();
    if policies.len() != 2 {
        return Err(Failure::new(format!("waypoint.yaml has {} policies", policies.len())));
    }
    let file = ground.dir.join("waypoint-policies.yaml");
    fs::write(&file, policies.join("\n---\n")).map_err(fault)?;
    Ok(file)
}

/// A listener for the server on a port of the sidecar.
fn listener(port: u16, server: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: demo, namespace: mcp}}\nspec:\n  \
         workloadSelector: {{labels: {{app: demo}}}}\n  ingress:\n  \
         - port: {{number: {port}, protocol: HTTP, name: http}}\n    bind: 127.0.0.1\n    captureMode: NONE\n    \
         defaultEndpoint: 127.0.0.1:{server}\n  egress: [{{hosts: [\"./*\"]}}]\n"
    )
}
