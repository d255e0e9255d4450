//! `audit report`: what a weekly review sees.

use portcullis_core::audit::{AuditEvent, Chain, Decision, Entry};

use crate::audit_search::{log, text};
use crate::harness::{Scratch, run};

/// Requests of a week later: a new tool at night, a budget, drift, and a name that is markup.
fn week() -> String {
    let mut chain = Chain::new("other".into());
    let base = Entry {
        org_id: Some("acme".into()),
        api_key_id: Some("k1".into()),
        principal: Some("cursor".into()),
        mcp_method: Some("tools/call".into()),
        status: "success",
        decision: Decision { effect: "allow", rule: String::new() },
        latency_ms: 40,
        ..Entry::default()
    };
    let night = Entry {
        timestamp: "2026-12-07T02:00:00.000000Z".into(),
        tool_name: Some("<script>alert(1)</script>".into()),
        status: "tool_error",
        events: vec![
            AuditEvent::BudgetAlert { limit: "month".into(), used: 81, of: 100 },
            AuditEvent::SchemaDrift {
                connector: "crm".into(),
                tool: "pay".into(),
                kind: "changed",
                action: "hide",
            },
        ],
        ..base.clone()
    };
    let day = Entry {
        timestamp: "2026-12-07T10:00:00.000000Z".into(),
        tool_name: Some("list".into()),
        ..base
    };
    // Who is refused has not used it.
    let refused = Entry {
        timestamp: "2026-12-07T11:00:00.000000Z".into(),
        tool_name: Some("wipe".into()),
        status: "denied",
        decision: Decision { effect: "deny", rule: "default".to_owned() },
        ..day.clone()
    };
    text(&[chain.append(&night), chain.append(&day), chain.append(&refused)])
}

// Proves: C11
#[test]
fn a_review_sees_what_is_new_odd_slow_refused_and_nearly_used_up() {
    let input = text(&log()) + &week();
    let page = Scratch::nowhere("report.html");
    let said = run(
        &[
            "audit",
            "report",
            "-",
            "--since",
            "2026-12-01T00:00:00Z",
            "--html",
            page.path(),
            "--output",
            "json",
        ],
        &[],
        &input,
    );
    let report = said.json();
    assert_eq!(
        (&report["requests"], &report["earlier_entries"]),
        (&3.into(), &10.into()),
        "{report:#}"
    );
    // The tool that it used a week before is not new; one that it was refused is none that it used.
    assert_eq!(report["first_uses_total"], 1);
    assert_eq!(report["first_uses"][0]["tool"], "<script>alert(1)</script>");
    assert_eq!((&report["outside_hours"], &report["hours"][0][2]), (&1.into(), &1.into()));
    let caller = &report["callers"][0];
    assert_eq!((&caller["caller"], &caller["calls"]), (&"acme/cursor (k1)".into(), &3.into()));
    assert_eq!(report["limits"][0]["used"], 81);
    assert_eq!(report["drift"][0]["drift"], "crm/pay: changed, hide");
    assert_eq!(report["failing"][0]["failed_percent"], 100.0);
    assert_eq!(report["slowest"][0]["p95_ms"], 40);

    let page = std::fs::read_to_string(page.path()).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"));
    assert!(page.contains("<svg") && page.ends_with("</body></html>\n"));
    for elsewhere in ["http://", "https://", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }

    let plainly = run(&["audit", "report", "-"], &[], &input);
    assert_eq!((plainly.status, plainly.stderr.as_str()), (0, ""));
    for part in
        ["TOP CALLERS", "tool.blocked", "SLOWEST TOOLS", "so every tool is new", "month of acme"]
    {
        assert!(plainly.stdout.contains(part), "{part}: {plainly:?}");
    }
}

#[test]
fn a_report_about_nothing_says_so() {
    let said = run(&["audit", "report", "-"], &[], "");
    assert_eq!((said.status, said.stdout.as_str()), (1, "no entry matches\n"));
    assert_eq!(run(&["audit", "report", "-", "--hours", "19-7"], &[], "").status, 2);
    let nowhere =
        run(&["audit", "report", "-", "--html", "/nosuch/x.html", "--output", "json"], &[], "");
    assert_eq!(nowhere.unanswered()["where"], "/nosuch/x.html");
}

/// A call in the log of a gateway.
fn call(gateway: &mut Chain, time: &str, tool: &str) -> String {
    gateway.append(&Entry {
        timestamp: time.into(),
        org_id: Some("acme".into()),
        api_key_id: Some("k1".into()),
        mcp_method: Some("tools/call".into()),
        tool_name: Some(tool.into()),
        status: "success",
        decision: Decision { effect: "allow", rule: String::new() },
        ..Entry::default()
    })
}

/// Two gateways that work at the same time have a log each: one began earlier, the other ended earlier.
fn logs_of_two_gateways() -> (Scratch, Scratch) {
    let (mut a, mut b) = (Chain::new("a".into()), Chain::new("b".into()));
    let of_a = [
        call(&mut a, "2026-11-01T10:00:00.000000Z", "old"),
        call(&mut a, "2026-12-06T10:00:00.000000Z", "used_before_on_b"),
        call(&mut a, "2026-12-07T12:00:00.000000Z", "new"),
    ];
    let of_b = [
        call(&mut b, "2026-11-02T10:00:00.000000Z", "old"),
        call(&mut b, "2026-11-09T10:00:00.000000Z", "used_before_on_b"),
        call(&mut b, "2026-12-07T09:00:00.000000Z", "new"),
    ];
    (Scratch::new("a.jsonl", &text(&of_a)), Scratch::new("b.jsonl", &text(&of_b)))
}

// Proves: C11
#[test]
fn what_one_of_two_gateways_saw_before_is_not_new() {
    let (a, b) = logs_of_two_gateways();
    for files in [[a.path(), b.path()], [b.path(), a.path()]] {
        let report = ["--since", "2026-12-01T00:00:00Z", "--output", "json"];
        let report = run(&[&["audit", "report"], &files[..], &report].concat(), &[], "").json();
        assert_eq!(report["first_uses_total"], 1, "{report:#}");
        assert_eq!(report["first_uses"].as_array().unwrap().len(), 1);
        assert_eq!(report["first_uses"][0]["tool"], "new");
        assert_eq!(report["first_uses"][0]["time"], "2026-12-07T09:00:00.000000Z");
    }
}

#[test]
fn the_last_entries_of_two_gateways_are_the_newest_ones() {
    let (a, b) = logs_of_two_gateways();
    for files in [[a.path(), b.path()], [b.path(), a.path()]] {
        let tail = ["-n", "3", "--output", "json"];
        let said = run(&[&["audit", "tail"], &files[..], &tail].concat(), &[], "");
        let times =
            said.stdout.lines().map(|line| line[line.find("2026-").unwrap()..][..13].to_owned());
        assert_eq!(times.collect::<Vec<_>>(), ["2026-12-06T10", "2026-12-07T09", "2026-12-07T12"]);
    }
}
