//! The responses to refused requests.

use super::*;
use crate::connector_credential::Missing;
use crate::id::PolicyName;
use crate::mcp::UrlElicitation;

// Proves: A12, B12
#[test]
fn retry_after_never_sends_a_client_back_too_early() {
    let limited = |micros| {
        let limit = "tiers.free.calls".into();
        let denial = Denial::Limited {
            limit,
            cause: Box::new(LimitCause::Throttle),
            retry_after: Duration::from_micros(micros),
        };
        (denial.retry_after_seconds(), denial.data(Era::Legacy))
    };
    assert_eq!(limited(1).0, Some(1));
    assert_eq!(limited(1_000_000).0, Some(1));
    assert_eq!(limited(1_000_001).0, Some(2));
    let data = json!({"limit": "tiers.free.calls", "cause": "throttle", "retryAfterMs": 1001});
    assert_eq!(limited(1_000_001).1, Some(data));
}

#[test]
fn the_id_is_echoed_with_its_type_and_left_out_for_notifications() {
    let denial = Denial::UnknownTool("x".into());
    let text =
        |sender| String::from_utf8(denial.body(&sender, Era::Legacy, Requested::Unread)).unwrap();
    let error = r#""error":{"code":-32602,"message":"Unknown tool: x"}"#;
    for id in [json!(0), json!("a"), json!(-1)] {
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},{error}}}"#);
        assert_eq!(text(Sender::Request(id)), expected);
    }
    assert_eq!(text(Sender::NoReplyExpected), format!(r#"{{"jsonrpc":"2.0",{error}}}"#));
}

// Proves: X21
#[test]
fn the_link_to_a_missing_credential_is_a_result_only_for_a_request_with_an_id() {
    let missing = Missing { message: "Connect.".into(), url: "https://connect.example".into() };
    let (connector, id) = (PolicyName::new("crm").unwrap(), "r-1".into());
    let elicitation = UrlElicitation::Undeclared;
    let missing = CredentialMissing { connector, missing, id, elicitation };
    let denial = Denial::CredentialMissing(Box::new(missing));
    let body = |sender: &Sender| -> Value {
        let body = denial.body(sender, Era::Modern, Requested::Tool("echo"));
        serde_json::from_slice(&body).unwrap()
    };
    let told = body(&Sender::Request(json!(7)));
    assert_eq!((&told["id"], &told["result"]["isError"]), (&json!(7), &json!(true)));
    // The headers name the tool, and not the id.
    let told = body(&Sender::Unknown);
    assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(-31_403)));
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

// Finding 4.5: the transport asks for an HTTP error status (MCP 2025-11-25, Streamable HTTP).
// Proves: B2
#[test]
fn a_notification_that_is_not_accepted_has_an_error_status() {
    let status =
        |denial: &Denial, sender| denial.reply(&sender, Era::Legacy, Requested::Unread, "r").status;
    for denial in [Denial::UnknownMethod("a/b".into()), Denial::UnknownTool("x".into())] {
        assert_eq!(status(&denial, Sender::Request(json!(1))), 200);
        assert_eq!(status(&denial, Sender::NoReplyExpected), 400);
    }
    let forbidden = Denial::Forbidden { rule: "r".into() };
    assert_eq!(status(&forbidden, Sender::NoReplyExpected), 403);
}

// Finding 8.6: clients show nothing but the message.
// Proves: A12, B12
#[test]
fn a_message_says_what_refuses_and_when_to_come_back() {
    let limited = |cause, millis| {
        let retry_after = Duration::from_millis(millis);
        let (limit, cause) = ("tiers.free.calls".into(), Box::new(cause));
        let denial = Denial::Limited { limit, cause, retry_after };
        denial.client_message(Requested::Tool("query_users"))
    };
    let window = || LimitCause::Window("5 calls a second".into());
    assert_eq!(
        limited(window(), 731),
        "Rate limit `tiers.free.calls` reached: 5 calls a second. Try again in 0.8 s."
    );
    // Issue 14: a month's budget and a burst looked the same to a model.
    let budget = || LimitCause::Budget {
        allowed: "100 credits in 30 days".into(),
        until: "2026-12-28T09:30:00Z".into(),
    };
    assert_eq!(
        limited(budget(), 2_591_998_310),
        "The budget `tiers.free.calls` is used up until 2026-12-28 09:30 UTC: it allows 100 credits in 30 days. Do not \
         repeat the call before."
    );
    let names = [window(), budget(), LimitCause::CoolOff].map(|cause| cause.name());
    assert_eq!(names, ["rate", "budget", "cool_off"]);
    for (millis, said) in [
        (1, "0.1 s"),
        (1_000, "1 s"),
        (1_001, "1.1 s"),
        (9_950, "10 s"),
        (90_000, "90 s"),
        (120_001, "3 min"),
        (7_200_001, "3 h"),
    ] {
        assert!(limited(window(), millis).ends_with(&format!("in {said}.")), "{millis}");
    }
    let refused = Denial::Forbidden { rule: "roles.analyst.demo.show".into() };
    let text = refused.client_message(Requested::Tool("create_note"));
    assert!(text.starts_with("Policy rule `roles.analyst.demo.show` refuses tool `create_note`"));
    assert!(text.contains("Do not repeat it"), "{text}");
    let condition = Denial::Condition { rule: "r".into(), message: Some("Ask Ann.".into()) };
    assert_eq!(condition.client_message(Requested::Unread), "Ask Ann. (policy rule `r`)");
    let long = refused.client_message(Requested::Method(&"m".repeat(1_000)));
    assert!(long.len() < 500, "{}", long.len());
}
