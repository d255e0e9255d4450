//! `portcullis token`: deny tokens although they prove themselves, allow them again, list what is denied; mint tokens
//! for trials.
//!
//! Owns the options for denials. The core owns where a denial is stored, and what it covers.

mod mint;

use clap::{Args, Subcommand};
use portcullis_core::audit::AdminAction;
use portcullis_core::auth::deny_list::{Deniable, DenyListEntry};
use portcullis_core::id::OrgId;
use serde_json::{Value, json};

use crate::admin_log::AdminLog;
use crate::report::{CliError, Report, table};
use crate::session::Session;
use crate::store::Store;
use crate::time::{Seconds, Time};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Deny one token, or every token of a subject. The next request with it is refused.
    Deny(DenyArgs),
    /// Remove a deny-list entry.
    Allow(AllowArgs),
    /// List the deny list.
    List(ListArgs),
    /// Make a signing key for tests, and print the `issuers` that the gateway needs for it.
    Keygen(mint::KeygenArgs),
    /// Mint an access token for tests with a key of `token keygen`.
    Mint(mint::MintArgs),
}

/// What is denied.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct What {
    /// One token, by its `jti`.
    #[arg(long, value_name = "ID", value_parser = values::line, group = "what")]
    jti: Option<String>,
    /// Every token of this subject, by its `sub`.
    #[arg(long, value_name = "SUB", value_parser = values::line, group = "what")]
    subject: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    what: What,
    /// Issuer of the token: its exact `iss`.
    #[arg(long, value_name = "ISS", value_parser = values::line)]
    issuer: String,
    /// Organisation that the token belongs to.
    #[arg(long, value_parser = values::org)]
    org: OrgId,
}

#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    place: Place,
    /// Only tokens issued before: a time (2027-01-31T00:00:00Z), or `now`, which includes the current second. Later tokens stay
    /// valid.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = before)]
    issued_before: Option<Time>,
    /// Why; kept with the denial.
    #[arg(long, value_parser = values::line)]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct AllowArgs {
    #[command(flatten)]
    place: Place,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = values::line)]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this organisation's denials.
    #[arg(long, value_parser = values::org)]
    org: Option<OrgId>,
}

/// A time, or now.
/// `now` includes the current second: `iat` has whole seconds, so a token of this second was issued before the command.
fn before(text: &str) -> Result<Time, String> {
    if text == "now" { Ok(Time::In(1)) } else { text.parse() }
}

impl Place {
    fn deniable(&self) -> Result<Deniable, CliError> {
        let issuer = self.issuer.clone();
        match (&self.what.jti, &self.what.subject) {
            (Some(id), None) => Ok(Deniable::Token { issuer, id: id.clone() }),
            (None, Some(subject)) => Ok(Deniable::Subject { issuer, subject: subject.clone() }),
            (Some(_), Some(_)) | (None, None) => {
                Err(CliError::usage("nothing to deny").expected("--jti ID or --subject SUB"))
            }
        }
    }
}

/// The denial in the words of the operator.
fn named(deniable: &Deniable) -> String {
    match deniable {
        Deniable::Token { issuer, id } => format!("token {id} of {issuer}"),
        Deniable::Subject { issuer, subject } => format!("subject {subject} of {issuer}"),
        Deniable::Certificate(sha256) => format!("certificate {sha256}"),
    }
}

pub(crate) fn run(session: &Session, command: TokenCommand) -> Result<Report, CliError> {
    match command {
        TokenCommand::Deny(args) => deny(session, args),
        TokenCommand::Allow(args) => allow(session, &args),
        TokenCommand::List(args) => list(session, &args),
        TokenCommand::Keygen(args) => mint::keygen(&args),
        TokenCommand::Mint(args) => mint::mint(&args),
    }
}

fn deny(session: &Session, args: DenyArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let deniable = args.place.deniable()?;
    let what = named(&deniable);
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let record = DenyListEntry {
        what: what.clone(),
        at: now.0,
        by: admin_log.actor.clone(),
        reason: args.reason,
        issued_before: args.issued_before.map(|time| time.seconds(now).0),
    };
    store.add_organisation(&args.place.org)?;
    let said = (what.as_str(), record.issued_before);
    store.deny(&args.place.org, &deniable.key(&args.place.org), &record, |last| {
        admin_log.of_denial(AdminAction::TokenDeny, &args.place.org, said, last)
    })?;
    let text = format!("{what} is denied in {}, from its next request on", args.place.org);
    Ok(Report::done(text, json!({ "denied": view(&args.place.org, &record) })))
}

fn allow(session: &Session, args: &AllowArgs) -> Result<Report, CliError> {
    let deniable = args.place.deniable()?;
    let (what, org) = (named(&deniable), &args.place.org);
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let entry = |last: Option<&[u8]>| {
        admin_log.of_denial(AdminAction::TokenAllow, org, (what.as_str(), None), last)
    };
    if store.undeny(org, &deniable.key(org), entry)? {
        Ok(Report::done(format!("{what} is no longer denied in {org}"), json!({ "allowed": what })))
    } else {
        Err(CliError::new(format!("{what} is not denied"), format!("organisation {org}"))
            .next("portcullis token list"))
    }
}

fn list(session: &Session, args: &ListArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let mut denied = Vec::new();
    for org in organisations {
        for record in store.denials(&org)? {
            denied.push((org.clone(), record));
        }
    }
    let header = ["ORG", "DENIED", "ISSUED BEFORE", "SINCE", "BY", "REASON"];
    let rows = denied.iter().map(|(org, record)| {
        [
            org.to_string(),
            record.what.clone(),
            record.issued_before.map_or_else(|| "ever".to_owned(), |end| Seconds(end).rfc3339()),
            Seconds(record.at).rfc3339(),
            record.by.clone(),
            record.reason.clone(),
        ]
    });
    let text = if denied.is_empty() {
        "nothing is denied".to_owned()
    } else {
        table(header, rows.collect())
    };
    let views: Vec<Value> = denied.iter().map(|(org, record)| view(org, record)).collect();
    Ok(Report::done(text, json!({ "denied": views })))
}

fn view(org: &OrgId, record: &DenyListEntry) -> Value {
    json!({
        "org": org,
        "what": record.what,
        "at": Seconds(record.at).rfc3339(),
        "by": record.by,
        "reason": record.reason,
        "issued_before": record.issued_before.map(|end| Seconds(end).rfc3339()),
    })
}
