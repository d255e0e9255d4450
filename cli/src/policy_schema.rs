//! `portcullis policy schema`: the JSON Schema of policy documents, for editors.
//!
//! Prints the published schema unchanged. The tests compare it with the decoder.

use crate::report::{CliError, Report};

const SCHEMA: &str = include_str!("../../docs/policy.schema.json");

pub(crate) fn schema() -> Result<Report, CliError> {
    let json = serde_json::from_str(SCHEMA).map_err(|error| {
        CliError::new(format!("it is no JSON: {error}"), "the schema in this program")
            .expected("docs/policy.schema.json as the repository has it")
    })?;
    Ok(Report::done(SCHEMA, json))
}
