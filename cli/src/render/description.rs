//! The gateway description that `portcullis render` reads: hosts, where its routes belong, connectors and servers.
//!
//! Owns its form and finds every mistake in it. The file of each target makes manifests from it.

use std::collections::BTreeSet;

use portcullis_core::decode::{Faults, Fields, Node};
use portcullis_core::id::PolicyName;
use portcullis_core::policy;
use serde_json::Value;

const HOST: &str = "a host in lower case and without a port, such as mcp.example.com or *.example.com; or * alone, for every host";
const NAME: &str = "a name that Kubernetes takes: up to 40 lower-case letters, digits and `-`, starting with a letter";
const NAMESPACE: &str = "the namespace of the routes, such as mcp";

/// A description for a target that needs `G` of the gateway and `S` of a server.
pub(super) struct Description<G, S> {
    /// The name of the virtual host, and of resources that exist once.
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
    pub(super) gateway: G,
    pub(super) connectors: Vec<Connector<S>>,
}

/// One MCP server behind the gateway.
pub(super) struct Connector<S> {
    pub(super) name: String,
    pub(super) path: String,
    /// The path to which clients of HTTP+SSE post.
    pub(super) messages: Option<String>,
    pub(super) server: S,
    pub(super) rewrite: Rewrite,
    pub(super) idle: IdleTimeout,
}

/// Path and host that the server gets instead of the client's.
#[derive(Default)]
pub(super) struct Rewrite {
    pub(super) path: Option<String>,
    pub(super) messages: Option<String>,
    pub(super) host: Option<String>,
}

/// After how many seconds without data a stream ends.
pub(super) struct IdleTimeout {
    pub(super) answer: u64,
    pub(super) listen: u64,
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self { answer: 120, listen: 3600 }
    }
}

/// A field: absent, or present with its value, unless it has a fault.
pub(super) struct Field<T>(Option<Option<T>>);

impl<T> Field<T> {
    /// The value; reports a fault when the field is absent.
    pub(super) fn required(self, path: &str, expected: &str, faults: &mut Faults) -> Option<T> {
        if self.0.is_none() {
            faults.push(path, "nothing", expected);
        }
        self.0.flatten()
    }
}

/// The gateway's part of the description.
pub(super) struct GatewayFields {
    namespace: Field<String>,
    pub(super) istio: Field<Istio>,
    pub(super) gateway_api: Field<Vec<ParentRef>>,
    /// The valid hosts, with their places.
    pub(super) hosts: Vec<String>,
    /// The names of the connectors.
    pub(super) connectors: Vec<String>,
}

impl GatewayFields {
    pub(super) fn namespace(&mut self, faults: &mut Faults) -> Option<String> {
        std::mem::replace(&mut self.namespace, Field(None)).required("namespace", NAMESPACE, faults)
    }
}

/// The Istio gateways that the routes belong to, and their pods.
pub(super) struct Istio {
    pub(super) gateways: Vec<String>,
    /// The namespace of the gateway's pods, if it differs from that of the routes.
    pub(super) workload_namespace: Option<String>,
    /// Labels of the gateway's pods.
    pub(super) selector: Vec<(String, String)>,
}

/// The Gateway that an HTTPRoute belongs to.
pub(super) struct ParentRef {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) section_name: Option<String>,
    /// The listeners of the Gateway, for the seal.
    pub(super) listeners: Vec<String>,
}

/// The server's part of a connector.
pub(super) struct ServerFields<'a> {
    /// Its place in the description, such as `connectors.crm.upstream`.
    pub(super) path: String,
    pub(super) cluster: Field<String>,
    pub(super) service: Field<Service>,
    pub(super) host: Option<&'a str>,
}

/// A server by name and port.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) port: u64,
}

impl<S> Connector<S> {
    /// Every path that reaches the server.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.messages.as_deref())
    }
}

/// Reads a description for a target; `gateway` and the server's reader take the fields that the target needs.
pub(super) fn read<G, S>(
    document: &Value,
    gateway: impl FnOnce(GatewayFields, &mut Faults) -> Option<G>,
    server: impl Fn(ServerFields<'_>, &mut Faults) -> Option<S>,
) -> Result<Description<G, S>, Faults> {
    let mut faults = Faults::default();
    let description = description(document, gateway, server, &mut faults);
    faults.unless(description)
}

fn description<G, S>(
    document: &Value,
    gateway: impl FnOnce(GatewayFields, &mut Faults) -> Option<G>,
    server: impl Fn(ServerFields<'_>, &mut Faults) -> Option<S>,
    faults: &mut Faults,
) -> Option<Description<G, S>> {
    const VERSION: &str = "1, the version of this format";
    const HOSTS: &str = "a list of the hosts that clients use, such as [mcp.example.com]";
    const CONNECTORS: &str =
        "an object with a connector for each name, such as {crm: {path: /crm/mcp, upstream: …}}";
    let mut fields = Node::root(document).object(faults, "a description: an object")?;
    if let Some(node) = fields.required("version", faults, VERSION)
        && !node.is_integer(1)
    {
        node.fault(faults, VERSION);
    }
    let name = field(&mut fields, "name", |node| node.text(faults, NAME, kubernetes_name));
    let hosts = fields.required("hosts", faults, HOSTS);
    let hosts = hosts.and_then(|node| hosts_of(node, HOSTS, faults));
    let namespace =
        field(&mut fields, "namespace", |node| node.text(faults, NAME, kubernetes_name));
    let istio = field(&mut fields, "istio", |node| istio(node, faults));
    let gateway_api = field(&mut fields, "gateway_api", |node| gateway_api(node, faults));
    let connectors = fields.required("connectors", faults, CONNECTORS);
    let members = connectors.and_then(|node| {
        let members = node.clone().members(faults, CONNECTORS)?;
        if members.is_empty() {
            node.fault(faults, CONNECTORS);
        }
        Some(members)
    });
    let members = members.unwrap_or_default();
    let names = members.iter().map(|(name, _)| (*name).to_owned()).collect();
    let connectors: Vec<_> = members
        .into_iter()
        .filter_map(|(name, node)| connector(name, node, &server, faults))
        .collect();
    distinct(&connectors, faults);
    let fields_of_gateway = GatewayFields {
        namespace,
        istio,
        gateway_api,
        hosts: hosts.clone().unwrap_or_default(),
        connectors: names,
    };
    let gateway = gateway(fields_of_gateway, faults);
    fields.finish(faults);
    Some(Description {
        name: optional(name)?.unwrap_or_else(|| "portcullis".to_owned()),
        hosts: hosts?,
        gateway: gateway?,
        connectors,
    })
}

fn field<'a, T>(
    fields: &mut Fields<'a>,
    name: &'static str,
    read: impl FnOnce(Node<'a>) -> Option<T>,
) -> Field<T> {
    Field(fields.optional(name).map(read))
}

fn hosts_of(node: Node<'_>, expected: &str, faults: &mut Faults) -> Option<Vec<String>> {
    let place = node.clone();
    let items = node.items(faults, expected)?;
    if items.is_empty() {
        place.fault(faults, expected);
    }
    let (mut hosts, mut seen) = (Vec::new(), BTreeSet::new());
    let count = items.len();
    for item in items {
        let again = item.clone();
        let host = item.text(faults, HOST, |text| {
            let every = text == "*" && count == 1;
            let host = text.strip_prefix("*.").unwrap_or(text);
            (every || is_host(host)).then(|| text.to_owned())
        });
        let Some(host) = host else { continue };
        if seen.insert(host.clone()) {
            hosts.push(host);
        } else {
            again.fault(faults, "each host once");
        }
    }
    Some(hosts)
}

fn istio(node: Node<'_>, faults: &mut Faults) -> Option<Istio> {
    const ISTIO: &str = "an object with `gateways`, such as {gateways: [portcullis]}";
    const GATEWAYS: &str = "a list of Gateways, such as [portcullis] or [istio-ingress/portcullis]";
    const SELECTOR: &str = "the labels of the gateway's pods, such as {istio: ingressgateway}";
    let mut fields = node.object(faults, ISTIO)?;
    let gateways = fields.required("gateways", faults, GATEWAYS).and_then(|node| {
        let place = node.clone();
        let items = node.items(faults, GATEWAYS)?;
        if items.is_empty() {
            place.fault(faults, GATEWAYS);
        }
        let gateway = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap_or(("namespace", text));
            (is_label(namespace) && is_host(name)).then(|| text.to_owned())
        };
        let expected = "the name of a Gateway, or NAMESPACE/NAME";
        items.into_iter().map(|item| item.text(faults, expected, gateway)).collect()
    });
    const WORKLOADS: &str = "the namespace of the gateway's pods, such as istio-ingress";
    let workload_namespace = field(&mut fields, "workload_namespace", |node| {
        node.text(faults, WORKLOADS, |text| is_label(text).then(|| text.to_owned()))
    });
    let selector = match fields.optional("selector") {
        Some(node) => {
            let members = node.clone().members(faults, SELECTOR)?;
            if members.is_empty() {
                node.fault(faults, SELECTOR);
            }
            let pair = |(name, node): (&str, Node<'_>)| {
                let value = node.text(faults, "a label's value", |text| {
                    is_label_value(text).then(|| text.to_owned())
                });
                Some((name.to_owned(), value?))
            };
            members.into_iter().map(pair).collect()
        }
        None => Some(vec![("istio".to_owned(), "ingressgateway".to_owned())]),
    };
    fields.finish(faults);
    let workload_namespace = optional(workload_namespace)?;
    Some(Istio { gateways: gateways?, workload_namespace, selector: selector? })
}

fn gateway_api(node: Node<'_>, faults: &mut Faults) -> Option<Vec<ParentRef>> {
    const EITHER: &str = "an object with `parent_refs`, such as {parent_refs: [{name: mcp}]}";
    const PARENTS: &str = "a list of Gateways, such as [{name: mcp, namespace: mcp}]";
    const PARENT: &str = "a Gateway: an object with `name`, such as {name: mcp}";
    const OBJECT: &str = "the name of a Gateway, such as mcp";
    const LISTENERS: &str = "the names of the listeners of the Gateway, such as [http]";
    let mut fields = node.object(faults, EITHER)?;
    let parents = fields.required("parent_refs", faults, PARENTS).and_then(|node| {
        let place = node.clone();
        let items = node.items(faults, PARENTS)?;
        if items.is_empty() {
            place.fault(faults, PARENTS);
        }
        let parent = |item: Node<'_>| {
            let mut fields = item.object(faults, PARENT)?;
            let object = |text: &str| is_host(text).then(|| text.to_owned());
            let name = fields.required("name", faults, OBJECT);
            let name = name.and_then(|node| node.text(faults, OBJECT, object));
            let namespace = field(&mut fields, "namespace", |node| {
                node.text(faults, "the namespace of the Gateway", object)
            });
            let section_name = field(&mut fields, "section_name", |node| {
                node.text(faults, "the name of a listener of the Gateway", object)
            });
            let listeners = field(&mut fields, "listeners", |node| {
                let items = node.items(faults, LISTENERS)?;
                let listener = |item: Node<'_>| item.text(faults, LISTENERS, object);
                items.into_iter().map(listener).collect::<Option<Vec<_>>>()
            });
            fields.finish(faults);
            Some(ParentRef {
                name: name?,
                namespace: namespace.0.flatten(),
                section_name: section_name.0.flatten(),
                listeners: listeners.0.flatten().unwrap_or_default(),
            })
        };
        items.into_iter().map(parent).collect()
    });
    fields.finish(faults);
    parents
}

fn connector<S>(
    name: &str,
    node: Node<'_>,
    server: impl Fn(ServerFields<'_>, &mut Faults) -> Option<S>,
    faults: &mut Faults,
) -> Option<Connector<S>> {
    const CONNECTOR: &str = "a connector: an object with `path` and `upstream`";
    const UPSTREAM: &str = "an object with `cluster` (Envoy) or `service` (Istio, Gateway API)";
    const PATH: &str = policy::Connector::PATH;
    if PolicyName::new(name).is_none() {
        faults.push(node.path(), format!("the name {name:?}"), PolicyName::EXPECTED);
    }
    let mut fields = node.object(faults, CONNECTOR)?;
    let path_of = |text: &str| policy::Connector::is_path(text).then(|| text.to_owned());
    let path = fields.required("path", faults, PATH);
    let path = path.and_then(|node| node.text(faults, PATH, path_of));
    let messages = field(&mut fields, "messages", |node| node.text(faults, PATH, path_of));
    let idle = field(&mut fields, "idle_timeout", |node| idle_timeout(node, faults));
    let upstream = fields.required("upstream", faults, UPSTREAM);
    let upstream = upstream.and_then(|node| upstream_of(node, UPSTREAM, server, faults));
    fields.finish(faults);
    let (server, rewrite) = upstream?;
    let messages = optional(messages)?;
    Some(Connector {
        name: name.to_owned(),
        path: path?,
        messages,
        server,
        rewrite,
        idle: optional(idle)?.unwrap_or_default(),
    })
}

/// `None` when the field has a fault.
fn optional<T>(field: Field<T>) -> Option<Option<T>> {
    match field.0 {
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
        None => Some(None),
    }
}

fn upstream_of<S>(
    node: Node<'_>,
    expected: &str,
    server: impl Fn(ServerFields<'_>, &mut Faults) -> Option<S>,
    faults: &mut Faults,
) -> Option<(S, Rewrite)> {
    const CLUSTER: &str = "the name of an Envoy cluster, such as crm";
    const PATH: &str = "the path of the server's endpoint, such as /mcp";
    const HOST: &str =
        "the Host that the server gets, in lower case, such as crm.example or localhost:8080";
    let place = node.path().to_owned();
    let mut fields = node.object(faults, expected)?;
    let cluster = field(&mut fields, "cluster", |node| {
        node.text(faults, CLUSTER, |text| is_cluster(text).then(|| text.to_owned()))
    });
    let service = field(&mut fields, "service", |node| service(node, faults));
    let mut path = |name| {
        field(&mut fields, name, |node| {
            node.text(faults, PATH, |text| is_upstream_path(text).then(|| text.to_owned()))
        })
    };
    let (path, messages) = (path("path"), path("messages"));
    let host = field(&mut fields, "host", |node| node.text(faults, HOST, host_and_port));
    fields.finish(faults);
    let sent = host.0.as_ref().and_then(Option::as_deref);
    let server = server(ServerFields { path: place, cluster, service, host: sent }, faults);
    let rewrite =
        Rewrite { path: optional(path)?, messages: optional(messages)?, host: optional(host)? };
    Some((server?, rewrite))
}

fn service(node: Node<'_>, faults: &mut Faults) -> Option<Service> {
    const SERVICE: &str =
        "an object with `host` and `port`, such as {host: crm.mcp.svc.cluster.local, port: 8080}";
    const HOST: &str = "the host of a server, in lower case, such as crm.mcp.svc.cluster.local";
    const PORT: &str = "the port of a server, from 1 to 65535";
    let mut fields = node.object(faults, SERVICE)?;
    let host = fields.required("host", faults, HOST);
    let host = host
        .and_then(|node| node.text(faults, HOST, |text| is_host(text).then(|| text.to_owned())));
    let port = fields.required("port", faults, PORT).and_then(|node| {
        let port = node.value().as_u64().filter(|port| (1..=65_535).contains(port));
        if port.is_none() {
            node.fault(faults, PORT);
        }
        port
    });
    fields.finish(faults);
    Some(Service { host: host?, port: port? })
}

fn idle_timeout(node: Node<'_>, faults: &mut Faults) -> Option<IdleTimeout> {
    const EITHER: &str =
        "an object with `answer`, `listen` or both, such as {answer: 120s, listen: 1h}";
    const TIME: &str = "a time from 1s to 24h, such as 120s, 10m or 1h";
    let mut fields = node.object(faults, EITHER)?;
    let mut time =
        |name| optional(field(&mut fields, name, |node| node.text(faults, TIME, seconds)));
    let (answer, listen) = (time("answer"), time("listen"));
    fields.finish(faults);
    let default = IdleTimeout::default();
    Some(IdleTimeout {
        answer: answer?.unwrap_or(default.answer),
        listen: listen?.unwrap_or(default.listen),
    })
}

/// Checks that each path and each route name exists once.
fn distinct<S>(connectors: &[Connector<S>], faults: &mut Faults) {
    let mut paths = BTreeSet::new();
    for connector in connectors {
        let place = format!("connectors.{}", connector.name);
        for (field, path) in ["path", "messages"].into_iter().zip(connector.paths()) {
            if !paths.insert(path) {
                let expected = "a path that nothing else in this description has";
                faults.push(&format!("{place}.{field}"), format!("{path:?} again"), expected);
            }
        }
        for other in connectors {
            let rest = connector.name.strip_prefix(&other.name);
            if rest.is_some_and(|rest| super::route_names::SUFFIXES.contains(&rest)) {
                let expected = format!("another name: a route of {} has it", other.name);
                faults.push(&place, format!("the name {:?}", connector.name), expected);
            }
        }
    }
}

fn seconds(text: &str) -> Option<u64> {
    const LONGEST: u64 = 86_400;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}

fn kubernetes_name(text: &str) -> Option<String> {
    is_kubernetes_name(text).then(|| text.to_owned())
}

/// A Kubernetes name that leaves room for a suffix.
pub(super) fn is_kubernetes_name(text: &str) -> bool {
    const LONGEST: usize = 40;
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    text.len() <= LONGEST && starts && is_label(text)
}

/// The form of such a name, for error messages.
pub(super) const KUBERNETES_NAME: &str = NAME;

/// A label of DNS (RFC 1123) in lower case.
fn is_label(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| letter(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a host is an IPv4 address.
pub(super) fn is_address(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>().is_ok()
}

fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "1"));
    let has_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    (is_host(host) && has_port).then(|| text.to_owned())
}

/// A label value that Kubernetes accepts.
fn is_label_value(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends(text.bytes().next())
        && ends(text.bytes().next_back())
}

fn is_cluster(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/|".contains(&byte))
}

/// A path like a connector's; it may also be `/`, or end with a slash.
fn is_upstream_path(text: &str) -> bool {
    text == "/" || policy::Connector::is_plain_path(text.strip_suffix('/').unwrap_or(text))
}
