//! Client certificates over real TLS: who is let in by one, and what it is worth beside a key or from a proxy.

use std::io::{Read, Write};

use portcullis_core::auth::deny_list::Deniable;
use portcullis_core::id::OrgId;
use portcullis_stack::{Identity, Names, Validity};
use portcullis_tests::front::{FrontProxy, TlsGateway, stranger};
use portcullis_tests::gateway::sent_header;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::{Answer, Case, Organisation, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["certificates":
        certificate_names_its_holder_and_without_one_nobody_gets_in,
        certificate_that_does_not_hold_gets_nobody_in,
        certificate_beside_a_key_is_a_second_factor,
        key_bound_to_a_certificate_is_nothing_without_it,
        certificate_where_it_is_optional_stands_for_who_has_no_key,
        denied_certificate_is_refused_on_the_next_request,
        forwarded_certificate_counts_only_from_a_trusted_proxy,
        forwarded_certificate_of_several_proxies_is_the_last,
    ]
}

const FORWARDED: &str = "x-forwarded-client-cert";

fn list() -> Request {
    Request::post(DEMO, mcp::list().to_string())
}

fn query() -> Request {
    Request::post(DEMO, mcp::call("query_users", json!({"limit": 1})).to_string())
}

/// Agents by URI, DNS name and common name, in that order.
fn identities(org: &str) -> Value {
    let rule = |matcher: Value, role: &str| json!({"match": matcher, "org": org, "role": role, "tier": "wide"});
    json!([
        rule(json!({"uri": "spiffe://acme.example/admin/*"}), "admin"),
        rule(json!({"uri": "spiffe://acme.example/agent/*"}), "analyst"),
        rule(json!({"dns": "*.agents.acme.example"}), "analyst"),
        rule(json!({"cn": "agent-*"}), "analyst"),
    ])
}

fn client(world: &World<'_>, file: &str, names: Names<'_>) -> Identity {
    let authority = &world.stack().certificates.authority;
    // Tests share the authority, and run at the same time.
    let file = format!("{file}-{}", world.dir().file_name().unwrap().to_string_lossy());
    authority.client(&file, names, Validity::Now).unwrap()
}

fn named(common_name: &str) -> Names<'_> {
    Names { common_name: Some(common_name), ..Names::default() }
}

/// Refused as 401, audited with its reason, and unknown to the upstream.
fn assert_unauthenticated(answer: &Answer, reason: &str) {
    answer.assert_refused(401, -31_401);
    let entry = answer.audit();
    assert_eq!(entry["decision"]["rule"], format!("auth.{reason}"), "{entry}");
    assert_eq!(entry["events"][0]["event"], "auth_failed", "{entry}");
    assert_eq!(entry["events"][0]["reason"], reason, "{entry}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer realm=\"portcullis\""), "{challenge}");
}

/// Let in by a certificate, as `name`; the upstream and the audit log know it.
fn assert_identified(answer: &Answer, org: &Organisation, name: &str) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let entry = answer.audit();
    let expected = json!([org.name, name, name, "mtls"]);
    let found =
        json!([entry["org_id"], entry["client_id"], entry["principal"], entry["auth_method"]]);
    assert_eq!(found, expected, "{entry}");
    let seen = answer.upstream();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(sent_header(&seen[0], "x-portcullis-principal"), [name]);
    assert_eq!(sent_header(&seen[0], FORWARDED), Vec::<&str>::new());
}

// Proves: B8, B6
fn certificate_names_its_holder_and_without_one_nobody_gets_in(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| set.set("CERTIFICATES", "required"));
    let org = &gateway.org;
    let uri = "spiffe://acme.example/agent/7";
    let dns = "x.agents.acme.example";
    let by_uri = Names { common_name: Some("agent-7"), uri: Some(uri), dns: Some(dns) };
    let by_dns = Names { dns: Some(dns), ..named("agent-7") };
    let without_subject = Names { uri: Some(uri), ..Names::default() };
    for (file, names, name) in [
        ("uri", by_uri, uri),
        ("no-subject", without_subject, uri),
        ("dns", by_dns, dns),
        ("cn", named("agent-7"), "agent-7"),
        (
            "odd-cn",
            named("agent-\u{fc}, CN=admin \"x\"; + \\"),
            "agent-\u{fc}, CN=admin \"x\"; + \\",
        ),
    ] {
        let identity = client(world, file, names);
        let answer = gateway.send(Some(&identity), &query()).unwrap();
        if file == "odd-cn" {
            assert_eq!(answer.audit()["client_id"], name);
            continue;
        }
        assert_identified(&answer, org, name);
        let entry = answer.audit();
        assert_eq!(entry["certificate_sha256"], identity.sha256, "{entry}");
        assert_eq!(entry["events"], json!([{"event": "auth_success", "client_id": name}]));
        assert_eq!(answer.rows().len(), 1);
    }
    // Its role decides, as anybody's does.
    let identity = client(world, "role", by_uri);
    let note = mcp::call("create_note", json!({"user_id": 1, "text": "x"}));
    let refused = gateway.send(Some(&identity), &Request::post(DEMO, note.to_string())).unwrap();
    refused.assert_refused(403, -31_403);
    for answer in [gateway.send(None, &list()).unwrap(), org.gateway.send(&list())] {
        assert_unauthenticated(&answer, "no_certificate");
        assert!(answer.text().contains("A client certificate is required"), "{}", answer.text());
    }
}

// Proves: B8, B18
fn certificate_that_does_not_hold_gets_nobody_in(world: &World<'_>) {
    let other = "00".repeat(32);
    let pin = client(world, "pinned", named("pinned"));
    let right = pin.sha256.clone();
    let rules = |org: &str| {
        let rule = |matcher: Value| json!({"match": matcher, "org": org, "role": "analyst", "tier": "wide"});
        json!([
            rule(json!({"cn": "pinned", "sha256": right})),
            rule(json!({"cn": "swapped", "sha256": other})),
            rule(json!({"uri": "spiffe://acme.example/agent/*"})),
            rule(json!({"cn": "agent"})),
        ])
    };
    let gateway = TlsGateway::start(world, rules, |set| set.set("CERTIFICATES", "required"));
    // Other tests call the same upstream meanwhile.
    let reached = || {
        let mut recorded = gateway.own.gateway.recorded();
        recorded.retain(|seen| sent_header(seen, "x-portcullis-org") == [&*gateway.org.name]);
        recorded
    };
    // Right in all but one thing. What no authority vouches for does not come as far as HTTP.
    let uri = Names { uri: Some("spiffe://acme.example/agent/7"), ..named("agent") };
    let foreign = stranger(world).client("agent", uri, Validity::Now).unwrap();
    let authority = &world.stack().certificates.authority;
    let expired = authority.client("expired", uri, Validity::Over).unwrap();
    for (what, identity) in [("foreign", foreign), ("expired", expired)] {
        let answer = gateway.send(Some(&identity), &list());
        let fault = answer.map(|answer| answer.status()).expect_err(what);
        assert!(fault.to_string().contains("received fatal alert"), "{what}: {fault}");
    }
    assert_eq!(reached(), Vec::<Value>::new());
    for (file, names) in [
        ("unknown", named("somebody")),
        ("swapped", named("swapped")),
        ("no-names", Names::default()),
        ("deeper", Names { uri: Some("spiffe://acme.example/agent/7/8"), ..Names::default() }),
        ("domain", Names { uri: Some("spiffe://acme.example.evil/agent/7"), ..Names::default() }),
        ("looks-like", named("somebody,CN=agent")),
    ] {
        let identity = client(world, file, names);
        let answer = gateway.send(Some(&identity), &list()).unwrap();
        assert_unauthenticated(&answer, "unknown_certificate");
        assert!(answer.audit().get("org_id").is_none(), "{file}: {}", answer.audit());
        assert_eq!(answer.audit()["certificate_sha256"], identity.sha256);
    }
    assert_identified(&gateway.send(Some(&pin), &query()).unwrap(), &gateway.org, "pinned");
    assert_eq!(reached().len(), 1);
}

// Proves: B8
fn certificate_beside_a_key_is_a_second_factor(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| set.set("CERTIFICATES", "required"));
    let key = gateway.org.key("admin");
    let mine = client(world, "mine", named("agent-1"));
    let strange = client(world, "strange", named("somebody"));
    let answer = gateway.send(Some(&mine), &query().bearer(&key.key)).unwrap();
    // The key is who calls, with its own role.
    assert_eq!(answer.rows().len(), 1);
    let entry = answer.audit();
    assert_eq!(
        json!([
            entry["api_key_id"],
            entry["auth_method"],
            entry["role"],
            entry["certificate_sha256"]
        ]),
        json!([key.id, "api_key", "admin", mine.sha256]),
        "{entry}"
    );
    let with = |identity: Option<&Identity>, key: &str| {
        gateway.send(identity, &list().bearer(key)).unwrap()
    };
    assert_unauthenticated(&with(None, &key.key), "no_certificate");
    assert_unauthenticated(&with(Some(&strange), &key.key), "unknown_certificate");
    let elsewhere = world.organisation().key("admin");
    let answer = with(Some(&mine), &elsewhere.key);
    assert_unauthenticated(&answer, "certificate_of_other_organisation");
    // The key was right, so the log may say whose it was.
    assert_eq!(answer.audit()["api_key_id"], elsewhere.id);
    // A certificate does not make up for a bad key.
    let mut typo = key.key.clone();
    typo.pop();
    assert_unauthenticated(&with(Some(&mine), &typo), "malformed_key");
    gateway.org.operator.revoke_key(&key.id, "a test").unwrap();
    assert_unauthenticated(&with(Some(&mine), &key.key), "revoked");
}

fn key_bound_to_a_certificate_is_nothing_without_it(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| set.set("CERTIFICATES", "optional"));
    let (mine, mesh) = (client(world, "mine", named("agent-1")), client(world, "mesh", named("m")));
    let key = gateway.org.key("analyst");
    let bind = |print: &str| {
        let arguments = ["key", "set", &key.id, "--certificate", print, "--reason", "a test"];
        gateway.org.operator.json(&arguments).unwrap();
    };
    let with = |identity| gateway.send(identity, &list().bearer(&key.key)).unwrap();
    assert_eq!(with(None).status(), 200);
    bind(&mine.sha256);
    assert_eq!(with(Some(&mine)).status(), 200);
    for identity in [None, Some(&mesh)] {
        let answer = with(identity);
        assert_unauthenticated(&answer, "certificate_mismatch");
        assert_eq!(answer.audit()["api_key_id"], key.id, "the secret was right");
    }
    // Also where certificates do not count.
    let elsewhere = world.organisation().post(&key.key, &mcp::list());
    assert_unauthenticated(&elsewhere, "certificate_mismatch");
    bind("none");
    assert_eq!(with(None).status(), 200);
}

// Proves: B8
fn certificate_where_it_is_optional_stands_for_who_has_no_key(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| {
        // The header would come through, and is not believed.
        set.set("CERTIFICATES", "optional").set("FORWARD_CLIENT_CERT", "ALWAYS_FORWARD_ONLY")
    });
    let (org, key) = (&gateway.org, gateway.org.key("analyst"));
    let mine = client(world, "mine", named("agent-1"));
    let mesh = client(world, "mesh", named("sidecar"));
    assert_unauthenticated(&gateway.send(None, &list()).unwrap(), "no_credential");
    assert_identified(&gateway.send(Some(&mine), &query()).unwrap(), org, "agent-1");
    for identity in [None, Some(&mine), Some(&mesh)] {
        let answer = gateway.send(identity, &list().bearer(&key.key)).unwrap();
        let entry = answer.audit();
        assert_eq!((answer.status(), &entry["api_key_id"]), (200, &json!(key.id)), "{entry}");
    }
    assert_unauthenticated(&gateway.send(Some(&mesh), &list()).unwrap(), "unknown_certificate");
    let elsewhere = world.organisation().key("analyst");
    let answer = gateway.send(Some(&mine), &list().bearer(&elsewhere.key)).unwrap();
    assert_unauthenticated(&answer, "certificate_of_other_organisation");
    let spoof = format!("Hash={};URI=spiffe://acme.example/admin/root", mine.sha256);
    let spoofed = query().header(FORWARDED, &spoof);
    assert_unauthenticated(&org.gateway.send(&spoofed), "no_credential");
    assert_unauthenticated(&gateway.send(None, &spoofed).unwrap(), "no_credential");
    assert_identified(&gateway.send(Some(&mine), &spoofed).unwrap(), org, "agent-1");
}

// Proves: A21
fn denied_certificate_is_refused_on_the_next_request(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| set.set("CERTIFICATES", "required"));
    let (mine, other) =
        (client(world, "mine", named("agent-1")), client(world, "other", named("agent-2")));
    assert_identified(&gateway.send(Some(&mine), &query()).unwrap(), &gateway.org, "agent-1");
    deny(world, &gateway.org, &mine);
    let answer = gateway.send(Some(&mine), &query()).unwrap();
    assert_unauthenticated(&answer, "denied");
    assert_eq!(answer.audit()["client_id"], "agent-1");
    assert_identified(&gateway.send(Some(&other), &query()).unwrap(), &gateway.org, "agent-2");
}

/// Writes a denial as the operator's tool does.
fn deny(world: &World<'_>, org: &Organisation, identity: &Identity) {
    let key = Deniable::Certificate(identity.sha256.clone()).key(&OrgId::new(&org.name).unwrap());
    let record = json!({"what": identity.sha256, "at": 1, "by": "ops", "reason": "a test"});
    let mut command = b"*6\r\n".to_vec();
    for word in ["HSET", key.as_str(), "rev", "1", "doc", &record.to_string()] {
        command.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    let mut redis = world.stack().valkey_of(&org.name).connect().unwrap();
    redis.write_all(&command).unwrap();
    let mut reply = [0; 4];
    redis.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b":2\r\n");
}

// Proves: B8
fn forwarded_certificate_counts_only_from_a_trusted_proxy(world: &World<'_>) {
    let uri = "spiffe://acme.example/proxy/front";
    let gateway = TlsGateway::start(world, identities, |set| {
        set.set("CERTIFICATES", "required")
            .set("FORWARD_CLIENT_CERT", "ALWAYS_FORWARD_ONLY")
            .set("TRUSTED_PROXY_URIS", json!([uri]))
    });
    let org = &gateway.org;
    let proxy = client(world, "proxy", Names { uri: Some(uri), ..Names::default() });
    let names = Names {
        uri: Some("spiffe://acme.example/agent/7"),
        dns: Some("x.example"),
        ..named("a \"b\", c")
    };
    let agent = client(world, "agent", names);
    let named_only = client(world, "named", named("agent-9"));
    let front = FrontProxy::start(world, &gateway, &proxy, "SANITIZE_SET");
    let answer = front.send(Some(&agent), &query());
    assert_identified(&answer, org, "spiffe://acme.example/agent/7");
    assert_eq!(answer.audit()["certificate_sha256"], agent.sha256);
    assert_identified(&front.send(Some(&named_only), &query()), org, "agent-9");
    // What the proxy's client says is replaced by what the proxy saw.
    let spoof = format!("Hash={};URI=spiffe://acme.example/admin/root", agent.sha256);
    let spoofed = query().header(FORWARDED, &spoof);
    assert_identified(&front.send(Some(&named_only), &spoofed), org, "agent-9");
    // A proxy speaks for others, never for itself.
    assert_unauthenticated(&front.send(None, &spoofed), "no_certificate");
    // Others do not speak for anybody: an agent is who it is, whatever it says.
    let answer = gateway.send(Some(&agent), &spoofed).unwrap();
    assert_identified(&answer, org, "spiffe://acme.example/agent/7");
    assert_unauthenticated(&gateway.send(None, &spoofed).unwrap(), "no_certificate");
    assert_unauthenticated(&org.gateway.send(&spoofed), "no_certificate");
    // The proxy itself, saying what cannot be read in one way.
    let forged = format!("{spoof},{spoof}");
    for header in ["", "x", spoof.trim_start_matches("Hash="), &forged] {
        let answer = gateway.send(Some(&proxy), &list().header(FORWARDED, header)).unwrap();
        assert_unauthenticated(&answer, "malformed_forwarded_certificate");
    }
    let twice = list().header(FORWARDED, &spoof).header(FORWARDED, &spoof);
    let answer = gateway.send(Some(&proxy), &twice).unwrap();
    assert_unauthenticated(&answer, "malformed_forwarded_certificate");
}

// Proves: B8
fn forwarded_certificate_of_several_proxies_is_the_last(world: &World<'_>) {
    let gateway = TlsGateway::start(world, identities, |set| {
        set.set("CERTIFICATES", "required")
            .set("FORWARD_CLIENT_CERT", "ALWAYS_FORWARD_ONLY")
            .set("TRUSTED_PROXY_ADDRESSES", json!(["127.0.0.0/8"]))
            .set("FORWARDED_ELEMENTS", "last")
    });
    let proxy = client(world, "proxy", named("proxy"));
    let agent = client(world, "agent", named("agent-9"));
    let front = FrontProxy::start(world, &gateway, &proxy, "APPEND_FORWARD");
    let spoof = format!("Hash={};URI=spiffe://acme.example/admin/root", agent.sha256);
    for request in [query(), query().header(FORWARDED, &spoof)] {
        assert_identified(&front.send(Some(&agent), &request), &gateway.org, "agent-9");
    }
    // Without a certificate of its client the proxy appends nothing, and what came with the request is gone.
    let answer = front.send(None, &query().header(FORWARDED, &spoof));
    assert_unauthenticated(&answer, "no_certificate");
}
