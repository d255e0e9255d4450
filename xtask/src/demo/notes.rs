//! The output of one step of the tour: what was sent, what came back, and the expectations.

/// The notes of a step. They are printed at once, so that a slow step shows progress.
#[derive(Default)]
pub(crate) struct Notes {
    pub(super) unmet: Vec<String>,
}

impl Notes {
    /// A message to the gateway, or an action.
    pub(crate) fn sent(&mut self, text: impl AsRef<str>) {
        println!("    > {}", text.as_ref());
    }

    /// An answer.
    pub(crate) fn came(&mut self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("    < {line}");
        }
    }

    /// An expectation, which has to hold for the step to pass.
    pub(crate) fn expect(&mut self, expectation: impl Into<String>, met: bool) {
        if !met {
            self.unmet.push(expectation.into());
        }
    }
}
