//! `cargo xtask dist`: the files of a release: the modules, the operator's tool, their digests, OCI images, and bills
//! of materials.
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
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Use the modules that are built already, of whatever profile
    #[arg(long, conflicts_with_all = ["twice", "tool"])]
    built: bool,
    /// Also build the operator's tool for this machine's platform
    #[arg(long)]
    tool: bool,
    /// Build everything once more, from the last commit in another folder, and compare all bytes
    #[arg(long)]
    twice: bool,
}

/// A program of a release.
struct Program {
    package: &'static str,
    /// The file that Cargo makes.
    file: &'static str,
    /// Rust's name of the platform.
    target: String,
    /// The file in the release.
    name: String,
    /// The name of its OCI image, if it has one.
    image: Option<&'static str>,
}

impl Program {
    fn module(package: &'static str, file: &'static str, image: &'static str) -> Self {
        let target = WASM_TARGET.to_owned();
        Self { package, file, target, name: file.to_owned(), image: Some(image) }
    }

    /// The operator's tool for this machine's platform.
    fn tool() -> Result<Self> {
        let mut command = Command::new("rustc");
        command.args(["--print", "host-tuple"]);
        let output = process::output("rustc", command)?;
        let target = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if target.is_empty() {
            return Err(Failure::new("rustc does not print the name of this platform"));
        }
        let name = format!("portcullis-{target}");
        Ok(Self { package: "portcullis", file: "portcullis", target, name, image: None })
    }

    /// What Cargo made, below a target directory.
    fn compiled(&self, target: &Path) -> PathBuf {
        target.join(&self.target).join("release").join(self.file)
    }

    /// The name of its bill of materials.
    fn bill(&self) -> String {
        format!("{}.cdx.json", self.name.trim_end_matches(".wasm"))
    }
}

/// What the options name.
fn programs(options: &Options) -> Result<Vec<Program>> {
    let framing = "portcullis-redis-framing-module";
    let mut programs = vec![
        Program::module("portcullis-filter", "portcullis_filter.wasm", "portcullis"),
        Program::module(framing, "redis_framing.wasm", "redis-framing"),
    ];
    if options.tool {
        programs.push(Program::tool()?);
    }
    Ok(programs)
}

/// `cargo xtask dist`.
pub(crate) fn dist(workspace: &Workspace, options: &Options) -> Result<()> {
    let programs = programs(options)?;
    let target = if options.built {
        workspace.target.clone()
    } else {
        let target = workspace.target.join("dist-build");
        let own = Workspace { root: workspace.root.clone(), target: target.clone() };
        step("building for a release", || compile(&own, &programs))?;
        build::within_budgets(&own)?;
        target
    };
    let dir = workspace.target.join("dist");
    empty(&dir)?;
    let (mut sums, mut digests) = (String::new(), String::new());
    for program in &programs {
        let compiled = program.compiled(&target);
        let bytes = read(&compiled)?;
        let sum = sha256(&bytes);
        // A copy, so that the tool stays executable.
        let place = dir.join(&program.name);
        fs::copy(&compiled, &place).map_err(|error| fault(&place, &error))?;
        // Writing to a `String` does not fail.
        let _ = writeln!(sums, "{sum}  {}", program.name);
        if let Some(image) = program.image {
            let digest = image::write(&dir.join("oci").join(image), &bytes)?;
            let _ = writeln!(digests, "sha256:{digest}  {image}");
        }
        let bill = sbom::of(workspace, (program.package, &program.target), &sum)?;
        let (bill, name) = (format!("{bill:#}\n"), program.bill());
        let _ = writeln!(sums, "{}  {name}", sha256(bill.as_bytes()));
        write(&dir.join(name), bill.as_bytes())?;
    }
    write(&dir.join("SHA256SUMS"), sums.as_bytes())?;
    write(&dir.join("OCI-DIGESTS"), digests.as_bytes())?;
    println!("{sums}{digests}in {}", dir.display());
    if options.twice { same_again(workspace, &programs, &dir) } else { Ok(()) }
}

/// Builds the programs. Panics contain file names, so the flags remove the folders of Cargo's home, of the sources and
/// of what build scripts write.
fn compile(workspace: &Workspace, programs: &[Program]) -> Result<()> {
    build::require_wasm_target()?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
    // The last flag that matches applies, and the target directory may be in that of the sources.
    let folders =
        [(&home, "/cargo"), (&workspace.root, "/portcullis"), (&workspace.target, "/target")];
    let remap = folders.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    programs.iter().try_for_each(|Program { package, target, .. }| {
        // A list of JSON strings is also one of TOML. Cargo adds it to the flags of its configuration file.
        let flags = format!("target.{target}.rustflags={}", json!(remap));
        let base = ["build", "--release", "--target", target, "--config", &flags, "--package"];
        let arguments = [&base[..], &[package]].concat();
        finished("cargo", cargo_command(workspace, &arguments))
    })
}

/// Builds the programs from the last commit in another folder.
fn same_again(workspace: &Workspace, programs: &[Program], first: &Path) -> Result<()> {
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
    step("building again", || compile(&other, programs))?;
    let differs = |one: &Path, another: &Path| {
        let files = format!("{} and {}", one.display(), another.display());
        Failure::new(format!("{files} differ; is everything committed?"))
    };
    for program in programs {
        let (one, another) = (first.join(&program.name), program.compiled(&other.target));
        let bytes = read(&another)?;
        if read(&one)? != bytes {
            return Err(differs(&one, &another));
        }
        if let Some(image) = program.image {
            let (one, another) = (first.join("oci").join(image), copy.join("oci").join(image));
            image::write(&another, &bytes)?;
            if files(&one)? != files(&another)? {
                return Err(differs(&one, &another));
            }
        }
        let bill = sbom::of(&other, (program.package, &program.target), &sha256(&bytes))?;
        let one = first.join(program.bill());
        if read(&one)? != format!("{bill:#}\n").into_bytes() {
            return Err(differs(&one, &copy));
        }
        println!("{}: the same bytes from another folder", program.name);
    }
    Ok(())
}

/// All files below a folder, by their paths in it.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| fault(dir, &error))? {
        let path = entry.map_err(|error| fault(dir, &error))?.path();
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(file, it)| (name.join(file), it)));
        } else {
            found.insert(name, read(&path)?);
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    const RELEASE: &str = include_str!("../../../.github/workflows/release.yml");
    const CI: &str = include_str!("../../../.github/workflows/ci.yml");

    #[test]
    fn workflows_use_actions_by_commit() {
        for line in RELEASE.lines().chain(CI.lines()) {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            let commit = action.split(['@', ' ']).nth(1).unwrap_or_default();
            let is_commit = commit.len() == 40 && commit.bytes().all(|it| it.is_ascii_hexdigit());
            assert!(is_commit, "{action} can change");
        }
    }

    #[test]
    fn the_job_with_an_identity_compiles_nothing() {
        let (build, publish) = RELEASE.split_once("\n  publish:\n").expect("two jobs");
        assert!(build.contains("cargo xtask dist --tool --twice"));
        for right in ["id-token", ": write"] {
            assert!(!build.contains(right), "the build job has {right}");
        }
        for command in ["cargo", "rustc", "actions/checkout"] {
            assert!(!publish.contains(command), "the publishing job runs {command}");
        }
    }
}
