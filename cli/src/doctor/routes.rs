//! Routes and connection managers of one Envoy: whether everything that leads to an MCP server is judged first.
//!
//! Owns what a route and a connection manager must look like. Reads the configuration dump alone.

use std::collections::BTreeSet;

use portcullis_core::config::{Config, Mode};
use portcullis_core::guard;
use serde_json::Value;

use super::Finding;
use super::dump::each_object;
use super::enabled::Enabled;

const ROOT: &str = "portcullis";
const ROUTER: &str = "envoy.filters.http.router";
const MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";
const PAGE: &str = "see docs/guides/guarded-routes.md";
/// What a connection buffers where nothing is set (Envoy, `per_connection_buffer_limit_bytes`).
const DEFAULT_BUFFER: u64 = 1 << 20;
/// The window of a stream of HTTP/2 where nothing is set (RFC 9113, section 6.5.2).
const DEFAULT_WINDOW: u64 = 65_535;

/// Looks at every route and every connection manager in `dump`; and which paths it serves.
pub(super) fn look(dump: &Value, config: &Config) -> (Vec<Finding>, Served) {
    let mut findings = Vec::new();
    let discovered = discovered(dump);
    let enabled = enabled(dump, &discovered);
    let mut tables = BTreeSet::new();
    each_object(dump, &mut |node| {
        if let Some(hosts) = node["virtual_hosts"].as_array() {
            let table = Table {
                config,
                enabled: &enabled,
                node,
                removes: removes_guard(node),
                mirrors: mirrors(node),
            };
            tables.extend(hosts.iter().flat_map(|host| routes(host, &table)));
            findings.extend(hosts.iter().filter_map(unread));
            findings.extend(hosts.iter().flat_map(|host| unjudged(host, &table)));
        }
    });
    let unread = !findings.is_empty();
    if config.guards.paths().next().is_none() {
        findings.push(Finding::warning(
            "envoy.guard",
            "none: where the filter is missing, routes lead to servers all the same",
            format!("set `guards`; {PAGE}"),
        ));
    } else {
        findings.extend(guarded(&tables, config));
        findings.extend(sealed(dump, &tables, &discovered));
    }
    let servers = servers(&tables);
    for route in tables.iter().filter(|it| it.leads_to(&servers) || it.takes_a_path(config)) {
        findings.extend(route.hurts());
    }
    each_object(dump, &mut |node| {
        if node["filter_chains"].is_array() || node["default_filter_chain"].is_object() {
            findings.extend(listener(node, &discovered, &enabled, config));
            findings.extend(raw_connections(node, &servers, &discovered));
        }
    });
    // A dump shows what the bootstrap has twice: there, and among the listeners.
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert((finding.check.clone(), finding.found.clone())));
    let paths = config.guards.paths().map(str::to_owned).collect();
    (findings, Served { routes: tables, paths, unread })
}

/// What one Envoy serves.
pub(super) struct Served {
    routes: BTreeSet<Route>,
    /// The paths that have a guard.
    paths: BTreeSet<String>,
    /// Whether there are routes that are not read here.
    unread: bool,
}

impl Served {
    /// The clusters that a judged request for `path` can be sent to, by route; `None` where that is unknown. A guard
    /// is set for the paths that have one, and without it no guarded route is met.
    pub(super) fn clusters_of(&self, path: &str) -> Option<Vec<&[String]>> {
        let has_guard = self.paths.contains(path);
        let met = self.routes.iter().filter(|it| it.matcher.meets(path));
        let met: Vec<_> = met.filter(|it| !it.is_guarded || has_guard).collect();
        (!self.unread).then(|| met.iter().map(|it| &*it.clusters).collect())
    }
}

impl Matcher {
    fn meets(&self, path: &str) -> bool {
        match self {
            Self::Path(own) => own == path,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Other => true,
        }
    }
}

/// A route that leads to clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    /// `HOST/NAME`, to find it by.
    name: String,
    matcher: Matcher,
    clusters: Vec<String>,
    /// Whether the filter is on for it.
    is_judged: bool,
    /// Whether it wants the guard.
    is_guarded: bool,
    seal: Seal,
    /// Headers of the filter's own that it matches on, but for the guard.
    own_headers: Vec<String>,
    /// What it has beyond leading there: retries, mirrors, upgrades, redirects, a limit of time.
    extras: Vec<Extra>,
}

/// What a guarded route says to the seal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seal {
    /// Its metadata has no guard that it takes.
    Absent,
    /// The guards in its metadata. Not for the eye.
    Guards(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matcher {
    Path(String),
    Prefix(String),
    /// A regular expression or a template: it may match anything.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extra {
    Retries,
    Mirror,
    Upgrade,
    Redirect,
    Timeout,
    /// The guard goes on to the server.
    Guard,
}

/// What a table of routes says for all of them.
struct Table<'a> {
    config: &'a Config,
    enabled: &'a Enabled,
    node: &'a Value,
    removes: bool,
    mirrors: bool,
}

fn removes_guard(node: &Value) -> bool {
    let removed = node["request_headers_to_remove"].as_array();
    removed.is_some_and(|names| names.iter().any(|name| name == guard::HEADER))
}

fn mirrors(node: &Value) -> bool {
    node["request_mirror_policies"].as_array().is_some_and(|list| !list.is_empty())
}

/// A virtual host whose routes are a tree of matchers.
fn unread(host: &Value) -> Option<Finding> {
    host.get("matcher")?;
    let check = format!("envoy.route {}", host["name"].as_str().unwrap_or("?"));
    let next = "see by hand that what leads to servers wants the guard, or list its routes";
    Some(Finding::unknown(&check, "its routes are a tree of matchers", next))
}

/// The routes of a virtual host that lead to clusters.
fn routes(host: &Value, table: &Table<'_>) -> Vec<Route> {
    let none = Vec::new();
    let routes = host["routes"].as_array().unwrap_or(&none).iter();
    routes.filter_map(|route| read(host, route, table)).collect()
}

fn read(host: &Value, route: &Value, table: &Table<'_>) -> Option<Route> {
    let action = route.get("route")?;
    let is_judged = table.enabled.on(route, host, table.node);
    let none = Vec::new();
    let weighted = action.pointer("/weighted_clusters/clusters").and_then(Value::as_array);
    let weighted = weighted.unwrap_or(&none).iter().filter_map(|cluster| cluster["name"].as_str());
    let clusters: Vec<String> =
        action["cluster"].as_str().into_iter().chain(weighted).map(str::to_owned).collect();
    let headers = route.pointer("/match/headers").and_then(Value::as_array).unwrap_or(&none);
    let names = || headers.iter().filter_map(|matcher| matcher["name"].as_str());
    let own = names().filter(|name| name.starts_with("x-portcullis-") && *name != guard::HEADER);
    let matcher = matcher(route);
    let is_guarded = headers.iter().any(|matcher| wants_guard(matcher, table.config));
    let mut extras = extras(action, host.get("retry_policy").is_some());
    if !extras.contains(&Extra::Mirror) && (table.mirrors || mirrors(host)) {
        extras.push(Extra::Mirror);
    }
    if is_guarded {
        // The filter refuses an upgrade, so that no upgrade ever has the guard.
        extras.retain(|extra| *extra != Extra::Upgrade);
    }
    if is_guarded && ![table.removes, removes_guard(host), removes_guard(route)].contains(&true) {
        extras.push(Extra::Guard);
    }
    let (host, name) =
        (host["name"].as_str().unwrap_or("?"), route["name"].as_str().unwrap_or("?"));
    Some(Route {
        name: format!("{host}/{name}"),
        matcher,
        is_judged,
        is_guarded,
        seal: seal(route, table.config),
        own_headers: own.map(str::to_owned).collect(),
        extras,
        clusters,
    })
}

fn matcher(route: &Value) -> Matcher {
    let field = |name: &str| route.pointer("/match").and_then(|matcher| matcher.get(name));
    let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
    let matcher = text("path").map(Matcher::Path).or_else(|| text("prefix").map(Matcher::Prefix));
    let matcher = matcher.or_else(|| text("path_separated_prefix").map(Matcher::Prefix));
    // A path without regard to case is many paths.
    let has_case = field("case_sensitive") != Some(&Value::Bool(false));
    matcher.filter(|_| has_case).unwrap_or(Matcher::Other)
}

/// Routes of guarded paths that answer by themselves what is not judged, and for which the filter is off: nothing is ever
/// judged there.
fn unjudged(host: &Value, table: &Table<'_>) -> Vec<Finding> {
    let none = Vec::new();
    let routes = host["routes"].as_array().unwrap_or(&none).iter();
    let answering = routes.filter(|route| route.get("direct_response").is_some());
    let of_a_path = answering.filter(|route| match matcher(route) {
        Matcher::Path(own) => table.config.guards.paths().any(|path| path == own),
        Matcher::Prefix(_) | Matcher::Other => false,
    });
    let off = of_a_path.filter(|route| !table.enabled.on(route, host, table.node));
    off.map(|route| {
        let name = |node: &Value| node["name"].as_str().unwrap_or("?").to_owned();
        let check = format!("envoy.route {}/{}", name(host), name(route));
        let next = "remove what switches it off: disabled: true in typed_per_filter_config, or a more specific policy";
        Finding::bad(&check, "the filter is off here: every call of the path gets the answer of this route", next)
    })
    .collect()
}

/// The guards in the metadata of a route.
fn seal(route: &Value, config: &Config) -> Seal {
    let place = format!("/metadata/filter_metadata/{}/{}", guard::METADATA, guard::METADATA_KEY);
    let values = route.pointer(&place).and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str);
    let values: Vec<String> =
        values.filter(|value| config.guards.has(value)).map(str::to_owned).collect();
    if values.is_empty() { Seal::Absent } else { Seal::Guards(values) }
}

/// A matcher that a request without one of the values does not meet.
fn wants_guard(matcher: &Value, config: &Config) -> bool {
    let is_wanted =
        matcher["invert_match"] != true && matcher["treat_missing_header_as_empty"] != true;
    let places = ["/string_match/exact", "/string_match/safe_regex/regex", "/exact_match"];
    let wanted = places.iter().find_map(|place| matcher.pointer(place)?.as_str());
    matcher["name"] == guard::HEADER
        && is_wanted
        && wanted.is_some_and(|wanted| config.guards.occur_in(wanted))
}

fn extras(action: &Value, host_retries: bool) -> Vec<Extra> {
    let retries = match action.get("retry_policy") {
        Some(policy) => {
            policy["retry_on"].as_str().is_some_and(|on| !on.is_empty())
                && policy["num_retries"] != 0
        }
        None => host_retries,
    };
    let filled = |name: &str| action[name].as_array().is_some_and(|list| !list.is_empty());
    let upgrades = action["upgrade_configs"]
        .as_array()
        .is_some_and(|upgrades| upgrades.iter().any(|upgrade| upgrade["enabled"] != false));
    let found = [
        (retries, Extra::Retries),
        (filled("request_mirror_policies"), Extra::Mirror),
        (upgrades, Extra::Upgrade),
        (action.get("internal_redirect_policy").is_some(), Extra::Redirect),
        (action["timeout"] != "0s", Extra::Timeout),
    ];
    found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, extra)| extra).collect()
}

/// The clusters that guarded routes lead to.
fn servers(tables: &BTreeSet<Route>) -> BTreeSet<String> {
    let guarded = tables.iter().filter(|route| route.is_guarded);
    guarded.flat_map(|route| route.clusters.clone()).collect()
}

/// Routes that lead to a server and want no guard, and paths that nothing leads to.
fn guarded(tables: &BTreeSet<Route>, config: &Config) -> Vec<Finding> {
    let servers = servers(tables);
    let open = tables.iter().filter(|route| !route.is_guarded);
    let open = open.filter(|route| route.leads_to(&servers) || route.takes_a_path(config));
    let mut findings: Vec<_> = open
        .map(|route| {
            let found = format!("to {}, and it wants no guard", route.clusters.join(", "));
            let next = format!("match on {}, or remove the route; {PAGE}", guard::HEADER);
            Finding::bad(&format!("envoy.route {}", route.name), found, next)
        })
        .collect();
    let own = tables.iter().filter(|route| !route.own_headers.is_empty());
    findings.extend(own.map(|route| {
        let found = format!(
            "it matches on {}, which the filter sets: a judged request may go to {}",
            route.own_headers.join(", "),
            route.clusters.join(", ")
        );
        let next = format!("match on what clients send; {PAGE}");
        Finding::bad(&format!("envoy.route {}", route.name), found, next)
    }));
    if findings.is_empty() {
        let count = tables.iter().filter(|route| route.is_guarded).count();
        findings.push(Finding::good("envoy.guard", format!("{count} routes want it")));
    }
    findings
}

/// Guarded routes that a judged request may be kept from: those without a seal, on any listener with the filter.
fn sealed(dump: &Value, tables: &BTreeSet<Route>, discovered: &BTreeSet<String>) -> Vec<Finding> {
    let next = format!("add the metadata and the filter of the seal; {PAGE}#seal-the-routes");
    let mut managers = Vec::new();
    each_object(dump, &mut |node| {
        if let Some(at) = position(node, discovered) {
            managers.push(refused_guards(node, at));
        }
    });
    let is_refused = |value: &String| managers.iter().all(|guards| guards.contains(value));
    let unsealed = tables.iter().filter(|route| route.is_guarded).filter_map(|route| {
        let found = match &route.seal {
            Seal::Absent => "it has no seal: another route may get a judged request of it",
            Seal::Guards(guards) if !guards.iter().all(is_refused) => {
                "no filter behind Portcullis checks its seal, on one listener at least"
            }
            Seal::Guards(_) => return None,
        };
        Some(Finding::warning(&format!("envoy.route {}", route.name), found, next.clone()))
    });
    let mut findings: Vec<_> = unsealed.collect();
    findings.extend(unsealing(dump, discovered));
    let any = tables.iter().any(|route| route.is_guarded) && !managers.is_empty();
    if findings.is_empty() && any {
        return vec![Finding::good("envoy.seal", "every guarded route has one")];
    }
    findings
}

/// Hosts and routes with words of their own for the seal: without rules, or disabled, it lets a judged request of another
/// route pass there.
fn unsealing(dump: &Value, discovered: &BTreeSet<String>) -> Vec<Finding> {
    let mut seals = BTreeSet::new();
    each_object(dump, &mut |node| {
        let Some(at) = position(node, discovered) else { return };
        let filters = node["http_filters"].as_array().into_iter().flatten();
        let behind = filters.skip(at.saturating_add(1)).filter(|filter| is_seal(filter));
        // Another RBAC filter there is a rule of others, and no seal.
        let behind = behind.filter(|filter| !sealed_guards(filter).is_empty());
        seals.extend(behind.filter_map(|filter| filter["name"].as_str()).map(str::to_owned));
    });
    let mut findings = Vec::new();
    each_object(dump, &mut |node| {
        let Some(own) = node["typed_per_filter_config"].as_object() else { return };
        for seal in seals.iter().filter(|seal| own.contains_key(*seal)) {
            let check = format!("envoy.route {}", node["name"].as_str().unwrap_or("?"));
            let found = format!(
                "it sets {seal} for itself: a judged request of another route may pass there"
            );
            let next = format!("remove {seal} from its typed_per_filter_config; {PAGE}");
            findings.push(Finding::warning(&check, found, next));
        }
    });
    findings
}

/// The guards that seals behind the filter refuse on other routes.
fn refused_guards(manager: &Value, at: usize) -> BTreeSet<String> {
    let none = Vec::new();
    let filters = manager["http_filters"].as_array().unwrap_or(&none);
    let seals = filters.iter().skip(at.saturating_add(1));
    let seals = seals.filter(|filter| is_seal(filter) && filter["disabled"] != true);
    seals.flat_map(sealed_guards).collect()
}

/// The guards that one filter refuses on other routes.
fn sealed_guards(filter: &Value) -> BTreeSet<String> {
    let mut guards = BTreeSet::new();
    // A dump leaves out what is a default: the action ALLOW.
    let rules = filter.pointer("/typed_config/rules").filter(|rules| rules["action"] == "DENY");
    if let Some(rules) = rules {
        for policy in rules["policies"].as_object().into_iter().flat_map(|it| it.values()) {
            let mut reads_route = false;
            let mut values = BTreeSet::new();
            each_object(policy, &mut |node| {
                reads_route |= node["metadata_source"] == "ROUTE"
                    && node.pointer("/metadata_matcher/filter") == Some(&guard::METADATA.into());
                if node["name"] == guard::HEADER {
                    let value = node.pointer("/string_match/exact").and_then(Value::as_str);
                    values.extend(value.map(str::to_owned));
                }
            });
            if reads_route {
                guards.extend(values);
            }
        }
    }
    guards
}

impl Route {
    fn leads_to(&self, servers: &BTreeSet<String>) -> bool {
        self.clusters.iter().any(|cluster| servers.contains(cluster))
    }

    /// Whether a request for a guarded path can meet it. Where the filter is off, nothing gets a credential, and only a route
    /// of that very path is taken for one to an MCP server.
    fn takes_a_path(&self, config: &Config) -> bool {
        config.guards.paths().any(|path| match &self.matcher {
            Matcher::Path(own) => own == path,
            Matcher::Prefix(prefix) => self.is_judged && path.starts_with(prefix.as_str()),
            Matcher::Other => self.is_judged,
        })
    }

    /// What a route to a server should not have.
    fn hurts(&self) -> Vec<Finding> {
        let told = |extra: &Extra| match extra {
            Extra::Retries => ("it retries: one call may run several times", "retries: none"),
            Extra::Mirror => (
                "it mirrors: another server gets a copy, with the credential",
                "no request_mirror_policies",
            ),
            Extra::Upgrade => (
                "it takes upgrades, which Portcullis does not judge",
                "upgrade_configs: enabled: false",
            ),
            Extra::Redirect => ("it follows redirects by itself", "no internal_redirect_policy"),
            Extra::Guard => (
                "the guard goes on to the server, which learns it",
                "request_headers_to_remove: [x-portcullis-guard]",
            ),
            Extra::Timeout => (
                "it ends an answer after a time (15 s where none is set)",
                "timeout: 0s, and an idle_timeout",
            ),
        };
        let finding = |extra| {
            let (found, next) = told(extra);
            Finding::warning(&format!("envoy.route {}", self.name), found, next)
        };
        self.extras.iter().map(finding).collect()
    }
}

/// The connection managers of a listener that run the filter.
fn listener(
    listener: &Value,
    discovered: &BTreeSet<String>,
    enabled: &Enabled,
    config: &Config,
) -> Vec<Finding> {
    let none = Vec::new();
    let name = listener["name"].as_str().unwrap_or("unnamed");
    let chains = listener["filter_chains"].as_array().unwrap_or(&none).iter();
    let chains = chains.chain(listener.get("default_filter_chain"));
    let filters = chains.flat_map(|chain| chain["filters"].as_array().unwrap_or(&none));
    let managers = filters.map(|filter| &filter["typed_config"]);
    let managers = managers
        .filter(|config| config["@type"].as_str().is_some_and(|name| name.ends_with(MANAGER)));
    let managers: Vec<_> =
        managers.filter_map(|manager| Some((manager, position(manager, discovered)?))).collect();
    if managers.is_empty() {
        return Vec::new();
    }
    let check = format!("envoy.listener {name}");
    let mut findings: Vec<_> =
        managers.iter().flat_map(|(it, at)| manager(it, *at, &check, (enabled, config))).collect();
    let buffer = listener["per_connection_buffer_limit_bytes"].as_u64().unwrap_or(DEFAULT_BUFFER);
    findings.extend(room(&check, "per_connection_buffer_limit_bytes", buffer, config));
    if findings.is_empty() {
        findings.push(Finding::good(check, "filter, order and limits are right"));
    }
    findings
}

/// Filter chains that put a connection through to a server as it is: Istio makes one beside the HTTP chain where a port does not
/// say its protocol.
fn raw_connections(
    listener: &Value,
    servers: &BTreeSet<String>,
    discovered: &BTreeSet<String>,
) -> Vec<Finding> {
    const PROXY: &str = ".tcp_proxy.v3.TcpProxy";
    let check = format!("envoy.listener {}", listener["name"].as_str().unwrap_or("unnamed"));
    let servers: BTreeSet<_> = servers.iter().map(|name| of_any_protocol(name)).collect();
    let (mut clusters, mut runs_the_filter) = (BTreeSet::new(), false);
    each_object(listener, &mut |node| {
        runs_the_filter |= position(node, discovered).is_some();
        if node["@type"].as_str().is_some_and(|name| name.ends_with(PROXY)) {
            let one = node["cluster"].as_str();
            let weighted = node.pointer("/weighted_clusters/clusters").and_then(Value::as_array);
            let weighted = weighted.into_iter().flatten().filter_map(|it| it["name"].as_str());
            let names = one.into_iter().chain(weighted);
            let led_to = names.filter(|name| servers.contains(&of_any_protocol(name)));
            clusters.extend(led_to.map(str::to_owned));
        }
    });
    let next = "give the port its protocol (appProtocol: http on Istio), or remove the filter chain with the TCP proxy";
    let finding = |name: String| {
        let found = format!("TCP connections reach {name} without the filter");
        // A listener of its own may be intended, such as a port for operators.
        match runs_the_filter {
            true => Finding::bad(&check, found, next),
            false => Finding::warning(&check, found, next),
        }
    };
    clusters.into_iter().map(finding).collect()
}

/// A waypoint has a cluster for each protocol of a port: `inbound-vip|PORT|PROTOCOL|HOST`.
fn of_any_protocol(cluster: &str) -> String {
    let parts: Vec<_> = cluster.split('|').collect();
    match parts[..] {
        ["inbound-vip", port, _, host] => format!("inbound-vip|{port}|*|{host}"),
        _ => cluster.to_owned(),
    }
}

/// The names under which Envoy discovers the filter (ECDS), as Istio sends it.
fn discovered(dump: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_object(dump, &mut |node| {
        if let Some(filter) = node.get("ecds_filter").filter(|filter| is_the_filter(filter)) {
            names.extend(filter["name"].as_str().map(str::to_owned));
        }
    });
    names
}

fn is_the_filter(filter: &Value) -> bool {
    let root = filter.pointer("/typed_config/config/root_id");
    root.or_else(|| filter.pointer("/typed_config/value/config/root_id"))
        .is_some_and(|root| root == ROOT)
}

/// Where the filter is on.
fn enabled(dump: &Value, discovered: &BTreeSet<String>) -> Enabled {
    let mut enabled = Enabled::default();
    each_object(dump, &mut |node| {
        let at = position(node, discovered);
        let filter = at.and_then(|at| node["http_filters"].as_array()?.get(at));
        if let Some(filter) = filter {
            enabled.stands(filter, node);
        }
    });
    each_object(dump, &mut |node| enabled.said(node));
    enabled
}

/// Where the filter stands among the HTTP filters.
fn position(manager: &Value, discovered: &BTreeSet<String>) -> Option<usize> {
    let filters = manager["http_filters"].as_array()?;
    filters.iter().position(|filter| {
        let is_discovered = filter.get("config_discovery").is_some()
            && filter["name"].as_str().is_some_and(|name| discovered.contains(name));
        is_discovered || is_the_filter(filter)
    })
}

fn manager(
    manager: &Value,
    at: usize,
    check: &str,
    (enabled, config): (&Enabled, &Config),
) -> Vec<Finding> {
    let none = Vec::new();
    let filters = manager["http_filters"].as_array().unwrap_or(&none);
    let mut findings = Vec::new();
    // Envoy Gateway disables each filter there, and routes enable it.
    let is_off = |filter: &Value| filter["disabled"] == true && !enabled.by_routes(filter);
    if filters.get(at).is_some_and(is_off) {
        let next = "remove disabled: true; to leave hosts out, disable it there";
        findings.push(Finding::bad(check, "the filter is disabled", next));
    }
    let after = filters.iter().skip(at.saturating_add(1)).filter(|filter| !is_seal(filter));
    let after = after.filter_map(|filter| filter["name"].as_str());
    let after: Vec<_> = after.filter(|name| *name != ROUTER).collect();
    if !after.is_empty() {
        let found =
            format!("behind the filter: {}; they see the connector's credential", after.join(", "));
        findings.push(Finding::warning(check, found, "put the filter just before the router"));
    }
    findings.extend(beside_split(filters, check, config));
    if config.guards.paths().next().is_some() && !removes_early(manager) {
        let found = "a client's own x-portcullis-guard stays until the filter: where the filter is off, a stolen guard opens a route";
        let next = "early_header_mutation_extensions: mutations: [{remove: x-portcullis-guard}]";
        findings.push(Finding::warning(check, found, next));
    }
    if manager["codec_type"] != "HTTP1" {
        let window = manager.pointer("/http2_protocol_options/initial_stream_window_size");
        let window = window.and_then(Value::as_u64).unwrap_or(DEFAULT_WINDOW);
        findings.extend(room(check, "initial_stream_window_size", window, config));
    }
    findings
}

/// Whether a client's own guard goes before a route is selected.
fn removes_early(manager: &Value) -> bool {
    let is_guard =
        |value: &Value| value.as_str().is_some_and(|name| name.eq_ignore_ascii_case(guard::HEADER));
    let mut removes = false;
    each_object(&manager["early_header_mutation_extensions"], &mut |node| {
        removes |= is_guard(&node["remove"]);
        // As Envoy Gateway removes headers.
        if let Some(matcher) = node.pointer("/remove_on_match/key_matcher") {
            let prefix = matcher["prefix"].as_str().map(str::to_ascii_lowercase);
            removes |= is_guard(&matcher["exact"])
                || prefix.is_some_and(|prefix| guard::HEADER.starts_with(&prefix));
        }
    });
    removes
}

/// Envoy's RBAC filter reads a request and sends it nowhere; behind Portcullis it seals routes.
fn is_seal(filter: &Value) -> bool {
    let place = filter.pointer("/typed_config/@type").and_then(Value::as_str);
    place.is_some_and(|name| name.ends_with(".rbac.v3.RBAC"))
}

/// In `split` mode the headers are gone when the body is judged. A filter that streams bodies by itself ends such a request
/// too early, on either side of Portcullis (envoyproxy/envoy#41654).
fn beside_split(filters: &[Value], check: &str, config: &Config) -> Option<Finding> {
    const STREAMS: &str = ".ext_proc.v3.ExternalProcessor";
    let is_stream = |filter: &&Value| {
        filter
            .pointer("/typed_config/@type")
            .and_then(Value::as_str)
            .is_some_and(|it| it.ends_with(STREAMS))
    };
    let name = filters.iter().find(is_stream)?["name"].as_str().unwrap_or("ext_proc");
    (config.mode == Mode::Split).then(|| {
        let found = format!("split mode beside {name}: requests may end early and fail");
        let next =
            "use hold mode with allow_on_headers_stop_iteration, or a listener without ext_proc";
        Finding::bad(check, found, next)
    })
}

/// Whether a body of the largest size that is judged fits.
fn room(check: &str, field: &str, bytes: u64, config: &Config) -> Option<Finding> {
    let wanted = u64::try_from(config.max_body_bytes).unwrap_or(u64::MAX);
    (bytes < wanted).then(|| {
        if config.mode == Mode::Split {
            let found = format!(
                "{field} is {bytes}, less than bodies may have in split mode: Envoy crashes"
            );
            let next = format!("host_buffer_bytes: {bytes}, or a larger {field}");
            return Finding::bad(check, found, next);
        }
        let found = format!("{field} is {bytes}, less than max_body_bytes: larger bodies fail");
        Finding::warning(check, found, format!("{field}: {}", wanted.saturating_mul(4)))
    })
}

#[cfg(test)]
mod tests;
