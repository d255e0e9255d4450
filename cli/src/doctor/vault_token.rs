//! What a Vault token may: as much as the gateway needs, and no more.
//!
//! Owns which rights those are. Vault is asked what the token may, and nothing of it is tried.

use serde_json::{Map, Value, json};

use portcullis_core::vault::LeaseId;

use super::Finding;
use super::secrets::{BOUND, Vault};
use crate::http;

const CHECK: &str = "vault.token";
/// What lets its holder write policies, make tokens, see other mounts or take part in everything: no gateway needs it.
const POWERS: [&str; 4] = [
    "sys/policies/acl/portcullis-doctor",
    "auth/token/create",
    "sys/mounts/portcullis-doctor",
    "sys/raw/core",
];
/// Rights that change something, or hold for every path.
const CHANGES: [&str; 6] = ["root", "sudo", "create", "update", "patch", "delete"];

/// What was looked at with the token.
#[derive(Default)]
pub(super) struct Seen {
    /// Paths of the API, as they were read.
    pub(super) paths: Vec<String>,
    /// The leases of secrets that Vault made, by reference.
    pub(super) leases: Vec<(String, LeaseId)>,
}

/// Whether the token may attend to leases, and whether it may more than a gateway needs.
pub(super) fn look(vault: &Vault<'_>, seen: &Seen) -> Vec<Finding> {
    let read = seen.paths.iter().map(|path| named(path));
    let leases = seen.leases.iter().flat_map(|(_, id)| [id.renewal(), id.revocation()]);
    let paths: Vec<String> = read
        .map(str::to_owned)
        .chain(leases.map(|path| named(&path).to_owned()))
        .chain(POWERS.map(str::to_owned))
        .collect();
    let rights = match rights(vault, &paths) {
        Ok(rights) => rights,
        Err(unknown) => return vec![*unknown],
    };
    let of_leases = seen.leases.iter().map(|(reference, id)| of_lease(&rights, reference, id));
    let reads = seen.paths.iter().map(|path| named(path)).chain(POWERS);
    let much: Vec<&str> = reads.filter(|path| has(&rights, path, &CHANGES)).collect();
    let of_token = match much.as_slice() {
        [] => Finding::good(CHECK, "changes none of the secrets, and none of Vault's own settings"),
        [first, others @ ..] => {
            let more = match others.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let next = "a gateway's token only reads secrets, and renews and revokes their leases: give it a policy as in \
                        docs/guides/vault-credentials.md";
            Finding::warning(CHECK, format!("may change {first}{more}"), next)
        }
    };
    of_leases.chain([of_token]).collect()
}

fn of_lease(rights: &Map<String, Value>, reference: &str, id: &LeaseId) -> Finding {
    let check = format!("vault.lease {reference}");
    let updates = ["root", "update"];
    let asked = [("renew", id.renewal()), ("revoke", id.revocation())];
    let lacking = asked.iter().filter(|(_, path)| !has(rights, named(path), &updates));
    let lacking: Vec<_> = lacking.collect();
    let Some((_, path)) = lacking.first() else {
        return Finding::good(check, "the token may renew and revoke it");
    };
    let verbs: Vec<_> = lacking.iter().map(|(verb, _)| *verb).collect();
    let below = named(path).rsplit_once('/').map_or(named(path), |(below, _)| below);
    let of = below.splitn(4, '/').nth(3).unwrap_or_default();
    let lines = verbs
        .iter()
        .map(|verb| format!("path \"sys/leases/{verb}/{of}/*\" {{ capabilities = [\"update\"] }}"));
    let found = format!(
        "the token may not {} it: users that Vault makes last until the end of their lease",
        verbs.join(" or ")
    );
    let next = format!("in the gateway's Vault policy: {}", lines.collect::<Vec<_>>().join("  "));
    Finding::warning(&check, found, next)
}

/// A path of the API as policies name it.
fn named(path: &str) -> &str {
    let path = path.strip_prefix("/v1/").unwrap_or(path);
    path.split('?').next().unwrap_or(path)
}

fn has(rights: &Map<String, Value>, path: &str, any: &[&str]) -> bool {
    let of_path = rights.get(path).and_then(Value::as_array);
    of_path.into_iter().flatten().filter_map(Value::as_str).any(|right| any.contains(&right))
}

/// What the token may do at each of `paths`.
fn rights(vault: &Vault<'_>, paths: &[String]) -> Result<Map<String, Value>, Box<Finding>> {
    let unknown = |found: String, next: &str| Box::new(Finding::unknown(CHECK, found, next));
    let url = format!("{}/v1/sys/capabilities-self", vault.url.trim_end_matches('/'));
    let request = http::agent(BOUND).post(&url).header("x-vault-token", vault.token);
    let answer = request.send(json!({"paths": paths}).to_string());
    let mut answer = answer.map_err(|error| unknown(error.to_string(), "check --vault"))?;
    match answer.status().as_u16() {
        200 => {}
        403 => {
            let next = "path \"sys/capabilities-self\" { capabilities = [\"update\"] } in its policy; that shows a token \
                        what it may, and nothing else";
            return Err(unknown("this token may not ask what it may".to_owned(), next));
        }
        status => {
            let found = format!("{status} from sys/capabilities-self");
            return Err(unknown(found, "look into Vault's log"));
        }
    }
    let body = answer.body_mut().read_to_vec().unwrap_or_default();
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match body.get_mut("data").map(Value::take) {
        Some(Value::Object(rights)) => Ok(rights),
        _ => Err(unknown("no answer of sys/capabilities-self".to_owned(), "check --vault")),
    }
}
