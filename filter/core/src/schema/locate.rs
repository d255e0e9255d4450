//! The positions of subschemas and the targets of references: `$id`, `$anchor`, `$dynamicAnchor`, `$ref`.
//!
//! Owns the walk through a document and the resolution of references inside it. A reference to another document is a
//! fault: nothing is ever fetched.

use std::collections::BTreeMap;

use fluent_uri::{Uri, UriRef};
use serde_json::{Map, Value};

use super::SchemaFault;
use super::rule::Id;

/// The URI of a schema without `$id`.
const UNNAMED: &str = "schema://tool/";

/// The version of the rules that a schema follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draft {
    V7,
    V2020,
}

/// One schema resource: the document, or a part of it with an `$id`.
#[derive(Debug)]
pub(super) struct Anchors {
    base: Uri<String>,
    /// Its start.
    place: String,
    /// Places by `$anchor`.
    plain: BTreeMap<String, String>,
    /// Places by `$dynamicAnchor`, and the node compiled there.
    pub(super) dynamic: BTreeMap<String, (String, Option<Id>)>,
}

/// A document and its named parts.
pub(super) struct Located<'d> {
    pub(super) document: &'d Value,
    pub(super) draft: Draft,
    pub(super) resources: Vec<Anchors>,
    /// The resource of each subschema at a keyword's position.
    places: BTreeMap<String, usize>,
}

const ONE: [&str; 12] = [
    "additionalProperties",
    "propertyNames",
    "contains",
    "not",
    "if",
    "then",
    "else",
    "items",
    "additionalItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contentSchema",
];
const LISTS: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const MAPS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// The target of a reference.
pub(super) struct Target {
    pub(super) place: String,
    /// Its name, if the reference names a `$dynamicAnchor`.
    pub(super) dynamic: Option<String>,
}

impl<'d> Located<'d> {
    pub(super) fn new(document: &'d Value) -> Result<Self, SchemaFault> {
        let draft = draft(document)?;
        let base = Uri::parse(UNNAMED.to_owned()).map_err(|_| unresolved("", UNNAMED))?;
        let mut located = Self { document, draft, resources: Vec::new(), places: BTreeMap::new() };
        located.resources.push(Anchors::new(base, String::new()));
        located.walk(document, String::new(), 0)?;
        Ok(located)
    }

    fn walk(&mut self, value: &Value, place: String, resource: usize) -> Result<(), SchemaFault> {
        let Value::Object(members) = value else {
            if value.is_boolean() {
                self.places.insert(place, resource);
            }
            return Ok(());
        };
        let resource = self.named(members, &place, resource)?;
        self.places.insert(place.clone(), resource);
        for (name, value) in members {
            match value {
                Value::Array(items) if LISTS.contains(&name.as_str()) => {
                    let place = join(&place, name);
                    for (index, item) in items.iter().enumerate() {
                        self.walk(item, format!("{place}/{index}"), resource)?;
                    }
                }
                Value::Object(members) if MAPS.contains(&name.as_str()) => {
                    let place = join(&place, name);
                    for (name, value) in members {
                        self.walk(value, join(&place, name), resource)?;
                    }
                }
                _ if ONE.contains(&name.as_str()) => {
                    self.walk(value, join(&place, name), resource)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Records the names of a subschema; returns its resource.
    fn named(
        &mut self,
        members: &Map<String, Value>,
        place: &str,
        resource: usize,
    ) -> Result<usize, SchemaFault> {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        // draft-07 §8.3: keywords next to a $ref have no effect.
        if self.draft == Draft::V7 && members.contains_key("$ref") {
            return Ok(resource);
        }
        let mut resource = resource;
        let mut anchor = text("$anchor").filter(|_| self.draft == Draft::V2020);
        match text("$id") {
            Some(id) if self.draft == Draft::V7 && id.starts_with('#') => anchor = id.get(1..),
            Some(id) => {
                let base = self.resolve(resource, id).ok_or_else(|| unresolved(place, id))?;
                let base = base.strip_fragment().to_owned();
                if place.is_empty() {
                    self.resources.clear();
                }
                resource = self.resources.len();
                self.resources.push(Anchors::new(base, place.to_owned()));
            }
            None => {}
        }
        let Some(own) = self.resources.get_mut(resource) else {
            return Ok(resource);
        };
        if let Some(anchor) = anchor {
            own.plain.insert(anchor.to_owned(), place.to_owned());
        }
        if let (Some(anchor), Draft::V2020) = (text("$dynamicAnchor"), self.draft) {
            own.dynamic.insert(anchor.to_owned(), (place.to_owned(), None));
        }
        Ok(resource)
    }

    fn resolve(&self, resource: usize, reference: &str) -> Option<Uri<String>> {
        let base = &self.resources.get(resource)?.base;
        UriRef::parse(reference).ok()?.resolve_against(base).ok()
    }

    /// The target of `reference`, written in `resource`.
    pub(super) fn target(
        &self,
        place: &str,
        resource: usize,
        reference: &str,
    ) -> Result<Target, SchemaFault> {
        let fault = || unresolved(place, reference);
        let uri = self.resolve(resource, reference).ok_or_else(fault)?;
        let (base, fragment) = (uri.strip_fragment(), uri.fragment());
        let own = self.resources.iter().find(|own| own.base.as_str() == base.as_str());
        let own = own.ok_or_else(fault)?;
        let fragment = match fragment {
            Some(fragment) => fragment.decode().to_string().map_err(|_| fault())?.into_owned(),
            None => String::new(),
        };
        if fragment.is_empty() || fragment.starts_with('/') {
            return Ok(Target { place: format!("{}{fragment}", own.place), dynamic: None });
        }
        if let Some((place, _)) = own.dynamic.get(&fragment) {
            return Ok(Target { place: place.clone(), dynamic: Some(fragment) });
        }
        let place = own.plain.get(&fragment).ok_or_else(fault)?;
        Ok(Target { place: place.clone(), dynamic: None })
    }

    /// The resource of the subschema at `place`, which may be at a position without a keyword.
    pub(super) fn resource_at(&self, place: &str) -> usize {
        let mut place = place;
        loop {
            if let Some(resource) = self.places.get(place) {
                return *resource;
            }
            place = place.rfind('/').and_then(|end| place.get(..end)).unwrap_or_default();
            if place.is_empty() {
                return self.places.get("").copied().unwrap_or_default();
            }
        }
    }
}

impl Anchors {
    fn new(base: Uri<String>, place: String) -> Self {
        Self { base, place, plain: BTreeMap::new(), dynamic: BTreeMap::new() }
    }
}

fn draft(document: &Value) -> Result<Draft, SchemaFault> {
    match document.get("$schema").and_then(Value::as_str) {
        None => Ok(Draft::V2020),
        Some(name) => match name.trim_end_matches('#') {
            "https://json-schema.org/draft/2020-12/schema" => Ok(Draft::V2020),
            "http://json-schema.org/draft-07/schema" => Ok(Draft::V7),
            _ => Err(SchemaFault {
                place: "/$schema".to_owned(),
                found: shortened(name),
                expected: "https://json-schema.org/draft/2020-12/schema or http://json-schema.org/draft-07/schema#".to_owned(),
            }),
        },
    }
}

/// The place of the member `name` of the value at `place` (RFC 6901).
pub(super) fn join(place: &str, name: &str) -> String {
    // Most names need no escape, and every keyword of every tool's schema comes by here.
    match name.contains(['~', '/']) {
        true => [place, "/", &name.replace('~', "~0").replace('/', "~1")].concat(),
        false => [place, "/", name].concat(),
    }
}

fn unresolved(place: &str, reference: &str) -> SchemaFault {
    SchemaFault {
        place: place.to_owned(),
        found: format!("a reference to {}", shortened(reference)),
        expected: "a reference to a part of this schema".to_owned(),
    }
}

pub(super) fn shortened(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    format!("{short:?}")
}
