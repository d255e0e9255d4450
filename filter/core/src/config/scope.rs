//! The requests that the gateway handles, on an Envoy that also serves others.
//!
//! Owns the comparison. The gateway does not judge, change or log a request outside of its scope. So such a request
//! must not reach an MCP server: the guards on the routes make sure of that, not this list.

use super::Node;
use crate::decode::{Faults, Fields};
use crate::driver::event::Head;
use crate::policy::Globs;
use crate::route::names_host;

/// The requests that the gateway handles.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scope {
    /// All requests: one that matches no connector is refused.
    #[default]
    Everything,
    /// Requests to these paths, on the configured hosts. All others pass.
    Paths(Globs),
}

/// The gateway's own paths.
const OWN: [&str; 2] = ["/portcullis/", "/.well-known/oauth-protected-resource"];

impl Scope {
    /// Whether the gateway handles a request; an empty `hosts` means all hosts.
    #[must_use]
    pub fn covers(&self, head: &Head, hosts: &[String]) -> bool {
        let Self::Paths(paths) = self else { return true };
        let host = head.single(":authority").unwrap_or_default();
        if !hosts.is_empty() && !names_host(hosts, &String::from_utf8_lossy(host)) {
            return false;
        }
        let path = head.path();
        OWN.iter().any(|own| path.starts_with(own)) || paths.matches(path)
    }

    /// Reads the fields `unmatched` and `paths` of `request`.
    pub(super) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        const PATH: &str = "a path, such as /demo/mcp or /acme/*";
        const BESIDE: &str =
            "with `unmatched: pass`: the paths of connectors, such as [/demo/mcp, /acme/*]";
        let unmatched = fields.optional("unmatched").and_then(|node| {
            node.text(faults, "refuse or pass", |text| match text {
                "refuse" => Some(Self::Everything),
                "pass" => Some(Self::Paths(Globs::default())),
                _ => None,
            })
        });
        let given = fields.optional("paths");
        let items = given.clone().and_then(|node| node.items(faults, "a list")).unwrap_or_default();
        let mut paths = Globs::default();
        let path = |text: &str| text.starts_with('/').then(|| text.to_owned());
        for path in items.into_iter().filter_map(|item: Node<'_>| item.text(faults, PATH, path)) {
            paths.insert(&path);
        }
        match (unmatched.unwrap_or_default(), given, paths.is_empty()) {
            (Self::Paths(_), Some(_), false) => Self::Paths(paths),
            (Self::Paths(_), _, _) => {
                faults.push("request.paths", "none".to_owned(), BESIDE);
                Self::Everything
            }
            (Self::Everything, Some(_), _) => {
                faults.push("request.paths", "a list".to_owned(), "it only with `unmatched: pass`");
                Self::Everything
            }
            (Self::Everything, None, _) => Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;

    fn read(request: &Value) -> Result<Config, String> {
        let guards = json!({"/demo/mcp": "0123456789abcdef"});
        let document = json!({"redis": {"cluster": "r"}, "guards": guards, "request": request});
        Config::parse(&document).map_err(|faults| faults.to_string())
    }

    // Finding 11.5.
    // Proves: X30
    #[test]
    fn what_is_not_named_goes_by_where_the_operator_says_so() {
        let covers = |request: Value, host: &str, path: &str| {
            let config = read(&request).unwrap();
            let head = Head::for_tests("GET", path, &[(":authority", host)]);
            config.scope.covers(&head, &config.hosts)
        };
        assert!(covers(json!({}), "web.example", "/"));
        let shared = json!({"unmatched": "pass", "paths": ["/demo/mcp", "/acme/*"]});
        for path in ["/demo/mcp", "/demo/mcp?a=b", "/acme/crm/mcp", "/portcullis/health"] {
            assert!(covers(shared.clone(), "web.example", path), "{path}");
        }
        assert!(covers(shared.clone(), "x", "/.well-known/oauth-protected-resource/demo/mcp"));
        for path in ["/", "/app", "/demo", "/demo/mcp/", "/portcullis", "/?/demo/mcp"] {
            assert!(!covers(shared.clone(), "web.example", path), "{path}");
        }
        let mut hosts = shared;
        hosts["hosts"] = json!(["mcp.example"]);
        assert!(covers(hosts.clone(), "MCP.example", "/demo/mcp"));
        assert!(covers(hosts.clone(), "mcp.example:1", "/demo/mcp"));
        assert!(!covers(hosts.clone(), "web.example", "/demo/mcp"));
        assert!(!covers(hosts, "web.example", "/portcullis/health"));
    }

    #[test]
    fn passing_takes_paths_and_paths_take_passing() {
        let fault = |request: Value| read(&request).unwrap_err();
        let beside = "request.paths: found none, expected with `unmatched: pass`: the paths of connectors, such as \
                      [/demo/mcp, /acme/*]";
        assert_eq!(fault(json!({"unmatched": "pass"})), beside);
        assert_eq!(fault(json!({"unmatched": "pass", "paths": []})), beside);
        assert_eq!(
            fault(json!({"paths": ["/demo/mcp"]})),
            "request.paths: found a list, expected it only with `unmatched: pass`"
        );
        assert!(fault(json!({"unmatched": "allow"})).contains("expected refuse or pass"));
    }

    // The gateway does not judge a request that passes: only guards keep it from MCP servers.
    // Proves: X29
    #[test]
    fn passing_takes_guards() {
        let request = json!({"unmatched": "pass", "paths": ["/demo/mcp"]});
        let read = |more: Value| {
            let mut document = json!({"redis": {"cluster": "r"}, "request": request});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Config::parse(&document)
        };
        let guards = json!({"/demo/mcp": "0123456789abcdef"});
        assert!(read(json!({"guards": guards})).is_ok());
        for more in [json!({}), json!({"guards": guards, "unguarded_routes": "allow"})] {
            let fault = read(more).unwrap_err().to_string();
            assert!(fault.starts_with("request.unmatched: found pass"), "{fault}");
        }
    }
}
