//! Client certificates: names and headers from untrusted parties.
//!
//! Owns the generators of subjects, forwarded headers and names.

use portcullis_core::auth::certificate::subject::common_name;
use portcullis_core::auth::certificate::xfcc::{Elements, parse};
use portcullis_core::auth::certificate::{Fingerprint, PeerCertificate};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "0086d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A value as BoringSSL prints it (`XN_FLAG_RFC2253`).
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let escape = |(at, byte): (usize, u8)| match byte {
        b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => format!("\\{}", char::from(byte)),
        b' ' if at == 0 || at == last => "\\ ".to_owned(),
        b'#' if at == 0 => "\\#".to_owned(),
        0x20..0x7f => char::from(byte).to_string(),
        _ => format!("\\{byte:02X}"),
    };
    value.bytes().enumerate().map(escape).collect()
}

/// Names of real certificates, and names that attack a parser.
fn name() -> impl Strategy<Value = String> {
    let tricky = "[a-c ,;=+\\\\\"#<>/:.\\n]{0,12}";
    let fields = "(spiffe://a/b)?([,;](By|Hash|Subject|URI|DNS)=\"?[a-z:/,=]{0,6}\"?){0,3}";
    let element =
        "(By=x;)?".prop_map(|by| format!("spiffe://a/b,{by}Hash={OTHER};URI=spiffe://a/admin"));
    prop_oneof![any::<String>(), tricky, fields, element]
}

/// The element that Envoy would write for such a certificate.
fn written(common_name: &str, uri: &str) -> String {
    format!("By=spiffe://a/proxy;Hash={HASH};Subject=\"CN={}\";URI={uri}", escaped(common_name))
}

fn printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

proptest! {
    #![proptest_config(cases(1024))]

    // Proves: B8
    #[test]
    fn a_common_name_is_found_whatever_stands_beside_it(cn in name(), org in name(), first in any::<bool>()) {
        let (cn_text, org_text) = (format!("CN={}", escaped(&cn)), format!("O={}", escaped(&org)));
        let parts = if first { [cn_text, org_text] } else { [org_text, cn_text] };
        let found = common_name(&parts.join(","));
        prop_assert_eq!(found, printable(&cn).then_some(cn));
    }

    #[test]
    fn two_common_names_are_none(one in name(), two in name()) {
        prop_assert_eq!(common_name(&format!("CN={},CN={}", escaped(&one), escaped(&two))), None);
    }

    #[test]
    fn any_text_is_a_subject_or_not(text in prop_oneof![any::<String>(), "(CN|O|[=,+#\\\\\"a ]){0,12}"]) {
        let _ = common_name(&text);
    }

    /// Envoy escapes no name. A smuggled name may make the header unreadable, but never changes it into another
    /// certificate.
    #[test]
    fn a_name_never_forges_another_certificate(cn in name(), uri in name()) {
        let header = written(&cn, &uri);
        if let Ok(told) = parse(header.as_bytes(), Elements::One) {
            prop_assert_eq!(told.sha256, Fingerprint::from_hex(HASH).unwrap());
            prop_assert_eq!(told.subject, format!("CN={}", escaped(&cn)));
            prop_assert!(told.uri_sans.iter().all(|told| uri.starts_with(told.as_str())), "{:?}", told.uri_sans);
        }
    }

    #[test]
    fn what_a_client_sent_before_the_proxy_says_nothing(
        before in prop_oneof!["[ -~]{0,40}", name()],
    ) {
        let own = written("agent", "spiffe://a/agent");
        let header = format!("{before},{own}");
        if let Ok(told) = parse(header.as_bytes(), Elements::Last) {
            let alone = parse(own.as_bytes(), Elements::One);
            prop_assert_eq!(Ok(told), alone);
        }
    }

    #[test]
    fn any_bytes_are_a_header_or_not(bytes in vec(any::<u8>(), 0..80), text in name()) {
        for header in [bytes, text.into_bytes()] {
            let _ = parse(&header, Elements::One);
            let _ = parse(&header, Elements::Last);
            let _ = PeerCertificate::told(&[&header], &[], &header, &header);
        }
    }
}
