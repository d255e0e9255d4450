//! Releases of the chart on a real API server: which ones it accepts, and what remains after an uninstall.
//!
//! Owns the life of a release: dry run, install, upgrade, uninstall, install again. Nothing is ever scheduled, so the
//! pod of `helm test` is created and admitted, and does not run.

use super::cases::{CASES, Case, Helm};
use super::documents;
use crate::failure::{Failure, Result};
use crate::mesh::cluster::{Cluster, succeeded};
use crate::mesh::report::Report;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The kinds of the refusing routes, which have to remain after an uninstall.
const ISTIO_KEPT: [&str; 2] = ["gateways.networking.istio.io", "virtualservices"];
const ENVOY_GATEWAY_KEPT: [&str; 2] = ["httproutes", "httproutefilters"];

pub(super) fn run(helm: &Helm, cluster: &Cluster, dir: &Path, report: &mut Report) -> Result<()> {
    // This API server has no controllers, which would create this account in each namespace.
    for namespace in ["istio-ingress", "mcp"] {
        cluster.kubectl(&["create", "serviceaccount", "default", "--namespace", namespace])?;
    }
    for case in &CASES {
        report.trial(case.name, "server-side dry run", || {
            cluster.dry_run(&written(dir, case.name, &helm.template(case)?)?)
        });
    }
    for case in &CASES {
        let kubeconfig = cluster.kubeconfig();
        let install = || helm.release("install", case, &[], kubeconfig);
        report.trial(case.name, "install", install);
        report.trial(case.name, "upgrade", || {
            helm.release(
                "upgrade",
                case,
                &["--set", "configuration.redis.timeout_ms=70"],
                kubeconfig,
            )
        });
        report.trial(case.name, "uninstall leaves routes that refuse", || {
            uninstalled(helm, cluster, case)?;
            kept(cluster, case)
        });
        report.trial(case.name, "install again, over the routes that stayed", || {
            install()?;
            uninstalled(helm, cluster, case)?;
            delete_kept(cluster, case)
        });
    }
    for case in CASES.iter().filter(|case| ["istio", "envoy-gateway"].contains(&case.name)) {
        report.trial(case.name, "an upgrade adds a listener and a host", || {
            another_listener(helm, cluster, case)
        });
        report.trial(case.name, "guards from a Secret", || from_a_secret(helm, cluster, case));
        report.trial(case.name, "the standard `restricted` takes the pod of helm test", || {
            restricted(helm, cluster, dir, case)
        });
    }
    for case in CASES.iter().filter(|case| case.name == "envoy-gateway-tls") {
        report.trial(
            case.name,
            "the standard `restricted` takes what the proxies' pods ask for",
            || {
                let proxy = proxy_pod(&helm.template(case)?)?;
                cluster.dry_run(&written(dir, "proxy-pod", &proxy)?)
            },
        );
    }
    Ok(())
}

/// A pod from the EnvoyProxy's settings for pods. Envoy Gateway adds and describes a container of its own.
fn proxy_pod(manifests: &str) -> Result<String> {
    let documents = documents::read("the manifests of Envoy Gateway", manifests)?;
    let deployment = documents.iter().find_map(|(key, document)| {
        let is_proxy = key.starts_with("EnvoyProxy ");
        is_proxy.then(|| document.pointer("/spec/provider/kubernetes/envoyDeployment"))?
    });
    let deployment = deployment.ok_or_else(|| Failure::new("there is no EnvoyProxy"))?;
    let (pod, container) = (&deployment["pod"], &deployment["container"]);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "proxy", "namespace": "mcp"},
        "spec": {
            "securityContext": pod["securityContext"],
            "volumes": pod["volumes"],
            "containers": [{
                "name": "envoy",
                "image": "envoyproxy/envoy",
                "securityContext": container["securityContext"],
                "volumeMounts": container["volumeMounts"],
            }],
        },
    });
    Ok(pod.to_string())
}

pub(super) fn written(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(format!("{name}.yaml"));
    fs::write(&file, text)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))?;
    Ok(file)
}

pub(super) fn uninstalled(helm: &Helm, cluster: &Cluster, case: &Case) -> Result<()> {
    let mut command = helm.command();
    command.env("KUBECONFIG", cluster.kubeconfig());
    command.args(["uninstall", "portcullis", "--namespace", case.namespace]);
    succeeded("helm uninstall", command).map(drop)
}

/// Checks that the refusing routes exist, that none leads to a server, and that the filter is gone.
fn kept(cluster: &Cluster, case: &Case) -> Result<()> {
    let (kinds, gone) = match case.control_plane()[0] {
        "istio" => (ISTIO_KEPT, "envoyfilters,wasmplugins"),
        _ => (ENVOY_GATEWAY_KEPT, "envoyextensionpolicies,envoypatchpolicies"),
    };
    for kind in kinds {
        let found = cluster.kubectl(&["get", kind, "--all-namespaces", "--output", "name"])?;
        if found.trim().is_empty() {
            return Err(Failure::new(format!("no {kind} stayed")));
        }
    }
    let both = kinds.join(",");
    let routes = cluster.kubectl(&["get", &both, "--all-namespaces", "--output", "yaml"])?;
    if !routes.contains("503") {
        return Err(Failure::new("the routes that stayed do not answer 503"));
    }
    // Nothing removes a client's header any more, so a route to a server would accept any client that knows the guard.
    for part in ["x-portcullis-guard", "not-a-secret", "destination:", "backendRefs"] {
        if routes.contains(part) {
            return Err(Failure::new(format!("the routes that stayed have {part}")));
        }
    }
    let found = cluster.kubectl(&["get", gone, "--all-namespaces", "--output", "name"])?;
    if found.trim().is_empty() { Ok(()) } else { Err(Failure::new(format!("there is {found}"))) }
}

/// Deletes the remaining routes, as an operator does once no client calls them.
pub(super) fn delete_kept(cluster: &Cluster, case: &Case) -> Result<()> {
    let kinds = match case.control_plane()[0] {
        "istio" => "gateways.networking.istio.io,virtualservices",
        _ => "httproutes,httproutefilters",
    };
    let ours = "app.kubernetes.io/managed-by=Helm";
    for namespace in ["istio-ingress", "mcp", "sales"] {
        cluster.kubectl(&["delete", kinds, "--namespace", namespace, "--selector", ours])?;
    }
    Ok(())
}

/// Upgrades to another listener; the admission policies of the previous release must not deny it.
fn another_listener(helm: &Helm, cluster: &Cluster, case: &Case) -> Result<()> {
    const MORE: [&str; 6] = [
        "--set-json",
        r#"listeners=[{"name": "http", "port": 8080}, {"name": "more", "port": 9090}]"#,
        "--set-json",
        r#"gateway_api={"parent_refs": [{"name": "mcp", "listeners": ["http", "more"]}]}"#,
        "--set-json",
        r#"hosts=["mcp.example.com", "more.example.com"]"#,
    ];
    helm.release("install", case, &[], cluster.kubeconfig())?;
    helm.release("upgrade", case, &MORE, cluster.kubeconfig())?;
    // Removes the listener again.
    helm.release("upgrade", case, &[], cluster.kubeconfig())?;
    uninstalled(helm, cluster, case)?;
    delete_kept(cluster, case)
}

fn from_a_secret(helm: &Helm, cluster: &Cluster, case: &Case) -> Result<()> {
    let file = format!("--from-file=guards.json={}", helm.values.join("guards.json").display());
    let secret = ["create", "secret", "generic", "guards", "--namespace", case.namespace];
    cluster.kubectl(&[&secret[..], &[file.as_str()]].concat())?;
    // An empty file overrides the file of guards in the case's options.
    let by_secret = ["--set-file", "guards=/dev/null", "--set", "guards_secret=guards"];
    let install = || helm.release("install", case, &by_secret, cluster.kubeconfig());
    install()?;
    let mut command = helm.command();
    command.env("KUBECONFIG", cluster.kubeconfig());
    command.args(["get", "manifest", "portcullis", "--namespace", case.namespace]);
    let manifest = succeeded("helm get manifest", command)?;
    uninstalled(helm, cluster, case)?;
    delete_kept(cluster, case)?;
    if !manifest.contains("not-a-secret-demo") {
        return Err(Failure::new("the routes have no guard"));
    }
    // Without the Secret, an upgrade would render routes without guards.
    cluster.kubectl(&["delete", "secret", "guards", "--namespace", case.namespace])?;
    match install() {
        Err(failure) if failure.to_string().contains("there is no Secret") => Ok(()),
        Err(failure) => Err(Failure::new(format!("another error: {failure}"))),
        Ok(()) => Err(Failure::new("it installs without the Secret")),
    }
}

/// A namespace that enforces the `restricted` standard admits the pod, and denies one that violates it.
fn restricted(helm: &Helm, cluster: &Cluster, dir: &Path, case: &Case) -> Result<()> {
    let standard = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "--overwrite", "namespace", case.namespace, standard])?;
    let pod = helm.render(case, &["--show-only", "templates/tests/probe.yaml"])?;
    let file = written(dir, &format!("{}-probe", case.name), &pod)?;
    cluster.apply(&file)?;
    cluster.delete(&file)?;
    let loose = pod.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true");
    let file = written(dir, &format!("{}-loose", case.name), &loose)?;
    match cluster.apply(&file) {
        Err(failure) if failure.to_string().contains("violates PodSecurity") => Ok(()),
        Err(failure) => Err(Failure::new(format!("refused for another reason: {failure}"))),
        Ok(()) => Err(Failure::new("the standard is not enforced here")),
    }
}
