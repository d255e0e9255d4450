//! `portcullis-load`: the parts of a benchmark around the gateway, in one program. `portcullis_load` defines its
//! messages.
//!
//! Owns the command line. `cargo xtask bench` builds it with optimisation and starts it.

mod drive;
mod mint;
mod serve;
mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::process::ExitCode;

/// The result of every part of the program; the error is a sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["drive", plan] => perform(plan, drive::drive),
        ["serve", upstream] => perform(upstream, |upstream| serve::serve(&upstream)),
        ["mint", claims] => perform(claims, mint::mint),
        _ => Err("expected `drive PLAN`, `serve UPSTREAM` or `mint CLAIMS`, each a file with JSON"
            .into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform<I: DeserializeOwned, O: Serialize>(
    file: &str,
    act: impl FnOnce(I) -> Result<O>,
) -> Result<()> {
    let input = serde_json::from_slice(&std::fs::read(file)?)?;
    println!("{}", serde_json::to_string(&act(input)?)?);
    Ok(())
}
