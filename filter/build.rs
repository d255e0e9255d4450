//! Names the build: the version, and a digest of what the module is made from.
//!
//! The module cannot hash itself, and two builds of one version are not the same. The digest needs no Git, and the
//! same sources have the same one everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Relative to this package: all that the module's own code is made from, and the target features it is made for.
const SOURCES: [&str; 10] = [
    "src",
    "build.rs",
    "Cargo.toml",
    "core/src",
    "core/Cargo.toml",
    "framing/src",
    "../redis-lua/src",
    "../redis-lua/scripts",
    "../Cargo.lock",
    "../.cargo/config.toml",
];

fn main() {
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        collect(Path::new(source), &mut files);
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let content = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        digest.update(file.to_string_lossy().as_bytes());
        digest.update(content.len().to_be_bytes());
        digest.update(content);
    }
    let digest: String =
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=PORTCULLIS_BUILD={}+{digest}", env!("CARGO_PKG_VERSION"));
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for entry in entries {
        collect(&entry.expect("an entry of a directory").path(), files);
    }
}
