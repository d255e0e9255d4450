//! TLS in front of a Redis without TLS: the packaged Valkey is built without it.
//!
//! Owns the certificate authority of one stack, and the Envoy that terminates TLS. It contains nothing of Portcullis:
//! the gateway and the operator's tool see a Redis that speaks TLS.

use crate::error::{During, Result, StackError};
use crate::files::write_private;
use crate::ports::{free_port, loopback};
use crate::process::Process;
use crate::ready;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The name in the certificate, beside the loopback address.
pub const REDIS_TLS_NAME: &str = "redis.internal";

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running TLS front.
#[derive(Debug)]
pub struct RedisTls {
    address: SocketAddr,
    authority: PathBuf,
    _process: Process,
}

impl RedisTls {
    /// Starts TLS termination in front of `server`.
    pub(crate) fn start(envoy: &Path, dir: &Path, logs: &Path, server: SocketAddr) -> Result<Self> {
        let authority = dir.join("redis-ca.pem");
        let (certificate, key) = (dir.join("redis.pem"), dir.join("redis.key"));
        let made = certificates().map_err(|error| StackError::Refused {
            attempted: "make certificates for Redis".to_owned(),
            answer: error.to_string(),
        })?;
        for (file, pem) in [(&authority, &made[0]), (&certificate, &made[1]), (&key, &made[2])] {
            write_private(file, pem)?;
        }
        let port = free_port()?;
        let config = dir.join("redis-tls.json");
        let text = configuration(port, server, &certificate, &key).to_string();
        fs::write(&config, text).during(|| format!("write {}", config.display()))?;
        let mut command = Command::new(envoy);
        command.arg("--config-path").arg(&config);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let process = Process::spawn("redis-tls", command, &logs.join("redis-tls.log"))?;
        let address = loopback(port);
        ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))?;
        Ok(Self { address, authority, _process: process })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority, PEM.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

/// PEM: the authority's certificate, the server's, the server's key.
fn certificates() -> std::result::Result<[String; 3], rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // A certificate whose issuer has the same name would count as self-signed.
    params.distinguished_name.push(DnType::CommonName, "an authority of one stack");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let names = vec![REDIS_TLS_NAME.to_owned(), loopback(0).ip().to_string()];
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    Ok([authority.pem(), server.pem(), key.serialize_pem()])
}

fn configuration(
    port: u16,
    server: SocketAddr,
    certificate: &Path,
    key: &Path,
) -> serde_json::Value {
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [{
            "certificate_chain": {"filename": certificate}, "private_key": {"filename": key},
        }]},
    });
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "redis", "cluster": "redis",
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "redis", "address": address(port),
            "filter_chains": [{
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "tcp_proxy", "typed_config": proxy}],
            }],
        }],
        "clusters": [{
            "name": "redis", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "redis", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(server.port())}},
            ]}]},
        }],
    }})
}
