//! Properties: what holds for every input, tried on random ones that shrink to the smallest failure.
//!
//! Owns invariants, not examples; those are unit tests and scenarios. A case that once failed is
//! kept beside its module in a file `*.regressions`, and tried first from then on.

mod audit;
mod certificates;
mod connection;
mod documents;
mod exchange;
mod explained;
mod fixtures;
mod json;
mod keys;
mod lists;
#[path = "../tokens/mint.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod mint;
mod outcomes;
mod patterns;
mod policy;
mod resp;
mod schema;
mod sse;
mod throttle;

use proptest::test_runner::{Config, FileFailurePersistence};

/// `count` cases each time, or as many as `PROPTEST_CASES` says; a failing one is written down.
fn cases(count: u32) -> Config {
    let config = Config::default();
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| config.cases);
    let persistence = FileFailurePersistence::WithSource("regressions");
    Config {
        cases: asked.unwrap_or(count),
        failure_persistence: Some(Box::new(persistence)),
        // The bound is for a whole run, and filters reject a share of each case.
        max_local_rejects: u32::MAX,
        ..config
    }
}
