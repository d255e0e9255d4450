//! Arguments of `portcullis key`. Owns their form; what they ask for is in `crate::key`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_core::auth::certificate::Fingerprint;
use portcullis_core::auth::record::NameList;
use portcullis_core::auth::source::{SourceRange, SourceRanges};
use portcullis_core::id::{KeyId, OrgId, PolicyName};

use super::{key_id, line, org, policy_name};
use crate::time::{Span, Time};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Issue a new key. It is shown once; only its SHA-256 is stored.
    Issue(IssueArgs),
    /// List keys.
    List(ListArgs),
    /// Show one key's record, when each of its secrets was last used, and what is to be looked at.
    Show(OneKey),
    /// Change what a key may do, from where and until when, from its next request on.
    Set(SetArgs),
    /// Give a key a new secret; the old one works until the overlap ends.
    ///
    /// With --older-than instead of an ID: every key whose secret is older, one after the other.
    Rotate(RotateArgs),
    /// Revoke a key for good. Its next request is refused.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Organisation the key belongs to.
    #[arg(long, value_parser = org)]
    pub(crate) org: OrgId,
    /// What the key is for, in a few words: one key per agent or integration.
    #[arg(long, value_parser = line)]
    pub(crate) name: String,
    /// Role of its holder; the policy says what it may do.
    #[arg(long, value_parser = policy_name)]
    pub(crate) role: PolicyName,
    /// Tier; the policy says which limits it has.
    #[arg(long, value_parser = policy_name)]
    pub(crate) tier: PolicyName,
    #[command(flatten)]
    pub(crate) terms: Terms,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
    /// Write the key to this new file (mode 0600, one JSON object a line) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// How narrowly a key may be used; what is not given stays as it is.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// Of what the role may use, only these connectors: names separated by commas, * and ? are
    /// wildcards; `all` for as the role says.
    #[arg(long, value_name = "NAMES", value_parser = names)]
    pub(crate) connectors: Option<Setting<NameList>>,
    /// Of what the role may call, only these tools: names separated by commas, * and ? are
    /// wildcards; `all` for as the role says.
    #[arg(long, value_name = "NAMES", value_parser = names)]
    pub(crate) tools: Option<Setting<NameList>>,
    /// Of what the role may call, only tools that the policy declares read-only.
    #[arg(
        long,
        value_enum,
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on"
    )]
    pub(crate) read_only: Option<Switch>,
    /// Only from these addresses: addresses and ranges separated by commas; `any` for anywhere.
    #[arg(long, value_name = "RANGES", value_parser = sources)]
    pub(crate) sources: Option<Setting<SourceRanges>>,
    /// Only together with the client certificate that has this SHA-256 (64 hex digits, with or
    /// without colons); `none` for without.
    #[arg(long, value_name = "SHA256", value_parser = fingerprint)]
    pub(crate) certificate: Option<Setting<Fingerprint>>,
    /// Not valid from then on: a duration from now (90d, 12h, 30m), a time (2027-01-31T00:00:00Z),
    /// or `never`.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time)]
    pub(crate) expires: Option<Setting<Time>>,
    /// Not valid before: a duration from now, a time, or `none`.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time)]
    pub(crate) not_before: Option<Setting<Time>>,
}

/// A restriction, or that there is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Setting<T> {
    Free,
    To(T),
}

impl<T> Setting<T> {
    pub(crate) fn into_option(self) -> Option<T> {
        match self {
            Setting::Free => None,
            Setting::To(bound) => Some(bound),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this organisation's keys.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Args)]
pub(crate) struct OneKey {
    /// Id of the key: the third part of pck_ORG_ID_….
    #[arg(value_parser = key_id)]
    pub(crate) id: KeyId,
    /// Organisation of the key; looked for in all if not given.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) key: OneKey,
    /// What the key is for.
    #[arg(long, value_parser = line)]
    pub(crate) name: Option<String>,
    /// Role of its holder.
    #[arg(long, value_parser = policy_name)]
    pub(crate) role: Option<PolicyName>,
    /// Tier.
    #[arg(long, value_parser = policy_name)]
    pub(crate) tier: Option<PolicyName>,
    #[command(flatten)]
    pub(crate) terms: Terms,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Id of the key: the third part of pck_ORG_ID_…. Required without --older-than.
    #[arg(value_parser = key_id, required_unless_present = "older_than")]
    pub(crate) id: Option<KeyId>,
    /// Organisation of the key, or of the keys.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// With --older-than: keys of all organisations, when those that are due belong to several.
    #[arg(long, requires = "older_than", conflicts_with = "org")]
    pub(crate) all: bool,
    /// How long the old secret stays valid: 24h, 30m, 0s.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "24h")]
    pub(crate) overlap: Span,
    /// Also while the overlap of the rotation before lasts: clients may still use an older secret.
    #[arg(long)]
    pub(crate) force: bool,
    /// Every key whose secret is older than that, such as 30d.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, conflicts_with = "id")]
    pub(crate) older_than: Option<Span>,
    /// Only keys of this role.
    #[arg(long, requires = "older_than", value_parser = policy_name)]
    pub(crate) role: Option<PolicyName>,
    /// Only list the keys.
    #[arg(long, requires = "older_than")]
    pub(crate) dry_run: bool,
    /// Write new keys to this new file (mode 0600, one JSON object a line) instead of standard
    /// output; each before its rotation, so that none is lost.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Why; kept with the record and in the admin chain. Required without --dry-run.
    #[arg(long, value_parser = line, required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) key: OneKey,
    /// Why; kept with the record and in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

fn names(text: &str) -> Result<Setting<NameList>, String> {
    const LONGEST: usize = 128;
    if text == "all" {
        return Ok(Setting::Free);
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let valid = |name: &String| {
        (1..=LONGEST).contains(&name.len()) && !name.chars().any(|c| c.is_control())
    };
    if !names.iter().all(valid) {
        return Err(
            "expected names separated by commas, such as search_*,get_user, or `all`".into()
        );
    }
    Ok(Setting::To(NameList::from(names)))
}

fn sources(text: &str) -> Result<Setting<SourceRanges>, String> {
    if text == "any" {
        return Ok(Setting::Free);
    }
    let range = |text: &str| {
        SourceRange::new(text.trim())
            .ok_or_else(|| format!("found {text:?}, expected {}, or `any`", SourceRange::EXPECTED))
    };
    let ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    Ok(Setting::To(SourceRanges::new(ranges)))
}

fn fingerprint(text: &str) -> Result<Setting<Fingerprint>, String> {
    if text == "none" {
        return Ok(Setting::Free);
    }
    let print = Fingerprint::from_hex(text).map(Setting::To);
    print.ok_or_else(|| format!("expected {}, or `none`", Fingerprint::EXPECTED))
}

fn time(text: &str) -> Result<Setting<Time>, String> {
    match text {
        "never" | "none" => Ok(Setting::Free),
        text => text.parse().map(Setting::To),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_are_read_or_refused() {
        assert_eq!(names("all"), Ok(Setting::Free));
        let list = NameList::from(vec!["search_*".to_owned(), "get_user".to_owned()]);
        assert_eq!(names("search_*, get_user"), Ok(Setting::To(list)));
        for bad in ["", ",", "a,", "a,,b", "a\u{7}"] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
        assert_eq!(sources("any"), Ok(Setting::Free));
        assert!(
            matches!(sources("10.0.0.0/8, ::1"), Ok(Setting::To(ranges)) if ranges.iter().len() == 2)
        );
        for bad in ["", "10.0.0.1/8", "10.0.0.0/8,", "localhost"] {
            assert!(sources(bad).is_err(), "{bad:?}");
        }
        let colons = ["Ab"; 32].join(":");
        let print = Fingerprint::from_hex(&"ab".repeat(32)).unwrap();
        assert_eq!(fingerprint(&colons), Ok(Setting::To(print)));
        assert!(fingerprint("ab").is_err() && fingerprint(&"g".repeat(64)).is_err());
        assert_eq!(time("never"), Ok(Setting::Free));
        assert_eq!(time("90d"), Ok(Setting::To(Time::In(7_776_000))));
    }
}
