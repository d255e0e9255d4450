//! What one step of the tour says: what was sent, what came back, what had to be true.

/// What a step has to say. Printed as it comes, so that a slow step is seen at work.
#[derive(Default)]
pub(crate) struct Notes {
    pub(super) unmet: Vec<String>,
}

impl Notes {
    /// What goes to the gateway, or what is done.
    pub(crate) fn sent(&mut self, text: impl AsRef<str>) {
        println!("    > {}", text.as_ref());
    }

    /// What came back.
    pub(crate) fn came(&mut self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("    < {line}");
        }
    }

    /// What has to be true for the step to pass.
    pub(crate) fn expect(&mut self, expectation: impl Into<String>, met: bool) {
        if !met {
            self.unmet.push(expectation.into());
        }
    }
}
