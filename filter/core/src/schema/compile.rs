//! Compiles a JSON document to nodes and rules.
//!
//! Owns the form of each keyword. Unknown keywords are annotations, as in the specification. Without recursion: a
//! reference is a number whose node is compiled later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use serde_json::{Map, Value};

use super::locate::{Draft, Located, join};
use super::read::{fault, kind_of, texts};
use super::rule::{Body, Bound, Demand, Id, Node, Range, Rule};
use super::{MAX_NODES, MAX_SCHEMA_BYTES, Schema, SchemaFault};
use crate::json;
use crate::order;

pub(super) fn compile(document: &Value) -> Result<Schema, SchemaFault> {
    let bytes = length(document);
    if bytes > MAX_SCHEMA_BYTES {
        let expected = format!("at most {MAX_SCHEMA_BYTES} bytes");
        return Err(fault("", format!("a schema of {bytes} bytes"), expected));
    }
    let located = Located::new(document)?;
    let mut compiler = Compiler { located, ids: HashMap::new(), places: Vec::new(), tracks: false };
    compiler.id(String::new());
    let anchors: Vec<(usize, String, String)> = compiler.dynamic_anchors();
    for (resource, name, place) in anchors {
        let id = compiler.id(place);
        let own = compiler.located.resources.get_mut(resource);
        if let Some((_, known)) = own.and_then(|own| own.dynamic.get_mut(&name)) {
            *known = Some(id);
        }
    }
    let mut nodes = Vec::new();
    while let Some(place) = compiler.places.get(nodes.len()).cloned() {
        if nodes.len() >= MAX_NODES {
            let expected = format!("at most {MAX_NODES}");
            return Err(fault("", "a schema of more parts", expected));
        }
        nodes.push(compiler.node(place)?);
    }
    Ok(Schema { nodes, resources: compiler.located.resources, tracks: compiler.tracks })
}

/// How long a document is as JSON.
fn length(document: &Value) -> usize {
    struct Counted(usize);
    impl io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    match serde_json::to_writer(&mut counted, document) {
        Ok(()) => counted.0,
        Err(_) => usize::MAX,
    }
}

pub(super) struct Compiler<'d> {
    located: Located<'d>,
    ids: HashMap<String, Id>,
    /// By id; those without a node yet are waiting.
    places: Vec<String>,
    tracks: bool,
}

/// One subschema while it is read.
pub(super) struct Reader<'c, 'd> {
    pub(super) compiler: &'c mut Compiler<'d>,
    pub(super) place: &'c str,
    resource: usize,
    pub(super) members: &'d Map<String, Value>,
}

impl<'d> Compiler<'d> {
    pub(super) fn id(&mut self, place: String) -> Id {
        if let Some(id) = self.ids.get(&place) {
            return *id;
        }
        let id = self.places.len();
        self.places.push(place.clone());
        self.ids.insert(place, id);
        id
    }

    fn dynamic_anchors(&self) -> Vec<(usize, String, String)> {
        let resources = self.located.resources.iter().enumerate();
        let anchors = resources.flat_map(|(resource, own)| {
            let named = own.dynamic.iter();
            named.map(move |(name, (place, _))| (resource, name.clone(), place.clone()))
        });
        anchors.collect()
    }

    fn node(&mut self, place: String) -> Result<Node, SchemaFault> {
        let expected = "a schema: an object, true or false";
        let value = self.located.document.pointer(&place);
        let value = value.ok_or_else(|| fault(&place, "a reference to nothing", expected))?;
        let resource = self.located.resource_at(&place);
        let body = match value {
            Value::Bool(constant) => Body::Constant(*constant),
            Value::Object(members) => {
                let mut reader = Reader { compiler: self, place: &place, resource, members };
                Body::Rules(reader.rules()?)
            }
            other => return Err(fault(&place, kind_of(other), expected)),
        };
        Ok(Node { place, resource, body })
    }
}

impl<'d> Reader<'_, 'd> {
    fn rules(&mut self) -> Result<Vec<Rule>, SchemaFault> {
        let mut rules = Vec::new();
        if let Some(rule) = self.reference("$ref")? {
            rules.push(rule);
            if self.draft() == Draft::V7 {
                return Ok(rules);
            }
        }
        if self.draft() == Draft::V2020 {
            rules.extend(self.reference("$dynamicRef")?);
        }
        rules.extend(self.spelling());
        self.assertions(&mut rules)?;
        self.applicators(&mut rules)?;
        self.members_and_items(&mut rules)?;
        if self.draft() == Draft::V2020 {
            rules.extend(self.unevaluated()?);
        }
        Ok(rules)
    }

    fn draft(&self) -> Draft {
        self.compiler.located.draft
    }

    fn reference(&mut self, keyword: &'static str) -> Result<Option<Rule>, SchemaFault> {
        let Some(reference) = self.text(keyword)? else {
            return Ok(None);
        };
        let place = join(self.place, keyword);
        let target = self.compiler.located.target(&place, self.resource, reference)?;
        let fallback = self.compiler.id(target.place);
        let demand = match keyword {
            "$dynamicRef" => Demand::DynamicRef { fallback, anchor: target.dynamic },
            _ => Demand::Ref(fallback),
        };
        Ok(Some(Rule { keyword, demand }))
    }

    /// Every member name that a rule here uses.
    fn spelling(&self) -> Option<Rule> {
        let object = |keyword: &str| self.members.get(keyword).and_then(Value::as_object);
        let keywords = ["properties", "dependentRequired", "dependentSchemas", "dependencies"];
        let keys = keywords.into_iter().filter_map(object).flat_map(Map::keys);
        let required = self.members.get("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str);
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in keys.map(String::as_str).chain(required) {
            names.entry(json::folded(name)).or_default().insert(name.to_owned());
        }
        // The first of them that is there: a violation is named by where a rule stands.
        let keyword = keywords.into_iter().find(|keyword| object(keyword).is_some());
        let keyword = keyword.unwrap_or("required");
        (!names.is_empty()).then(|| Rule { keyword, demand: Demand::Spelling(names) })
    }

    fn assertions(&mut self, rules: &mut Vec<Rule>) -> Result<(), SchemaFault> {
        let mut add = |keyword, demand: Option<Demand>| {
            rules.extend(demand.map(|demand| Rule { keyword, demand }));
        };
        add("type", self.kinds()?.map(Demand::Type));
        add("enum", self.list("enum")?.map(|values| Demand::Enum(values.clone())));
        add("const", self.members.get("const").cloned().map(Demand::Const));
        for (keyword, bound) in [
            ("minimum", Bound::Least),
            ("maximum", Bound::Most),
            ("exclusiveMinimum", Bound::Above),
            ("exclusiveMaximum", Bound::Below),
        ] {
            add(keyword, self.number(keyword)?.map(|number| Demand::Bound(bound, number)));
        }
        let multiple = self.number("multipleOf")?;
        if multiple.as_ref().is_some_and(|number| number.as_f64() <= Some(0.0)) {
            return Err(self.wrong("multipleOf", "a number above 0"));
        }
        add("multipleOf", multiple.map(Demand::MultipleOf));
        add("minLength", self.count("minLength")?.map(|n| Demand::Length(Range::at_least(n))));
        add("maxLength", self.count("maxLength")?.map(|n| Demand::Length(Range::at_most(n))));
        let pattern = self.text("pattern")?.map(|source| self.pattern("pattern", source));
        add("pattern", pattern.transpose()?.map(Box::new).map(Demand::Pattern));
        add("minItems", self.count("minItems")?.map(|n| Demand::ItemCount(Range::at_least(n))));
        add("maxItems", self.count("maxItems")?.map(|n| Demand::ItemCount(Range::at_most(n))));
        let unique = self.boolean("uniqueItems")?;
        add("uniqueItems", unique.filter(|unique| *unique).map(|_| Demand::Unique));
        let (least, most) = (self.count("minProperties")?, self.count("maxProperties")?);
        add("minProperties", least.map(|n| Demand::MemberCount(Range::at_least(n))));
        add("maxProperties", most.map(|n| Demand::MemberCount(Range::at_most(n))));
        add("required", self.names("required")?.map(Demand::Required));
        Ok(())
    }

    fn applicators(&mut self, rules: &mut Vec<Rule>) -> Result<(), SchemaFault> {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let demand = self.schemas(keyword)?.map(|schemas| match keyword {
                "allOf" => Demand::AllOf(schemas),
                "anyOf" => Demand::AnyOf(schemas),
                _ => Demand::OneOf(schemas),
            });
            rules.extend(demand.map(|demand| Rule { keyword, demand }));
        }
        rules.extend(self.schema("not").map(|id| Rule { keyword: "not", demand: Demand::Not(id) }));
        if let Some(condition) = self.schema("if") {
            let (then, otherwise) = (self.schema("then"), self.schema("else"));
            let demand = Demand::If { condition, then, otherwise };
            rules.push(Rule { keyword: "if", demand });
        }
        match self.draft() {
            Draft::V2020 => {
                if let Some(schemas) = self.schema_map("dependentSchemas")? {
                    let demand = Demand::DependentSchemas(schemas);
                    rules.push(Rule { keyword: "dependentSchemas", demand });
                }
                if let Some(members) = self.object("dependentRequired")? {
                    self.dependent_names("dependentRequired", members, rules)?;
                }
            }
            Draft::V7 => {
                if let Some(members) = self.object("dependencies")? {
                    let place = join(self.place, "dependencies");
                    let schemas = members.iter().filter(|(_, value)| !value.is_array());
                    let schemas = schemas
                        .map(|(name, _)| (name.clone(), self.compiler.id(join(&place, name))));
                    let demand = Demand::DependentSchemas(schemas.collect());
                    rules.push(Rule { keyword: "dependencies", demand });
                    self.dependent_names("dependencies", members, rules)?;
                }
            }
        }
        Ok(())
    }

    fn dependent_names(
        &self,
        keyword: &'static str,
        members: &Map<String, Value>,
        rules: &mut Vec<Rule>,
    ) -> Result<(), SchemaFault> {
        let mut dependent = Vec::new();
        for (name, value) in members {
            match value.as_array().and_then(|items| texts(items)) {
                Some(names) => dependent.push((name.clone(), names)),
                None if keyword == "dependencies" && !value.is_array() => {}
                None => return Err(self.wrong(keyword, "lists of names")),
            }
        }
        rules.push(Rule { keyword, demand: Demand::DependentRequired(dependent) });
        Ok(())
    }

    fn members_and_items(&mut self, rules: &mut Vec<Rule>) -> Result<(), SchemaFault> {
        let named = order::map(self.schema_map("properties")?.into_iter().flatten());
        let mut patterns = Vec::new();
        for (source, id) in self.schema_map("patternProperties")?.into_iter().flatten() {
            patterns.push((self.pattern("patternProperties", &source)?, id));
        }
        let others = self.schema("additionalProperties");
        if !named.is_empty() || !patterns.is_empty() || others.is_some() {
            let demand = Demand::Members { named, patterns, others };
            rules.push(Rule { keyword: "properties", demand });
        }
        let names = self.schema("propertyNames");
        rules.extend(
            names.map(|id| Rule { keyword: "propertyNames", demand: Demand::MemberNames(id) }),
        );
        let tuple = self.members.get("items").is_some_and(Value::is_array);
        let (prefix, rest) = match self.draft() {
            Draft::V2020 => (self.schemas("prefixItems")?, self.schema("items")),
            Draft::V7 if tuple => (self.schemas("items")?, self.schema("additionalItems")),
            Draft::V7 => (None, self.schema("items")),
        };
        if prefix.is_some() || rest.is_some() {
            let demand = Demand::Items { prefix: prefix.unwrap_or_default(), rest };
            rules.push(Rule { keyword: "items", demand });
        }
        if let Some(item) = self.schema("contains") {
            let evaluates = self.draft() == Draft::V2020;
            let (least, most) = match self.draft() {
                Draft::V2020 => (self.count("minContains")?, self.count("maxContains")?),
                Draft::V7 => (None, None),
            };
            let range = Range { least: least.unwrap_or(1), most: most.unwrap_or(u64::MAX) };
            let demand = Demand::Contains { item, range, evaluates };
            rules.push(Rule { keyword: "contains", demand });
        }
        Ok(())
    }

    fn unevaluated(&mut self) -> Result<Vec<Rule>, SchemaFault> {
        let members = self.schema("unevaluatedProperties").map(Demand::UnevaluatedMembers);
        let items = self.schema("unevaluatedItems").map(Demand::UnevaluatedItems);
        self.compiler.tracks |= members.is_some() || items.is_some();
        let members = members.map(|demand| Rule { keyword: "unevaluatedProperties", demand });
        let items = items.map(|demand| Rule { keyword: "unevaluatedItems", demand });
        Ok(members.into_iter().chain(items).collect())
    }
}
