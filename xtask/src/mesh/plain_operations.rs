//! The table of operations on a plain Envoy: envoy/envoy.yaml with the mistakes that leave a listener without its filter.
//!
//! Owns the changes. The configuration of a static Envoy does not change while it runs, so each operation starts its
//! own Envoy.

use super::gateway::{Gateway, Kind};
use super::here::replaced;
use super::report::Report;
use super::{Ground, Options};
use crate::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Envoy, EnvoyOptions};
use std::fs;
use std::thread;
use std::time::Duration;

const NAME: &str = "plain Envoy";
/// How long calls are made to each.
const CALLED: Duration = Duration::from_secs(6);
const FILTER: &str = "          - name: portcullis\n";
const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const HOST: &str = "            - name: mcp\n              domains: [\"*\"]\n";
const LISTENER: &str = "  - name: gateway\n";
const END_OF_LISTENER: &str = "\n# TLS:";

/// A change to the file, and the port that is called.
type Change = fn(&str, u16) -> Result<String>;

const OPERATIONS: [(&str, Change); 5] = [
    ("as shipped", |text, _| Ok(text.to_owned())),
    ("filter taken out", |text, _| without_filter(text)),
    ("filter disabled", |text, _| {
        replaced(text, FILTER, &format!("{FILTER}            disabled: true\n"))
    }),
    ("filter disabled for the host", |text, _| {
        let off = "              typed_per_filter_config: {portcullis: {\"@type\": \
             type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}\n";
        replaced(text, HOST, &format!("{HOST}{off}"))
    }),
    ("a listener added, without the filter", |text, port| {
        let (_, rest) = cut(text, LISTENER)?;
        let (ours, _) = cut(rest, END_OF_LISTENER)?;
        let theirs =
            without_filter(ours)?.replace("${PORTCULLIS_LISTEN_PORT:-10000}", &port.to_string());
        let more = format!("\n  - name: added\n{theirs}");
        replaced(text, END_OF_LISTENER, &format!("{more}{END_OF_LISTENER}"))
    }),
];

/// Runs all operations.
pub(super) fn run(ground: &Ground<'_>, options: &Options, report: &mut Report) -> Result<()> {
    for (number, (operation, change)) in OPERATIONS.into_iter().enumerate() {
        let (envoy, port) = started(ground, options, number, change)?;
        let url = format!("http://{}", loopback(port));
        let gateway = Gateway::of(&ground.stack, &ground.front, url, envoy.audit_log().to_owned());
        // The first call makes the worker read the policy.
        gateway.call(Kind::Allowed, "plain-first", number);
        let load = gateway.load(&format!("plain-{number}"));
        thread::sleep(CALLED);
        let tally = load.finish()?;
        let verdict = tally.holds();
        report.operation(NAME, operation, tally, verdict);
    }
    Ok(())
}

fn started(
    ground: &Ground<'_>,
    options: &Options,
    number: usize,
    change: Change,
) -> Result<(Envoy, u16)> {
    let stack = ground.stack.options();
    let shipped = stack.root.join("envoy/envoy.yaml");
    let dir = ground.dir.join(format!("plain-{number}"));
    let template = dir.join("template.yaml");
    let fault = |error| Failure::new(format!("could not adapt {}: {error}", shipped.display()));
    fs::create_dir_all(&dir).map_err(fault)?;
    let mut text = fs::read_to_string(&shipped).map_err(fault)?;
    if options.without_guards {
        text = without_guards(&text)?;
    }
    let (port, other) = (free_port()?, free_port()?);
    let text = change(&text, other)?;
    let called = if text.contains("- name: added") { other } else { port };
    fs::write(&template, text).map_err(fault)?;
    let envoy = Envoy::start(EnvoyOptions {
        program: stack.tools.envoy.clone(),
        template,
        bootstrap: stack.settings.clone().demo(ground.front.address()),
        logs: dir.clone(),
        dir,
        name: format!("envoy-plain-{number}"),
        port,
        admin_port: free_port()?,
        concurrency: 2,
    })?;
    Ok((envoy, called))
}

/// The file without guards.
fn without_guards(text: &str) -> Result<String> {
    let text = replaced(text, "\"/demo/mcp\": \"demo-${PORTCULLIS_GUARD}\",\n", "")?;
    replaced(&text, "{path: /demo/mcp, headers: [*demo_guard]}", "{path: /demo/mcp}")
}

/// Turns the filter's lines into comments: the placeholders in them are still filled.
fn without_filter(text: &str) -> Result<String> {
    let (before, rest) = cut(text, FILTER)?;
    let (filter, after) = cut(rest, ROUTER)?;
    let gone: String = filter.lines().map(|line| format!("# {line}\n")).collect();
    Ok(format!("{before}{gone}{ROUTER}{after}"))
}

fn cut<'a>(text: &'a str, at: &str) -> Result<(&'a str, &'a str)> {
    text.split_once(at).ok_or_else(|| Failure::new(format!("no {at:?} in the file")))
}
