//! The configuration of client certificates and the identities that they map to.
//!
//! Owns the configuration `auth.certificates` and its rules: which proxies are trusted, the identity of a certificate,
//! and the requirements for a certificate next to a key or a token. Reads no header and no property.

mod form;

use super::{CertificateFailure, Fingerprint, PeerCertificate, xfcc};
use crate::auth::source::SourceRanges;
use crate::id::{OrgId, PolicyName};
use wildmatch::WildMatch;

pub use form::read;

/// The operator's settings for client certificates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CertificateConfig {
    /// Whether certificates are used.
    pub mode: CertificateMode,
    /// The identities; the first rule that matches decides.
    pub identities: Vec<IdentityRule>,
    /// The proxies that may forward a client's certificate; none when absent.
    pub forwarded: Option<Forwarded>,
}

/// Whether client certificates are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateMode {
    /// No certificate is read.
    #[default]
    Off,
    /// A certificate identifies a caller without another credential.
    Optional,
    /// Every request needs a certificate, with or without another credential.
    Required,
}

/// A set of certificates and their identity.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityRule {
    matcher: Match,
    org: OrgId,
    role: PolicyName,
    tier: PolicyName,
    name: Option<String>,
}

/// The conditions on a certificate; all that are set must match.
#[derive(Clone, Debug, Default, PartialEq)]
struct Match {
    uri: Option<Segments>,
    dns: Option<Segments>,
    common_name: Option<WildMatch>,
    sha256: Option<Fingerprint>,
}

/// Proxies in front of this one that forward their clients' certificates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forwarded {
    /// URIs of the proxies' own certificates, byte for byte.
    trusted_uris: Vec<String>,
    /// Addresses of the proxies.
    trusted_addresses: SourceRanges,
    elements: xfcc::Elements,
}

/// The identity of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The organisation.
    pub org: OrgId,
    /// The role.
    pub role: PolicyName,
    /// The tier.
    pub tier: PolicyName,
    /// The client's name: the rule's, or what matched.
    pub name: String,
}

/// The known facts about the peer of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its certificate, as Envoy verified it.
    pub certificate: Option<&'a PeerCertificate>,
    /// Its address, without port.
    pub address: &'a str,
}

impl CertificateConfig {
    /// The certificate that counts for a request: the peer's own or, when the peer is a trusted proxy, the one in its
    /// `x-forwarded-client-cert`. A trusted proxy's own certificate never counts: without the header its client has no
    /// certificate. The header of any other peer is ignored.
    ///
    /// # Errors
    /// [`CertificateFailure::Forwarded`] when a trusted proxy's header is not unambiguous.
    pub fn presented(
        &self,
        peer: Peer<'_>,
        forwarded: &[&[u8]],
    ) -> Result<Option<PeerCertificate>, CertificateFailure> {
        match (self.mode, &self.forwarded) {
            (CertificateMode::Off, _) => Ok(None),
            (CertificateMode::Optional | CertificateMode::Required, Some(proxies))
                if proxies.trust(peer) =>
            {
                match forwarded {
                    [] => Ok(None),
                    [header] => xfcc::parse(header, proxies.elements).map(Some),
                    [..] => Err(CertificateFailure::Forwarded),
                }
            }
            (CertificateMode::Optional | CertificateMode::Required, _) => {
                Ok(peer.certificate.cloned())
            }
        }
    }

    /// The identity of `certificate`, for a request without another credential.
    ///
    /// # Errors
    /// [`CertificateFailure::Unmapped`] when no rule matches.
    pub fn identify(
        &self,
        certificate: &PeerCertificate,
    ) -> Result<CertificateIdentity, CertificateFailure> {
        let mut rules = self.identities.iter();
        rules.find_map(|rule| rule.identify(certificate)).ok_or(CertificateFailure::Unmapped)
    }

    /// Whether `certificate` is acceptable with a key or token of `org`, which is `bound` to a certificate or to none.
    ///
    /// The issuer of the key or token decides on a binding, so it holds in every mode: where no certificate counts, a
    /// bound credential is not accepted. In any mode a certificate that belongs to another organisation is a sign that
    /// one of the two was stolen.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn beside(
        &self,
        org: &OrgId,
        bound: Option<&Fingerprint>,
        certificate: Option<&PeerCertificate>,
    ) -> Result<(), CertificateFailure> {
        if bound.is_some_and(|bound| certificate.map(|found| &found.sha256) != Some(bound)) {
            return Err(CertificateFailure::OtherCertificate);
        }
        let known = match (self.mode, certificate) {
            (CertificateMode::Off, _) | (CertificateMode::Optional, None) => return Ok(()),
            (CertificateMode::Required, None) => return Err(CertificateFailure::Missing),
            (CertificateMode::Required, Some(certificate)) => self.identify(certificate)?,
            (CertificateMode::Optional, Some(certificate)) => match self.identify(certificate) {
                Ok(known) => known,
                // Such as the one that a service mesh gives to every workload.
                Err(_) => return Ok(()),
            },
        };
        if known.org == *org { Ok(()) } else { Err(CertificateFailure::OtherOrganisation) }
    }
}

impl Forwarded {
    /// Whether `peer` is one of the proxies, by its own certificate or by its address.
    fn trust(&self, peer: Peer<'_>) -> bool {
        let uris = peer.certificate.map(|own| own.uri_sans.as_slice()).unwrap_or_default();
        let by_certificate = uris.iter().any(|uri| self.trusted_uris.contains(uri));
        by_certificate || self.trusted_addresses.contains(peer.address)
    }
}

impl IdentityRule {
    fn identify(&self, certificate: &PeerCertificate) -> Option<CertificateIdentity> {
        let matched = self.matcher.matched(certificate)?;
        Some(CertificateIdentity {
            org: self.org.clone(),
            role: self.role.clone(),
            tier: self.tier.clone(),
            name: self.name.clone().unwrap_or(matched),
        })
    }
}

impl Match {
    /// The name that matched, the most specific first; `None` when a condition that is set does not match.
    fn matched(&self, certificate: &PeerCertificate) -> Option<String> {
        let fingerprint =
            self.sha256.map(|pinned| (pinned == certificate.sha256).then_some(pinned));
        let fingerprint = fingerprint.map(|found| found.map(|print| print.to_string()));
        let uri = self.uri.as_ref().map(|glob| glob.first_of(&certificate.uri_sans));
        let dns = self.dns.as_ref().map(|glob| glob.first_of(&certificate.dns_sans));
        let common_name = self
            .common_name
            .as_ref()
            .map(|glob| certificate.common_name().filter(|name| glob.matches(name)));
        let set: Option<Vec<String>> =
            [uri, dns, common_name, fingerprint].into_iter().flatten().collect();
        set?.into_iter().next()
    }
}

/// A pattern whose wildcards stay within a segment: `*` in `spiffe://acme.example/agent/*` does not
/// stand for `a/b`, and in `*.acme.example` not for `a.b`.
#[derive(Clone, Debug, PartialEq)]
struct Segments {
    separator: char,
    segments: Vec<WildMatch>,
}

impl Segments {
    /// A URI, byte for byte.
    fn uri(glob: &str) -> Self {
        Self { separator: '/', segments: glob.split('/').map(WildMatch::new).collect() }
    }

    /// A DNS name, case-insensitive.
    fn dns(glob: &str) -> Self {
        let segments = glob.split('.').map(WildMatch::new_case_insensitive).collect();
        Self { separator: '.', segments }
    }

    fn first_of(&self, names: &[String]) -> Option<String> {
        names.iter().find(|name| self.matches(name)).cloned()
    }

    /// Refuses a certificate for `*.acme.example`, which identifies no single client, and a segment that a path could
    /// drop or use to climb (`.`, `..`).
    fn matches(&self, name: &str) -> bool {
        let segments: Vec<&str> = name.split(self.separator).collect();
        let plain = !name.contains('*') && !segments.iter().any(|part| matches!(*part, "." | ".."));
        let pairs = self.segments.iter().zip(&segments);
        plain
            && segments.len() == self.segments.len()
            && pairs.into_iter().all(|(glob, segment)| glob.matches(segment))
    }
}

#[cfg(test)]
mod tests;
