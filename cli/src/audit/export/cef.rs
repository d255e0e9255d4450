//! Entries in the Common Event Format (CEF:0, ArcSight's implementation standard, version 25).
//!
//! Owns the keys, their lengths and escapes, and the severity of an entry.

use std::net::IpAddr;

use super::{PRODUCT, VERSION};
use crate::audit::entry::Entry;
use crate::escape;

/// The longest `msg` and names.
const LONG: usize = 1_023;
/// The longest custom string.
const CUSTOM: usize = 4_000;

pub(super) fn row(entry: &Entry<'_>) -> String {
    let events = entry.notable_events();
    let class = match events.first() {
        Some(event) => event.as_str(),
        None if !entry.action.is_empty() => &entry.action,
        None => "request",
    };
    let name = match entry.subject() {
        "" => entry.operation().to_owned(),
        subject => format!("{} {subject}", entry.operation()),
    };
    let severity = severity(entry, &events);
    let mut row = format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{VERSION}|{}|{}|{severity}|",
        header(class),
        header(first(&name, 512))
    );
    let mut extension = Extension(&mut row);
    if let Some(time) = entry.time() {
        extension.number("rt", u64::try_from(time.as_millisecond()).ok());
    }
    extension.text("externalId", &entry.request_id, 64);
    extension.text("act", &entry.decision.effect, 63);
    extension.text("outcome", &entry.status, 63);
    extension.text("reason", &entry.decision.rule, LONG);
    extension.address(&entry.client_address);
    extension.text("suid", entry.caller(), LONG);
    let user = if entry.principal.is_empty() { &entry.actor } else { &entry.principal };
    extension.text("suser", user, LONG);
    extension.text("spriv", &entry.role, LONG);
    extension.text("requestMethod", &entry.http_method, LONG);
    extension.text("request", &entry.path, LONG);
    extension.text("requestClientApplication", &entry.user_agent, LONG);
    extension.text("msg", &message(entry, &events), LONG);
    extension.labelled("cs1", "tool", entry.subject(), CUSTOM);
    extension.labelled("cs2", "org", &entry.org_id, CUSTOM);
    extension.labelled("cs3", "mcpMethod", &entry.mcp_method, CUSTOM);
    extension.labelled("cs4", "connector", &entry.connector, CUSTOM);
    extension.labelled("cs5", "input", entry.input.map_or("", |input| input.get()), CUSTOM);
    extension.labelled("cs6", "policyVersion", &entry.policy_version, CUSTOM);
    extension.count("cn1", "latencyMs", entry.latency_ms);
    extension.count("cn2", "rowsReturned", entry.rows_returned);
    extension.count("cn3", "httpStatus", entry.http_status);
    extension.labelled("flexString1", "traceId", &entry.trace_id, LONG);
    let link = entry.seq.map(|seq| format!("{}:{seq}", &*entry.chain)).unwrap_or_default();
    extension.labelled("flexString2", "chainSeq", &link, LONG);
    row.truncate(row.trim_end().len());
    row
}

/// The events of an entry, or the operator's reason for a change.
fn message(entry: &Entry<'_>, events: &[String]) -> String {
    match entry.reason.is_empty() {
        true => events.join(" "),
        false => entry.reason.to_string(),
    }
}

/// From 0 to 10.
fn severity(entry: &Entry<'_>, events: &[String]) -> u8 {
    let event = events.iter().map(|event| match event.as_str() {
        "state_went_back" | "misrouted" => 9,
        "schema_drift" | "policy_unusable" | "secret_unusable" => 7,
        "auth_failed" | "tool_access_denied" | "cool_off_started" => 6,
        "rate_limit_exceeded" | "budget_alert" | "degraded_entered" => 5,
        _ => 3,
    });
    let status = match &*entry.status {
        "denied" => 5,
        "limited" | "error" | "unavailable" => 4,
        "tool_error" | "aborted" => 3,
        _ if !entry.action.is_empty() => 3,
        _ => 1,
    };
    event.max().unwrap_or_default().max(status)
}

struct Extension<'a>(&'a mut String);

impl Extension<'_> {
    fn text(&mut self, key: &str, text: &str, longest: usize) {
        if !text.is_empty() {
            self.0.extend([key, "=", &value(first(text, longest)), " "]);
        }
    }

    fn number(&mut self, key: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.0.extend([key, "=", &number.to_string(), " "]);
        }
    }

    fn labelled(&mut self, key: &str, label: &str, text: &str, longest: usize) {
        if !text.is_empty() {
            self.text(key, text, longest);
            self.0.extend([key, "Label=", label, " "]);
        }
    }

    fn count(&mut self, key: &str, label: &str, number: Option<u64>) {
        if number.is_some() {
            self.number(key, number);
            self.0.extend([key, "Label=", label, " "]);
        }
    }

    /// CEF:0 allows only IPv4 in `src`.
    fn address(&mut self, address: &str) {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self.text("src", address, LONG),
            Ok(IpAddr::V6(_)) => self.labelled("c6a2", "Source IPv6 Address", address, LONG),
            Err(_) => self.text("shost", address, LONG),
        }
    }
}

/// A field of the header: backslash and pipe are escaped.
fn header(text: &str) -> String {
    escape::line(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// A value of the extension: backslash and equals sign are escaped; line ends are written as `\n`.
fn value(text: &str) -> String {
    let lines = text.replace("\r\n", "\n");
    let lines = lines
        .split(['\n', '\r'])
        .map(|line| escape::line(line).replace('\\', "\\\\").replace('=', "\\="));
    lines.collect::<Vec<_>>().join("\\n")
}

fn first(text: &str, letters: usize) -> &str {
    text.char_indices().nth(letters).map_or(text, |(at, _)| text.get(..at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn of(line: &str) -> String {
        row(&Entry::read(line.as_bytes()).unwrap().0)
    }

    // Proves: A19
    #[test]
    fn a_row_has_header_and_extension() {
        assert_eq!(
            of(&samples::stranger()),
            format!(
                "CEF:0|Portcullis|Portcullis|{VERSION}|auth_failed|PROPFIND|6|rt=1795860001000 externalId=r2 act=deny \
                 outcome=denied reason=auth.missing c6a2=2001:db8::1 c6a2Label=Source IPv6 Address \
                 requestMethod=PROPFIND request=/x msg=auth_failed cn1=0 cn1Label=latencyMs cn3=401 \
                 cn3Label=httpStatus flexString2=worker:1 flexString2Label=chainSeq"
            )
        );
        let full = of(&samples::full());
        assert!(full.contains("|tool_access_denied|tools/call query_users|6|rt="), "{full}");
        assert!(full.contains("suser=\\=cmd|' /C calc'!A0 "), "{full}");
        assert!(
            full.contains(r#"cs5={"note":"a\=b|c\\\\d \\"q\\"\\nnext, last"} cs5Label=input"#),
            "{full}"
        );
        let action = of(&samples::action());
        assert!(
            action.contains("|key.rotate|key.rotate|3|") && action.contains("suser=alice"),
            "{action}"
        );
    }

    #[test]
    fn what_delimits_is_escaped_and_lines_stay_whole() {
        assert_eq!(header("a|b\\c\nd"), "a\\|b\\\\c\\\\nd");
        assert_eq!(value("a=b|c\\d\r\ne\u{202e}"), "a\\=b|c\\\\d\\ne\\\\u{202e}");
        assert_eq!(first("äöü", 2), "äö");
        let mut text = String::new();
        Extension(&mut text).labelled("cs1", "tool", &"x".repeat(5_000), CUSTOM);
        assert_eq!(text.len(), 4_000 + "cs1= cs1Label=tool ".len());
    }
}
