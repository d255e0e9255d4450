//! `portcullis doctor` on an Istio gateway: no findings with the shipped files, and a line for each change that people
//! make to them.
//!
//! Owns the holes. Finding 11.8.

use super::doctor::{Doctor, Line};
use super::here::replaced;
use super::istio::OTHER_HOST;
use super::istio_trials::{Install, Mesh, taken_out};
use crate::failure::{Failure, Result};

const FILTER: &str = "envoyfilter.yaml";

/// A change, doctor's line about it, and the change that undoes it.
struct Hole<'a> {
    what: &'a str,
    make: &'a dyn Fn() -> Result<()>,
    line: Line<'a>,
    mend: &'a dyn Fn() -> Result<()>,
}

impl Mesh<'_> {
    /// Makes each hole, checks for doctor's line, and closes the hole before the next one.
    pub(super) fn doctor_names_holes(&self) -> Result<()> {
        let doctor = Doctor::of(self.ground, self.ingress.admin_url());
        doctor.is_content()?;
        let other = "doctor-other-team.yaml";
        let others_route = format!("envoy.route {OTHER_HOST}:{}/", self.gateway.port());
        let removed = |name: &str| self.ground.cluster.delete(&self.ground.dir.join(name));
        let ours_left_out = |text: String| {
            replaced(
                &text,
                &format!("web.example.com:{}", self.gateway.port()),
                &format!("mcp.example.com:{}", self.gateway.port()),
            )
        };
        let holes = [
            Hole {
                what: "a route of another team",
                make: &|| {
                    self.ground
                        .apply_own(other, &self.host_without_guard("doctor-other", OTHER_HOST))
                },
                line: (&others_route, "wants no guard", "bad"),
                mend: &|| removed(other),
            },
            Hole {
                what: "FAIL_OPEN",
                make: &|| {
                    self.apply_edited(FILTER, |text| replaced(&text, "FAIL_RELOAD", "FAIL_OPEN"))
                },
                line: ("envoy.failure_policy", "FAIL_OPEN", "bad"),
                mend: &|| self.apply(FILTER),
            },
            Hole {
                what: "the filter removed",
                make: &|| self.ground.cluster.delete(&self.file(FILTER)?),
                line: ("envoy.module", "no listener runs the filter", "bad"),
                mend: &|| self.apply(FILTER),
            },
            Hole {
                what: "the filter taken out by another EnvoyFilter",
                make: &|| self.ground.apply_own("doctor-taken-out.yaml", &taken_out(Install::Hold)),
                line: ("envoy.module", "no listener runs the filter", "bad"),
                mend: &|| removed("doctor-taken-out.yaml"),
            },
            Hole {
                what: "headers not held",
                make: &|| {
                    self.apply_edited(FILTER, |text| {
                        replaced(
                            &text,
                            "allow_on_headers_stop_iteration: true",
                            "allow_on_headers_stop_iteration: false",
                        )
                    })
                },
                line: ("envoy.configuration", "does not hold headers", "bad"),
                mend: &|| self.apply(FILTER),
            },
            Hole {
                what: "our own host left out",
                make: &|| self.apply_edited("other-hosts.yaml", ours_left_out),
                line: ("envoy.route mcp.example.com:", "the filter is off here", "bad"),
                mend: &|| self.ground.cluster.delete(&self.file("other-hosts.yaml")?),
            },
            Hole {
                what: "retries",
                make: &|| {
                    self.apply_edited("routes.yaml", |text| {
                        replaced(&text, "attempts: 0", "attempts: 3")
                    })
                },
                line: ("envoy.route mcp.example.com:", "it retries", "warning"),
                mend: &|| self.apply("routes.yaml"),
            },
            Hole {
                what: "a route without its guard",
                make: &|| {
                    self.apply_edited("routes.yaml", |text| {
                        replaced(
                            &text,
                            "      headers: {x-portcullis-guard: {exact: ",
                            "      headers: {x-other: {exact: ",
                        )
                    })
                },
                line: ("envoy.route mcp.example.com:", "wants no guard", "bad"),
                mend: &|| self.apply("routes.yaml"),
            },
            Hole {
                what: "small buffers",
                make: &|| {
                    self.apply_edited("base.yaml", |text| {
                        replaced(
                            &text,
                            "per_connection_buffer_limit_bytes: 4194304",
                            "per_connection_buffer_limit_bytes: 32768",
                        )
                    })
                },
                line: ("envoy.listener", "per_connection_buffer_limit_bytes is 32768", "warning"),
                mend: &|| self.apply("base.yaml"),
            },
        ];
        let mut wrong = Vec::new();
        for Hole { what, make, line, mend } in holes {
            let named = make().and_then(|()| doctor.names(line));
            let mended = mend().and_then(|()| doctor.is_content());
            if let Err(failure) = named.and(mended) {
                wrong.push(format!("{what}: {failure}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::new(wrong.join("\n     "))) }
    }
}
