//! Child processes: every started process ends, however its parent ends.

use portcullis_stack::ready::{eventually, process_is_ready};
use portcullis_stack::{Process, StackError};
use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The environment variable that makes a copy of this program play the parent.
const PARENT: &str = "PORTCULLIS_TEST_PARENT";

fn log(name: &str) -> PathBuf {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
    // The log is appended to, and an earlier run may have left one.
    let _ = std::fs::remove_file(&log);
    log
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_process_that_dies_is_reported_at_once_with_its_last_words() {
    let process = Process::spawn("short", shell("echo last words; exit 3"), &log("short")).unwrap();
    let started = Instant::now();
    let error = process_is_ready(&process, Duration::from_secs(30), || false).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(&error, StackError::Died { tail, .. } if tail == "last words"), "{error}");
    assert!(error.to_string().contains("exit status: 3"), "{error}");
}

#[test]
fn a_process_that_never_gets_ready_is_given_up() {
    let process = Process::spawn("slow", shell("sleep 60"), &log("slow")).unwrap();
    let error = process_is_ready(&process, Duration::from_millis(100), || false).unwrap_err();
    assert!(matches!(error, StackError::NotReady { .. }), "{error}");
}

#[test]
fn dropping_stops_even_what_ignores_sigterm_and_its_children() {
    let log = log("stubborn");
    let script = "trap '' TERM; sleep 600 & echo $!; while true; do sleep 600; done";
    let process = Process::spawn("stubborn", shell(script), &log).unwrap();
    let child = eventually("the child's id", Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().next().map(str::to_owned)
    })
    .unwrap();
    let parent = process.pid().to_string();
    assert!(is_alive(&parent) && is_alive(&child));
    drop(process);
    eventually("the end of both", Duration::from_secs(5), || {
        (!is_alive(&parent) && !is_alive(&child)).then_some(())
    })
    .unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_parent_leaves_no_child_behind() {
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "plays_the_parent", "--nocapture"])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let child = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("child ").map(|(_, pid)| pid.to_owned()))
        .unwrap();
    assert!(is_alive(&child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the child's end", Duration::from_secs(5), || (!is_alive(&child)).then_some(()))
        .unwrap();
}

/// Not a test of its own: the test above kills this program. A thread that ends starts the child, as a test's thread
/// does.
#[test]
fn plays_the_parent() {
    if env::var_os(PARENT).is_none() {
        return;
    }
    let start = || Process::spawn("sleeper", shell("exec sleep 600"), &log("sleeper")).unwrap();
    let child = thread::spawn(start).join().unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(child.is_running());
    println!("\nchild {}", child.pid());
    thread::sleep(Duration::from_secs(60));
}
