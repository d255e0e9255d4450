//! The form of `auth.certificates` in the plugin configuration.
//!
//! Owns the allowed values. Decides nothing about a certificate.

use wildmatch::WildMatch;

use super::{CertificateConfig, CertificateMode, Forwarded, IdentityRule, Match, Segments};
use crate::auth::certificate::Fingerprint;
use crate::auth::certificate::xfcc::Elements;
use crate::auth::source::{SourceRange, SourceRanges};
use crate::decode::{Faults, Fields, Node};
use crate::id::{OrgId, PolicyName};

const WHOLE: &str = "an object with `mode`";
const IDENTITIES: &str = "a list of at least one identity";
const IDENTITY: &str = "an object with `match`, `org`, `role` and `tier`";
const URI: &str = "a URI; * stands for part of one segment, such as spiffe://acme.example/agent/*";
const DNS: &str = "a DNS name; * stands for part of one label, such as *.agents.acme.example";
const CN: &str = "a common name; * and ? are wildcards";

/// Reads `auth.certificates`.
pub fn read(node: Node<'_>, faults: &mut Faults) -> Option<CertificateConfig> {
    const MODE: &str = "off, optional or required";
    let mut fields = node.object(faults, WHOLE)?;
    let mode = fields.required("mode", faults, MODE).and_then(|node| {
        node.text(faults, MODE, |text| match text {
            "off" => Some(CertificateMode::Off),
            "optional" => Some(CertificateMode::Optional),
            "required" => Some(CertificateMode::Required),
            _ => None,
        })
    });
    // When certificates count, at least one identity is required.
    let listed = match mode {
        Some(CertificateMode::Off) | None => fields.optional("identities"),
        Some(CertificateMode::Optional | CertificateMode::Required) => {
            fields.required("identities", faults, IDENTITIES)
        }
    };
    let identities = match listed {
        Some(node) => identities(node, faults, mode),
        None => Some(Vec::new()),
    };
    let forwarded = match fields.optional("forwarded") {
        Some(node) => forwarded(node, faults).map(Some),
        None => Some(None),
    };
    fields.finish(faults);
    Some(CertificateConfig { mode: mode?, identities: identities?, forwarded: forwarded? })
}

fn identities(
    node: Node<'_>,
    faults: &mut Faults,
    mode: Option<CertificateMode>,
) -> Option<Vec<IdentityRule>> {
    let items = node.clone().items(faults, IDENTITIES)?;
    if items.is_empty() && mode != Some(CertificateMode::Off) {
        node.fault(faults, IDENTITIES);
    }
    let read: Vec<_> = items.into_iter().map(|item| identity(item, faults)).collect();
    read.into_iter().collect()
}

fn identity(node: Node<'_>, faults: &mut Faults) -> Option<IdentityRule> {
    const NAME: &str = "1 to 128 printable characters; without it the name is what matched";
    let mut fields = node.object(faults, IDENTITY)?;
    let matcher = fields
        .required("match", faults, Match::EXPECTED)
        .and_then(|node| Match::read(node, faults));
    let org = fields
        .required("org", faults, OrgId::EXPECTED)
        .and_then(|node| node.text(faults, OrgId::EXPECTED, OrgId::new));
    let role = policy_name(&mut fields, "role", faults);
    let tier = policy_name(&mut fields, "tier", faults);
    let name = match fields.optional("name") {
        Some(node) => node.text(faults, NAME, printable).map(Some),
        None => Some(None),
    };
    fields.finish(faults);
    Some(IdentityRule { matcher: matcher?, org: org?, role: role?, tier: tier?, name: name? })
}

fn policy_name(
    fields: &mut Fields<'_>,
    name: &'static str,
    faults: &mut Faults,
) -> Option<PolicyName> {
    let node = fields.required(name, faults, PolicyName::EXPECTED)?;
    node.text(faults, PolicyName::EXPECTED, PolicyName::new)
}

fn printable(text: &str) -> Option<String> {
    let fit = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    fit.then(|| text.to_owned())
}

impl Match {
    const EXPECTED: &'static str =
        "an object with `uri`, `dns`, `cn` or `sha256`; all of them match";

    fn read(node: Node<'_>, faults: &mut Faults) -> Option<Self> {
        let path = node.path().to_owned();
        let mut fields = node.object(faults, Self::EXPECTED)?;
        let uri = glob(&mut fields, "uri", URI, faults, |text| {
            (text.contains("://") && names_somebody(text)).then(|| Segments::uri(text))
        });
        let dns = glob(&mut fields, "dns", DNS, faults, |text| {
            let plain = !text.contains(['/', ' ', ':', '@']);
            (plain && names_somebody(text)).then(|| Segments::dns(text))
        });
        let common_name = glob(&mut fields, "cn", CN, faults, |text| {
            (!text.is_empty()).then(|| WildMatch::new(text))
        });
        let sha256 =
            glob(&mut fields, "sha256", Fingerprint::EXPECTED, faults, Fingerprint::from_hex);
        fields.finish(faults);
        let read = Self { uri: uri?, dns: dns?, common_name: common_name?, sha256: sha256? };
        if read == Self::default() {
            faults.push(&path, "nothing to match", Self::EXPECTED);
            return None;
        }
        Some(read)
    }
}

/// A URI or DNS pattern of only wildcards would match every certificate.
fn names_somebody(glob: &str) -> bool {
    let scheme_less = glob.split_once("://").map_or(glob, |(_, rest)| rest);
    scheme_less.contains(|c: char| c.is_alphanumeric())
}

/// An optional member: absent, read, or a fault.
#[expect(clippy::option_option, reason = "absent and faulty are two things")]
fn glob<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    expected: &str,
    faults: &mut Faults,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<Option<T>> {
    match fields.optional(name) {
        Some(node) => node.text(faults, expected, read).map(Some),
        None => Some(None),
    }
}

fn forwarded(node: Node<'_>, faults: &mut Faults) -> Option<Forwarded> {
    const EXPECTED: &str = "an object with `trusted_uris` or `trusted_addresses`";
    const TRUSTED: &str = "the URI of a proxy's certificate, without wildcards";
    const ELEMENTS: &str = "one or last";
    let mut fields = node.object(faults, EXPECTED)?;
    let uris = list(&mut fields, "trusted_uris", TRUSTED, faults, |text| {
        (text.contains("://") && !text.contains(['*', '?'])).then(|| text.to_owned())
    });
    let ranges =
        list(&mut fields, "trusted_addresses", SourceRange::EXPECTED, faults, SourceRange::new);
    let elements = match fields.optional("elements") {
        Some(node) => node.text(faults, ELEMENTS, |text| match text {
            "one" => Some(Elements::One),
            "last" => Some(Elements::Last),
            _ => None,
        }),
        None => Some(Elements::default()),
    };
    fields.finish(faults);
    let (trusted_uris, ranges) = (uris?, ranges?);
    let trusted_addresses = SourceRanges::new(ranges);
    Some(Forwarded { trusted_uris, trusted_addresses, elements: elements? })
}

fn list<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    expected: &str,
    faults: &mut Faults,
    read: fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(node) = fields.optional(name) else { return Some(Vec::new()) };
    let items = node.items(faults, "a list")?;
    let read: Vec<_> = items.into_iter().map(|item| item.text(faults, expected, read)).collect();
    read.into_iter().collect()
}
