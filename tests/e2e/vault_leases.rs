//! Credentials that Vault makes for each worker, and takes away after a time: users of a Valkey.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::ready;
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{Workers, replaced};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::vault_callers::{head, head_as_text, header};
use crate::vault_servers::Server;

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault_leases": users_of_a_database_are_made_in_time_and_shared_by_all_calls]
}

const LEASE_SECONDS: u64 = 20;

/// Makes the database engine of `vault` give out users of the shared Valkey, at `database/creds/crm`.
fn give_out_users(vault: &Server, world: &World<'_>) {
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
        "default_ttl": LEASE_SECONDS, "max_ttl": LEASE_SECONDS,
    });
    vault.call("POST", "database/roles/crm", &role);
}

// Proves: A7, X12, C2
fn users_of_a_database_are_made_in_time_and_shared_by_all_calls(world: &World<'_>) {
    let vault = Server::start(world);
    give_out_users(&vault, world);
    let (token, fake) = (vault.token_sds(), FakeUpstream::answering(head_as_text));
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.vault(vault.address, &token).python(fake.address()),
        |template| {
            let cache = "\"cache_seconds\": ${PORTCULLIS_VAULT_CACHE_SECONDS:-60}";
            let mounts = json!([{"path": "database", "kv": 1}]);
            replaced(&template, cache, &format!("{cache}, \"mounts\": {mounts}"))
        },
    );
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["python"]["credential"] = json!({
            "secret": "vault://database/creds/crm", "header": "authorization",
            "template": "Basic {base64(username:password)}",
        });
        policy["tiers"]["wide"] = json!({"limits": {}});
    });
    let org = org.through(&own.gateway);
    let key = org.key_in("analyst", "wide").key;
    let user = || {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        let head = head(&org.gateway.send(&Request::post(PYTHON, call).bearer(&key)));
        let [basic] = header(&head, "authorization")[..] else { panic!("{head}") };
        let pair = STANDARD.decode(basic.strip_prefix("Basic ").unwrap()).unwrap();
        let (name, password) = pair.split_at(pair.iter().position(|byte| *byte == b':').unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(name), text(&password[1..]))
    };
    let is_taken = |(name, password): &(String, String)| {
        let login = format!("AUTH {name} {password}");
        world.stack().valkey.administer(&[login]).unwrap().concat().starts_with("+OK")
    };
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
    let made = vault.call("GET", "sys/leases/lookup/database/creds/crm?list=true", &Value::Null);
    println!("{} users, leases now: {}", seen.len(), made["data"]["keys"]);
}
