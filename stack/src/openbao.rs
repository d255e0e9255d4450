//! OpenBao, which speaks Vault's API: the store of connector credentials.
//!
//! Owns one in-memory server on loopback, the policy and the token of the gateway, and the file that passes this token
//! to Envoy. Its own audit device records every read. Knows nothing about the filter.

use crate::error::{During, Result, StackError};
use crate::files::{random_hex, write_private};
use crate::http::{self, Reply};
use crate::known_secrets;
use crate::ports::loopback;
use crate::process::Process;
use crate::ready;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// The name of the policy, of its token, and of the resource in the file for Envoy.
const GATEWAY: &str = "portcullis";
/// The gateway may read connector credentials, and nothing else.
const GATEWAY_POLICY: &str = r#"path "secret/data/connectors/*" { capabilities = ["read"] }"#;

/// A running OpenBao with a token for the gateway.
#[derive(Debug)]
pub struct OpenBao {
    process: Process,
    address: SocketAddr,
    root_token: String,
    token_sds: PathBuf,
    audit_log: PathBuf,
}

impl OpenBao {
    /// Starts an empty server below `dir` and makes the gateway's token.
    pub fn start(program: &Path, dir: &Path, logs: &Path, port: u16) -> Result<Self> {
        let dir = dir.join("openbao");
        fs::create_dir_all(&dir).during(|| format!("create {}", dir.display()))?;
        let audit_log = dir.join("audit.jsonl");
        let root_token = random_hex(16)?;
        let process = launch(program, &dir, logs, &audit_log, (port, &root_token))?;
        let token_sds = dir.join("token.yaml");
        let openbao = Self { process, address: loopback(port), root_token, token_sds, audit_log };
        openbao.grant_gateway()?;
        // The id of the gateway's request, which connects its audit entry with the lines of this log.
        let header = "sys/config/auditing/request-headers/x-request-id";
        openbao.call("POST", header, &json!({"hmac": false}))?;
        Ok(openbao)
    }

    /// The process, to watch or to kill it. Its data is lost then: it keeps everything in memory.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients (`VAULT_ADDR`).
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The root token (`VAULT_TOKEN`).
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The file from which Envoy reads the gateway's token.
    pub fn token_sds(&self) -> &Path {
        &self.token_sds
    }

    /// OpenBao's own audit log: one JSON line per request and per response.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// Puts one field at `secret/<path>` (KV version 2), replacing what was there.
    pub fn put_secret(&self, path: &str, field: &str, value: &str) -> Result<()> {
        self.call("POST", &format!("secret/data/{path}"), &json!({"data": {field: value}}))?;
        Ok(())
    }

    /// Any request to the API below `/v1/`, as root; refused unless the answer is a 2xx.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Result<Reply> {
        if let Some(fields) = body.get("data") {
            known_secrets::note_all(fields, path);
        }
        let url = format!("{}/v1/{path}", self.url());
        let reply = http::send(
            method,
            &url,
            &[("x-vault-token", &self.root_token)],
            body.to_string().as_bytes(),
        )?;
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        Err(StackError::Refused {
            attempted: format!("{method} {path} on OpenBao"),
            answer: format!("{} {}", reply.status, reply.text().trim()),
        })
    }

    /// Makes a new token for the gateway, and revokes the previous one.
    pub fn grant_gateway(&self) -> Result<()> {
        self.call(
            "PUT",
            &format!("sys/policies/acl/{GATEWAY}"),
            &json!({"policy": GATEWAY_POLICY}),
        )?;
        let wanted =
            json!({"policies": [GATEWAY], "display_name": GATEWAY, "no_default_policy": true});
        let reply = self.call("POST", "auth/token/create", &wanted)?.json();
        let token =
            reply.pointer("/auth/client_token").and_then(Value::as_str).ok_or_else(|| {
                StackError::Refused {
                    attempted: "create the gateway's token".into(),
                    answer: reply.to_string(),
                }
            })?;
        // JSON is valid YAML. Envoy notices the new file because it is moved into place.
        let resource = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "vault_token",
            "generic_secret": {"secret": {"inline_string": token}},
        }]});
        write_private(&self.token_sds, &format!("{resource}\n"))
    }
}

fn launch(
    program: &Path,
    dir: &Path,
    logs: &Path,
    audit_log: &Path,
    (port, root_token): (u16, &str),
) -> Result<Process> {
    let config = dir.join("openbao.hcl");
    // Only the configuration can declare audit devices; the API refuses them. A JSON string is also a valid HCL string.
    let declared = format!(
        "audit \"file\" \"{GATEWAY}\" {{ options {{ file_path = {} }} }}\n",
        json!(audit_log)
    );
    fs::write(&config, declared).during(|| format!("write {}", config.display()))?;
    let mut command = Command::new(program);
    command
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-listen-address={}", loopback(port)))
        .arg(format!("-config={}", config.display()))
        // The token is in the environment: every user of the machine can read a command line.
        .env("BAO_DEV_ROOT_TOKEN_ID", root_token)
        .env("HOME", dir);
    let process = Process::spawn("openbao", command, &logs.join("openbao.log"))?;
    let health = format!("http://{}/v1/sys/health", loopback(port));
    // It is unsealed shortly before its key-value store is upgraded to version 2.
    let store = format!("http://{}/v1/secret/config", loopback(port));
    ready::process_is_ready(&process, READY_WITHIN, || {
        ready::answers_200(&health)
            && http::send("GET", &store, &[("x-vault-token", root_token)], b"")
                .is_ok_and(|reply| reply.status == 200)
    })?;
    Ok(process)
}
