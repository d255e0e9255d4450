//! One test: its name, its function, and its message on failure.
//!
//! Owns the translation into a trial of the test runner.

use std::any::Any;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use portcullis_stack::Workspace;

use crate::leaks;
use crate::world::{self, Shared, World};

/// A test before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub topic: &'static str,
    pub name: &'static str,
    pub run: fn(&World<'_>),
}

/// The cases of a topic: `cases!["calls": first_test, second_test]`.
#[macro_export]
macro_rules! cases {
    ($topic:literal: $($name:ident),+ $(,)?) => {
        vec![$($crate::Case { topic: $topic, name: stringify!($name), run: $name }),+]
    };
}

impl Case {
    pub fn trial(self, shared: &Arc<Shared>, workspace: &Arc<Workspace>) -> Trial {
        let name = format!("{}::{}", self.topic, self.name);
        let (shared, workspace, title) = (Arc::clone(shared), Arc::clone(workspace), name.clone());
        Trial::test(name, move || {
            let world = World::new(&shared, &workspace, &title);
            world::tidy(&world.dir());
            let started = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(&world)));
            note_time(&workspace, &title, started.elapsed());
            match outcome {
                Ok(()) => {
                    if let Some(leaks) = leaks::report(&leaks::search(&world.dir())) {
                        return Err(Failed::from(leaks));
                    }
                    world::tidy(&world.dir());
                    Ok(())
                }
                Err(panic) => {
                    let logs = world.evidence();
                    Err(Failed::from(format!("{}\nlogs: {}", said(&*panic), logs.display())))
                }
            }
        })
    }
}

/// Appends the duration of a test to `target/test-logs/times.tsv`: seconds, tab, name. The start of a shared stack
/// counts for the first test that uses it.
fn note_time(workspace: &Workspace, title: &str, took: Duration) {
    let file = workspace.target.join("test-logs/times.tsv");
    let file = OpenOptions::new().create(true).append(true).open(file);
    // A run by hand may have no folder for logs; no check needs the times.
    let _ = file.and_then(|mut file| writeln!(file, "{:.1}\t{title}", took.as_secs_f64()));
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
