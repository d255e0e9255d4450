//! The file that users source to work with a running stack: `export NAME='value'` lines.
//!
//! Owns its variable names, which scripts depend on. It contains keys, hence its mode 0600.

use crate::error::Result;
use crate::files::write_private;
use crate::stack::Stack;
use std::path::PathBuf;

/// Writes `<dir>/env`, also when a process id in it has changed.
pub fn write(stack: &Stack) -> Result<PathBuf> {
    let file = stack.dir().join("env");
    write_private(&file, &content(stack))?;
    Ok(file)
}

fn content(stack: &Stack) -> String {
    let variables = [
        ("PORTCULLIS_URL", stack.envoy.url()),
        ("PORTCULLIS_MCP_URL", stack.mcp_url()),
        ("PORTCULLIS_TLS_URL", stack.tls_url()),
        ("PORTCULLIS_CA", stack.certificates.authority.certificate().display().to_string()),
        (
            "PORTCULLIS_CLIENT_CERTIFICATE",
            stack.certificates.agent.certificate.display().to_string(),
        ),
        (
            "PORTCULLIS_CLIENT_PRIVATE_KEY",
            stack.certificates.agent.private_key.display().to_string(),
        ),
        ("PORTCULLIS_PYTHON_MCP_URL", stack.python_mcp_url()),
        ("PORTCULLIS_KEY", stack.analyst.key.clone()),
        ("PORTCULLIS_ADMIN_KEY", stack.admin.key.clone()),
        ("PORTCULLIS_JWT_PRIVATE_KEY", stack.issuer.private_key().display().to_string()),
        ("PORTCULLIS_JWT_ISSUER", stack.issuer.name().to_owned()),
        ("PORTCULLIS_JWT_AUDIENCE", stack.mcp_url()),
        ("PORTCULLIS_JWT_ISSUERS", stack.issuer.issuers().display().to_string()),
        ("PORTCULLIS_REDIS", stack.valkey.url()),
        ("VAULT_ADDR", stack.openbao.url()),
        ("VAULT_TOKEN", stack.openbao.root_token().to_owned()),
        ("PORTCULLIS_AUDIT_LOG", stack.envoy.audit_log().display().to_string()),
        ("PORTCULLIS_ENVOY_ADMIN", stack.envoy.admin_url()),
        ("PORTCULLIS_DEMO_SERVER", format!("http://{}/mcp", stack.connector.address())),
        ("PORTCULLIS_DEMO_CREDENTIAL", stack.connector.credential_file().display().to_string()),
        ("PORTCULLIS_DEMO_DB", stack.connector.database().display().to_string()),
        ("PORTCULLIS_ENVOY_PID", stack.envoy.process().pid().to_string()),
        ("PORTCULLIS_REDIS_PID", stack.valkey.process().pid().to_string()),
        ("PORTCULLIS_VAULT_PID", stack.openbao.process().pid().to_string()),
    ];
    let mut text =
        String::from("# Written by a running stack; it is only true as long as that runs.\n");
    for (name, value) in variables {
        text.push_str(&format!("export {name}={}\n", quoted(&value)));
    }
    let programs = stack
        .options()
        .artifacts
        .cli
        .parent()
        .map(|dir| dir.display().to_string())
        .unwrap_or_default();
    text.push_str(&format!("export PATH={}:\"$PATH\"\n", quoted(&programs)));
    text
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
