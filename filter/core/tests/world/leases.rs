//! Leases of a scenario: users that Vault made for one key.

use portcullis_core::connector_credential::{
    CallerFacts, CallerProof, CredentialRef, SecretPattern,
};
use portcullis_core::driver::call::Reply;
use portcullis_core::id::{OrgId, PolicyName};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use serde_json::{Map, json};

/// Revokes a key of `acme` with `count` leases.
pub(super) fn revoke(worker: &mut Worker, now: UnixTime, count: usize) {
    let (org, connector) = (OrgId::new("acme").unwrap(), PolicyName::new("demo").unwrap());
    let facts = CallerFacts {
        org: &org,
        holder: "kgone",
        proof: CallerProof::Key("kgone"),
        claims: &Map::new(),
        connector: &connector,
        token: None,
    };
    for number in 0..count {
        let pattern = SecretPattern::parse(&format!("vault://database/creds/{number}/{{key}}"));
        let secret = pattern.unwrap().resolve(facts, &["password".to_owned()]).unwrap();
        let body = json!({
            "lease_id": format!("database/creds/{number}/x"), "lease_duration": 3_600,
            "renewable": true, "data": {"password": "p"},
        });
        let reply = Reply::vault(body.to_string().into_bytes());
        worker.take_answer(&CredentialRef::Secret(secret.into()), Some(&reply), (now, now));
    }
    worker.revoke_secrets_of(&org, "kgone");
    // The next tick.
    let _ = worker.due_lease(now);
}
