//! Redis 7 as well as Valkey, for tests that have to pass on both, where the system's package manager has it.
//!
//! Owns its download from Debian's or Ubuntu's archive without root: downloaded, unpacked, not installed. On other
//! systems there is none, and the file `absent` gives the reason; after its removal the next installation of the tools
//! tries again.

use crate::error::{During, Result};
use crate::process;
use crate::tools::last_line;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// The server is in `redis-tools`, under another name; the others are libraries that only it needs.
const PACKAGES: [&str; 6] =
    ["redis-tools", "libjemalloc2", "liblua5.1-0", "liblzf1", "lua-bitop", "lua-cjson"];

/// Finds the libraries in the folder where they were unpacked. `exec` makes the process the server itself.
const WRAPPER: &str = r#"#!/bin/sh
here=$(dirname "$0")/root
LD_LIBRARY_PATH=$(find "$here" -name '*.so*' -exec dirname {} \; | sort -u | paste -s -d :)
export LD_LIBRARY_PATH
exec "$here/usr/bin/redis-server" "$@"
"#;

/// Leaves `redis7/redis-server` in `tools`, or `redis7/absent`; does nothing when one of them is there.
pub(crate) fn install(tools: &Path) -> Result<()> {
    let dir = tools.join("redis7");
    if dir.join("redis-server").exists() || dir.join("absent").exists() {
        return Ok(());
    }
    let attempted = || format!("prepare {}", dir.display());
    fs::create_dir_all(&dir).during(attempted)?;
    if let Err(why) = unpack(&dir) {
        fs::write(dir.join("absent"), format!("{why}\n")).during(attempted)?;
    }
    Ok(())
}

fn unpack(dir: &Path) -> std::result::Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let root = dir.join("root");
    let mut download = Command::new("apt-get");
    download.arg("download").args(PACKAGES).current_dir(dir);
    run(download)?;
    for file in fs::read_dir(dir).map_err(io)? {
        let file = file.map_err(io)?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let mut extract = Command::new("dpkg-deb");
            extract.arg("--extract").arg(&file).arg(&root);
            run(extract)?;
            fs::remove_file(&file).map_err(io)?;
        }
    }
    let server = root.join("usr/bin/redis-server");
    if !server.exists() {
        symlink("redis-check-rdb", &server).map_err(io)?;
    }
    let staged = dir.join("redis-server.staged");
    fs::write(&staged, WRAPPER).map_err(io)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).map_err(io)?;
    let mut version = Command::new(&staged);
    version.arg("--version");
    let version = run(version)?;
    if !version.contains("v=7.") {
        return Err(format!("the archive has another version: {}", version.trim()));
    }
    fs::rename(&staged, dir.join("redis-server")).map_err(io)
}

fn run(command: Command) -> std::result::Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = process::output(&name, command).map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{name}: {}", last_line(&output.stderr))),
    }
}
