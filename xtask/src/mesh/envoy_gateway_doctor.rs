//! `portcullis doctor` on Envoy Gateway's Envoy: no findings with the shipped files, and a line for each change that
//! people make to them and to the resources around them.
//!
//! Owns the holes. Where admission.yaml denies one, the change goes to Envoy Gateway only.

use super::doctor::{Doctor, Line};
use super::envoy_gateway_operations::{LISTENER, policy, route_of_others, without};
use super::envoy_gateway_trials::Mesh;
use super::here::replaced;
use crate::failure::{Failure, Result};
use portcullis_stack::ports::free_port;

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
        let doctor = Doctor::of(self.ground, self.controller.admin_url()?);
        doctor.is_content()?;
        let whole = || self.apply("gateway.yaml");
        let lacking = |kind: &str| self.unadmitted("gateway.yaml", |text| without(&text, &[kind]));
        let specific = |kind: &str, rule: &str, more: &str| {
            self.write("doctor.yaml", &policy(kind, rule, more))
        };
        let theirs = |filters: &str| {
            let path = "{path: {type: Exact, value: /demo/mcp}}";
            self.write("doctor.yaml", &route_of_others("other.example.com", path, filters))
        };
        let mirror = "    filters: [{type: RequestMirror, requestMirror: {backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: demo}}}]\n";
        let retries =
            "  retry: {numRetries: 3, retryOn: {httpStatusCodes: [500, 503], triggers: [reset]}}\n";
        let removed = || self.remove("doctor.yaml");
        let holes = [
            Hole {
                what: "a more specific, empty policy on the rule without a server",
                make: &|| specific("EnvoyExtensionPolicy", ", sectionName: demo-unjudged", ""),
                line: ("envoy.route ", "the filter is off here", "bad"),
                mend: &removed,
            },
            Hole {
                what: "a more specific, empty policy on the route",
                make: &|| specific("EnvoyExtensionPolicy", "", ""),
                // Of the only route: Envoy Gateway leaves the filter out of the listener then.
                line: ("envoy.module", "no listener runs the filter", "bad"),
                mend: &removed,
            },
            Hole {
                what: "retries by a more specific policy",
                make: &|| specific("BackendTrafficPolicy", ", sectionName: demo", retries),
                line: ("envoy.route ", "it retries", "warning"),
                mend: &removed,
            },
            Hole {
                what: "a route of another team",
                make: &|| theirs(""),
                line: ("envoy.route ", "wants no guard", "bad"),
                mend: &removed,
            },
            Hole {
                what: "a mirror",
                make: &|| theirs(mirror),
                line: ("envoy.route ", "wants no guard", "bad"),
                mend: &removed,
            },
            Hole {
                what: "failOpen",
                make: &|| {
                    self.unadmitted("gateway.yaml", |text| {
                        replaced(&text, "failOpen: false", "failOpen: true")
                    })
                },
                line: ("envoy.listener ", "an update was refused", "warning"),
                mend: &whole,
            },
            Hole {
                what: "no EnvoyExtensionPolicy",
                make: &|| lacking("EnvoyExtensionPolicy"),
                line: ("envoy.module", "no listener runs the filter", "bad"),
                mend: &whole,
            },
            Hole {
                what: "no EnvoyPatchPolicy",
                make: &|| lacking("EnvoyPatchPolicy"),
                line: ("envoy.configuration", "does not hold headers", "bad"),
                mend: &whole,
            },
            Hole {
                what: "no ClientTrafficPolicy",
                make: &|| lacking("ClientTrafficPolicy"),
                line: ("envoy.listener ", "less than max_body_bytes", "warning"),
                mend: &whole,
            },
            Hole {
                what: "a listener without patches",
                make: &|| {
                    let port = free_port()?;
                    self.unadmitted("gateway.yaml", |text| {
                        let other = format!("  - {{name: other, protocol: HTTP, port: {port}}}\n");
                        replaced(&text, LISTENER, &format!("{other}{LISTENER}"))
                    })
                },
                line: ("envoy.configuration", "does not hold headers", "bad"),
                mend: &whole,
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
