//! `cargo xtask test`: every check, cheapest first, with one line for each.
//!
//! Owns the list of stages. A stage's output goes to a log and is shown only when the stage fails.

use crate::build::{self, cargo_command};
use crate::failure::{Failure, Result};
use crate::progress::{announced, seconds};
use crate::{chart, tidy, validate};
use portcullis_stack::{ENVOY_VERSION, Node, Tools, Workspace, process};
use std::fs::{self, File};
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// The extent of a test run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything except the end-to-end tests.
    Fast,
    Full,
    /// With all end-to-end tests on every kind of Redis.
    Everywhere,
}

/// One check.
struct Stage {
    name: &'static str,
    check: Check,
}

enum Check {
    /// Runs Cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// Runs Cargo for all native packages ([`build::NATIVE`]), so that later stages reuse what one stage compiled.
    Native(Verb, Variables),
    /// Runs a function of this crate.
    Ours(fn(&Workspace) -> Result<()>),
}

/// A verb of Cargo, and the arguments after the selection of packages.
type Verb = (&'static str, &'static [&'static str]);
type Variables = &'static [(&'static str, &'static str)];

/// Private items are documented too, so public documentation may link to them.
const DENY_WARNINGS: &[(&str, &str)] =
    &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")];
/// How many lines of a failed stage's log are shown.
const SHOWN_LINES: usize = 60;

const STAGES: &[Stage] = &[
    Stage {
        name: "format",
        check: Check::Cargo(&["fmt", "--all", "--check", "--", "--color", "never"]),
    },
    Stage { name: "tidy", check: Check::Ours(tidy::tidy) },
    Stage {
        name: "clippy",
        check: Check::Native(
            ("clippy", &["--quiet", "--all-targets", "--", "-D", "warnings"]),
            &[],
        ),
    },
    Stage { name: "tools", check: Check::Ours(tools) },
    Stage {
        name: "clippy on wasm32",
        check: Check::Cargo(&[
            "clippy",
            "--quiet",
            "--target",
            "wasm32-wasip1",
            "--package",
            "portcullis-filter",
            "--package",
            "portcullis-redis-framing-module",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Stage {
        // Also compiles the end-to-end tests, but runs none of them.
        name: "unit, scenario and Lua tests",
        check: Check::Native(("test", &["--no-fail-fast"]), &[("PORTCULLIS_TEST_PART", "none")]),
    },
    Stage {
        name: "documentation",
        check: Check::Native(
            ("doc", &["--quiet", "--no-deps", "--document-private-items"]),
            DENY_WARNINGS,
        ),
    },
    Stage {
        name: "build",
        check: Check::Ours(|workspace| build::after_tests(workspace).map(drop)),
    },
    Stage { name: "Envoy bootstraps", check: Check::Ours(validate::bootstraps) },
    Stage { name: "Helm chart", check: Check::Ours(chart::current) },
    Stage { name: "docker-compose.yml", check: Check::Ours(validate::compose) },
];

const END_TO_END_TESTS: Verb = ("test", &["--test", "e2e"]);

/// The whole suite in one mode of the filter, the tests that depend on the mode in the other one, and the tests of
/// decisions and counts on a Redis Cluster.
const END_TO_END: [Stage; 4] = [
    Stage { name: "end to end, hold mode", check: Check::Native(END_TO_END_TESTS, &[]) },
    Stage {
        name: "end to end, split mode",
        check: Check::Native(
            END_TO_END_TESTS,
            &[("PORTCULLIS_TEST_MODE", "split"), ("PORTCULLIS_TEST_PART", "mode")],
        ),
    },
    Stage {
        name: "third-party clients",
        check: Check::Native(END_TO_END_TESTS, &[("PORTCULLIS_TEST_PART", "third_party")]),
    },
    Stage {
        name: "on a Redis Cluster, in part",
        check: Check::Native(
            END_TO_END_TESTS,
            &[("PORTCULLIS_TEST_REDIS", "cluster"), ("PORTCULLIS_TEST_PART", "redis")],
        ),
    },
];

/// The rest of the suite in the other mode, and the whole suite on every other kind of Redis.
const ELSEWHERE: [Stage; 3] = [
    Stage {
        name: "end to end, split mode, the rest",
        check: Check::Native(
            END_TO_END_TESTS,
            &[("PORTCULLIS_TEST_MODE", "split"), ("PORTCULLIS_TEST_PART", "any_mode")],
        ),
    },
    Stage {
        name: "end to end, Redis Cluster",
        check: Check::Native(END_TO_END_TESTS, &[("PORTCULLIS_TEST_REDIS", "cluster")]),
    },
    Stage {
        name: "end to end, Redis behind TLS",
        check: Check::Native(END_TO_END_TESTS, &[("PORTCULLIS_TEST_REDIS", "secured")]),
    },
];

/// Runs the stages; `envoy` selects the version of Envoy for tests that start it. Stages after a failed one run as
/// well, so that one round shows every fault.
pub(crate) fn test(workspace: &Workspace, extent: Extent, envoy: Option<&str>) -> Result<()> {
    let logs = workspace.root.join("target/test-logs");
    fs::create_dir_all(&logs)
        .map_err(|error| Failure::new(format!("could not create {}: {error}", logs.display())))?;
    let started = Instant::now();
    let (modes, elsewhere): (&[Stage], &[Stage]) = match extent {
        Extent::Fast => (&[], &[]),
        Extent::Full => (&END_TO_END, &[]),
        Extent::Everywhere => (&END_TO_END[..3], &ELSEWHERE),
    };
    let (mut passed, mut failed) = (0_u32, 0_u32);
    ahead(workspace);
    for stage in STAGES.iter().chain(modes).chain(elsewhere) {
        match stage.run(workspace, &logs, envoy) {
            StageResult::Passed => passed += 1,
            StageResult::Failed => failed += 1,
        }
    }
    println!("in {}", seconds(started.elapsed()));
    // CI reads this line.
    println!("{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err(Failure::new("the logs are in target/test-logs/")) }
}

enum StageResult {
    Passed,
    Failed,
}

impl Stage {
    fn run(&self, workspace: &Workspace, logs: &Path, envoy: Option<&str>) -> StageResult {
        let started = Instant::now();
        let log = logs.join(format!("{}.log", self.name.replace([' ', ',', '.'], "-")));
        let result = announced(self.name, || match self.check {
            Check::Cargo(arguments) => logged(self.name, cargo_command(workspace, arguments), &log),
            Check::Native((verb, rest), variables) => {
                let arguments = [&[verb], &build::NATIVE[..], rest].concat();
                let mut command = cargo_command(workspace, &arguments);
                command.envs(variables.iter().copied());
                command.envs(envoy.map(|version| (ENVOY_VERSION, version)));
                logged(self.name, command, &log)
            }
            Check::Ours(check) => check(workspace),
        });
        let took = seconds(started.elapsed());
        match result {
            Ok(()) => {
                println!("{} {:<30} {took:>8}{}", word("ok  ", "32"), self.name, counted(&log));
                StageResult::Passed
            }
            Err(failure) => {
                println!("{failure}");
                println!("{} {:<30} {took:>8}", word("FAIL", "31"), self.name);
                StageResult::Failed
            }
        }
    }
}

/// Runs a program with its output in a log; a failure contains that output.
fn logged(name: &str, mut command: Command, log: &Path) -> Result<()> {
    let open = || -> std::io::Result<(File, File)> {
        let file = File::create(log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open()
        .map_err(|error| Failure::new(format!("could not create {}: {error}", log.display())))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    if process::run(name, command)?.success() {
        return Ok(());
    }
    let tail = process::log_tail(log, SHOWN_LINES);
    Err(Failure::new(format!("{tail}\n(the end of {})", log.display())))
}

/// How many tests a log of `cargo test` counts.
fn counted(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let tests: u64 = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    if tests == 0 { String::new() } else { format!("   {tests} tests") }
}

fn word(word: &str, colour: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}

/// Starts slow work that needs only a network or one processor, beside the stages that do not depend on it.
fn ahead(workspace: &Workspace) {
    let workspace = workspace.clone();
    thread::spawn(move || {
        // The stage repeats a failure of this and reports it.
        if build::require_wasm_target().is_ok() {
            build::filter_ahead(&workspace);
        }
        let _reported_by_the_stage = tools(&workspace);
    });
}

fn tools(workspace: &Workspace) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock();
    build::require_wasm_target()?;
    Tools::install(workspace)?;
    Node::install(workspace)?;
    Ok(())
}
