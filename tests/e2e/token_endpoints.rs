//! Token endpoints that answer in their own way, and a server that refuses the token that one gave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::ready;
use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::Mint;
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::answers::resident;
use crate::vault_callers::{head, head_as_text, header};

pub(crate) fn cases() -> Vec<Case> {
    cases!["token_endpoints":
        an_endpoint_that_is_not_there_or_does_not_know_the_gateway_is_no_word_on_the_caller,
        a_token_that_the_server_refuses_is_replaced_for_the_next_call,
        a_token_whose_life_is_over_is_asked_for_once_and_used_by_the_call_that_asked,
        whatever_a_token_endpoint_answers_costs_bounded_time_and_memory,
    ]
}

/// An organisation whose connector wants tokens of a fake authorization server.
struct Setting {
    org: Organisation,
    /// Of one caller, the same in all calls.
    token: String,
    mint: Mint,
    audience: String,
    own: OwnEnvoy,
}

impl Setting {
    fn new(world: &World<'_>, endpoint: &FakeUpstream, server: &FakeUpstream) -> Self {
        let stack = world.stack();
        let org = Organisation::with_policy(stack, |policy| {
            let name = policy["organisations"][0].as_str().unwrap().to_owned();
            let path = format!("connectors/client-{name}");
            stack.openbao.put_secret(&path, "secret", "of-the-gateway-1").unwrap();
            policy["connectors"]["python"]["credential"] = json!({
                "exchange": {"server": "corp", "audience": "https://crm.example"},
                "header": "authorization", "template": "Bearer {token}",
                "missing": {"message": "Connect your CRM account.", "url": "https://connect.example"},
            });
        });
        let servers = json!({"corp": {
            "cluster": "portcullis_idp", "path": "/token", "client_id": "gateway",
            "client_secret": format!("vault://secret/connectors/client-{}#secret", org.name),
        }});
        let own = world.envoy_changed(
            Workers::One,
            |settings| settings.python(server.address()).idp(endpoint.address()),
            |template| {
                let audit = "\"audit\": {\"input_max_bytes\"";
                let named = format!("\"authorization_servers\": {servers}, {audit}");
                replaced(&template, audit, &named)
            },
        );
        let org = org.through(&own.gateway);
        let audience = stack.mcp_url().replace(DEMO, PYTHON);
        let mint = Mint::of(stack);
        let token = mint.token(&org.name, json!({"sub": "ada", "aud": audience}));
        Self { org, token, mint, audience, own }
    }

    fn call(&self) -> Answer {
        self.call_with(&self.token)
    }

    /// The call of another caller, who has no token yet.
    fn call_of(&self, subject: &str) -> Answer {
        let claims = json!({"sub": subject, "aud": self.audience});
        self.call_with(&self.mint.token(&self.org.name, claims))
    }

    fn call_with(&self, token: &str) -> Answer {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        self.org.gateway.send(&Request::post(PYTHON, call).bearer(token))
    }
}

fn status(line: &str, body: &Value) -> Vec<Vec<u8>> {
    let (body, kind) = (body.to_string(), "content-type: application/json");
    let head = format!("HTTP/1.1 {line}\r\n{kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![[head.into_bytes(), body.into_bytes()].concat()]
}

fn token(number: usize, life: u32) -> Vec<Vec<u8>> {
    let token = format!("token-number-{number}");
    json_answer(
        &json!({"access_token": token, "token_type": "Bearer", "expires_in": life}).to_string(),
    )
}

// Proves: X21, B2
fn an_endpoint_that_is_not_there_or_does_not_know_the_gateway_is_no_word_on_the_caller(
    world: &World<'_>,
) {
    static THERE: AtomicUsize = AtomicUsize::new(0);
    let endpoint = FakeUpstream::answering(|request| {
        let basic =
            |secret: &str| format!("Basic {}", STANDARD.encode(format!("gateway:{secret}")));
        let sent = header(request, "authorization");
        match THERE.load(Ordering::SeqCst) {
            0 => status("404 Not Found", &json!({"error": "not_found"})),
            1 if sent == [basic("of-the-gateway-1").as_str()] => token(1, 1),
            2 if sent == [basic("of-the-gateway-2").as_str()] => token(2, 300),
            _ => status("401 Unauthorized", &json!({"error": "invalid_client"})),
        }
    });
    let server = FakeUpstream::answering(head_as_text);
    let setting = Setting::new(world, &endpoint, &server);
    let unavailable = |rule: &str, error: &str| {
        let answer = setting.call();
        answer.assert_refused(503, -31_503);
        let entry = answer.audit();
        assert_eq!(entry["decision"]["rule"], rule, "{entry}");
        let event = json!({"event": "token_refused", "server": "corp", "error": error});
        assert!(entry["events"].as_array().unwrap().contains(&event), "{entry}");
        assert!(!answer.text().contains("connect.example"), "{}", answer.text());
    };
    unavailable("unavailable.authorization_server.unreadable", "not_found");
    THERE.store(1, Ordering::SeqCst);
    let given = || (setting.call().status() == 200).then_some(());
    ready::eventually("a token", Duration::from_secs(15), given).unwrap();
    // The server knows another secret of the gateway by now, and Vault has it: what the first call finds out, the next
    // one has.
    THERE.store(2, Ordering::SeqCst);
    let path = format!("connectors/client-{}", setting.org.name);
    world.stack().openbao.put_secret(&path, "secret", "of-the-gateway-2").unwrap();
    let refused = || (setting.call().status() == 503).then_some(());
    ready::eventually("the end of the token", Duration::from_secs(15), refused).unwrap();
    let given = || {
        let answer = setting.call();
        (answer.status() == 200).then(|| head(&answer))
    };
    let head = ready::eventually("another token", Duration::from_secs(15), given).unwrap();
    assert_eq!(header(&head, "authorization"), ["Bearer token-number-2"]);
}

// Proves: X21, C2
fn a_token_that_the_server_refuses_is_replaced_for_the_next_call(world: &World<'_>) {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let endpoint = FakeUpstream::answering(|_| token(ASKED.fetch_add(1, Ordering::SeqCst), 300));
    let server = FakeUpstream::answering(|request| {
        let taken = format!("Bearer token-number-{}", TAKEN.load(Ordering::SeqCst));
        match header(request, "authorization") == [taken.as_str()] {
            true => head_as_text(request),
            false => status("401 Unauthorized", &json!({"error": "invalid_token"})),
        }
    });
    let setting = Setting::new(world, &endpoint, &server);
    assert_eq!(setting.call().status(), 200);
    // Not within a second after it was given: then no call would ask again.
    let read = std::time::Instant::now();
    let over = || (read.elapsed() > Duration::from_millis(1_200)).then_some(());
    ready::eventually("a second", Duration::from_secs(5), over).unwrap();
    TAKEN.store(1, Ordering::SeqCst);
    let refused = setting.call();
    assert_eq!((refused.status(), refused.error_code()), (503, Some(-31_503)));
    let entry = refused.audit();
    assert_eq!(entry["decision"]["rule"], "upstream.credential_refused", "{entry}");
    assert_eq!(entry["events"][0]["found"], "another", "{entry}");
    for _ in 0..3 {
        assert_eq!(setting.call().status(), 200);
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 2);
}

// An answer that came before that of Redis was asked for again.
// Proves: X21
fn a_token_whose_life_is_over_is_asked_for_once_and_used_by_the_call_that_asked(world: &World<'_>) {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let endpoint = FakeUpstream::answering(|_| token(ASKED.fetch_add(1, Ordering::SeqCst), 0));
    let server = FakeUpstream::answering(head_as_text);
    let setting = Setting::new(world, &endpoint, &server);
    // A call sends the token that it asked for. On a busy machine it may wait longer than the second for which it may.
    let most = |started: Instant| if started.elapsed() < Duration::from_secs(1) { 1 } else { 2 };
    for _ in 0..20 {
        let (before, started) = (ASKED.load(Ordering::SeqCst), Instant::now());
        let head = head(&setting.call());
        let after = ASKED.load(Ordering::SeqCst);
        assert!((1..=most(started)).contains(&(after - before)), "{} questions", after - before);
        let expected = format!("Bearer token-number-{}", after - 1);
        assert_eq!(header(&head, "authorization"), [expected.as_str()]);
    }
    let before = ASKED.load(Ordering::SeqCst);
    // Calls that come together share questions: none causes more than it may alone.
    let call = || {
        let started = Instant::now();
        assert_eq!(setting.call().status(), 200);
        most(started)
    };
    let most: usize = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(call)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).sum()
    });
    let asked = ASKED.load(Ordering::SeqCst) - before;
    assert!((1..=most).contains(&asked), "{asked} of {most}");
}

/// What an endpoint does, and what the audit entry says of it; nothing for a token that is used.
const ANSWERS: [(&str, Option<&str>); 11] = [
    ("well", None),
    ("10 MB", Some("unreadable")),
    ("drips", Some("timed_out")),
    ("100,000 parts", Some("unreadable")),
    ("no bearer token", Some("unusable")),
    ("a type that is no text", Some("unusable")),
    ("a long token", Some("unusable")),
    ("a token of two lines", Some("unusable")),
    ("for ever", None),
    ("since yesterday", None),
    ("fewer scopes", None),
];
static DOES: AtomicUsize = AtomicUsize::new(0);

fn token_endpoint(_: &str) -> Vec<Vec<u8>> {
    let bearer = |more: Value| {
        let mut answer =
            json!({"access_token": "t0ken-of-all", "token_type": "Bearer", "expires_in": 300});
        for (name, value) in more.as_object().unwrap() {
            answer[name] = value.clone();
        }
        json_answer(&answer.to_string())
    };
    match ANSWERS[DOES.load(Ordering::SeqCst)].0 {
        "10 MB" => bearer(json!({"more": "x".repeat(10 << 20)})),
        "drips" => {
            let text = json!({"access_token": "t", "token_type": "Bearer"}).to_string();
            let spaces = " ".repeat(10_000);
            event_answer(&(spaces + &text), 1)
        }
        "100,000 parts" => bearer(json!({"more": vec![0; 100_000]})),
        "no bearer token" => bearer(json!({"token_type": "DPoP"})),
        "a type that is no text" => bearer(json!({"token_type": ["Bearer"]})),
        "a long token" => bearer(json!({"access_token": "t".repeat(8_193)})),
        "a token of two lines" => bearer(json!({"access_token": "a\r\nx-injected: 1"})),
        "for ever" => bearer(json!({"expires_in": 1e300})),
        "since yesterday" => bearer(json!({"expires_in": -86_400})),
        "fewer scopes" => bearer(json!({"scope": "read"})),
        _ => bearer(json!({})),
    }
}

// Proves: X21, B2
fn whatever_a_token_endpoint_answers_costs_bounded_time_and_memory(world: &World<'_>) {
    let endpoint = FakeUpstream::answering(token_endpoint);
    let server = FakeUpstream::answering(head_as_text);
    let setting = Setting::new(world, &endpoint, &server);
    let memory = || resident(&setting.own);
    assert_eq!(setting.call().status(), 200);
    let before = memory();
    for (number, (answer, refused)) in ANSWERS.iter().enumerate() {
        DOES.store(number, Ordering::SeqCst);
        let told = setting.call_of(&format!("caller-{number}"));
        assert!(told.took() < Duration::from_secs(4), "{answer}: {:?}", told.took());
        match refused {
            None => {
                let head = head(&told);
                assert_eq!(header(&head, "authorization"), ["Bearer t0ken-of-all"], "{answer}");
            }
            Some(why) => {
                told.assert_refused(503, -31_503);
                let rule = told.audit()["decision"]["rule"].clone();
                assert_eq!(rule, format!("unavailable.authorization_server.{why}"), "{answer}");
            }
        }
        // Who has a token is served, and the server is asked again.
        assert_eq!(setting.call().status(), 200, "{answer}");
        DOES.store(0, Ordering::SeqCst);
        let caller = format!("after-{number}");
        let well = || (setting.call_of(&caller).status() == 200).then_some(());
        ready::eventually("a token", Duration::from_secs(10), well).unwrap();
    }
    let more = memory().saturating_sub(before);
    println!("{} MiB more", more >> 20);
    assert!(more < 96 << 20, "{more} bytes more");
}
