//! Certificates of the demo and the tests: made on demand, by authorities that nothing else trusts.
//!
//! Owns the form of a certificate for the gateway or for a client. Knows nothing about how the gateway uses it.

use crate::error::{During, Result, StackError};
use crate::files::write_private;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The names in the certificate of the demo's agent.
pub const DEMO_AGENT: Names<'_> = Names {
    common_name: Some("demo-agent"),
    uri: Some("spiffe://acme.example/agent/demo"),
    dns: Some("demo.agents.acme.example"),
};

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// SHA-256 of the DER form, in lower-case hex.
    pub sha256: String,
}

/// The names in a client's certificate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    pub common_name: Option<&'a str>,
    pub uri: Option<&'a str>,
    pub dns: Option<&'a str>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub enum Validity {
    /// Valid now, for longer than any run.
    Now,
    /// Expired years ago.
    Over,
}

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    certificate: PathBuf,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority, with its files in `dir`.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(dir).during(|| format!("create {}", dir.display()))?;
        let mut params = params(name, Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(refused)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(refused)?;
        let certificate = dir.join(format!("{name}.pem"));
        fs::write(&certificate, issuer.pem())
            .during(|| format!("write {}", certificate.display()))?;
        Ok(Self { issuer, dir: dir.to_owned(), certificate })
    }

    /// The authority's own certificate, for trust stores.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A certificate for a client.
    pub fn client(&self, file: &str, names: Names<'_>, validity: Validity) -> Result<Identity> {
        let mut params = params(names.common_name.unwrap_or_default(), validity);
        let text = |name: &str| name.try_into().map_err(refused);
        if let Some(uri) = names.uri {
            params.subject_alt_names.push(SanType::URI(text(uri)?));
        }
        if let Some(dns) = names.dns {
            params.subject_alt_names.push(SanType::DnsName(text(dns)?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, params)
    }

    /// A certificate for a workload of a mesh, which is a client and a server with the same name.
    pub fn workload(&self, file: &str, uri: &str) -> Result<Identity> {
        let mut params = params("", Validity::Now);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(refused)?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(file, params)
    }

    /// A certificate for a server on loopback.
    pub fn server(&self, file: &str) -> Result<Identity> {
        self.server_valid(file, Validity::Now)
    }

    /// As [`Authority::server`], with the given validity.
    pub fn server_valid(&self, file: &str, validity: Validity) -> Result<Identity> {
        let mut params = params("localhost", validity);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().map_err(refused)?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(file, params)
    }

    fn issue(&self, file: &str, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(refused)?;
        let issued = params.signed_by(&key, &self.issuer).map_err(refused)?;
        let certificate = self.dir.join(format!("{file}.pem"));
        let private_key = self.dir.join(format!("{file}-key.pem"));
        fs::write(&certificate, issued.pem())
            .during(|| format!("write {}", certificate.display()))?;
        write_private(&private_key, &key.serialize_pem())?;
        let sha256 = base16ct::lower::encode_string(&Sha256::digest(issued.der()));
        Ok(Identity { certificate, private_key, sha256 })
    }
}

/// The certificates of one stack.
#[derive(Debug)]
pub struct Certificates {
    /// Issues the certificates of the clients and of the gateway.
    pub authority: Authority,
    /// The gateway's certificate.
    pub server: Identity,
    /// The certificate of the demo's agent.
    pub agent: Identity,
}

impl Certificates {
    /// Makes all of them in `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        let authority = Authority::new(dir, "ca")?;
        let server = authority.server("server")?;
        let agent = authority.client("agent", DEMO_AGENT, Validity::Now)?;
        Ok(Self { authority, server, agent })
    }
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, "Portcullis demo, not for use");
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2025, 1, 1), date_time_ymd(2125, 1, 1)),
        Validity::Over => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
    };
    params
}

fn refused(error: impl fmt::Display) -> StackError {
    StackError::Refused { attempted: "make a certificate".to_owned(), answer: error.to_string() }
}
