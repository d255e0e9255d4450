//! `audit anchor` with a key that never leaves Vault: OpenBao's transit engine signs, and `audit verify` checks.

use std::fs;

use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["audit_anchor":
        vault_signs_how_far_the_chains_have_come,
    ]
}

// Issue 16: "signed (Vault transit Ed25519, …)". Proves: A17
fn vault_signs_how_far_the_chains_have_come(world: &World<'_>) {
    let (bao, dir) = (&world.stack().openbao, world.dir());
    fs::create_dir_all(&dir).unwrap();
    let org = world.organisation();
    let key = org.key("analyst").key;
    org.call(&key, "query_users", json!({})).audit();
    // An engine and keys of the test's own, and an operator who may sign with them and do nothing else.
    let mount = format!("audit-{}", org.name);
    let ask = |method: &str, path: &str, body: Value| bao.call(method, path, &body).unwrap().json();
    let engine = json!({"type": "transit"});
    bao.call("POST", &format!("sys/mounts/{mount}"), &engine).unwrap();
    for (name, kind) in [("anchors", "ed25519"), ("other", "ed25519"), ("wrong", "ecdsa-p256")] {
        bao.call("POST", &format!("{mount}/keys/{name}"), &json!({"type": kind})).unwrap();
    }
    let rights = format!(
        "path \"{mount}/sign/anchors\" {{ capabilities = [\"update\"] }}\n\
         path \"{mount}/keys/*\" {{ capabilities = [\"read\"] }}"
    );
    bao.call("PUT", &format!("sys/policies/acl/{mount}"), &json!({"policy": rights})).unwrap();
    let wanted = json!({"policies": [mount], "no_default_policy": true});
    let token = ask("POST", "auth/token/create", wanted);
    let token = token["auth"]["client_token"].as_str().unwrap().to_owned();
    let url = bao.url();
    let anchor = |log: &str, key: &str| {
        let arguments =
            ["audit", "anchor", "--log", log, "--vault-key", key, "--vault-mount", &mount];
        let environment = [("VAULT_ADDR", url.as_str()), ("VAULT_TOKEN", token.as_str())];
        org.operator.run_with(&arguments, &environment).unwrap()
    };
    let log = dir.join("anchors.jsonl");
    let log = log.to_str().unwrap();
    let output = anchor(log, "anchors");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains(&format!("\"chain\":\"admin:{}\"", org.name)), "{text}");
    // The signatures hold by the key that Vault shows, and by no other.
    let verified = |key: &str| {
        let shown = ask("GET", &format!("{mount}/keys/{key}"), json!({}));
        let public = dir.join(format!("{key}.pub"));
        fs::write(&public, shown["data"]["keys"]["1"]["public_key"].as_str().unwrap()).unwrap();
        let public = public.to_str().unwrap();
        let admin = ["--admin", "--org", &org.name, "--partial", "--output", "json"];
        let verify = ["audit", "verify", "--anchors", log, "--public-key", public];
        let output = org.operator.run(&[&verify[..], &admin].concat()).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report)
    };
    let (status, report) = verified("anchors");
    assert_eq!(status, Some(0), "{report:#}");
    let anchors = &report["anchors"];
    assert_eq!((&anchors["entries"], &anchors["faults"]), (&json!(1), &json!([])), "{report:#}");
    assert!(anchors["found"].as_u64() >= Some(1), "{report:#}");
    let (status, report) = verified("other");
    assert_eq!(status, Some(1), "{report:#}");
    assert_eq!(report["anchors"]["faults"].as_array().map(Vec::len), Some(1), "{report:#}");
    // A key without the right to sign, one of another kind, and one that is not there write nothing.
    for (key, said) in [("other", "403"), ("wrong", "ed25519"), ("absent", "404")] {
        let file = dir.join(format!("{key}.jsonl"));
        let output = anchor(file.to_str().unwrap(), key);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{key}: {error}");
        assert!(error.contains(said) && !error.contains(&token), "{key}: {error}");
        assert_eq!(fs::read_to_string(&file).unwrap_or_default(), "", "{key}");
    }
}
