//! The secrets that active policies name, read as the gateway reads them, with a token of the operator's.
//!
//! Owns why a value is no credential. Values are looked at and never shown.

use portcullis_core::connector_credential::{ConnectorCredential, SecretPattern, Source};
use portcullis_core::id::OrgId;
use portcullis_core::vault::{SecretData, SecretRef};

use super::Finding;
use super::redis::ActiveConnector;
use super::vault::{BOUND, Vault};
use super::vault_token::{self, Seen, SeenLease};
use crate::http;

/// Whether each secret is there, and fit for a header.
pub(super) fn look(vault: &Vault<'_>, connectors: &[ActiveConnector]) -> Vec<Finding> {
    let mut seen: Vec<&ConnectorCredential> = Vec::new();
    let (mut findings, mut looked_at) = (Vec::new(), Seen::default());
    for ActiveConnector { org, kept, .. } in connectors {
        let Some(credential) = kept.credential.as_deref() else { continue };
        if seen.contains(&credential) {
            continue;
        }
        seen.push(credential);
        findings.extend(match credential.source() {
            Source::Secret { stated: Some(secret), .. } => {
                Some(finding(vault, secret, org, &mut looked_at))
            }
            Source::Secret { pattern, .. } => Some(of_callers(pattern, org)),
            Source::Exchange(_) => None,
        });
    }
    findings.extend(vault_token::look(vault, &looked_at));
    findings
}

/// Each caller has another path: none can be looked at without the caller.
fn of_callers(pattern: &SecretPattern, org: &OrgId) -> Finding {
    let check = format!("vault.secret {}", pattern.text(None));
    let next = "write one for each caller; audit entries name the path of a caller that has none";
    Finding::unknown(&check, format!("its path depends on the caller, for {org}"), next)
}

fn finding(vault: &Vault<'_>, secret: &SecretRef, org: &OrgId, looked_at: &mut Seen) -> Finding {
    let check = format!("vault.secret {secret}");
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
    let fault = match status {
        200 => match secret.read(&body) {
            Ok(SecretData { lease: Some(lease), .. }) => {
                let (renewable, reference) = (lease.renewable, secret.to_string());
                looked_at.leases.extend(lease.id.map(|id| SeenLease { reference, id, renewable }));
                let lasts = lease.lasts.as_secs();
                let found = format!("made for {lasts} s, for {org}; this look made one more");
                return Finding::good(check, found);
            }
            Ok(SecretData { lease: None, .. }) => None,
            Err(fault) => Some(fault.described()),
        },
        403 => {
            let next = "a VAULT_TOKEN that may read it, like that of the gateways";
            return Finding::unknown(&check, "this token may not read it", next);
        }
        404 => Some("there is no such secret"),
        _ => {
            return Finding::unknown(
                &check,
                format!("{status} from {path}"),
                "look into Vault's log",
            );
        }
    };
    match fault {
        None => Finding::good(check, format!("as a header can carry it, for {org}")),
        Some(fault) => Finding::bad(
            &check,
            format!("{fault} ({path}): calls of {org} that need it are refused"),
            "write it again: one line of printable ASCII. vault.mounts names a mount with a slash or of version 1",
        ),
    }
}
