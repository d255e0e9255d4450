//! Vault itself: sealed, killed and started again; how the gateway proves itself to it, and what it may do there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_stack::files::write_private;
use portcullis_stack::{CREDENTIAL_FIELD, Process, http, known_secrets, ports, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::vault::fetches;
use crate::vault_callers::{Setting, head, head_as_text, header};
use crate::vault_faults::before;

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault_servers":
        a_sealed_and_a_killed_vault_are_survived_as_configured,
        an_agent_that_logs_in_by_itself_leaves_envoy_without_a_token,
        the_gateways_token_is_replaced_without_a_restart,
        the_gateways_token_reads_what_its_policy_names_and_nothing_else,
    ]
}

const READY_WITHIN: Duration = Duration::from_secs(60);
/// What a gateway's token may.
pub(crate) const GATEWAY: &str = r#"
    path "secret/data/connectors/*" { capabilities = ["read"] }
    path "database/creds/crm" { capabilities = ["read"] }
    path "sys/leases/renew/database/creds/crm/*" { capabilities = ["update"] }
    path "sys/leases/revoke/database/creds/crm/*" { capabilities = ["update"] }
    path "sys/capabilities-self" { capabilities = ["update"] }
"#;

/// An OpenBao that keeps what it has when it dies, and is sealed when it starts.
pub(crate) struct Server {
    program: PathBuf,
    dir: PathBuf,
    pub(crate) address: SocketAddr,
    process: Process,
    unseal_key: String,
    root_token: String,
}

impl Server {
    pub(crate) fn start(world: &World<'_>) -> Self {
        let dir = world.dir().join("vault");
        fs::create_dir_all(dir.join("data")).unwrap();
        let port = || ports::loopback(ports::free_port().unwrap());
        let (address, cluster) = (port(), port());
        let config = json!({
            "storage": {"raft": {"path": dir.join("data"), "node_id": "one", "performance_multiplier": "1"}},
            "listener": {"tcp": {"address": address.to_string(), "tls_disable": true}},
            "api_addr": format!("http://{address}"), "cluster_addr": format!("http://{cluster}"),
        });
        fs::write(dir.join("server.json"), config.to_string()).unwrap();
        let program = world.stack().options().tools.bao.clone();
        let process = launch(&program, &dir, address);
        let mut server = Self {
            program,
            dir,
            address,
            process,
            unseal_key: String::new(),
            root_token: String::new(),
        };
        let made =
            server.call("PUT", "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1}));
        server.unseal_key = made["keys_base64"][0].as_str().unwrap().to_owned();
        server.root_token = made["root_token"].as_str().unwrap().to_owned();
        server.unseal();
        server.call(
            "POST",
            "sys/mounts/secret",
            &json!({"type": "kv", "options": {"version": "2"}}),
        );
        server
    }

    fn unseal(&self) {
        self.call("PUT", "sys/unseal", &json!({"key": self.unseal_key}));
        let health = format!("http://{}/v1/sys/health", self.address);
        let unsealed = || ready::answers_200(&health).then_some(());
        ready::eventually("an unsealed Vault", READY_WITHIN, unsealed).unwrap();
    }

    fn seal(&self) {
        self.call("PUT", "sys/seal", &json!({}));
    }

    fn start_again(&mut self) {
        self.process = launch(&self.program, &self.dir, self.address);
    }

    pub(crate) fn put(&self, path: &str) {
        let put = || {
            let body = json!({"data": {CREDENTIAL_FIELD: "s3cret"}});
            let (status, _) = self.send("POST", &format!("secret/data/{path}"), &body);
            (status == 200).then_some(())
        };
        ready::eventually("a secret that is written", READY_WITHIN, put).unwrap();
    }

    /// The gateway's token, in the form in which Envoy reads it.
    pub(crate) fn token_sds(&self) -> PathBuf {
        let token = self.token("gateway", GATEWAY);
        let file = self.dir.join("token.yaml");
        let resource = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "vault_token", "generic_secret": {"secret": {"inline_string": token}},
        }]});
        write_private(&file, &resource.to_string()).unwrap();
        file
    }

    /// The token that may everything.
    pub(crate) fn root_token(&self) -> &str {
        &self.root_token
    }

    /// A token that may what `policy` says.
    pub(crate) fn token(&self, name: &str, policy: &str) -> String {
        self.call("PUT", &format!("sys/policies/acl/{name}"), &json!({"policy": policy}));
        let wanted = json!({"policies": [name], "no_default_policy": true});
        let made = self.call("POST", "auth/token/create", &wanted);
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        if let Some(fields) = body.get("data") {
            known_secrets::note_all(fields, path);
        }
        let url = format!("http://{}/v1/{path}", self.address);
        let token = [("x-vault-token", self.root_token.as_str())];
        let reply = http::send(method, &url, &token, body.to_string().as_bytes()).unwrap();
        (reply.status, reply.json())
    }
}

fn launch(program: &Path, dir: &Path, address: SocketAddr) -> Process {
    let mut command = Command::new(program);
    command.arg("server").arg(format!("-config={}", dir.join("server.json").display()));
    command.env("HOME", dir);
    let process = Process::spawn("openbao", command, &dir.join("server.log")).unwrap();
    let status = format!("http://{address}/v1/sys/seal-status");
    ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(&status)).unwrap();
    process
}

fn call((org, key): &(Organisation, String)) -> Answer {
    let call = mcp::call("echo", json!({"message": "x"})).to_string();
    let started = Instant::now();
    let answer = org.gateway.send(&Request::post(PYTHON, call).bearer(key));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    answer
}

fn serves(answer: &Answer) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(header(&head(answer), "x-upstream-key"), ["s3cret"]);
}

// Proves: B2, X12
fn a_sealed_and_a_killed_vault_are_survived_as_configured(world: &World<'_>) {
    let mut vault = Server::start(world);
    let token = vault.token_sds();
    for path in ["connectors/5m", "connectors/never"] {
        vault.put(path);
    }
    let fake = FakeUpstream::answering(head_as_text);
    let own = world.envoy(Workers::One, |settings| {
        let settings = settings.vault(vault.address, &token).set("VAULT_CACHE_SECONDS", 0);
        settings.python(fake.address())
    });
    let (stale, never) = (before(&own, world, "5m"), before(&own, world, "never"));
    let recovers = |when: &str| {
        for org in [&stale, &never] {
            let well = || (call(org).status() == 200).then_some(());
            ready::eventually(when, READY_WITHIN, well).unwrap();
        }
        serves(&call(&stale));
    };
    let is_away = |when: &str| {
        for _ in 0..6 {
            let (with, without) = (call(&stale), call(&never));
            serves(&with);
            assert_eq!(with.audit()["degraded"], json!(["vault"]), "{when}");
            assert_eq!(without.status(), 503, "{when}: {}", without.text());
            without.assert_refused(503, -31_503);
            assert!(without.header("retry-after").is_some(), "{when}");
        }
    };
    recovers("a Vault that is well");
    vault.seal();
    is_away("sealed");
    vault.unseal();
    recovers("a Vault that was unsealed");
    vault.process.kill_9();
    is_away("killed");
    vault.start_again();
    is_away("started, and sealed");
    vault.unseal();
    recovers("a Vault that was started again");
}

/// The cluster of Vault without the filter that adds a token.
fn without_token(template: String) -> String {
    let cut = template.find("- name: envoy.filters.http.credential_injector").unwrap();
    let end = cut + template[cut..].find("- name: envoy.filters.http.upstream_codec").unwrap();
    // What fills the template in wants a place for each value.
    let unused = "# ${PORTCULLIS_VAULT_TOKEN_SDS:-none}\n        ";
    [&template[..cut], unused, &template[end..]].concat()
}

// The agent's tokens end after 20 s for good, and it logs in again before.
// Proves: X12, C1
fn an_agent_that_logs_in_by_itself_leaves_envoy_without_a_token(world: &World<'_>) {
    let bao = &world.stack().openbao;
    let dir = world.dir().join("agent");
    fs::create_dir_all(&dir).unwrap();
    bao.call("POST", "sys/auth/approle", &json!({"type": "approle"})).unwrap();
    let role = json!({
        "token_policies": ["portcullis"], "token_no_default_policy": true, "token_ttl": "10s", "token_max_ttl": "20s",
    });
    bao.call("POST", "auth/approle/role/gateway", &role).unwrap();
    let id = bao.call("GET", "auth/approle/role/gateway/role-id", &json!({})).unwrap().json();
    let secret =
        bao.call("POST", "auth/approle/role/gateway/secret-id", &json!({})).unwrap().json();
    let (role_file, secret_file) = (dir.join("role-id"), dir.join("secret-id"));
    write_private(&role_file, id["data"]["role_id"].as_str().unwrap()).unwrap();
    write_private(&secret_file, secret["data"]["secret_id"].as_str().unwrap()).unwrap();
    let address = ports::loopback(ports::free_port().unwrap());
    let config = json!({
        "vault": {"address": bao.url()},
        "auto_auth": {"method": [{"type": "approle", "mount_path": "auth/approle", "config": {
            "role_id_file_path": role_file, "secret_id_file_path": secret_file,
            "remove_secret_id_file_after_reading": false,
        }}]},
        "api_proxy": {"use_auto_auth_token": "force"},
        "listener": [{"tcp": {"address": address.to_string(), "tls_disable": true}}],
    });
    fs::write(dir.join("proxy.json"), config.to_string()).unwrap();
    let mut command = Command::new(&world.stack().options().tools.bao);
    command.arg("proxy").arg(format!("-config={}", dir.join("proxy.json").display()));
    command.env("HOME", &dir);
    let agent = Process::spawn("bao proxy", command, &dir.join("proxy.log")).unwrap();
    let fake = FakeUpstream::answering(head_as_text);
    let own = world.envoy_changed(
        Workers::One,
        |settings| {
            let settings =
                settings.set("VAULT_HOST", address.ip()).set("VAULT_PORT", address.port());
            settings.set("VAULT_CACHE_SECONDS", 0).python(fake.address())
        },
        without_token,
    );
    let org = behind(&own, world);
    ready::process_is_ready(&agent, READY_WITHIN, || call(&org).status() == 200).unwrap();
    let path = format!("secret/data/connectors/{}", org.0.name);
    let tokens = || {
        let reads = fetches(world.stack(), &path);
        let used = reads.iter().map(|read| read["auth"]["accessor"].to_string());
        used.collect::<std::collections::BTreeSet<_>>().len()
    };
    let other_token = || {
        serves(&call(&org));
        (tokens() > 1).then_some(())
    };
    ready::eventually("another token of the agent", READY_WITHIN, other_token).unwrap();
    serves(&call(&org));
    let dump = own.envoy.admin("config_dump?include_eds").unwrap().text();
    assert!(!dump.contains("vault_token"), "Envoy knows a token");
}

/// An organisation whose secret is in the shared Vault.
fn behind(own: &OwnEnvoy, world: &World<'_>) -> (Organisation, String) {
    let org = crate::vault::with_secret(world, "python", "x-upstream-key", "{secret}", "s3cret");
    let key = org.key("analyst").key;
    (org.through(&own.gateway), key)
}

fn token_in(file: &Path) -> String {
    let resource: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let token = resource.pointer("/resources/0/generic_secret/secret/inline_string");
    token.and_then(Value::as_str).unwrap().to_owned()
}

// Proves: X12, C2
fn the_gateways_token_is_replaced_without_a_restart(world: &World<'_>) {
    let vault = Server::start(world);
    let token = vault.token_sds();
    vault.put("connectors/never");
    let fake = FakeUpstream::answering(head_as_text);
    let own = world.envoy(Workers::One, |settings| {
        let settings = settings.vault(vault.address, &token).set("VAULT_CACHE_SECONDS", 0);
        settings.python(fake.address())
    });
    let org = before(&own, world, "never");
    serves(&call(&org));
    for _ in 0..3 {
        let (old, before) = (token_in(&token), updates(&own));
        vault.token_sds();
        // Envoy takes the new one a moment later, so both hold for as long.
        let taken = || {
            serves(&call(&org));
            (updates(&own) > before).then_some(())
        };
        ready::eventually("the new token at Envoy", READY_WITHIN, taken).unwrap();
        vault.call("POST", "auth/token/revoke", &json!({"token": old}));
        for _ in 0..5 {
            serves(&call(&org));
        }
    }
}

/// How often Envoy took the token from its file.
fn updates(own: &OwnEnvoy) -> u64 {
    let stats = own.envoy.admin("stats?filter=vault_token.update_success").unwrap().text();
    let number = stats.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{stats}"))
}

// Proves: X12, C1
fn the_gateways_token_reads_what_its_policy_names_and_nothing_else(world: &World<'_>) {
    let setting = Setting::new(world, |org| {
        json!({
            "secret": format!("vault://secret/connectors/{org}#token"),
            "header": "x-upstream-key", "template": "{secret}",
        })
    });
    let bao = &world.stack().openbao;
    let own = format!("connectors/{}", setting.org.name);
    bao.put_secret(&own, "token", "s3cret").unwrap();
    let other = format!("other/{}", setting.org.name);
    bao.put_secret(&other, "token", "s3cret").unwrap();
    assert_eq!(setting.call(&setting.org.key("analyst").key).status(), 200);
    let token = token_in(bao.token_sds());
    let send = |method: &str, path: &str, body: Value| {
        let url = format!("{}/v1/{path}", bao.url());
        let body = if method == "GET" { String::new() } else { body.to_string() };
        http::send(method, &url, &[("x-vault-token", &token)], body.as_bytes()).unwrap().status
    };
    assert_eq!(send("GET", &format!("secret/data/{own}"), json!({})), 200);
    let data = json!({"data": {"token": "mine"}});
    for (method, path, body) in [
        ("GET", format!("secret/data/{other}"), json!({})),
        ("POST", format!("secret/data/{own}"), data),
        ("DELETE", format!("secret/data/{own}"), json!({})),
        ("GET", format!("secret/metadata/{own}"), json!({})),
        ("GET", "secret/metadata/connectors?list=true".to_owned(), json!({})),
        ("GET", "sys/mounts".to_owned(), json!({})),
        ("GET", "sys/policies/acl/portcullis".to_owned(), json!({})),
        ("GET", "auth/token/lookup-self".to_owned(), json!({})),
        ("POST", "auth/token/create".to_owned(), json!({})),
        ("PUT", "sys/seal".to_owned(), json!({})),
    ] {
        assert_eq!(send(method, &path, body), 403, "{method} {path}");
    }
}
