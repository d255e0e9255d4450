//! What a refused client reads.

use super::*;

// Proves: A12, B12
#[test]
fn retry_after_never_sends_a_client_back_too_early() {
    let limited = |micros| {
        let limit = "tiers.free.calls".to_owned();
        let denial = Denial::Limited { limit, retry_after: Duration::from_micros(micros) };
        (denial.retry_after_seconds(), denial.data(Era::Legacy))
    };
    assert_eq!(limited(1).0, Some(1));
    assert_eq!(limited(1_000_000).0, Some(1));
    assert_eq!(limited(1_000_001).0, Some(2));
    let data = json!({"limit": "tiers.free.calls", "retryAfterMs": 1001});
    assert_eq!(limited(1_000_001).1, Some(data));
}

#[test]
fn the_id_is_echoed_with_its_type_and_left_out_for_notifications() {
    let denial = Denial::UnknownTool("x".into());
    let text = |sender| String::from_utf8(denial.body(&sender, Era::Legacy)).unwrap();
    let error = r#""error":{"code":-32602,"message":"Unknown tool: x"}"#;
    for id in [json!(0), json!("a"), json!(-1)] {
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},{error}}}"#);
        assert_eq!(text(Sender::Request(id)), expected);
    }
    assert_eq!(text(Sender::NoReplyExpected), format!(r#"{{"jsonrpc":"2.0",{error}}}"#));
}

// Proves: B7
#[test]
fn a_challenge_tells_expired_from_invalid_and_names_no_error_without_a_credential() {
    let challenge = |failure| Denial::Unauthenticated(failure).challenge().unwrap();
    assert_eq!(challenge(AuthFailure::NoCredential), r#"Bearer realm="portcullis""#);
    let expired = challenge(AuthFailure::Expired);
    assert!(expired.contains("invalid_token") && expired.contains("expired"));
    assert_eq!(challenge(AuthFailure::UnknownKey), challenge(AuthFailure::WrongSecret));
    assert_ne!(challenge(AuthFailure::UnknownKey), expired);
}

#[test]
fn a_right_credential_from_the_wrong_address_is_refused_without_a_challenge() {
    let denial = Denial::Unauthenticated(AuthFailure::SourceNotAllowed);
    assert_eq!((denial.status(Era::Legacy), denial.code(Era::Legacy)), (403, -31_403));
    assert_eq!(denial.challenge(), None);
    assert_eq!(denial.data(Era::Modern), Some(json!({"rule": "auth.source_not_allowed"})));
    // A key bound to a certificate is no credential without it (RFC 8705 section 3).
    let mismatch = AuthFailure::Certificate(CertificateFailure::OtherCertificate);
    let denial = Denial::Unauthenticated(mismatch);
    assert_eq!(denial.status(Era::Legacy), 401);
    assert!(denial.challenge().is_some_and(|challenge| challenge.contains("invalid_token")));
}
