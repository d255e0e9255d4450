//! One test: a name, a function, and what is said when it fails.
//!
//! Owns the translation into a trial of the test runner.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use portcullis_stack::Workspace;

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
            match catch_unwind(AssertUnwindSafe(|| (self.run)(&world))) {
                Ok(()) => {
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

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
