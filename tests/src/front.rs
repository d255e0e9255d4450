//! Gateways that take client certificates, and a real Envoy in front of one that forwards its clients' certificates
//! (XFCC).
//!
//! Owns their setup. `e2e/certificates.rs` has the expected decisions.

use std::fs;

use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Authority, Bootstrap, Envoy, EnvoyOptions, Identity};

use crate::gateway::{Answer, Gateway};
use crate::organisation::Organisation;
use crate::tls::TlsClient;
use crate::wire::Request;
use crate::world::{OwnEnvoy, Workers, World};
use std::io;
use std::time::Instant;

/// A gateway with TLS and its own organisation.
#[derive(Debug)]
pub struct TlsGateway {
    pub own: OwnEnvoy,
    pub org: Organisation,
    pub port: u16,
    client: TlsClient,
}

impl TlsGateway {
    /// One worker of the shared stack, with the identities that `identities` makes from the organisation's name.
    /// `adjust` sets further placeholders.
    pub fn start(
        world: &World<'_>,
        identities: impl FnOnce(&str) -> serde_json::Value,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
    ) -> Self {
        let org = world.organisation();
        let certificates = &world.stack().certificates;
        let port = port();
        let own = world.envoy(Workers::One, |settings| {
            let settings = settings.tls(port, certificates);
            adjust(settings.set("CERTIFICATE_IDENTITIES", identities(&org.name)))
        });
        let client = TlsClient::new(loopback(port), certificates.authority.certificate());
        let org = org.through(&own.gateway);
        Self { own, org, port, client }
    }

    /// One request over TLS.
    pub fn send(&self, identity: Option<&Identity>, request: &Request) -> io::Result<Answer> {
        send(&self.client, &self.own.gateway, identity, request)
    }
}

/// An Envoy in front of a [`TlsGateway`].
#[derive(Debug)]
pub struct FrontProxy {
    _envoy: Envoy,
    client: TlsClient,
    gateway: Gateway,
}

impl FrontProxy {
    /// `forward` is its `forward_client_cert_details`. It presents `identity` to the gateway.
    pub fn start(
        world: &World<'_>,
        behind: &TlsGateway,
        identity: &Identity,
        forward: &str,
    ) -> Self {
        let (stack, dir) = (world.stack(), world.dir());
        let template = dir.join("front-proxy-template.yaml");
        fs::write(&template, include_str!("front_proxy.yaml")).expect("write a template");
        let port = port();
        let bootstrap = Bootstrap::default()
            .tls(behind.port, &stack.certificates)
            .set("FORWARD_CLIENT_CERT", forward)
            .set("PROXY_CERTIFICATE", identity.certificate.display())
            .set("PROXY_PRIVATE_KEY", identity.private_key.display());
        let envoy = Envoy::start(EnvoyOptions {
            program: stack.options().tools.envoy.clone(),
            template,
            bootstrap,
            logs: dir.join("logs"),
            dir,
            name: format!("front-{}", forward.to_lowercase()),
            port,
            admin_port: self::port(),
            concurrency: 1,
        })
        .unwrap_or_else(|e| panic!("{e}"));
        let client = TlsClient::new(loopback(port), stack.certificates.authority.certificate());
        Self { _envoy: envoy, client, gateway: behind.own.gateway.clone() }
    }

    /// One request over TLS, through the proxy.
    pub fn send(&self, identity: Option<&Identity>, request: &Request) -> Answer {
        let answer = send(&self.client, &self.gateway, identity, request);
        answer.unwrap_or_else(|e| panic!("no answer through the proxy: {e}"))
    }
}

/// An authority that the gateway does not trust.
pub fn stranger(world: &World<'_>) -> Authority {
    let dir = world.dir().join("stranger");
    Authority::new(&dir, "stranger").unwrap_or_else(|e| panic!("{e}"))
}

fn send(
    client: &TlsClient,
    gateway: &Gateway,
    identity: Option<&Identity>,
    request: &Request,
) -> io::Result<Answer> {
    let sent = Instant::now();
    let reply = client.connect(identity)?.exchange(request)?;
    Ok(gateway.answer(reply, sent))
}

fn port() -> u16 {
    free_port().unwrap_or_else(|e| panic!("{e}"))
}
