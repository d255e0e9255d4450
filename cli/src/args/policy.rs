//! The arguments of `portcullis policy`. Owns their form; what they ask for is in `crate::policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_core::id::{KeyId, OrgId, PolicyVersion};

use super::{Which, key_id, line, org};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a document without activating it. Names every mistake with its line, and warns of rules that
    /// guard nothing. Exit status: 0 good, 1 faults (with --strict also warnings), 2 the file cannot be read.
    Check(CheckArgs),
    /// Decide the calls of a file of cases as the gateway does, and compare with what the cases expect. Exit
    /// status: 0 all as expected, 1 some not, 2 nothing was tried.
    Test(TestArgs),
    /// Print the JSON Schema of policy documents, for editors.
    Schema,
    /// Activate a document for all organisations it names, from their next request on; or, with --canary,
    /// try it on some of their callers.
    Push(PushArgs),
    /// Make the canary the active version for all callers.
    Promote(PromoteArgs),
    /// Try a policy on some callers, on more of them, on none; or make it the active one.
    #[command(subcommand)]
    Canary(CanaryCommand),
    /// Show what differs between two documents, place by place. Without arguments: the active version and
    /// its canary. With one: the active version and that one. Exit status: 0 compared (with --exit-code: no
    /// difference), 1 different with --exit-code, 2 not compared: no such document, no answer of Redis.
    Diff(DiffArgs),
    /// List activations and canaries: when, by whom and why; newest first.
    History(HistoryArgs),
    /// Print a document as JSON; without VERSION the one activated last.
    Show(ShowPolicyArgs),
    /// Go back to an earlier version, from the next request on. During a canary it wants --from: `policy canary
    /// stop` ends only the canary.
    Rollback(RollbackArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CanaryCommand {
    /// Try a document on some callers; the active version stays for the others. Refused if there is a canary.
    Start(CanaryStartArgs),
    /// Try the canary on more callers. Refused if there is no canary, or if it would be fewer.
    Widen(CanaryWidenArgs),
    /// End the trial: the active version decides for all callers again. Refused if there is no canary.
    Stop(CanaryStopArgs),
    /// Make the canary the active version for all callers.
    Promote(PromoteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CanaryStartArgs {
    /// Policy document, YAML or JSON, or a folder of them; `-` for standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) callers: CallersArgs,
    /// Change nothing; show what would differ.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuse a document with warnings.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Try a policy that lacks the role or tier of active keys: calls of those among its callers are refused.
    #[arg(long)]
    pub(crate) orphan_keys: bool,
    #[command(flatten)]
    pub(crate) review: ReviewArgs,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why; kept in the history. Required without --dry-run.
    #[arg(long, value_parser = line, required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CanaryWidenArgs {
    #[command(flatten)]
    pub(crate) callers: CallersArgs,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CanaryStopArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

/// On whom a document is tried, in the commands that are about nothing else.
#[derive(Debug, Clone, Args)]
pub(crate) struct CallersArgs {
    /// This share of callers, such as 10%. A caller in the share stays in it when the share grows.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) percent: Option<u8>,
    /// The holder of this key: its id, as in `portcullis key list` and as `api_key_id` in the audit log. May be given
    /// several times.
    #[arg(long = "caller", value_name = "ID", value_parser = key_id)]
    pub(crate) keys: Vec<KeyId>,
    /// The subject of access tokens: their `sub`, as `client_id` in audit entries whose `auth_method` is `jwt`.
    #[arg(long = "subject", value_name = "SUB", value_parser = line, requires = "issuer")]
    pub(crate) subjects: Vec<String>,
    /// Issuer of those subjects: its exact `iss`.
    #[arg(long, value_name = "ISS", value_parser = line, requires = "subjects")]
    pub(crate) issuer: Option<String>,
    /// A caller with a client certificate: the name, as `client_id` in audit entries whose `auth_method` is `mtls`.
    #[arg(long = "certificate", value_name = "NAME", value_parser = line)]
    pub(crate) certificates: Vec<String>,
}

impl From<CallersArgs> for CanaryArgs {
    fn from(args: CallersArgs) -> Self {
        let CallersArgs { percent, keys, subjects, issuer, certificates } = args;
        Self { percent, keys, subjects, issuer, certificates }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Policy document, YAML or JSON, or a folder of them; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Exit with 1 when there is a warning.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// File of cases, YAML or JSON, such as policy.test.yaml, or a folder of them. docs/guides/test-a-policy.md has its
    /// form.
    pub(crate) file: PathBuf,
    /// Policy that decides, a file or a folder. Default: `policy` of the file of cases, the folder that is tested, or
    /// the file beside it: policy.yaml of policy.test.yaml.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Exit with 1 when no case reaches some rule.
    #[arg(long)]
    pub(crate) covered: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Policy document, YAML or JSON, or a folder of them; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Why; kept in the history. Required without --dry-run.
    #[arg(long, value_parser = line, required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// Change nothing; show what would differ.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuse a document with warnings.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Activate a policy that lacks the role or tier of active keys: their calls are refused from then on.
    #[arg(long)]
    pub(crate) orphan_keys: bool,
    /// Only if this version is active for each organisation now: no other push came first.
    #[arg(long, value_name = "VERSION", value_parser = policy_version)]
    pub(crate) if_active: Option<PolicyVersion>,
    #[command(flatten)]
    pub(crate) review: ReviewArgs,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) canary: CanaryArgs,
}

/// What is looked at before a document is activated.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ReviewArgs {
    /// Do not ask. Otherwise it asks when standard input and error are terminals and CI is unset; scripts pass --yes.
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    /// Also show the tool calls of these audit logs that would get another answer, other arguments or another price.
    #[arg(long, value_name = "LOG", num_args = 1..)]
    pub(crate) against: Vec<PathBuf>,
    /// Push even if cases beside the policy, or below the folder, are not as expected or have faults.
    #[arg(long)]
    pub(crate) failing_cases: bool,
}

/// On whom a document is tried.
#[derive(Debug, Args)]
#[command(next_help_heading = "Trying it on some callers first")]
pub(crate) struct CanaryArgs {
    /// Try the document on this share of callers, such as 10%; the active version stays for the others.
    /// A caller in the share stays in it when the share grows.
    #[arg(long = "canary", value_name = "PERCENT", value_parser = percent)]
    pub(crate) percent: Option<u8>,
    /// Try it on the holder of this key: its id, as in `portcullis key list` and as `api_key_id` in the
    /// audit log. May be given several times, also without --canary.
    #[arg(long = "canary-caller", value_name = "ID", value_parser = key_id)]
    pub(crate) keys: Vec<KeyId>,
    /// Try it on the subject of access tokens: their `sub`, as `client_id` in audit entries whose
    /// `auth_method` is `jwt`.
    #[arg(
        long = "canary-subject",
        value_name = "SUB",
        value_parser = line,
        requires = "issuer"
    )]
    pub(crate) subjects: Vec<String>,
    /// Issuer of those subjects: its exact `iss`.
    #[arg(long = "canary-issuer", value_name = "ISS", value_parser = line, requires = "subjects")]
    pub(crate) issuer: Option<String>,
    /// Try it on a caller with a client certificate: the name, as `client_id` in audit entries whose
    /// `auth_method` is `mtls`.
    #[arg(long = "canary-certificate", value_name = "NAME", value_parser = line)]
    pub(crate) certificates: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Also if the canary lacks the role or tier of active keys: their calls are refused from then on.
    #[arg(long)]
    pub(crate) orphan_keys: bool,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A stored version, or a policy document: YAML or JSON, a folder of them, `-` for standard input.
    #[arg(value_name = "A")]
    pub(crate) first: Option<Side>,
    /// What A is compared with: the new side.
    #[arg(value_name = "B")]
    pub(crate) second: Option<Side>,
    /// The organisation whose active version is meant. Default: those that the document names.
    #[arg(long, value_parser = org, conflicts_with = "second")]
    pub(crate) org: Option<OrgId>,
    /// Decide the tool calls of these audit logs under both sides, and show those that get another answer.
    #[arg(long, value_name = "LOG", num_args = 1..)]
    pub(crate) against: Vec<PathBuf>,
    /// Exit with 1 when they differ.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// One side of a comparison.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    Version(PolicyVersion),
    File(PathBuf),
}

impl From<&str> for Side {
    /// What looks like a version is one; a file of such a name is `./` and that.
    fn from(text: &str) -> Self {
        PolicyVersion::new(text).map_or_else(|| Self::File(text.into()), Self::Version)
    }
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// At most this many entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ShowPolicyArgs {
    /// A stored version. Default: the one activated last.
    #[arg(value_parser = policy_version)]
    pub(crate) version: Option<PolicyVersion>,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Version to go back to. Default: what was active before the last change, for the organisations of
    /// that change, so that a second rollback undoes the first.
    #[arg(long, value_name = "VERSION", value_parser = policy_version)]
    pub(crate) to: Option<PolicyVersion>,
    /// Only if this version is active, or the canary, now: the one to replace. The canary's ends only the canary.
    #[arg(long, value_name = "VERSION", value_parser = policy_version)]
    pub(crate) from: Option<PolicyVersion>,
    /// Also undo a rollback that another actor made within the last hour, and end a canary.
    #[arg(long)]
    pub(crate) force: bool,
    /// Also if that version lacks the role or tier of active keys: their calls are refused from then on.
    #[arg(long)]
    pub(crate) orphan_keys: bool,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

fn policy_version(text: &str) -> Result<PolicyVersion, String> {
    PolicyVersion::new(text).ok_or_else(|| format!("expected {}", PolicyVersion::EXPECTED))
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.trim_end_matches('%').trim_end();
    match number.parse() {
        Ok(percent @ 0..=99) => Ok(percent),
        Ok(100) => Err("expected at most 99%; for all callers: portcullis policy canary promote, or a push without --canary".to_owned()),
        Ok(_) | Err(_) => Err("expected a whole number from 1% to 99%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_leaves_some_on_either_side() {
        assert_eq!([percent("10%"), percent("1 %"), percent("99")], [Ok(10), Ok(1), Ok(99)]);
        assert_eq!(percent("0%"), Ok(0), "with callers that are named");
        for bad in ["100%", "256", "-1", "10.5%", "%", "ten", ""] {
            assert!(percent(bad).is_err(), "{bad:?}");
        }
    }
}
