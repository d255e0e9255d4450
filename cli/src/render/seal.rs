//! The seal: an Envoy RBAC filter after Portcullis, and the metadata of guarded routes that it reads.
//!
//! Envoy selects a route again after Portcullis has set the guard. The seal refuses a request (403) when its guard is
//! one of these and its route does not have this guard in its metadata: that route matched by something else. A request
//! with another guard, or with none, passes: other descriptions have their own seals, and guarded routes accept no
//! request without a guard.

use portcullis_core::decode::Faults;
use portcullis_core::guard::{HEADER, METADATA, METADATA_KEY, seal_name};
use serde_json::{Map, Value, json};

use super::description::{self, Description};
use super::guards::{Guards, Matcher};
use super::route::Guarded;
use crate::report::CliError;

/// The metadata of a guarded route for the seal.
pub(super) fn metadata(guard: &Matcher) -> Value {
    json!({"filter_metadata": {METADATA: of_route(guard)}})
}

/// The value of that metadata alone.
pub(super) fn of_route(guard: &Matcher) -> Value {
    json!({METADATA_KEY: guard.values()})
}

/// The filter, for the routes of the description `name`.
pub(super) fn filter<'a>(name: &str, routes: impl IntoIterator<Item = &'a Guarded<'a>>) -> Value {
    let mut policies = Map::new();
    for Guarded { path, guard, .. } in routes {
        for (nth, value) in guard.values().into_iter().rev().enumerate() {
            let name = if nth == 0 { (*path).to_owned() } else { format!("{path} previous") };
            policies.insert(name, policy(value));
        }
    }
    json!({
        "name": seal_name(name),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": policies},
        },
    })
}

/// Refuses a request with this value whose route does not have it.
fn policy(value: &str) -> Value {
    let exact = json!({"string_match": {"exact": value}});
    let of_route = json!({
        "metadata_source": "ROUTE",
        "metadata_matcher": {
            "filter": METADATA,
            "path": [{"key": METADATA_KEY}],
            "value": {"list_match": {"one_of": exact}},
        },
    });
    json!({
        "principals": [{"any": true}],
        "permissions": [{"and_rules": {"rules": [
            {"header": {"name": HEADER, "string_match": {"exact": value}}},
            {"not_rule": {"sourced_metadata": of_route}},
        ]}}],
    })
}

/// For `--for seal`: reads the description for an Envoy without a control plane.
pub(super) fn read(document: &Value) -> Result<Description<(), ()>, Faults> {
    description::read(document, |_, _| Some(()), |_, _| Some(()))
}

pub(super) fn documents(
    description: &Description<(), ()>,
    guards: &mut Guards,
) -> Result<Vec<Value>, CliError> {
    let routes = description.routes(guards)?;
    let guarded = routes.iter().flat_map(|of_connector| &of_connector.guarded);
    Ok(vec![filter(&description.name, guarded)])
}
