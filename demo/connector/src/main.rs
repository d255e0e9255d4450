//! The demo connector: a small MCP server over a real SQLite database, on the official Rust SDK.
//!
//! Owns what a typical internal server owns: some data, five tools, and one API credential that
//! every caller must present. Knows nothing of Portcullis: no organisations, no roles, no limits.
//! That is the point of the demo: an ordinary server becomes safe to share without a change.

mod database;
mod http;
mod record;
mod seed;
mod tools;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::database::Database;
use crate::http::{Credential, McpOptions};
use crate::record::Recorder;

/// A small MCP server over SQLite, at /mcp. Readiness: GET /healthz.
#[derive(Parser)]
#[command(name = "portcullis-demo-connector")]
struct Arguments {
    /// Where to listen, for example 127.0.0.1:9001. Port 0 takes a free one, which is printed.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The SQLite file; created and filled with the same sample rows each time it is absent.
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
    /// The file with the credential that callers must send as `Authorization: Bearer <credential>`.
    /// Read at each request, so that it can be rotated under a running server.
    #[arg(long, value_name = "FILE")]
    credential_file: PathBuf,
    /// Append each HTTP request as one JSON line to this file. CONTAINS SECRETS: headers and bodies
    /// are written as they came, the credential included. For demos and tests only.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Descriptions in the place of the tools' own: a JSON object of texts by tool. Read at each
    /// list, so that a demo can change what a running server says of itself. May be absent.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// A further `Host` to answer to, beside localhost, 127.0.0.1 and `[::1]`. May be repeated.
    #[arg(long = "allowed-host", value_name = "HOST", default_value = "demo")]
    allowed_hosts: Vec<String>,
    /// How replies travel when the client takes both.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Replies::Json)]
    replies: Replies,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Replies {
    /// One JSON object per reply.
    Json,
    /// A stream of server-sent events per reply.
    Sse,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("portcullis-demo-connector: {fault}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let database = Database::open(&arguments.database)
        .map_err(|e| format!("database {}: {e}", arguments.database.display()))?;
    let credential = Credential::at(arguments.credential_file)?;
    let recorder = arguments.record.as_deref().map(Recorder::append_to).transpose()?;
    let service = http::service(
        Arc::new(database),
        credential,
        recorder,
        McpOptions {
            allowed_hosts: arguments.allowed_hosts,
            texts: arguments.texts,
            json_replies: arguments.replies == Replies::Json,
        },
    );
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .map_err(|e| format!("listen on {}: {e}", arguments.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    println!("listening on http://{address}/mcp");
    axum::serve(listener, service)
        .with_graceful_shutdown(stop_signal()?)
        .await
        .map_err(|e| e.to_string())
}

/// Resolves on SIGTERM or Ctrl-C; requests in flight are still answered.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
