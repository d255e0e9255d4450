//! The chart on running gateways: a control plane, a real Envoy, and releases that real Helm makes on the API server.
//!
//! Owns the trials, which are the same for every control plane: the pod of `helm test`, also with one part broken;
//! upgrade, rollback, changed guards and uninstall under load. A [`Plane`] owns what differs.

use super::cases::Helm;
use super::{documents, probe};
use crate::failure::{Failure, Result};
use crate::mesh::Ground;
use crate::mesh::cluster::{MODULE, made, succeeded};
use crate::mesh::doctor::Doctor;
use crate::mesh::gateway::{Gateway, HOST, Kind, within};
use crate::mesh::operations::{After, flows, under_load};
use crate::mesh::report::Report;
use portcullis_stack::files;
use portcullis_stack::ports::{free_port, loopback};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The second host of the first release.
pub(super) const OTHER_HOST: &str = "tools.example.com";
/// The host that an upgrade adds.
const ADDED_HOST: &str = "more.example.com";
/// The names and ports of the listeners.
pub(super) type Listeners = [(&'static str, u16); 2];
/// The Secret with the URL of Redis for the pod of `helm test`.
const REDIS_SECRET: &str = "portcullis-operator";
/// The name of the release, and of the resources that the chart names after it.
const RELEASE: &str = "portcullis";
/// From the API server to Envoy, on a busy machine.
const PUSHED_WITHIN: Duration = Duration::from_secs(120);
const GUARDS: &str = "guards.json";
const OTHER_GUARDS: &str = "other-guards.json";

/// A control plane with a running gateway.
pub(super) trait Plane {
    /// The name in the report.
    fn name(&self) -> &'static str;
    /// The value of `control_plane`.
    fn control_plane(&self) -> &'static str;
    /// The namespace of the release.
    fn namespace(&self) -> &'static str;
    /// The file of Envoy's standard output, which has the audit log.
    fn log(&self) -> PathBuf;
    /// A script for sed that changes what cannot be as in a cluster on this machine: addresses and files.
    fn here(&self) -> String;
    /// Envoy's configuration.
    fn configuration(&self) -> Result<String>;
    /// The URL of Envoy's admin interface.
    fn admin_url(&self) -> Result<String>;
    /// The statuses of calls after an uninstall; 0 is no answer.
    fn after_uninstall(&self) -> &'static [u16];
    /// Takes the filter off, as an operator might by accident.
    fn take_off(&self) -> Result<()>;
    /// Takes the filter and the guard off a part of the gateway. The policies of the API server are not there.
    fn bypass(&self) -> Result<()>;
    /// Whether `bypass` is for this host and port. One of them is the second host on the first listener.
    fn is_bypassed(&self, host: &str, port: u16) -> bool;
    /// Removes what `bypass` added.
    fn mend(&self) -> Result<()>;
}

/// What a release is made of.
#[derive(Clone)]
struct Values {
    /// The tag and the digest of the module's image.
    module: (&'static str, String),
    hosts: Vec<&'static str>,
    /// How long an answer may be silent.
    answer: &'static str,
    guards: [Option<&'static str>; 2],
    admission: bool,
}

struct Trials<'a> {
    ground: &'a Ground<'a>,
    helm: &'a Helm,
    plane: &'a dyn Plane,
    listeners: Listeners,
    dir: PathBuf,
    /// One for each listener.
    gateways: [Gateway; 2],
}

/// Ports for the listeners.
pub(super) fn listeners() -> Result<Listeners> {
    Ok([("http", free_port()?), ("more", free_port()?)])
}

/// Runs all trials on `plane`, whose gateway has no listener yet.
pub(super) fn run(
    ground: &Ground<'_>,
    helm: &Helm,
    (plane, listeners): (&dyn Plane, Listeners),
    report: &mut Report,
) -> Result<()> {
    let dir = ground.dir.join("chart");
    made(&dir.join("plugins/here"))?;
    let gateway = |port| {
        let url = format!("http://{}", loopback(port));
        Gateway::of(&ground.stack, &ground.front, url, plane.log())
    };
    let gateways = [gateway(listeners[0].1), gateway(listeners[1].1)];
    let trials = Trials { ground, helm, plane, listeners, dir, gateways };
    trials.prepare()?;
    let first = Values {
        module: ("1", ground.digest.clone()),
        hosts: vec![HOST, OTHER_HOST],
        answer: "120s",
        guards: [Some(GUARDS), None],
        admission: true,
    };
    let name = plane.name();
    let installed = report.trial(name, "helm install: an allowed call is answered", || {
        trials.release("install", &first)?;
        trials.flows(&first.hosts, "helm-install")
    });
    if !installed {
        return Ok(());
    }
    report.trial(name, "helm test: every listener and host is judged", || trials.passes(&first));
    report.trial(name, "doctor: content with the gateway of the chart", || {
        Doctor::of(ground, plane.admin_url()?).is_content()
    });
    trials.upgrades(&first, report)?;
    trials.broken(&first, report);
    trials.uninstall(&first, report);
    Ok(())
}

impl Trials<'_> {
    /// Writes the files of guards, the Secret of the pod, and the plugin of Helm that adapts manifests.
    fn prepare(&self) -> Result<()> {
        self.write(GUARDS, &json!({"/demo/mcp": "not-a-secret-demo"}))?;
        self.write(OTHER_GUARDS, &json!({"/demo/mcp": "not-a-secret-other"}))?;
        let plugin = self.dir.join("plugins/here");
        let script = plugin.join("here.sed");
        let fault = |error| Failure::new(format!("could not write {}: {error}", script.display()));
        fs::write(&script, self.plane.here()).map_err(fault)?;
        let about = json!({
            "apiVersion": "v1", "name": "here", "version": "1.0.0", "type": "postrenderer/v1",
            "runtime": "subprocess",
            "runtimeConfig": {"platformCommand": [{"command": "sed", "args": ["-f", script]}]},
        });
        fs::write(plugin.join("plugin.yaml"), about.to_string()).map_err(fault)?;
        self.redis_secret(&self.ground.stack.valkey.url())
    }

    /// Gives the pod of `helm test` the URL of Redis, as an operator does.
    fn redis_secret(&self, url: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": REDIS_SECRET, "namespace": self.plane.namespace()},
            "stringData": {"url": url},
        });
        let file = self.dir.join("redis-secret.json");
        files::write_private(&file, &secret.to_string())?;
        self.ground.cluster.apply(&file)
    }

    fn write(&self, name: &str, value: &Value) -> Result<PathBuf> {
        let file = self.dir.join(name);
        fs::write(&file, value.to_string()).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        Ok(file)
    }

    /// The description of the gateway, and the chart's other values.
    fn document(&self, values: &Values) -> Value {
        let stack = &self.ground.stack;
        let names: Vec<&str> = self.listeners.iter().map(|(name, _)| *name).collect();
        let ports = self.listeners.map(|(name, port)| json!({"name": name, "port": port}));
        let (tag, digest) = &values.module;
        let image = |image: String, digest: &str| json!({"image": image, "digest": format!("sha256:{digest}")});
        json!({
            "version": 1, "hosts": values.hosts, "namespace": self.plane.namespace(),
            "istio": {"gateways": [RELEASE]},
            "gateway_api": {"parent_refs": [{"name": "mcp", "listeners": names}]},
            "connectors": {"demo": {
                "path": "/demo/mcp",
                "upstream": {
                    "service": {"host": "demo.mcp.svc.cluster.local", "port": 8080},
                    "path": "/mcp", "host": "demo",
                },
                "idle_timeout": {"answer": values.answer},
            }},
            "control_plane": self.plane.control_plane(),
            "module": image(self.ground.registry.image(tag), digest),
            "framing": image(self.ground.registry.image_of("redis-framing", "1"), &self.ground.framing_digest),
            "listeners": ports,
            "redis": {"host": "127.0.0.1", "port": stack.valkey.address().port()},
            "vault": {"host": "127.0.0.1", "port": stack.openbao.address().port()},
            // Longer for a busy machine, and for a load of refused calls from one address.
            "configuration": {"redis": {"timeout_ms": 1000}, "auth": {"slowdown": {"failures": 0}}},
            "admission": {"enabled": values.admission},
            // The image is never pulled: the program is here.
            "tests": {
                "image": "registry.example/portcullis/demo:0.1.0",
                "digest": format!("sha256:{}", "2".repeat(64)),
                "address": "127.0.0.1", "redis_secret": REDIS_SECRET,
            },
        })
    }

    /// `helm install` or `helm upgrade` with these values.
    fn release(&self, verb: &str, values: &Values) -> Result<()> {
        let file = self.write("values.yaml", &self.document(values))?;
        let mut arguments = vec![
            verb.to_owned(),
            RELEASE.to_owned(),
            self.helm.chart.display().to_string(),
            format!("--values={}", file.display()),
            "--post-renderer=here".to_owned(),
        ];
        for (option, guards) in ["guards", "previous_guards"].into_iter().zip(values.guards) {
            if let Some(guards) = guards {
                let file = self.dir.join(guards);
                arguments.push(format!("--set-file={option}={}", file.display()));
            }
        }
        self.run(&arguments).map(drop)
    }

    fn run(&self, arguments: &[String]) -> Result<String> {
        let mut command = self.helm.command();
        command.args(arguments).args(["--namespace", self.plane.namespace()]);
        command.env("KUBECONFIG", self.ground.cluster.kubeconfig());
        command.env("HELM_PLUGINS", self.dir.join("plugins"));
        succeeded(&format!("helm {}", arguments.first().map_or("", String::as_str)), command)
    }

    /// Waits until every listener answers an allowed call for each host.
    fn flows(&self, hosts: &[&str], label: &str) -> Result<()> {
        for (gateway, (listener, _)) in self.gateways.iter().zip(&self.listeners) {
            flows(gateway, label)?;
            for host in hosts {
                let mut last = None;
                within(PUSHED_WITHIN, "an allowed call that is answered", || {
                    let reply = gateway.call_host(host, Kind::Allowed, label, 0);
                    let is_answered = reply.result;
                    last = Some(reply);
                    is_answered.then_some(())
                })
                .map_err(|failure| {
                    Failure::new(format!("{failure} ({listener}, {host}: {last:?})"))
                })?;
            }
        }
        Ok(())
    }

    /// Runs the pod of the release's `helm test`.
    fn test(&self) -> Result<probe::Run> {
        let hooks = self.run(&["get", "hooks", RELEASE].map(str::to_owned))?;
        probe::run(&hooks, &self.ground.cluster, &self.ground.workspace.artifacts().cli)
    }

    /// The probed URLs, with their hosts and ports.
    fn urls(&self, values: &Values) -> Vec<(String, &'static str, u16)> {
        let of = |host: &'static str| {
            self.listeners
                .map(|(_, port)| (format!("probe http://{host}:{port}/demo/mcp "), host, port))
        };
        values.hosts.iter().flat_map(|host| of(host)).collect()
    }

    /// Checks that `helm test` passes, with both calls of each URL refused by Portcullis, and Redis and Vault seen.
    fn passes(&self, values: &Values) -> Result<()> {
        let run = self.test()?;
        for (url, ..) in self.urls(values) {
            for call in ["without a credential: 401", "with a forged guard: 401"] {
                let states = run.states(&url, call);
                if states != ["good"] {
                    let said = run.faults();
                    return Err(Failure::new(format!("{url}{call}: {states:?}\n     {said}")));
                }
            }
        }
        for check in ["redis", "vault"] {
            if !run.states(&format!(" {check} "), "").contains(&"good") {
                return Err(Failure::new(format!("nothing good of {check}: {}", run.faults())));
            }
        }
        match run.passes {
            true => Ok(()),
            false => Err(Failure::new(format!("it fails: {}", run.faults()))),
        }
    }

    /// Waits until `helm test` fails, with a bad line for both calls of each URL that `is_bad` selects, and good lines
    /// for the others.
    fn names(&self, values: &Values, is_bad: &dyn Fn(&str, u16) -> bool) -> Result<()> {
        let mut last = String::new();
        let found = within(PUSHED_WITHIN, "a failed helm test", || {
            let run = self.test().ok()?;
            last = run.faults();
            let is_as_said = self.urls(values).iter().all(|(url, host, port)| {
                let state = if is_bad(host, *port) { "bad" } else { "good" };
                run.states(url, "") == [state; 2]
            });
            (!run.passes && is_as_said).then_some(())
        });
        found.map_err(|failure| Failure::new(format!("{failure}: {last}")))
    }

    /// Waits until Envoy's configuration contains one text of each pair.
    fn is_pushed(&self, wanted: &[[&str; 2]]) -> Result<()> {
        within(PUSHED_WITHIN, &format!("Envoy to have {wanted:?}"), || {
            let configuration = self.active().ok()?;
            let has = |pair: &[&str; 2]| pair.iter().any(|text| configuration.contains(text));
            wanted.iter().all(has).then_some(())
        })
    }

    /// Envoy's configuration for new connections: a replaced listener drains with its old one.
    fn active(&self) -> Result<String> {
        let mut dump: Value = serde_json::from_str(&self.plane.configuration()?)
            .map_err(|error| Failure::new(format!("Envoy's configuration: {error}")))?;
        documents::walk(&mut dump, &mut |value| {
            if let Value::Object(fields) = value {
                for state in ["draining_state", "warming_state", "error_state"] {
                    fields.remove(state);
                }
            }
        });
        Ok(dump.to_string())
    }

    /// Upgrades, a rollback and changed guards, under load.
    fn upgrades(&self, first: &Values, report: &mut Report) -> Result<()> {
        let (ground, name) = (self.ground, self.plane.name());
        let newer = ground.newer_module()?;
        let digest = ground.registry.push(&ground.tools, &newer, (MODULE, "2"))?;
        let mut hosts = first.hosts.clone();
        hosts.push(ADDED_HOST);
        let second =
            Values { module: ("2", digest.clone()), hosts, answer: "240s", ..first.clone() };
        // Istio's agent names a module by the digest of its image, Envoy Gateway by that of the file.
        let files = [sha256(&ground.workspace.artifacts().filter)?, sha256(&newer)?];
        let (old, new) = ([ground.digest.as_str(), &files[0]], [digest.as_str(), &files[1]]);
        let mut operate = |operation: &str, run: &dyn Fn() -> Result<()>| {
            under_load(&self.gateways[0], name, operation, After::Flows, report, run);
        };
        operate("helm upgrade: another module, a host, a timeout", &|| {
            self.release("upgrade", &second)?;
            self.is_pushed(&[new, ["\"240s\""; 2]])?;
            self.flows(&second.hosts, "helm-upgraded")
        });
        operate("helm rollback", &|| {
            self.run(&["rollback", RELEASE].map(str::to_owned))?;
            self.is_pushed(&[old, ["\"120s\""; 2]])
        });
        let both = Values { guards: [Some(OTHER_GUARDS), Some(GUARDS)], ..first.clone() };
        let other = Values { guards: [Some(OTHER_GUARDS), None], ..first.clone() };
        operate("helm upgrade: other guards, beside the old ones", &|| {
            self.release("upgrade", &both)?;
            self.is_pushed(&[["not-a-secret-other"; 2]])
        });
        operate("helm upgrade: without the old guards", &|| {
            self.release("upgrade", &other)?;
            within(PUSHED_WITHIN, "Envoy without the old guards", || {
                let configuration = self.active().ok()?;
                (!configuration.contains("not-a-secret-demo")).then_some(())
            })
        });
        report.trial(name, "helm test after an upgrade: the added host is called, too", || {
            self.release("upgrade", &second)?;
            self.flows(&second.hosts, "helm-second")?;
            self.passes(&second)
        });
        report.trial(name, "helm upgrade to the first values again", || {
            self.release("upgrade", first)?;
            self.is_pushed(&[old, ["\"120s\""; 2]])?;
            self.flows(&first.hosts, "helm-first")
        });
        Ok(())
    }

    /// `helm test` fails when one part is broken, and passes again.
    fn broken(&self, first: &Values, report: &mut Report) {
        let (name, plane) = (self.plane.name(), self.plane);
        let mended = |values: &Values| {
            self.release("upgrade", values)?;
            self.flows(&values.hosts, "helm-mended")?;
            self.passes(values)
        };
        report.trial(name, "helm test fails without the filter; an upgrade brings it back", || {
            plane.take_off()?;
            self.names(first, &|_, _| true)?;
            mended(first)
        });
        report.trial(
            name,
            "helm test fails on a part without filter and guard, and names it",
            || {
                self.release("upgrade", &Values { admission: false, ..first.clone() })?;
                plane.bypass()?;
                // It is a hole: the server gets an unjudged call.
                let (gateway, label) = (&self.gateways[0], "helm-bypassed");
                let open = within(PUSHED_WITHIN, "a call that nobody judges", || {
                    let reply = gateway.call_host(OTHER_HOST, Kind::NoKey, label, 0);
                    (!reply.judged && gateway.reached(label, Kind::NoKey) > 0).then_some(())
                });
                let named = open
                    .and_then(|()| self.names(first, &|host, port| plane.is_bypassed(host, port)));
                plane.mend()?;
                mended(first)?;
                named
            },
        );
        report.trial(name, "helm test fails without Redis", || {
            let url = self.ground.stack.valkey.url();
            self.redis_secret(&format!("redis://{}", loopback(free_port()?)))?;
            let run = self.test();
            self.redis_secret(&url)?;
            let run = run?;
            if run.passes || !run.states(" redis", "").contains(&"bad") {
                return Err(Failure::new(format!("it passes: {}", run.faults())));
            }
            self.passes(first)
        });
    }

    /// Uninstall and a new installation, under load.
    fn uninstall(&self, first: &Values, report: &mut Report) {
        let (name, gateway) = (self.plane.name(), &self.gateways[0]);
        let uninstall = || self.run(&["uninstall", RELEASE].map(str::to_owned)).map(drop);
        let after = After::ClosedWithoutAudit;
        under_load(gateway, name, "helm uninstall", after, report, uninstall);
        report.trial(name, "after helm uninstall every listener and host refuses", || {
            for (gateway, (listener, _)) in self.gateways.iter().zip(&self.listeners) {
                for host in &first.hosts {
                    let label = format!("helm-gone-{listener}-{host}");
                    let statuses = self.plane.after_uninstall();
                    within(PUSHED_WITHIN, &format!("one of {statuses:?}"), || {
                        let reply = gateway.call_host(host, Kind::NoKey, &label, 0);
                        statuses.contains(&reply.status).then_some(())
                    })?;
                    gateway.refuses(host, &label, statuses)?;
                }
            }
            Ok(())
        });
        let after = After::FlowsWithAuditAgain;
        under_load(gateway, name, "helm install again", after, report, || {
            self.release("install", first)?;
            self.flows(&first.hosts, "helm-again")
        });
    }
}

fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", file.display())))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
