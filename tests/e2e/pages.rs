//! The first pages of the documentation, command by command on a running stack: what a new user types, and sees.
//!
//! The other guides are run in `cli/tests/cli/page_commands.rs`, without a gateway.

use std::path::{Path, PathBuf};

use portcullis_markdown::{Block, blocks};
use portcullis_stack::env_file;
use portcullis_tests::world::Workers;
use portcullis_tests::{Case, World, cases};
use serde_json::Value;

pub(crate) fn cases() -> Vec<Case> {
    cases!["pages": the_first_hour_and_its_tokens_go_as_the_pages_say]
}

fn page(name: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    blocks(&std::fs::read_to_string(path).expect("a page"))
}

/// The block of a page that begins like this.
fn block(name: &str, begins: &str) -> String {
    let found = page(name).into_iter().find(|block| block.text.starts_with(begins));
    found.unwrap_or_else(|| panic!("{name}: no block begins with {begins:?}")).text
}

/// Runs a script; what it prints.
fn run(world: &World<'_>, folder: &Path, script: &str, environment: &[(&str, &str)]) -> String {
    let said = world.stack().operator.shell(script, folder, environment).expect("bash");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{script}\n{out}\n{err}");
    out.into_owned()
}

fn folder(world: &World<'_>) -> PathBuf {
    let folder = world.stack().dir().join("pages");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The data of an answer, whichever way the server sent it.
fn message(printed: &str) -> Value {
    let json = printed.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let mut messages = json.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.find(|message| message.get("jsonrpc").is_some()).unwrap_or_else(|| panic!("{printed}"))
}

// Proves: X16
fn the_first_hour_and_its_tokens_go_as_the_pages_say(world: &World<'_>) {
    const HOUR: &str = "get-started/first-hour.md";
    const TOKENS: &str = "guides/try-tokens.md";
    let folder = folder(world);
    let policy = block(HOUR, "version: 1");
    std::fs::write(folder.join("policy.yaml"), policy).expect("written");
    let url = world.stack().envoy.url();
    let gateway = [("PORTCULLIS_URL", url.as_str())];

    run(world, &folder, &block(HOUR, "portcullis policy check"), &gateway);
    run(world, &folder, &block(HOUR, "portcullis policy push"), &gateway);
    let issue = block(HOUR, "portcullis key issue");
    let issue = issue.lines().next().expect("a command");
    let printed = run(world, &folder, issue, &gateway);
    let key = printed.split_whitespace().find(|word| word.starts_with("pck_north_"));
    let key = key.unwrap_or_else(|| panic!("no key: {printed}")).to_owned();
    let with_key = [gateway[0], ("KEY", key.as_str())];

    let call = block(HOUR, "curl");
    let answer = message(&run(world, &folder, &call, &with_key));
    assert!(answer.pointer("/result/content").is_some(), "{answer}");
    let refused =
        message(&run(world, &folder, &call.replace("query_users", "create_note"), &with_key));
    assert_eq!(refused["error"]["message"], "Unknown tool: create_note", "{refused}");
    let id = key.split('_').nth(2).expect("an id");
    let explain = block(HOUR, "portcullis explain --key").replace("KEY_ID", id);
    let told = run(world, &folder, &format!("{} || [ $? = 1 ]", explain.trim()), &gateway);
    assert!(told.starts_with("deny by roles.analyst.allow_write"), "{told}");

    run(world, &folder, &block(TOKENS, "portcullis token keygen"), &gateway);
    let issuers = std::fs::read_to_string(folder.join("issuers.json")).expect("issuers");
    let own = world.envoy(Workers::One, |set| {
        set.set("ISSUERS", issuers.trim()).set("EXTERNAL_URL", "http://127.0.0.1:10000")
    });
    let url = own.envoy.url();
    let gateway = [("PORTCULLIS_URL", url.as_str())];
    let mint = block(TOKENS, "TOKEN=$(portcullis token mint");
    let call = block(TOKENS, "curl");
    let listed = run(world, &folder, &format!("{mint}\n{call}"), &gateway);
    assert!(listed.starts_with("HTTP/1.1 200"), "{listed}");
    assert!(listed.contains("query_users") && !listed.contains("create_note"), "{listed}");
    let explain = block(TOKENS, "printf %s \"$TOKEN\" > token");
    let told = run(world, &folder, &format!("{mint}\n{explain}"), &gateway);
    assert!(told.starts_with("allow"), "{told}");

    // The stack's own issuer: what its file of variables names is all that a user needs.
    let variables = env_file::write(world.stack()).expect("the file of variables");
    let mint = block(TOKENS, ". target/stack/env");
    let mint = mint.replace("target/stack/env", &variables.display().to_string());
    let listed = run(world, &folder, &format!("{mint}\n{call}"), &[]);
    assert!(listed.starts_with("HTTP/1.1 200"), "{listed}");
    assert!(listed.contains("query_users") && !listed.contains("create_note"), "{listed}");
    let explain = block(TOKENS, "printf %s \"$TOKEN\" > stack-token");
    let told = run(world, &folder, &format!("{mint}\n{explain}"), &[]);
    assert!(told.starts_with("allow"), "{told}");
}
