//! Tokens for connectors' servers by RFC 8693, from a real authorization server (`oidc-provider`).

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_stack::ready;
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::node::node;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::{Idp, Mint};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::request_headers::requests;
use crate::vault_callers::assert_link;
use crate::vault_callers::{head, head_as_text, header};

pub(crate) fn cases() -> Vec<Case> {
    cases!["token_exchange":
        each_caller_reaches_the_server_with_a_token_of_one_exchange,
        a_token_that_ends_or_is_refused_by_the_server_is_exchanged_anew,
        a_refused_subject_gets_the_link_and_no_token,
        a_slow_or_dead_authorization_server_holds_up_nobody_for_long,
    ]
}

const LINK: &str = "https://connect.example/crm";

/// An organisation, an authorization server that exchanges its callers' tokens, and an Envoy that asks it.
struct Setting {
    org: Organisation,
    idp: Idp,
    mint: Mint,
    audience: String,
    own: OwnEnvoy,
    fake: FakeUpstream,
}

impl Setting {
    /// `life` of a token in seconds; `timeout_ms` for the authorization server, whose first answer is late on a busy machine.
    fn new(world: &World<'_>, life: u32, timeout_ms: u32) -> Self {
        let stack = world.stack();
        stack
            .openbao
            .put_secret("connectors/gateway-client", "secret", "the-gateways-secret\n")
            .unwrap();
        let org = Organisation::with_policy(stack, |policy| {
            policy["connectors"]["python"]["credential"] = json!({
                "exchange": {"server": "corp", "audience": "https://crm.example", "scopes": ["tools:use"]},
                "header": "authorization", "template": "Bearer {token}",
                "missing": {"message": "Connect your CRM account.", "url": LINK},
            });
        });
        let dir = world.dir();
        fs::create_dir_all(&dir).unwrap();
        let subjects = dir.join("subjects.json");
        let keys = stack.issuer.configuration()["jwks_inline"].clone();
        fs::write(&subjects, keys.to_string()).unwrap();
        let idp = Idp::exchanging(node(world.workspace()), &dir, &org.name, &subjects, life);
        let fake = FakeUpstream::answering(head_as_text);
        let servers = json!({"corp": {
            "cluster": "portcullis_idp", "authority": idp.address().to_string(), "path": "/token",
            "timeout_ms": timeout_ms, "client_id": "gateway",
            "client_secret": "vault://secret/connectors/gateway-client#secret",
        }});
        let own = world.envoy_changed(
            Workers::One,
            |settings| settings.python(fake.address()).idp(idp.address()),
            |template| {
                let audit = "\"audit\": {\"input_max_bytes\"";
                replaced(
                    &template,
                    audit,
                    &format!("\"authorization_servers\": {servers}, {audit}"),
                )
            },
        );
        let org = org.through(&own.gateway);
        let audience = stack.mcp_url().replace(DEMO, PYTHON);
        Self { org, idp, mint: Mint::of(stack), audience, own, fake }
    }

    fn token(&self, subject: &str) -> String {
        let more = json!({
            "sub": subject, "aud": self.audience, "act": {"sub": "agent-7", "act": {"sub": "scheduler"}},
        });
        self.mint.token(&self.org.name, more)
    }

    fn call(&self, token: &str) -> Answer {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        self.org.gateway.send(&Request::post(PYTHON, call).bearer(token))
    }
}

/// What the token says that reached the server.
pub(crate) fn claims(answer: &Answer) -> Value {
    let head = head(answer);
    let [sent] = header(&head, "authorization")[..] else { panic!("{head}") };
    let token = sent.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{head}"));
    let payload = token.split('.').nth(1).unwrap_or_else(|| panic!("{head}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

// PORTCULLIS_TEST_REQUESTS=10000 for as many calls.
// Proves: X21, A5, X25
fn each_caller_reaches_the_server_with_a_token_of_one_exchange(world: &World<'_>) {
    let setting = Setting::new(world, 300, 5_000);
    let calls = requests(300);
    let users = if calls >= 10_000 { 50 } else { 10 };
    let tokens: Vec<_> =
        (0..users).map(|user| (user, setting.token(&format!("user-{user}")))).collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (setting, tokens) = (&setting, &tokens);
            scope.spawn(move || {
                for at in (worker..calls).step_by(8) {
                    // Neighbours ask for the same user at the same time.
                    let (user, token) = &tokens[(at / 8) % tokens.len()];
                    let answer = setting.call(token);
                    let claims = claims(&answer);
                    assert_eq!(claims["user"], format!("user-{user}"), "{claims}");
                    assert_eq!(claims["aud"], "https://crm.example", "{claims}");
                    assert_eq!(claims["act"]["sub"], "agent-7", "{claims}");
                }
            });
        }
    });
    let exchanges = setting.idp.token_requests();
    println!("{calls} calls of {users} users in {:?}: {exchanges} exchanges", started.elapsed());
    assert_eq!(exchanges, users, "one for each user");
    let answer = setting.call(&tokens[0].1);
    let entry = answer.audit();
    assert_eq!(entry["actors"], json!(["agent-7", "scheduler"]), "{entry}");
    // Neither the caller's token nor the one it was exchanged for is in a log.
    let dump = setting.own.envoy.admin("config_dump").unwrap().text();
    let log = fs::read_to_string(setting.org.gateway.audit().file()).unwrap();
    let sent: BTreeSet<String> = setting.fake.requests().into_iter().collect();
    assert!(
        sent.iter().all(|request| !request.contains(&tokens[0].1)),
        "the caller's token went on"
    );
    for text in [dump, log] {
        assert!(!text.contains("the-gateways-secret") && !text.contains("eyJ"), "{text:.200}");
    }
}

// Proves: X21, C2
fn a_token_that_ends_or_is_refused_by_the_server_is_exchanged_anew(world: &World<'_>) {
    let setting = Setting::new(world, 5, 5_000);
    let token = setting.token("ada");
    let first = claims(&setting.call(&token));
    assert_eq!(claims(&setting.call(&token))["jti"], first["jti"], "it is kept");
    // A fifth before its end another one is there, and no call fails meanwhile.
    let renewed = || {
        let now = claims(&setting.call(&token));
        let left = now["exp"].as_u64().unwrap().saturating_sub(portcullis_tests::tokens::now());
        assert!(left >= 1, "used after its end");
        (now["jti"] != first["jti"]).then_some(())
    };
    ready::eventually("another token", Duration::from_secs(15), renewed).unwrap();
    assert!(setting.idp.token_requests() <= 8, "{}", setting.idp.token_requests());
}

// Proves: X21
fn a_refused_subject_gets_the_link_and_no_token(world: &World<'_>) {
    let setting = Setting::new(world, 300, 5_000);
    setting.idp.refuse(&["mallory"]);
    let told = setting.call(&setting.token("mallory"));
    assert_link(&told, LINK);
    let entry = told.audit();
    assert_eq!(entry["decision"]["rule"], "connectors.python.credential.missing", "{entry}");
    let event = json!({"event": "token_refused", "server": "corp", "error": "invalid_grant"});
    assert_eq!(entry["events"][0], event, "{entry}");
    // Who has no token has none to exchange.
    assert_link(&setting.call(&setting.org.key("analyst").key), LINK);
    assert_eq!(setting.fake.requests().len(), 0);
    setting.idp.refuse(&[]);
    let token = setting.token("mallory");
    let given = || (!setting.call(&token).text().contains(LINK)).then_some(());
    ready::eventually("a token", Duration::from_secs(10), given).unwrap();
}

// Proves: X21, B2
fn a_slow_or_dead_authorization_server_holds_up_nobody_for_long(world: &World<'_>) {
    let mut setting = Setting::new(world, 300, 1_000);
    let known = setting.token("known");
    claims(&setting.call(&known));
    let unavailable = |answer: &Answer| {
        answer.assert_refused(503, -31_503);
        assert!(answer.took() < Duration::from_secs(4), "{:?}", answer.took());
        let rule = answer.audit()["decision"]["rule"].clone();
        let rule = rule.as_str().unwrap();
        assert!(rule.starts_with("unavailable.authorization_server."), "{rule}");
    };
    setting.idp.set_slow(true);
    for user in 0..6 {
        unavailable(&setting.call(&setting.token(&format!("slow-{user}"))));
    }
    // Who has a token is served.
    claims(&setting.call(&known));
    setting.idp.set_slow(false);
    setting.idp.go_down();
    for user in 0..4 {
        unavailable(&setting.call(&setting.token(&format!("dead-{user}"))));
    }
    claims(&setting.call(&known));
    setting.idp.come_back(node(world.workspace()), 1);
    let token = setting.token("later");
    let back = || (setting.call(&token).status() == 200).then_some(());
    ready::eventually("a token", Duration::from_secs(15), back).unwrap();
}
