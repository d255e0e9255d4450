//! The one `tools/call` of all measurements, and the requests that check whether a gateway enforces its policy.
//!
//! Owns the bytes. Every variant gets the same request, apart from its credential.

use portcullis_load::{REQUEST_HEAD, SERIAL};
use serde_json::{Value, json};

pub(crate) const PATH: &str = "/demo/mcp";
/// The tool of the load, and one that the policy does not name.
pub(crate) const TOOL: &str = "search_contacts";
const HIDDEN_TOOL: &str = "delete_everything";

pub(crate) const HEADERS: [(&str, &str); 4] = [
    ("accept", "application/json, text/event-stream"),
    ("content-type", "application/json"),
    ("mcp-protocol-version", "2025-11-25"),
    ("user-agent", "portcullis-bench/1"),
];

/// The constant answer of the upstream.
pub(crate) const ANSWER: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#,
    r#"[{\"id\":4711,\"name\":\"Ada Lovelace\",\"city\":\"London\",\"since\":\"1835-06-01\"},"#,
    r#"{\"id\":4712,\"name\":\"Grace Hopper\",\"city\":\"Arlington\",\"since\":\"1944-07-02\"},"#,
    r#"{\"id\":4713,\"name\":\"Mary Shelley\",\"city\":\"Geneva\",\"since\":\"1816-06-16\"}]"#,
    r#""}],"isError":false}}"#
);

/// Arguments differ from call to call, so that a gateway that counts repetitions sees none.
pub(crate) fn body(tool: &str, serial: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"query":"customer {serial}","fields":["name","city","since"],"limit":25,"include_archived":false}}}}}}"#
    )
}

/// The request for the loader, with a place for a serial number.
pub(crate) fn request(credential: Option<&str>) -> String {
    request_with(credential, &body(TOOL, SERIAL))
}

/// The same with another body.
pub(crate) fn request_with(credential: Option<&str>, body: &str) -> String {
    let credential = credential.map(|credential| ("authorization", credential));
    request_to(PATH, credential.as_slice(), body)
}

/// A request to another path, with these headers beside [`HEADERS`].
pub(crate) fn request_to(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in HEADERS.iter().chain(headers) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

/// A call that every variant allows.
pub(crate) fn allowed_call(serial: u64) -> String {
    body(TOOL, &format!("{serial:010}"))
}

/// In a call that the upstream answers with the head of the request.
pub(crate) const HEAD_MARKER: &str = "show the head";

pub(crate) fn head_answer() -> String {
    let text = json!([{"type": "text", "text": REQUEST_HEAD}]);
    json!({"jsonrpc": "2.0", "id": 1, "result": {"content": text, "isError": false}}).to_string()
}

/// A call that every variant allows, and that [`head_answer`] answers.
pub(crate) fn head_call(serial: u64) -> String {
    allowed_call(serial).replace("customer", HEAD_MARKER)
}

/// The head of the request in [`head_answer`], as the upstream received it.
pub(crate) fn echoed_head(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// A call whose arguments do not have the form of [`pin`]: `limit` is a text. Everything else is as in an allowed call.
pub(crate) fn malformed_call(serial: u64) -> String {
    allowed_call(serial).replace(r#""limit":25"#, r#""limit":"25""#)
}

/// The pin of [`TOOL`] in a policy: its description and the schema of its arguments.
pub(crate) fn pin() -> Value {
    let text = json!({"type": "string", "maxLength": 200});
    let schema = json!({
        "type": "object",
        "properties": {
            "query": text,
            "fields": {"type": "array", "items": text, "maxItems": 20},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "include_archived": {"type": "boolean"},
        },
        "required": ["query"],
        "additionalProperties": false,
    });
    json!({"description": "Search contacts", "input_schema": schema})
}

/// A call that every variant with authorization refuses.
pub(crate) fn hidden_call() -> String {
    body(HIDDEN_TOOL, SERIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_json_and_the_length_is_right() {
        let request = request(Some("Bearer x"));
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("authorization: Bearer x\r\n"), "{head}");
        assert_eq!(body.matches(SERIAL).count(), 1);
        let place = head_call(7).find(HEAD_MARKER).unwrap();
        assert!(place + HEAD_MARKER.len() <= portcullis_load::MARKED_WITHIN);
        for text in [
            body,
            &head_call(7),
            &head_answer(),
            &allowed_call(7),
            &malformed_call(7),
            &hidden_call(),
            ANSWER,
        ] {
            serde_json::from_str::<Value>(text).unwrap();
        }
    }

    #[test]
    fn only_one_argument_of_a_malformed_call_differs() {
        let arguments = |body: &str| -> Value {
            serde_json::from_str::<Value>(body).unwrap()["params"]["arguments"].take()
        };
        let (right, mut wrong) = (arguments(&allowed_call(7)), arguments(&malformed_call(7)));
        assert_eq!(wrong["limit"], "25");
        wrong["limit"] = json!(25);
        assert_eq!(wrong, right);
        let pinned = &pin()["input_schema"]["properties"];
        let named = right.as_object().unwrap().keys();
        assert!(named.clone().all(|name| pinned[name].is_object()) && named.count() == 4);
    }
}
