//! Envoy Gateway for the chart's trials: releases on the API server, and an Envoy Gateway that follows it.
//!
//! Owns how the gateway starts, and how others break it. Without nodes, Envoy Gateway starts Envoy here and reads its
//! resources from a folder; a thread copies what the API server has, also between the steps of an upgrade. The trials
//! are those of `gateways`.

use super::cases::Helm;
use super::gateways::{self, OTHER_HOST, Plane};
use crate::failure::{Failure, Result};
use crate::mesh::Ground;
use crate::mesh::envoy_gateway::EnvoyGateway;
use crate::mesh::gateway::within;
use crate::mesh::report::Report;
use crate::mesh::tools::EnvoyGatewayTools;
use crate::progress::step;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const NAMESPACE: &str = "mcp";
/// From the deletion of an admission policy to a request that it does not deny.
const NOT_IN_FORCE_WITHIN: Duration = Duration::from_secs(60);
/// The time between two copies of the API server's resources.
const PACE: Duration = Duration::from_millis(300);
/// What the chart has for Envoy Gateway, and the server.
const KINDS: &str = "gatewayclasses.gateway.networking.k8s.io,gateways.gateway.networking.k8s.io,\
    httproutes,httproutefilters,envoyproxies,envoyextensionpolicies,envoypatchpolicies,\
    clienttrafficpolicies,backendtrafficpolicies,backends.gateway.envoyproxy.io";

struct Running<'a> {
    ground: &'a Ground<'a>,
    controller: EnvoyGateway,
    /// The hosts of the chart's route before `bypass`.
    hosts: RefCell<Option<Value>>,
}

pub(super) fn run(ground: &Ground<'_>, helm: &Helm, report: &mut Report) -> Result<()> {
    let tools = EnvoyGatewayTools::install(ground.workspace)?;
    let cluster = &ground.cluster;
    step("defining Envoy Gateway's resources", || {
        tools.crds.iter().try_for_each(|file| cluster.define(file))
    })?;
    for namespace in [NAMESPACE, "envoy-gateway-system"] {
        cluster.namespace(namespace)?;
    }
    let controller = step("starting Envoy Gateway", || {
        EnvoyGateway::start(&tools, &ground.tools.envoy, &ground.dir, &ground.logs)
    })?;
    let listeners = gateways::listeners()?;
    let names = listeners.map(|(name, _)| name);
    let folder = controller.folder().to_owned();
    write(&folder, "envoy-secret.yaml", &controller.envoy_secret()?)?;
    write(&folder, "here.yaml", &controller.patches_for_here(&names))?;
    let server = ground.dir.join("demo-server.json");
    let backend = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": {"name": "demo", "namespace": NAMESPACE},
        "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": ground.front.address().port()}}]},
    });
    fs::write(&server, backend.to_string()).map_err(|error| unwritable(&server, &error))?;
    cluster.apply(&server)?;
    let plane = Running { ground, controller, hosts: RefCell::new(None) };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let follower = scope.spawn(|| follow(ground, &folder, &stop));
        let outcome = gateways::run(ground, helm, (&plane, listeners), report);
        stop.store(true, Ordering::SeqCst);
        let followed = follower.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(followed)
    })
}

/// Copies the API server's resources to the folder whenever they differ, until `stop`.
fn follow(ground: &Ground<'_>, folder: &Path, stop: &AtomicBool) -> Result<()> {
    let mut last = String::new();
    while !stop.load(Ordering::SeqCst) {
        let get = ["get", KINDS, "--all-namespaces", "--output", "json"];
        let all: Value = serde_json::from_str(&ground.cluster.kubectl(&get)?)
            .map_err(|error| Failure::new(format!("kubectl get: {error}")))?;
        let items = all["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = items.iter().map(as_applied).collect::<Vec<_>>().join("\n---\n");
        if text != last {
            write(folder, "cluster.yaml", &text)?;
            last = text;
        }
        thread::sleep(PACE);
    }
    Ok(())
}

/// A resource without what only the API server adds.
fn as_applied(resource: &Value) -> String {
    let mut resource = resource.clone();
    if let Some(fields) = resource.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = resource["metadata"].as_object_mut() {
        let kept = ["name", "namespace", "labels", "annotations", "creationTimestamp"];
        metadata.retain(|name, _| kept.contains(&name.as_str()));
    }
    resource.to_string()
}

/// Writes a file for Envoy Gateway in one step.
fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let (file, staged) = (folder.join(name), folder.with_extension("staged"));
    let written = fs::write(&staged, text).and_then(|()| fs::rename(&staged, &file));
    written.map_err(|error| unwritable(&file, &error))
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not write {}: {error}", file.display()))
}

impl Running<'_> {
    /// The file of the route that passes the filter by.
    fn bypassing(&self) -> PathBuf {
        self.ground.dir.join("bypass.json")
    }

    fn set_hosts(&self, hosts: &Value) -> Result<()> {
        let patch = format!("--patch={}", json!({"spec": {"hostnames": hosts}}));
        let route =
            ["patch", "httproute", "demo", "--namespace", NAMESPACE, "--type=merge", &patch];
        self.ground.cluster.kubectl(&route).map(drop)
    }
}

impl Plane for Running<'_> {
    fn name(&self) -> &'static str {
        "Helm, Envoy Gateway"
    }

    fn control_plane(&self) -> &'static str {
        "envoy-gateway"
    }

    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    fn log(&self) -> PathBuf {
        self.controller.log().to_owned()
    }

    fn here(&self) -> String {
        let token = self.ground.stack.openbao.token_sds().display().to_string();
        let framing = self.ground.workspace.artifacts().framing.display().to_string();
        format!(
            "s|/var/local/portcullis-token/token.yaml|{token}|\n\
             s|/var/local/portcullis-framing/plugin.wasm|{framing}|\n\
             s|^    - name: demo$|    - group: gateway.envoyproxy.io\\n      kind: Backend\\n      name: demo|\n\
             /^    type: Kubernetes$/,/^  telemetry:$/{{/^  telemetry:$/!d}}\n\
             s|^  provider:$|  provider: {{type: Host, host: {{envoyVersion: 1.40.0}}}}\\n  concurrency: 2\\n  \
             extraArgs: [\"--file-flush-interval-msec 100\", \"--disable-hot-restart\"]|\n"
        )
    }

    fn configuration(&self) -> Result<String> {
        Ok(self.controller.admin("config_dump")?.text())
    }

    fn admin_url(&self) -> Result<String> {
        self.controller.admin_url()
    }

    fn after_uninstall(&self) -> &'static [u16] {
        // The Gateway goes with the release, and its Envoy with it.
        &[0, 404, 503]
    }

    fn take_off(&self) -> Result<()> {
        let filter = ["delete", "envoyextensionpolicy", "portcullis", "--namespace", NAMESPACE];
        self.ground.cluster.kubectl(&filter).map(drop)
    }

    fn is_bypassed(&self, host: &str, _port: u16) -> bool {
        host == OTHER_HOST
    }

    fn bypass(&self) -> Result<()> {
        let get = ["get", "httproute", "demo", "--namespace", NAMESPACE, "--output", "json"];
        let found: Value = serde_json::from_str(&self.ground.cluster.kubectl(&get)?)
            .map_err(|error| Failure::new(format!("the HTTPRoute: {error}")))?;
        let before = found["spec"]["hostnames"].clone();
        let others = before.as_array().map(Vec::as_slice).unwrap_or_default();
        let others: Vec<&Value> = others.iter().filter(|name| *name != OTHER_HOST).collect();
        self.set_hosts(&json!(others))?;
        *self.hosts.borrow_mut() = Some(before);
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "bypass", "namespace": NAMESPACE},
            "spec": {
                "parentRefs": [{"name": "mcp"}], "hostnames": [OTHER_HOST],
                "rules": [{
                    "matches": [{"path": {"type": "Exact", "value": "/demo/mcp"}}],
                    "filters": [{"type": "URLRewrite", "urlRewrite": {
                        "hostname": "demo", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/mcp"},
                    }}],
                    "backendRefs": [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "demo"}],
                }],
            },
        });
        // The more specific policy, without a filter, replaces the Gateway's.
        let policy = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy",
            "metadata": {"name": "bypass", "namespace": NAMESPACE},
            "spec": {"targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "bypass"},
            ]},
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [route, policy]});
        let file = self.bypassing();
        fs::write(&file, list.to_string()).map_err(|error| unwritable(&file, &error))?;
        within(NOT_IN_FORCE_WITHIN, "a route without a guard", || {
            self.ground.cluster.apply(&file).ok()
        })
    }

    fn mend(&self) -> Result<()> {
        self.ground.cluster.delete(&self.bypassing())?;
        match self.hosts.take() {
            Some(hosts) => self.set_hosts(&hosts),
            None => Ok(()),
        }
    }
}
