//! `cargo xtask …`: the commands for developers and users of the demo.
//!
//! Owns the command line. Each command is a module; the crate `portcullis_stack` runs processes.

mod alerts;
mod bench;
mod build;
mod chart;
mod demo;
mod dist;
mod fuzz;
mod isolation;
mod mesh;
mod requirements;
mod schema_suite;
mod shipping;
mod soak;
mod source;
mod test;
mod tidy;
mod up;
mod validate;

use crate::failure::Result;
use clap::{Parser, Subcommand, ValueEnum};
use portcullis_stack::{Tools, Workspace, failure, progress, signals};
use std::process::ExitCode;

/// Builds, runs, shows and checks Portcullis. Needs Rust and Python 3 with pip; nothing needs root.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start everything, walk through a tour of what the gateway does, then stay up
    Demo {
        /// Stop after the tour; the exit status says whether every step passed
        #[arg(long)]
        exit: bool,
        #[command(flatten)]
        ports: PortBase,
    },
    /// Start the demo's stack without the tour, in the foreground, until Ctrl-C
    Up {
        #[command(flatten)]
        ports: PortBase,
    },
    /// Every check: format, lints, unit and scenario tests, documentation, configurations, end to end
    Test {
        /// Leave out the end-to-end tests
        #[arg(long)]
        fast: bool,
        /// Run all end-to-end tests on a Redis Cluster too, and on a Redis behind TLS, instead of some of them
        #[arg(long, conflicts_with = "fast")]
        everywhere: bool,
        /// Run the end-to-end tests with another Envoy: a version that tools/envoy/ pins, such as 1.36.4
        #[arg(long, value_name = "VERSION", conflicts_with = "fast")]
        envoy: Option<String>,
    },
    /// Run the trials that only a long run decides, against what is built; ends with the counts
    Soak {
        /// How long each trial runs
        #[arg(long, value_name = "N", default_value_t = 3_600)]
        seconds: u32,
    },
    /// Try what each container of docker-compose.yml reaches; needs iproute2 and user namespaces
    Isolation {
        /// Write demo/compose/isolation.txt
        #[arg(long)]
        record: bool,
    },
    /// Run an OpenTelemetry Collector with the shipped configuration on a gateway's audit log; needs Go
    Shipping,
    /// Run the official JSON Schema test suite against the validator of arguments
    SchemaSuite,
    /// Run the fuzz targets of the core with libFuzzer; needs a C++ compiler
    Fuzz {
        /// How long each target runs
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u32,
        /// Which to run; all when none is named
        #[arg(value_name = "TARGET", value_parser = fuzz::TARGETS)]
        targets: Vec<String>,
    },
    /// Compare the gateway with plain Envoy and with Envoy's own filters; writes target/bench/report.json
    #[command(disable_help_flag = true)]
    Bench {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Compare the gateway with ContextForge, in the same run and on the same upstream; installs it from PyPI
    #[command(disable_help_flag = true)]
    Compare {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Measure what each feature adds to a request; writes target/bench/features.json
    #[command(disable_help_flag = true)]
    Features {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Measure policies of up to 5,000 tools and 500 roles: reading one in the VM, calls and lists by it
    #[command(disable_help_flag = true)]
    Scale {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Try the shipped files on real control planes: Istio's and Envoy Gateway's, on a real API server; needs Go
    Mesh {
        #[command(flatten)]
        options: mesh::Options,
    },
    /// Lint, render, refuse and install the Helm chart, with Helm and a real API server; needs Go
    Chart {
        #[command(flatten)]
        options: chart::Options,
    },
    /// Make each alert fire and clear on the real stack, and ask every query of the dashboard; needs Debian's package
    /// `prometheus`, which it downloads and unpacks into target/tools (`apt-get download`, `dpkg-deb`; no root)
    Alerts {
        #[command(flatten)]
        options: alerts::Options,
    },
    /// Measure one worker with 10,000 organisations, each with a policy of its own, and with 100 large policies
    #[command(disable_help_flag = true)]
    Organisations {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Build the filter (wasm32), the operator's tool and the demo connector
    Build,
    /// Make the files of a release: modules, tool, digests, OCI images, bills of materials; in target/dist/
    Dist {
        #[command(flatten)]
        options: dist::Options,
    },
    /// Install the pinned third-party programs into target/tools/
    Tools,
    /// Check the rules that neither the compiler nor clippy knows
    Tidy,
    /// List every requirement with the tests that prove it
    Requirements {
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

#[derive(clap::Args)]
struct PortBase {
    /// Use the ports from N on instead of free ones: N is the gateway, N + 1 Envoy's admin interface
    #[arg(long, value_name = "N")]
    port_base: Option<u16>,
}

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let Arguments { verb } = Arguments::parse();
    match signals::handle().and_then(|()| run(verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            signals::yield_to_stop();
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let workspace = Workspace::locate()?;
    match verb {
        Verb::Demo { exit, ports } => {
            let then = if exit { demo::Then::Exit } else { demo::Then::StayUp };
            demo::demo(&workspace, ports.port_base, then)
        }
        Verb::Up { ports } => up::up(&workspace, ports.port_base),
        Verb::Test { fast, everywhere, envoy } => {
            let extent = match (fast, everywhere) {
                (true, _) => test::Extent::Fast,
                (false, false) => test::Extent::Full,
                (false, true) => test::Extent::Everywhere,
            };
            test::test(&workspace, extent, envoy.as_deref())
        }
        Verb::Soak { seconds } => soak::soak(&workspace, seconds),
        Verb::Isolation { record } => isolation::isolation(&workspace, record),
        Verb::Shipping => shipping::shipping(&workspace),
        Verb::SchemaSuite => schema_suite::run(&workspace),
        Verb::Fuzz { seconds, targets } => fuzz::fuzz(&workspace, seconds, &targets),
        Verb::Bench { arguments } => bench::run(&workspace, "bench", &arguments),
        Verb::Compare { arguments } => bench::run(&workspace, "compare", &arguments),
        Verb::Features { arguments } => bench::run(&workspace, "features", &arguments),
        Verb::Scale { arguments } => bench::run(&workspace, "scale", &arguments),
        Verb::Mesh { options } => mesh::mesh(&workspace, &options),
        Verb::Chart { options } => chart::chart(&workspace, &options),
        Verb::Alerts { options } => alerts::alerts(&workspace, &options),
        Verb::Organisations { arguments } => bench::run(&workspace, "organisations", &arguments),
        Verb::Build => build::all(&workspace).map(drop),
        Verb::Dist { options } => dist::dist(&workspace, &options),
        Verb::Tools => {
            Ok(progress::step("installing the tools", || Tools::install(&workspace)).map(drop)?)
        }
        Verb::Tidy => tidy::tidy(&workspace),
        Verb::Requirements { output } => requirements::requirements(&workspace, output),
    }
}
