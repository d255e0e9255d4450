//! Access tokens for tests: from the stack's demo issuer, from a real authorization server, and invalid ones.
//!
//! Owns how tests get them. The tests decide what to expect.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jwt_simple::common::HeaderOptions;
use jwt_simple::prelude::{ECDSAP256KeyPairLike as _, ES256KeyPair, JWTClaims};
use portcullis_stack::{Node, Stack, ports};
use serde_json::{Map, Value, json};

use crate::node::Program;
use crate::wire::{Request, Wire};

/// A client of the authorization server.
pub const CLIENT: (&str, &str) = ("agent-1", "agent-1-secret");

/// Mints tokens with the stack's private key.
pub struct Mint {
    key: ES256KeyPair,
    issuer: String,
    audience: String,
}

impl Mint {
    /// Uses the stack's own key and issuer.
    pub fn of(stack: &Stack) -> Self {
        let pem = fs::read_to_string(stack.issuer.private_key()).expect("the private key");
        let key = ES256KeyPair::from_pem(&pem).expect("a P-256 key").with_key_id("demo");
        Self { key, issuer: stack.issuer.name().to_owned(), audience: stack.mcp_url() }
    }

    /// Uses the same issuer with a key that is in no key set.
    pub fn forged(&self, kid: &str) -> Self {
        let key = ES256KeyPair::generate().with_key_id(kid);
        Self { key, issuer: self.issuer.clone(), audience: self.audience.clone() }
    }

    /// Uses another issuer's name.
    pub fn named(self, issuer: &str) -> Self {
        Self { issuer: issuer.to_owned(), ..self }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for an analyst of `org`, changed by `more`; null removes a claim.
    pub fn token(&self, org: &str, more: Value) -> String {
        self.key.sign(self.claims(org, more)).expect("a token")
    }

    /// As [`Mint::token`], with another type.
    pub fn typed(&self, typ: &str, org: &str, more: Value) -> String {
        let options =
            HeaderOptions { signature_type: Some(typ.into()), ..HeaderOptions::default() };
        self.key.sign_with_options(self.claims(org, more), &options).expect("a token")
    }

    fn claims(&self, org: &str, more: Value) -> JWTClaims<Map<String, Value>> {
        let now = now();
        let mut claims = json!({
            "iss": self.issuer, "aud": self.audience, "sub": "agent-1", "iat": now - 5,
            "exp": now + 300, "org": org, "role": "analyst", "tier": "wide",
        });
        for (name, value) in more.as_object().expect("claims") {
            match value {
                Value::Null => _ = claims.as_object_mut().expect("claims").remove(name),
                value => claims[name] = value.clone(),
            }
        }
        serde_json::from_value(claims).expect("claims of a token")
    }
}

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// `oidc-provider`, with client credentials.
#[derive(Debug)]
pub struct Idp {
    program: Option<Program>,
    address: SocketAddr,
    keys: PathBuf,
    logs: PathBuf,
    org: String,
    /// The key set of the subject tokens that it exchanges, and the lifetime of the issued tokens.
    exchanges: Option<(PathBuf, u32)>,
}

impl Idp {
    /// Starts it with one key; its tokens are for an analyst of `org`.
    pub fn start(node: &Node, dir: &Path, org: &str) -> Self {
        fs::create_dir_all(dir).expect("a directory of the test's own");
        let address = ports::loopback(ports::free_port().expect("a free port"));
        let (keys, logs) = (dir.join("idp-keys.json"), dir.join("logs"));
        let (org, exchanges) = (org.to_owned(), None);
        let mut idp = Self { program: None, address, keys, logs, org, exchanges };
        idp.come_back(node, 1);
        idp
    }

    /// As [`Idp::start`]; the client `gateway` exchanges tokens that verify with `subjects` for tokens that live `life`
    /// seconds.
    pub fn exchanging(node: &Node, dir: &Path, org: &str, subjects: &Path, life: u32) -> Self {
        let mut idp = Self::start(node, dir, org);
        idp.exchanges = Some((subjects.to_owned(), life));
        idp.come_back(node, 1);
        idp
    }

    /// How many tokens clients requested since its last start.
    pub fn token_requests(&self) -> usize {
        self.program.as_ref().map_or(0, |program| program.ran("token"))
    }

    /// Sets whether an exchange takes five seconds.
    pub fn set_slow(&self, slow: bool) {
        let file = self.beside("slow");
        if slow {
            fs::write(file, "").expect("a file")
        } else {
            fs::remove_file(file).expect("gone")
        }
    }

    /// Refuses to issue tokens to these subjects.
    pub fn refuse(&self, subjects: &[&str]) {
        fs::write(self.beside("refused"), subjects.join("\n")).expect("a file");
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut file = self.keys.clone().into_os_string();
        file.push(format!(".{ending}"));
        file.into()
    }

    /// Starts again, with this many keys.
    pub fn come_back(&mut self, node: &Node, generation: u32) {
        self.go_down();
        let (keys, org, exchanges) = (&self.keys, &self.org, &self.exchanges);
        let program = Program::start("idp", &self.logs, self.address.port(), |port| {
            let mut command = node.script("idp.mjs");
            command.arg(port).arg(keys).arg(generation.to_string()).arg(org);
            if let Some((subjects, life)) = exchanges {
                command.arg(subjects).arg(life.to_string());
            }
            command
        });
        self.program = Some(program);
    }

    /// Stops the server.
    pub fn go_down(&mut self) {
        self.program = None;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The issuer's entry in the gateway's configuration.
    pub fn configuration(&self) -> Value {
        json!([{"issuer": self.issuer(), "jwks": {
            "cluster": "portcullis_idp", "path": "/jwks", "unknown_kid_seconds": 2, "timeout_ms": 1_000,
        }}])
    }

    /// How often clients requested its keys since its last start.
    pub fn key_requests(&self) -> usize {
        self.program.as_ref().map_or(0, |program| program.ran("jwks"))
    }

    /// A token for that resource, by client credentials.
    pub fn token(&self, resource: &str, scope: &str) -> String {
        let encoded = |text: &str| text.replace(':', "%3A").replace('/', "%2F").replace(' ', "+");
        let body = format!(
            "grant_type=client_credentials&resource={}&scope={}",
            encoded(resource),
            encoded(scope)
        );
        let mut request = Request::bare("POST", "/token")
            .header("host", self.address.to_string())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", "Basic YWdlbnQtMTphZ2VudC0xLXNlY3JldA==");
        request.body = Some(body.into_bytes());
        let mut wire = Wire::connect(self.address).expect("connect to the authorization server");
        let reply = wire.exchange(&request).expect("an answer of the authorization server");
        let said: Value = serde_json::from_slice(&reply.body).expect("JSON");
        said["access_token"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}
