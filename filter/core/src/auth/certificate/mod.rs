//! Client certificates: the known facts about one, and the reasons for refusing one.
//!
//! Owns the facts and the failures. Envoy does the handshake and verifies the chain, unless it is misconfigured
//! (docs/guides/client-certificates.md). Nothing here parses X.509.

pub mod mapping;
pub mod subject;
pub mod xfcc;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The SHA-256 of a certificate in DER. It names the certificate and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The form of a valid fingerprint, for error messages.
    pub const EXPECTED: &'static str =
        "a SHA-256 fingerprint: 64 hex digits, also in pairs with colons, as openssl prints it";

    /// Reads 64 hex digits, with or without a colon after each pair.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = match text.contains(':') {
            true => joined(text)?,
            false => text.to_owned(),
        };
        let mut bytes = [0; 32];
        let decoded = base16ct::mixed::decode(digits, &mut bytes).ok()?;
        (decoded.len() == 32).then_some(Self(bytes))
    }

    /// Reads the `x5t#S256` of a token (RFC 8705 §3.1): base64url without padding.
    #[must_use]
    pub fn from_thumbprint(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The digits of `AA:BB:…`, which must be pairs.
fn joined(text: &str) -> Option<String> {
    text.split(':').map(|pair| (pair.len() == 2).then_some(pair)).collect()
}

/// 64 lower-case hex digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serialized in that form; parsed in any common form.
impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = Self::EXPECTED;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("expected {expected}")))
    }
}

/// A certificate whose private key the peer holds: the peer of the connection, or of a trusted proxy's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The known subject alternative names of type URI; Envoy reports only the first.
    pub uri_sans: Vec<String>,
    /// The known subject alternative names of type DNS; Envoy reports only the first.
    pub dns_sans: Vec<String>,
    /// The subject as RFC 2253 text; empty when there is none.
    pub subject: String,
    /// The fingerprint.
    pub sha256: Fingerprint,
}

impl PeerCertificate {
    /// A certificate from Envoy's properties or header. Empty names do not count.
    ///
    /// # Errors
    /// [`CertificateFailure::Unreadable`] for an invalid fingerprint, or for a name that is not UTF-8, not printable or
    /// longer than a SPIFFE ID may be.
    pub fn told(
        uri_sans: &[&[u8]],
        dns_sans: &[&[u8]],
        subject: &[u8],
        sha256: &[u8],
    ) -> Result<Self, CertificateFailure> {
        let names = |names: &[&[u8]]| {
            let names = names.iter().filter(|name| !name.is_empty());
            names.map(|name| plain(name).map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        let read = || {
            Some(Self {
                uri_sans: names(uri_sans)?,
                dns_sans: names(dns_sans)?,
                subject: plain(subject)?.to_owned(),
                sha256: Fingerprint::from_hex(std::str::from_utf8(sha256).ok()?)?,
            })
        };
        read().ok_or(CertificateFailure::Unreadable)
    }

    /// The common name of the subject, when there is exactly one that can be read.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        subject::common_name(&self.subject)
    }
}

/// The bytes as text, if it is safe in a log and a header.
fn plain(bytes: &[u8]) -> Option<&str> {
    /// SPIFFE ID §2.3: an id has at most 2048 bytes.
    const LONGEST: usize = 2_048;
    let text = std::str::from_utf8(bytes).ok()?;
    (text.len() <= LONGEST && !text.chars().any(char::is_control)).then_some(text)
}

/// The reason for refusing a request's certificate, or for refusing a request without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFailure {
    /// A certificate is required, and there is none.
    Missing,
    /// Envoy's data about the certificate cannot be read.
    Unreadable,
    /// The trusted proxy's `x-forwarded-client-cert` is not unambiguous.
    Forwarded,
    /// The certificate is valid, but no identity rule matches.
    Unmapped,
    /// It belongs to another organisation than the key or token of the request.
    OtherOrganisation,
    /// The key or token of the request is bound to another certificate, or is bound and there is none.
    OtherCertificate,
}

impl CertificateFailure {
    /// The stable name for the audit log and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "no_certificate",
            Self::Unreadable => "malformed_certificate",
            Self::Forwarded => "malformed_forwarded_certificate",
            Self::Unmapped => "unknown_certificate",
            Self::OtherOrganisation => "certificate_of_other_organisation",
            Self::OtherCertificate => "certificate_mismatch",
        }
    }

    /// Whether the key or token of the request was valid, so that the log may name its owner.
    #[must_use]
    pub const fn proves_holder(self) -> bool {
        match self {
            Self::OtherOrganisation | Self::OtherCertificate => true,
            Self::Missing | Self::Unreadable | Self::Forwarded | Self::Unmapped => false,
        }
    }

    /// The client's error message.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Missing => "A client certificate is required",
            Self::Unreadable | Self::Forwarded => "The client certificate is not readable",
            Self::Unmapped => "The client certificate is not known here",
            Self::OtherOrganisation | Self::OtherCertificate => {
                "The credential is not valid with this client certificate"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_fingerprint_has_several_spellings_and_one_value() {
        let print = Fingerprint::from_hex(HEX).unwrap();
        let pairs: Vec<&str> = (0..64).step_by(2).map(|at| &HEX[at..at + 2]).collect();
        assert_eq!(Fingerprint::from_hex(&pairs.join(":").to_uppercase()), Some(print));
        assert_eq!(
            Fingerprint::from_thumbprint("n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"),
            Some(print)
        );
        assert_eq!(print.to_string(), HEX);
        for bad in ["", &HEX[2..], &format!("{HEX}00"), &HEX.replace('9', "g"), &format!("{HEX}:")]
        {
            assert_eq!(Fingerprint::from_hex(bad), None, "{bad:?}");
        }
        assert_eq!(Fingerprint::from_hex(&HEX.replacen("9f8", "9:f8", 1)), None);
        for bad in ["", "n4bQ", "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg", HEX] {
            assert_eq!(Fingerprint::from_thumbprint(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_that_a_log_or_a_header_could_be_fooled_with_are_not_read() {
        let told = |uri: &[u8]| PeerCertificate::told(&[uri, b""], &[], b"CN=a", HEX.as_bytes());
        assert_eq!(told(b"spiffe://a/b").unwrap().uri_sans, ["spiffe://a/b"]);
        for bad in [b"a\0b".as_slice(), b"a\r\nb", b"\xff", &[b'a'; 2_049]] {
            assert_eq!(told(bad), Err(CertificateFailure::Unreadable));
        }
        let unknown = PeerCertificate::told(&[], &[], b"CN=a", b"");
        assert_eq!(unknown, Err(CertificateFailure::Unreadable));
    }
}
