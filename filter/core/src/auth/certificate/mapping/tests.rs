//! Examples: the identity of a certificate, which certificate counts, and which are acceptable with a key.

use serde_json::{Value, json};

use super::*;
use crate::decode::{Faults, Node};

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn config(document: Value) -> CertificateConfig {
    let mut faults = Faults::default();
    let config = read(Node::root(&document), &mut faults);
    faults.unless(config).unwrap()
}

fn rule(matcher: Value, role: &str) -> Value {
    json!({"match": matcher, "org": "acme", "role": role, "tier": "pro"})
}

fn identities(rules: &[Value]) -> CertificateConfig {
    config(json!({"mode": "required", "identities": rules}))
}

fn certificate(uri: &str, dns: &str, subject: &str) -> PeerCertificate {
    let names = [uri.as_bytes()];
    let hosts = [dns.as_bytes()];
    PeerCertificate::told(&names, &hosts, subject.as_bytes(), HEX.as_bytes()).unwrap()
}

fn role_and_name(
    config: &CertificateConfig,
    certificate: &PeerCertificate,
) -> Option<(String, String)> {
    let identity = config.identify(certificate).ok()?;
    Some((identity.role.to_string(), identity.name))
}

// Proves: B8
#[test]
fn the_first_rule_that_matches_decides_and_names_the_client() {
    let config = identities(&[
        rule(json!({"uri": "spiffe://acme.example/agent/admin"}), "admin"),
        rule(json!({"uri": "spiffe://acme.example/agent/*"}), "analyst"),
        rule(json!({"dns": "*.agents.acme.example"}), "support"),
        rule(json!({"cn": "agent-*"}), "reader"),
        json!({"match": {"cn": "bot"}, "org": "acme", "role": "bot", "tier": "pro", "name": "the bot"}),
    ]);
    let found = |uri, dns, subject| role_and_name(&config, &certificate(uri, dns, subject));
    let is = |role: &str, name: &str| Some((role.to_owned(), name.to_owned()));
    let admin = "spiffe://acme.example/agent/admin";
    assert_eq!(found(admin, "", ""), is("admin", admin));
    let other = "spiffe://acme.example/agent/42";
    assert_eq!(found(other, "x.agents.acme.example", "CN=agent-1"), is("analyst", other));
    let host = "X.Agents.Acme.Example";
    assert_eq!(found("", host, "CN=agent-1"), is("support", host));
    assert_eq!(found("https://x", "", "O=acme,CN=agent-1"), is("reader", "agent-1"));
    assert_eq!(found("", "", "CN=bot"), is("bot", "the bot"));
    assert_eq!(found("", "", "CN=nobody"), None);
    assert_eq!(found("", "", ""), None);
}

#[test]
fn a_wildcard_stays_within_its_segment() {
    let config = identities(&[
        rule(json!({"uri": "spiffe://acme.example/ns/*/sa/agent"}), "a"),
        rule(json!({"dns": "*.acme.example"}), "b"),
    ]);
    let found = |uri, dns| config.identify(&certificate(uri, dns, "")).is_ok();
    assert!(found("spiffe://acme.example/ns/prod/sa/agent", ""));
    assert!(found("", "one.acme.example"));
    for uri in [
        "spiffe://acme.example/ns/prod/x/sa/agent",
        "spiffe://acme.example/ns/prod/sa/agent/",
        "spiffe://acme.example/ns/../sa/agent",
        "spiffe://ACME.example/ns/prod/sa/agent",
        "spiffe://acme.example.evil/ns/prod/sa/agent",
        "spiffe://acme.example/ns/prod/sa/agents",
    ] {
        assert!(!found(uri, ""), "{uri}");
    }
    for dns in ["a.b.acme.example", "acme.example", "*.acme.example", "one.acme.example.evil"] {
        assert!(!found("", dns), "{dns}");
    }
}

#[test]
fn a_pinned_certificate_has_to_be_the_one() {
    let other = HEX.replace("9f86", "0000");
    let pinned = |print: &str| identities(&[rule(json!({"cn": "agent-*", "sha256": print}), "a")]);
    let presented = certificate("", "", "CN=agent-1");
    assert_eq!(role_and_name(&pinned(HEX), &presented), Some(("a".into(), "agent-1".into())));
    assert_eq!(pinned(&other).identify(&presented), Err(CertificateFailure::Unmapped));
    let alone = identities(&[rule(json!({"sha256": HEX}), "a")]);
    assert_eq!(role_and_name(&alone, &presented), Some(("a".into(), HEX.into())));
    let mismatched = certificate("", "", "CN=bot");
    assert_eq!(pinned(HEX).identify(&mismatched), Err(CertificateFailure::Unmapped));
}

#[test]
fn only_a_trusted_proxy_speaks_for_another() {
    let config = config(json!({
        "mode": "optional",
        "identities": [rule(json!({"cn": "*"}), "a")],
        "forwarded": {"trusted_uris": ["spiffe://acme.example/proxy"], "trusted_addresses": ["10.0.0.0/8"]},
    }));
    let proxy = certificate("spiffe://acme.example/proxy", "", "CN=proxy");
    let agent = certificate("spiffe://acme.example/agent/1", "", "CN=agent-1");
    let header = format!("Hash={HEX};Subject=\"CN=forwarded\"");
    let told = [header.as_bytes()];
    let presented = |certificate, address, headers: &[&[u8]]| {
        let presented = config.presented(Peer { certificate, address }, headers);
        presented.map(|found| found.and_then(|found| found.common_name()))
    };
    let forwarded = Ok(Some("forwarded".to_owned()));
    assert_eq!(presented(Some(&proxy), "192.0.2.1", &told), forwarded);
    assert_eq!(presented(None, "10.1.2.3", &told), forwarded);
    assert_eq!(presented(None, "::ffff:10.1.2.3", &told), forwarded);
    // For any other peer its own certificate counts, whatever the header says.
    assert_eq!(presented(Some(&agent), "192.0.2.1", &told), Ok(Some("agent-1".to_owned())));
    assert_eq!(presented(None, "192.0.2.1", &told), Ok(None));
    // A proxy's own certificate does not count.
    assert_eq!(presented(Some(&proxy), "192.0.2.1", &[]), Ok(None));
    let twice = [told[0], told[0]];
    assert_eq!(presented(Some(&proxy), "10.0.0.1", &twice), Err(CertificateFailure::Forwarded));
    assert_eq!(presented(Some(&proxy), "10.0.0.1", &[b"x"]), Err(CertificateFailure::Forwarded));
}

#[test]
fn without_configuration_neither_header_nor_certificate_counts() {
    let nobody = config(json!({"mode": "optional", "identities": [rule(json!({"cn": "*"}), "a")]}));
    let agent = certificate("", "", "CN=agent-1");
    let header = format!("Hash={HEX};Subject=\"CN=admin\"");
    let told = [header.as_bytes()];
    let peer = Peer { certificate: Some(&agent), address: "10.0.0.1" };
    assert_eq!(nobody.presented(peer, &told), Ok(Some(agent.clone())));
    assert_eq!(nobody.presented(Peer { certificate: None, ..peer }, &told), Ok(None));
    assert_eq!(CertificateConfig::default().presented(peer, &told), Ok(None));
}

#[test]
fn beside_a_key_it_is_a_second_factor() {
    use CertificateFailure as F;
    let of = |mode: &str| {
        config(json!({"mode": mode, "identities": [rule(json!({"cn": "agent-1"}), "a")]}))
    };
    let (acme, other) = (OrgId::new("acme").unwrap(), OrgId::new("other").unwrap());
    let (mine, strange) = (certificate("", "", "CN=agent-1"), certificate("", "", "CN=x"));
    let required = of("required");
    assert_eq!(required.beside(&acme, None, Some(&mine)), Ok(()));
    assert_eq!(required.beside(&other, None, Some(&mine)), Err(F::OtherOrganisation));
    assert_eq!(required.beside(&acme, None, Some(&strange)), Err(F::Unmapped));
    assert_eq!(required.beside(&acme, None, None), Err(F::Missing));
    let optional = of("optional");
    assert_eq!(optional.beside(&acme, None, Some(&mine)), Ok(()));
    assert_eq!(optional.beside(&other, None, Some(&mine)), Err(F::OtherOrganisation));
    assert_eq!(optional.beside(&acme, None, Some(&strange)), Ok(()));
    assert_eq!(optional.beside(&acme, None, None), Ok(()));
    assert_eq!(CertificateConfig::default().beside(&acme, None, None), Ok(()));
}

#[test]
fn what_is_bound_to_a_certificate_needs_that_one_in_every_mode() {
    let acme = OrgId::new("acme").unwrap();
    let mine = certificate("", "", "CN=agent-1");
    let other = Fingerprint::from_hex(&HEX.replace("9f86", "0000")).unwrap();
    for mode in ["off", "optional", "required"] {
        let config =
            config(json!({"mode": mode, "identities": [rule(json!({"cn": "agent-1"}), "a")]}));
        let beside = |bound, certificate| config.beside(&acme, Some(bound), certificate);
        assert_eq!(beside(&mine.sha256, Some(&mine)), Ok(()));
        assert_eq!(beside(&other, Some(&mine)), Err(CertificateFailure::OtherCertificate));
        assert_eq!(beside(&mine.sha256, None), Err(CertificateFailure::OtherCertificate));
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let document = json!({
        "mode": "on",
        "identities": [
            {"match": {}, "org": "Acme", "role": "a", "tier": "b"},
            {"match": {"uri": "*://*/*", "dns": "*", "sha256": "x", "issuer": "y"}, "org": "acme"},
        ],
        "forwarded": {"trusted_addresses": ["10.0.0.1/8"], "elements": "all"},
        "ca": 1,
    });
    let mut faults = Faults::default();
    assert_eq!(read(Node::root(&document), &mut faults), None);
    let expected = "\
mode: found \"on\", expected off, optional or required
identities[0].match: found nothing to match, expected an object with `uri`, `dns`, `cn` or `sha256`; all of them match
identities[0].org: found \"Acme\", expected 1 to 32 lower-case letters, digits or hyphens, starting with a letter or digit
identities[1].match.uri: found \"*://*/*\", expected a URI; * stands for part of one segment, such as spiffe://acme.example/agent/*
identities[1].match.dns: found \"*\", expected a DNS name; * stands for part of one label, such as *.agents.acme.example
identities[1].match.sha256: found \"x\", expected a SHA-256 fingerprint: 64 hex digits, also in pairs with colons, as openssl prints it
identities[1].match.issuer: found an unknown field, expected one of uri, dns, cn, sha256
identities[1].role: found nothing, expected 1 to 64 letters, digits, `_` or `-`, starting with a letter or digit
identities[1].tier: found nothing, expected 1 to 64 letters, digits, `_` or `-`, starting with a letter or digit
forwarded.trusted_addresses[0]: found \"10.0.0.1/8\", expected an address or a range without host bits, such as 192.0.2.7, 10.1.0.0/16 or 2001:db8::/32
forwarded.elements: found \"all\", expected one or last
ca: found an unknown field, expected one of mode, identities, forwarded";
    assert_eq!(faults.to_string(), expected);
}

#[test]
fn what_would_let_nobody_in_is_a_fault() {
    let faults = |document: Value| {
        let mut faults = Faults::default();
        let _ = read(Node::root(&document), &mut faults);
        faults.to_string()
    };
    let required = faults(json!({"mode": "required"}));
    assert_eq!(required, "identities: found nothing, expected a list of at least one identity");
    let empty = faults(json!({"mode": "optional", "identities": []}));
    assert_eq!(empty, "identities: found a list of 0, expected a list of at least one identity");
    let off = json!({"mode": "off", "identities": [], "forwarded": {"trusted_uris": []}});
    assert_eq!(faults(off), "");
}
