//! The stacks that tests run on: one that all tests share, and others for tests that break something.
//!
//! Owns when stacks start and where their files are. A shared stack starts with the first test that asks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use portcullis_stack::{
    Bootstrap, Envoy, EnvoyOptions, Stack, StackOptions, Topology, Workspace, ports,
};

use crate::fake::FakeUpstream;
use crate::gateway::Gateway;
use crate::leaks::{self, AdminPages};
use crate::organisation::Organisation;

/// The end of the guards of [`World::envoy_serving`].
pub const GUARD: &str = "0123456789abcdef0123456789abcdef";

/// The shared stack, once a test has used it.
#[derive(Debug, Default)]
pub struct Shared {
    stack: OnceLock<Result<Stack, String>>,
}

impl Shared {
    /// Searches the shared stack for secrets of this run, once all tests are over.
    pub fn leaks(&self) -> Option<String> {
        let Some(Ok(stack)) = self.stack.get() else { return None };
        let dir = &stack.options().dir;
        if let Err(fault) = leaks::dump(stack, dir) {
            return Some(format!("what the shared stack holds cannot be read: {fault}"));
        }
        leaks::report(&leaks::search(dir))
    }
}

/// The environment of one test.
#[derive(Debug)]
pub struct World<'a> {
    shared: &'a Shared,
    workspace: &'a Workspace,
    name: &'a str,
}

/// A test's own Envoy in front of another stack's Redis and OpenBao.
#[derive(Debug)]
pub struct OwnEnvoy {
    // Before the Envoy, because Rust drops fields in this order.
    _pages: AdminPages,
    pub envoy: Envoy,
    pub gateway: Gateway,
}

/// The suite runs once in each mode of the filter: `PORTCULLIS_TEST_MODE=split` for the second. It also runs on a Redis
/// Cluster of three nodes, `PORTCULLIS_TEST_REDIS=cluster`, and on one server behind TLS, `PORTCULLIS_TEST_REDIS=secured`.
///
/// All tests share one source address, and many send bad credentials: a test must not be throttled for another one's.
fn in_mode(mut options: StackOptions) -> StackOptions {
    options = options.set("SLOWDOWN_FAILURES", 0);
    // While a whole test suite runs on few cores, an answer may take much longer than the 50 ms of a deployment.
    options = options.set("REDIS_TIMEOUT_MS", 1_000);
    // Nor may a Vault be slow that makes users of a database.
    options = options.set("VAULT_TIMEOUT_MS", 10_000);
    options.topology = topology_of_this_run();
    options = through_proxy(options);
    match Mode::of_this_run() {
        Mode::Hold => options,
        Mode::Split => options.set("MODE", "split").set("HOLD_HEADERS", false),
    }
}

/// Sets a stack's topology; any other than a plain server has Envoy in between.
pub fn on(topology: Topology) -> impl FnOnce(StackOptions) -> StackOptions {
    move |mut options| {
        options.topology = topology;
        through_proxy(options)
    }
}

fn through_proxy(options: StackOptions) -> StackOptions {
    match options.topology {
        Topology::Server => options,
        Topology::Secured | Topology::Cluster => options.set("REDIS_OP_TIMEOUT", "0.8s"),
    }
}

/// The kind of Redis in all stacks of this run.
pub fn topology_of_this_run() -> Topology {
    match std::env::var("PORTCULLIS_TEST_REDIS").as_deref() {
        Ok("cluster") => Topology::Cluster,
        Ok("secured") => Topology::Secured,
        _ => Topology::Server,
    }
}

/// How the filter holds a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// From its headers on.
    Hold,
    /// Headers and body separately.
    Split,
}

impl Mode {
    /// The mode of all gateways of this run.
    pub fn of_this_run() -> Self {
        match std::env::var("PORTCULLIS_TEST_MODE").as_deref() {
            Ok("split") => Self::Split,
            _ => Self::Hold,
        }
    }
}

impl<'a> World<'a> {
    pub fn new(shared: &'a Shared, workspace: &'a Workspace, name: &'a str) -> Self {
        Self { shared, workspace, name }
    }

    pub fn workspace(&self) -> &Workspace {
        self.workspace
    }

    /// The shared stack. No test may break it, and every test uses its own organisation.
    pub fn stack(&self) -> &'a Stack {
        let started = self.shared.stack.get_or_init(|| {
            let dir = shared_dir(self.workspace);
            let options = StackOptions::new(self.workspace, dir).map_err(|e| e.to_string())?;
            Stack::start(in_mode(options)).map_err(|e| e.to_string())
        });
        match started {
            Ok(stack) => stack,
            Err(fault) => panic!("the shared stack did not start: {fault}"),
        }
    }

    /// A new organisation on the shared stack.
    pub fn organisation(&self) -> Organisation {
        Organisation::new(self.stack())
    }

    /// A stack that the test may break. `adjust` sets placeholders of `envoy/envoy.yaml`.
    pub fn own_stack(&self, adjust: impl FnOnce(StackOptions) -> StackOptions) -> Stack {
        let options =
            StackOptions::new(self.workspace, self.dir()).unwrap_or_else(|e| panic!("{e}"));
        Stack::start(adjust(in_mode(options))).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A second replica of the shared stack's gateway: two workers, same Redis.
    pub fn replica(&self) -> OwnEnvoy {
        self.envoy(Workers::Two, |settings| settings)
    }

    /// One worker in front of the shared stack, so that every request meets the same VM.
    pub fn single_worker(&self) -> OwnEnvoy {
        self.envoy(Workers::One, |settings| settings.set("REQUEST_TIMEOUT", "2s"))
    }

    /// One worker whose connector `python` leads to a fake.
    pub fn with_python_as(&self, fake: &FakeUpstream) -> OwnEnvoy {
        let address = fake.address();
        self.envoy(Workers::One, |settings| {
            settings.python(address).set("ANSWER_IDLE_TIMEOUT", "2s")
        })
    }

    /// An Envoy of the test's own on the shared Redis and OpenBao.
    pub fn envoy(&self, workers: Workers, adjust: impl FnOnce(Bootstrap) -> Bootstrap) -> OwnEnvoy {
        self.envoy_changed(workers, adjust, |template| template)
    }

    /// As [`World::envoy`], with the Envoy's own address as its external URL instead of the shared one's.
    pub fn envoy_named_by_itself(
        &self,
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
    ) -> OwnEnvoy {
        self.envoy_named_changed(workers, adjust, |template| template)
    }

    /// As [`World::envoy_named_by_itself`] and [`World::envoy_changed`].
    pub fn envoy_named_changed(
        &self,
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
        change: impl FnOnce(String) -> String,
    ) -> OwnEnvoy {
        let port = ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        let url = format!("http://{}", ports::loopback(port));
        let adjust = |settings: Bootstrap| adjust(settings.set("EXTERNAL_URL", url));
        self.envoy_on(port, workers, adjust, change)
    }

    /// As [`World::envoy`], with a change to `envoy/envoy.yaml` that has no placeholder.
    pub fn envoy_changed(
        &self,
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
        change: impl FnOnce(String) -> String,
    ) -> OwnEnvoy {
        let port = ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        self.envoy_on(port, workers, adjust, change)
    }

    /// An Envoy with guards of [`GUARD`], and with `demo` as the demo connector's server.
    pub fn envoy_serving(
        &self,
        demo: &FakeUpstream,
        change: impl FnOnce(String) -> String,
    ) -> OwnEnvoy {
        let adjust = |settings: Bootstrap| settings.demo(demo.address()).set("GUARD", GUARD);
        self.envoy_changed(Workers::One, adjust, change)
    }

    fn envoy_on(
        &self,
        port: u16,
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
        change: impl FnOnce(String) -> String,
    ) -> OwnEnvoy {
        let template = self.changed_template(change);
        self.envoy_from(self.stack(), template, port, (workers, adjust, &[]))
    }

    /// As [`World::envoy`], with further environment variables.
    pub fn envoy_with(
        &self,
        environment: &[(&str, PathBuf)],
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
    ) -> OwnEnvoy {
        let port = ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        let template = self.stack().options().root.join("envoy/envoy.yaml");
        self.envoy_from(self.stack(), template, port, (workers, adjust, environment))
    }

    /// The test's own Envoy with two workers, in front of its own stack.
    pub fn envoy_before(
        &self,
        stack: &Stack,
        template: &Path,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
    ) -> OwnEnvoy {
        let port = ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        self.envoy_from(stack, template.to_owned(), port, (Workers::Two, adjust, &[]))
    }

    /// The options of a test's own Envoy, from the shipped configuration as changed by `change`.
    pub fn options(&self, workers: Workers, change: impl FnOnce(String) -> String) -> EnvoyOptions {
        let template = self.changed_template(change);
        let port = ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        self.options_from(self.stack(), template, port, workers, |settings| settings)
    }

    fn changed_template(&self, change: impl FnOnce(String) -> String) -> PathBuf {
        let shipped = fs::read_to_string(self.stack().options().root.join("envoy/envoy.yaml"));
        fs::create_dir_all(self.dir()).expect("a directory of the test's own");
        let template = self.dir().join("envoy-template.yaml");
        fs::write(&template, change(shipped.expect("envoy/envoy.yaml"))).expect("write a template");
        template
    }

    fn options_from(
        &self,
        stack: &Stack,
        template: PathBuf,
        port: u16,
        workers: Workers,
        adjust: impl FnOnce(Bootstrap) -> Bootstrap,
    ) -> EnvoyOptions {
        let options = stack.options();
        let name = "envoy-own";
        EnvoyOptions {
            program: options.tools.envoy.clone(),
            template,
            bootstrap: adjust(options.settings.clone().set("NODE", name)),
            dir: self.dir(),
            logs: self.dir().join("logs"),
            name: name.to_owned(),
            port,
            admin_port: ports::free_port().unwrap_or_else(|e| panic!("{e}")),
            concurrency: workers.count(),
        }
    }

    fn envoy_from(
        &self,
        stack: &Stack,
        template: PathBuf,
        port: u16,
        (workers, adjust, environment): (
            Workers,
            impl FnOnce(Bootstrap) -> Bootstrap,
            &[(&str, PathBuf)],
        ),
    ) -> OwnEnvoy {
        let options = self.options_from(stack, template, port, workers, adjust);
        let envoy = Envoy::start_with(options, environment).unwrap_or_else(|e| panic!("{e}"));
        let gateway = Gateway::at(&envoy, stack.connector.record());
        let pages = AdminPages::of(&envoy, self.dir().join("pages"));
        OwnEnvoy { _pages: pages, envoy, gateway }
    }

    /// The folder for files of this test's own stack or Envoy.
    pub fn dir(&self) -> PathBuf {
        self.workspace.target.join("tests").join(self.name.replace("::", "-"))
    }

    /// The folder to look at when this test failed.
    pub fn evidence(&self) -> PathBuf {
        let own = self.dir();
        if own.exists() { own } else { shared_dir(self.workspace) }
    }
}

impl OwnEnvoy {
    /// Any Envoy in front of a stack's servers.
    pub fn start(options: EnvoyOptions, stack: &Stack) -> Self {
        let dir = options.dir.join("pages");
        let envoy = Envoy::start(options).unwrap_or_else(|e| panic!("{e}"));
        let gateway = Gateway::at(&envoy, stack.connector.record());
        Self { _pages: AdminPages::of(&envoy, dir), envoy, gateway }
    }
}

/// How many workers an Envoy has.
#[derive(Clone, Copy, Debug)]
pub enum Workers {
    One,
    Two,
}

impl Workers {
    pub fn count(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

fn shared_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tests/shared")
}

/// Removes the files of tests that passed.
pub fn tidy(dir: &Path) {
    // Leftover files of a passed test do no harm.
    let _ = std::fs::remove_dir_all(dir);
}

/// `text` with the first `old` replaced; panics when `text` does not contain it.
pub fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "no {old:?} to replace");
    text.replacen(old, new, 1)
}
