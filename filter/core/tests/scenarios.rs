//! Runs every file of `tests/scenarios/`: events in, steps out.
//!
//! Lines that start with `>` are events, indented lines are the core's answers (`scenarios/README.md` explains them). A
//! file is a golden: `UPDATE_GOLDEN=1 cargo test -p portcullis-core --test scenarios` rewrites them, for review.

#[path = "shared/config.rs"]
mod config;
#[expect(dead_code, reason = "the tests of tokens make other ones, too")]
#[path = "tokens/mint.rs"]
mod mint;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use world::World;

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The file with its answers rewritten.
fn replay(text: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(event) = line.strip_prefix("> ") {
            out += &format!("{line}\n");
            for answer in world.event(event) {
                out.extend(answer.lines().map(|line| format!("    {line}\n")));
            }
        } else if !line.starts_with("    ") {
            out += &format!("{line}\n");
        }
    }
    out
}

// Two files once had each of the numbers 40 to 43.
#[test]
fn every_scenario_has_a_number_of_its_own() {
    let mut seen = std::collections::BTreeMap::new();
    for file in scenarios() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.split('_').next().unwrap().to_owned();
        assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{name} has no number");
        if let Some(other) = seen.insert(number, name.clone()) {
            panic!("{other} and {name} have the same number");
        }
    }
}

#[test]
fn every_scenario_steps_as_written() {
    let files = scenarios();
    assert!(files.len() >= 10, "scenarios are missing");
    let mut differing = Vec::new();
    for file in files {
        let golden = fs::read_to_string(&file).unwrap();
        let actual = replay(&golden);
        if actual == golden {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, actual).unwrap();
            continue;
        }
        let at = actual.lines().zip(golden.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
        differing.push(format!(
            "{}:{}\n  golden {}\n  actual {}",
            file.display(),
            at + 1,
            line(&golden),
            line(&actual)
        ));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
