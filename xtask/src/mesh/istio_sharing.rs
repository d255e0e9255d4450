//! A shared gateway: the shipped files for a port of their own, and hosts and routes that the filter leaves out.
//!
//! Owns the resources of the other teams.

use super::doctor::Doctor;
use super::gateway::{Gateway, HOST, Kind, expect, within};
use super::here::replaced;
use super::istio::NAMESPACE;
use super::istio_trials::{Mesh, PUSHED_WITHIN};
use crate::failure::Result;
use portcullis_stack::ports::{free_port, loopback};

/// In other-hosts.yaml.
const SHOP_HOST: &str = "shop.example.com";

/// A host with two routes to a server that is not an MCP server for the filter.
fn shop(port: &str, gateway: &str) -> String {
    let route = |name: &str, path: &str| {
        format!(
            "  - name: {name}\n    match: [{{uri: {{prefix: {path}}}}}]\n    rewrite: {{uri: /mcp, authority: demo}}\n    \
             route: [{{destination: {{host: demo.mcp.svc.cluster.local, port: {{number: 8080}}}}}}]\n"
        )
    };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {gateway}, namespace: {NAMESPACE}}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers:\n  - bind: 127.0.0.1\n    \
         port: {{number: {port}, name: http-{gateway}, protocol: HTTP}}\n    hosts: [{SHOP_HOST}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {gateway}, namespace: {NAMESPACE}}}\nspec:\n  \
         hosts: [{SHOP_HOST}]\n  gateways: [{gateway}]\n  http:\n{}{}",
        route("assets", "/assets"),
        route("rest", "/"),
    )
}

impl Mesh<'_> {
    /// Leaves out one route of another host; the filter still judges the rest of that host.
    pub(super) fn leaves_other_routes_out(&self) -> Result<()> {
        let file = "shop.yaml";
        self.ground.apply_own(file, &shop(self.gateway.port(), "shop"))?;
        let at = |path: &str| {
            let url = format!("{}{path}", self.gateway.url);
            portcullis_stack::http::send("POST", &url, &[("host", SHOP_HOST)], b"{}")
        };
        let judged = |path: &str| {
            at(path).map(|reply| reply.header("x-portcullis-request-id").is_some()).unwrap_or(false)
        };
        within(PUSHED_WITHIN, "the filter's refusal on both routes", || {
            (judged("/assets/a") && judged("/rest")).then_some(())
        })?;
        self.apply("other-hosts.yaml")?;
        within(PUSHED_WITHIN, "a route that is left out", || (!judged("/assets/a")).then_some(()))?;
        expect(judged("/rest"), "a refusal on the other route", &at("/rest").map(|it| it.status))?;
        let reply = self.gateway.call(Kind::NoKey, "istio-shop", 0);
        expect(reply.judged && !reply.result, "a refusal on our own host", &reply)?;
        self.ground.cluster.delete(&self.file("other-hosts.yaml")?)?;
        self.ground.cluster.delete(&self.ground.dir.join(file))
    }

    /// Applies the files with their lines for a port of their own: another port of the gateway gets no part of ours,
    /// and our host has no route there.
    pub(super) fn has_a_port_of_its_own(&self) -> Result<()> {
        let other = free_port()?;
        let name = "others-port.yaml";
        self.ground.apply_own(name, &shop(&other.to_string(), "others-port"))?;
        let there = Gateway { url: format!("http://{}", loopback(other)), ..self.gateway.clone() };
        let label = "istio-own-port";
        let call = |number| there.call_host(SHOP_HOST, Kind::NoKey, label, number);
        within(PUSHED_WITHIN, "the filter's refusal on the other port", || {
            call(0).judged.then_some(())
        })?;
        let files = ["base.yaml", "envoyfilter.yaml", "routes.yaml"];
        for file in files {
            self.apply_edited(file, |text| {
                let text = text.replace("\n#port ", "\n");
                replaced(&text, "portNumber: 8080", &format!("portNumber: {}", self.gateway.port()))
            })?;
        }
        within(PUSHED_WITHIN, "a call on the other port that nothing judges", || {
            let reply = call(1);
            (!reply.judged && there.reached(label, Kind::NoKey) > 0).then_some(())
        })?;
        let ours = ["portcullis", "4194304", "255.255.255.255"];
        within(PUSHED_WITHIN, "a listener of others with nothing of ours", || {
            let theirs = listener(&self.ingress.admin("config_dump").ok()?.json(), other)?;
            (!ours.iter().any(|text| theirs.contains(text))).then_some(())
        })?;
        // On our port nothing changes; on the other port our host has no route.
        for (kind, result) in [(Kind::Allowed, true), (Kind::Danger, false), (Kind::NoKey, false)] {
            let reply = self.gateway.call(kind, label, 3);
            expect(reply.judged && reply.result == result, "a judged call on our port", &reply)?;
            let reply = there.call_host(HOST, kind, "istio-own-port-there", 4);
            expect(reply.status == 404 && !reply.judged, "404 on the other port", &reply)?;
        }
        let doctor = Doctor::of(self.ground, self.ingress.admin_url());
        // The trial's other host leads to the server: that is a hole, and doctor names it.
        doctor.names((&format!("envoy.route {SHOP_HOST}:{other}/"), "wants no guard", "bad"))?;
        self.ground.cluster.delete(&self.ground.dir.join(name))?;
        let content = doctor.is_content();
        for file in files {
            self.apply(file)?;
        }
        content
    }
}

/// The active listener of a port.
fn listener(dump: &serde_json::Value, port: u16) -> Option<String> {
    let configs = dump.get("configs")?.as_array()?;
    let listeners = configs.iter().filter_map(|config| config.get("dynamic_listeners")?.as_array());
    let mut states = listeners.flatten().filter_map(|it| it.pointer("/active_state/listener"));
    let place = "/address/socket_address/port_value";
    let found = states
        .find(|it| it.pointer(place).and_then(serde_json::Value::as_u64) == Some(port.into()));
    found.map(serde_json::Value::to_string)
}
