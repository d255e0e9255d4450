//! A refusal that is delivered on the HTTP+SSE stream on which its client waits.
//!
//! Owns the message that is sent upstream instead of a refused one, and the interpretation of its response. HTTP+SSE
//! clients end their session at every error status of a POST, and do not read its body. The stream is another request,
//! on any worker of any replica, and Envoy cannot write to it from here. The server can: it answers an unknown request
//! with the request's id. So the id contains the refusal. That message has the refused call's id and the names in the
//! refusal's text; it has no parameters.
//!
//! A server may invent such an id, but gains nothing: the id can only contain an error, or a tool's error.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Denial, Requested};
use crate::mcp::{Era, Sender};

/// No server has a method of this name.
const METHOD: &str = "portcullis/refused";
const PREFIX: &str = "portcullis/refused/";
/// A longer message is not sent; the client gets a status instead.
const MOST_BYTES: usize = 2_048;

/// The refusal of a call, in the id of the message that replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relayed {
    id: Value,
    code: i64,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    /// Whether it is a tool result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tool: bool,
}

impl Relayed {
    /// The relayed form of `denial`; `None` when only a status can express it.
    #[must_use]
    pub fn of(
        denial: &Denial,
        sender: &Sender,
        era: Era,
        requested: Requested<'_>,
    ) -> Option<Self> {
        let Sender::Request(id) = sender else { return None };
        if !denial.fits_in_message() {
            return None;
        }
        let as_result = matches!(
            (denial, requested),
            (Denial::Arguments { .. } | Denial::InvalidArguments(_), _)
                | (Denial::CredentialMissing(_), Requested::Tool(_))
        );
        let tool = denial.tool_result(id, requested).is_some() || as_result;
        Some(Self {
            id: id.clone(),
            code: denial.code(era),
            message: denial.client_message(requested),
            data: denial.data(era),
            tool,
        })
    }

    /// The message that is sent upstream; `None` when it would be too long.
    #[must_use]
    pub fn request(&self) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(self).ok().filter(|text| text.len() <= MOST_BYTES)?;
        let id = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        Some(json!({"jsonrpc": "2.0", "id": id, "method": METHOD}).to_string().into_bytes())
    }

    /// The client's message.
    fn answer(self) -> Value {
        let Self { id, code, message, data, tool } = self;
        if !tool {
            let error = match data {
                Some(data) => json!({"code": code, "message": message, "data": data}),
                None => json!({"code": code, "message": message}),
            };
            return json!({"jsonrpc": "2.0", "id": id, "error": error});
        }
        let content = json!([{"type": "text", "text": message}]);
        json!({"jsonrpc": "2.0", "id": id, "result": {"content": content, "isError": true}})
    }
}

/// The replacement of `message`, if that answers a request that replaced a refused one.
#[must_use]
pub fn relayed(message: &Value) -> Option<Value> {
    if message.get("method").is_some() {
        return None;
    }
    let text = message.get("id")?.as_str()?.strip_prefix(PREFIX)?;
    if text.len() > MOST_BYTES.saturating_mul(2) {
        return None;
    }
    let text = URL_SAFE_NO_PAD.decode(text).ok()?;
    let relayed: Relayed = serde_json::from_slice(&text).ok()?;
    matches!(relayed.id, Value::String(_) | Value::Number(_)).then(|| relayed.answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "the arguments";

    fn refused() -> Relayed {
        let sender = Sender::Request(json!(7));
        let denial = Denial::Forbidden { rule: "roles.a.b".into() };
        Relayed::of(&denial, &sender, Era::Legacy, Requested::Method("prompts/get")).unwrap()
    }

    // Finding 8.5: the stateless way to the client's stream.
    // Proves: B2, X17
    #[test]
    fn an_answer_to_the_message_that_stands_for_a_refused_one_is_the_refusal() {
        let sent: Value = serde_json::from_slice(&refused().request().unwrap()).unwrap();
        assert_eq!(sent["method"], METHOD);
        assert_eq!(sent.get("params"), None);
        for part in [json!({"error": {"code": -32_601, "message": "?"}}), json!({"result": {}})] {
            let mut answer = part;
            answer["jsonrpc"] = json!("2.0");
            answer["id"] = sent["id"].clone();
            let told = relayed(&answer).unwrap();
            assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(-31_403)));
            assert_eq!(told["error"]["data"], json!({"rule": "roles.a.b"}));
        }
        // A request that the server itself sends is not a relayed refusal.
        assert_eq!(relayed(&sent), None);
        let sender = Sender::Request(json!("a"));
        let denial = Denial::Forbidden { rule: "r".into() };
        let call = Relayed::of(&denial, &sender, Era::Legacy, Requested::Tool("t")).unwrap();
        assert!(call.tool && call.answer()["result"]["isError"] == true);
    }

    #[test]
    fn what_is_no_refusal_of_ours_is_left_alone() {
        let with = |id: Value| relayed(&json!({"jsonrpc": "2.0", "id": id, "result": {}}));
        let encoded =
            |value: Value| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(value.to_string()));
        assert_eq!(with(json!(1)), None);
        assert_eq!(with(json!(PREFIX)), None);
        assert_eq!(with(json!(encoded(json!({"id": 1})))), None);
        // A server cannot send a list past the filter: an id can only contain an error.
        let list = json!({"id": 1, "code": 1, "message": "", "result": {"tools": []}});
        assert_eq!(with(json!(encoded(list))), None);
        let bad_id = json!({"id": {}, "code": 1, "message": ""});
        assert_eq!(with(json!(encoded(bad_id))), None);
    }

    #[test]
    fn only_what_a_message_can_say_is_relayed_and_only_if_it_is_short() {
        let sender = Sender::Request(json!(1));
        let of = |denial: Denial| Relayed::of(&denial, &sender, Era::Legacy, Requested::Unread);
        assert_eq!(of(Denial::UnknownSession), None);
        assert_eq!(
            of(Denial::InsufficientScope(Box::new(crate::denial::InsufficientScope {
                needed: vec!["a".into()],
                missing: vec!["a".into()],
            }))),
            None
        );
        let long = of(Denial::UnknownTool(SECRET.repeat(500))).unwrap();
        assert_eq!(long.request(), None);
        let none = Relayed::of(
            &Denial::PolicyUnusable,
            &Sender::NoReplyExpected,
            Era::Legacy,
            Requested::Unread,
        );
        assert_eq!(none, None);
    }
}
