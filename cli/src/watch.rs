//! `portcullis watch`: calls a hook when a call begins to wait for an approval, or a window is nearly used up.
//!
//! Owns which events are new, and the call of the hook. It only reads: gateways do not need it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use crate::args::{Session, WatchArgs};
use crate::report::{CliError, Output, Report, Verdict, progress};
use crate::store::Store;
use crate::time::timestamp;
use crate::{approve, escape, http, limits};

/// The timeout of a hook.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest run of a program, which may send a mail. Then it is ended, so that later events are sent.
const LONGEST: Duration = Duration::from_secs(60);

/// An event for the operator, and its unique name.
struct Event {
    name: String,
    body: Value,
}

pub(crate) fn watch(session: &Session, args: &WatchArgs) -> Result<Report, CliError> {
    let hooks = Hooks::new(session, args)?;
    let mut store = Store::open(session)?;
    let mut told = Told::default();
    loop {
        match events(&mut store, args) {
            Ok(events) => {
                let failed = hooks.tell(&events, &mut told);
                if args.once {
                    let verdict = if failed { Verdict::Wanting } else { Verdict::Good };
                    return Ok(Report::written(verdict));
                }
            }
            Err(refusal) if args.once || refusal.is_for_want_of_rights() => return Err(refusal),
            Err(refusal) => {
                progress(&format!("looked in vain: {}", refusal.found()));
                // The next poll reports the reason if this fails.
                let _ = store.reopen();
            }
        }
        std::thread::sleep(Duration::from_secs(args.every.0.max(1)));
    }
}

fn events(store: &mut Store, args: &WatchArgs) -> Result<Vec<Event>, CliError> {
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let waiting = approve::waiting(store, &organisations)?.into_iter().map(|call| Event {
        name: named("call", &call, ["/org", "/digest", "/id", "/request_id"]),
        body: json!({ "event": "approval_waiting", "at": timestamp(), "call": call }),
    });
    let used = limits::used_over(store, &organisations, args.over)?;
    let used = used.into_iter().map(|window| Event {
        name: named("window", &window, ["/org", "/limit", "/of"]),
        body: json!({ "event": "limit_near", "at": timestamp(), "over": args.over, "window": window }),
    });
    Ok(waiting.chain(used).collect())
}

/// The name of an event.
fn named<const N: usize>(kind: &str, what: &Value, parts: [&str; N]) -> String {
    let parts = parts.map(|part| what.pointer(part).map(Value::to_string).unwrap_or_default());
    format!("{kind} {}", parts.join(" "))
}

/// The events that were sent, and to which hooks.
#[derive(Default)]
struct Told {
    /// Events that all hooks got.
    everywhere: BTreeSet<String>,
    /// Events that the hook with this number got.
    by_hook: BTreeSet<(usize, String)>,
}

/// The receivers of events.
struct Hooks<'a> {
    each: Vec<Hook<'a>>,
    /// What is said of a hook that failed.
    failed: &'static str,
    output: Output,
}

enum Hook<'a> {
    Exec(&'a PathBuf),
    Post(&'a str, Agent),
}

impl<'a> Hooks<'a> {
    fn new(session: &Session, args: &'a WatchArgs) -> Result<Self, CliError> {
        let post = args.post.as_deref();
        if post.is_some_and(|url| !["http://", "https://"].iter().any(|it| url.starts_with(it))) {
            return Err(CliError::usage("the URL of --post")
                .expected("a URL that starts with https:// or http://"));
        }
        let post = post.map(|url| Hook::Post(url, http::agent(PATIENCE)));
        let each = args.exec.as_ref().map(Hook::Exec).into_iter().chain(post).collect();
        let failed = if args.once { "the hook failed" } else { "the hook is called again" };
        Ok(Self { each, failed, output: session.output })
    }

    /// Sends each hook its new events; returns whether one of them failed. A hook that times out gets no more in this
    /// round, and delays no other hook.
    fn tell(&self, events: &[Event], told: &mut Told) -> bool {
        // An event that is over may begin again.
        let names: BTreeSet<&String> = events.iter().map(|event| &event.name).collect();
        told.everywhere.retain(|name| names.contains(name));
        told.by_hook.retain(|(_, name)| names.contains(name));
        let (mut failed, mut slow) = (false, BTreeSet::new());
        for Event { name, body } in events {
            if told.everywhere.contains(name) {
                continue;
            }
            let mut heard = true;
            for (number, hook) in self.each.iter().enumerate() {
                let entry = (number, name.clone());
                if told.by_hook.contains(&entry) {
                    continue;
                }
                let began = Instant::now();
                let called = if slow.contains(&number) { None } else { Some(hook.call(body)) };
                match called {
                    Some(Ok(())) => _ = told.by_hook.insert(entry),
                    Some(Err(refusal)) => {
                        heard = false;
                        progress(&format!("{}: {}", self.failed, refusal.found()));
                        if began.elapsed() >= PATIENCE {
                            slow.insert(number);
                        }
                    }
                    None => heard = false,
                }
            }
            failed |= !heard;
            if heard {
                self.print(body);
                told.everywhere.insert(name.clone());
            }
        }
        failed
    }

    fn print(&self, event: &Value) {
        let line = match self.output {
            Output::Json => event.to_string(),
            Output::Table => text(event),
        };
        // A failed write cannot be reported.
        let _ = writeln!(std::io::stdout(), "{}", escape::line(&line));
    }
}

impl Hook<'_> {
    fn call(&self, event: &Value) -> Result<(), CliError> {
        match self {
            Self::Exec(program) => run(program, event),
            Self::Post(url, agent) => post(agent, url, event),
        }
    }
}

fn run(program: &PathBuf, event: &Value) -> Result<(), CliError> {
    let place = program.display().to_string();
    let failed =
        |found: String| CliError::new(found, &place).expected("a program that ends with 0");
    let mut child = Command::new(program)
        // The program must not get the operator's password.
        .env_remove("PORTCULLIS_REDIS")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("{place} cannot be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        let event = event.to_string();
        // A program need not read its input: an event that does not fit into the pipe waits in a thread of its own.
        std::thread::spawn(move || writeln!(stdin, "{event}"));
    }
    let lost = |error: std::io::Error| failed(format!("{place}: {error}"));
    match ended(&mut child, LONGEST).map_err(lost)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(failed(format!("{place} ended with {status}"))),
        None => Err(failed(format!("{place} did not end within {} s", LONGEST.as_secs()))),
    }
}

/// The exit status of a program; `None` for one that had to be ended.
fn ended(child: &mut Child, within: Duration) -> std::io::Result<Option<ExitStatus>> {
    const LOOK: Duration = Duration::from_millis(20);
    let began = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if began.elapsed() < within => std::thread::sleep(LOOK),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
        }
    }
}

fn post(agent: &Agent, url: &str, event: &Value) -> Result<(), CliError> {
    let sent = agent.post(url).header("content-type", "application/json").send(event.to_string());
    let found = match sent {
        Ok(answer) if answer.status().is_success() => return Ok(()),
        Ok(answer) => format!("{url} answered {}", answer.status().as_u16()),
        Err(error) => format!("{url}: {error}"),
    };
    Err(CliError::new(found, url).expected("an answer of 2xx"))
}

fn text(event: &Value) -> String {
    let of = |pointer: &str| match event.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    match event.pointer("/event").and_then(Value::as_str) {
        Some("approval_waiting") => format!(
            "{}  {} waits: {} of {} ({}) calls {}/{} with {}; portcullis approve grant {} --reason …",
            of("/at"),
            of("/call/id"),
            of("/call/principal"),
            of("/call/org"),
            of("/call/client_id"),
            of("/call/connector"),
            of("/call/tool"),
            of("/call/arguments"),
            of("/call/id"),
        ),
        _ => format!(
            "{}  {} of {} is used to {} %: {} of {}, {} {}",
            of("/at"),
            of("/window/limit"),
            of("/window/org"),
            of("/window/percent"),
            of("/window/used"),
            of("/window/max"),
            of("/window/of"),
            of("/window/name"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(ended(&mut child, Duration::from_millis(50)).unwrap().is_none());
        assert!(child.try_wait().unwrap().is_some());
    }
}
