//! A refusal as a message of status 200, for clients that lose their session at any other status.
//!
//! Owns which refusals may be told so, and their form. Clients of the legacy era take a status for a fault of the
//! connection: some end the session, and none shows the model why. A result of a tool reaches the model in all of them
//! (MCP 2025-11-25, tools, error handling).

use serde_json::{Value, json};

use super::{Denial, Requested};
use crate::auth::AuthFailure;
use crate::http::local_reply::LocalReply;
use crate::mcp::{Era, Sender};

/// Where a result carries the code and the data of the error that it stands for.
const META: &str = "portcullis/refusal";

impl Denial {
    /// Whether a caller that proved its identity may be told in a message. What a status alone can say stays a status: 401
    /// and the challenge for scopes (RFC 6750), a lost session, and what is wrong with the HTTP request.
    #[must_use]
    pub fn fits_in_message(&self) -> bool {
        match self {
            Self::Unauthenticated(failure) => *failure == AuthFailure::SourceNotAllowed,
            Self::InsufficientScope(_) | Self::ForeignOrigin => false,
            Self::UnknownSession | Self::UnknownPath => false,
            denial => matches!(denial.status(Era::Legacy), 200 | 403 | 429 | 500..),
        }
    }

    /// Makes `reply`, which answers a request of the legacy era, a message of status 200.
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

    /// What a tool would answer; `None` for other requests, and for what is a protocol error or a result anyway.
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
