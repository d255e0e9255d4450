//! Files with secrets in them: readable by their owner only, never half-written.
//!
//! Knows nothing about the secrets themselves.

use crate::error::{During, Result};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes `content` with mode 0600. A reader sees the old file or the new one, never a part.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    let attempted = || format!("write {}", path.display());
    let staged = path.with_extension("staged");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .during(attempted)?;
    // `mode` only applies to a file that did not exist.
    file.set_permissions(Permissions::from_mode(0o600)).during(attempted)?;
    file.write_all(content.as_bytes()).during(attempted)?;
    fs::rename(&staged, path).during(attempted)
}

/// `bytes` random bytes from the operating system, as lower-case hex.
pub fn random_hex(bytes: usize) -> Result<String> {
    use std::io::Read;
    let mut buffer = vec![0_u8; bytes];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut buffer))
        .during(|| "read random bytes".to_owned())?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}
