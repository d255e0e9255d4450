//! The parts of a stack, each alone, on the real programs.

use portcullis_stack::{Bootstrap, OpenBao, Tools, Valkey, Workspace, envoy, http, ports};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

fn workspace() -> Workspace {
    Workspace::locate().unwrap()
}

fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn redis(valkey: &Valkey, command: &str) -> String {
    let mut stream = TcpStream::connect(valkey.address()).unwrap();
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn valkey_keeps_its_data_over_a_crash() {
    let tools = Tools::install(&workspace()).unwrap();
    let dir = dir("valkey");
    let valkey =
        Valkey::start(&tools.valkey_server, &dir, &dir, ports::free_port().unwrap()).unwrap();
    assert_eq!(redis(&valkey, "SET a 1"), "+OK\r\n+OK\r\n");
    valkey.process().kill_9();
    assert!(TcpStream::connect(valkey.address()).is_err());
    valkey.restart().unwrap();
    assert_eq!(redis(&valkey, "GET a"), "$1\r\n1\r\n+OK\r\n");
}

// Proves: A6
#[test]
fn the_gateways_token_reads_connector_credentials_only_and_leaves_a_trace() {
    let tools = Tools::install(&workspace()).unwrap();
    let dir = dir("openbao");
    let openbao = OpenBao::start(&tools.bao, &dir, &dir, ports::free_port().unwrap()).unwrap();
    openbao.put_secret("connectors/demo", "api_key", "s3cret").unwrap();
    openbao.put_secret("other", "x", "y").unwrap();
    let sds: serde_json::Value =
        serde_json::from_slice(&fs::read(openbao.token_sds()).unwrap()).unwrap();
    let token =
        sds.pointer("/resources/0/generic_secret/secret/inline_string").unwrap().as_str().unwrap();
    let status = |method: &str, path: &str| {
        let url = format!("{}/v1/secret/data/{path}", openbao.url());
        let body = json!({"data": {"api_key": "z"}}).to_string();
        http::send(method, &url, &[("x-vault-token", token)], body.as_bytes()).unwrap().status
    };
    assert_eq!(status("GET", "connectors/demo"), 200);
    assert_eq!(status("GET", "other"), 403);
    assert_eq!(status("POST", "connectors/demo"), 403);
    let audit = fs::read_to_string(openbao.audit_log()).unwrap();
    assert!(audit.contains("secret/data/connectors/demo"), "{audit}");
    assert!(!audit.contains("s3cret") && !audit.contains(token));
}

#[test]
fn envoys_own_words_about_a_bad_bootstrap_are_passed_on() {
    let tools = Tools::install(&workspace()).unwrap();
    let dir = dir("envoy");
    let (template, config) = (dir.join("template.yaml"), dir.join("bad.yaml"));
    fs::write(
        &template,
        "static_resources: {listners: []}\nnode: {id: \"${PORTCULLIS_NODE:-x}\"}\n",
    )
    .unwrap();
    envoy::write_config(&Bootstrap::default(), &template, &config).unwrap();
    let error = envoy::validate(&tools.envoy, &config).unwrap_err().to_string();
    assert!(error.contains("listners"), "{error}");
}
