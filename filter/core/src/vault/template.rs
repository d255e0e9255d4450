//! The text around a credential.
//!
//! Owns its grammar: `{secret}`, `{FIELD}`, `{base64(FIELD:FIELD)}`. Does not know where the text is used.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::is_plain;
use crate::secret::Secret;

/// A text with placeholders for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value with this index in the fields.
    Value(usize),
    /// The values, with colons between them, in base64 (RFC 7617 §2).
    Base64(Vec<usize>),
}

impl Template {
    /// The form of a valid template.
    pub const EXPECTED: &'static str = "a text with {secret}, {FIELD} or {base64(FIELD:FIELD)}, such as \"Bearer {secret}\" or \
         \"Basic {base64(user:password)}\"; everything secret in it comes from Vault";

    /// Reads a template. `field` is the field of `{secret}`; the template's fields are added to `fields`.
    #[must_use]
    pub fn parse(text: &str, field: Option<&str>, fields: &mut Vec<String>) -> Option<Self> {
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut place = |name: &str| {
            let name = if name == "secret" { field? } else { name };
            if !is_plain(name) {
                return None;
            }
            let known = fields.iter().position(|known| known == name);
            known.or_else(|| {
                fields.push(name.to_owned());
                fields.len().checked_sub(1)
            })
        };
        while let Some((before, behind)) = rest.split_once('{') {
            // A shell's `${NAME}` is not a placeholder.
            let (name, after) = behind.split_once('}').filter(|_| !before.ends_with('$'))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let names = name.strip_prefix("base64(").and_then(|names| names.strip_suffix(')'));
            parts.push(match names {
                Some(names) => {
                    Part::Base64(names.split(':').map(&mut place).collect::<Option<_>>()?)
                }
                None => Part::Value(place(name)?),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && !rest.contains('}');
        let has_value = parts.iter().any(|part| !matches!(part, Part::Text(_)));
        (plain && has_value).then_some(Self(parts))
    }

    /// The texts around the values.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Value(_) | Part::Base64(_) => None,
        })
    }

    /// Its base64 parts, without the texts around them.
    pub(crate) fn in_base64(&self, values: &[Secret]) -> Vec<Secret> {
        let parts = self.0.iter().filter(|part| matches!(part, Part::Base64(_)));
        parts.map(|part| Self(vec![part.clone()]).render(values)).collect()
    }

    /// The text with `values` in the placeholders.
    #[must_use]
    pub fn render(&self, values: &[Secret]) -> Secret {
        let value = |at: &usize| values.get(*at).map(Secret::expose).unwrap_or_default();
        // With its full capacity: a text that grows leaves copies in memory that are not wiped.
        let length = self.0.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Value(at) => value(at).len(),
            Part::Base64(all) => {
                let bytes = all.iter().map(|at| value(at).len().saturating_add(1)).sum::<usize>();
                bytes.saturating_mul(4).div_ceil(3).saturating_add(4)
            }
        });
        let mut text = String::with_capacity(length.sum());
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(at) => text.push_str(value(at)),
                Part::Base64(all) => {
                    let joined = all.iter().map(value).collect::<Vec<_>>().join(":");
                    STANDARD.encode_string(Secret::new(joined).expose(), &mut text);
                }
            }
        }
        Secret::new(text)
    }
}
