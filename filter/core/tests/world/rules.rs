//! Policies with rules about single calls: `rules` enforces them, `trial` has all of them in shadow mode.

use portcullis_redis_lua::ScriptCall;
use serde_json::{Value, json};

pub(crate) fn document(name: &str) -> Option<Value> {
    let mut document = json!({
        "version": 1, "organisations": ["acme"],
        "connectors": {"open": {
            "path": "/open/mcp",
            "tools": {
                "query_users": {"read_only": true, "max_records": {"argument": "limit", "max": 50}},
                "export": {"read_only": true,
                    "max_records": {"argument": "rows", "max": 100, "on_excess": "refuse"}},
                "transfer": {
                    "conditions": [
                        {"when": "arguments.amount <= 100", "message": "At most 100 per transfer"},
                        {"when": "inRange(source.address, '192.0.2.0/24')"}],
                    "approval": {"expires": "10m"}},
                "report": {"read_only": true}
            },
            "conditions": [{"tools": ["report"], "when": "time.hour < 22",
                "message": "Reports are made by day"}]
        }},
        "roles": {"analyst": {
            "open": {"allow": ["*"], "deny": ["drop_*"], "show": ["create_*"],
                "prompts": {"allow": ["*"], "deny": ["secret_*"]},
                "resources": {"allow": ["note://*"], "deny": ["note://secret/*"]}},
            "conditions": [{"tools": ["query_*"], "when": "principal.tier != 'paid'"}]}},
        "tiers": {"free": {"limits": {}}}
    });
    match name {
        "rules" => {}
        // A header repeats the argument that is capped.
        "mirrored" | "repeated" => {
            document["connectors"]["open"]["unpinned"] = json!("allow");
            document["connectors"]["open"]["tools"]["query_users"]["input_schema"] = json!({
                "type": "object", "properties": {"limit": {"type": "integer", "x-mcp-header": "Limit"}}
            });
        }
        "reader" => document["roles"]["analyst"]["allow_write"] = json!(false),
        "trial" => {
            document["enforcement"] = json!("shadow");
            document["tiers"]["free"]["limits"] = json!({"calls": {"limit": 5, "window": "1s"}});
        }
        // The same caps as `rules`.
        "capped" => {}
        _ => return None,
    }
    if let "capped" | "repeated" = name {
        document["tiers"]["free"]["limits"] = json!({"calls": {"limit": 5, "window": "1s"}});
    }
    Some(document)
}

/// A script about an approval, without the digest of the waiting call.
pub(crate) fn approval(call: &ScriptCall) -> String {
    let args = call.args.iter().skip(1).map(|arg| String::from_utf8_lossy(arg));
    let args: Vec<_> = args.map(|arg| without_digest(&arg)).collect();
    format!("{} {}", call.script.name, args.join(" ")).trim_end().to_owned()
}

/// The waiting call, without its digest.
fn without_digest(document: &str) -> String {
    let Ok(mut waiting) = serde_json::from_str::<Value>(document) else {
        return document.to_owned();
    };
    let digest = waiting.as_object_mut().and_then(|members| members.remove("digest"));
    assert!(digest.is_some() || waiting.is_number(), "{document}");
    waiting.to_string()
}
