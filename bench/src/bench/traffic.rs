//! The one `tools/call` of all measurements, and the requests that check whether a gateway enforces its policy.
//!
//! Owns the bytes. Every variant gets the same request, apart from its credential.

use portcullis_load::SERIAL;

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
        for text in [body, &allowed_call(7), &hidden_call(), ANSWER] {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
    }
}
