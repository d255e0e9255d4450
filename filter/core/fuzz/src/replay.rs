//! Inputs from files, one after the other, without a fuzzer.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

/// Replays the files that the command line names; an invariant that does not hold panics.
pub fn main(check: fn(&[u8])) -> ExitCode {
    for file in env::args_os().skip(1) {
        if let Err(error) = file_at(Path::new(&file), check) {
            eprintln!("could not read {}: {error}", Path::new(&file).display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Replays every file of a directory; says how many there were.
///
/// # Errors
/// When the directory or a file cannot be read.
pub fn directory(directory: &Path, check: fn(&[u8])) -> io::Result<usize> {
    let mut files: Vec<_> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    files.iter().try_for_each(|file| file_at(file, check))?;
    Ok(files.len())
}

fn file_at(file: &Path, check: fn(&[u8])) -> io::Result<()> {
    let input = fs::read(file)?;
    eprintln!("{}", file.display());
    check(&input);
    Ok(())
}
