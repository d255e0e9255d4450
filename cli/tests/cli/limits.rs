//! `limits`: what a key has drawn, and forgetting it. Draws are made as the filter makes them: by the
//! admission script, from the windows that the core says.

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::{OrgId, PolicyName};
use portcullis_core::json;
use portcullis_core::limit::Called;
use portcullis_core::policy;
use portcullis_redis_lua::{Admit, AdmitReply, Key, Window};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, issue, record};
use crate::valkey;

const POLICY: &str = r#"{
    "version": 1, "organisations": ["acme"],
    "connectors": {"demo": {"path": "/demo/mcp", "tools": {"query_users": {"price": 30}}}},
    "roles": {"analyst": {"demo": {"allow": ["*"]}}, "admin": {"demo": {"allow": ["*"]}}},
    "tiers": {"free": {"limits": {
        "calls": {"limit": 50, "window": "1h"},
        "day": {"limit": 100, "window": "1d", "cost": "credits"}}}, "pro": {"limits": {}}},
    "limits": {
        "all": {"limit": 1000000, "window": "1h", "per": ["global"]},
        "company": {"limit": 70, "window": "30d", "per": ["org"], "cost": "credits", "alert": 40},
        "storm": {"limit": 9, "window": "1h", "per": ["key", "tool"]},
        "admins": {"limit": 3, "window": "1h", "per": ["role"], "match": {"roles": ["admin"]}}}}"#;

/// An operator, and two keys in their order.
fn operator() -> (Operator, [String; 2]) {
    let operator = Operator::new();
    let policy = Scratch::new("limits.json", POLICY);
    operator.says(&["policy", "push", policy.path(), "--reason", "start"]).json();
    let id = || issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let ids = [id(), id()];
    (operator, ids)
}

/// A call of `tool` with the key `id`, as far as Redis sees it; whether it was admitted.
fn call(operator: &Operator, id: &str, tool: &str) -> bool {
    call_of(operator, &record(operator, "acme", id).1.principal(), tool)
}

fn call_of(operator: &Operator, principal: &Principal, tool: &str) -> bool {
    call_by(POLICY, operator, principal, tool)
}

fn call_by(policy: &str, operator: &Operator, principal: &Principal, tool: &str) -> bool {
    let policy = policy::compile(&json::parse_strict(policy.as_bytes()).unwrap()).unwrap();
    let connector = PolicyName::new("demo").unwrap();
    let quotas =
        Called { connector: &connector, method: "tools/call", tool, opens: false, bytes: 1 }
            .quotas(&policy, principal);
    let windows = quotas.into_iter().map(|quota| quota.window).collect();
    let admit = Admit { guards: vec![], windows, used: None, intent: None };
    let reply = valkey::run(&mut operator.redis(), &admit.call());
    matches!(admit.decode(reply).unwrap(), AdmitReply::Admitted(_))
}

/// Rows are charged after the answer, also where the window has less left.
#[test]
fn an_overdrawn_window_is_shown_with_all_that_is_used() {
    let (operator, [id, _]) = operator();
    assert!(call(&operator, &id, "query_users"));
    let principal = record(&operator, "acme", &id).1.principal();
    let policy = policy::compile(&json::parse_strict(POLICY.as_bytes()).unwrap()).unwrap();
    let connector = PolicyName::new("demo").unwrap();
    let tool = "query_users";
    let quotas =
        Called { connector: &connector, method: "tools/call", tool, opens: false, bytes: 1 }
            .quotas(&policy, &principal);
    let day = quotas.into_iter().find(|quota| quota.name == "tiers.free.day").unwrap().window;
    valkey::run(&mut operator.redis(), &Window::overdraw(vec![Window { cost: 95, ..day }]));
    let shown = operator.says(&["limits", "show", &id]).json();
    let day = |windows: &Value| {
        let windows = windows.as_array().unwrap();
        windows.iter().find(|it| it["limit"] == "tiers.free.day").unwrap().clone()
    };
    let window = day(&shown["windows"]);
    assert_eq!((&window["used"], &window["remaining"]), (&json!(125), &json!(0)), "{window}");
    assert_eq!(window["percent"], 125);
    let listed = day(&operator.says(&["limits", "list", "--over", "100"]).json()["windows"]);
    assert_eq!((&listed["used"], &listed["percent"]), (&json!(125), &json!(125)), "{listed}");
    let reset = operator.says(&["limits", "reset", &id, "--limit", "day", "--reason", "r"]).json();
    assert_eq!(day(&reset["reset"])["used"], 125);
}

fn used(shown: &Value) -> Vec<(String, u64)> {
    let windows = shown["windows"].as_array().unwrap().iter();
    windows
        .map(|window| {
            let tool = window["of"].get("tool").and_then(Value::as_str);
            let name = window["limit"].as_str().unwrap();
            let name = tool.map_or(name.to_owned(), |tool| format!("{name} {tool}"));
            (name, window["used"].as_u64().unwrap())
        })
        .collect()
}

fn named(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect()
}

// Proves: X9
#[test]
fn show_tells_every_window_that_a_key_draws_from() {
    let (operator, [id, other]) = operator();
    let show = |id: &str| operator.says(&["limits", "show", id]).json();
    let untouched = [
        ("tiers.free.calls", 0),
        ("tiers.free.day", 0),
        ("limits.all", 0),
        ("limits.company", 0),
        ("sessions.per_caller", 0),
    ];
    assert_eq!(used(&show(&id)), named(&untouched));

    assert!(call(&operator, &id, "query_users") && call(&operator, &id, "echo"));
    assert!(call(&operator, &other, "query_users"));
    let shown = show(&id);
    assert_eq!(
        used(&shown),
        named(&[
            ("tiers.free.calls", 2),
            ("tiers.free.day", 31),
            ("limits.all", 3),
            ("limits.company", 61),
            ("limits.storm query_users", 1),
            // The policy does not name `echo`.
            ("limits.storm ~32", 1),
            ("sessions.per_caller", 0),
        ])
    );
    let of_sessions = &shown["windows"][6];
    assert_eq!(of_sessions["unit"], "sessions", "{of_sessions}");
    let company = &shown["windows"][3];
    assert_eq!((&company["remaining"], &company["max"]), (&json!(9), &json!(70)));
    assert_eq!((&company["unit"], &company["alert_at"]), (&json!("credits"), &json!(28)));
    assert_eq!((&company["of"], &company["shared"]), (&json!({"org": "acme"}), &json!(true)));
    assert_eq!(company["window_ms"], 30 * 86_400_000_u64);
    let next_back = company["next_back_ms"].as_u64().unwrap();
    assert!(next_back > 30 * 86_400_000 - 60_000 && next_back <= 30 * 86_400_000, "{next_back}");

    let table = operator.plainly(&["limits", "show", &id]).stdout;
    for cell in
        ["tiers.free.day", "everybody", "org acme", "tool query_users", "30d", "UNITS BACK IN"]
    {
        assert!(table.contains(cell), "{cell} in\n{table}");
    }
    let company = table.lines().find(|line| line.starts_with("limits.company")).unwrap();
    let cells: Vec<&str> = company.split_whitespace().collect();
    // 61 of 70, in per cent, and what is left.
    assert!(cells.windows(4).any(|cells| cells == ["61", "70", "87", "9"]), "{table}");
    let sessions = table.lines().find(|line| line.starts_with("sessions.per_caller")).unwrap();
    assert!(sessions.split_whitespace().any(|cell| cell == "sessions"), "{table}");
    let refusal = operator.says(&["limits", "show", "nosuchkey1"]).refusal();
    assert_eq!(refusal["found"], "there is no key nosuchkey1");
}

// Proves: C7
#[test]
fn reset_forgets_what_is_the_keys_own_and_says_so_in_the_admin_chain() {
    let (operator, [id, other]) = operator();
    let reset = |more: &[&str]| {
        operator.says(&[&["limits", "reset", &id, "--reason", "paid"], more].concat())
    };
    assert_eq!(reset(&[]).json()["changed"], false);

    assert!(call(&operator, &id, "query_users") && call(&operator, &other, "query_users"));
    assert!(!call(&operator, &id, "query_users"), "the company has 10 credits left");
    let done = reset(&[]).json();
    assert_eq!(done["changed"], true);
    let windows = |id: &str| used(&operator.says(&["limits", "show", id]).json());
    assert_eq!(
        windows(&id),
        named(&[
            ("tiers.free.calls", 0),
            ("tiers.free.day", 0),
            ("limits.all", 2),
            ("limits.company", 60),
            ("sessions.per_caller", 0),
        ])
    );
    assert_eq!(windows(&other)[1], ("tiers.free.day".to_owned(), 30), "another key's is left");
    assert!(!call(&operator, &id, "query_users"), "and what everybody shares");

    assert_eq!(reset(&["--limit", "limits.company"]).json()["changed"], true);
    assert_eq!(windows(&other)[3], ("limits.company".to_owned(), 0));
    assert!(call(&operator, &id, "query_users"));
    let keys: Vec<String> = operator.redis().keys("*:mark:limits.company*").unwrap();
    assert_eq!(keys.len(), 1, "the alert of the new count was raised");

    let refusal = reset(&["--limit", "limits.admins"]).refusal();
    assert_eq!(
        refusal["found"],
        format!("nothing is drawn from a limit limits.admins by key {id}")
    );

    let lines: Vec<String> = operator.redis().lrange(Key::admin("acme").as_str(), 0, -1).unwrap();
    let entries = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let resets: Vec<Value> = entries.filter(|entry| entry["action"] == "limits.reset").collect();
    assert_eq!(resets.len(), 2, "{resets:?}");
    assert_eq!(
        resets[0]["changes"],
        json!({
            "tiers.free.calls": {"from": 1, "to": 0},
            "tiers.free.day": {"from": 30, "to": 0},
            "limits.storm tool=query_users": {"from": 1, "to": 0},
        })
    );
    assert_eq!((&resets[0]["api_key_id"], &resets[0]["reason"]), (&json!(id), &json!("paid")));
    assert_eq!(resets[1]["changes"], json!({"limits.company": {"from": 60, "to": 0}}));
    let verified = operator.says(&["audit", "verify", "--admin"]).json();
    assert_eq!(verified["intact"], true);
}

/// A caller with a token or a certificate.
fn caller(identity: IdentityKind) -> Principal {
    Principal {
        org: OrgId::new("acme").unwrap(),
        identity: identity.into(),
        name: "agent".to_owned(),
        role: PolicyName::new("analyst").unwrap(),
        tier: PolicyName::new("free").unwrap(),
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    }
}

// Proves: X9, C7
#[test]
fn callers_without_a_key_are_named_as_in_the_audit_log() {
    let (operator, _) = operator();
    let issuer = "https://idp.example".to_owned();
    let token = caller(IdentityKind::Token { issuer, subject: "agent-1".into() });
    let certificate = caller(IdentityKind::Certificate("agent-1".into()));
    assert!(call_of(&operator, &token, "query_users") && call_of(&operator, &token, "echo"));
    assert!(call_of(&operator, &certificate, "echo"));

    let mapped = ["--org", "acme", "--role", "analyst", "--tier", "free"];
    let subject = ["--subject", "agent-1", "--issuer", "https://idp.example"];
    let shown = |who: &[&str]| {
        operator.says(&[&["limits", "show"], who, mapped.as_slice()].concat()).json()
    };
    let of_subject = shown(&subject);
    assert_eq!(
        (&of_subject["subject"], &of_subject["issuer"]),
        (&json!("agent-1"), &json!("https://idp.example"))
    );
    assert_eq!(
        used(&of_subject),
        named(&[
            ("tiers.free.calls", 2),
            ("tiers.free.day", 31),
            ("limits.all", 3),
            ("limits.company", 32),
            ("limits.storm query_users", 1),
            // The policy does not name `echo`.
            ("limits.storm ~32", 1),
            ("sessions.per_caller", 0),
        ])
    );
    let of_certificate = shown(&["--certificate", "agent-1"]);
    assert_eq!(of_certificate["certificate"], "agent-1");
    assert_eq!(used(&of_certificate)[0], ("tiers.free.calls".to_owned(), 1), "another caller");

    let reset = [&["limits", "reset", "--reason", "paid"], subject.as_slice(), &mapped].concat();
    assert_eq!(operator.says(&reset).json()["changed"], true);
    assert_eq!(used(&shown(&subject))[0], ("tiers.free.calls".to_owned(), 0));
    assert_eq!(used(&shown(&["--certificate", "agent-1"]))[0].1, 1, "theirs is left");
    let chain = Key::admin("acme");
    let last: String = operator.redis().lindex(chain.as_str(), -1).unwrap();
    let entry: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&entry["action"], &entry["client_id"]),
        (&json!("limits.reset"), &json!("agent-1"))
    );
    assert_eq!(entry.get("api_key_id"), None);
    assert_eq!(operator.says(&["audit", "verify", "--admin"]).json()["intact"], true);
}

#[test]
fn a_caller_without_a_key_needs_a_role_and_a_tier_of_the_policy() {
    let (operator, [id, _]) = operator();
    let show = |more: &[&str]| operator.says(&[&["limits", "show"], more].concat());
    for incomplete in [
        &[][..],
        &["--subject", "a"],
        &["--subject", "a", "--issuer", "i", "--org", "acme", "--role", "analyst"],
        &["--certificate", "a", "--org", "acme"],
        &[&id, "--tier", "free"],
        &[&id, "--certificate", "a", "--org", "acme", "--role", "analyst", "--tier", "free"],
    ] {
        assert_eq!(show(incomplete).status, 2, "{incomplete:?}");
    }
    let mapped =
        |role, tier| show(&["--certificate", "a", "--org", "acme", "--role", role, "--tier", tier]);
    assert_eq!(mapped("analyst", "gold").refusal()["found"], "the policy has no tier gold");
    assert_eq!(mapped("nobody", "free").refusal()["expected"], "one of admin, analyst");
}

/// Task 4: who is near a limit took a loop over all keys, and no way at all for subjects of tokens. Proves: X9
#[test]
fn list_names_every_window_that_is_nearly_used_up() {
    let (operator, [id, _]) = operator();
    let subject = Principal {
        identity: IdentityKind::Token { issuer: "https://idp".into(), subject: "ann".into() }
            .into(),
        ..record(&operator, "acme", &id).1.principal()
    };
    assert!(call(&operator, &id, "query_users") && call(&operator, &id, "query_users"));
    assert!(call_of(&operator, &subject, "echo"));
    let list = |over: &str| operator.says(&["limits", "list", "--over", over]).json();
    let near = list("80%");
    let windows = near["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "{near}");
    assert_eq!(windows[0]["limit"], "limits.company", "{near}");
    let units = ["used", "max", "unit", "percent"].map(|member| windows[0][member].clone());
    assert_eq!(units, [json!(61), json!(70), json!("credits"), json!(87)], "{near}");
    let all = list("1");
    let own = |key: &Value| {
        let windows = all["windows"].as_array().unwrap().iter();
        windows.filter(|it| it["key"] == *key).map(|it| it["limit"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(own(&json!(id))[0], "tiers.free.day", "{all}");
    let holder = subject.identity.holder();
    let of_subject = all["windows"].as_array().unwrap().iter();
    assert!(of_subject.clone().any(|it| it["of"]["key"] == holder), "{all}");
    let text = operator.plainly(&["limits", "list", "--org", "acme", "--over", "50%"]).stdout;
    assert!(text.contains("cursor") && text.contains("tiers.free.day"), "{text}");
    let units = text.lines().find(|line| line.contains("limits.company")).unwrap();
    let units: Vec<_> = units.split_whitespace().collect();
    assert!(units.windows(4).any(|it| it == ["credits", "61", "70", "87"]), "{text}");
    // Of a tier that it had before nothing is said: it draws from other windows now.
    let set = |tier| operator.says(&["key", "set", &id, "--tier", tier]).json();
    set("pro");
    let moved = operator.plainly(&["limits", "list", "--org", "acme", "--over", "1"]).stdout;
    let of_key = moved.lines().filter(|line| line.contains("cursor")).collect::<String>();
    assert!(!of_key.contains("tiers.free"), "{moved}");
    set("free");
    // The short name of a limit is enough.
    let reset = ["limits", "reset", &id, "--limit", "day", "--reason", "r"];
    assert_eq!(
        used(&json!({"windows": operator.says(&reset).json()["reset"]})),
        named(&[("tiers.free.day", 60)])
    );
    // Finding of a fresh reader: the table said USED 61, LEFT 9 of what was empty by then.
    let reset = ["limits", "reset", &id, "--limit", "company", "--reason", "r"];
    let text = operator.plainly(&reset).stdout;
    let cells: Vec<_> = text.split_whitespace().collect();
    assert!(cells.contains(&"FORGOTTEN") && !cells.contains(&"LEFT"), "{text}");
    assert!(cells.windows(2).any(|it| it == ["credits", "61"]), "{text}");
    assert!(text.contains("Reset: nothing is used there now."), "{text}");
}

// Proves: X9, A25
#[test]
fn the_callers_of_a_canary_have_its_windows() {
    const EXTRA: &str =
        r#""calls": {"limit": 5, "window": "1h"}, "extra": {"limit": 3, "window": "30m"}"#;
    let (operator, [id, other]) = operator();
    let canary = POLICY.replacen(r#""calls": {"limit": 50, "window": "1h"}"#, EXTRA, 1);
    let file = Scratch::new("canary.json", &canary);
    let start = ["policy", "canary", "start", file.path(), "--caller", &id, "--reason", "r"];
    operator.says(&start).json();
    let principal = record(&operator, "acme", &id).1.principal();
    for _ in 0..2 {
        assert!(call_by(&canary, &operator, &principal, "echo"));
    }
    assert!(call(&operator, &other, "echo"));
    let show = |id: &str| operator.says(&["limits", "show", id]).json();
    let (of_canary, of_active) = (show(&id), show(&other));
    let most = |shown: &Value, name: &str| {
        let windows = shown["windows"].as_array().unwrap().iter();
        windows.filter(|it| it["limit"] == name).map(|it| it["max"].clone()).collect::<Vec<_>>()
    };
    let (calls, extra) = ("tiers.free.calls", "tiers.free.extra");
    assert_eq!(
        (most(&of_canary, calls), most(&of_canary, extra)),
        (vec![json!(5)], vec![json!(3)])
    );
    assert_eq!((most(&of_active, calls), most(&of_active, extra)), (vec![json!(50)], vec![]));
    let list = operator.says(&["limits", "list", "--over", "1"]).json();
    let listed: Vec<_> = list["windows"].as_array().unwrap().iter().collect();
    let of = |key: &str, limit: &str| -> Vec<Value> {
        let own = listed.iter().filter(|it| it["key"] == key && it["limit"] == limit);
        own.map(|it| json!([it["used"], it["max"]])).collect()
    };
    assert_eq!(
        (of(&id, calls), of(&id, extra)),
        (vec![json!([2, 5])], vec![json!([2, 3])]),
        "{list}"
    );
    assert_eq!((of(&other, calls), of(&other, extra)), (vec![json!([1, 50])], vec![]), "{list}");
    let company = listed.iter().filter(|it| it["limit"] == "limits.company").count();
    assert_eq!(company, 1, "it is the same window in both: {list}");
    let reset = ["limits", "reset", &id, "--limit", "extra", "--reason", "r"];
    let reset = operator.says(&reset).json();
    assert_eq!(used(&json!({"windows": reset["reset"]})), named(&[(extra, 2)]));
}

/// Issue 14, finding of a fresh reader: sessions were counted as calls.
// Proves: X9
#[test]
fn the_window_of_sessions_counts_sessions() {
    let (operator, [id, _]) = operator();
    let principal = record(&operator, "acme", &id).1.principal();
    let policy = policy::compile(&json::parse_strict(POLICY.as_bytes()).unwrap()).unwrap();
    let connector = PolicyName::new("demo").unwrap();
    let called =
        Called { connector: &connector, method: "initialize", tool: "", opens: true, bytes: 1 };
    let windows = called.opening(&policy, &principal).into_iter().map(|quota| quota.window);
    let admit = Admit { guards: vec![], windows: windows.collect(), used: None, intent: None };
    for _ in 0..60 {
        valkey::run(&mut operator.redis(), &admit.call());
    }
    let listed = operator.says(&["limits", "list"]).json();
    let window = &listed["windows"][0];
    assert_eq!(
        (&window["limit"], &window["unit"], &window["used"]),
        (&json!("sessions.per_caller"), &json!("sessions"), &json!(60)),
        "{listed}"
    );
}

/// Task 10: `explain` said `allow` for a key whose budget was empty. Proves: X4
#[test]
fn explain_says_what_a_window_that_is_used_up_makes_of_a_call() {
    let (operator, [id, other]) = operator();
    let explain = |id: &str, tool: &str| operator.says(&["explain", "--key", id, "--tool", tool]);
    let said = explain(&id, "query_users").json();
    assert_eq!((&said["gateway"], &said["allowed"]), (&json!("allow"), &json!(true)), "{said}");
    for _ in 0..2 {
        assert!(call(&operator, &id, "query_users"));
    }
    // 60 of the company's 70 credits are used; another key's call of 30 finds 10.
    let said = explain(&other, "query_users");
    assert_eq!(said.status, 1, "{said:?}");
    let told: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&told["gateway"], &told["decision"]), (&json!("limited"), &json!("allow")));
    let company = told["windows_now"].as_array().unwrap().iter().find(|it| it["refuses"] == true);
    assert_eq!(company.unwrap()["limit"], "limits.company", "{told}");
    let text = operator.plainly(&["explain", "--key", &other, "--tool", "query_users"]).stdout;
    assert!(text.starts_with("limited by limits.company\n"), "{text}");
    assert!(text.contains("10 of 70 left, the call draws 30; the call would be 429"), "{text}");
    // Finding 19 of a fresh reader: `enough units come back in 2591993 s`.
    let human = "; the call would be 429, enough units come back in 29d 23h";
    assert!(text.contains(human) || text.contains("enough units come back in 30d"), "{text}");
    // All 30 fit once the first draw left, which is the oldest: a month from now.
    let wait = company.unwrap()["wait_ms"].as_u64().unwrap();
    assert_eq!(Some(wait), company.unwrap()["next_back_ms"].as_u64(), "{told}");
    assert_eq!(explain(&other, "echo").status, 0);
}
