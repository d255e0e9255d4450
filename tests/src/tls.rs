//! TLS clients, with a given certificate or with none.
//!
//! Owns trust and client certificates. Knows nothing of HTTP.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_stack::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wire::{Stream, Wire, tcp};

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Stream for Tls {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// An address for TLS, and the authority to trust there.
#[derive(Clone, Debug)]
pub struct TlsClient {
    address: SocketAddr,
    trusted: PathBuf,
}

impl TlsClient {
    /// Trusts certificates of the authority in the file `trusted`.
    pub fn new(address: SocketAddr, trusted: &Path) -> Self {
        Self { address, trusted: trusted.to_owned() }
    }

    /// Connects as `identity`, or without a certificate. With TLS 1.3 a server that rejects a certificate sends the
    /// alert instead of its first answer.
    pub fn connect(&self, identity: Option<&Identity>) -> io::Result<Wire> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let config = Arc::new(self.config(identity)?);
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Wire::over(Tls::new(session, tcp(self.address)?)))
    }

    fn config(&self, identity: Option<&Identity>) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.trusted)?).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        match identity {
            None => Ok(config.with_no_client_auth()),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.private_key);
                let chain = vec![certificate(&identity.certificate)?];
                config
                    .with_client_auth_cert(chain, key.map_err(io::Error::other)?)
                    .map_err(io::Error::other)
            }
        }
    }
}

fn certificate(file: &Path) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).map_err(io::Error::other)
}
