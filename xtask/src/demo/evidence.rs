//! The evidence: which credential reached the connector, the audit entries, and that no entry is missing.

use super::guide::{Guide, abridged};
use super::notes::Notes;
use super::tour::{Group, TourStep};
use crate::failure::{Failure, Result};
use portcullis_stack::{CREDENTIAL_FIELD, CREDENTIAL_PATH, ready};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

pub(crate) const GROUP: Group = Group {
    title: "What is left to show",
    steps: &[
        TourStep {
            title: "The server saw the credential from Vault, and never the client's key",
            walk: credential,
        },
        TourStep { title: "OpenBao's own audit knows who read the credential", walk: fetches },
        TourStep { title: "One command looks at everything", walk: healthy },
        TourStep { title: "Every request has its audit line", walk: complete },
        TourStep { title: "The chain of audit lines is whole", walk: chained },
    ],
};

/// Envoy writes lines within 100 ms; the rest allows for a busy machine.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

fn credential(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let stack = guide.stack;
    let key = &stack.analyst.key;
    guide.call(key, "query_users", json!({"limit": 1}), notes)?;
    let secret =
        stack.openbao.call("GET", &format!("secret/data/{CREDENTIAL_PATH}"), &Value::Null)?.json();
    let secret = secret.pointer(&format!("/data/data/{CREDENTIAL_FIELD}")).and_then(Value::as_str);
    let expected = format!("Bearer {}", secret.unwrap_or_default());
    let recorded = stack.connector.recorded();
    let last = recorded.last().ok_or_else(|| Failure::new("the connector to have a record"))?;
    let pairs = last.get("headers").and_then(Value::as_array).cloned().unwrap_or_default();
    let values = |wanted: &str| -> Vec<String> {
        let of = |pair: &Value, at: usize| {
            pair.get(at).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        pairs.iter().filter(|pair| of(pair, 0) == wanted).map(|pair| of(pair, 1)).collect()
    };
    let credentials: Vec<String> =
        values("authorization").iter().map(|value| abridged(value)).collect();
    notes.came(format!("the connector saw  authorization: {}", credentials.join(", ")));
    for name in ["x-portcullis-org", "x-portcullis-principal", "x-portcullis-request-id"] {
        notes.came(format!("the connector saw  {name}: {}", values(name).join(", ")));
    }
    notes.expect("the credential from OpenBao, once", values("authorization") == [expected]);
    let seen = serde_json::to_string(&recorded).unwrap_or_default();
    notes.expect(
        "no key of a client in anything the connector ever received",
        !seen.contains("pck_"),
    );
    Ok(())
}

fn fetches(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let openbao = &guide.stack.openbao;
    let log = fs::read_to_string(openbao.audit_log()).unwrap_or_default();
    let reads = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| {
            entry.pointer("/request/path") == Some(&json!(format!("secret/data/{CREDENTIAL_PATH}")))
        })
        .filter(|entry| entry.pointer("/auth/display_name") == Some(&json!("token-portcullis")))
        .filter(|entry| entry.get("type") == Some(&json!("response")))
        .count();
    notes.sent(format!("grep {CREDENTIAL_PATH} {}", openbao.audit_log().display()));
    notes.came(format!(
        "{reads} reads by the gateway's token: cached per worker, not fetched per call"
    ));
    notes
        .expect("at least one read, and far fewer than there were calls", (1..=8).contains(&reads));
    Ok(())
}

fn healthy(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let (envoy, vault) = (guide.stack.envoy.admin_url(), guide.stack.openbao.url());
    let healthy = guide.operator(&["doctor", "--envoy-admin", &envoy, "--vault", &vault], notes)?;
    notes.expect("portcullis doctor to find nothing bad", healthy);
    Ok(())
}

fn complete(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let envoy = &guide.stack.envoy;
    notes.sent("Envoy's own count of requests (http.gateway.downstream_rq_total), and the lines of the audit log");
    let lines = || fs::read_to_string(envoy.audit_log()).unwrap_or_default().lines().count() as u64;
    let requests = requests(guide)?;
    // More than one line per request would be as wrong as fewer; this waits for the last lines.
    let settled = ready::eventually("a line per request", WRITTEN_WITHIN, || {
        (lines() >= requests).then_some(())
    });
    notes.came(format!("{requests} requests, {} audit lines", lines()));
    notes.expect("as many lines as requests", settled.is_ok() && lines() == requests);
    Ok(())
}

fn requests(guide: &Guide<'_>) -> Result<u64> {
    let stat = "http.gateway.downstream_rq_total";
    let page = guide.stack.envoy.admin(&format!("stats?filter=^{stat}$"))?.text();
    let count =
        page.lines().find_map(|line| line.strip_prefix(stat)?.strip_prefix(": ")?.parse().ok());
    count.ok_or_else(|| Failure::new(format!("Envoy's counter {stat}, found {page:?}")))
}

fn chained(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let log = guide.stack.envoy.audit_log().display().to_string();
    let last =
        fs::read_to_string(&log).unwrap_or_default().lines().last().unwrap_or_default().to_owned();
    notes.came(format!("the last line: {last}"));
    let whole = guide.operator(&["audit", "verify", &log], notes)?;
    notes.expect("portcullis audit verify to find nothing wrong", whole);
    let tampered = guide.stack.dir().join("tampered.jsonl");
    let text =
        fs::read_to_string(&log).unwrap_or_default().replacen("\"denied\"", "\"success\"", 1);
    fs::write(&tampered, text)
        .map_err(|error| Failure::new(format!("a tampered copy: {error}")))?;
    let tampered = tampered.display().to_string();
    notes.sent("one refusal turned into a success in a copy");
    let accepted = guide.operator(&["audit", "verify", &tampered], notes)?;
    notes.expect("the edit to be found", !accepted);
    Ok(())
}
