//! `cargo xtask alerts`: the alert rules and the dashboard on the real stack, with a real Prometheus.
//!
//! Owns the order: promtool, gateways, Prometheus, causes, queries, report. It needs a Debian package and time, so the
//! test command does not include it: its results are committed, and the test command compares the digest.

mod causes;
mod prometheus;
mod report;
pub(crate) mod rules;
mod scene;
mod server;
mod watch;

use self::causes::Cause;
use self::prometheus::{Programs, Prometheus};
use self::report::{Asked, Report, Row};
use self::rules::{DASHBOARD, RULES, TESTS};
use self::scene::Scene;
use self::watch::{Pending, Watch};
use crate::build;
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Tools, Workspace};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what promtool does: it checks the rules and runs their tests
    #[arg(long)]
    rules_only: bool,
    /// Make every window and wait of the rules N times shorter
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    faster: u32,
    /// Write what was seen to docs/reference/alerts.md
    #[arg(long)]
    record: bool,
    /// Use the module and the programs that are built already, of whatever profile
    #[arg(long)]
    built: bool,
}

/// The longest time until an alert fires: its window, its wait, and the delay of a busy machine.
const FIRES_WITHIN: Duration = Duration::from_secs(12 * 60);
/// The longest window, and the time until it has passed.
const CLEARS_WITHIN: Duration = Duration::from_secs(18 * 60);
/// The shortest bound; no factor shortens it.
const AT_LEAST: Duration = Duration::from_secs(90);

/// `cargo xtask alerts`.
pub(crate) fn alerts(workspace: &Workspace, options: &Options) -> Result<()> {
    let programs = Programs::install(workspace)?;
    programs.promtool("check", &workspace.root.join(RULES))?;
    println!("promtool check rules: good");
    step("promtool test rules", || programs.promtool("test", &workspace.root.join(TESTS)))?;
    println!("promtool test rules: each alert fires and clears");
    if options.rules_only {
        return Ok(());
    }
    Tools::install(workspace)?;
    if options.built {
        workspace.built_artifacts()?;
    } else {
        build::all(workspace)?;
    }
    // Runs with different factors use different folders.
    let dir = workspace.target.join("alerts").join(options.faster.to_string());
    if dir.exists() {
        fs::remove_dir_all(&dir)
            .map_err(|error| Failure::new(format!("could not empty {}: {error}", dir.display())))?;
    }
    fs::create_dir_all(&dir)
        .map_err(|error| Failure::new(format!("could not create {}: {error}", dir.display())))?;
    let document = rules::document(&scene::read(&workspace.root.join(RULES))?)?;
    let scene = step("starting the gateways", || Scene::start(workspace, &dir))?;
    let shortened = rules::faster(&document, options.faster);
    let prometheus = Prometheus::start(&programs, &dir, &shortened, &scene.targets())?;
    let run = Run {
        options,
        scene: &scene,
        prometheus: &prometheus,
        watch: Watch::default(),
        rows: Mutex::default(),
    };
    let began = (Instant::now(), since_1970());
    run.all()?;
    let all_rules = rules::rules(&document);
    let dashboard: Value = serde_json::from_str(&scene::read(&workspace.root.join(DASHBOARD))?)
        .map_err(|error| Failure::new(format!("{DASHBOARD}: {error}")))?;
    let panels = rules::panel_queries(&dashboard);
    let asked = run.ask(&panels, began.1)?;
    let report = Report {
        digest: rules::digest(&all_rules, &panels),
        prometheus: programs.version()?,
        faster: options.faster,
        took: began.0.elapsed(),
        rows: run.rows.into_inner().unwrap_or_else(PoisonError::into_inner),
        asked,
        broken: run.watch.broken(),
    };
    report.conclude(workspace, options.record)
}

struct Run<'a> {
    options: &'a Options,
    scene: &'a Scene,
    prometheus: &'a Prometheus,
    watch: Watch,
    rows: Mutex<Vec<Row>>,
}

impl Run<'_> {
    /// Runs every phase, with a constant background of calls.
    fn all(&self) -> Result<()> {
        let calls_end = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.watch.look(self.prometheus));
            scope.spawn(|| {
                while !calls_end.load(Ordering::SeqCst) {
                    self.scene.steady();
                    thread::sleep(Duration::from_millis(400));
                }
            });
            // A rate needs a full window of calls.
            thread::sleep(Duration::from_secs(20));
            let result = self.phases();
            calls_end.store(true, Ordering::SeqCst);
            self.watch.end();
            result
        })
    }

    fn phases(&self) -> Result<()> {
        let at_work = AtomicUsize::new(causes::SIDE_BY_SIDE.len());
        let at_work = &at_work;
        thread::scope(|scope| {
            let mut running: Vec<_> = causes::ALL_ALONG
                .iter()
                .map(|cause| scope.spawn(move || self.clear(cause, self.act(cause)?)))
                .collect();
            for cause in causes::SIDE_BY_SIDE {
                running.push(scope.spawn(move || {
                    let acted = self.act(cause);
                    at_work.fetch_sub(1, Ordering::SeqCst);
                    self.clear(cause, acted?)
                }));
            }
            // Alerts may clear while the outages run.
            while at_work.load(Ordering::SeqCst) > 0 {
                thread::sleep(Duration::from_millis(200));
            }
            for lane in [causes::OUTAGES_OF_THE_FIRST, causes::OUTAGES_OF_THE_SECOND] {
                running.push(scope.spawn(move || {
                    lane.iter().try_for_each(|cause| self.clear(cause, self.act(cause)?))
                }));
            }
            for one in running {
                one.join().unwrap_or_else(|_| Err(Failure::new("a cause panicked")))?;
            }
            causes::AT_THE_END.iter().try_for_each(|cause| self.clear(cause, self.act(cause)?))
        })
    }

    /// Runs a cause until its alerts fire; returns how soon each fired.
    fn act(&self, cause: &Cause) -> Result<Vec<Option<Duration>>> {
        let pending = Pending::new(&self.watch, cause.expected, self.within(FIRES_WITHIN));
        (cause.act)(self.scene, &pending)?;
        Ok(pending.note())
    }

    /// Waits until the alerts clear.
    fn clear(&self, cause: &Cause, fired: Vec<Option<Duration>>) -> Result<()> {
        let cleared = watch::cleared(&self.watch, cause.expected, self.within(CLEARS_WITHIN));
        for ((expected, fired), cleared) in cause.expected.iter().zip(fired).zip(cleared) {
            let row = Row { expected: *expected, what: cause.what, fired, cleared };
            println!("{row}");
            self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        }
        Ok(())
    }

    fn within(&self, bound: Duration) -> Duration {
        bound / self.options.faster + AT_LEAST
    }

    /// Runs every query of the dashboard over the whole run.
    fn ask(&self, panels: &[rules::PanelQuery], from: f64) -> Result<Vec<Asked>> {
        let range = since_1970() - from;
        panels
            .iter()
            .map(|panel| {
                let query = panel
                    .query
                    .replace("$__rate_interval", "60s")
                    .replace("$__range_s", &format!("{range:.0}"))
                    .replace("$__range", &format!("{range:.0}s"));
                let query = ["$namespace", "$org", "$connector", "$tool"]
                    .iter()
                    .fold(query, |query, name| query.replace(name, ".*"));
                let series = self.prometheus.series(&query, (from, since_1970()), 5)?;
                Ok(Asked { panel: panel.panel.clone(), query, series })
            })
            .collect()
    }
}

fn since_1970() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
