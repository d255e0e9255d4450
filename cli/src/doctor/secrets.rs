//! The secrets that active policies name, read as the gateway reads them, with a token of the operator's.
//!
//! Owns why a value is no credential. Values are looked at and never shown.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::connector_credential::Source;
use portcullis_core::id::OrgId;
use portcullis_core::vault::{KvVersion, Mount, SecretData, SecretFault, SecretRef};

use super::Finding;
use super::redis::ActiveConnector;
use super::vault::{BOUND, Vault};
use super::vault_token::{self, Seen, SeenLease};
use crate::http;

/// The most organisations that are named.
const NAMED: usize = 3;

/// A reference of active policies, and the organisations whose calls need it.
struct Needed<'a> {
    /// None where the path depends on the caller.
    secret: Option<&'a SecretRef>,
    orgs: BTreeSet<&'a OrgId>,
}

/// Whether each secret is there, and fit for a header.
pub(super) fn look(vault: &Vault<'_>, connectors: &[ActiveConnector]) -> Vec<Finding> {
    let mut looked_at = Seen::default();
    let each = references(connectors).into_iter();
    let mut findings: Vec<_> = each
        .map(|(reference, Needed { secret, orgs })| {
            let check = format!("vault.secret {reference}");
            match secret {
                Some(secret) => finding(vault, check, secret, &named(&orgs), &mut looked_at),
                None => of_callers(&check, &named(&orgs)),
            }
        })
        .collect();
    findings.extend(vault_token::look(vault, &looked_at));
    findings
}

/// Each reference once, however many connectors and organisations use it.
fn references(connectors: &[ActiveConnector]) -> BTreeMap<String, Needed<'_>> {
    let mut references: BTreeMap<String, Needed<'_>> = BTreeMap::new();
    for ActiveConnector { orgs, kept } in connectors {
        let Some(Source::Secret { pattern, stated, .. }) =
            kept.credential.as_deref().map(|credential| credential.source())
        else {
            continue;
        };
        let reference = match stated {
            Some(secret) => secret.to_string(),
            None => pattern.text(None),
        };
        let none = || Needed { secret: stated.as_deref(), orgs: BTreeSet::new() };
        references.entry(reference).or_insert_with(none).orgs.extend(orgs.iter());
    }
    references
}

/// `acme, globex, initech and 7 more`.
fn named(orgs: &BTreeSet<&OrgId>) -> String {
    let names: Vec<&str> = orgs.iter().take(NAMED).map(|org| org.as_str()).collect();
    match orgs.len().saturating_sub(names.len()) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Each caller has another path: none can be looked at without the caller.
fn of_callers(check: &str, orgs: &str) -> Finding {
    let next = "write one for each caller; audit entries name the path of a caller that has none";
    Finding::unknown(check, format!("its path depends on the caller, for {orgs}"), next)
}

fn finding(
    vault: &Vault<'_>,
    check: String,
    secret: &SecretRef,
    orgs: &str,
    looked_at: &mut Seen,
) -> Finding {
    let path = secret.api_path(vault.mounts);
    let url = format!("{}{path}", vault.url.trim_end_matches('/'));
    let answer = http::agent(BOUND).get(&url).header("x-vault-token", vault.token).call();
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Finding::unknown(&check, error.to_string(), "check --vault"),
    };
    let status = answer.status().as_u16();
    looked_at.paths.push(path.clone());
    let body = answer.body_mut().read_to_vec().unwrap_or_default();
    let (fault, next) = match status {
        200 => match secret.read(&body) {
            Ok(SecretData { lease: Some(lease), .. }) => {
                let (renewable, reference) = (lease.renewable, secret.to_string());
                looked_at.leases.extend(lease.id.map(|id| SeenLease { reference, id, renewable }));
                let lasts = lease.lasts.as_secs();
                let found = format!("made for {lasts} s, for {orgs}; this look made one more");
                return Finding::good(check, found);
            }
            Ok(SecretData { lease: None, .. }) => {
                return Finding::good(check, format!("as a header can carry it, for {orgs}"));
            }
            Err(fault) => (fault.described(), Next::Replace(fault)),
        },
        403 => {
            let of_path = path.strip_prefix("/v1/").unwrap_or(&path);
            let of_path = of_path.split('?').next().unwrap_or(of_path);
            let next = format!(
                "a VAULT_TOKEN that may read it. If this one is the gateways', it has ended, or its policy lacks: \
                 path \"{of_path}\" {{ capabilities = [\"read\"] }}"
            );
            return Finding::unknown(&check, "this token may not read it", next);
        }
        404 => ("there is no such secret", Next::Write),
        _ => {
            return Finding::unknown(
                &check,
                format!("{status} from {path}"),
                "look into Vault's log",
            );
        }
    };
    let found = format!("{fault} ({path}): calls of {orgs} that need it are refused");
    Finding::bad(&check, found, next.step(secret, vault.mounts))
}

/// What the operator does about a secret.
#[derive(Clone, Copy)]
enum Next {
    /// It is not there.
    Write,
    /// A field is missing, or no header can carry it.
    Replace(SecretFault),
}

impl Next {
    /// The command, which reads values from standard input or from files: they stay out of the shell's history.
    fn step(self, secret: &SecretRef, mounts: &[Mount]) -> String {
        let (mount, kv, path) = secret.in_mount(mounts);
        let verb = match (self, kv) {
            (Self::Replace(SecretFault::NotJson | SecretFault::NotKv), _) => {
                return "name a mount that has a slash in its path, or is of version 1, in vault.mounts and with \
                        --vault-mount or --vault-mount-v1"
                    .to_owned();
            }
            (Self::Replace(_), KvVersion::Two) => "patch",
            // Version 1 changes no single field.
            (Self::Replace(_), KvVersion::One) | (Self::Write, _) => "put",
        };
        let fields = match secret.fields() {
            [field] => format!("{field}=-"),
            fields => {
                let fields = fields.iter().map(|field| format!("{field}=@FILE"));
                fields.collect::<Vec<_>>().join(" ")
            }
        };
        let from = match secret.fields() {
            [_] => "the value comes from standard input",
            _ => "each value comes from a file",
        };
        let mut step = format!(
            "vault kv {verb} -mount={mount} {path} {fields} (or bao kv {verb} …): {from}, one line of printable ASCII"
        );
        if secret.version().is_some() {
            step.push_str("; then name the new version in the reference");
        }
        if matches!((self, kv), (Self::Write, KvVersion::Two)) {
            step.push_str(
                "; --vault-mount and --vault-mount-v1 name mounts with a slash or of version 1",
            );
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 14, finding of a fresh reader: the line had no step for a secret that is not there.
    // Proves: X16
    #[test]
    fn the_next_step_is_the_command_that_writes_the_secret() {
        let mount = |path: &str, kv| Mount { path: path.to_owned(), kv };
        let mounts = [mount("team/kv", KvVersion::Two), mount("old", KvVersion::One)];
        let missing = Next::Replace(SecretFault::NoSuchField);
        for (reference, next, step) in [
            (
                "vault://secret/connectors/demo#api_key",
                Next::Write,
                "vault kv put -mount=secret connectors/demo api_key=- (or bao kv put …): the value",
            ),
            (
                "vault://secret/connectors/demo#api_key",
                missing,
                "vault kv patch -mount=secret connectors/demo api_key=- (or bao kv patch …)",
            ),
            ("vault://team/kv/crm#key", Next::Write, "vault kv put -mount=team/kv crm key=- "),
            ("vault://old/crm#key", missing, "vault kv put -mount=old crm key=- "),
            (
                "vault://secret/demo#key",
                Next::Replace(SecretFault::NotKv),
                "name a mount that has a slash",
            ),
        ] {
            let secret = SecretRef::parse(reference).unwrap();
            let found = next.step(&secret, &mounts);
            assert!(found.starts_with(step), "{reference}: {found}");
        }
    }

    #[test]
    fn of_many_organisations_three_are_named_and_the_others_counted() {
        let orgs =
            ["acme", "globex", "initech", "umbrella", "wayne"].map(|it| OrgId::new(it).unwrap());
        assert_eq!(named(&orgs.iter().take(2).collect()), "acme, globex");
        assert_eq!(named(&orgs.iter().collect()), "acme, globex, initech and 2 more");
    }
}
