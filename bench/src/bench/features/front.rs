//! An Envoy between the loader and the measured Envoys that speaks HTTP/2 and TLS, so that the loader speaks HTTP/1.1
//! alone.
//!
//! Owns its configuration. Its CPU time is not measured.

use super::feature::Way;
use crate::rig::{Rig, bind};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Process, ready};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// The ways that lead through it.
const WAYS: [Way; 3] = [Way::Http2, Way::Http1Tls, Way::Http2Tls];

pub(super) struct Front {
    /// For each of [`WAYS`], the addresses that lead to the plain Envoy and to the gateway.
    addresses: [[SocketAddr; 2]; 3],
    _process: Process,
}

impl Front {
    /// `behind`: the plain Envoy and the gateway, each with its address without and with TLS.
    pub(super) fn start(rig: &Rig, behind: [(SocketAddr, SocketAddr); 2]) -> Result<Self> {
        let mut listeners = Vec::new();
        let mut clusters = Vec::new();
        let mut addresses = [[loopback(0); 2]; 3];
        for (way, addresses) in WAYS.iter().zip(&mut addresses) {
            for ((clear, tls), address) in behind.iter().zip(addresses) {
                *address = loopback(free_port()?);
                let name = format!("listener-{}", address.port());
                listeners.push(listener(&name, *address));
                clusters.push(match way {
                    Way::Http1 => continue,
                    Way::Http2 => cluster(&name, *clear, "http2_protocol_options", None),
                    Way::Http1Tls => {
                        cluster(&name, *tls, "http_protocol_options", Some("http/1.1"))
                    }
                    Way::Http2Tls => cluster(&name, *tls, "http2_protocol_options", Some("h2")),
                });
            }
        }
        let configuration =
            json!({"static_resources": {"listeners": listeners, "clusters": clusters}});
        let file = rig.dir.join("front.json");
        fs::write(&file, configuration.to_string()).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        let mut command = Command::new(&rig.tools.envoy);
        command.arg("--config-path").arg(&file);
        command.args(["--concurrency", "1", "--disable-hot-restart"]);
        let process = Process::spawn("front", command, &rig.dir.join("logs/front.log"))?;
        ready::process_is_ready(&process, READY_WITHIN, || {
            addresses.iter().flatten().all(|address| ready::accepts(*address))
        })?;
        bind(process.pid(), &rig.cpus.others)?;
        Ok(Self { addresses, _process: process })
    }

    /// What leads to the plain Envoy and to the gateway in this way.
    pub(super) fn addresses(&self, way: Way) -> [SocketAddr; 2] {
        let [http2, tls, http2_tls] = self.addresses;
        match way {
            Way::Http1 | Way::Http2 => http2,
            Way::Http1Tls => tls,
            Way::Http2Tls => http2_tls,
        }
    }
}

/// All requests of an address go to the cluster of the same name.
fn listener(name: &str, address: SocketAddr) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
            },
        }],
    });
    let filter = json!({"name": "http", "typed_config": manager});
    json!({
        "name": name,
        "address": socket(address),
        "per_connection_buffer_limit_bytes": 4_194_304,
        "filter_chains": [{"filters": [filter]}],
    })
}

fn cluster(name: &str, address: SocketAddr, protocol: &str, tls: Option<&str>) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let endpoint = json!({"endpoint": {"address": socket(address)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {protocol: {}},
        }},
    });
    if let Some(alpn) = tls {
        // The certificate is not checked: this measures the other end.
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"alpn_protocols": [alpn]},
            },
        });
    }
    cluster
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
