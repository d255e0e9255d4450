//! The output of a new key: standard output once, or a file that only its owner may read.
//!
//! Owns two rules. A key is on disk before it becomes valid. The file keeps no key that certainly never became valid.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_core::auth::api_key::KeyDigest;
use portcullis_core::auth::record::KeyRecord;
use portcullis_core::secret::Secret;
use serde_json::json;

use super::view::{ONCE, details, view};
use crate::report::{ActionOutcome, CliError, Report};
use crate::store::{Stored, Used};
use crate::time::Seconds;

/// A key with a new secret, and the place of that secret.
pub(super) struct New<'a> {
    pub(super) stored: &'a Stored,
    pub(super) key: &'a Secret,
    /// `None`: the report shows it.
    pub(super) file: Option<&'a KeyFile>,
}

impl New<'_> {
    /// The final report of the command, with `more` after it.
    pub(super) fn report(&self, used: &Used, now: Seconds, more: &str) -> Report {
        let Self { stored, key, file } = self;
        let shown = match file {
            Some(file) => format!("The key is in {}.", file.place),
            None => format!("  {}\n", key.expose()),
        };
        let text = format!("{}\n\n{shown}\n{ONCE}{more}", details(stored, used, now));
        let json = json!({
            "key": file.is_none().then(|| key.expose()),
            "out": file.map(|file| file.place.as_str()),
            "record": view(stored, used, now),
        });
        let report = Report::done(text, json);
        let (org, id) = (&stored.record.org, &stored.record.id);
        match file {
            Some(_) => report,
            None => report.only_here(
                format!("the new secret of key {id} of {org} is shown here alone"),
                format!(
                    "portcullis key rotate {id} --org {org} --force --overlap 0s --reason …, with an output that can \
                     be written or --out FILE; or portcullis key revoke {id} --org {org} --reason …"
                ),
            ),
        }
    }
}

/// A file of new keys, one JSON object a line. It is removed when no key became valid.
pub(super) struct KeyFile {
    path: PathBuf,
    file: File,
    place: String,
    /// The length of the part that stays.
    length: u64,
}

impl KeyFile {
    /// Creates the file; fails when a file of that name exists.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let place = path.display().to_string();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            CliError::new(format!("cannot be made: {error}"), &place)
                .expected("the name of a file that does not exist yet, in a directory that does")
        })?;
        Ok(Self { path: path.to_owned(), file, place, length: 0 })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Adds a key and waits until it is on disk.
    fn add(&mut self, record: &KeyRecord, key: &Secret) -> Result<(), CliError> {
        let digest = KeyDigest::of(key.expose().as_bytes());
        let line = json!({
            "org": record.org,
            "id": record.id,
            "name": record.name,
            "secret": digest.name(),
            "key": key.expose(),
        });
        let written = writeln!(self.file, "{line}").and_then(|()| self.file.sync_all());
        written.map_err(|error| self.unwritable(&error))
    }

    /// Keeps the added key: it is valid.
    fn keep(&mut self) -> Result<(), CliError> {
        self.length = self.file.stream_position().map_err(|error| self.unwritable(&error))?;
        Ok(())
    }

    /// Removes what was added since [`KeyFile::keep`]: that key never became valid.
    fn take_back(&mut self) -> Result<(), CliError> {
        let shortened = self.file.set_len(self.length);
        let back = shortened.and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        back.map(|_| ()).map_err(|error| self.unwritable(&error))
    }

    /// Writes `key` to `file`, then runs `count`, which makes the key valid.
    pub(super) fn around<T>(
        file: Option<&mut Self>,
        (record, key): (&KeyRecord, &Secret),
        count: impl FnOnce() -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let Some(file) = file else {
            return count();
        };
        file.add(record, key)?;
        let counted = count();
        match counted {
            Ok(counted) => {
                file.keep()?;
                Ok(counted)
            }
            Err(refusal) if refusal.outcome() == ActionOutcome::Unknown => {
                file.keep()?;
                let id = &record.id;
                Err(refusal.next(format!(
                    "portcullis key show {id}: whether its current secret is the one in {}",
                    file.place
                )))
            }
            Err(refusal) => {
                file.take_back()?;
                Err(refusal)
            }
        }
    }

    fn unwritable(&self, error: &std::io::Error) -> CliError {
        CliError::new(format!("cannot be written: {error}"), &self.place)
            .expected("a file on a disk with room")
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if self.length == 0 {
            // An empty file that stays only makes the next attempt fail.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
