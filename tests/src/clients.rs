//! The official MCP clients, unmodified: PyPI `mcp` as a program, `rmcp` in this process.
//!
//! Owns their start and a common form of their results. Knows nothing of the gateway.

use std::process::Command;
use std::time::Duration;

use portcullis_stack::{Stack, process};
use rmcp::model::{CallToolRequestParams, ClientConfig, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::Value;

/// A client that hangs has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client finds the protocol revision of the server.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// `server/discover`, then `initialize` if necessary.
    Auto,
    /// `initialize` at once.
    Legacy,
}

/// The PyPI client.
#[derive(Debug)]
pub struct PythonClient<'a> {
    pub stack: &'a Stack,
    pub url: String,
    pub key: String,
    pub mode: Mode,
}

impl PythonClient<'_> {
    /// `{"protocol", "result"}`, or `{"error"}`.
    pub fn run(&self, operation: &[&str]) -> Value {
        let script = self.stack.options().root.join("demo/python/client.py");
        let mut command = self.stack.options().tools.python_command();
        command.arg(script).args(["--url", &self.url, "--key", &self.key]).arg("--mode");
        command.arg(match self.mode {
            Mode::Auto => "auto",
            Mode::Legacy => "legacy",
        });
        command.args(operation);
        let output = process::output("client.py", command).unwrap_or_else(|e| panic!("{e}"));
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(said.get("error").is_some())), "{said}");
        said
    }
}

/// The results of a list and a call with rmcp.
#[derive(Debug)]
pub struct RustOutcome {
    pub tools: Vec<String>,
    pub call: Result<Value, String>,
}

/// Lists the tools, calls one, and disconnects.
pub fn rmcp_list_and_call(
    (url, key): (&str, &str),
    mode: Mode,
    (tool, arguments): (&str, Value),
) -> Result<RustOutcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| fault.to_string())?;
    runtime.block_on(async {
        let session = tokio::time::timeout(PATIENCE, async {
            let client = connect(url, key, mode).await?;
            let listed = client.list_tools(None).await.map_err(|fault| fault.to_string())?;
            let mut call = CallToolRequestParams::new(tool.to_owned());
            if let Value::Object(arguments) = arguments {
                call = call.with_arguments(arguments);
            }
            let called = client.call_tool(call).await.map_err(|fault| fault.to_string());
            let called = called.map(|result| serde_json::to_value(result).unwrap_or_default());
            client.cancel().await.map_err(|fault| fault.to_string())?;
            let tools = listed.tools.iter().map(|tool| tool.name.to_string()).collect();
            Ok(RustOutcome { tools, call: called })
        });
        session.await.unwrap_or_else(|_| Err("the client hung".to_owned()))
    })
}

async fn connect(
    url: &str,
    key: &str,
    mode: Mode,
) -> Result<RunningService<RoleClient, ClientConfig>, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned()).auth_header(key);
    let lifecycle = match mode {
        Mode::Auto => ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
        Mode::Legacy => ClientLifecycleMode::Initialize,
    };
    ClientConfig::default()
        .serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), lifecycle)
        .await
        .map_err(|fault| fault.to_string())
}

/// The last output of a client that pauses by printing `paused`; `at_pause` gets the number of earlier pauses.
pub fn conversation(name: &str, command: Command, at_pause: &mut dyn FnMut(usize)) -> Value {
    let mut pauses = 0;
    let mut answer = |line: &str| {
        (line == "paused").then(|| {
            at_pause(pauses);
            pauses += 1;
            "go on".to_owned()
        })
    };
    let (last, errors) =
        process::converse(name, command, &mut answer).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_str(&last).unwrap_or_else(|fault| panic!("{name}: {fault}: {last}\n{errors}"))
}
