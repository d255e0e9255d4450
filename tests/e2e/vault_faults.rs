//! A Vault that is not well, a credential that is rotated all the time, and where secrets must not be.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_stack::{CREDENTIAL_FIELD, ready};
use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::request_headers::requests;
use crate::vault::fetches;
use crate::vault_callers::{Setting, head, head_as_text, header};

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault_faults":
        whatever_vault_answers_calls_are_refused_or_served_as_configured,
        a_credential_that_changes_every_second_fails_no_call,
        a_refused_credential_is_read_at_once_and_the_next_call_has_the_new_one,
        a_refusal_while_vault_is_away_costs_no_credential,
        the_request_id_of_our_entry_is_in_vaults_audit_log,
        secrets_are_nowhere_but_in_vault_and_at_the_server,
        a_credential_that_a_server_says_back_is_masked,
        a_stream_that_outlasts_its_credential_is_searched_for_that_one,
    ]
}

/// What the fake Vault does.
static FAULT: AtomicUsize = AtomicUsize::new(0);

/// A busy machine takes its time: an answer after this is no answer, and a stale credential is served for a 403 then.
const VAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// How it is called, and what it does.
const FAULTS: [&str; 9] =
    ["well", "sealed", "slow", "403", "429", "garbage", "10 MB", "breaks off", "another answer"];

fn vault(_: &str) -> Vec<Vec<u8>> {
    let status = |line: &str, body: &str| {
        vec![
            format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        ]
    };
    match FAULTS[FAULT.load(Ordering::SeqCst)] {
        "sealed" => status("503 Service Unavailable", r#"{"errors":["Vault is sealed"]}"#),
        "slow" => {
            std::thread::sleep(5 * VAULT_TIMEOUT);
            Vec::new()
        }
        "403" => status("403 Forbidden", r#"{"errors":["permission denied"]}"#),
        "429" => status("429 Too Many Requests", r#"{"errors":["rate limit"]}"#),
        "garbage" => status("200 OK", "<html>\0</html>"),
        "10 MB" => {
            let body = "x".repeat(10 << 20);
            json_answer(&json!({"data": {"data": {CREDENTIAL_FIELD: body}}}).to_string())
        }
        "breaks off" => {
            vec![b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{".to_vec(), Vec::new()]
        }
        "another answer" => status("200 OK", r#"{"ok":true}"#),
        _ => json_answer(&json!({"data": {"data": {CREDENTIAL_FIELD: "s3cret"}}}).to_string()),
    }
}

/// An organisation before a fake Vault; what its connector's credential says of a Vault without a word.
pub(crate) fn before(own: &OwnEnvoy, world: &World<'_>, stale: &str) -> (Organisation, String) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["python"]["credential"] = json!({
            "secret": format!("vault://secret/connectors/{stale}#{CREDENTIAL_FIELD}"),
            "header": "x-upstream-key", "template": "{secret}", "stale": stale,
        });
    });
    let key = org.key("analyst").key;
    (org.through(&own.gateway), key)
}

// Proves: B2, X12
fn whatever_vault_answers_calls_are_refused_or_served_as_configured(world: &World<'_>) {
    let (vault, fake) = (FakeUpstream::answering(vault), FakeUpstream::answering(head_as_text));
    let (address, python) = (vault.address(), fake.address());
    let own = world.envoy(Workers::One, |settings| {
        let settings = settings.set("VAULT_HOST", address.ip()).set("VAULT_PORT", address.port());
        let settings = settings.set("VAULT_TIMEOUT_MS", VAULT_TIMEOUT.as_millis());
        settings.set("VAULT_CACHE_SECONDS", 0).python(python)
    });
    let (stale, never) = (before(&own, world, "5m"), before(&own, world, "never"));
    let call = |(org, key): &(Organisation, String)| {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        let started = Instant::now();
        let answer = org.gateway.send(&Request::post(PYTHON, call).bearer(key));
        assert!(started.elapsed() < 4 * VAULT_TIMEOUT, "{:?}", started.elapsed());
        answer
    };
    let refused = |answer: &Answer, fault: &str| {
        assert_eq!(answer.status(), 503, "{fault}: {} {}", answer.text(), answer.audit());
        answer.assert_refused(503, -31_503);
    };
    let served = |answer: &Answer, fault: &str| {
        assert_eq!(answer.status(), 200, "{fault}: {}", answer.text());
        assert_eq!(header(&head(answer), "x-upstream-key"), ["s3cret"], "{fault}");
    };
    for (number, fault) in FAULTS.into_iter().enumerate() {
        FAULT.store(0, Ordering::SeqCst);
        for org in [&stale, &never] {
            let well = || (call(org).status() == 200).then_some(());
            ready::eventually("a Vault that is well again", Duration::from_secs(30), well).unwrap();
            served(&call(org), fault);
        }
        FAULT.store(number, Ordering::SeqCst);
        for _ in 0..6 {
            let (with, without) = (call(&stale), call(&never));
            match fault {
                "well" => [&with, &without].iter().for_each(|answer| served(answer, fault)),
                // Vault's word that it is not to be had.
                "403" => {
                    refused(&with, fault);
                    refused(&without, fault);
                }
                _ => {
                    served(&with, fault);
                    assert_eq!(with.audit()["degraded"], json!(["vault"]), "{fault}");
                    refused(&without, fault);
                    assert!(without.header("retry-after").is_some(), "{fault}");
                }
            }
        }
    }
}

// PORTCULLIS_TEST_REQUESTS=10000 for a minute of it. The server takes a credential for two seconds after there is a new
// one, as servers with two keys do.
// Proves: C2, C12
fn a_credential_that_changes_every_second_fails_no_call(world: &World<'_>) {
    static CURRENT: AtomicUsize = AtomicUsize::new(0);
    let fake = FakeUpstream::answering(|request| {
        let sent =
            header(request, "x-upstream-key").first().and_then(|text| text.strip_prefix("key-"));
        let sent = sent.and_then(|number| number.trim().parse::<usize>().ok());
        match sent.is_some_and(|sent| sent + 2 >= CURRENT.load(Ordering::SeqCst)) {
            true => head_as_text(request),
            false => vec![b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()],
        }
    });
    let own = world.envoy(Workers::One, |settings| {
        settings.python(fake.address()).set("VAULT_CACHE_SECONDS", 1)
    });
    let stack = world.stack();
    let org = Organisation::with_policy(stack, |policy| {
        let name = policy["organisations"][0].as_str().unwrap().to_owned();
        stack.openbao.put_secret(&format!("connectors/{name}"), "token", "key-0").unwrap();
        policy["connectors"]["python"]["credential"] = json!({
            "secret": format!("vault://secret/connectors/{name}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        });
        policy["tiers"]["wide"] = json!({"limits": {}});
    });
    let org = org.through(&own.gateway);
    let path = format!("connectors/{}", org.name);
    let key = org.key_in("analyst", "wide").key;
    let seconds = if requests(0) >= 10_000 { 60 } else { 8 };
    let call = || {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        let answer = org.gateway.send(&Request::post(PYTHON, call).bearer(&key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let calls = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut calls = 0;
                    while Instant::now() < until {
                        call();
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let mut number = 0;
        while Instant::now() < until {
            number += 1;
            CURRENT.store(number, Ordering::SeqCst);
            stack.openbao.put_secret(&path, "token", &format!("key-{number}")).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    let rotations = CURRENT.load(Ordering::SeqCst);
    let reads = fetches(stack, &format!("secret/data/{path}")).len();
    println!("{calls} calls, {rotations} rotations, {reads} reads in {seconds} s: no failed call");
    // Between two reads a rotation may go by unseen: the server above refuses what is older than two.
    let sent = fake.requests();
    let sent: BTreeSet<_> = sent.iter().flat_map(|head| header(head, "x-upstream-key")).collect();
    assert!(2 * sent.len() >= rotations, "{rotations} rotations, used: {sent:?}");
    let newest = format!("x-upstream-key: key-{rotations}");
    let used = || {
        call();
        fake.requests().iter().any(|request| request.contains(&newest)).then_some(())
    };
    ready::eventually("a call with the newest credential", Duration::from_secs(30), used).unwrap();
}

fn refuses(request: &str, current: &str) -> Vec<Vec<u8>> {
    match header(request, "x-upstream-key") == [current] {
        true => head_as_text(request),
        false => vec![b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()],
    }
}

/// Longer than the time in which a credential is not read again.
fn until_it_may_be_read_again(read: Instant) {
    let over = || (read.elapsed() > Duration::from_millis(1_200)).then_some(());
    ready::eventually("a second", Duration::from_secs(5), over).unwrap();
}

// The server takes no old credential for a moment longer: the call under way fails, and no other one does.
// Proves: C2
fn a_refused_credential_is_read_at_once_and_the_next_call_has_the_new_one(world: &World<'_>) {
    static CURRENT: AtomicUsize = AtomicUsize::new(0);
    let fake = FakeUpstream::answering(|request| {
        refuses(request, &format!("key-{}", CURRENT.load(Ordering::SeqCst)))
    });
    let setting = Setting::before(world, fake, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let (stack, path) = (world.stack(), format!("connectors/{}", setting.org.name));
    let key = setting.org.key("analyst").key;
    stack.openbao.put_secret(&path, "token", "key-0").unwrap();
    assert_eq!(setting.call(&key).status(), 200);
    for number in 1..4 {
        until_it_may_be_read_again(Instant::now());
        stack.openbao.put_secret(&path, "token", &format!("key-{number}")).unwrap();
        CURRENT.store(number, Ordering::SeqCst);
        let refused = setting.call(&key);
        assert_eq!((refused.status(), refused.error_code()), (503, Some(-31_503)));
        let entry = refused.audit();
        assert_eq!(entry["decision"]["rule"], "upstream.credential_refused", "{entry}");
        let event =
            json!({"event": "credential_read_again", "connector": "python", "found": "another"});
        assert_eq!(entry["events"][0], event, "{entry}");
        for _ in 0..3 {
            assert_eq!(setting.call(&key).status(), 200);
        }
    }
    // One read at the start, and one for each change.
    assert_eq!(fetches(stack, &format!("secret/data/{path}")).len(), 4);
    // It was not changed: what is wrong is with the server.
    until_it_may_be_read_again(Instant::now());
    CURRENT.store(9, Ordering::SeqCst);
    let entry = setting.call(&key).audit();
    assert_eq!(entry["events"][0]["found"], "same", "{entry}");
}

// A server that answers 401 by mistake while Vault is away took the credential from all calls.
// Proves: B2, C2
fn a_refusal_while_vault_is_away_costs_no_credential(world: &World<'_>) {
    static AWAY: AtomicUsize = AtomicUsize::new(0);
    static REFUSES: AtomicUsize = AtomicUsize::new(0);
    let vault = FakeUpstream::answering(|_| match AWAY.load(Ordering::SeqCst) {
        0 => json_answer(&json!({"data": {"data": {CREDENTIAL_FIELD: "s3cret"}}}).to_string()),
        _ => vec![b"HTTP/1.1 503 Sealed\r\ncontent-length: 0\r\n\r\n".to_vec()],
    });
    let fake = FakeUpstream::answering(|request| match REFUSES.load(Ordering::SeqCst) {
        0 => head_as_text(request),
        _ => refuses(request, "another"),
    });
    let address = vault.address();
    let own = world.envoy(Workers::One, |settings| {
        let settings = settings.set("VAULT_HOST", address.ip()).set("VAULT_PORT", address.port());
        settings.python(fake.address())
    });
    let (org, key) = before(&own, world, "never");
    let call = || {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        org.gateway.send(&Request::post(PYTHON, call).bearer(&key))
    };
    assert_eq!(call().status(), 200);
    AWAY.store(1, Ordering::SeqCst);
    until_it_may_be_read_again(Instant::now());
    REFUSES.store(1, Ordering::SeqCst);
    let refused = call();
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert_eq!(refused.audit()["events"][0]["found"], "none", "{}", refused.audit());
    REFUSES.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        let answer = call();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

// Proves: A6, X12
fn the_request_id_of_our_entry_is_in_vaults_audit_log(world: &World<'_>) {
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let (stack, org) = (world.stack(), setting.org.name.clone());
    stack.openbao.put_secret(&format!("connectors/{org}"), "token", "s3cret").unwrap();
    let answer = setting.call(&setting.org.key("analyst").key);
    let id = answer.audit()["request_id"].clone();
    let reads = fetches(stack, &format!("secret/data/connectors/{org}"));
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!(reads[0]["request"]["headers"]["x-request-id"], json!([id]), "{}", reads[0]);
    // The operator sees both lines together.
    let log = setting.org.gateway.audit().file().display().to_string();
    let vault_log = stack.openbao.audit_log().display().to_string();
    let id = id.as_str().unwrap();
    let search = ["audit", "search", &log, "--text", id, "--vault-log", &vault_log];
    let search = [&search[..], &["--output", "json"]].concat();
    let output = setting.org.operator.run(&search).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let lines: Vec<Value> = lines.collect();
    let [ours, theirs] = &lines[..] else { panic!("{text}") };
    assert_eq!(ours["request_id"], *id, "{text}");
    assert_eq!(theirs["request"]["path"], format!("secret/data/connectors/{org}"), "{text}");
}

// Proves: A5, A16, C1, C6
fn secrets_are_nowhere_but_in_vault_and_at_the_server(world: &World<'_>) {
    const MARKS: [&str; 4] =
        ["mark-of-the-user", "mark-of-the-password", "mark-of-the-key", "mark-of-bad"];
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}"),
            "headers": {"authorization": "Basic {base64(user:password)}", "x-app": "{user}"},
            "query": {"api_key": "{key}"},
        })
    });
    let (stack, org) = (world.stack(), setting.org.name.clone());
    let [user, password, key, bad] = MARKS;
    let put = |fields: Value| {
        let path = format!("secret/data/connectors/{org}");
        stack.openbao.call("POST", &path, &json!({"data": fields})).unwrap();
    };
    put(json!({"user": user, "password": password, "key": key}));
    let caller = setting.org.key("analyst");
    for _ in 0..4 {
        assert!(head(&setting.call(&caller.key)).contains(key));
    }
    // A value that no header can carry is named by its reference.
    let other = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let path = format!("connectors/{}", other.org.name);
    stack.openbao.put_secret(&path, "token", &format!("{bad}\r\nhost: evil")).unwrap();
    let refused = other.call(&other.org.key("analyst").key);
    refused.assert_refused(503, -31_503);
    let reference = format!("vault://secret/{path}#token");
    let event = json!({"event": "secret_unusable", "reason": "not_ascii", "secret": reference});
    assert_eq!(refused.audit()["events"][0], event);
    let told = || {
        let log =
            everything(&other).into_iter().find(|(place, _)| place.ends_with("envoy-own.log"))?;
        log.1.contains(&reference).then_some(())
    };
    ready::eventually("the reference in Envoy's log", Duration::from_secs(10), told).unwrap();
    let basic = "bWFyay1vZi10aGUtdXNlcjptYXJrLW9mLXRoZS1wYXNzd29yZA==";
    let mut looked = 0;
    for (place, text) in everything(&setting).into_iter().chain(everything(&other)) {
        looked += 1;
        for secret in MARKS.iter().chain([&basic, &caller.key.as_str()]) {
            assert!(!text.contains(secret), "{place} contains {secret}");
        }
    }
    assert!(looked > 8, "{looked}");
}

/// What an Envoy of the test's own says anywhere.
fn everything(setting: &Setting) -> Vec<(String, String)> {
    let audit = setting.org.gateway.audit().file().to_owned();
    let mut places = vec![("audit".to_owned(), fs::read_to_string(&audit).unwrap_or_default())];
    for page in ["config_dump?include_eds", "stats", "clusters", "certs", "server_info", "memory"] {
        let text = setting.own.envoy.admin(page).unwrap().text();
        places.push((page.to_owned(), text));
    }
    let folder = audit.parent().unwrap();
    for folder in [folder.to_owned(), folder.join("logs")] {
        for file in
            fs::read_dir(folder).into_iter().flatten().flatten().filter(|it| it.path().is_file())
        {
            let text = fs::read(file.path()).unwrap_or_default();
            places.push((
                file.path().display().to_string(),
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
    }
    places
}

/// The head as it came, in a stream and cut in the middle of every word of it.
fn head_as_events(request: &str) -> Vec<Vec<u8>> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let content = json!([{"type": "text", "text": head}]);
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": content}});
    event_answer(&format!("data: {message}\n\n"), 7)
}

// Proves: A5
fn a_credential_that_a_server_says_back_is_masked(world: &World<'_>) {
    for server in [head_as_text, head_as_events] {
        let setting = Setting::before(world, FakeUpstream::answering(server), |org| {
            json!({
                "secret": format!("vault://secret/connectors/{org}"), "echo": "mask",
                "headers": {"authorization": "Basic {base64(user:password)}", "x-app": "{password}"},
            })
        });
        let path = format!("secret/data/connectors/{}", setting.org.name);
        let fields = json!({"user": "ada", "password": "a-long\"password"});
        world.stack().openbao.call("POST", &path, &json!({"data": fields})).unwrap();
        let answer = setting.call(&setting.org.key("analyst").key);
        let text = answer.text();
        assert!(text.contains("authorization: ****") && text.contains("x-app: ****"), "{text}");
        for secret in ["YWRhOmEtbG9uZyJwYXNzd29yZA==", "a-long", "password"] {
            assert!(!text.contains(secret), "{text}");
        }
        let echoed = json!({"event": "credential_echoed", "connector": "python"});
        let entry = answer.audit();
        assert!(entry["events"].as_array().unwrap().contains(&echoed), "{entry}");
    }
}

/// Answers each call with a stream of ten seconds, whose last event says the credential of the call back.
fn long_stream(request: &str) -> Vec<Vec<u8>> {
    let credential = header(request, "x-app").concat();
    let content = json!([{"type": "text", "text": format!("it was {credential}")}]);
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": content}});
    match credential.starts_with("the-first") {
        true => event_answer(&format!("{}data: {answer}\n\n", ":\n\n".repeat(500)), 3),
        false => json_answer(&answer.to_string()),
    }
}

// Proves: A5, A7
fn a_stream_that_outlasts_its_credential_is_searched_for_that_one(world: &World<'_>) {
    let fake = FakeUpstream::answering(long_stream);
    let own = world.envoy(Workers::One, |settings| {
        settings.set("VAULT_CACHE_SECONDS", 1).python(fake.address())
    });
    let org = Organisation::with_policy(world.stack(), |policy| {
        let name = policy["organisations"][0].as_str().unwrap().to_owned();
        policy["connectors"]["python"]["credential"] = json!({
            "secret": format!("vault://secret/connectors/{name}#key"), "echo": "mask",
            "header": "x-app", "template": "{secret}",
        });
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    let put = |value: &str| {
        world
            .stack()
            .openbao
            .put_secret(&format!("connectors/{}", org.name), "key", value)
            .unwrap();
    };
    let call = || {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        org.gateway.send(&Request::post(PYTHON, call).bearer(&key))
    };
    put("the-first-credential");
    std::thread::scope(|scope| {
        let stream = scope.spawn(call);
        let begun = || (!fake.requests().is_empty()).then_some(());
        ready::eventually("the stream", Duration::from_secs(5), begun).unwrap();
        put("another-credential");
        let over = Instant::now();
        let over = || (over.elapsed() > Duration::from_millis(1_500)).then_some(());
        ready::eventually("the end of the first", Duration::from_secs(5), over).unwrap();
        let next = call();
        assert!(next.text().contains("it was ****") && !next.text().contains("another"));
        let sent = fake.requests().pop().unwrap();
        assert_eq!(header(&sent, "x-app"), ["another-credential"]);
        assert!(!stream.is_finished(), "it was to outlast its credential");
        let text = stream.join().unwrap().text();
        assert!(text.contains("it was ****") && !text.contains("the-first"), "{text}");
    });
}
