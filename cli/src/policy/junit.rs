//! Results as JUnit XML, which CI systems show.

use std::path::Path;

use super::cases::CaseResult;
use crate::report::CliError;

/// Writes the results of files of cases, each a suite.
pub(super) fn write(file: &Path, suites: &[(&str, &[CaseResult])]) -> Result<(), CliError> {
    std::fs::write(file, text(suites)).map_err(|error| {
        CliError::new(format!("cannot be written: {error}"), file.display().to_string())
            .expected("a place for the results")
    })
}

fn text(suites: &[(&str, &[CaseResult])]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    suites.iter().for_each(|(place, outcomes)| write_suite(&mut xml, place, outcomes));
    xml.push_str("</testsuites>\n");
    xml
}

fn write_suite(xml: &mut String, place: &str, outcomes: &[CaseResult]) {
    let failures = outcomes.iter().filter(|outcome| outcome.fault.is_some()).count();
    xml.push_str(&format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\">\n",
        escaped(place),
        outcomes.len()
    ));
    for outcome in outcomes {
        let line = outcome.line.unwrap_or_default();
        xml.push_str(&format!(
            "    <testcase classname=\"{0}\" name=\"{1}\" file=\"{0}\" line=\"{line}\"",
            escaped(place),
            escaped(&outcome.name)
        ));
        match &outcome.fault {
            None => xml.push_str("/>\n"),
            Some(fault) => xml.push_str(&format!(
                "><failure message=\"{0}\">{0}</failure></testcase>\n",
                escaped(fault)
            )),
        }
    }
    xml.push_str("  </testsuite>\n");
}

/// Drops characters that XML 1.0 cannot represent.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}
