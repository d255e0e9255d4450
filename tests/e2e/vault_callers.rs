//! Credentials of single callers: whose goes where, and what a caller without one learns.

use std::time::Duration;

use portcullis_stack::{Stack, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::Mint;
use portcullis_tests::world::{Mode, OwnEnvoy, Workers, replaced};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::vault::fetches;

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault_callers":
        each_caller_reaches_the_server_with_its_own_credential,
        no_name_of_a_caller_reaches_another_secret,
        several_fields_headers_and_a_query_parameter_reach_the_server,
        a_pinned_version_is_read,
        a_mount_of_several_segments_and_of_the_first_version_is_read,
        callers_that_wait_for_one_secret_share_one_read,
        client_that_opens_urls_is_asked_to_open_the_link,
        revoked_caller_leaves_no_credential_behind,
    ]
}

const LINK: &str = "https://connect.example/crm";

/// A server that answers a call with the head of the request as it came.
pub(crate) fn head_as_text(request: &str) -> Vec<Vec<u8>> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let content = json!([{"type": "text", "text": head}]);
    json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": content}}).to_string())
}

/// An organisation whose connector `python` shows what it got.
pub(crate) struct Setting {
    pub(crate) org: Organisation,
    pub(crate) mint: Mint,
    audience: String,
    pub(crate) own: OwnEnvoy,
    _fake: FakeUpstream,
}

impl Setting {
    pub(crate) fn new(world: &World<'_>, credential: impl FnOnce(&str) -> Value) -> Self {
        Self::before(world, FakeUpstream::answering(head_as_text), credential)
    }

    pub(crate) fn before(
        world: &World<'_>,
        fake: FakeUpstream,
        credential: impl FnOnce(&str) -> Value,
    ) -> Self {
        let own = world.with_python_as(&fake);
        let stack = world.stack();
        let org = Organisation::with_policy(stack, |policy| {
            let name = policy["organisations"][0].as_str().expect("a name").to_owned();
            policy["connectors"]["python"]["credential"] = credential(&name);
            policy["connectors"]["python"]["query"] = json!(["tenant"]);
        });
        let org = org.through(&own.gateway);
        let audience = stack.mcp_url().replace(DEMO, PYTHON);
        Self { org, mint: Mint::of(stack), audience, own, _fake: fake }
    }

    pub(crate) fn token(&self, subject: &str) -> String {
        self.mint.token(&self.org.name, json!({"sub": subject, "aud": self.audience}))
    }

    pub(crate) fn call(&self, credential: &str) -> Answer {
        self.org.gateway.send(&echo().bearer(credential))
    }
}

fn echo() -> Request {
    Request::post(PYTHON, mcp::call("echo", json!({"message": "x"})).to_string())
}

/// The head that reached the server.
pub(crate) fn head(answer: &Answer) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let text = answer.result()["content"][0]["text"].clone();
    text.as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("{name}: ");
    head.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect()
}

/// The caller learns where to get a credential: in hold mode as a result of the tool; in split mode the head alone is
/// judged when the credential goes on, so as an error.
pub(crate) fn assert_link(told: &Answer, link: &str) {
    match Mode::of_this_run() {
        Mode::Hold => assert_eq!(told.result()["isError"], true, "{}", told.text()),
        Mode::Split => told.assert_refused(403, -31_403),
    }
    assert!(told.text().contains(link), "{}", told.text());
}

fn of_subject(org: &str) -> Value {
    json!({
        "secret": format!("vault://secret/connectors/users/{org}/{{sub}}#token"),
        "header": "authorization", "template": "Bearer {secret}",
        "missing": {"message": "Connect your CRM account.", "url": LINK},
    })
}

fn put(stack: &Stack, org: &str, name: &str, value: &str) {
    stack.openbao.put_secret(&format!("connectors/users/{org}/{name}"), "token", value).unwrap();
}

// Proves: X21, A5
fn each_caller_reaches_the_server_with_its_own_credential(world: &World<'_>) {
    let setting = Setting::new(world, of_subject);
    let (stack, org) = (world.stack(), setting.org.name.clone());
    put(stack, &org, "ada@example.com", "of-ada");
    put(stack, &org, "auth0=7C7", "of-seven\n");
    let [ada, seven, bob] = ["ada@example.com", "auth0|7", "bob"].map(|name| setting.token(name));
    for _ in 0..6 {
        for (token, value) in [(&ada, "of-ada"), (&seven, "of-seven")] {
            let head = head(&setting.call(token));
            assert_eq!(header(&head, "authorization"), [format!("Bearer {value}")], "{head}");
        }
        let told = setting.call(&bob);
        assert_link(&told, LINK);
        assert!(told.text().contains("Connect your CRM account."), "{}", told.text());
        let entry = told.audit();
        assert_eq!(entry["decision"]["rule"], "connectors.python.credential.missing", "{entry}");
        assert_eq!(entry["status"], "denied", "{entry}");
        assert!(told.upstream().is_empty());
    }
    // Who has no token has no subject.
    assert_link(&setting.call(&setting.org.key("analyst").key), LINK);
    // As soon as there is one, it is used.
    put(stack, &org, "bob", "of-bob");
    let arrived = || {
        let answer = setting.call(&bob);
        answer.text().contains("Bearer of-bob").then_some(())
    };
    ready::eventually("the new credential", Duration::from_secs(10), arrived).unwrap();
}

// Proves: X21, C1
fn no_name_of_a_caller_reaches_another_secret(world: &World<'_>) {
    let setting = Setting::new(world, of_subject);
    let (stack, org) = (world.stack(), setting.org.name.clone());
    put(stack, &org, "victim", "of-the-victim");
    stack.openbao.put_secret("connectors/users/victim", "token", "of-the-victim").unwrap();
    stack.openbao.put_secret("connectors/victim", "token", "of-the-victim").unwrap();
    let around = format!("x/../../{org}/victim");
    for name in [
        "../",
        "..",
        ".",
        "../victim",
        "../../victim",
        &around,
        "victim/",
        "/victim",
        "./victim",
        "%2e%2e%2fvictim",
        "..%2fvictim",
        "%2fvictim",
        "victim#",
        "#victim",
        "victim?version=1",
        "victim%00",
        "victim;x",
        "victim&x",
        "\\victim",
        "victim ",
        " victim",
        "vict\u{200b}im",
        "VICTIM",
        "v\u{ed}ctim",
        "victim*",
        "+",
        "*",
        "=76ictim",
        "%76ictim",
    ] {
        let told = setting.call(&setting.token(name));
        assert!(!told.text().contains("of-the-victim"), "{name:?}: {}", told.text());
        assert!(told.upstream().is_empty(), "{name:?}");
        assert_eq!(
            told.audit()["decision"]["rule"],
            "connectors.python.credential.missing",
            "{name:?}"
        );
    }
    // No name at all: the token is refused, whoever signed it.
    for name in ["a\r\nx: y", "a\n", "\0", &"a".repeat(4_096)] {
        let told = setting.call(&setting.token(name));
        told.assert_refused(401, -31_401);
        assert!(told.upstream().is_empty(), "{name:?}");
    }
    // What Vault was asked for lies in the folder of the organisation.
    let asked = std::fs::read_to_string(stack.openbao.audit_log()).unwrap();
    let asked = asked.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_gateway = asked.filter(|entry| entry["auth"]["display_name"] == "token-portcullis");
    let paths = of_gateway.filter_map(|entry| entry["request"]["path"].as_str().map(str::to_owned));
    let folder = "secret/data/connectors/users/";
    let paths: Vec<String> = paths.filter(|path| path.starts_with(folder)).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in &paths {
        let rest = path.strip_prefix(folder).unwrap();
        assert_eq!(rest.split('/').count(), 2, "{path}");
    }
    assert!(!paths.iter().any(|path| path.ends_with("/victim")), "{paths:?}");
}

// Proves: A5, C1
fn several_fields_headers_and_a_query_parameter_reach_the_server(world: &World<'_>) {
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}"),
            "headers": {"authorization": "Basic {base64(user:password)}", "x-account": "{number}"},
            "query": {"api_key": "{key}"},
        })
    });
    let path = format!("secret/data/connectors/{}", setting.org.name);
    let fields = json!({"user": "ada", "password": "pass:word", "number": 42, "key": "k&y=1 2"});
    world.stack().openbao.call("POST", &path, &json!({"data": fields})).unwrap();
    let key = setting.org.key("analyst").key;
    let call = mcp::call("echo", json!({"message": "x"})).to_string();
    let forged = format!("{PYTHON}?tenant=7&API-key=forged&api%5Fkey=forged");
    for (path, expected) in [
        (PYTHON, "/mcp?api_key=k%26y%3D1+2"),
        // A client's own parameter of that name would be a second credential; the gateway refuses it in the URL.
        (&format!("{PYTHON}?tenant=7"), "/mcp?tenant=7&api_key=k%26y%3D1+2"),
    ] {
        let answer = setting.org.gateway.send(&Request::post(path, call.clone()).bearer(&key));
        let head = head(&answer);
        assert_eq!(header(&head, "authorization"), ["Basic YWRhOnBhc3M6d29yZA=="], "{head}");
        assert_eq!(header(&head, "x-account"), ["42"], "{head}");
        assert_eq!(
            head.lines().next(),
            Some(format!("POST {expected} HTTP/1.1").as_str()),
            "{head}"
        );
        assert_eq!(header(&head, "x-envoy-original-path"), [path], "{head}");
        assert!(!answer.audit().to_string().contains("k%26y"), "{}", answer.audit());
    }
    let answer = setting.org.gateway.send(&Request::post(&forged, call.clone()).bearer(&key));
    answer.assert_refused(401, -31_401);
    // Finding F14: a parameter that the policy does not name.
    let other = Request::post(&format!("{PYTHON}?tenant=7&read_only=false"), call).bearer(&key);
    let answer = setting.org.gateway.send(&other);
    answer.assert_refused(400, -32_600);
    let entry = answer.audit();
    assert_eq!(entry["decision"]["rule"], "request.query", "{entry}");
    assert_eq!(entry["query"], json!(["tenant", "read_only"]), "{entry}");
}

// Proves: A5
fn a_pinned_version_is_read(world: &World<'_>) {
    let stack = world.stack();
    let pinned = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}?version=2#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let path = format!("connectors/{}", pinned.org.name);
    for value in ["the-first-value", "the-second-value", "the-third-value"] {
        stack.openbao.put_secret(&path, "token", value).unwrap();
    }
    let key = pinned.org.key("analyst").key;
    let reached = head(&pinned.call(&key));
    assert_eq!(header(&reached, "x-upstream-key"), ["the-second-value"]);
}

// Proves: A5
fn a_mount_of_several_segments_and_of_the_first_version_is_read(world: &World<'_>) {
    let (stack, fake) = (world.stack(), FakeUpstream::answering(head_as_text));
    let openbao = &stack.openbao;
    for (path, version) in [("team/kv1", "1"), ("team/kv2", "2")] {
        let mount = json!({"type": "kv", "options": {"version": version}});
        openbao.call("POST", &format!("sys/mounts/{path}"), &mount).unwrap();
    }
    let policy = openbao.call("GET", "sys/policies/acl/portcullis", &Value::Null).unwrap().json();
    let policy = policy["data"]["policy"].as_str().unwrap().to_owned();
    let more = r#"path "team/+/*" { capabilities = ["read"] }"#;
    let policy = json!({"policy": format!("{policy}\n{more}")});
    openbao.call("PUT", "sys/policies/acl/portcullis", &policy).unwrap();
    let mounts = json!([{"path": "team/kv1", "kv": 1}, "team/kv2"]);
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.python(fake.address()),
        |template| {
            let cache = "\"cache_seconds\": ${PORTCULLIS_VAULT_CACHE_SECONDS:-60}";
            replaced(&template, cache, &format!("{cache}, \"mounts\": {mounts}"))
        },
    );
    for (mount, body) in [
        ("team/kv1", json!({"token": 7, "data": "x"})),
        ("team/kv2/data", json!({"data": {"token": 7}})),
    ] {
        openbao.call("POST", &format!("{mount}/crm"), &body).unwrap();
        let org = Organisation::with_policy(stack, |policy| {
            let mount = mount.trim_end_matches("/data");
            policy["connectors"]["python"]["credential"] = json!({
                "secret": format!("vault://{mount}/crm#token"),
                "header": "x-upstream-key", "template": "{secret}",
            });
        });
        let org = org.through(&own.gateway);
        let answer = org.gateway.send(&echo().bearer(&org.key("analyst").key));
        assert_eq!(header(&head(&answer), "x-upstream-key"), ["7"], "{mount}");
    }
}

// Proves: X12
fn callers_that_wait_for_one_secret_share_one_read(world: &World<'_>) {
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let (stack, org) = (world.stack(), setting.org.name.clone());
    stack.openbao.put_secret(&format!("connectors/{org}"), "token", "s3cret").unwrap();
    let key = setting.org.key("analyst").key;
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..24).map(|_| scope.spawn(|| setting.call(&key))).collect();
        for call in calls {
            let head = head(&call.join().unwrap());
            assert_eq!(header(&head, "x-upstream-key"), ["s3cret"], "{head}");
        }
    });
    let reads = fetches(stack, &format!("secret/data/connectors/{org}"));
    assert!((1..=2).contains(&reads.len()), "one for each worker: {}", reads.len());
}

// Proves: X21
fn client_that_opens_urls_is_asked_to_open_the_link(world: &World<'_>) {
    let setting = Setting::new(world, of_subject);
    let nobody = setting.token("nobody");
    let capable = |capabilities: Value| {
        let mut call = mcp::call("echo", json!({"message": "x"}));
        call["params"]["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let request = Request::post(PYTHON, call.to_string()).bearer(&nobody);
        let request = request.header("mcp-protocol-version", "2026-07-28");
        let request = request.header("mcp-method", "tools/call").header("mcp-name", "echo");
        setting.org.gateway.send(&request)
    };
    let asked = capable(json!({"elicitation": {"url": {}}}));
    if Mode::of_this_run() == Mode::Split {
        // What the client can is in the body.
        return assert_link(&asked, LINK);
    }
    let result = asked.result();
    assert_eq!(result["resultType"], "input_required", "{}", asked.text());
    let request = &result["inputRequests"]["credential"];
    assert_eq!(request["method"], "elicitation/create", "{result}");
    let params = &request["params"];
    assert_eq!((&params["mode"], &params["url"]), (&json!("url"), &json!(LINK)), "{result}");
    assert_eq!(params["elicitationId"], asked.request_id(), "{result}");
    // Before, a client says so once, when it opens its session.
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "t", "version": "1"}});
    let open = mcp::request(1, "initialize", client).to_string();
    let asked = setting.org.gateway.send(&Request::post(PYTHON, open).bearer(&nobody));
    let error = asked.message()["error"].clone();
    assert_eq!((asked.status(), &error["code"]), (200, &json!(-32_042)), "{}", asked.text());
    assert_eq!(error["data"]["elicitations"][0]["url"], LINK, "{error}");
    for capabilities in [json!({}), json!({"elicitation": {"form": {}}})] {
        let told = capable(capabilities);
        assert_eq!(told.result()["resultType"], "complete", "{}", told.text());
        assert_eq!(told.result()["isError"], true, "{}", told.text());
    }
}

// Proves: X21, A8
fn revoked_caller_leaves_no_credential_behind(world: &World<'_>) {
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/keys/{org}/{{key}}#token"),
            "header": "authorization", "template": "Bearer {secret}",
        })
    });
    let (stack, org) = (world.stack(), setting.org.name.clone());
    let (one, other) = (setting.org.key("analyst"), setting.org.key("analyst"));
    for key in [&one, &other] {
        let path = format!("connectors/keys/{org}/{}", key.id);
        stack.openbao.put_secret(&path, "token", &format!("of-{}", key.id)).unwrap();
    }
    for _ in 0..8 {
        for key in [&one, &other] {
            let head = head(&setting.call(&key.key));
            assert_eq!(header(&head, "authorization"), [format!("Bearer of-{}", key.id)]);
        }
    }
    setting.org.operator.revoke_key(&one.id, "left").unwrap();
    for _ in 0..8 {
        setting.call(&one.key).assert_refused(401, -31_401);
        assert_eq!(setting.call(&other.key).status(), 200);
    }
}
