//! `portcullis-bench`: the measurements of `cargo xtask bench`, `compare`, `features`, `scale` and `organisations`.
//!
//! Owns the command line. `variant` lists the variants, `contender` checks that each works as claimed, `rig` starts the
//! processes around them. Builds nothing: `cargo xtask` builds before it starts this program.

mod baseline;
mod compare;
mod configuration;
mod contender;
mod counts;
mod features;
mod log;
mod machine;
mod organisations;
mod peers;
mod report;
mod rig;
mod rounds;
mod scale;
mod stats;
mod table;
mod traffic;
mod variant;
mod vm;
mod yaml;

use clap::Parser;
use portcullis_stack::failure::Result;
use portcullis_stack::{Workspace, signals};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Measurement {
    /// Compare the gateway with plain Envoy and with Envoy's own filters; writes target/bench/report.json
    Bench(compare::Options),
    /// Compare the gateway with ContextForge on the same upstream; writes target/bench/compare.json
    Compare(peers::Options),
    /// Measure what each feature adds to a request; writes target/bench/features.json
    Features(features::Options),
    /// Measure policies of up to 5,000 tools and 500 roles, up to 1,000,000 keys and 1,000 open streams, and Envoy's start
    Scale(scale::Options),
    /// Measure one worker with 10,000 organisations, each with a policy of its own, and with 100 large policies
    Organisations(organisations::Options),
}

fn main() -> ExitCode {
    let measurement = Measurement::parse();
    match signals::handle().and_then(|()| run(&measurement)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            signals::yield_to_stop();
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(measurement: &Measurement) -> Result<()> {
    let workspace = Workspace::locate()?;
    match measurement {
        Measurement::Bench(options) => compare::compare(&workspace, options),
        Measurement::Compare(options) => peers::peers(&workspace, options),
        Measurement::Features(options) => features::features(&workspace, options),
        Measurement::Scale(options) => scale::scale(&workspace, options),
        Measurement::Organisations(options) => organisations::organisations(&workspace, options),
    }
}
