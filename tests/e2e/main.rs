//! The end-to-end suite: real Envoy, real Valkey, real OpenBao, real MCP servers and clients.
//!
//! Each test looks at three places: what the client got, what the upstream saw, what the audit log says. Tests share
//! one stack and own an organisation each; those that break something start a stack of their own. A test names the
//! requirements it proves in a comment above it; `cargo xtask requirements` collects them.

mod accounts;
mod answers;
mod audit;
mod audit_anchor;
mod audit_restarts;
mod audit_sinks;
mod authz;
mod authz_trial;
mod bad_credentials;
mod bypass;
mod bypass_http;
mod bypass_objects;
mod calls;
mod certificates;
mod clients;
mod clocks;
mod conformance;
mod connections;
mod cool_off;
mod core_file;
mod credentials;
mod degraded;
mod doctor;
mod ext_proc;
mod faulty_redis;
mod guard;
mod hostile;
mod http_versions;
mod interop;
mod keys_now;
mod leaks;
mod limits;
mod limits_budget;
mod limits_load;
mod meshes;
mod messages;
mod metrics;
mod operations;
mod organisations;
mod other_routes;
mod outages;
mod pages;
mod pins;
mod policy;
mod policy_canary;
mod policy_now;
mod policy_size;
mod readers;
mod redis_places;
mod request_headers;
mod shipping;
mod soak;
mod streams;
mod third_party;
mod throttle;
mod token_endpoints;
mod token_exchange;
mod token_exchange_id_jag;
mod tokens;
mod tokens_idp;
mod tools;
mod trailers;
mod unproven;
mod vault;
mod vault_callers;
mod vault_faults;
mod vault_leases;
mod vault_servers;
mod went_back;
mod work_before_proof;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Arguments;
use portcullis_stack::{Workspace, signals};
use portcullis_tests::Case;
use portcullis_tests::leaks::searched;
use portcullis_tests::world::Shared;

/// What decides and counts in Redis: the part that a round on another kind of Redis makes do with.
const REDIS_PART: [&str; 8] =
    ["calls", "credentials", "tokens", "policy", "limits", "limits_budget", "cool_off", "outages"];

/// What depends on Envoy: the part that a round with another version of it makes do with.
const ENVOY_PART: [&str; 13] = [
    "calls",
    "guard",
    "other_routes",
    "connections",
    "streams",
    "policy",
    "limits",
    "tokens",
    "doctor",
    "trailers",
    "meshes",
    "http_versions",
    "ext_proc",
];

/// What is the same in both modes of the filter: who a caller is, what a policy says, what is made of an answer, where
/// Redis, Vault and issuers are and how they fail, and configurations that state a mode of their own.
const ANY_MODE: [&str; 28] = [
    "answers",
    "audit",
    "audit_anchor",
    "audit_restarts",
    "audit_sinks",
    "certificates",
    "clocks",
    "core_file",
    "doctor",
    "ext_proc",
    "keys",
    "limits_load",
    "meshes",
    "metrics",
    "operations",
    "organisations",
    "pages",
    "pins",
    "policy",
    "policy_canary",
    "policy_size",
    "redis_places",
    "streams",
    "throttle",
    "tokens_idp",
    "vault_leases",
    "vault_servers",
    "went_back",
];

/// All tests but those of third-party clients; a part of them with `PORTCULLIS_TEST_PART=redis`, `=envoy`, `=mode` or
/// `=any_mode`, and those others with `=third_party`. `=none` runs nothing.
fn cases() -> Vec<Case> {
    let mut cases = all_cases();
    match std::env::var("PORTCULLIS_TEST_PART").as_deref() {
        Ok("redis") => cases.retain(|case| REDIS_PART.contains(&case.topic)),
        Ok("envoy") => cases.retain(|case| ENVOY_PART.contains(&case.topic)),
        Ok("mode") => cases.retain(|case| !ANY_MODE.contains(&case.topic)),
        Ok("any_mode") => cases.retain(|case| ANY_MODE.contains(&case.topic)),
        Ok("third_party") => return third_party::cases(),
        _ => {}
    }
    cases
}

fn all_cases() -> Vec<Case> {
    [
        calls::cases(),
        accounts::cases(),
        unproven::cases(),
        tools::cases(),
        authz::cases(),
        authz_trial::cases(),
        credentials::cases(),
        bad_credentials::cases(),
        keys_now::cases(),
        certificates::cases(),
        throttle::cases(),
        policy::cases(),
        policy_size::cases(),
        readers::cases(),
        doctor::cases(),
        operations::cases(),
        pages::cases(),
        policy_canary::cases(),
        policy_now::cases(),
        pins::cases(),
        limits::cases(),
        cool_off::cases(),
        core_file::cases(),
        limits_budget::cases(),
        limits_load::cases(),
        vault::cases(),
        vault_callers::cases(),
        vault_faults::cases(),
        vault_leases::cases(),
        vault_servers::cases(),
        token_exchange::cases(),
        token_exchange_id_jag::cases(),
        token_endpoints::cases(),
        leaks::cases(),
        meshes::cases(),
        messages::cases(),
        answers::cases(),
        trailers::cases(),
        hostile::cases(),
        http_versions::cases(),
        ext_proc::cases(),
        connections::cases(),
        bypass::cases(),
        bypass_http::cases(),
        bypass_objects::cases(),
        streams::cases(),
        audit::cases(),
        audit_anchor::cases(),
        audit_restarts::cases(),
        audit_sinks::cases(),
        metrics::cases(),
        outages::cases(),
        faulty_redis::cases(),
        guard::cases(),
        other_routes::cases(),
        clocks::cases(),
        degraded::cases(),
        went_back::cases(),
        redis_places::cases(),
        request_headers::cases(),
        clients::cases(),
        interop::cases(),
        conformance::cases(),
        tokens::cases(),
        tokens_idp::cases(),
        work_before_proof::cases(),
        organisations::cases(),
        soak::cases(),
        shipping::cases(),
    ]
    .concat()
}

fn main() -> ExitCode {
    // Compiled with everything else, and run when there is something to run it on.
    if std::env::var("PORTCULLIS_TEST_PART").as_deref() == Ok("none") {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let workspace = match Workspace::locate() {
        Ok(workspace) => Arc::new(workspace),
        Err(fault) => return refused(&fault.to_string()),
    };
    // Said once and plainly, instead of by every test.
    if !arguments.list
        && let Err(fault) = workspace.built_artifacts()
    {
        return refused(&fault.to_string());
    }
    // A SIGKILL is covered by the stack itself.
    if let Err(fault) = signals::handle() {
        return refused(&fault.to_string());
    }
    let shared = Arc::new(Shared::default());
    let trials = cases().into_iter().map(|case| case.trial(&shared, &workspace)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let leaks = shared.leaks();
    // The stack has to be stopped before the process ends: `exit` would run no destructor.
    drop(shared);
    signals::yield_to_stop();
    if !arguments.list {
        println!("{}", searched());
    }
    match leaks {
        None => conclusion.exit_code(),
        Some(leaks) => {
            eprintln!("{leaks}");
            ExitCode::FAILURE
        }
    }
}

fn refused(why: &str) -> ExitCode {
    eprintln!("the end-to-end tests cannot run: {why}");
    ExitCode::FAILURE
}
