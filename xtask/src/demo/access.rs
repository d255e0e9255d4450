//! Authentication: a working key, and all the ways to lack one.

use super::guide::Guide;
use super::notes::Notes;
use super::tour::{Group, TourStep};
use crate::failure::Result;
use serde_json::{Value, json};

pub(crate) const GROUP: Group = Group {
    title: "Who gets in",
    steps: &[
        TourStep {
            title: "An allowed call returns real rows, through an unmodified MCP client",
            walk: allowed,
        },
        TourStep { title: "Without a key: 401 with a challenge", walk: anonymous },
        TourStep { title: "With a mistyped key: 401, told apart in the challenge", walk: mistyped },
        TourStep { title: "A third-party server behind the same gateway", walk: third_party },
    ],
};

fn allowed(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let stack = guide.stack;
    let arguments = ["call", "query_users", r#"{"limit": 3}"#];
    let document = guide.python_client(&stack.mcp_url(), &stack.analyst.key, &arguments, notes)?;
    let rows = document.pointer("/result/structuredContent/rows").and_then(Value::as_array);
    notes.expect(
        "three rows out of the connector's database",
        rows.is_some_and(|rows| rows.len() == 3),
    );
    let named = |row: &Value| row.get("email").is_some_and(Value::is_string);
    notes.expect("an e-mail address in each", rows.is_some_and(|rows| rows.iter().all(named)));
    Ok(())
}

fn anonymous(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let answer = guide.call_anonymously("query_users", notes)?;
    notes.expect("status 401", answer.status() == 401);
    notes.expect("code -31401", answer.code() == -31401);
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    notes.expect("a Bearer challenge without an error: nothing was presented", {
        challenge.starts_with("Bearer") && !challenge.contains("error=")
    });
    Ok(())
}

fn mistyped(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    // The last character is part of the check digits.
    let key = &guide.stack.analyst.key;
    let (rest, last) = key.split_at(key.len().saturating_sub(1));
    let other = if last == "0" { "1" } else { "0" };
    let answer = guide.call(&format!("{rest}{other}"), "query_users", json!({}), notes)?;
    notes.expect("status 401", answer.status() == 401);
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    notes.expect(
        "error=\"invalid_token\" in the challenge",
        challenge.contains("error=\"invalid_token\""),
    );
    Ok(())
}

fn third_party(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let stack = guide.stack;
    let url = stack.python_mcp_url();
    let document = guide.python_client(
        &url,
        &stack.analyst.key,
        &["call", "add", r#"{"a": 2, "b": 40}"#],
        notes,
    )?;
    let text = document.pointer("/result/content/0/text").and_then(Value::as_str);
    notes.expect("the sum, 42", text == Some("42"));
    let listed = guide.python_client(&url, &stack.analyst.key, &["list"], notes)?;
    notes.expect("`secrets`, which shows the server's environment, to be hidden", {
        super::tools::names(&listed) == ["add", "echo"]
    });
    Ok(())
}
