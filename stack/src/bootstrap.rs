//! Fills the placeholders of `envoy/envoy.yaml`, the one Envoy configuration.
//!
//! Owns the names of the placeholders. It runs `envoy/render.sh`, which defines the template language, so that the demo
//! and the tests fill templates exactly as containers do at their start. Knows nothing about running Envoy.

use crate::certificates::Certificates;
use crate::error::{During, Result, StackError};
use crate::process;
use crate::workspace::Artifacts;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

/// The script that fills a template.
const SCRIPT: &str = include_str!("../../envoy/render.sh");

/// Values for the placeholders; a placeholder without a value keeps the default in the file.
#[derive(Debug, Clone, Default)]
pub struct Bootstrap {
    values: BTreeMap<String, String>,
    addition: Option<PathBuf>,
}

impl Bootstrap {
    /// Sets a placeholder by name, without the common prefix `PORTCULLIS_`.
    pub fn set(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.values.insert(format!("PORTCULLIS_{name}"), value.to_string());
        self
    }

    /// Sets a placeholder that has no value yet.
    pub fn set_default(self, name: &str, value: impl fmt::Display) -> Self {
        if self.values.contains_key(&format!("PORTCULLIS_{name}")) {
            self
        } else {
            self.set(name, value)
        }
    }

    /// The address of an identity provider whose key sets the gateway fetches.
    pub fn idp(self, address: SocketAddr) -> Self {
        self.set("IDP_HOST", address.ip()).set("IDP_PORT", address.port())
    }

    /// Adds a further template with placeholders, one of `envoy/redis/`; Envoy merges it into the first.
    pub fn merge(mut self, template: PathBuf) -> Self {
        self.addition = Some(template);
        self
    }

    /// The template that [`Bootstrap::merge`] added.
    pub fn addition(&self) -> Option<&Path> {
        self.addition.as_deref()
    }

    /// The address on which Envoy listens for clients.
    pub fn listen(self, address: SocketAddr) -> Self {
        self.set("LISTEN_ADDRESS", address.ip()).set("LISTEN_PORT", address.port())
    }

    /// The address of Envoy's admin interface.
    pub fn admin(self, address: SocketAddr) -> Self {
        self.set("ADMIN_ADDRESS", address.ip()).set("ADMIN_PORT", address.port())
    }

    /// The address of the demo connector.
    pub fn demo(self, address: SocketAddr) -> Self {
        self.set("DEMO_HOST", address.ip()).set("DEMO_PORT", address.port())
    }

    /// The address of the Python MCP server.
    pub fn python(self, address: SocketAddr) -> Self {
        self.set("PYTHON_HOST", address.ip()).set("PYTHON_PORT", address.port())
    }

    /// The address of Redis or Valkey.
    pub fn redis(self, address: SocketAddr) -> Self {
        self.set("REDIS_HOST", address.ip()).set("REDIS_PORT", address.port())
    }

    /// The address of Vault or OpenBao, and the file with the token that Envoy adds to requests for it.
    pub fn vault(self, address: SocketAddr, token_sds: &Path) -> Self {
        self.set("VAULT_HOST", address.ip())
            .set("VAULT_PORT", address.port())
            .set("VAULT_TOKEN_SDS", token_sds.display())
    }

    /// The Wasm modules: the gateway's filter, and the framing filter of the Redis stream.
    pub fn wasm(self, artifacts: &Artifacts) -> Self {
        let Artifacts { filter, framing, .. } = artifacts;
        self.set("WASM", filter.display()).set("FRAMING_WASM", framing.display())
    }

    /// The file for audit lines.
    pub fn audit_log(self, file: &Path) -> Self {
        self.set("AUDIT_LOG", file.display())
    }

    /// The file for lines about requests that Envoy rejected before the filter ran.
    pub fn rejected_log(self, file: &Path) -> Self {
        self.set("REJECTED_LOG", file.display())
    }

    /// A listener with TLS beside the plain one.
    pub fn tls(self, port: u16, certificates: &Certificates) -> Self {
        self.set("TLS_PORT", port)
            .set("TLS_CERTIFICATE", certificates.server.certificate.display())
            .set("TLS_PRIVATE_KEY", certificates.server.private_key.display())
            .set("TLS_CLIENT_CA", certificates.authority.certificate().display())
    }

    /// A template with every placeholder filled.
    pub fn render(&self, template: &Path) -> Result<String> {
        let [rendered] = self.render_together([template])?;
        Ok(rendered)
    }

    /// Several templates, each with every placeholder filled. A value may belong to any of them.
    pub fn render_together<const N: usize>(&self, templates: [&Path; N]) -> Result<[String; N]> {
        let mut unused: Vec<&String> = self.values.keys().collect();
        for template in templates {
            let text =
                fs::read_to_string(template).during(|| format!("read {}", template.display()))?;
            unused.retain(|name| {
                !["}", ":-"].iter().any(|end| text.contains(&format!("${{{name}{end}")))
            });
        }
        // Most likely a misspelt name.
        if let Some(name) = unused.first() {
            let names = templates.map(|template| template.display().to_string()).join(", ");
            return Err(refused(&names, format!("no placeholder is named {name}")));
        }
        let mut rendered = [const { String::new() }; N];
        for (template, rendered) in templates.iter().zip(&mut rendered) {
            *rendered = self.filled(template)?;
        }
        Ok(rendered)
    }

    fn filled(&self, template: &Path) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "render.sh"]).arg(template);
        command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path))).envs(&self.values);
        let output = process::output("envoy/render.sh", command)?;
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match String::from_utf8(output.stdout) {
            Ok(rendered) if output.status.success() && complaint.is_empty() => Ok(rendered),
            Ok(_) => Err(refused(&template.display().to_string(), complaint)),
            Err(error) => Err(refused(&template.display().to_string(), error.to_string())),
        }
    }
}

fn refused(template: &str, answer: String) -> StackError {
    StackError::Refused { attempted: format!("fill {template}"), answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filled `template`, or the reason why it cannot be filled.
    fn rendered(
        name: &str,
        template: &str,
        bootstrap: Bootstrap,
    ) -> std::result::Result<String, String> {
        let file = env::temp_dir().join(format!("portcullis-{}-{name}", std::process::id()));
        fs::write(&file, template).unwrap();
        let rendered = bootstrap.render(&file).map_err(|error| error.to_string());
        fs::remove_file(&file).unwrap();
        rendered
    }

    #[test]
    fn values_replace_defaults_and_defaults_stay() {
        let template = "a: ${PORTCULLIS_A:-1} b: ${PORTCULLIS_B:-x/y}\nc\n";
        let filled = rendered("values", template, Bootstrap::default().set("A", 7));
        assert_eq!(filled.as_deref(), Ok("a: 7 b: x/y\nc\n"));
    }

    // Templates rendered by control planes contain text that a shell would evaluate or drop.
    #[test]
    fn the_shell_evaluates_placeholders_alone() {
        let plain = r#"\.x \\. `id` $(id) $HOME $$ "q" 'q' \n"#;
        let template = format!("{plain} \\${{PORTCULLIS_A}} ${{PORTCULLIS_B:-`id` $(id) \\.}}\n");
        let filled = rendered("plain", &template, Bootstrap::default().set("A", plain));
        assert_eq!(filled, Ok(format!("{plain} \\{plain} `id` $(id) \\.\n")));
    }

    #[test]
    fn lines_for_tls_are_there_when_it_has_a_port() {
        let template = "a\n#tls b: ${PORTCULLIS_TLS_PORT:-1}\n";
        let without = rendered("plain-text", template, Bootstrap::default());
        assert_eq!(without.as_deref(), Ok("a\n#tls b: 1\n"));
        let with = rendered("tls", template, Bootstrap::default().set("TLS_PORT", 7));
        assert_eq!(with.as_deref(), Ok("a\nb: 7\n"));
    }

    #[test]
    fn every_instance_has_a_guard_of_its_own() {
        let guard = || rendered("guard", "${PORTCULLIS_GUARD}\n", Bootstrap::default()).unwrap();
        let (one, another) = (guard(), guard());
        assert_eq!(one.len(), 33);
        assert_ne!(one, another);
    }

    #[test]
    fn mistakes_are_named() {
        let mistake = |name: &str, template: &str| {
            let bootstrap = Bootstrap::default().set("A", 7);
            rendered(name, &format!("${{PORTCULLIS_A}}{template}"), bootstrap).unwrap_err()
        };
        assert!(mistake("open", "${PORTCULLIS_B").contains("could not fill"));
        assert!(mistake("malformed", "${a b}").contains("could not fill"));
        assert!(mistake("unset", "${PORTCULLIS_B}").contains("PORTCULLIS_B"));
        let unused = rendered("unused", "nothing", Bootstrap::default().set("A", 7)).unwrap_err();
        assert!(unused.contains("no placeholder is named PORTCULLIS_A"), "{unused}");
    }
}
