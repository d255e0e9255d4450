//! `portcullis`: keys, policy and audit log, for operators of the gateway.
//!
//! Owns input and output: arguments, tables, JSON, exit status. The core defines keys, policies and intact logs;
//! `redis-lua` defines their storage in Redis.
//!
//! Exit status: 0 done, 1 refused or found wanting, 2 usage or nothing found out ([`Kind`]), 3 done in part.
//!
//! [`Kind`]: report::Kind
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod admin_log;
mod approve;
mod args;
mod audit;
mod cause;
mod connection;
mod discover;
mod doctor;
mod document;
mod escape;
mod explain;
mod http;
mod key;
mod limits;
mod operator;
mod policy;
mod policy_schema;
mod private_file;
mod random;
mod render;
mod report;
mod restore;
mod secrets;
mod session;
mod store;
mod time;
mod token;
mod values;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{
    ApproveCommand, AuditCommand, CanaryCommand, Cli, Command, KeyCommand, LimitsCommand,
    OperatorCommand, PolicyCommand,
};
use report::{CliError, Output, Report};

fn main() -> ExitCode {
    let read = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((matches, cli))
    });
    let (matches, cli) = match read {
        Ok(read) => read,
        Err(error) => return not_understood(&shortened(error)),
    };
    let (output, kind) = (cli.session.output, cli.command.kind());
    match cli.session.agrees_with(&matches).and_then(|()| run(cli)) {
        Ok(report) => report.print(output, kind),
        Err(refusal) => refusal.of_kind(kind).print(output),
    }
}

fn run(cli: Cli) -> Result<Report, CliError> {
    let session = &cli.session;
    match cli.command {
        Command::Key(command) => match *command {
            KeyCommand::Issue(args) => key::issue(session, args),
            KeyCommand::List(args) => key::list(session, &args),
            KeyCommand::Show(args) => key::show(session, &args),
            KeyCommand::Set(args) => key::set(session, &args),
            KeyCommand::Rotate(args) => key::rotate(session, args),
            KeyCommand::Revoke(args) => key::revoke(session, &args),
        },
        Command::Policy(command) => match command {
            PolicyCommand::Check(args) => policy::check(&args),
            PolicyCommand::Test(args) => policy::test(&args),
            PolicyCommand::Schema => policy_schema::schema(),
            PolicyCommand::Push(args) => policy::push(session, &args),
            PolicyCommand::Promote(args) => policy::promote(session, &args),
            PolicyCommand::Canary(command) => match command {
                CanaryCommand::Start(args) => policy::start(session, args),
                CanaryCommand::Widen(args) => policy::widen(session, args),
                CanaryCommand::Stop(args) => policy::stop(session, &args),
                CanaryCommand::Promote(args) => policy::promote(session, &args),
            },
            PolicyCommand::Diff(args) => policy::diff(session, &args),
            PolicyCommand::History(args) => policy::history(session, &args),
            PolicyCommand::Show(args) => policy::show(session, &args),
            PolicyCommand::Rollback(args) => policy::rollback(session, &args),
        },
        Command::Limits(command) => match command {
            LimitsCommand::List(args) => limits::list(session, &args),
            LimitsCommand::Show(args) => limits::show(session, &args),
            LimitsCommand::Reset(args) => limits::reset(session, &args),
        },
        Command::Token(command) => token::run(session, command),
        Command::Operator(command) => match command {
            OperatorCommand::Create(args) => operator::create(session, &args),
            OperatorCommand::Acl(args) => operator::acl(session, &args),
            OperatorCommand::List => operator::list(session),
            OperatorCommand::Remove(args) => operator::remove(session, &args),
        },
        Command::Discover(args) => discover::discover(&args),
        Command::Redis(command) => restore::run(session, &command),
        Command::Audit(command) => match command {
            AuditCommand::Verify(args) => audit::verify(session, &args),
            AuditCommand::Anchor(args) => audit::anchor(session, &args),
            AuditCommand::Search(args) => audit::search(session, &args),
            AuditCommand::Tail(args) => audit::tail(session, &args),
            AuditCommand::Export(args) => audit::export(session, &args),
            AuditCommand::Report(args) => audit::report(session, &args),
            AuditCommand::Show(args) => audit::show(session, &args),
        },
        Command::Approve(command) => match command {
            ApproveCommand::List(args) => approve::list(session, &args),
            ApproveCommand::Grant(args) => approve::grant(session, &args),
            ApproveCommand::Deny(args) => approve::deny(session, &args),
        },
        Command::Watch(args) => watch::watch(session, &args),
        Command::Top(args) => audit::top(session, &args),
        Command::Explain(args) => explain::run(session, &args),
        Command::Doctor(args) => doctor::run(session, &args),
        Command::Render(args) => render::render(session, &args),
        Command::Completions { shell } => Ok(completions(shell)),
        Command::Man { folder } => manual(&folder),
    }
}

fn completions(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let json = serde_json::json!({ "shell": shell.to_string(), "script": &script });
    Report::done(script, json)
}

fn manual(folder: &std::path::Path) -> Result<Report, CliError> {
    let place = folder.display().to_string();
    let failed = |error: std::io::Error| {
        CliError::new(format!("cannot be written: {error}"), &place)
            .expected("a folder for manual pages, such as /usr/local/share/man/man1")
            .next("name a folder that you may write to")
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    // A manual page has the text of `--help`, with the names of subcommands in full.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    let json = serde_json::json!({ "folder": &place });
    Ok(Report::done(
        format!("{place} has a page for every command: man -l {place}/portcullis.1"),
        json,
    ))
}

/// Clap refused the arguments, or help was requested. Its text is for operators, unless the refused arguments ask for
/// JSON.
fn not_understood(error: &clap::Error) -> ExitCode {
    let arguments = secrets::command_line();
    let wants_json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair == ["--output", "json"]);
    if wants_json && error.use_stderr() {
        let text = secrets::hidden(&error.to_string(), &arguments);
        let (found, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let (found, expected) = parts(found.trim_start_matches("error: "), rest);
        return CliError::usage(found).expected(expected).print(Output::Json);
    }
    // A failed write cannot be reported.
    if error.use_stderr() {
        let text = secrets::hidden(&error.to_string(), &arguments);
        let _ = write!(std::io::stderr(), "{}", escape::text(&text));
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What was found and what was expected, of clap's first paragraph and the rest of its text.
fn parts<'a>(first: &'a str, rest: &'a str) -> (&'a str, &'a str) {
    let values = || {
        let (found, values) = first.split_once("\n  [possible values: ")?;
        Some((found, values.trim_end().trim_end_matches(']')))
    };
    let line = |start: &str| rest.lines().find_map(|line| line.trim_start().strip_prefix(start));
    let (found, expected) = first
        .split_once(": expected ")
        .or_else(values)
        .unwrap_or_else(|| (first, line("tip: ").or_else(|| line("Usage: ")).unwrap_or_default()));
    (found.trim_end(), expected.trim_end())
}

/// Shows a refused argument again, but not pages of it.
fn shortened(mut error: clap::Error) -> clap::Error {
    const SHOWN: usize = 100;
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        return error;
    };
    let length = value.chars().count();
    if length > SHOWN {
        let start: String = value.chars().take(SHOWN).collect();
        let short = format!("{start}… ({length} characters)");
        error.insert(ContextKind::InvalidValue, ContextValue::String(short));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding of an outside tester: `found` had everything, and `expected` was empty.
    #[test]
    fn a_refused_argument_is_found_and_expected_in_json_too() {
        for (arguments, found, expected) in [
            (
                &["key", "show", "k1a2b3", "--output", "xml"][..],
                "invalid value 'xml' for '--output <OUTPUT>'",
                "table, json",
            ),
            (
                &["token", "mint", "--expires", "-5d"],
                "invalid value '-5d' for '--expires <DURATION>'",
                "a duration, such as 30d, 24h, 30m or 45s; it is never negative",
            ),
            (
                &["key", "lst"],
                "unrecognized subcommand 'lst'",
                "a similar subcommand exists: 'list'",
            ),
        ] {
            let words = std::iter::once(&"portcullis").chain(arguments);
            let text = Cli::command().try_get_matches_from(words).unwrap_err().to_string();
            let (first, rest) = text.split_once("\n\n").unwrap();
            assert_eq!(
                parts(first.trim_start_matches("error: "), rest),
                (found, expected),
                "{text}"
            );
        }
    }
}
