//! Guards: a header that routes to MCP servers match on, and that only judged requests have.
//!
//! Owns its name and its values, one for each path. An Envoy route that requires the value matches no request without
//! this filter: when the filter is missing, disabled or skipped, the request matches another route, which refuses it.

use std::collections::BTreeMap;
use std::fmt;

use crate::decode::{Faults, Fields, Node};
use crate::policy::Guard;
use crate::secret::Secret;

/// The header. Routes remove it before the server (`request_headers_to_remove`).
pub const HEADER: &str = "x-portcullis-guard";

/// The namespace of the route metadata with the values that the route accepts, for the seal: Envoy's RBAC filter after
/// this one.
pub const METADATA: &str = "portcullis";

/// The list of values in that metadata.
pub const METADATA_KEY: &str = "guards";

/// The name of the seal in Envoy, for the routes of one description.
#[must_use]
pub fn seal_name(description: &str) -> String {
    format!("{description}_seal")
}

const EXPECTED: &str =
    "a value that nobody can guess: 16 to 128 letters, digits, `-`, `.`, `_` or `~`";

/// The values by path. Each path has its own value, because the teams of a server know theirs.
#[derive(Default)]
pub struct Guards {
    values: BTreeMap<String, Secret>,
    unguarded: UnguardedRoutes,
}

/// How to handle a request for a guarded path whose selected route requires no guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnguardedRoutes {
    /// Refuse it: the route belongs to another service, or its guard was forgotten.
    #[default]
    Refuse,
    /// Forward it, while guards are being introduced.
    Allow,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values.keys()).finish()
    }
}

impl Clone for Guards {
    fn clone(&self) -> Self {
        let values = self.values.iter().map(|(path, value)| (path.clone(), copy(value))).collect();
        Self { values, unguarded: self.unguarded }
    }
}

fn copy(value: &Secret) -> Secret {
    Secret::new(value.expose().to_owned())
}

impl Guards {
    /// The value for a judged request to `path`.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<Secret> {
        self.values.get(path).map(copy)
    }

    /// The guard that the routes of `path` must require.
    #[must_use]
    pub fn wanted(&self, path: &str) -> Guard {
        match (self.values.contains_key(path), self.unguarded) {
            (true, UnguardedRoutes::Refuse) => Guard::Required,
            (true, UnguardedRoutes::Allow) => Guard::Introduced,
            (false, UnguardedRoutes::Refuse | UnguardedRoutes::Allow) => Guard::Unset,
        }
    }

    /// Whether there are guards, and a request for a guarded path is refused on a route without one.
    #[must_use]
    pub fn refuse_unguarded(&self) -> bool {
        !self.values.is_empty() && self.unguarded == UnguardedRoutes::Refuse
    }

    /// Whether `text`, the match of a route, contains one of the values.
    #[must_use]
    pub fn occur_in(&self, text: &str) -> bool {
        // A regular expression escapes dots.
        let text = text.replace('\\', "");
        self.values.values().any(|value| text.contains(value.expose()))
    }

    /// Whether `text` is one of the values.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.values.values().any(|value| value.expose() == text)
    }

    /// The paths that have a value.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Reads the fields `guards`, a value for each path, and `unguarded_routes`.
    pub(crate) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let values = fields.optional("guards").map(|node| values(node, faults));
        let unguarded = fields.optional("unguarded_routes").and_then(|node| {
            node.text(faults, "refuse or allow", |text| match text {
                "refuse" => Some(UnguardedRoutes::Refuse),
                "allow" => Some(UnguardedRoutes::Allow),
                _ => None,
            })
        });
        Self { values: values.unwrap_or_default(), unguarded: unguarded.unwrap_or_default() }
    }
}

/// Reads an object with a value for each path.
pub fn values(node: Node<'_>, faults: &mut Faults) -> BTreeMap<String, Secret> {
    const PATHS: &str = "an object with a value for each path, such as {\"/demo/mcp\": \"…\"}";
    let mut values = BTreeMap::new();
    for (path, node) in node.members(faults, PATHS).unwrap_or_default() {
        if !path.starts_with('/') {
            faults.push(node.path(), format!("the name {path:?}"), "a path, such as /demo/mcp");
        }
        if let Some(value) = node.unseen_text(faults, EXPECTED, value) {
            values.insert(path.to_owned(), value);
        }
    }
    values
}

/// A value that needs no escaping in a header, a YAML string and a regular expression of a route.
fn value(text: &str) -> Option<Secret> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    ((16..=128).contains(&text.len()) && text.bytes().all(plain))
        .then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::Config;

    // Proves: X29
    #[test]
    fn values_are_hard_to_guess_and_are_not_shown() {
        let read = |guards| Config::parse(&json!({"redis": {"cluster": "r"}, "guards": guards}));
        let config = read(json!({"/demo/mcp": "0123456789abcdef"})).unwrap();
        assert_eq!(config.guards.value("/demo/mcp").unwrap().expose(), "0123456789abcdef");
        assert!(config.guards.value("/other/mcp").is_none());
        assert_eq!(format!("{:?}", config.guards), r#"["/demo/mcp"]"#);
        for value in ["0123456789abcde", "0123456789abcdef 0123456789abcdef", &"a".repeat(129)] {
            let faults = read(json!({"/demo/mcp": value})).unwrap_err().to_string();
            assert!(
                faults.starts_with("guards./demo/mcp: found something else (not shown)"),
                "{faults}"
            );
        }
        assert!(read(json!({"demo": "0123456789abcdef"})).is_err());
    }
}
