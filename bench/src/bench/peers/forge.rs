//! A running ContextForge with the benchmark's upstream behind it.
//!
//! Owns its settings, which are those of its tuning guide, and the checks that it does its job before anything is
//! measured.

use super::super::machine::{self, Tree};
use super::super::rig::{Rig, bind};
use super::super::traffic::{self, ANSWER, HEADERS, TOOL};
use portcullis_load::{SERIAL, SESSION};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::http::{self, Reply};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{ContextForge, Process, files, process, ready};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its limit of calls, by address and by user; no load reaches it.
const CALLS_A_MINUTE: &str = "1000000";

/// The profile "MCP-only deployment (maximum MCP protocol throughput)" of its tuning guide, with what the guide and the
/// configuration reference want in production. SQLite stays.
pub(crate) const SETTINGS: [(&str, &str); 27] = [
    ("ENVIRONMENT", "production"),
    ("LOG_LEVEL", "ERROR"),
    ("MCPGATEWAY_UI_ENABLED", "false"),
    ("MCPGATEWAY_ADMIN_API_ENABLED", "false"),
    ("MCPGATEWAY_A2A_ENABLED", "false"),
    ("MCPGATEWAY_CATALOG_ENABLED", "false"),
    ("LLMCHAT_ENABLED", "false"),
    ("PLUGINS_ENABLED", "false"),
    ("OBSERVABILITY_ENABLED", "false"),
    ("ENABLE_METRICS", "false"),
    ("AUDIT_TRAIL_ENABLED", "false"),
    ("SECURITY_LOGGING_ENABLED", "false"),
    ("STRUCTURED_LOGGING_DATABASE_ENABLED", "false"),
    ("CORRELATION_ID_ENABLED", "false"),
    ("DB_METRICS_RECORDING_ENABLED", "false"),
    ("MCPGATEWAY_PERFORMANCE_NET_CONNECTIONS_ENABLED", "false"),
    ("COMPRESSION_ENABLED", "false"),
    ("AUTH_CACHE_ENABLED", "true"),
    ("AUTH_CACHE_USER_TTL", "300"),
    ("AUTH_CACHE_TEAM_TTL", "300"),
    ("AUTH_CACHE_ROLE_TTL", "300"),
    ("AUTH_CACHE_REVOCATION_TTL", "120"),
    ("REGISTRY_CACHE_ENABLED", "true"),
    ("MCP_SESSION_POOL_ENABLED", "true"),
    ("CACHE_TYPE", "redis"),
    // Of the compared job: its limit of calls counts and is never reached, and the upstream is on loopback.
    ("RATE_LIMIT_MEDIUM_RPM", CALLS_A_MINUTE),
    ("SSRF_ALLOW_LOCALHOST", "true"),
];

/// Migrations of its database take most of this.
const READY_WITHIN: Duration = Duration::from_secs(60);
const OPERATOR: &str = "operator@bench.example";

/// Whether a client has a session of MCP with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Its default: each call opens a session of its own with the upstream.
    Stateless,
    /// Each connection of the load has a session, and that has one with the upstream, which stays open.
    Stateful { connections: u32 },
}

/// A running ContextForge with one worker.
pub(crate) struct Forge {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) request: String,
    path: String,
    tool: String,
    /// Of the connections.
    pub(crate) sessions: Vec<String>,
    token: String,
    /// Signed with another secret.
    forged: String,
}

impl Sessions {
    fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Stateful { .. } => "stateful",
        }
    }

    /// Its database of the rig's Valkey: two of them share no cache.
    fn redis(self, rig: &Rig) -> String {
        let database = match self {
            Self::Stateless => 1,
            Self::Stateful { .. } => 2,
        };
        format!("{}/{database}", rig.valkey.url())
    }
}

impl Forge {
    /// Starts it with an empty database, and registers the upstream as its documentation does.
    pub(crate) fn start(rig: &Rig, program: &ContextForge, sessions: Sessions) -> Result<Self> {
        let dir = empty(&rig.dir.join(format!("contextforge-{}", sessions.name())))?;
        let secret = files::random_hex(32)?;
        let variables = variables(rig, &dir, &secret, sessions)?;
        let address = loopback(free_port()?);
        let mut command = program.module("mcpgateway.cli", &dir, &variables);
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--workers", "1", "--no-access-log"]);
        // Its five seconds are less than a connection waits for its turn at a low rate.
        command.args(["--timeout-keep-alive", "60"]);
        let log = rig.dir.join(format!("logs/contextforge-{}.log", sessions.name()));
        let process = Process::spawn("ContextForge", command, &log)?;
        // At once: its threads inherit it.
        bind(process.pid(), &rig.cpus.envoy)?;
        let health = format!("http://{address}/health");
        ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(&health))?;
        let token = |secret: &str| token(program, &dir, &variables, secret);
        let (right, forged) = (token(&secret)?, token(&files::random_hex(32)?)?);
        let mut forge = Self {
            process,
            address,
            request: String::new(),
            path: String::new(),
            tool: String::new(),
            sessions: Vec::new(),
            token: format!("Bearer {right}"),
            forged: format!("Bearer {forged}"),
        };
        forge.register(rig)?;
        if let Sessions::Stateful { connections } = sessions {
            let opened = (0..connections).map(|_| forge.initialize());
            forge.sessions = opened.collect::<Result<_>>()?;
        }
        let session = forge.sessions.first().map(|_| ("mcp-session-id", SESSION));
        let headers: Vec<_> = session.into_iter().chain(forge.credential()).collect();
        forge.request =
            traffic::request_to(&forge.path, &headers, &traffic::body(&forge.tool, SERIAL));
        Ok(forge)
    }

    /// The upstream as a gateway, and its tool in a virtual server.
    fn register(&mut self, rig: &Rig) -> Result<()> {
        let url = format!("http://{}/mcp", rig.upstream_address);
        let gateway = json!({"name": "bench", "url": url, "transport": "STREAMABLEHTTP"});
        self.administer("POST", "/gateways", &gateway)?;
        let tools = self.administer("GET", "/tools", &Value::Null)?;
        let tool = tools.as_array().and_then(|tools| {
            tools.iter().find(|tool| tool["originalName"].as_str() == Some(TOOL))
        });
        let name = tool.and_then(|tool| tool["name"].as_str());
        let id = tool.and_then(|tool| tool["id"].as_str());
        let (Some(name), Some(id)) = (name, id) else {
            return Err(Failure::new(format!("ContextForge did not find the tool: {tools}")));
        };
        self.tool = name.to_owned();
        let server = json!({"server": {"name": "bench", "associated_tools": [id]}});
        let server = self.administer("POST", "/servers", &server)?;
        let id = server["id"].as_str();
        let id =
            id.ok_or_else(|| Failure::new(format!("ContextForge made no server: {server}")))?;
        self.path = format!("/servers/{id}/mcp");
        Ok(())
    }

    fn administer(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(self.credential());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let url = format!("http://{}{path}", self.address);
        let reply = http::send(method, &url, &headers, body.as_bytes())?;
        if (200..300).contains(&reply.status) {
            return Ok(reply.json());
        }
        let what = format!("ContextForge answered {method} {path} with {}", reply.status);
        Err(Failure::new(format!("{what}: {}", reply.text())))
    }

    /// Opens a session.
    fn initialize(&self) -> Result<String> {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }});
        let reply = self.send(&[], self.credential(), &hello.to_string())?;
        let session = reply.header("mcp-session-id").map(str::to_owned);
        let session = session.ok_or_else(|| self.wrong("initialize", "a session", &reply))?;
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let headers = [("mcp-session-id", session.as_str())];
        let reply = self.send(&headers, self.credential(), &initialized.to_string())?;
        if reply.status == 202 {
            Ok(session)
        } else {
            Err(self.wrong("initialized", "202", &reply))
        }
    }

    /// Checks the answer of a call, and that it refuses what it has to refuse. Returns the right answer, as it writes it.
    pub(crate) fn judges(&self, rig: &Rig) -> Result<String> {
        let right = self.call(rig, self.credential(), &self.tool)?;
        let expected: Value = serde_json::from_str(ANSWER).unwrap_or_default();
        if right.status != 200 || right.json() != expected {
            return Err(self.wrong("a call", "200 and the upstream's result", &right));
        }
        if right.header("x-ratelimit-limit") != Some(CALLS_A_MINUTE) {
            return Err(self.wrong("a call", "one that counts for its limit", &right));
        }
        let served = rig.served()?;
        for bad in [None, Some(("authorization", self.forged.as_str()))] {
            let reply = self.call(rig, bad, &self.tool)?;
            if reply.status != 401 {
                return Err(self.wrong("a bad credential", "401", &reply));
            }
        }
        let reply = self.call(rig, self.credential(), "bench-delete-everything")?;
        if reply.json() == expected || rig.served()? != served {
            return Err(self.wrong("a call of an unknown tool", "a refusal", &reply));
        }
        Ok(right.text())
    }

    fn call(&self, rig: &Rig, credential: Option<(&str, &str)>, tool: &str) -> Result<Reply> {
        let session = self.sessions.first().map(|session| ("mcp-session-id", session.as_str()));
        let body = traffic::body(tool, &format!("{:010}", rig.serials(1)));
        self.send(session.as_slice(), credential, &body)
    }

    fn send(
        &self,
        headers: &[(&str, &str)],
        credential: Option<(&str, &str)>,
        body: &str,
    ) -> Result<Reply> {
        let headers: Vec<_> = HEADERS.iter().chain(headers).copied().chain(credential).collect();
        let url = format!("http://{}{}", self.address, self.path);
        Ok(http::send("POST", &url, &headers, body.as_bytes())?)
    }

    fn credential(&self) -> Option<(&str, &str)> {
        Some(("authorization", self.token.as_str()))
    }

    fn wrong(&self, what: &str, expected: &str, reply: &Reply) -> Failure {
        Failure::new(format!(
            "ContextForge answered {what} with {} {}, expected {expected}; its log is {}",
            reply.status,
            reply.text(),
            self.process.log().display()
        ))
    }

    /// CPU time and memory of all its processes.
    pub(crate) fn tree(&self) -> Result<Tree> {
        machine::tree(self.process.pid())
    }
}

fn empty(dir: &Path) -> Result<PathBuf> {
    let unusable = |error: std::io::Error| {
        Failure::new(format!("could not prepare {}: {error}", dir.display()))
    };
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(unusable)?;
    }
    fs::create_dir_all(dir).map_err(unusable)?;
    Ok(dir.to_owned())
}

fn variables(
    rig: &Rig,
    dir: &Path,
    secret: &str,
    sessions: Sessions,
) -> Result<Vec<(String, String)>> {
    let password = || files::random_hex(12).map(|hex| format!("Aa1!{hex}"));
    let of_this_run = [
        ("USE_STATEFUL_SESSIONS", (sessions != Sessions::Stateless).to_string()),
        ("DATABASE_URL", format!("sqlite:///{}", dir.join("mcp.db").display())),
        ("REDIS_URL", sessions.redis(rig)),
        ("JWT_SECRET_KEY", secret.to_owned()),
        ("AUTH_ENCRYPTION_SECRET", files::random_hex(32)?),
        ("PLATFORM_ADMIN_EMAIL", OPERATOR.to_owned()),
        ("PLATFORM_ADMIN_PASSWORD", password()?),
        ("DEFAULT_USER_PASSWORD", password()?),
        ("BASIC_AUTH_PASSWORD", password()?),
    ];
    let fixed = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(of_this_run.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(fixed).collect())
}

/// A token by its own tool: HS256, valid for two hours.
fn token(
    program: &ContextForge,
    dir: &Path,
    variables: &[(String, String)],
    secret: &str,
) -> Result<String> {
    let mut command = program.module("mcpgateway.utils.create_jwt_token", dir, variables);
    command.args(["--username", OPERATOR, "--exp", "120", "--secret", secret]);
    let output = process::output("ContextForge's create_jwt_token", command)?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().rfind(|line| line.split('.').count() == 3) {
        Some(token) => Ok(token.trim().to_owned()),
        None => {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Failure::new(format!("ContextForge made no token: {reason}")))
        }
    }
}
