//! The table of operations on Envoy Gateway: changes to a running gateway, failures, and changes by other teams.
//!
//! Owns the operations. Where admission.yaml denies one, the change goes to Envoy Gateway only, as in a cluster without
//! these policies.

use super::beside::{TlsFront, ext_authz, http3_client, idle_module};
use super::cluster::{MODULE, succeeded};
use super::envoy_gateway_trials::{Mesh, NAME};
use super::gateway::{Gateway, HOST, Kind, within};
use super::here::replaced;
use super::operations::{After, under_load};
use super::report::Report;
use crate::failure::{Failure, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::http;
use portcullis_stack::ports::{free_port, loopback};
use serde_json::json;
use std::fs;
use std::time::Duration;

/// From a file to Envoy's configuration, on a busy machine.
const PUSHED_WITHIN: Duration = Duration::from_secs(90);
pub(super) const LISTENER: &str = "  - {name: http, protocol: HTTP";
const ANOTHER_ROUTE: &str = "other.example.com";
/// Makes calls of all kinds at a listener with TLS, without verifying its certificate; prints a line with each status.
const CALL_WITH_TLS: &str = "import http.client, json, ssl, sys
port, host, key, label = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
for kind, tool in (('allowed', 'query_users'), ('danger', 'delete_user'), ('nokey', 'query_users')):
    c = http.client.HTTPSConnection('127.0.0.1', port, timeout=20, context=ssl._create_unverified_context())
    m = {'jsonrpc': '2.0', 'id': f'{label}-{kind}-0', 'method': 'tools/call', 'params': {'name': tool, 'arguments': {'limit': 1}}}
    h = {'host': host, 'content-type': 'application/json', 'accept': 'application/json, text/event-stream', 'user-agent': f'mesh-{label}-{kind}'}
    if kind != 'nokey': h['authorization'] = 'Bearer ' + key
    c.request('POST', '/demo/mcp', json.dumps(m), h)
    r = c.getresponse(); b = r.read()
    print(kind, r.status, b'\"result\"' in b)
";

impl Mesh<'_> {
    /// The steps before a working first install: a gateway without the filter, and an install with a mistake.
    pub(super) fn first_install(&self, report: &mut Report) {
        let gateway = &self.gateway;
        report.trial(NAME, "a gateway without the filter sends a server nothing", || {
            self.unadmitted("gateway.yaml", |text| {
                without(&text, &["EnvoyExtensionPolicy", "EnvoyPatchPolicy"])
            })?;
            self.apply("routes.yaml")?;
            within(PUSHED_WITHIN, "the rule that answers what is not judged", || {
                (gateway.call(Kind::NoKey, "eg-unguarded", 0).status == 503).then_some(())
            })?;
            let url = gateway.url.clone();
            self.refuses_all(&url, "eg-unguarded", &[503])
        });
        under_load(
            gateway,
            NAME,
            "first install, faulty configuration",
            After::Closed,
            report,
            || {
                self.unadmitted("gateway.yaml", |text| {
                    replaced(&text, "max_body_bytes", "no_such_field")
                })
            },
        );
        under_load(gateway, NAME, "install on a running gateway", After::Flows, report, || {
            self.apply("gateway.yaml")
        });
    }

    /// Runs the table of operations.
    pub(super) fn operations(&mut self, report: &mut Report) {
        self.changes(report);
        self.images(report);
        self.holes(report);
        self.others(report);
        self.merged(report);
        let gateway = self.gateway.clone();
        // The audit log is Envoy's standard output, and its file starts empty again.
        let after = After::FlowsWithAuditAgain;
        under_load(&gateway, NAME, "controller and Envoy restarted", after, report, || {
            let (tools, logs) = (&self.tools, &self.ground.logs);
            self.controller.restart(tools, logs)
        });
    }

    /// Changes of the filter's configuration, and removals of the filter.
    fn changes(&self, report: &mut Report) {
        let corrected = || self.apply("gateway.yaml");
        let edited = |old: &str, new: &str| {
            self.apply_edited("gateway.yaml", |text| replaced(&text, old, new))
        };
        self.operate("configuration changed", After::Flows, report, || edited("4096", "2048"));
        self.operate("faulty configuration", After::Either, report, || {
            edited("max_body_bytes", "no_such_field")
        });
        self.operate("configuration corrected", After::Flows, report, corrected);
        // Envoy rejects the listener, since the patches set failure_policy, and keeps the last good one.
        self.operate(
            "failOpen with a faulty configuration (without admission)",
            After::Either,
            report,
            || {
                self.unadmitted("gateway.yaml", |text| {
                    let open = replaced(&text, "failOpen: false", "failOpen: true")?;
                    replaced(&open, "max_body_bytes", "no_such_field")
                })
            },
        );
        self.operate("failOpen taken back", After::Flows, report, corrected);
        self.operate("extension policy removed", After::Closed, report, || {
            self.unadmitted("gateway.yaml", |text| without(&text, &["EnvoyExtensionPolicy"]))
        });
        self.operate("extension policy applied again", After::Flows, report, corrected);
        self.operate("patch policy removed", After::Closed, report, || {
            self.unadmitted("gateway.yaml", |text| without(&text, &["EnvoyPatchPolicy"]))
        });
        self.operate("patch policy applied again", After::Flows, report, corrected);
        self.operate("client traffic policy removed", After::Either, report, || {
            self.unadmitted("gateway.yaml", |text| without(&text, &["ClientTrafficPolicy"]))
        });
        self.operate("client traffic policy applied again", After::Flows, report, corrected);
    }

    /// Changes of the module's image.
    fn images(&self, report: &mut Report) {
        let ground = self.ground;
        let corrected = || self.apply("gateway.yaml");
        let edited = |pairs: &[(&str, &str)]| {
            self.apply_edited("gateway.yaml", |text| {
                pairs.iter().try_fold(text, |text, (old, new)| replaced(&text, old, new))
            })
        };
        let (there, digest) = (ground.registry.image("1"), ground.digest.as_str());
        let other_digest = digest.replace('a', "b");
        self.operate("upgrade to another image", After::Flows, report, || {
            let newer = ground.newer_module()?;
            let digest_of_newer = ground.registry.push(&ground.tools, &newer, (MODULE, "2"))?;
            edited(&[(&there, &ground.registry.image("2")), (digest, &digest_of_newer)])
        });
        self.operate("image that is not there", After::Either, report, || {
            edited(&[(&there, &ground.registry.image("missing")), (digest, &other_digest)])
        });
        self.operate("image corrected", After::Flows, report, corrected);
        self.operate("wrong digest", After::Either, report, || edited(&[(digest, &other_digest)]));
        self.operate("digest corrected", After::Flows, report, corrected);
        self.operate("registry that does not answer", After::Either, report, || {
            // No program accepts there: the kernel completes connections, and no data follows.
            let silent = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| Ok((listener.local_addr()?, listener)))
                .map_err(|error| Failure::new(format!("could not listen: {error}")))?;
            let image = format!("{}/portcullis:1", silent.0);
            edited(&[(&there, &image), (digest, &other_digest)])?;
            std::thread::sleep(Duration::from_secs(15));
            Ok(())
        });
        self.operate("registry corrected", After::Flows, report, corrected);
    }

    /// Listeners that the patches do not cover, and patches that do not find their listener.
    fn holes(&self, report: &mut Report) {
        let corrected = || self.apply("gateway.yaml");
        let with_listener = |listener: String| {
            self.unadmitted("gateway.yaml", |text| {
                replaced(&text, LISTENER, &format!("{listener}{LISTENER}"))
            })
        };
        for (operation, label) in [
            ("a listener put first, unpatched (without admission)", "eg-first-listener"),
            ("the same once more, on another port", "eg-other-listener"),
        ] {
            self.operate(operation, After::Flows, report, || {
                let port = free_port()?;
                with_listener(format!("  - {{name: other, protocol: HTTP, port: {port}}}\n"))?;
                let url = format!("http://{}", loopback(port));
                self.served(&url)?;
                self.refuses_all(&url, label, &[401, 503])
            });
        }
        self.operate(
            "an HTTPS listener, unpatched (without admission)",
            After::Flows,
            report,
            || {
                let port = free_port()?;
                self.write("https-secret.yaml", &self.https_secret()?)?;
                with_listener(https_listener(port))?;
                let label = "eg-https";
                let said = within(PUSHED_WITHIN, "the listener with TLS", || {
                    self.call_with_tls(port, label).ok()
                })?;
                if said.contains("True") {
                    return Err(Failure::new(format!("a call was answered: {said}")));
                }
                self.refuses_with_tls(label, &Kind::ALL)
            },
        );
        self.operate(
            "an HTTPS listener with its patches (without admission)",
            After::Flows,
            report,
            || {
                let port = free_port()?;
                self.unadmitted("gateway.yaml", |text| {
                    let listener = https_listener(port);
                    with_patches_of_https(&replaced(
                        &text,
                        LISTENER,
                        &format!("{listener}{LISTENER}"),
                    )?)
                })?;
                within(PUSHED_WITHIN, "an allowed call with TLS", || {
                    self.call_with_tls(port, "eg-https-patched")
                        .ok()?
                        .contains("allowed 200 True")
                        .then_some(())
                })?;
                self.refuses_with_tls("eg-https-patched", &[Kind::Danger, Kind::NoKey])
            },
        );
        self.operate("HTTP/3 with its patches (without admission)", After::Flows, report, || {
            let port = free_port()?;
            self.unadmitted("routes.yaml", |text| self.sealed(text, with_seal_of_https))?;
            self.unadmitted("gateway.yaml", |text| {
                let listener = https_listener(port);
                let text = replaced(&text, LISTENER, &format!("{listener}{LISTENER}"))?;
                let http2 = "  http2: {initialStreamWindowSize";
                with_patches_of_https(&replaced(&text, http2, &format!("  http3: {{}}\n{http2}"))?)
            })?;
            let (_client, address) = http3_client(self.ground, port)?;
            let gateway = Gateway { url: format!("http://{address}"), ..self.gateway.clone() };
            let label = "eg-http3";
            within(PUSHED_WITHIN, "an allowed call by HTTP/3", || {
                gateway.call(Kind::Allowed, label, 0).result.then_some(())
            })?;
            for kind in [Kind::Danger, Kind::NoKey] {
                let reply = gateway.call(kind, label, 1);
                if reply.result || !reply.judged || gateway.reached(label, kind) > 0 {
                    return Err(Failure::new(format!("by HTTP/3: {reply:?}")));
                }
            }
            Ok(())
        });
        self.operate("both removed", After::Flows, report, || {
            self.apply("routes.yaml")?;
            corrected()
        });
        self.operate("the listener renamed (without admission)", After::Closed, report, || {
            self.unadmitted("gateway.yaml", |text| {
                replaced(&text, "{name: http, protocol", "{name: renamed, protocol")
            })
        });
        self.operate("its name corrected", After::Flows, report, corrected);
        self.operate("patches with a wrong listener's name", After::Closed, report, || {
            self.apply_edited("gateway.yaml", |text| {
                replaced(&text, "name: mcp/mcp/http", "name: mcp/mcp/htp")
            })
        });
        self.operate("that name corrected", After::Flows, report, corrected);
    }

    /// Resources and policies of other teams.
    fn others(&self, report: &mut Report) {
        self.operate(
            "an empty, more specific policy on the route (without admission)",
            After::Closed,
            report,
            || self.write("specific.yaml", &policy("EnvoyExtensionPolicy", "", "")),
        );
        // The filter is on for the rule without a server, and a call matches that rule first.
        self.operate("the same on the rule with the server alone", After::Flows, report, || {
            self.write("specific.yaml", &policy("EnvoyExtensionPolicy", ", sectionName: demo", ""))
        });
        self.operate("the same on the rule without a server", After::Closed, report, || {
            let rule = ", sectionName: demo-unjudged";
            self.write("specific.yaml", &policy("EnvoyExtensionPolicy", rule, ""))
        });
        self.operate("that policy removed", After::Flows, report, || self.remove("specific.yaml"));
        self.operate("a more specific policy with retries", After::Flows, report, || {
            self.write(
                "retries.yaml",
                &policy("BackendTrafficPolicy", ", sectionName: demo", "  retry: {numRetries: 3, retryOn: {httpStatusCodes: [500, 503], triggers: [reset]}}\n"),
            )
        });
        self.operate("that policy removed, too", After::Flows, report, || {
            self.remove("retries.yaml")
        });
        self.operate(
            "another team's route with the same path, unguarded (without admission)",
            After::Flows,
            report,
            || self.other_team("eg-other-team", ""),
        );
        self.operate("that route with a mirror (without admission)", After::Flows, report, || {
            let mirror = "    filters: [{type: RequestMirror, requestMirror: {backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: demo}}}]\n";
            self.other_team("eg-mirror", mirror)
        });
        self.operate(
            "that route on our host, by a header (without admission)",
            After::Flows,
            report,
            || self.by_header(),
        );
        self.operate("that route removed", After::Flows, report, || self.remove("other-team.yaml"));
        self.beside(report);
    }

    /// Third-party filters on the same gateway.
    fn beside(&self, report: &mut Report) {
        let server = ext_authz(&self.ground.tools, &self.ground.logs);
        self.operate("an ext_authz filter in front that allows", After::Flows, report, || {
            let address = server.as_ref().map_err(|failure| Failure::new(failure.to_string()))?.1;
            self.write("ext-authz.yaml", &ext_authz_policy(address.port()))
        });
        self.operate("its server gone", After::Closed, report, || {
            if let Ok((process, _)) = &server {
                process.stop();
            }
            Ok(())
        });
        self.operate("the ext_authz policy removed", After::Flows, report, || {
            self.remove("ext-authz.yaml")
        });
        self.operate("another Wasm filter in front", After::Flows, report, || {
            let ground = self.ground;
            let module = ground.dir.join("idle.wasm");
            fs::write(&module, idle_module()).map_err(|error| Failure::new(error.to_string()))?;
            let digest = ground.registry.push(&ground.tools, &module, ("idle", "1"))?;
            let image = ground.registry.image_of("idle", "1");
            self.apply_edited("gateway.yaml", |text| {
                let ours = "  wasm:\n  - name: portcullis\n";
                let other = format!(
                    "  wasm:\n  - name: idle\n    rootID: idle\n    failOpen: false\n    code: {{type: Image, image: {{url: {image}, sha256: \"{digest}\"}}}}\n  \
                     - name: portcullis\n"
                );
                replaced(&text, ours, &other)
            })
        });
        self.operate("that filter removed", After::Flows, report, || self.apply("gateway.yaml"));
        // It has to run as long as the gateway uses it.
        let mut tls = None;
        self.operate("mTLS to Redis and Vault", After::Flows, report, || {
            let front = tls.insert(TlsFront::start(self.ground, "envoy-gateway")?);
            self.apply_edited("gateway.yaml", |text| {
                let text = front.in_the_way(self.ground, &text)?;
                // A new VM of the filter reads the credential again.
                replaced(&text, "4096", "1024")
            })?;
            within(PUSHED_WITHIN, "a client with a certificate at Redis and OpenBao", || {
                front.is_used().then_some(())
            })
        });
        self.operate("plaintext to both again", After::Flows, report, || {
            self.apply("gateway.yaml")
        });
    }

    /// One Envoy for all Gateways of the class: then the patches target the class.
    fn merged(&self, report: &mut Report) {
        let after = After::FlowsWithAuditAgain;
        self.operate("mergeGateways (without admission)", after, report, || {
            self.write("here.yaml", &of_the_class(&self.patches_for_here())?)?;
            self.unadmitted("routes.yaml", |text| self.sealed(text, of_the_class))?;
            self.unadmitted("gateway.yaml", |text| {
                let proxy = "metadata: {name: portcullis, namespace: mcp}\nspec:\n  # The framing";
                let merged = proxy.replace("spec:\n", "spec:\n  mergeGateways: true\n");
                of_the_class(&replaced(&text, proxy, &merged)?)
            })
        });
        self.operate("a Gateway of its own again", after, report, || {
            self.write("here.yaml", &self.patches_for_here())?;
            self.apply("routes.yaml")?;
            self.apply("gateway.yaml")
        });
    }

    /// routes.yaml with a change of its seal. Without guards it has none.
    fn sealed(&self, text: String, change: fn(&str) -> Result<String>) -> Result<String> {
        if self.gateway.is_guarded { change(&text) } else { Ok(text) }
    }

    /// Adds a route before ours to the same server, for requests with certain headers.
    fn by_header(&self) -> Result<()> {
        let matches = "{path: {type: Exact, value: /demo/mcp}, headers: [{name: x-team, value: a}, {name: x-more, value: b}]}";
        self.write("other-team.yaml", &route_of_others(HOST, matches, ""))?;
        let (gateway, label) = (&self.gateway, "eg-by-header");
        if !gateway.is_guarded {
            // Without guards, a call on their route is like any other: judged, and sent to the same server.
            return Ok(());
        }
        let headers = [("x-team", "a"), ("x-more", "b")];
        let call = |kind, number: &str| {
            gateway.send(HOST, kind, label, (&message(kind, label, number), &headers))
        };
        // Until the route is active, the headers have no effect, and the call is like any other.
        within(PUSHED_WITHIN, "the route that matches on headers", || {
            (!call(Kind::Allowed, "0").result).then_some(())
        })?;
        let before = gateway.reached(label, Kind::Allowed);
        for kind in Kind::ALL {
            let reply = call(kind, "1");
            if reply.result {
                return Err(Failure::new(format!("a call by it was answered: {reply:?}")));
            }
        }
        let after = gateway.reached(label, Kind::Allowed);
        let others = gateway.reached(label, Kind::Danger) + gateway.reached(label, Kind::NoKey);
        if (before, others) == (after, 0) {
            return Ok(());
        }
        Err(Failure::new(format!("{others} danger and nokey calls by it reached the server")))
    }

    fn operate(
        &self,
        operation: &str,
        after: After,
        report: &mut Report,
        run: impl FnOnce() -> Result<()>,
    ) {
        under_load(&self.gateway, NAME, operation, after, report, run);
    }

    /// Adds another team's route to the same server, on the same Gateway, for another host; `filters` are those of its
    /// rule.
    fn other_team(&self, label: &str, filters: &str) -> Result<()> {
        let path = "{path: {type: Exact, value: /demo/mcp}}";
        self.write("other-team.yaml", &route_of_others(ANOTHER_ROUTE, path, filters))?;
        // The status is 404 until the host is active.
        within(PUSHED_WITHIN, "the other host", || {
            (self.gateway.call_host(ANOTHER_ROUTE, Kind::NoKey, label, 0).status != 404)
                .then_some(())
        })?;
        self.gateway.refuses(ANOTHER_ROUTE, label, &[])
    }

    /// Waits until a server answers there.
    fn served(&self, url: &str) -> Result<()> {
        within(PUSHED_WITHIN, "the other listener", || http::get(url).is_ok().then_some(()))
    }

    /// Checks that no call of any kind reaches a server at a listener that lacks a part of the filter's setup.
    fn refuses_all(&self, url: &str, label: &str, statuses: &[u16]) -> Result<()> {
        let gateway = Gateway { url: url.to_owned(), ..self.gateway.clone() };
        gateway.refuses(HOST, label, statuses)
    }

    fn call_with_tls(&self, port: u16, label: &str) -> Result<String> {
        let mut call = self.ground.tools.python_command();
        call.args(["-c", CALL_WITH_TLS, &port.to_string(), HOST, &self.gateway.key, label]);
        succeeded("python3", call)
    }

    fn refuses_with_tls(&self, label: &str, kinds: &[Kind]) -> Result<()> {
        let reached: usize = kinds.iter().map(|kind| self.gateway.reached(label, *kind)).sum();
        if reached == 0 {
            return Ok(());
        }
        Err(Failure::new(format!("{reached} calls with TLS reached the server")))
    }

    fn https_secret(&self) -> Result<String> {
        let server = &self.ground.stack.certificates.server;
        let read = |file: &std::path::Path| {
            let bytes = fs::read(file).map_err(|error| {
                Failure::new(format!("could not read {}: {error}", file.display()))
            })?;
            Ok::<_, Failure>(STANDARD.encode(bytes))
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "https", "namespace": "mcp"},
            "data": {"tls.crt": read(&server.certificate)?, "tls.key": read(&server.private_key)?},
        });
        Ok(secret.to_string())
    }
}

fn https_listener(port: u16) -> String {
    let tls = "{certificateRefs: [{name: https}]}";
    format!("  - {{name: https, protocol: HTTPS, port: {port}, tls: {tls}}}\n")
}

/// Adds the listener's patches for the listener with TLS. They are the last ones in the file.
fn with_patches_of_https(text: &str) -> Result<String> {
    let patches = "  # The name of a listener is";
    let (_, of_http) = text
        .split_once(patches)
        .ok_or_else(|| Failure::new(format!("no {patches:?} in gateway.yaml")))?;
    let of_https = of_http.replace("mcp/mcp/http", "mcp/mcp/https");
    let of_quic = of_http.replace("mcp/mcp/http", "mcp/mcp/https-quic");
    Ok(format!("{}\n{patches}{of_https}\n{patches}{of_quic}", text.trim_end()))
}

/// Adds the seal of routes.yaml for the listener with TLS. HTTP/3 has a listener and no routes of its own.
fn with_seal_of_https(text: &str) -> Result<String> {
    let listener = "  - type: type.googleapis.com/envoy.config.listener.v3.Listener\n";
    let routes = "  # Each rule of an HTTPRoute has a cluster";
    let absent = |what: &str| Failure::new(format!("no {what:?} in routes.yaml"));
    let (_, patches) = text.split_once(listener).ok_or_else(|| absent(listener))?;
    let (filter, _) = patches.split_once(routes).ok_or_else(|| absent(routes))?;
    let of_https = patches.replace("mcp/mcp/http", "mcp/mcp/https");
    let of_quic = filter.replace("mcp/mcp/http", "mcp/mcp/https-quic");
    Ok(format!("{}\n{listener}{of_https}{listener}{of_quic}", text.trim_end()))
}

/// Its patches, for every Gateway of the class.
fn of_the_class(text: &str) -> Result<String> {
    replaced(
        text,
        "targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: mcp}",
        "targetRef: {group: gateway.networking.k8s.io, kind: GatewayClass, name: portcullis}",
    )
}

/// Another team's rule for the demo's server.
pub(super) fn route_of_others(host: &str, matches: &str, filters: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: other-team, namespace: mcp}}\nspec:\n  \
         parentRefs: [{{name: mcp}}]\n  hostnames: [{host}]\n  rules:\n  - matches: [{matches}]\n{filters}    \
         backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: demo}}]\n"
    )
}

fn message(kind: Kind, label: &str, number: &str) -> String {
    let (name, tool) = match kind {
        Kind::Allowed => ("allowed", "query_users"),
        Kind::Danger => ("danger", "delete_user"),
        Kind::NoKey => ("nokey", "query_users"),
    };
    json!({"jsonrpc": "2.0", "id": format!("{label}-{name}-{number}"), "method": "tools/call",
        "params": {"name": tool, "arguments": {"limit": 1}}})
    .to_string()
}

fn ext_authz_policy(port: u16) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {{name: ext-authz, namespace: mcp}}\nspec:\n  \
         endpoints: [{{ip: {{address: 127.0.0.1, port: {port}}}}}]\n---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {{name: ext-authz, namespace: mcp}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: mcp}}]\n  \
         extAuth: {{failOpen: false, http: {{backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: ext-authz}}]}}}}\n"
    )
}

/// A policy on the demo's route, or on one rule of it.
pub(super) fn policy(kind: &str, rule: &str, more: &str) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: {kind}\nmetadata: {{name: specific-{}, namespace: mcp}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: demo{rule}}}]\n{more}",
        kind.to_ascii_lowercase()
    )
}

/// `text` without its documents of these kinds; fails when one is missing.
pub(super) fn without(text: &str, kinds: &[&str]) -> Result<String> {
    let lines: Vec<String> = kinds.iter().map(|kind| format!("kind: {kind}")).collect();
    let (gone, kept): (Vec<&str>, Vec<&str>) = text
        .split("\n---\n")
        .partition(|document| document.lines().any(|line| lines.iter().any(|kind| kind == line)));
    if gone.len() == kinds.len() {
        return Ok(kept.join("\n---\n"));
    }
    Err(Failure::new(format!("expected one document of each of {kinds:?}, found {}", gone.len())))
}
