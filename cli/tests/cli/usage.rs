//! Exit status 2, help, completions, manual pages, and how errors look.

use crate::harness::{Operator, Scratch, run};

#[test]
fn wrong_arguments_end_with_two_and_a_way_on() {
    let unused = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
    for arguments in [
        &["key", "lst"][..],
        &["key", "revoke", "a1b2c3"],
        &["key", "revoke", "a1b2c3", "--reason", " "],
        &["key", "show", "pck_acme_a1b2c3_secret"],
        &["key", "list", "--org", "{acme}"],
        &[
            "key",
            "issue",
            "--org",
            "acme",
            "--name",
            "x",
            "--role",
            "r",
            "--tier",
            "t",
            "--expires",
            "soon",
        ],
        &[
            "key",
            "issue",
            "--org",
            "acme",
            "--name",
            "x",
            "--role",
            "r",
            "--tier",
            "t",
            "--expires",
            "0s",
        ],
        &["policy", "push", "policy.yaml"],
        &["policy", "rollback", "--to", "1", "--reason", "r"],
        &["policy", "rollback"],
        &["audit", "verify"],
        &["key", "list", "--redis", "nonsense"],
    ] {
        let said = run(arguments, &unused, "");
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{arguments:?}: {said:?}");
        assert!(said.stderr.starts_with("error: "), "{arguments:?}: {said:?}");

        let said = run(&[arguments, &["--output", "json"]].concat(), &unused, "");
        let document: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
        assert_eq!(said.status, 2, "{arguments:?}");
        assert_ne!(document["error"]["found"], "", "{arguments:?}");
    }
}

// Finding 5 of a fresh reader: the error had the whole key, and the log of the CI had it, too.
#[test]
fn an_error_names_a_key_by_its_id_and_never_shows_it() {
    use portcullis_core::auth::api_key::mint;
    use portcullis_core::id::{KeyId, OrgId};
    let (org, id) = (OrgId::new("north").unwrap(), KeyId::new("wOXKTLflGl").unwrap());
    let minted = mint(&org, &id, &"aB3".repeat(15)[..43]).unwrap();
    let (key, typo) = (minted.expose(), format!("{}0", minted.expose()));
    let secret = &key[20..];
    for arguments in [
        &["key", "show", key][..],
        &["key", key],
        &[key],
        &["key", "show", "wOXKTLflGl", key],
        &["key", "revoke", key, "--reason", "r"],
        &["key", "show", &typo],
        &["explain", "--key", key, "--tool", "x"],
        &["explain", &format!("--key={key}"), "--tool", "x"],
        &["limits", "show", key],
        &["audit", "verify", &format!("--{key}")],
        &["policy", "check", key],
        &["audit", "search", key],
        &["audit", "search", "x", "--status", &format!("denied,{key}")],
    ] {
        for more in [&[][..], &["--output", "json"]] {
            let said = run(&[arguments, more].concat(), &[], "");
            let all = format!("{}{}", said.stdout, said.stderr);
            assert!(said.status != 0 && !all.contains(secret), "{said:?}");
        }
    }
    let said = run(&["key", "show", key], &[], "");
    assert!(said.stderr.contains("'(not shown)'"), "{said:?}");
    assert!(said.stderr.contains("its id, which is wOXKTLflGl"), "{said:?}");
}

// Finding 9.14: 5,000 characters of --name were printed back.
#[test]
fn a_long_argument_is_not_printed_back() {
    let name = "x".repeat(5_000);
    let arguments =
        ["key", "issue", "--org", "acme", "--name", &name, "--role", "r", "--tier", "free"];
    for more in [&[][..], &["--output", "json"]] {
        let said = run(&[&arguments[..], more].concat(), &[], "");
        assert_eq!(said.status, 2);
        assert!(said.stderr.len() < 700, "{}", said.stderr.len());
        assert!(said.stderr.contains("(5000 characters)"), "{said:?}");
    }
}

#[test]
fn without_redis_it_says_how_to_name_one() {
    for environment in [&[][..], &[("PORTCULLIS_REDIS", "")]] {
        let said = run(&["key", "list"], environment, "");
        assert_eq!(said.status, 2);
        assert!(said.stderr.contains("--redis URL or PORTCULLIS_REDIS"), "{said:?}");
    }
}

#[test]
fn an_unreachable_redis_is_named_without_its_password() {
    let said = run(&["key", "list", "--redis", "redis://admin:hunter2@127.0.0.1:1/"], &[], "");
    assert_eq!(said.status, 2);
    assert!(said.stderr.contains("Redis at 127.0.0.1:1"), "{said:?}");
    assert!(!said.stderr.contains("hunter2"), "{said:?}");
    let help = run(&["key", "--help"], &[("PORTCULLIS_REDIS", "redis://:hunter2@h/")], "");
    assert!(help.status == 0 && !help.stdout.contains("hunter2"), "{help:?}");
}

// Finding: 1 was both an answer and "Redis does not answer", and a script took one for the other.
#[test]
fn an_outage_is_no_answer_and_what_changes_something_is_not_done() {
    let away = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
    let policy = crate::harness::file("policy.yaml");
    let (nowhere, url) = (Scratch::nowhere("nowhere.yaml"), "http://127.0.0.1:1/mcp");
    let anchors = Scratch::nowhere("anchors.jsonl");
    let key = Scratch::new("anchor.key", &ed25519_compact::KeyPair::generate().sk.to_pem());
    for asks in [
        &["key", "list"][..],
        &["key", "show", "a1b2c3"],
        &["policy", "history"],
        &["policy", "show"],
        &["policy", "diff"],
        &["policy", "diff", &policy],
        &["policy", "diff", &policy, nowhere.path()],
        &["policy", "check", nowhere.path()],
        &["policy", "push", &policy, "--dry-run"],
        &["limits", "list"],
        &["limits", "show", "a1b2c3"],
        &["token", "list"],
        &["operator", "list"],
        &["approve", "list"],
        &["discover", "--policy", nowhere.path(), "--direct", url],
        &["discover", "--policy", &policy, "--connector", "demo", "--direct", url],
        &["audit", "show"],
        &["audit", "verify", "--admin"],
        &["audit", "anchor", "--log", anchors.path(), "--key", key.path()],
        &["audit", "tail", "nosuch.log"],
        &["audit", "export", "nosuch.log", "--format", "csv"],
        &["audit", "report", "nosuch.log"],
    ] {
        let said = run(asks, &away, "");
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{asks:?}: {said:?}");
    }
    for changes in [
        &["key", "revoke", "a1b2c3", "--reason", "r"][..],
        &["policy", "push", &policy, "--reason", "r"],
        &["policy", "rollback", "--to", "0123456789abcdef", "--reason", "r"],
        &["redis", "accept-restore", "--all", "--reason", "r"],
    ] {
        let said = run(changes, &away, "");
        assert_eq!((said.status, said.stdout.as_str()), (1, ""), "{changes:?}: {said:?}");
    }
}

#[test]
fn a_closed_pipe_is_not_an_accident() {
    let operator = Operator::with_policy();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["policy", "show", "--redis", operator.valkey.url()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Scratch::nowhere("man");
    let said = run(&["man", folder.path()], &[], "");
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    let page = |name: &str| {
        let path = format!("{}/{name}.1", folder.path());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    for (name, part) in [
        ("portcullis", "policy"),
        ("portcullis-key-issue", "portcullis key issue"),
        ("portcullis-policy-canary-widen", "reason"),
        ("portcullis-top", "So many rows"),
    ] {
        let page = page(name).replace("\\-", "-");
        assert!(page.starts_with(".ie") && page.contains(".TH"), "{name}: {page}");
        assert!(page.contains(part), "{name}: {page}");
    }
    std::fs::remove_dir_all(folder.path()).expect("the folder is ours");
    let said = run(&["man", "/dev/null/man"], &[], "");
    assert_eq!(said.status, 1, "{said:?}");
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = run(&["completions", shell], &[], "");
        assert!(said.status == 0 && said.stdout.contains("portcullis"), "{shell}");
    }
}
