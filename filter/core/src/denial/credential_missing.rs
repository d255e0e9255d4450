//! The refusal for a caller who has no credential for the connector's server, with the place to get one.
//!
//! Owns the three forms: a URL elicitation in an error (MCP 2025-11-25), one in a result (2026-07-28), and a text with
//! the link for clients that support neither. A model reads the text and shows it to the user.

use serde_json::{Value, json};

use super::Requested;
use crate::connector_credential::Missing;
use crate::id::PolicyName;
use crate::mcp::{Era, UrlElicitation};

/// URL elicitation is required (MCP 2025-11-25, elicitation, URL mode).
pub(super) const URL_ELICITATION_REQUIRED: i64 = -32_042;

/// The refusal of a caller without a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialMissing {
    /// The connector.
    pub connector: PolicyName,
    /// The policy's message and link.
    pub missing: Missing,
    /// The id of the elicitation: the id of the request.
    pub id: String,
    /// Whether the client supports URL elicitation.
    pub elicitation: UrlElicitation,
}

impl CredentialMissing {
    /// The deciding rule.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("connectors.{}.credential.missing", self.connector)
    }

    pub(super) fn text(&self) -> String {
        let (Missing { message, url }, connector) = (&self.missing, &self.connector);
        format!("{message} Open {url} and repeat the call (connector `{connector}`).")
    }

    fn elicitation(&self) -> Value {
        let Missing { message, url } = &self.missing;
        json!({"mode": "url", "message": message, "url": url, "elicitationId": self.id})
    }

    /// The error code, when the refusal is an error.
    pub(super) fn code(&self, era: Era) -> i64 {
        match (self.elicitation, era) {
            (UrlElicitation::Declared, Era::Legacy) => URL_ELICITATION_REQUIRED,
            (UrlElicitation::Declared | UrlElicitation::Undeclared, _) => -31_403,
        }
    }

    /// The `data` of the error.
    pub(super) fn data(&self, era: Era) -> Value {
        match (self.elicitation, era) {
            (UrlElicitation::Declared, Era::Legacy) => {
                json!({"elicitations": [self.elicitation()]})
            }
            (UrlElicitation::Declared | UrlElicitation::Undeclared, _) => {
                json!({"rule": self.rule(), "url": self.missing.url})
            }
        }
    }

    /// The result, when the refusal is a result.
    pub(super) fn result(&self, era: Era, requested: Requested<'_>) -> Option<Value> {
        let content = json!([{"type": "text", "text": self.text()}]);
        let tool = matches!(requested, Requested::Tool(_));
        let asks = tool || matches!(requested, Requested::Method("prompts/get" | "resources/read"));
        match (era, self.elicitation) {
            (Era::Modern, UrlElicitation::Declared) if asks => {
                let params = self.elicitation();
                let request = json!({"method": "elicitation/create", "params": params});
                let requests = json!({"credential": request});
                Some(json!({"resultType": "input_required", "inputRequests": requests}))
            }
            (Era::Legacy, UrlElicitation::Declared) => None,
            (Era::Modern, _) if tool => {
                Some(json!({"resultType": "complete", "content": content, "isError": true}))
            }
            (Era::Legacy, UrlElicitation::Undeclared) if tool => {
                Some(json!({"content": content, "isError": true}))
            }
            (Era::Modern | Era::Legacy, _) => None,
        }
    }
}
