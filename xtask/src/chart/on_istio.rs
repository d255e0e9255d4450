//! Istio for the chart's trials: istiod on the API server, and an ingress gateway of Istio's agent and Envoy.
//!
//! Owns how the gateway starts, and how others break it. The trials are those of `gateways`.

use super::cases::Helm;
use super::gateways::{self, Listeners, Plane};
use crate::failure::{Failure, Result};
use crate::mesh::Ground;
use crate::mesh::gateway::within;
use crate::mesh::istio::{Dataplane, Ingress, Istiod, NAMESPACE, Role, demo_server};
use crate::mesh::report::Report;
use crate::mesh::tools::IstioTools;
use crate::progress::step;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// From the deletion of an admission policy to a request that it does not deny.
const NOT_IN_FORCE_WITHIN: Duration = Duration::from_secs(60);
/// The VirtualService of the chart.
const ROUTES: [&str; 4] = ["virtualservice", "portcullis", "--namespace", NAMESPACE];

struct Istio<'a> {
    ground: &'a Ground<'a>,
    ingress: Ingress,
    listeners: Listeners,
    /// The routes before `bypass`.
    routes: RefCell<Option<Value>>,
}

pub(super) fn run(ground: &Ground<'_>, helm: &Helm, report: &mut Report) -> Result<()> {
    let tools = IstioTools::install(ground.workspace)?;
    let cluster = &ground.cluster;
    step("defining Istio's resources", || cluster.define(&tools.crds))?;
    for namespace in ["istio-system", NAMESPACE, "mcp"] {
        cluster.namespace(namespace)?;
    }
    let places = (ground.dir.as_path(), ground.logs.as_path());
    let istiod =
        step("starting istiod", || Istiod::start(Dataplane::Sidecars, &tools, cluster, places))?;
    let ingress = step("starting Istio's agent and Envoy", || {
        let authority = &ground.stack.certificates.authority;
        let programs = (&tools, ground.tools.envoy.as_path());
        Ingress::start(Role::Ingress, programs, &istiod, &ground.registry, authority, places)
    })?;
    let server = ground.dir.join("demo-server.yaml");
    fs::write(&server, demo_server(ground.front.address().port()))
        .map_err(|error| Failure::new(format!("could not write {}: {error}", server.display())))?;
    cluster.apply(&server)?;
    let listeners = gateways::listeners()?;
    let plane = Istio { ground, ingress, listeners, routes: RefCell::new(None) };
    gateways::run(ground, helm, (&plane, listeners), report)
}

impl Istio<'_> {
    /// Replaces the list of routes in the chart's VirtualService.
    fn route(&self, http: &Value) -> Result<()> {
        let patch = format!("--patch={}", json!({"spec": {"http": http}}));
        let merge = ["--type=merge", patch.as_str()];
        self.ground.cluster.kubectl(&[&["patch"][..], &ROUTES, &merge].concat()).map(drop)
    }

    /// The file of the EnvoyFilter that takes the filter off a listener.
    fn opt_out(&self) -> PathBuf {
        self.ground.dir.join("opt-out.json")
    }
}

impl Plane for Istio<'_> {
    fn name(&self) -> &'static str {
        "Helm, Istio"
    }

    fn control_plane(&self) -> &'static str {
        "istio"
    }

    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    fn log(&self) -> PathBuf {
        self.ingress.log().to_owned()
    }

    fn here(&self) -> String {
        let token = self.ground.stack.openbao.token_sds().display().to_string();
        format!(
            "s|/var/local/portcullis-token/token.yaml|{token}|\n\
             s|^  - port: {{number:|  - bind: 127.0.0.1\\n    port: {{number:|\n"
        )
    }

    fn configuration(&self) -> Result<String> {
        Ok(self.ingress.admin("config_dump")?.text())
    }

    fn admin_url(&self) -> Result<String> {
        Ok(self.ingress.admin_url())
    }

    fn after_uninstall(&self) -> &'static [u16] {
        &[503]
    }

    fn take_off(&self) -> Result<()> {
        let filter = ["delete", "envoyfilter", "portcullis", "--namespace", NAMESPACE];
        self.ground.cluster.kubectl(&filter).map(drop)
    }

    fn is_bypassed(&self, _host: &str, port: u16) -> bool {
        self.listeners[0].1 == port
    }

    /// For one listener: Istio makes one virtual host of hosts with the same routes.
    fn bypass(&self) -> Result<()> {
        let get = [&["get"][..], &ROUTES, &["--output", "json"]].concat();
        let found: Value = serde_json::from_str(&self.ground.cluster.kubectl(&get)?)
            .map_err(|error| Failure::new(format!("the VirtualService: {error}")))?;
        let before = found["spec"]["http"].clone();
        let mut unguarded = before.clone();
        for route in unguarded.as_array_mut().into_iter().flatten() {
            for part in route["match"].as_array_mut().into_iter().flatten() {
                if let Value::Object(fields) = part {
                    fields.remove("headers");
                }
            }
        }
        if before == unguarded {
            return Err(Failure::new("the routes have no guard"));
        }
        *self.routes.borrow_mut() = Some(before);
        // Not by `portNumber`: Istio does not read the port from the name of a listener with `bind`.
        let routes = format!("http.{}.127.0.0.1", self.listeners[0].1);
        let patch = json!({
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": "GATEWAY", "routeConfiguration": {"name": routes}},
            "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": {"portcullis": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true,
            }}}},
        });
        let opt_out = json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "opt-out", "namespace": NAMESPACE},
            "spec": {
                "workloadSelector": {"labels": {"istio": "ingressgateway"}},
                "priority": 50, "configPatches": [patch],
            },
        });
        let file = self.opt_out();
        fs::write(&file, opt_out.to_string()).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        self.ground.cluster.apply(&file)?;
        within(NOT_IN_FORCE_WITHIN, "routes without guards", || self.route(&unguarded).ok())
    }

    fn mend(&self) -> Result<()> {
        self.ground.cluster.delete(&self.opt_out())?;
        match self.routes.take() {
            Some(routes) => self.route(&routes),
            None => Ok(()),
        }
    }
}
