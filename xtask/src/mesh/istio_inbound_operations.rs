//! The table of operations in front of a server's port: in its sidecar, and on a waypoint.
//!
//! Owns the operations and the resources of other teams. The order is that of a gateway's table.

use super::cluster::MODULE;
use super::gateway::{HOST, Kind, expect, within};
use super::here::replaced;
use super::istio::{Istiod, OTHER_HOST};
use super::istio_inbound::{Inbound, Scope};
use super::operations::{After, under_load};
use super::report::Report;
use super::tools::IstioTools;
use crate::failure::{Failure, Result};
use std::fs;
use std::time::Duration;

const PUSHED_WITHIN: Duration = Duration::from_secs(90);

/// The control plane of the proxy.
pub(super) struct Plane<'a> {
    pub(super) tools: &'a IstioTools,
    pub(super) istiod: &'a mut Istiod,
}

/// An operation, what follows for allowed calls, and how it is done.
type Operation<'a> = (&'a str, After, &'a dyn Fn() -> Result<()>);

impl Inbound<'_> {
    /// Runs the table of operations.
    pub(super) fn operations(&self, plane: &mut Plane<'_>, report: &mut Report) {
        self.changes(report);
        self.images(report);
        self.others(report);
        let mut control_plane =
            |operation: &str, run: &mut dyn FnMut(&mut Istiod) -> Result<()>| {
                let run = || run(plane.istiod);
                under_load(&self.gateway, self.name, operation, After::Flows, report, run);
            };
        control_plane("control plane gone", &mut |istiod| {
            istiod.stop();
            Ok(())
        });
        control_plane("control plane restarted", &mut |istiod| {
            let places = (self.ground.dir.as_path(), self.ground.logs.as_path());
            istiod.restart(plane.tools, &self.ground.cluster, places)
        });
    }

    /// Changes of the filter, and of what it needs.
    fn changes(&self, report: &mut Report) {
        let (cluster, parts) = (&self.ground.cluster, &self.parts);
        let corrected = || cluster.apply(&parts.filter);
        self.each(
            report,
            &[
                ("filter removed", After::Closed, &|| cluster.delete(&parts.filter)),
                ("filter applied again", After::Flows, &corrected),
                ("configuration changed", After::Flows, &|| self.edited(&[("4096", "2048")])),
                ("faulty configuration", After::Flows, &|| {
                    self.edited(&[("max_body_bytes", "no_such_field")])
                }),
                ("configuration corrected", After::Flows, &corrected),
                ("FAIL_OPEN with a faulty configuration", After::Flows, &|| {
                    self.edited(&[
                        ("FAIL_RELOAD", "FAIL_OPEN"),
                        ("max_body_bytes", "no_such_field"),
                    ])
                }),
                ("FAIL_RELOAD again", After::Flows, &corrected),
                ("what the filter needs removed", After::ClosedWithoutAudit, &|| {
                    cluster.delete(&parts.base)
                }),
                ("what the filter needs applied again", After::FlowsWithAuditAgain, &|| {
                    cluster.apply(&parts.base)
                }),
            ],
        );
    }

    /// Changes of the module's image.
    fn images(&self, report: &mut Report) {
        let ground = self.ground;
        let corrected = || ground.cluster.apply(&self.parts.filter);
        let (image, digest) = (ground.registry.image("1"), ground.digest.as_str());
        // Where an image is missing, the digest is another one, too: the agent already has the module of this one.
        let other = digest.replace('a', "b");
        self.each(
            report,
            &[
                ("upgrade to another image", After::Flows, &|| {
                    let newer = ground.newer_module()?;
                    let newer = ground.registry.push(&ground.tools, &newer, (MODULE, "2"))?;
                    self.edited(&[(&image, &ground.registry.image("2")), (digest, &newer)])
                }),
                ("image that is not there", After::Flows, &|| {
                    self.edited(&[(&image, &ground.registry.image("missing")), (digest, &other)])
                }),
                ("image corrected", After::Flows, &corrected),
                ("wrong digest", After::Flows, &|| self.edited(&[(digest, &other)])),
                ("digest corrected", After::Flows, &corrected),
            ],
        );
    }

    /// Resources of other teams for the same proxy.
    fn others(&self, report: &mut Report) {
        let removed = |name: &str| self.ground.cluster.delete(&self.ground.dir.join(name));
        self.each(
            report,
            &[
                ("another team's host with a route to the server", After::Flows, &|| {
                    self.other_host()
                }),
                ("another team's route in front of ours, by a header", After::Flows, &|| {
                    self.by_header()
                }),
                ("those routes removed", After::Flows, &|| {
                    removed("other-host.yaml")?;
                    removed("by-header.yaml")
                }),
                ("another team's AuthorizationPolicy denies the path", After::Closed, &|| {
                    self.ground.apply_own("denies.yaml", &self.denies())
                }),
                ("that policy removed", After::Flows, &|| removed("denies.yaml")),
                ("another EnvoyFilter takes the filter out", After::Closed, &|| {
                    self.ground.apply_own("taken-out-inbound.yaml", &self.taken_out())
                }),
                ("that EnvoyFilter removed", After::Flows, &|| removed("taken-out-inbound.yaml")),
            ],
        );
    }

    fn each(&self, report: &mut Report, operations: &[Operation<'_>]) {
        for (operation, after, run) in operations {
            under_load(&self.gateway, self.name, operation, *after, report, run);
        }
    }

    /// Adds a host whose route to the server requires no guard, and calls it.
    fn other_host(&self) -> Result<()> {
        let route = self.route_of_others("path: /demo/mcp");
        self.ground.apply_own(
            "other-host.yaml",
            &self.routes_of_others(
                "other-host",
                "VIRTUAL_HOST",
                &format!("{{operation: ADD, value: {{name: other, domains: [{OTHER_HOST}], routes: [{route}]}}}}"),
            ),
        )?;
        self.goes_nowhere("other-host", OTHER_HOST, &[])
    }

    /// Puts a route to the server before ours, for calls with a header of the other team.
    fn by_header(&self) -> Result<()> {
        let matches = "path: /demo/mcp, headers: [{name: x-team, string_match: {exact: a}}]";
        let route = self.route_of_others(matches);
        let patch = format!("{{operation: INSERT_FIRST, value: {route}}}");
        self.ground.apply_own(
            "by-header.yaml",
            &self.routes_of_others("by-header", "HTTP_ROUTE", &patch),
        )?;
        self.goes_nowhere("by-header", HOST, &[("x-team", "a")])
    }

    /// Checks that no call on a route of others reaches the server.
    fn goes_nowhere(&self, of: &str, host: &str, headers: &[(&str, &str)]) -> Result<()> {
        if !self.gateway.is_guarded {
            // Without guards, a call on their route is like any other: judged, and sent to the same server.
            return Ok(());
        }
        let call = |kind, label: &str| self.gateway.call_saying(host, kind, (label, 0), headers);
        // Until the route is active, the call is like any other.
        within(PUSHED_WITHIN, "the route of others", || {
            (!call(Kind::Allowed, &self.label(&format!("{of}-waits"))).result).then_some(())
        })?;
        let label = self.label(of);
        for kind in Kind::ALL {
            let reply = call(kind, &label);
            expect(!reply.result, "a refusal", &reply)?;
        }
        let reached = Kind::ALL.map(|kind| self.gateway.reached(&label, kind));
        expect(reached == [0; 3], "no call at the server", &reached)
    }

    fn route_of_others(&self, matches: &str) -> String {
        let cluster = &self.scope.routes;
        format!(
            "{{name: others, match: {{{matches}}}, route: {{cluster: \"{cluster}\", prefix_rewrite: /mcp, host_rewrite_literal: demo}}}}"
        )
    }

    fn routes_of_others(&self, name: &str, kind: &str, patch: &str) -> String {
        let Scope { filters, routes, .. } = &self.scope;
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: {name}, namespace: mcp}}\nspec:\n  \
             {filters}\n  priority: 90\n  configPatches:\n  - applyTo: {kind}\n    \
             match: {{context: SIDECAR_INBOUND, routeConfiguration: {{name: \"{routes}\"}}}}\n    patch: {patch}\n"
        )
    }

    fn denies(&self) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: denies, namespace: mcp}}\nspec:\n  \
             {}\n  action: DENY\n  rules: [{{to: [{{operation: {{paths: [/demo/mcp]}}}}]}}]\n",
            self.scope.policies
        )
    }

    fn taken_out(&self) -> String {
        let Scope { filters, listener, .. } = &self.scope;
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: taken-out, namespace: mcp}}\nspec:\n  \
             {filters}\n  priority: 90\n  configPatches:\n  - applyTo: HTTP_FILTER\n    \
             match: {{context: SIDECAR_INBOUND, listener: {{{listener}, filterChain: {{filter: \
             {{name: envoy.filters.network.http_connection_manager, subFilter: {{name: portcullis}}}}}}}}}}\n    \
             patch: {{operation: REMOVE}}\n"
        )
    }

    /// Applies the filter's part of the shipped file with changes.
    fn edited(&self, pairs: &[(&str, &str)]) -> Result<()> {
        let fault = |error: std::io::Error| Failure::new(error.to_string());
        let text = fs::read_to_string(&self.parts.filter).map_err(fault)?;
        let text = pairs.iter().try_fold(text, |text, (old, new)| replaced(&text, old, new))?;
        self.ground.apply_own("edited-inbound.yaml", &text)
    }
}
