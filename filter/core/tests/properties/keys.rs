//! API keys and references to secrets: texts that people paste.
//!
//! Owns what a typo may look like.

use portcullis_core::auth::api_key::{KeyDigest, PresentedKey, SECRET_LENGTH, mint};
use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::connector_credential::SecretPattern;
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::vault::SecretRef;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::cases;

prop_compose! {
    fn key()(
        org in "[a-z0-9][a-z0-9-]{0,31}",
        id in "[A-Za-z0-9]{4,32}",
        secret in "[A-Za-z0-9]{43}",
    ) -> (OrgId, KeyId, String) {
        assert_eq!(secret.len(), SECRET_LENGTH);
        let (org, id) = (OrgId::new(&org).unwrap(), KeyId::new(&id).unwrap());
        let text = mint(&org, &id, &secret).unwrap().expose().to_owned();
        (org, id, text)
    }
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: A1
    #[test]
    fn every_minted_key_reads_back((org, id, text) in key()) {
        let key = PresentedKey::parse(text.as_bytes()).unwrap();
        prop_assert_eq!((key.org, key.id), (org, id));
        prop_assert!(key.digest.matches(&KeyDigest::of(text.as_bytes())));
    }

    // Proves: A1
    #[test]
    fn any_single_wrong_character_is_caught(
        (_, _, text) in key(),
        at in any::<Index>(),
        wrong in prop_oneof!["[A-Za-z0-9_-]", "."],
    ) {
        let mut letters: Vec<String> = text.chars().map(String::from).collect();
        let at = at.index(letters.len());
        prop_assume!(letters[at] != wrong);
        letters[at] = wrong;
        let typo = letters.concat();
        prop_assert!(PresentedKey::parse(typo.as_bytes()).is_err(), "{text} as {typo}");
    }

    #[test]
    fn any_bytes_are_a_key_or_a_refusal(
        bytes in prop_oneof![vec(any::<u8>(), 0..80), "pck_[ -~]{0,99}".prop_map(String::into_bytes)],
    ) {
        let _ = PresentedKey::parse(&bytes);
    }

    // Proves: C1
    #[test]
    fn a_reference_that_is_accepted_stays_inside_its_mount(
        text in prop_oneof![
            any::<String>(),
            "(vault:/{0,3})?[a-z./#?%-]{0,24}",
            "vault://[a-z.]{1,6}(/[a-z._-]{0,4}){1,3}#[a-z./]{0,6}",
        ],
    ) {
        if let Some(secret) = SecretRef::parse(&text) {
            prop_assert_eq!(secret.to_string(), text);
            let path = secret.api_path(&[]);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
            prop_assert!(path.starts_with("/v1/") && path.bytes().all(plain), "{path}");
            let mut segments = path.split('/').skip(1);
            prop_assert!(segments.all(|segment| !["", ".", ".."].contains(&segment)), "{path}");
        }
    }

    // Proves: C1, X21
    #[test]
    fn a_subject_is_one_segment_of_its_own(
        subjects in prop::array::uniform2(prop_oneof![
            any::<String>(), "[./%2efEF#?\\\\@=;&+*~ -]{1,12}", "[a-z]{1,4}",
        ]),
    ) {
        let paths = subjects.each_ref().map(|subject| path_of(subject));
        for path in paths.iter().flatten() {
            let segments: Vec<_> = path.split('/').collect();
            prop_assert_eq!(&segments[..6], ["", "v1", "secret", "data", "users", "acme"]);
            prop_assert_eq!((segments.len(), segments[7]), (8, "crm"));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@=".contains(&byte);
            prop_assert!(segments[6].bytes().all(plain), "{path}");
            prop_assert!(!["", ".", ".."].contains(&segments[6]), "{path}");
        }
        // Two subjects never share a path.
        if subjects[0] != subjects[1] && paths.iter().all(Option::is_some) {
            prop_assert_ne!(&paths[0], &paths[1]);
        }
    }
}

/// The path of the secret that a caller has.
fn path_of(subject: &str) -> Option<String> {
    let identity = IdentityKind::Token { issuer: "i".into(), subject: subject.into() };
    let name = |text: &str| PolicyName::new(text).unwrap();
    let principal = Principal {
        org: OrgId::new("acme").unwrap(),
        identity: identity.into(),
        name: String::new(),
        role: name("r"),
        tier: name("t"),
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    };
    let pattern = SecretPattern::parse("vault://secret/users/{org}/{sub}/{connector}#t").unwrap();
    let (claims, connector) = (serde_json::Map::new(), name("crm"));
    let facts = principal.facts(&claims, &connector);
    pattern.resolve(facts, &["t".to_owned()]).ok().map(|secret| secret.api_path(&[]))
}
