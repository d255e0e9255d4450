//! Examples of `x-forwarded-client-cert`: as Envoy writes it, and as attackers might craft it.

use super::*;

const HASH: &str = "Hash=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn last(header: &str) -> Result<PeerCertificate, CertificateFailure> {
    parse(header.as_bytes(), Elements::Last)
}

#[test]
fn an_element_as_envoy_writes_it() {
    let header = format!(
        "By=spiffe://acme.example/proxy;{HASH};Cert=\"-----BEGIN%20CERTIFICATE-----%0A\";Chain=\"x\";\
         Subject=\"CN=a\\, \\\"b\\\";c,O=acme\";URI=spiffe://acme.example/agent/a;DNS=a.example;DNS=b.example"
    );
    let told = parse(header.as_bytes(), Elements::One).unwrap();
    assert_eq!(told.uri_sans, ["spiffe://acme.example/agent/a"]);
    assert_eq!(told.dns_sans, ["a.example", "b.example"]);
    assert_eq!(told.subject, "CN=a\\, \\\"b\\\";c,O=acme");
    assert_eq!(format!("Hash={}", told.sha256), HASH);
    // Without names Envoy still writes the field names.
    let empty = last(&format!("{HASH};Subject=\"\";URI=;DNS=")).unwrap();
    assert_eq!((empty.uri_sans.len(), empty.dns_sans.len(), empty.subject.as_str()), (0, 0, ""));
    let lower = last(&format!("by=x;{};uri=spiffe://a/b", HASH.to_lowercase())).unwrap();
    assert_eq!(lower.uri_sans, ["spiffe://a/b"]);
}

#[test]
fn of_several_elements_the_last_counts_when_several_may_be() {
    let header =
        format!("{HASH};URI=spiffe://a/admin,By=p;{HASH};Subject=\"O=x,CN=y\";URI=spiffe://a/b");
    let told = last(&header).unwrap();
    assert_eq!((told.uri_sans[0].as_str(), told.subject.as_str()), ("spiffe://a/b", "O=x,CN=y"));
    assert_eq!(last(&header.replace(",By", ", \tBy")), last(&header));
    let one = parse(header.as_bytes(), Elements::One);
    assert_eq!(one, Err(CertificateFailure::Forwarded));
}

#[test]
fn what_stands_in_quotes_is_no_structure() {
    let told =
        last(&format!("{HASH};Subject=\"CN=a;URI=spiffe://a/admin,{HASH};URI=spiffe://a/b\""));
    assert_eq!(told.unwrap().uri_sans, Vec::<String>::new());
    // RFC 2253 escapes backslash and quote in pairs, so a name cannot close the quotes.
    let told = last(&format!(r#"{HASH};Subject="CN=a\\";URI=spiffe://a/b"#)).unwrap();
    assert_eq!((told.subject.as_str(), told.uri_sans.len()), (r"CN=a\\", 1));
    let told = last(&format!(r#"{HASH};Subject="CN=a\";URI=spiffe://a/b""#)).unwrap();
    assert_eq!((told.subject.as_str(), told.uri_sans.len()), (r#"CN=a\";URI=spiffe://a/b"#, 0));
}

#[test]
fn what_is_not_one_clear_statement_is_refused() {
    let other = HASH.replace("9f86", "0000");
    for header in [
        "".to_owned(),
        ",".to_owned(),
        format!("{HASH},"),
        format!(",{HASH},"),
        "URI=spiffe://a/b".to_owned(),
        "Hash=;URI=spiffe://a/b".to_owned(),
        "Hash=abcd".to_owned(),
        format!("{HASH}00"),
        // A repeated field, even with the same value.
        format!("{HASH};{HASH}"),
        format!("{HASH};{other}"),
        format!("{HASH};Subject=\"CN=a\";Subject=\"CN=b\""),
        // A URI that smuggles in a field.
        format!("{HASH};URI=spiffe://a/b;URI=spiffe://a/admin"),
        format!("{HASH};URI=spiffe://a/b;Subject=\"CN=admin\""),
        format!("{HASH};URI=spiffe://a/b;{other}"),
        format!("{HASH};DNS=a.example;URI=spiffe://a/admin"),
        format!("{HASH};URI=spiffe://a/b?role=admin"),
        format!("{HASH};URI=\"spiffe://a/admin\""),
        format!("{HASH};DNS=\"a.example\""),
        // Another form.
        format!("{HASH};"),
        format!("{HASH};;URI=a"),
        format!("{HASH};URI"),
        format!("{HASH};Role=admin"),
        format!("{HASH}; URI=a"),
        format!("{HASH};URI =a"),
        format!("{HASH};Subject=\"CN=a"),
        format!("{HASH};Subject=CN=a"),
        format!("{HASH};Subject=a\"b\""),
        format!("{HASH};Subject=\"a\"b"),
        format!("{HASH};Subject=\"a\" ;URI=b"),
        format!("{HASH};\"Subject\"=a"),
        format!("{HASH};URI=a\u{0}b"),
        format!("{HASH};Subject=\"a\\"),
    ] {
        assert_eq!(last(&header), Err(CertificateFailure::Forwarded), "{header}");
    }
    assert_eq!(parse(b"\xff", Elements::Last), Err(CertificateFailure::Forwarded));
}
