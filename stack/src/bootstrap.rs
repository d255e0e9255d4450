//! Fills the placeholders of `envoy/envoy.yaml`, the one Envoy configuration.
//!
//! Owns the placeholder syntax (`${NAME:-default}`, as in the shell; `envoy/render.sh` does the same there) and the
//! names of the placeholders. Knows nothing about running Envoy.

use crate::certificates::Certificates;
use crate::workspace::Artifacts;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What lines begin with that are a part of the template only where there is a port for TLS.
const TLS: &str = "#tls ";

/// Values for the placeholders; what is not set keeps the default written in the file.
#[derive(Debug, Clone, Default)]
pub struct Bootstrap {
    values: BTreeMap<String, String>,
    addition: Option<PathBuf>,
}

/// Why a template could not be filled.
#[derive(Debug, PartialEq, Eq)]
pub enum RenderError {
    /// `${` without its `}`, or with something else than a name in it.
    Malformed { line: usize },
    /// A placeholder without a default, for which there is no value.
    Unset { line: usize, name: String },
    /// A value that no placeholder uses: a misspelt name, most likely.
    Unused { name: String },
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line } => {
                write!(f, "line {line}: malformed placeholder, expected ${{NAME:-default}}")
            }
            Self::Unset { line, name } => {
                write!(f, "line {line}: {name} has neither value nor default")
            }
            Self::Unused { name } => write!(f, "no placeholder is named {name}"),
        }
    }
}

impl std::error::Error for RenderError {}

impl Bootstrap {
    /// Sets a placeholder by name, without the `PORTCULLIS_` that all of them start with.
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

    /// An identity provider whose key sets the gateway fetches.
    pub fn idp(self, address: SocketAddr) -> Self {
        self.set("IDP_HOST", address.ip()).set("IDP_PORT", address.port())
    }

    /// A further template with placeholders, which Envoy merges into the first: one of `envoy/redis/`.
    pub fn merge(mut self, template: PathBuf) -> Self {
        self.addition = Some(template);
        self
    }

    /// What [`Bootstrap::merge`] was given.
    pub fn addition(&self) -> Option<&Path> {
        self.addition.as_deref()
    }

    /// Where clients connect.
    pub fn listen(self, address: SocketAddr) -> Self {
        self.set("LISTEN_ADDRESS", address.ip()).set("LISTEN_PORT", address.port())
    }

    /// Envoy's admin interface.
    pub fn admin(self, address: SocketAddr) -> Self {
        self.set("ADMIN_ADDRESS", address.ip()).set("ADMIN_PORT", address.port())
    }

    /// The demo connector.
    pub fn demo(self, address: SocketAddr) -> Self {
        self.set("DEMO_HOST", address.ip()).set("DEMO_PORT", address.port())
    }

    /// The Python MCP server.
    pub fn python(self, address: SocketAddr) -> Self {
        self.set("PYTHON_HOST", address.ip()).set("PYTHON_PORT", address.port())
    }

    /// Redis or Valkey.
    pub fn redis(self, address: SocketAddr) -> Self {
        self.set("REDIS_HOST", address.ip()).set("REDIS_PORT", address.port())
    }

    /// Vault or OpenBao, and the file with the token that Envoy adds to requests for it.
    pub fn vault(self, address: SocketAddr, token_sds: &Path) -> Self {
        self.set("VAULT_HOST", address.ip())
            .set("VAULT_PORT", address.port())
            .set("VAULT_TOKEN_SDS", token_sds.display())
    }

    /// The modules: the filter, and what frames the Redis stream.
    pub fn wasm(self, artifacts: &Artifacts) -> Self {
        let Artifacts { filter, framing, .. } = artifacts;
        self.set("WASM", filter.display()).set("FRAMING_WASM", framing.display())
    }

    /// Where audit lines go.
    pub fn audit_log(self, file: &Path) -> Self {
        self.set("AUDIT_LOG", file.display())
    }

    /// Where lines about requests that Envoy refused without the filter go.
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

    /// The template with every placeholder filled.
    pub fn render(&self, template: &str) -> Result<String, RenderError> {
        let [rendered] = self.render_together([template])?;
        Ok(rendered)
    }

    /// Several templates, each with every placeholder filled. A value may be for any of them.
    pub fn render_together<const N: usize>(
        &self,
        templates: [&str; N],
    ) -> Result<[String; N], RenderError> {
        let mut unused: Vec<&String> = self.values.keys().collect();
        let mut rendered = [const { String::new() }; N];
        for (template, rendered) in templates.iter().zip(&mut rendered) {
            *rendered = self.filled(template, &mut unused)?;
        }
        match unused.first() {
            Some(name) => Err(RenderError::Unused { name: (*name).clone() }),
            None => Ok(rendered),
        }
    }

    /// One template; the names that it uses are taken off `unused`.
    fn filled(&self, template: &str, unused: &mut Vec<&String>) -> Result<String, RenderError> {
        let mut rendered = String::with_capacity(template.len());
        let tls = self.values.contains_key("PORTCULLIS_TLS_PORT");
        for (number, line) in (1..).zip(template.split_inclusive('\n')) {
            let mut rest = if tls { line.strip_prefix(TLS).unwrap_or(line) } else { line };
            while let Some((before, placeholder)) = rest.split_once("${") {
                let (inside, after) =
                    placeholder.split_once('}').ok_or(RenderError::Malformed { line: number })?;
                let (name, default) = match inside.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (inside, None),
                };
                if name.is_empty()
                    || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                {
                    return Err(RenderError::Malformed { line: number });
                }
                unused.retain(|used| *used != name);
                let value = self.values.get(name).map(String::as_str).or(default);
                rendered.push_str(before);
                rendered.push_str(
                    value.ok_or(RenderError::Unset { line: number, name: name.to_owned() })?,
                );
                rest = after;
            }
            rendered.push_str(rest);
        }
        Ok(rendered)
    }

    /// The placeholders as environment variables, for `envoy/render.sh`.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_replace_defaults_and_defaults_stay() {
        let bootstrap = Bootstrap::default().set("A", 7);
        let rendered = bootstrap.render("a: ${PORTCULLIS_A:-1} b: ${PORTCULLIS_B:-x/y}\nc\n");
        assert_eq!(rendered.as_deref(), Ok("a: 7 b: x/y\nc\n"));
    }

    #[test]
    fn lines_for_tls_are_there_when_it_has_a_port() {
        let template = "a\n#tls b: ${PORTCULLIS_TLS_PORT:-1}\n";
        let without = Bootstrap::default().render(template);
        assert_eq!(without.as_deref(), Ok("a\n#tls b: 1\n"));
        let with = Bootstrap::default().set("TLS_PORT", 7).render(template);
        assert_eq!(with.as_deref(), Ok("a\nb: 7\n"));
    }

    #[test]
    fn a_value_is_for_one_of_several_templates() {
        let bootstrap = Bootstrap::default().set("A", 7);
        let both = bootstrap.render_together(["${PORTCULLIS_B:-b}", "${PORTCULLIS_A}"]);
        assert_eq!(both, Ok(["b".to_owned(), "7".to_owned()]));
    }

    #[test]
    fn mistakes_are_named() {
        let render = |template: &str| Bootstrap::default().set("A", 7).render(template);
        assert_eq!(render("x\n${PORTCULLIS_A"), Err(RenderError::Malformed { line: 2 }));
        assert_eq!(render("${a b}"), Err(RenderError::Malformed { line: 1 }));
        assert_eq!(
            render("${PORTCULLIS_A}${PORTCULLIS_B}"),
            Err(RenderError::Unset { line: 1, name: "PORTCULLIS_B".into() })
        );
        assert_eq!(render("nothing"), Err(RenderError::Unused { name: "PORTCULLIS_A".into() }));
    }
}
