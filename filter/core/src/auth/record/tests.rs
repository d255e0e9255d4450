//! A record as it is read, judged and rotated.

use super::super::api_key::{SECRET_LENGTH, mint};
use super::super::source::SourceRange;
use super::*;

const ANYWHERE: Peer<'static> = Peer { address: "192.0.2.1", certificate: None };

fn presented(secret: &str) -> PresentedKey {
    let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2").unwrap());
    let key = mint(&org, &id, &secret.repeat(SECRET_LENGTH)).unwrap();
    PresentedKey::parse(key.expose().as_bytes()).unwrap()
}

fn record() -> KeyRecord {
    let stored = |secret, not_after| StoredSecret {
        sha256: presented(secret).digest.to_hex(),
        issued_at: None,
        not_after,
    };
    KeyRecord {
        id: KeyId::new("k1a2").unwrap(),
        org: OrgId::new("acme").unwrap(),
        name: "cursor".into(),
        role: PolicyName::new("analyst").unwrap(),
        tier: PolicyName::new("free").unwrap(),
        connectors: None,
        tools: None,
        read_only: false,
        sources: None,
        certificate: None,
        secrets: vec![stored("n", None), stored("o", Some(150))],
        created_at: 1,
        created_by: "ops".into(),
        not_before: Some(100),
        expires_at: Some(200),
        rotated: None,
        revoked: None,
    }
}

fn judged(record: &KeyRecord, secret: &str, second: u64) -> Result<(), AuthFailure> {
    record.authenticate(&presented(secret), at(second), ANYWHERE).map(|_| ())
}

fn at(second: u64) -> UnixTime {
    UnixTime::from_micros(second * 1_000_000)
}

// Proves: A1, A2, A22, B7
#[test]
fn each_reason_to_refuse_is_its_own() {
    let record = record();
    let principal = record.authenticate(&presented("n"), at(100), ANYWHERE).unwrap();
    assert_eq!(principal.role.as_str(), "analyst");
    assert_eq!(judged(&record, "o", 149), Ok(()));
    assert_eq!(judged(&record, "o", 150), Err(AuthFailure::RotatedOut));
    assert_eq!(judged(&record, "n", 99), Err(AuthFailure::NotYetValid));
    assert_eq!(judged(&record, "n", 200), Err(AuthFailure::Expired));
    assert_eq!(judged(&record, "f", 100), Err(AuthFailure::WrongSecret));
    assert_eq!(judged(&record, "f", 999), Err(AuthFailure::WrongSecret));
    let revoked = KeyRecord {
        revoked: Some(Revocation { at: 1, by: "ops".into(), reason: "leak".into() }),
        ..record
    };
    assert_eq!(judged(&revoked, "n", 100), Err(AuthFailure::Revoked));
}

/// Without the name, a client that still uses a replaced secret looks like the other clients of its key.
#[test]
fn the_secret_that_proved_a_key_has_the_name_that_people_see() {
    let record = record();
    let name = |secret| record.secret_of(&presented(secret)).unwrap();
    let labels: Vec<&str> = record.secrets.iter().map(StoredSecret::label).collect();
    assert!(labels.contains(&name("n").as_str()) && labels.contains(&name("o").as_str()));
    assert_ne!(name("n"), name("o"));
    let only = KeyRecord { secrets: record.secrets[..1].to_vec(), ..record };
    assert_eq!(only.secret_of(&presented("n")), None);
}

#[test]
fn a_key_bound_to_addresses_or_a_certificate_is_refused_without_them() {
    let sources = SourceRanges::new(vec![SourceRange::new("10.0.0.0/8").unwrap()]);
    let right = Fingerprint::from_hex(&"c0".repeat(32)).unwrap();
    let mismatch = AuthFailure::Certificate(CertificateFailure::OtherCertificate);
    let record = KeyRecord { sources: Some(sources), certificate: Some(right), ..record() };
    let judged = |secret, second, address, certificate| {
        let peer = Peer { address, certificate };
        record.authenticate(&presented(secret), at(second), peer).map(|_| ())
    };
    let (right, other) = (Some(&right), Fingerprint::from_hex(&"c1".repeat(32)));
    assert_eq!(judged("n", 100, "10.9.9.9", right), Ok(()));
    for (address, certificate, failure) in [
        ("11.0.0.1", right, AuthFailure::SourceNotAllowed),
        ("", right, AuthFailure::SourceNotAllowed),
        ("not an address", right, AuthFailure::SourceNotAllowed),
        ("10.9.9.9", None, mismatch),
        ("10.9.9.9", other.as_ref(), mismatch),
    ] {
        assert_eq!(judged("n", 100, address, certificate), Err(failure), "{address}");
    }
    // Only who has the secret of a living key learns from where it works.
    assert_eq!(judged("f", 100, "11.0.0.1", None), Err(AuthFailure::WrongSecret));
    assert_eq!(judged("n", 200, "11.0.0.1", None), Err(AuthFailure::Expired));
}

// Proves: A2
#[test]
fn what_a_key_may_do_less_than_its_role_goes_with_its_principal() {
    let none = record().principal().restrictions;
    assert_eq!(none, Restrictions::default());
    let list = |name: &str| Some(NameList::from(vec![name.to_owned()]));
    let record =
        KeyRecord { connectors: list("d*"), tools: list("query"), read_only: true, ..record() };
    let Restrictions { connectors, tools, writes } = record.principal().restrictions;
    assert!(connectors.is_some_and(|only| only.matches("demo") && !only.matches("python")));
    assert!(tools.is_some_and(|only| only.matches("query") && !only.matches("query_users")));
    assert_eq!(writes, Writes::Closed);
    // An empty list is not the absence of one.
    let record = KeyRecord { tools: Some(NameList::default()), ..record };
    let read = KeyRecord::parse(&serde_json::to_vec(&record).unwrap()).unwrap();
    assert!(read.principal().restrictions.tools.is_some_and(|only| !only.matches("query")));
}

#[test]
fn a_record_of_an_older_cli_is_read_as_it_was_meant() {
    let old = r#"{"id":"k1a2","org":"acme","name":"cursor","role":"analyst","tier":"free",
        "secrets":[{"sha256":"00"}],"created_at":7,"created_by":"ops"}"#;
    let record = KeyRecord::parse(old.as_bytes()).unwrap();
    assert_eq!(record.current_since(), 7);
    assert!(!record.read_only && record.sources.is_none() && record.tools.is_none());
    // And written again without what it never had.
    let again = serde_json::to_value(&record).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(old).unwrap());
}

#[test]
fn a_record_with_a_field_this_filter_does_not_know_is_unreadable() {
    let mut json = serde_json::to_value(record()).unwrap();
    json["cidrs"] = serde_json::json!(["10.0.0.0/8"]);
    assert!(KeyRecord::parse(json.to_string().as_bytes()).is_err());
}

fn rotation(now: u64, overlap: u64) -> Rotation {
    Rotation { at: now, by: "ops".into(), reason: "monthly".into(), overlap_until: now + overlap }
}

fn rotate(
    record: &mut KeyRecord,
    secret: &str,
    (now, overlap): (u64, u64),
    insistence: Insistence,
) -> Result<(), RotationRefused> {
    record.rotate(presented(secret).digest.to_hex(), rotation(now, overlap), insistence)
}

// Proves: A22
#[test]
fn of_a_rotated_key_both_secrets_work_until_the_overlap_ends() {
    let mut record = KeyRecord { secrets: record().secrets[..1].to_vec(), ..record() };
    rotate(&mut record, "r", (110, 20), Insistence::Refuse).unwrap();
    assert_eq!(record.current().unwrap().sha256, presented("r").digest.to_hex());
    assert_eq!((record.current_since(), record.overlap_until(129)), (110, Some(130)));
    assert_eq!(record.rotated, Some(rotation(110, 20)));
    for (second, old) in [(110, Ok(())), (129, Ok(())), (130, Err(AuthFailure::RotatedOut))] {
        assert_eq!((judged(&record, "r", second), judged(&record, "n", second)), (Ok(()), old));
    }
    assert_eq!(record.overlap_until(130), None);

    // Without an overlap the old secret ends with the new one's first second.
    rotate(&mut record, "s", (150, 0), Insistence::Refuse).unwrap();
    assert_eq!(judged(&record, "s", 150), Ok(()));
    for second in [150, 149, 101] {
        // Also at a gateway whose clock is behind.
        assert_eq!(judged(&record, "r", second), Err(AuthFailure::RotatedOut));
    }
}

#[test]
fn a_rotation_inside_an_overlap_is_refused_unless_forced() {
    let mut record = record();
    let before = record.clone();
    // `o` works until 150.
    let refused = rotate(&mut record, "r", (149, 50), Insistence::Refuse);
    assert_eq!(refused, Err(RotationRefused::InOverlap(150)));
    assert_eq!(record, before);
    rotate(&mut record, "r", (149, 50), Insistence::Force).unwrap();
    // No end was moved back.
    assert_eq!(judged(&record, "o", 150), Err(AuthFailure::RotatedOut));
    assert_eq!((judged(&record, "n", 198), judged(&record, "r", 198)), (Ok(()), Ok(())));
    // A forced one without overlap is for a leak: nothing older works.
    rotate(&mut record, "s", (160, 0), Insistence::Force).unwrap();
    for older in ["n", "o", "r"] {
        assert_eq!(judged(&record, older, 160), Err(AuthFailure::RotatedOut), "{older}");
    }
}

#[test]
fn a_dead_key_is_not_rotated() {
    let mut record = record();
    let refused = rotate(&mut record, "r", (200, 50), Insistence::Force);
    assert_eq!(refused, Err(RotationRefused::Dead(AuthFailure::Expired)));
    record.revoked = Some(Revocation { at: 1, by: "ops".into(), reason: "leak".into() });
    let refused = rotate(&mut record, "r", (160, 50), Insistence::Force);
    assert_eq!(refused, Err(RotationRefused::Dead(AuthFailure::Revoked)));
}

#[test]
fn only_secrets_that_no_longer_work_are_forgotten() {
    let mut record = KeyRecord { secrets: record().secrets[..1].to_vec(), ..record() };
    record.expires_at = None;
    let name = |number: u8| char::from(b'A' + number).to_string();
    for number in 0..19 {
        let now = 200 + u64::from(number);
        rotate(&mut record, &name(number), (now, 0), Insistence::Refuse).unwrap();
    }
    assert_eq!(record.secrets.len(), MOST_SECRETS);
    assert_eq!(judged(&record, &name(18), 300), Ok(()));
    assert_eq!(judged(&record, &name(11), 300), Err(AuthFailure::RotatedOut));
    assert_eq!(judged(&record, &name(10), 300), Err(AuthFailure::WrongSecret));
    // With long overlaps all of them work, until there are too many.
    for number in 19..26 {
        rotate(&mut record, &name(number), (300, 999), Insistence::Force).unwrap();
    }
    let refused = rotate(&mut record, "z", (300, 999), Insistence::Force);
    assert_eq!(refused, Err(RotationRefused::TooMany));
    for number in 18..26 {
        assert_eq!(judged(&record, &name(number), 301), Ok(()), "{number}");
    }
}
