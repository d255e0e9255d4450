//! Properties: invariants for every input, tested with random inputs that shrink to the smallest failure.
//!
//! Owns invariants, not examples; those are unit tests and scenarios. A failed case is kept in a file `*.regressions`
//! next to its module, and runs first from then on.

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

/// `count` cases each time, or the number in `PROPTEST_CASES`; a failing one is recorded.
fn cases(count: u32) -> Config {
    let config = Config::default();
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| config.cases);
    let persistence = FileFailurePersistence::WithSource("regressions");
    Config {
        cases: asked.unwrap_or(count),
        failure_persistence: Some(Box::new(persistence)),
        // The limit is for a whole run, and filters reject a part of the cases.
        max_local_rejects: u32::MAX,
        ..config
    }
}
