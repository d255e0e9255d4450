//! `audit export`: one row an entry, in every form.

use serde_json::Value;

use crate::audit_search::{log, text};
use crate::harness::run;

// Proves: A19
#[test]
fn every_form_has_one_row_for_each_entry_that_matches() {
    let lines = log();
    let input = format!("[info] started\n{}", text(&lines));
    let export = |format: &str, more: &[&str]| {
        let said =
            run(&[&["audit", "export", "-", "--format", format], more].concat(), &[], &input);
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
        said.stdout
    };
    assert_eq!(export("json", &[]), text(&lines));
    let csv = export("csv", &["--status", "denied"]);
    assert!(csv.starts_with("timestamp,org_id,principal,") && csv.ends_with("\r\n"), "{csv}");
    assert_eq!(csv.split("\r\n").filter(|row| !row.is_empty()).count(), 4, "{csv}");
    let cef = export("cef", &["--tool", "pay"]);
    assert_eq!(cef.lines().filter(|row| row.starts_with("CEF:0|Portcullis|")).count(), 3, "{cef}");
    let ocsf = export("ocsf", &[]);
    let events = ocsf.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seqs = events.map(|event| event["metadata"]["sequence"].as_u64().unwrap());
    assert_eq!(seqs.collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

// The parts of a line that an event takes over unread are still one line of JSON.
#[test]
fn white_space_and_invisible_letters_in_a_line_leave_an_event_readable() {
    let line = log()[0].replace("\"input\":{", "\"input\":{\t\"seen\":\t\"a\u{202e}b\"\t,");
    assert!(line.contains('\t'), "{line}");
    let said = run(&["audit", "export", "-", "--format", "ocsf"], &[], &format!("{line}\n"));
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    assert!(said.stdout.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{said:?}");
    let event: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(event["api"]["request"]["data"]["seen"], "a\u{202e}b");
}

#[test]
fn an_export_without_rows_says_so() {
    let said = run(&["audit", "export", "-", "--format", "ocsf"], &[], "");
    assert_eq!((said.status, said.stderr.as_str()), (1, "no entry matches\n"));
    assert_eq!(run(&["audit", "export", "-"], &[], "").status, 2);
    assert_eq!(run(&["audit", "export", "-", "--format", "xml"], &[], "").status, 2);
}
