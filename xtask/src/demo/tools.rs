//! The tools: allowed, shown but refused, and hidden.

use super::guide::{Answer, Guide};
use super::notes::Notes;
use super::tour::{Group, TourStep};
use crate::failure::Result;
use serde_json::{Value, json};

pub(crate) const GROUP: Group = Group {
    title: "Which tools exist for whom",
    steps: &[
        TourStep { title: "The list of tools depends on the role", walk: lists },
        TourStep { title: "A hidden tool answers as if it did not exist", walk: hidden },
        TourStep { title: "A visible tool that the role may not use: 403", walk: forbidden },
        TourStep { title: "Another role may", walk: permitted },
    ],
};

/// Names in the result of a `tools/list`, sorted.
pub(crate) fn names(document: &Value) -> Vec<&str> {
    let tools = document.pointer("/result/tools").and_then(Value::as_array);
    let mut names: Vec<&str> =
        tools.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str()).collect();
    names.sort_unstable();
    names
}

fn lists(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let analyst = guide.list(&guide.stack.analyst.key, notes)?.reply.json();
    let admin = guide.list(&guide.stack.admin.key, notes)?.reply.json();
    notes.came(format!("analyst: {}", names(&analyst).join(", ")));
    notes.came(format!("admin:   {}", names(&admin).join(", ")));
    let common = ["create_note", "get_dashboard_metrics", "query_users", "search_contacts"];
    notes.expect("an analyst to see four tools", names(&analyst) == common);
    notes.expect("an admin to see delete_user as well", {
        names(&admin).contains(&"delete_user")
            && common.iter().all(|name| names(&admin).contains(name))
    });
    Ok(())
}

fn hidden(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let key = &guide.stack.analyst.key;
    let before = guide.stack.connector.recorded().len();
    let hidden = guide.call(key, "delete_user", json!({"id": 1}), notes)?;
    let missing = guide.call(key, "no_such_tool", json!({}), notes)?;
    notes.expect("status 200 and code -32602", hidden.status() == 200 && hidden.code() == -32602);
    notes.expect("Unknown tool: delete_user", hidden.message() == "Unknown tool: delete_user");
    notes.expect("the same answer for a tool that is not there at all", {
        missing.message() == "Unknown tool: no_such_tool" && headers(&missing) == headers(&hidden)
    });
    nothing_arrived(guide, before, notes);
    Ok(())
}

fn forbidden(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let before = guide.stack.connector.recorded().len();
    let note = json!({"title": "Hello", "body": "from the tour"});
    let answer = guide.call(&guide.stack.analyst.key, "create_note", note, notes)?;
    notes.expect("status 403 and code -31403", answer.status() == 403 && answer.code() == -31403);
    notes.expect("no challenge: another credential of the same role would not help", {
        answer.header("www-authenticate").is_none()
    });
    nothing_arrived(guide, before, notes);
    Ok(())
}

fn permitted(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let note = json!({"title": "Hello", "body": "from the tour"});
    let answer = guide.call(&guide.stack.support.key, "create_note", note, notes)?;
    notes.expect("status 200", answer.status() == 200);
    notes.expect("the note that was written", {
        answer.reply.json().pointer("/result/structuredContent/rows/0/title")
            == Some(&json!("Hello"))
    });
    Ok(())
}

fn nothing_arrived(guide: &Guide<'_>, before: usize, notes: &mut Notes) {
    let arrived = guide.stack.connector.recorded().len().saturating_sub(before);
    notes.came(format!("requests that reached the connector: {arrived}"));
    notes.expect("the connector to have received nothing", arrived == 0);
}

/// Header names only: values contain times and ids.
fn headers(answer: &Answer) -> Vec<&str> {
    answer.reply.headers.iter().map(|(name, _)| name.as_str()).collect()
}
