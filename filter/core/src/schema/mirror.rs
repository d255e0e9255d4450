//! Arguments that a header repeats: `x-mcp-header` in an input schema (MCP 2026-07-28, SEP-2243).
//!
//! Owns which annotations count: those of texts, whole numbers and booleans, reached only through `properties`, each
//! header once. Others are the server's mistake; clients drop such tools.

use serde_json::{Map, Value};

/// One argument and the header that repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The names of members on the path to the argument.
    pub path: Vec<String>,
    /// The header, in lower case: `mcp-param-region`.
    pub header: String,
}

/// Deeper than in any real tool.
const MAX_DEPTH: usize = 8;

/// Every argument of an input schema that a header repeats.
#[must_use]
pub fn mirrors(schema: &Value) -> Vec<Mirror> {
    let mut mirrors: Vec<Mirror> = Vec::new();
    collect(schema, &mut Vec::new(), &mut mirrors);
    let all = mirrors.clone();
    mirrors.retain(|one| all.iter().filter(|other| other.header == one.header).count() == 1);
    mirrors
}

fn collect(schema: &Value, path: &mut Vec<String>, mirrors: &mut Vec<Mirror>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        if path.len() >= MAX_DEPTH {
            return;
        }
        path.push(name.clone());
        let header = schema.get("x-mcp-header").and_then(Value::as_str);
        let kind = schema.get("type").and_then(Value::as_str);
        if let (Some(header), Some("string" | "integer" | "boolean")) = (header, kind)
            && is_token(header)
        {
            let header = format!("mcp-param-{}", header.to_ascii_lowercase());
            mirrors.push(Mirror { path: path.clone(), header });
        }
        collect(schema, path, mirrors);
        path.pop();
    }
}

/// A token of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let of_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(of_token)
}

impl Mirror {
    /// The argument, unless it is absent or null.
    #[must_use]
    pub fn argument<'a>(&self, arguments: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.path.split_first()?;
        let value = rest.iter().try_fold(arguments.get(first)?, |value, name| value.get(name))?;
        (!value.is_null()).then_some(value)
    }

    /// Whether a header's decoded value equals the argument.
    #[must_use]
    pub fn agrees(argument: &Value, header: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(header) else {
            return false;
        };
        match argument {
            Value::String(value) => value == text,
            Value::Bool(value) => value.to_string() == text,
            Value::Number(value) => match serde_json::from_str::<Value>(text) {
                Ok(said @ Value::Number(_)) => super::same(&said, &Value::Number(value.clone())),
                _ => false,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}
