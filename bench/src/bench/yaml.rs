//! YAML to JSON with a complete YAML parser: anchors, flow style, several documents.
//!
//! Owns the call of Python's parser. Knows nothing about the file's content.

use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::{Tools, process};
use std::path::Path;

const TO_JSON: &str = "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";

/// The documents of a YAML file, as the text of a JSON array.
pub(crate) fn to_json(tools: &Tools, file: &Path) -> Result<String> {
    let mut command = tools.python_command();
    command.args(["-c", TO_JSON]).arg(file);
    let output = process::output("python3", command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{} is not readable YAML: {reason}", file.display())))
}
