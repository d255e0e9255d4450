//! Options that several commands have in common, and their parsers.
//!
//! Owns the form of each. Commands check whether the named objects exist.

use clap::Args;
use portcullis_core::auth::api_key::PresentedKey;
use portcullis_core::id::{KeyId, OrgId, PolicyName};

use crate::report::CliError;

/// Which organisations a change is for.
#[derive(Debug, Default, Args)]
pub(crate) struct Which {
    /// Only this organisation; may be given several times.
    #[arg(long, value_parser = org)]
    pub(crate) org: Vec<OrgId>,
    /// All organisations that this concerns, when they are several.
    #[arg(long, conflicts_with = "org")]
    pub(crate) all: bool,
}

impl Which {
    /// Whether a change of `org` is requested; without names, all organisations are.
    pub(crate) fn means(&self, org: &OrgId) -> bool {
        self.org.is_empty() || self.org.contains(org)
    }

    /// Refuses a change that affects several organisations when neither they nor all were requested.
    pub(crate) fn covers(&self, concerned: &[OrgId]) -> Result<(), CliError> {
        if concerned.len() < 2 || self.all || !self.org.is_empty() {
            return Ok(());
        }
        let names = concerned.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ");
        let found = format!("this concerns {} organisations: {names}", concerned.len());
        Err(CliError::usage(found)
            .expected("--org ORG for each that is meant, or --all; nothing was changed")
            .next("the same command with --org or --all"))
    }
}

pub(crate) fn org(text: &str) -> Result<OrgId, String> {
    OrgId::new(text).ok_or_else(|| format!("expected {}", OrgId::EXPECTED))
}

pub(crate) fn key_id(text: &str) -> Result<KeyId, String> {
    KeyId::new(text).ok_or_else(|| match PresentedKey::parse(text.as_bytes()) {
        Ok(PresentedKey { id, .. }) => {
            format!("this is the whole key, a secret: name it by its id, which is {id}")
        }
        Err(_) => format!("expected the id of a key: {}; never the whole key", KeyId::EXPECTED),
    })
}

pub(crate) fn policy_name(text: &str) -> Result<PolicyName, String> {
    PolicyName::new(text).ok_or_else(|| format!("expected {}", PolicyName::EXPECTED))
}

/// A share, such as 80%.
pub(crate) fn share(text: &str) -> Result<u8, String> {
    let number = text.trim_end_matches('%').trim_end().parse();
    let share = number.ok().filter(|share| (0..=100).contains(share));
    share.ok_or_else(|| "expected a whole number from 0% to 100%".to_owned())
}

/// One line of free text that is stored and shown again.
pub(crate) fn line(text: &str) -> Result<String, String> {
    const LONGEST: usize = 200;
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
        return Err(format!("expected one line of 1 to {LONGEST} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_is_one_line() {
        assert_eq!(line("  key leaked "), Ok("key leaked".to_owned()));
        for bad in ["", "  ", "two\nlines", "\u{1b}[31m", &"x".repeat(201)] {
            assert!(line(bad).is_err(), "{bad:?}");
        }
    }
}
