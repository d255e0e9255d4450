//! The conformance suite of the MCP project, run twice: against a server directly, and through the gateway. Whatever
//! passes directly passes through the gateway, check by check.

use portcullis_stack::ports;
use portcullis_tests::node::{Checks, Program, Suite, node};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::Workers;
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["conformance": every_scenario_passes_as_it_does_directly]
}

const SUITES: [Suite; 3] = [Suite::Released, Suite::NextFor2025, Suite::NextFor2026];

/// Against this many scenarios and checks everything else is compared; fewer would mean that the suite did not run.
const LEAST: [(usize, usize); 3] = [(32, 50), (33, 90), (50, 190)];

// Proves: B1, B2, X17
fn every_scenario_passes_as_it_does_directly(world: &World<'_>) {
    let (node, dir) = (node(world.workspace()), world.dir());
    let fixture = Program::fixture(node, &dir.join("logs"));
    let port = ports::free_port().expect("a free port");
    // The suite checks that a page of another origin is refused, and one of this host is not.
    let hosts = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{port}"));
    let origins = hosts.each_ref().map(|host| format!("http://{host}"));
    let own = world.envoy(Workers::Two, |settings| {
        settings.demo(fixture.address()).set("HOSTS", json!(hosts)).set("ORIGINS", json!(origins))
    });
    let org = Organisation::with_policy(world.stack(), open_to_everything).through(&own.gateway);
    let key = org.key("suite").key;
    let hop = Program::hop(node, port, own.gateway.address(), &key, &dir.join("logs"));
    let through = format!("http://{}{DEMO}", hop.address());
    for ((suite, direct), least) in SUITES.iter().zip(direct_results(&fixture, world)).zip(LEAST) {
        let count = direct.values().map(Vec::len).sum::<usize>();
        assert!(direct.len() >= least.0 && count >= least.1, "{suite:?}: {} {count}", direct.len());
        assert_eq!(failed(&direct), Vec::<&str>::new(), "{suite:?}: the fixture itself");
        let results = suite.run(node, &through, &dir.join(format!("{suite:?}")));
        assert_eq!(worse(&direct, &results), Vec::<String>::new(), "{suite:?}");
    }
}

/// The results without the gateway.
fn direct_results(fixture: &Program, world: &World<'_>) -> Vec<Checks> {
    let url = format!("http://{}/mcp", fixture.address());
    let dir = world.dir().join("direct");
    let run =
        |suite: &Suite| suite.run(node(world.workspace()), &url, &dir.join(format!("{suite:?}")));
    SUITES.iter().map(run).collect()
}

/// Scenarios that fail without the gateway. The fixture has no tasks extension, which is optional in MCP.
fn failed(direct: &Checks) -> Vec<&str> {
    let fails = |checks: &[(String, String)]| checks.iter().any(|check| check.1 == "FAILURE");
    let failing =
        direct.iter().filter(|(name, checks)| !name.starts_with("tasks-") && fails(checks));
    failing.map(|(name, _)| name.as_str()).collect()
}

/// What of a scenario's checks is not as it was directly. A check that failed directly may pass.
fn worse(direct: &Checks, through: &Checks) -> Vec<String> {
    let mut found = Vec::new();
    for (scenario, expected) in direct {
        let Some(got) = through.get(scenario) else {
            found.push(format!("{scenario}: did not run"));
            continue;
        };
        let same = |(a, b): (&(String, String), &(String, String))| {
            a.0 == b.0 && (a.1 == b.1 || a.1 == "FAILURE")
        };
        if got.len() != expected.len() || !expected.iter().zip(got).all(same) {
            found.push(format!("{scenario}: directly {expected:?}, through the gateway {got:?}"));
        }
    }
    found
}

fn open_to_everything(policy: &mut Value) {
    policy["connectors"]["demo"] = json!({"path": DEMO});
    let everything = json!({"allow": ["*"], "prompts": ["*"], "resources": ["*"]});
    policy["roles"]["suite"] = json!({"demo": everything});
}
