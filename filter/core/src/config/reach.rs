//! The paths of connectors and the secrets in Vault that an organisation's policy may name.
//!
//! Owns the bounds that the operator of this Envoy sets. Policies come from Redis: without bounds, an operator who may
//! push a policy for one organisation could take another's path, or send another's secret to a server of their own.

use std::collections::BTreeMap;

use crate::decode::{Faults, Fields, Node};
use crate::id::OrgId;
use crate::policy::{Connector, Globs};

/// The bounds of all organisations.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reach {
    /// Any policy may name anything.
    #[default]
    Unbounded,
    /// An organisation without an entry may name nothing.
    Bounded(BTreeMap<OrgId, Bounds>),
}

/// The bounds of one organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    paths: Globs,
    secrets: Globs,
}

impl Reach {
    /// Whether the policy of `org` may have that connector.
    #[must_use]
    pub fn allows(&self, org: &OrgId, connector: &Connector) -> bool {
        let Self::Bounded(organisations) = self else {
            return true;
        };
        let Some(Bounds { paths, secrets }) = organisations.get(org) else {
            return false;
        };
        let messages = connector.messages.iter().all(|path| paths.matches(path));
        let credential = connector.credential.iter();
        // An authorization server names the organisations that may use it in its own configuration.
        let patterns = credential.filter_map(|credential| credential.pattern());
        let mut references = patterns.map(|pattern| pattern.text(Some(org)));
        paths.matches(&connector.path)
            && messages
            && references.all(|reference| secrets.matches(&reference))
    }
}

/// The field `organisations`.
pub(super) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Reach {
    const EXPECTED: &str =
        "an object: one member for each organisation, with `paths` and `secrets`";
    let Some(node) = fields.optional("organisations") else {
        return Reach::Unbounded;
    };
    let mut organisations = BTreeMap::new();
    for (name, node) in node.members(faults, EXPECTED).unwrap_or_default() {
        match OrgId::new(name) {
            Some(org) => {
                organisations.extend(bounds(node, faults).map(|bounds| (org, bounds)));
            }
            None => node.fault(faults, format!("the name of an organisation: {}", OrgId::EXPECTED)),
        }
    }
    Reach::Bounded(organisations)
}

fn bounds(node: Node<'_>, faults: &mut Faults) -> Option<Bounds> {
    let mut fields = node.object(faults, "an object with `paths` and `secrets`")?;
    let paths = globs(&mut fields, "paths", "/", "a path such as /acme/mcp or /acme/*", faults);
    let expected = "a reference such as vault://secret/acme/*";
    let secrets = globs(&mut fields, "secrets", "vault://", expected, faults);
    fields.finish(faults);
    Some(Bounds { paths, secrets })
}

fn globs(
    fields: &mut Fields<'_>,
    name: &'static str,
    start: &str,
    expected: &str,
    faults: &mut Faults,
) -> Globs {
    let mut globs = Globs::default();
    let node = fields.optional(name);
    let items = node.and_then(|node| node.items(faults, "a list")).unwrap_or_default();
    for item in items {
        let glob =
            item.text(faults, expected, |text| text.starts_with(start).then(|| text.to_owned()));
        glob.iter().for_each(|glob| globs.insert(glob));
    }
    globs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Config;
    use crate::id::{OrgId, PolicyName};
    use crate::policy;

    fn connector(value: Value) -> policy::Connector {
        let document = json!({
            "version": 1, "organisations": ["acme"], "connectors": {"a": value}, "roles": {}, "tiers": {},
        });
        let policy = policy::compile(&document).unwrap();
        (**policy.connectors.get(&PolicyName::new("a").unwrap()).unwrap()).clone()
    }

    // Finding 12.10: a policy could name another organisation's secret, for a server of its own.
    #[test]
    fn a_policy_names_only_what_its_organisation_may() {
        let config = Config::parse(&json!({
            "redis": {"cluster": "r"},
            "organisations": {"acme": {"paths": ["/acme/*", "/shared/mcp"], "secrets": ["vault://secret/acme/*"]},
                              "bare": {"paths": ["/*"]}},
        }))
        .unwrap();
        let org = |name| OrgId::new(name).unwrap();
        let with = |path: &str, secret: &str| {
            connector(json!({"path": path, "credential": {
                "secret": secret, "header": "authorization", "template": "{secret}",
            }}))
        };
        let own = with("/acme/mcp", "vault://secret/acme/crm#key");
        assert!(config.reach.allows(&org("acme"), &own));
        assert!(config.reach.allows(&org("acme"), &connector(json!({"path": "/shared/mcp"}))));
        for (path, secret) in [
            ("/acme/mcp", "vault://secret/globex/crm#key"),
            ("/acme/mcp", "vault://secret/acmex/crm#key"),
            ("/globex/mcp", "vault://secret/acme/crm#key"),
        ] {
            assert!(!config.reach.allows(&org("acme"), &with(path, secret)), "{path} {secret}");
        }
        let stream = connector(json!({"path": "/acme/sse", "messages": "/globex/messages"}));
        assert!(!config.reach.allows(&org("acme"), &stream));
        assert!(!config.reach.allows(&org("globex"), &own), "who is not named may name nothing");
        assert!(!config.reach.allows(&org("bare"), &own), "no secrets are none");
        assert!(config.reach.allows(&org("bare"), &connector(json!({"path": "/x"}))));
        let unbounded = Config::parse(&json!({"redis": {"cluster": "r"}})).unwrap();
        assert!(unbounded.reach.allows(&org("globex"), &own));
        let faults = Config::parse(&json!({"redis": {"cluster": "r"}, "organisations": {
            "Acme": {}, "acme": {"path": [], "paths": ["acme"], "secrets": "x"},
        }}));
        assert_eq!(faults.unwrap_err().len(), 4);
    }
}
