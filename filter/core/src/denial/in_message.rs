//! A refusal as a message of status 200, for clients that lose their session at any other status.
//!
//! Owns which refusals may have this form, and the form. Clients of the legacy era interpret an error status as a fault
//! of the connection: some end the session, and none shows the model the reason. A tool result reaches the model in all
//! of them (MCP 2025-11-25, tools, error handling).

use serde_json::{Value, json};

use super::{Denial, Requested};
use crate::auth::AuthFailure;
use crate::http::local_reply::LocalReply;
use crate::mcp::{Era, Sender};

/// The member of a result with the code and the data of the error that it replaces.
const META: &str = "portcullis/refusal";

impl Denial {
    /// Whether an authenticated caller may get this refusal as a message. Refusals that need a status keep it: 401 and
    /// the challenge for scopes (RFC 6750), a lost session, and faults of the HTTP request.
    #[must_use]
    pub fn fits_in_message(&self) -> bool {
        match self {
            Self::Unauthenticated(failure) => *failure == AuthFailure::SourceNotAllowed,
            Self::InsufficientScope(_) | Self::ForeignOrigin => false,
            Self::UnknownSession | Self::UnknownPath => false,
            denial => matches!(denial.status(Era::Legacy), 200 | 403 | 429 | 500..),
        }
    }

    /// Turns `reply`, which answers a request of the legacy era, into a message of status 200.
    pub fn tell_in_message(
        &self,
        sender: &Sender,
        requested: Requested<'_>,
        reply: &mut LocalReply,
    ) {
        let Sender::Request(id) = sender else { return };
        reply.status = 200;
        if let Some(body) = self.tool_result(id, requested) {
            reply.body = body.to_string().into_bytes();
        }
    }

    /// The refusal as a tool result; `None` for other requests, and for refusals that are a protocol error or a result
    /// anyway.
    pub(super) fn tool_result(&self, id: &Value, requested: Requested<'_>) -> Option<Value> {
        let tool = matches!(requested, Requested::Tool(_));
        if !tool || self.status(Era::Legacy) == 200 {
            return None;
        }
        let code = self.code(Era::Legacy);
        let refusal = match self.data(Era::Legacy) {
            Some(data) => json!({"code": code, "data": data}),
            None => json!({"code": code}),
        };
        Some(json!({"jsonrpc": "2.0", "id": id, "result": {
            "content": [{"type": "text", "text": self.client_message(requested)}],
            "isError": true,
            "_meta": {META: refusal},
        }}))
    }
}
