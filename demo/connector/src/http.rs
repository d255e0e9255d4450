//! The HTTP server: `/healthz` for every client, `/mcp` for clients that present the credential.
//!
//! Order: record, then credential, then MCP. Knows nothing of tools or data.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use subtle::ConstantTimeEq;

use crate::database::Database;
use crate::record::Recorder;
use crate::tools::Connector;

/// The largest body that rmcp accepts by itself; larger bodies are not worth recording either.
const MAX_BODY: usize = 4 * 1024 * 1024;

pub(crate) struct McpOptions {
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) json_replies: bool,
    pub(crate) texts: Option<PathBuf>,
}

pub(crate) fn service(
    database: Arc<Database>,
    credential: Credential,
    recorder: Option<Recorder>,
    options: McpOptions,
) -> Router {
    let mcp = Router::new()
        .route_service("/mcp", mcp(database, options))
        .layer(middleware::from_fn_with_state(Arc::new(credential), require_credential));
    let recorded = match recorder {
        Some(recorder) => mcp.layer(middleware::from_fn_with_state(recorder, record)),
        None => mcp,
    };
    // Added last, hence neither recorded nor guarded.
    recorded.route("/healthz", get(|| async { "ok\n" }))
}

fn mcp(
    database: Arc<Database>,
    options: McpOptions,
) -> StreamableHttpService<Connector, NeverSessionManager> {
    let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter();
    let config = StreamableHttpServerConfig::default()
        // No sessions: any replica could answer any request.
        .with_legacy_session_mode(false)
        .with_json_response(options.json_replies)
        .with_allowed_hosts(hosts.chain(options.allowed_hosts));
    let connector = Connector::new(database, options.texts);
    StreamableHttpService::new(move || Ok(connector.clone()), Arc::default(), config)
}

/// The credential that callers must present. The server reads the file at each request: replacing the file rotates the
/// credential, and an unreadable file admits no caller.
pub(crate) struct Credential {
    file: PathBuf,
}

impl Credential {
    /// Fails when the file is missing or empty now; later that refuses each request.
    pub(crate) fn at(file: PathBuf) -> Result<Self, String> {
        let credential = Self { file };
        match credential.read() {
            Some(_) => Ok(credential),
            None => Err(format!(
                "credential file {}: found no readable value, expected one line",
                credential.file.display()
            )),
        }
    }

    fn read(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        let value = text.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Exactly one `Authorization: Bearer <value>`; the value is compared in constant time.
    fn is_presented_by(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(only), None) = (given.next(), given.next()) else {
            return false;
        };
        let (Some(given), Some(wanted)) = (only.as_bytes().strip_prefix(b"Bearer "), self.read())
        else {
            return false;
        };
        given.ct_eq(wanted.as_bytes()).into()
    }
}

async fn require_credential(
    State(credential): State<Arc<Credential>>,
    request: Request,
    next: Next,
) -> Response {
    if credential.is_presented_by(request.headers()) {
        return next.run(request).await;
    }
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, "Bearer realm=\"demo connector\"")],
        "the demo connector wants its own credential\n",
    )
        .into_response()
}

async fn record(State(recorder): State<Recorder>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await;
    let seen = body.as_ref().map(|bytes| &bytes[..]).map_err(ToString::to_string);
    if let Err(fault) = recorder.note(&head, seen) {
        eprintln!("record: {fault}");
    }
    match body {
        Ok(bytes) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Err(_) => (StatusCode::BAD_REQUEST, "the body could not be read\n").into_response(),
    }
}
