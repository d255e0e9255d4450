//! Request headers: one credential or none, mirrors that agree with the body, sessions that are guarded.
//!
//! Owns a reading of the rules of its own, from the header list alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::credential::extract;
use portcullis_core::driver::call::DependencyCall;
use portcullis_core::driver::event::{Event, Head};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::RequestId;
use portcullis_core::mcp::{Era, Message, Sender, headers};
use portcullis_core::time::UnixTime;

use crate::fixtures;

/// Stands for a key that is good, which no fuzzer would come upon.
const KEY: &str = "{key}";
/// The guards of every admission: the key's record and the policy.
const USUAL_GUARDS: &[u8] = b"2,2";

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// The input looks like HTTP: a line `name: value` for each header, an empty line, the body.
pub fn check(input: &[u8]) {
    let (headers, body) = read(input);
    let request_id = RequestId::new("r-1").expect("a request id");
    let head = Head::new(request_id, "192.0.2.7".into(), headers.clone());
    one_credential(&head, &headers);
    let _ = headers::announced(&head);
    if let Ok(message) = Message::parse(body)
        && let Ok(era) = headers::check(&head, &message)
    {
        mirrored(&headers, &message, era);
    }
    admitted(head, &headers, body);
}

fn read(input: &[u8]) -> (Headers, &[u8]) {
    let (mut headers, mut rest) = (Vec::new(), input);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        if line.is_empty() {
            return (headers, rest);
        }
        // The first byte may be the colon of a pseudo-header.
        let Some(colon) = line.iter().skip(1).position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (line[..=colon].to_ascii_lowercase(), &line[colon + 2..]);
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        let value = match String::from_utf8(value) {
            Ok(text) => text.replace(KEY, fixtures::key("analyst")).into_bytes(),
            Err(error) => error.into_bytes(),
        };
        headers.push((name, value));
    }
    (headers, &[])
}

fn values<'a>(headers: &'a Headers, name: &str) -> Vec<&'a [u8]> {
    let named = headers.iter().filter(|(header, _)| header == name.as_bytes());
    named.map(|(_, value)| value.as_slice()).collect()
}

fn one_credential(head: &Head, headers: &Headers) {
    let many = values(headers, "authorization").len() + values(headers, "x-api-key").len();
    match extract(head, 16_384) {
        Ok(_) => assert_eq!(many, 1),
        Err(AuthFailure::NoCredential) => assert_eq!(many, 0),
        Err(AuthFailure::SeveralCredentials) => assert!(many > 1),
        Err(_) => {}
    }
}

fn mirrored(headers: &Headers, message: &Message, era: Era) {
    let versions = values(headers, "mcp-protocol-version");
    assert!(versions.len() <= 1);
    let modern = versions.first().is_some_and(|version| version.trim_ascii() == b"2026-07-28");
    assert_eq!(era == Era::Modern, modern);
    if era == Era::Legacy {
        return;
    }
    if matches!(message.sender, Sender::Request(_)) {
        let [method] = values(headers, "mcp-method")[..] else { panic!("not one Mcp-Method") };
        assert_eq!(method.trim_ascii(), message.method.as_bytes());
        if let Some(name) = message.object_name() {
            let [mirror] = values(headers, "mcp-name")[..] else { panic!("not one Mcp-Name") };
            let mirror = mirror.trim_ascii();
            let encoded = mirror.strip_prefix(b"=?base64?").and_then(|m| m.strip_suffix(b"?="));
            let plain = match encoded {
                Some(encoded) => STANDARD.decode(encoded).expect("base64"),
                None => mirror.to_vec(),
            };
            assert_eq!(plain, name.as_bytes());
        }
    }
}

/// What asks Redis has one credential, and asks nothing but who the caller is: a worker that has not proven it spends the
/// same on every request, whatever headers and body name. Nothing passes before that.
fn admitted(head: Head, headers: &Headers, body: &[u8]) {
    let worker = &mut fixtures::worker(Duration::ZERO);
    let now = UnixTime::from_micros(fixtures::START * 1_000_000);
    let mut exchange = Exchange::default();
    let events = [Event::Head { head, last: body.is_empty() }, Event::Body(body.to_vec())];
    for event in events {
        let Step { effects, gate } = exchange.step(worker, now, event);
        assert!(!matches!(gate, Gate::Request(RequestGate::Pass)), "passed without Redis");
        for effect in effects {
            let Effect::Start { call: DependencyCall::Admit(script), .. } = effect else {
                continue;
            };
            let many = values(headers, "authorization").len() + values(headers, "x-api-key").len();
            assert_eq!(many, 1, "asked about one of several");
            assert_eq!(script.args[0], USUAL_GUARDS, "work before proof");
        }
        if let Gate::Request(RequestGate::Refuse(denial)) = gate {
            let reply = exchange.reply(&denial);
            assert!((200..=503).contains(&reply.status));
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            assert!(!text.contains(fixtures::key("analyst")), "{text}");
        }
    }
}
