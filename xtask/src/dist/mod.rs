//! `cargo xtask dist`: the release files of the modules: the modules, their digests, OCI images, and bills of
//! materials.
//!
//! Owns the names in `target/dist/`. Nothing in the files depends on the time, the machine or the folder. Signs and
//! publishes nothing.

mod image;
mod sbom;

use crate::build::{self, WASM_TARGET, cargo_command};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Workspace, process};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Use the modules that are built already, of whatever profile
    #[arg(long, conflicts_with = "twice")]
    built: bool,
    /// Build the modules once more, from the last commit in another folder, and compare all bytes
    #[arg(long)]
    twice: bool,
}

/// A module: its package, its file, and its image.
struct Module {
    package: &'static str,
    file: &'static str,
    image: &'static str,
}

const MODULES: [Module; 2] = [
    Module { package: "portcullis-filter", file: "portcullis_filter.wasm", image: "portcullis" },
    Module {
        package: "portcullis-redis-framing-module",
        file: "redis_framing.wasm",
        image: "redis-framing",
    },
];

/// `cargo xtask dist`.
pub(crate) fn dist(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = if options.built {
        workspace.target.clone()
    } else {
        let target = workspace.target.join("dist-build");
        let own = Workspace { root: workspace.root.clone(), target: target.clone() };
        step("building the modules for a release", || compile(&own))?;
        build::within_budgets(&own)?;
        target
    };
    let dir = workspace.target.join("dist");
    empty(&dir)?;
    let (mut sums, mut digests) = (String::new(), String::new());
    for module in &MODULES {
        let bytes = read(&compiled(&target, module))?;
        let sum = sha256(&bytes);
        write(&dir.join(module.file), &bytes)?;
        // Writing to a `String` does not fail.
        let _ = writeln!(sums, "{sum}  {}", module.file);
        let digest = image::write(&dir.join("oci").join(module.image), &bytes)?;
        let _ = writeln!(digests, "sha256:{digest}  {}", module.image);
        let list = format!("{:#}\n", sbom::of(workspace, module.package, &sum)?);
        let name = module.file.replace(".wasm", ".cdx.json");
        let _ = writeln!(sums, "{}  {name}", sha256(list.as_bytes()));
        write(&dir.join(name), list.as_bytes())?;
    }
    write(&dir.join("SHA256SUMS"), sums.as_bytes())?;
    write(&dir.join("OCI-DIGESTS"), digests.as_bytes())?;
    println!("{sums}{digests}in {}", dir.display());
    if options.twice { same_again(workspace, &dir) } else { Ok(()) }
}

/// Builds the modules. Panics contain file names, so the flag removes the folder in which Cargo keeps sources.
fn compile(workspace: &Workspace) -> Result<()> {
    build::require_wasm_target()?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
    let flag = format!("--remap-path-prefix={}=/cargo", home.display());
    // A JSON string is also a TOML string. Cargo adds it to the flags of its configuration file.
    let flags = format!("target.{WASM_TARGET}.rustflags=[{}]", json!(flag));
    let base = ["build", "--release", "--target", WASM_TARGET, "--config", &flags, "--package"];
    MODULES.iter().try_for_each(|module| {
        let arguments = [&base[..], &[module.package]].concat();
        finished("cargo", cargo_command(workspace, &arguments))
    })
}

/// Builds the modules from the last commit in another folder.
fn same_again(workspace: &Workspace, first: &Path) -> Result<()> {
    let copy = workspace.target.join("dist-again");
    empty(&copy)?;
    let archive = copy.join("sources.tar");
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "-o"]).arg(&archive).arg("HEAD");
    git.current_dir(&workspace.root);
    finished("git archive", git)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).current_dir(&copy);
    finished("tar", tar)?;
    let other = Workspace { root: copy.clone(), target: copy.join("target") };
    step("building the modules again", || compile(&other))?;
    for module in &MODULES {
        let (one, another) = (first.join(module.file), compiled(&other.target, module));
        if read(&one)? != read(&another)? {
            let files = format!("{} and {}", one.display(), another.display());
            return Err(Failure::new(format!("{files} differ; is everything committed?")));
        }
        println!("{}: the same bytes from another folder", module.file);
    }
    Ok(())
}

fn compiled(target: &Path, module: &Module) -> PathBuf {
    target.join(WASM_TARGET).join("release").join(module.file)
}

fn finished(name: &str, command: Command) -> Result<()> {
    let output = process::output(name, command)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("{name} failed: {said}")))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes `dir` an empty folder.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|error| fault(dir, &error))?;
    }
    fs::create_dir_all(dir).map_err(|error| fault(dir, &error))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| fault(file, &error))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).map_err(|error| fault(file, &error))
}

fn fault(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", file.display()))
}
