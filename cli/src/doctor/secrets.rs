//! The secrets that active policies name, read as the gateway reads them, with a token of the operator's.
//!
//! Owns why a value is no credential. Values are looked at and never shown.

use std::time::Duration;

use portcullis_core::id::OrgId;
use portcullis_core::vault::SecretRef;
use serde_json::Value;

use super::Finding;
use crate::http;

const BOUND: Duration = Duration::from_secs(5);

/// Where Vault is, with which token it is asked, and which of its mounts have a slash.
pub(super) struct Vault<'a> {
    pub(super) url: &'a str,
    pub(super) token: &'a str,
    pub(super) mounts: &'a [String],
}

/// Whether each secret is there, and fit for a header.
pub(super) fn look(vault: &Vault<'_>, named: &[(SecretRef, OrgId)]) -> Vec<Finding> {
    named.iter().map(|(secret, org)| finding(vault, secret, org)).collect()
}

fn finding(vault: &Vault<'_>, secret: &SecretRef, org: &OrgId) -> Finding {
    let check = format!("vault.secret {secret}");
    let path = secret.api_path(vault.mounts);
    let url = format!("{}{path}", vault.url.trim_end_matches('/'));
    let answer = http::agent(BOUND).get(&url).header("x-vault-token", vault.token).call();
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Finding::unknown(&check, error.to_string(), "check --vault"),
    };
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_vec().unwrap_or_default();
    let fault = match status {
        200 => fault(&serde_json::from_slice(&body).unwrap_or_default(), secret.field()),
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
            "write it again: one line of printable ASCII, as text. A mount with a slash is named in vault.mounts",
        ),
    }
}

/// Why the field is no credential.
fn fault(reply: &Value, field: &str) -> Option<&'static str> {
    let Some(fields) = reply.pointer("/data/data").and_then(Value::as_object) else {
        return Some("this is no KV v2 secret");
    };
    match fields.get(field) {
        None => Some("the secret does not have the field"),
        Some(Value::String(text)) if text.is_empty() => Some("the field is empty"),
        Some(Value::String(text)) if text.contains(['\n', '\r']) => {
            Some("the value has a line break (`printf %s` writes none)")
        }
        Some(Value::String(text)) if text.bytes().all(|b| (0x20..0x7f).contains(&b)) => None,
        Some(Value::String(_)) => Some("the value is not plain ASCII"),
        Some(_) => Some("the value is not a text"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Finding 7.3: one word for three causes, and doctor said all good.
    #[test]
    fn each_cause_has_its_word() {
        let of = |data: Value| fault(&json!({"data": {"data": data}}), "key");
        assert_eq!(of(json!({"key": "s3cret"})), None);
        assert_eq!(of(json!({"other": "s3cret"})), Some("the secret does not have the field"));
        assert!(of(json!({"key": "s3cret\n"})).unwrap().contains("line break"));
        assert_eq!(of(json!({"key": "sécret"})), Some("the value is not plain ASCII"));
        assert_eq!(of(json!({"key": 7})), Some("the value is not a text"));
        assert_eq!(of(json!({"key": ""})), Some("the field is empty"));
        assert_eq!(fault(&json!({"errors": []}), "key"), Some("this is no KV v2 secret"));
    }
}
