//! An audit entry as the commands that read logs see it.
//!
//! Owns its members. Borrows from the line: reading an entry copies nothing but texts with escapes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One line. Texts that the line does not have are empty. Also the entry of an administrator's change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Text<'a>,
    #[serde(borrow)]
    pub(super) request_id: Text<'a>,
    #[serde(borrow)]
    pub(super) trace_id: Text<'a>,
    #[serde(borrow)]
    pub(super) org_id: Text<'a>,
    #[serde(borrow)]
    pub(super) api_key_id: Text<'a>,
    #[serde(borrow)]
    pub(super) secret: Text<'a>,
    #[serde(borrow)]
    pub(super) client_id: Text<'a>,
    #[serde(borrow)]
    pub(super) principal: Text<'a>,
    #[serde(borrow)]
    pub(super) auth_method: Text<'a>,
    #[serde(borrow)]
    pub(super) oauth_client_id: Text<'a>,
    #[serde(borrow)]
    pub(super) agent_id: Text<'a>,
    #[serde(borrow)]
    pub(super) actors: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) certificate_sha256: Text<'a>,
    #[serde(borrow)]
    pub(super) role: Text<'a>,
    #[serde(borrow)]
    pub(super) connector: Text<'a>,
    #[serde(borrow)]
    pub(super) http_method: Text<'a>,
    #[serde(borrow)]
    pub(super) path: Text<'a>,
    #[serde(borrow)]
    pub(super) query: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) mcp_method: Text<'a>,
    #[serde(borrow)]
    pub(super) tool_name: Text<'a>,
    #[serde(borrow)]
    pub(super) prompt_name: Text<'a>,
    #[serde(borrow)]
    pub(super) resource_uri: Text<'a>,
    #[serde(borrow)]
    pub(super) resource_uris: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) task_id: Text<'a>,
    #[serde(borrow)]
    pub(super) task_ids: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input_sha256: Text<'a>,
    #[serde(borrow)]
    pub(super) status: Text<'a>,
    pub(super) http_status: Option<u64>,
    pub(super) error_code: Option<i64>,
    #[serde(borrow)]
    pub(super) decision: Decision<'a>,
    pub(super) latency_ms: Option<u64>,
    pub(super) upstream_ms: Option<u64>,
    pub(super) rows_returned: Option<u64>,
    pub(super) credits: Option<u64>,
    #[serde(borrow)]
    pub(super) policy_version: Text<'a>,
    #[serde(borrow)]
    pub(super) degraded: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) events: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) started_at: Text<'a>,
    #[serde(borrow)]
    pub(super) module: Text<'a>,
    #[serde(borrow)]
    pub(super) client_address: Text<'a>,
    #[serde(borrow)]
    pub(super) user_agent: Text<'a>,
    #[serde(borrow)]
    pub(super) actor: Text<'a>,
    #[serde(borrow)]
    pub(super) actor_claim: Text<'a>,
    #[serde(borrow)]
    pub(super) action: Text<'a>,
    #[serde(borrow)]
    pub(super) reason: Text<'a>,
    #[serde(borrow)]
    pub(super) changes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) chain: Text<'a>,
    pub(super) seq: Option<u64>,
    #[serde(borrow)]
    pub(super) prev_hash: Text<'a>,
    #[serde(borrow)]
    pub(super) hash: Text<'a>,
}

/// What the gateway decided.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Decision<'a> {
    #[serde(borrow)]
    pub(super) effect: Text<'a>,
    #[serde(borrow)]
    pub(super) rule: Text<'a>,
}

impl<'a> Entry<'a> {
    /// The entry on a line, and the line as text; or why it is none.
    pub(super) fn read(line: &'a [u8]) -> Result<(Self, &'a str), String> {
        let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        let entry = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok((entry, text))
    }

    /// Whether it stands in a chain.
    pub(super) fn is_linked(&self) -> bool {
        !self.chain.is_empty() && self.seq.is_some()
    }

    /// Whether it is of a response that is not over, whose own entry follows.
    pub(super) fn is_open(&self) -> bool {
        &*self.status == "open"
    }

    /// When it happened.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.timestamp.parse().ok()
    }

    /// The id that the caller proved: of a key, or the subject of a token or certificate.
    pub(super) fn caller(&self) -> &str {
        if self.api_key_id.is_empty() { &self.client_id } else { &self.api_key_id }
    }

    /// `acme/cursor (k1)`: two callers may have one name. None for a stranger.
    pub(super) fn named_caller(&self) -> Option<String> {
        let org = &*self.org_id;
        match (&*self.principal, self.caller()) {
            ("", "") => None,
            (name, "") | ("", name) => Some(format!("{org}/{name}")),
            (name, id) if name == id => Some(format!("{org}/{name}")),
            (name, id) => Some(format!("{org}/{name} ({id})")),
        }
    }

    /// What the request asks for by name, if it does.
    pub(super) fn subject(&self) -> &str {
        [&self.tool_name, &self.prompt_name, &self.resource_uri, &self.task_id]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("", |name| name)
    }

    /// What was asked for: the MCP method, an administrator's action, or the HTTP method.
    pub(super) fn operation(&self) -> &str {
        [&self.mcp_method, &self.action, &self.http_method]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("", |name| name)
    }

    /// Everything that happened on the way.
    pub(super) fn events(&self) -> Vec<Event> {
        let events = self.events.and_then(|events| serde_json::from_str(events.get()).ok());
        events.unwrap_or_default()
    }

    /// The names of what happened, but for the authentication that every good request has.
    pub(super) fn notable_events(&self) -> Vec<String> {
        let ordinary = |events: &RawValue| {
            events.get().starts_with("[{\"client_id\":")
                && events.get().ends_with("\"event\":\"auth_success\"}]")
                && events.get().matches("\"event\"").count() == 1
        };
        if self.events.is_none_or(ordinary) {
            return Vec::new();
        }
        let names = self.events().into_iter().map(|event| event.event);
        names.filter(|name| name != "auth_success").collect()
    }
}

/// One event of an entry.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Event {
    pub(super) event: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Event {
    pub(super) fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field).and_then(Value::as_u64)
    }
}

/// A text, borrowed from the line where it has no escapes. Absent is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::audit::{AuditEvent, Chain, Decision, Entry as Written};

    use super::*;

    // Proves: A15, A20
    #[test]
    fn an_entry_reads_as_it_was_written() {
        let written = Written {
            timestamp: "2026-11-28T10:00:00.000001Z".into(),
            principal: Some("a \"bot\"\n".into()),
            tool_name: Some("pay".into()),
            api_key_id: Some("k".into()),
            mcp_method: Some("tools/call".into()),
            input: Some(r#"{"a":[1.5,"x"]}"#.into()),
            error_code: Some(-32_000),
            http_status: Some(200),
            degraded: vec!["redis"],
            status: "success",
            decision: Decision { effect: "allow", rule: "r".into() },
            events: vec![
                AuditEvent::AuthSuccess { client_id: "k".into() },
                AuditEvent::BudgetAlert { limit: "month".into(), used: 8, of: 10 },
            ],
            latency_ms: 7,
            ..Written::default()
        };
        let line = Chain::new("a".into()).append(&written);
        let (entry, text) = Entry::read(line.as_bytes()).unwrap();
        assert_eq!(text, line);
        assert_eq!((&*entry.principal, entry.caller()), ("a \"bot\"\n", "k"));
        assert_eq!((entry.subject(), entry.operation()), ("pay", "tools/call"));
        assert_eq!(entry.input.unwrap().get(), r#"{"a":[1.5,"x"]}"#);
        assert_eq!(
            (entry.error_code, entry.http_status, entry.seq),
            (Some(-32_000), Some(200), Some(1))
        );
        assert_eq!((&*entry.decision.rule, &*entry.degraded[0]), ("r", "redis"));
        assert_eq!(entry.notable_events(), ["budget_alert"]);
        let budget = &entry.events()[1];
        assert_eq!((budget.text("limit"), budget.number("used")), ("month", Some(8)));
        assert_eq!(entry.time().unwrap().as_microsecond() % 1_000_000, 1);
        assert!(matches!(entry.timestamp.0, Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_entry_says_why() {
        assert!(Entry::read(b"\xff").unwrap_err().contains("UTF-8"));
        assert!(Entry::read(br#"{"chain":1}"#).unwrap_err().contains("expected a text"));
        assert!(Entry::read(br#"{"chain":"a","chain":"b"}"#).unwrap_err().contains("duplicate"));
        let (entry, _) = Entry::read(br#"{"chain":"a","seq":1,"later":{"a":[null]}}"#).unwrap();
        assert!(entry.is_linked() && entry.notable_events().is_empty());
    }
}
