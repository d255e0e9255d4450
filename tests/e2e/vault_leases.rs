//! Credentials that Vault makes for each worker, and takes away after a time: users of a Valkey.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::{known_secrets, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp, patient_hop};
use serde_json::{Value, json};

use crate::vault_callers::{head, head_as_text, header};
use crate::vault_servers::{GATEWAY, Server};

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault_leases":
        users_of_a_database_are_made_in_time_and_shared_by_all_calls,
        a_user_is_renewed_in_use_and_revoked_when_a_policy_drops_it_or_the_gateway_ends,
        doctor_says_whether_the_token_may_attend_to_leases_and_whether_it_may_too_much,
    ]
}

const LEASE_SECONDS: u64 = 20;

/// Makes the database engine of `vault` give out users of the shared Valkey, at `database/creds/crm`, for `seconds` at a
/// time and `most` in all.
fn give_out_users(vault: &Server, world: &World<'_>, (seconds, most): (u64, u64)) {
    let valkey = &world.stack().valkey;
    let maker = "ACL SETUSER vault on >of-vault ~none &none +@all".to_owned();
    assert_eq!(valkey.administer(&[maker]).unwrap().concat().trim(), "+OK");
    vault.call("POST", "sys/mounts/database", &json!({"type": "database"}));
    let connection = json!({
        "plugin_name": "valkey-database-plugin", "allowed_roles": "crm", "username": "vault", "password": "of-vault",
        "host": "127.0.0.1", "port": valkey.address().port(),
    });
    vault.call("POST", "database/config/valkey", &connection);
    let role = json!({
        "db_name": "valkey", "creation_statements": "[\"+ping\"]",
        "default_ttl": seconds, "max_ttl": most,
    });
    vault.call("POST", "database/roles/crm", &role);
}

/// A gateway before an OpenBao that gives out users, and a connector that shows what it got.
struct Setting<'a> {
    world: &'a World<'a>,
    vault: Server,
    own: OwnEnvoy,
    org: Organisation,
    key: String,
    _fake: FakeUpstream,
}

/// Name and password.
type User = (String, String);

impl<'a> Setting<'a> {
    fn new(world: &'a World<'a>, seconds: (u64, u64)) -> Self {
        let vault = Server::start(world);
        give_out_users(&vault, world, seconds);
        let (token, fake) = (vault.token_sds(), FakeUpstream::answering(head_as_text));
        let own = world.envoy_changed(
            Workers::One,
            |settings| {
                settings.vault(patient_hop::before(vault.address), &token).python(fake.address())
            },
            |template| {
                let cache = "\"cache_seconds\": ${PORTCULLIS_VAULT_CACHE_SECONDS:-60}";
                let mounts = json!([{"path": "database", "kv": 1}]);
                replaced(&template, cache, &format!("{cache}, \"mounts\": {mounts}"))
            },
        );
        let org = Organisation::with_policy(world.stack(), with_users);
        let org = org.through(&own.gateway);
        let key = org.key_in("analyst", "wide").key;
        Self { world, vault, own, org, key, _fake: fake }
    }

    fn call(&self) -> Answer {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        self.org.gateway.send(&Request::post(PYTHON, call).bearer(&self.key))
    }

    /// Whose credential a call has.
    fn user(&self) -> User {
        let head = head(&self.call());
        let [basic] = header(&head, "authorization")[..] else { panic!("{head}") };
        let pair = STANDARD.decode(basic.strip_prefix("Basic ").unwrap()).unwrap();
        let (name, password) = pair.split_at(pair.iter().position(|byte| *byte == b':').unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (name, password) = (text(name), text(&password[1..]));
        known_secrets::note(&password, "database/creds/crm");
        (name, password)
    }

    /// Whether the Valkey knows that user.
    fn is_taken(&self, (name, password): &User) -> bool {
        let login = format!("AUTH {name} {password}");
        self.world.stack().valkey.administer(&[login]).unwrap().concat().starts_with("+OK")
    }

    fn is_gone(&self, user: &User, within: u64) {
        let gone = || (!self.is_taken(user)).then_some(());
        ready::eventually("the end of a user", Duration::from_secs(within), gone).unwrap();
    }

    /// How often the lease of the only user was renewed, as Vault has it: when last.
    fn last_renewal(&self) -> Option<String> {
        let listed =
            self.vault.call("GET", "sys/leases/lookup/database/creds/crm?list=true", &Value::Null);
        let [key] = &listed["data"]["keys"].as_array().unwrap()[..] else { panic!("{listed}") };
        let lease = format!("database/creds/crm/{}", key.as_str().unwrap());
        let found = self.vault.call("PUT", "sys/leases/lookup", &json!({"lease_id": lease}));
        found["data"]["last_renewal"].as_str().map(str::to_owned)
    }

    fn outcomes(&self, outcome: &str) -> u64 {
        let stats = self.own.envoy.admin("stats?filter=leases_total").unwrap().text();
        let line = stats.lines().find(|line| line.contains(&format!("outcome.=.{outcome}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }
}

fn with_users(policy: &mut Value) {
    policy["connectors"]["python"]["credential"] = json!({
        "secret": "vault://database/creds/crm", "header": "authorization",
        "template": "Basic {base64(username:password)}",
    });
    policy["tiers"]["wide"] = json!({"limits": {}});
}

// Proves: A7, X12, C2
fn users_of_a_database_are_made_in_time_and_shared_by_all_calls(world: &World<'_>) {
    let setting = Setting::new(world, (LEASE_SECONDS, LEASE_SECONDS));
    let (user, is_taken) = (|| setting.user(), |user: &User| setting.is_taken(user));
    // Calls that come together wait for one user.
    let users: BTreeSet<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(user)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let [first] = users.iter().collect::<Vec<_>>()[..] else { panic!("{users:?}") };
    assert!(is_taken(first), "{first:?}");
    // No call has a user that the server does not know any more.
    let mut seen = users.clone();
    let replaced = || {
        let now = user();
        assert!(is_taken(&now), "{now:?} after {seen:?}");
        seen.insert(now);
        (seen.len() > 2).then_some(())
    };
    ready::eventually("a third user", Duration::from_secs(6 * LEASE_SECONDS), replaced).unwrap();
    let gone = || (!is_taken(first)).then_some(());
    ready::eventually("the end of the first user", Duration::from_secs(60), gone).unwrap();
    assert!(setting.outcomes("replaced") > 0, "calls had to wait for each user");
    let made =
        setting.vault.call("GET", "sys/leases/lookup/database/creds/crm?list=true", &Value::Null);
    println!("{} users, leases now: {}", seen.len(), made["data"]["keys"]);
}

// The users live for 40 s at a time, and for 10 minutes in all.
// Proves: A7, X12, C2
fn a_user_is_renewed_in_use_and_revoked_when_a_policy_drops_it_or_the_gateway_ends(
    world: &World<'_>,
) {
    let setting = Setting::new(world, (40, 600));
    let first = setting.user();
    assert_eq!(setting.last_renewal(), None);
    let renewed = || {
        assert_eq!(setting.user(), first, "it is in use on and on");
        setting.last_renewal().map(|_| ())
    };
    ready::eventually("a renewal", Duration::from_secs(60), renewed).unwrap();
    assert_eq!(setting.user(), first);
    assert!(setting.outcomes("renewed") > 0);
    // 40 seconds are left of it. A policy without the credential, and a call that brings it to the worker.
    let mut policy = setting.org.standard_policy();
    with_users(&mut policy);
    let with = policy.clone();
    policy["connectors"]["python"].as_object_mut().unwrap().remove("credential");
    setting.org.push(&policy);
    let dropped = || header(&head(&setting.call()), "authorization").is_empty().then_some(());
    ready::eventually("the other policy", Duration::from_secs(20), dropped).unwrap();
    setting.is_gone(&first, 20);
    // The server hears of it before the gateway does.
    let counted = || (setting.outcomes("revoked") == 1).then_some(());
    ready::eventually("the answer of Vault", Duration::from_secs(10), counted).unwrap();
    // The gateway ends in order. It asks Vault, and waits for no answer.
    setting.org.push(&with);
    let again = || (!header(&head(&setting.call()), "authorization").is_empty()).then_some(());
    ready::eventually("the first policy", Duration::from_secs(20), again).unwrap();
    let second = setting.user();
    assert!(setting.is_taken(&second) && second != first);
    setting.own.envoy.process().stop();
    setting.is_gone(&second, 15);
}

// Proves: X12, X16
fn doctor_says_whether_the_token_may_attend_to_leases_and_whether_it_may_too_much(
    world: &World<'_>,
) {
    let vault = Server::start(world);
    give_out_users(&vault, world, (300, 300));
    let org = Organisation::with_policy(world.stack(), with_users);
    let address = format!("http://{}", vault.address);
    let look = |token: &str| -> Value {
        let environment = [("VAULT_ADDR", address.as_str()), ("VAULT_TOKEN", token)];
        let arguments = ["doctor", "--vault-mount-v1", "database", "--output", "json"];
        let said = org.operator.run_with(&arguments, &environment).unwrap();
        let report: Value = serde_json::from_slice(&said.stdout).unwrap();
        report["checks"].clone()
    };
    let found = |checks: &Value, name: &str| -> (String, String) {
        let checks = checks.as_array().unwrap();
        let check = checks.iter().find(|check| check["check"].as_str().unwrap().starts_with(name));
        let check = check.unwrap_or_else(|| panic!("no {name} in {checks:?}"));
        let text = |name: &str| check[name].as_str().unwrap().to_owned();
        (text("state"), format!("{} {}", text("found"), text("next")))
    };
    const LEASE: &str = "vault.lease vault://database/creds/crm";
    let checks = look(&vault.token("gateway", GATEWAY));
    assert_eq!(found(&checks, LEASE).0, "good", "{checks:#}");
    assert_eq!(found(&checks, "vault.token").0, "good", "{checks:#}");
    // It may not revoke.
    let without = GATEWAY.replace("sys/leases/revoke", "sys/leases/other");
    let checks = look(&vault.token("no-revocation", &without));
    let (state, text) = found(&checks, LEASE);
    assert_eq!(state, "warning", "{checks:#}");
    assert!(text.contains("may not revoke it"), "{text}");
    let line = r#"path "sys/leases/revoke/database/creds/crm/*" { capabilities = ["update"] }"#;
    assert!(text.contains(line) && !text.contains("sys/leases/renew"), "{text}");
    // It may change what it should only read, or everything.
    let more = format!(r#"{GATEWAY} path "auth/token/create" {{ capabilities = ["update"] }}"#);
    let checks = look(&vault.token("makes-tokens", &more));
    let (state, text) = found(&checks, "vault.token");
    assert_eq!(state, "warning", "{checks:#}");
    assert!(text.contains("may change auth/token/create "), "{text}");
    let (state, text) = found(&look(vault.root_token()), "vault.token");
    // Secrets of other tests' organisations on the shared Redis are among them.
    let more = text.split(" and ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(state == "warning" && more.is_some_and(|more: u32| more >= 5), "{state} {text}");
    // One that may not ask what it may.
    let silent = GATEWAY.replace("sys/capabilities-self", "sys/nothing");
    let checks = look(&vault.token("silent", &silent));
    let (state, text) = found(&checks, "vault.token");
    assert!(state == "unknown" && text.contains("sys/capabilities-self"), "{state} {text}");
}
