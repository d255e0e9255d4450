//! The control planes' output for the shipped files, as a bootstrap that a plain Envoy runs: `envoy/rendered/`.
//!
//! Owns the conversion of Envoy's config dump to such a file, and the digest of the source files. The test command
//! compares the digest, validates the file with Envoy, and serves it in the end-to-end suite.

use super::Ground;
use crate::failure::{Failure, Result};
use portcullis_stack::Workspace;
use portcullis_stack::http::Reply;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A way to install whose output is kept.
pub(super) struct Kept {
    file: &'static str,
    /// The folder with the shipped files, and the pinned version of the control plane.
    inputs: [&'static str; 2],
    command: &'static str,
    /// The control plane's name of the cluster for the demo's MCP server.
    demo_cluster: &'static str,
}

pub(super) const ISTIO: Kept = Kept {
    file: "envoy/rendered/istio.yaml",
    inputs: ["envoy/istio", "tools/mesh/istio/go.mod"],
    command: "cargo xtask mesh istio --record",
    demo_cluster: "outbound|8080||demo.mcp.svc.cluster.local",
};

pub(super) const ISTIO_PLUGIN: Kept = Kept { file: "envoy/rendered/istio-plugin.yaml", ..ISTIO };

pub(super) const ENVOY_GATEWAY: Kept = Kept {
    file: "envoy/rendered/envoy-gateway.yaml",
    inputs: ["envoy/envoy-gateway", "tools/mesh/envoy-gateway/go.mod"],
    command: "cargo xtask mesh envoy-gateway --record",
    demo_cluster: "httproute/mcp/demo/rule/0",
};

const KEPT: [Kept; 3] = [ISTIO, ISTIO_PLUGIN, ENVOY_GATEWAY];

/// The prefix of the line with the digest.
const DIGEST: &str = "# inputs: sha256 ";

/// The kept files; fails when one is not made of the current inputs.
pub(crate) fn current(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    KEPT.iter().map(|kept| kept.current(workspace)).collect()
}

impl Kept {
    fn current(&self, workspace: &Workspace) -> Result<PathBuf> {
        let file = workspace.root.join(self.file);
        let text = read(&file)?;
        let found = text.lines().find_map(|line| line.strip_prefix(DIGEST));
        if found == Some(self.digest(workspace)?.as_str()) {
            return Ok(file);
        }
        Err(Failure::new(format!(
            "{} was made from other files than {} has now; run `{}` (it needs Go) and commit what it writes",
            self.file, self.inputs[0], self.command
        )))
    }

    /// A digest of the names and bytes of all inputs.
    fn digest(&self, workspace: &Workspace) -> Result<String> {
        let mut files = Vec::new();
        for input in self.inputs {
            let path = workspace.root.join(input);
            if path.is_dir() {
                let entries = fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
                files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
            } else {
                files.push(path);
            }
        }
        files.sort();
        let mut digest = Sha256::new();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = read(&file)?;
            digest.update(format!("{name} {}\n{text}", text.len()));
        }
        Ok(digest.finalize().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a `String` does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    fn write(&self, workspace: &Workspace, bootstrap: &Value) -> Result<()> {
        let mut text = format!(
            "# What the control plane made of the files in {}, for a plain Envoy. Written by `{}`; do not edit.\n{DIGEST}{}\n",
            self.inputs[0],
            self.command,
            self.digest(workspace)?
        );
        let json = serde_json::to_string_pretty(bootstrap)
            .map_err(|error| Failure::new(format!("could not write the configuration: {error}")))?;
        text.push_str(&unquoted(&json));
        text.push('\n');
        let file = workspace.root.join(self.file);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|error| unreadable(folder, &error))?;
        }
        fs::write(&file, text).map_err(|error| unreadable(&file, &error))
    }
}

/// Writes the file of `kept` from an Envoy's config dump.
pub(super) fn write(
    kept: &Kept,
    ground: &Ground<'_>,
    admin: &dyn Fn(&str) -> Result<Reply>,
    (port, guard): (&str, &str),
) -> Result<()> {
    let dump = admin("config_dump?include_eds")?.json();
    let stack = &ground.stack;
    let parts = Parts::of(&dump)?;
    let mut listener = parts.listener(port)?;
    parts.resolve(&mut listener)?;
    let mut clusters = Vec::new();
    for name in [kept.demo_cluster, "portcullis_redis", "portcullis_vault"] {
        clusters.push(parts.cluster(name)?);
    }
    let mut bootstrap = json!({
        "admin": {"address": {"socket_address": {
            "address": "${PORTCULLIS_ADMIN_ADDRESS:-127.0.0.1}", "port_value": bare("PORTCULLIS_ADMIN_PORT:-9901"),
        }}},
        "node": {"id": "portcullis", "cluster": "portcullis"},
        "stats_config": parts.bootstrap.get("stats_config").cloned().unwrap_or_default(),
        "static_resources": {"listeners": [listener], "clusters": clusters},
    });
    make_local(&mut bootstrap);
    let places = [
        Place::new(port, "LISTEN", 10000),
        Place::new(&ground.front.address().port().to_string(), "DEMO", 8080),
        Place::new(&stack.valkey.address().port().to_string(), "REDIS", 6379),
        Place::new(&stack.openbao.address().port().to_string(), "VAULT", 8200),
    ];
    let token = stack.openbao.token_sds().to_string_lossy().into_owned();
    let texts = [
        (token.as_str(), "${PORTCULLIS_VAULT_TOKEN_SDS:-/etc/envoy/vault-token.yaml}"),
        (guard, "${PORTCULLIS_GUARD}"),
        // Istio makes names that contain the port.
        (port, "10000"),
        ("\"timeout_ms\": 1000}", "\"timeout_ms\": ${PORTCULLIS_REDIS_TIMEOUT_MS:-50}}"),
        ("\"timeout_ms\":1000}", "\"timeout_ms\":${PORTCULLIS_REDIS_TIMEOUT_MS:-50}}"),
        ("\"failures\": 0}", "\"failures\": ${PORTCULLIS_SLOWDOWN_FAILURES:-100}}"),
        ("\"failures\":0}", "\"failures\":${PORTCULLIS_SLOWDOWN_FAILURES:-100}}"),
    ];
    anywhere(&mut bootstrap, &mut |value| {
        sort_metadata(value);
        for place in &places {
            place.put(value);
        }
        if let Value::String(text) = value {
            for (here, placeholder) in &texts {
                *text = text.replace(here, placeholder);
            }
        }
        to_file(value);
    });
    kept.write(ground.workspace, &bootstrap)
}

/// The parts of a dump.
struct Parts<'a> {
    bootstrap: &'a Value,
    listeners: Vec<&'a Value>,
    routes: Vec<&'a Value>,
    clusters: Vec<&'a Value>,
    endpoints: Vec<&'a Value>,
    extensions: Vec<&'a Value>,
}

impl<'a> Parts<'a> {
    fn of(dump: &'a Value) -> Result<Self> {
        let configs =
            dump.get("configs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let all = |kind: &str, list: &str, inside: &str| -> Vec<&'a Value> {
            let of_kind = configs.iter().filter(|config| {
                config.get("@type").and_then(Value::as_str).is_some_and(|name| name.ends_with(kind))
            });
            of_kind
                .filter_map(|config| config.get(list)?.as_array())
                .flatten()
                .filter_map(|entry| entry.pointer(inside))
                .collect()
        };
        let bootstrap = configs.iter().find_map(|config| config.get("bootstrap"));
        Ok(Self {
            bootstrap: bootstrap.ok_or_else(|| Failure::new("the dump has no bootstrap"))?,
            listeners: all("ListenersConfigDump", "dynamic_listeners", "/active_state/listener"),
            routes: all("RoutesConfigDump", "dynamic_route_configs", "/route_config"),
            clusters: all("ClustersConfigDump", "dynamic_active_clusters", "/cluster"),
            endpoints: all("EndpointsConfigDump", "dynamic_endpoint_configs", "/endpoint_config"),
            extensions: all("EcdsConfigDump", "ecds_filters", "/ecds_filter"),
        })
    }

    fn listener(&self, port: &str) -> Result<Value> {
        let found = self.listeners.iter().find(|listener| {
            listener
                .pointer("/address/socket_address/port_value")
                .is_some_and(|value| is_port(value, port))
        });
        found.map(|listener| untyped(listener)).ok_or_else(|| missing("listener", port))
    }

    fn cluster(&self, name: &str) -> Result<Value> {
        let mut cluster = named(&self.clusters, name, "cluster")?;
        self.resolve(&mut cluster)?;
        if let Value::Object(fields) = &mut cluster
            && fields.remove("eds_cluster_config").is_some()
        {
            let assignment = self.endpoints.iter().find(|endpoints| {
                endpoints.get("cluster_name").and_then(Value::as_str) == Some(name)
            });
            let assignment = assignment.ok_or_else(|| missing("endpoints", name))?;
            fields.insert("type".to_owned(), json!("STATIC"));
            fields.insert("load_assignment".to_owned(), untyped(assignment));
        }
        Ok(cluster)
    }

    /// Inlines references: routes by RDS, filters by ECDS.
    fn resolve(&self, value: &mut Value) -> Result<()> {
        let mut wrong = None;
        anywhere(value, &mut |value| {
            if let Value::Object(fields) = value
                && let Err(failure) = self.resolve_here(fields)
            {
                wrong = Some(failure);
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    fn resolve_here(&self, fields: &mut Map<String, Value>) -> Result<()> {
        if fields.remove("config_discovery").is_some() {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
            let extension = named(&self.extensions, name, "extension")?;
            let configuration = extension.get("typed_config").cloned().unwrap_or_default();
            fields.insert("typed_config".to_owned(), configuration);
        }
        if let Some(rds) = fields.remove("rds") {
            let name = rds.get("route_config_name").and_then(Value::as_str).unwrap_or_default();
            fields.insert("route_config".to_owned(), named(&self.routes, name, "routes")?);
        }
        Ok(())
    }
}

/// An address that two placeholders replace.
struct Place {
    port: String,
    host: String,
    number: String,
}

impl Place {
    fn new(port: &str, name: &str, default: u16) -> Self {
        let host =
            if name == "LISTEN" { "LISTEN_ADDRESS".to_owned() } else { format!("{name}_HOST") };
        Self {
            port: port.to_owned(),
            host: format!("${{PORTCULLIS_{host}:-127.0.0.1}}"),
            number: bare(&format!("PORTCULLIS_{name}_PORT:-{default}")),
        }
    }

    fn put(&self, value: &mut Value) {
        if let Value::Object(fields) = value
            && fields.get("port_value").is_some_and(|port| is_port(port, &self.port))
        {
            fields.insert("address".to_owned(), json!(self.host));
            fields.insert("port_value".to_owned(), json!(self.number));
        }
    }
}

/// Redirects the audit log from standard output to the file that the tests read.
fn to_file(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    let kind = fields.get("@type").and_then(Value::as_str).unwrap_or_default();
    let is_output = fields.get("path").is_some_and(|path| path == "/dev/stdout");
    if kind.ends_with(".StdoutAccessLog") || is_output {
        fields.insert(
            "@type".to_owned(),
            json!("type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        );
        fields.insert(
            "path".to_owned(),
            json!("${PORTCULLIS_AUDIT_LOG:-/var/log/portcullis/audit.jsonl}"),
        );
    }
}

/// Loads both modules from files, wherever the control plane gets them.
fn make_local(bootstrap: &mut Value) {
    anywhere(bootstrap, &mut |value| {
        if let Value::Object(fields) = value
            && fields.contains_key("vm_config")
        {
            let file = if fields.get("root_id").is_some_and(|root| root == "frame") {
                "${PORTCULLIS_FRAMING_WASM:-/etc/envoy/redis_framing.wasm}"
            } else {
                "${PORTCULLIS_WASM:-/etc/envoy/portcullis.wasm}"
            };
            if let Some(code) = fields.get_mut("vm_config").and_then(|vm| vm.get_mut("code")) {
                *code = json!({"local": {"filename": file}});
            }
        }
    });
}

/// Envoy prints the fields of metadata in a different order each time.
fn sort_metadata(value: &mut Value) {
    if let Value::Object(fields) = value
        && let Some(metadata) = fields.get_mut("filter_metadata")
    {
        anywhere(metadata, &mut |value| {
            if let Value::Object(fields) = value {
                fields.sort_keys();
            }
        });
    }
}

fn is_port(value: &Value, port: &str) -> bool {
    value.as_u64().is_some_and(|value| port.parse() == Ok(value))
}

/// A placeholder for a number.
fn bare(placeholder: &str) -> String {
    format!("@@{placeholder}@@")
}

/// Removes the quotes around placeholders of numbers.
fn unquoted(json: &str) -> String {
    json.replace("\"@@", "${").replace("@@\"", "}")
}

fn anywhere(value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    change(value);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| anywhere(field, change)),
        Value::Array(list) => list.iter_mut().for_each(|entry| anywhere(entry, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn named(list: &[&Value], name: &str, kind: &str) -> Result<Value> {
    let found = list.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
    found.map(|entry| untyped(entry)).ok_or_else(|| missing(kind, name))
}

/// A resource without its type: at its place in a bootstrap the type is known.
fn untyped(resource: &Value) -> Value {
    let mut resource = resource.clone();
    if let Value::Object(fields) = &mut resource {
        fields.remove("@type");
    }
    resource
}

fn missing(kind: &str, name: &str) -> Failure {
    Failure::new(format!("the dump has no {kind} {name}"))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not use {}: {error}", file.display()))
}
