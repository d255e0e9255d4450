//! `cargo xtask schema-suite`: the official JSON Schema test suite against the core's validator.
//!
//! Owns the source of the suite: the source package of PyPI's `jsonschema`, pinned by hash, which contains it. The
//! repository has no part of it. The test has the expected results.

use crate::failure::{Failure, Result};
use portcullis_stack::{Workspace, process};
use std::fs;
use std::path::Path;
use std::process::Command;

const PACKAGE: &str = "jsonschema==4.26.0 --hash=sha256:0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326\n";
const SUITE: &str = "jsonschema-4.26.0/json/tests";
/// Extracts only the drafts from the package.
const UNPACK: &str = "import sys, tarfile; t = tarfile.open(sys.argv[1]); t.extractall(sys.argv[2], [m for m in t if '/json/tests/' in m.name], filter='data')";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let dir = workspace.tools_dir().join("schema-suite");
    let suite = dir.join(SUITE);
    if !suite.exists() {
        install(&dir)?;
    }
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--package", "portcullis-core", "--test", "schema_suite"]);
    command.args(["--", "--nocapture"]).env("PORTCULLIS_SCHEMA_SUITE", suite);
    command.current_dir(&workspace.root);
    let status = command.status().map_err(|error| Failure::new(format!("cargo: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new("the validator and the suite disagree"))
    }
}

fn install(dir: &Path) -> Result<()> {
    println!("fetching the suite (source package of jsonschema 4.26.0) …");
    let failed = |what: &str, why: String| Failure::new(format!("{what}: {why}"));
    fs::create_dir_all(dir).map_err(|error| failed("the suite's directory", error.to_string()))?;
    let requirements = dir.join("requirements.txt");
    fs::write(&requirements, PACKAGE).map_err(|error| failed("requirements", error.to_string()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]);
    pip.args(["--no-binary", ":all:", "--require-hashes", "--dest"]).arg(dir);
    pip.arg("--requirement").arg(&requirements);
    finish("pip", pip)?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).arg(dir.join("jsonschema-4.26.0.tar.gz")).arg(dir);
    finish("unpack the suite", unpack)
}

fn finish(what: &str, command: Command) -> Result<()> {
    let output = process::output(what, command)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!("{what}: {}", text.lines().last().unwrap_or_default())))
}
