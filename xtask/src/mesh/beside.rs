//! The neighbours of the gateway in some operations: TLS in front of Redis and OpenBao, a client of HTTP/3, third-party
//! servers and filters.
//!
//! Owns how each is made. The operations decide which one they need.

use crate::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Identity, Process, Tools, http, ready};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Ground;

const READY_WITHIN: Duration = Duration::from_secs(90);

/// An ext_authz server.
const SAYS_YES: &str = "import http.server, sys
class Yes(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()
    do_GET = do_POST
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Yes).serve_forever()
";

/// A server that allows every request.
pub(crate) fn ext_authz(tools: &Tools, logs: &Path) -> Result<(Process, SocketAddr)> {
    let address = loopback(free_port()?);
    let mut command = tools.python_command();
    command.args(["-c", SAYS_YES, &address.port().to_string()]);
    let process = Process::spawn("ext-authz", command, &logs.join("ext-authz.log"))?;
    ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))?;
    Ok((process, address))
}

/// A Wasm filter that does nothing: a module of the ABI 0.2.1 with memory and only the callback for contexts.
pub(crate) fn idle_module() -> Vec<u8> {
    let name = |text: &str, kind: u8, index: u8| {
        let mut bytes = vec![u8::try_from(text.len()).unwrap_or_default()];
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend([kind, index]);
        bytes
    };
    let exports = [
        name("memory", 2, 0),
        name("proxy_abi_version_0_2_1", 0, 0),
        name("proxy_on_memory_allocate", 0, 1),
        name("_initialize", 0, 2),
        name("proxy_on_context_create", 0, 3),
    ];
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, count: u8, parts: &[u8]| {
        module.extend([id, u8::try_from(parts.len().saturating_add(1)).unwrap_or_default(), count]);
        module.extend_from_slice(parts);
    };
    // () -> (), (i32) -> i32, (i32, i32) -> ()
    section(1, 3, &[0x60, 0, 0, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 0]);
    section(3, 4, &[0, 1, 0, 2]);
    section(5, 1, &[0, 1]);
    section(7, 5, &exports.concat());
    // Every allocation returns the address after the first kilobyte.
    section(10, 4, &[2, 0, 0x0b, 5, 0, 0x41, 0x80, 0x08, 0x0b, 2, 0, 0x0b, 2, 0, 0x0b]);
    module
}

/// TLS in front of Redis and OpenBao, only for clients with a certificate: the packaged Valkey has no TLS.
pub(crate) struct TlsFront {
    pub(crate) redis: SocketAddr,
    pub(crate) vault: SocketAddr,
    admin: SocketAddr,
    _process: Process,
}

impl TlsFront {
    pub(crate) fn start(ground: &Ground<'_>, name: &str) -> Result<Self> {
        let stack = &ground.stack;
        let server = stack.certificates.authority.server(&format!("tls-front-{name}"))?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let [redis, vault, admin] = ports.map(loopback);
        let tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": {"filename": server.certificate},
                    "private_key": {"filename": server.private_key},
                }],
                "validation_context": {
                    "trusted_ca": {"filename": stack.certificates.authority.certificate()},
                },
            },
        });
        let listener = |name: &str, at: SocketAddr| {
            json!({
                "name": name, "address": address(at),
                "filter_chains": [{
                    "transport_socket": {"name": "tls", "typed_config": tls},
                    "filters": [{"name": "tcp_proxy", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": name, "cluster": name,
                    }}],
                }],
            })
        };
        let configuration = json!({
            "admin": {"address": address(admin)},
            "static_resources": {
                "listeners": [listener("redis", redis), listener("vault", vault)],
                "clusters": [
                    cluster("redis", stack.valkey.address()),
                    cluster("vault", stack.openbao.address()),
                ],
            },
        });
        let process = envoy(ground, &format!("tls-front-{name}"), &configuration, redis)?;
        Ok(Self { redis, vault, admin, _process: process })
    }

    /// Whether both have served a client with a certificate.
    pub(crate) fn is_used(&self) -> bool {
        let stats =
            http::get(&format!("http://{}/stats?format=json&filter=ssl.handshake", self.admin));
        let stats = stats.map(|reply| reply.json()).unwrap_or_default();
        let none = Vec::new();
        let of = |at: SocketAddr| {
            let of_it = format!("_{}.ssl.handshake", at.port());
            stats["stats"].as_array().unwrap_or(&none).iter().any(|stat| {
                stat["name"].as_str().is_some_and(|name| name.ends_with(&of_it))
                    && stat["value"].as_u64().is_some_and(|value| value > 0)
            })
        };
        of(self.redis) && of(self.vault)
    }

    /// A shipped file with its lines for TLS, adapted to these two addresses.
    pub(crate) fn in_the_way(&self, ground: &Ground<'_>, text: &str) -> Result<String> {
        let stack = &ground.stack;
        let certificates = &stack.certificates;
        let place = |at: SocketAddr| format!("address: 127.0.0.1, port_value: {}}}", at.port());
        let file = |path: &Path| path.display().to_string();
        let mut text = text.replace("\n#tls ", "\n");
        for (old, new) in [
            (place(stack.valkey.address()), place(self.redis)),
            (place(stack.openbao.address()), place(self.vault)),
            (
                "/var/local/portcullis-tls/ca.crt".to_owned(),
                file(certificates.authority.certificate()),
            ),
            ("/var/local/portcullis-tls/tls.crt".to_owned(), file(&certificates.agent.certificate)),
            ("/var/local/portcullis-tls/tls.key".to_owned(), file(&certificates.agent.private_key)),
            ("sni: redis.portcullis.svc.cluster.local".to_owned(), "sni: localhost".to_owned()),
            ("sni: vault.vault.svc.cluster.local".to_owned(), "sni: localhost".to_owned()),
            ("exact: redis.portcullis.svc.cluster.local".to_owned(), "exact: localhost".to_owned()),
            ("exact: vault.vault.svc.cluster.local".to_owned(), "exact: localhost".to_owned()),
        ] {
            text = super::here::replaced(&text, &old, &new)?;
        }
        Ok(text)
    }
}

/// An Envoy that accepts plain HTTP and speaks HTTP/3 to a listener; returns its address as well.
pub(crate) fn http3_client(ground: &Ground<'_>, port: u16) -> Result<(Process, SocketAddr)> {
    let authority = ground.stack.certificates.authority.certificate();
    let mut http3 = cluster("http3", loopback(port));
    http3["typed_extension_protocol_options"] = protocol("http3_protocol_options");
    http3["transport_socket"] = json!({
        "name": "envoy.transport_sockets.quic",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
            "upstream_tls_context": {
                "sni": "localhost",
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": authority}}},
            },
        },
    });
    client(ground, "http3-client", &http_manager(), http3)
}

/// An Envoy that accepts plain HTTP and speaks mutual TLS to a sidecar, like the sidecar of a workload.
pub(crate) fn workload(
    ground: &Ground<'_>,
    name: &str,
    identity: &Identity,
    port: u16,
) -> Result<(Process, SocketAddr)> {
    let mut server = cluster("server", loopback(port));
    server["transport_socket"] = mutual_tls(ground, identity, "istio");
    client(ground, name, &http_manager(), server)
}

/// An Envoy that accepts connections and puts each into a tunnel (HBONE) to a waypoint, like ztunnel.
pub(crate) fn ztunnel(
    ground: &Ground<'_>,
    (identity, waypoint): (&Identity, SocketAddr),
    destination: &str,
) -> Result<(Process, SocketAddr)> {
    let mut server = cluster("server", waypoint);
    server["transport_socket"] = mutual_tls(ground, identity, "h2");
    server["typed_extension_protocol_options"] = protocol("http2_protocol_options");
    let proxy = json!({
        "name": "tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "ztunnel", "cluster": "server",
            "tunneling_config": {"hostname": destination},
        },
    });
    client(ground, "ztunnel", &proxy, server)
}

fn mutual_tls(ground: &Ground<'_>, identity: &Identity, alpn: &str) -> Value {
    let authority = ground.stack.certificates.authority.certificate();
    json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": [alpn],
                // A waypoint requires TLS 1.3.
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"filename": identity.certificate},
                    "private_key": {"filename": identity.private_key},
                }],
                "validation_context": {"trusted_ca": {"filename": authority}},
            },
        },
    })
}

fn protocol(options: &str) -> Value {
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {options: {}},
        },
    })
}

/// Routes everything to the one cluster.
fn http_manager() -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        // Forwards a client's own XFCC header to the gateway unchanged.
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "20s"}},
        ]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    });
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn client(
    ground: &Ground<'_>,
    name: &str,
    filter: &Value,
    mut server: Value,
) -> Result<(Process, SocketAddr)> {
    let at = loopback(free_port()?);
    server["name"] = json!("server");
    server["load_assignment"]["cluster_name"] = json!("server");
    let configuration = json!({"admin": {"address": address(loopback(free_port()?))}, "static_resources": {
        "listeners": [{
            "name": "client", "address": address(at), "filter_chains": [{"filters": [filter]}],
        }],
        "clusters": [server],
    }});
    let process = envoy(ground, name, &configuration, at)?;
    Ok((process, at))
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn cluster(name: &str, at: SocketAddr) -> Value {
    json!({
        "name": name, "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(at)}},
        ]}]},
    })
}

/// Starts an Envoy of a trial's own.
fn envoy(
    ground: &Ground<'_>,
    name: &str,
    configuration: &Value,
    listens: SocketAddr,
) -> Result<Process> {
    let config = ground.dir.join(format!("{name}.json"));
    fs::write(&config, configuration.to_string())
        .map_err(|error| Failure::new(format!("could not write {}: {error}", config.display())))?;
    let mut command = Command::new(&ground.tools.envoy);
    command.arg("--config-path").arg(&config);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
    let process = Process::spawn(name, command, &ground.logs.join(format!("{name}.log")))?;
    ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(listens))?;
    Ok(process)
}
