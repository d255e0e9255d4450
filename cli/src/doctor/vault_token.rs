//! What a Vault token may: as much as the gateway needs, and no more.
//!
//! Owns which rights those are. Vault is asked what the token may, and nothing of it is tried.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use portcullis_core::vault::LeaseId;

use super::Finding;
use super::vault::{BOUND, Vault};
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
    pub(super) leases: Vec<SeenLease>,
}

/// The lease of a secret that Vault made.
pub(super) struct SeenLease {
    /// Of the secret.
    pub(super) reference: String,
    pub(super) id: LeaseId,
    /// Whether Vault lets it last longer. The gateway replaces the user of one that does not.
    pub(super) renewable: bool,
}

impl SeenLease {
    /// What the gateway asks of it: the verb in Vault's path, and the path.
    fn asked(&self) -> Vec<(&'static str, String)> {
        let renewal = self.renewable.then(|| ("renew", self.id.renewal()));
        renewal.into_iter().chain([("revoke", self.id.revocation())]).collect()
    }
}

/// Whether the token may attend to leases, and whether it may more than a gateway needs.
pub(super) fn look(vault: &Vault<'_>, seen: &Seen) -> Vec<Finding> {
    let read: BTreeSet<&str> = seen.paths.iter().map(|path| named(path)).collect();
    let leases = seen.leases.iter().flat_map(SeenLease::asked);
    let paths: Vec<String> = (read.iter().map(|path| (*path).to_owned()))
        .chain(leases.map(|(_, path)| named(&path).to_owned()))
        .chain(POWERS.map(str::to_owned))
        .collect();
    let rights = match rights(vault, &paths) {
        Ok(rights) => rights,
        Err(unknown) => return vec![*unknown],
    };
    let of_leases = seen.leases.iter().map(|lease| of_lease(&rights, lease));
    of_leases.chain([of_token(&rights, read)]).collect()
}

fn of_token(rights: &Map<String, Value>, read: BTreeSet<&str>) -> Finding {
    let reads = read.into_iter().chain(POWERS);
    let much: Vec<&str> = reads.filter(|path| has(rights, path, &CHANGES)).collect();
    let [first, others @ ..] = much.as_slice() else {
        let found = "VAULT_TOKEN changes none of the secrets, and none of Vault's own settings";
        return Finding::good(CHECK, found);
    };
    let more = match others.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let next = "doctor judges the token in VAULT_TOKEN, so set that to one like the gateways'. Such a token only reads \
                secrets, and renews and revokes their leases: give it a policy as in docs/guides/vault-credentials.md";
    Finding::warning(CHECK, format!("VAULT_TOKEN may change {first}{more}"), next)
}

fn of_lease(rights: &Map<String, Value>, lease: &SeenLease) -> Finding {
    let check = format!("vault.lease {}", lease.reference);
    let updates = ["root", "update"];
    let asked = lease.asked();
    let lacking = asked.iter().filter(|(_, path)| !has(rights, named(path), &updates));
    let lacking: Vec<_> = lacking.collect();
    let Some((_, path)) = lacking.first() else {
        return Finding::good(
            check,
            match lease.renewable {
                true => "the token may renew and revoke it",
                false => "the token may revoke it, and Vault renews none of this role",
            },
        );
    };
    let verbs: Vec<_> = lacking.iter().map(|(verb, _)| *verb).collect();
    let below = named(path).rsplit_once('/').map_or(named(path), |(below, _)| below);
    let of = below.splitn(4, '/').nth(3).unwrap_or_default();
    let lines = verbs
        .iter()
        .map(|verb| format!("path \"sys/leases/{verb}/{of}/*\" {{ capabilities = [\"update\"] }}"));
    let follows = match verbs.as_slice() {
        ["renew"] => "the gateway has Vault make another user before each lease ends",
        _ => "users that Vault makes last until the end of their lease",
    };
    let found = format!("the token may not {} it: {follows}", verbs.join(" or "));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn lease(renewable: bool) -> SeenLease {
        let id = LeaseId::new("database/creds/crm/aB3").unwrap();
        SeenLease { reference: "vault://database/creds/crm".to_owned(), id, renewable }
    }

    fn rights_of(paths: &[(&str, &str)]) -> Map<String, Value> {
        paths.iter().map(|(path, right)| ((*path).to_owned(), json!([right]))).collect()
    }

    const RENEWAL: &str = "sys/leases/renew/database/creds/crm/aB3";
    const REVOCATION: &str = "sys/leases/revoke/database/creds/crm/aB3";

    // It asked for the renewal of what Vault does not renew, and said that its users stay.
    #[test]
    fn a_token_needs_no_right_to_renew_what_vault_does_not_renew() {
        let (renews, revokes) = ((RENEWAL, "update"), (REVOCATION, "update"));
        for (renewable, rights, state, text) in [
            (true, vec![renews, revokes], State::Good, "may renew and revoke it"),
            (false, vec![revokes], State::Good, "may revoke it, and Vault renews none"),
            (true, vec![revokes], State::Warning, "may not renew it: the gateway has Vault make"),
            (true, vec![renews], State::Warning, "may not revoke it: users that Vault makes last"),
            (true, vec![], State::Warning, "may not renew or revoke it: users that Vault"),
            (false, vec![], State::Warning, "may not revoke it: users that Vault makes last"),
        ] {
            let finding = of_lease(&rights_of(&rights), &lease(renewable));
            assert_eq!(finding.state, state, "{text}");
            assert!(finding.found.contains(text), "{}", finding.found);
        }
        assert_eq!(lease(false).asked().len(), 1);
    }

    #[test]
    fn a_path_that_several_connectors_read_is_counted_once() {
        let seen = ["/v1/secret/data/a", "/v1/secret/data/a?version=2", "/v1/secret/data/b"];
        let rights = rights_of(&[("secret/data/a", "update"), ("secret/data/b", "update")]);
        let finding = of_token(&rights, seen.iter().map(|path| named(path)).collect());
        assert_eq!(finding.found, "VAULT_TOKEN may change secret/data/a and 1 more");
        let finding = of_token(&Map::new(), BTreeSet::from(["secret/data/a"]));
        assert_eq!(finding.state, State::Good);
    }
}
