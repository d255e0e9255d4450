//! The counts of client, upstream, log and Redis, and whether they agree. Pure.

use super::variant::Variant;
use serde::{Deserialize, Serialize};

/// The counts of all sides; each load has to increase all of them alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Right answers that the client received.
    pub(crate) client: u64,
    /// Requests that reached the upstream.
    pub(crate) upstream: u64,
    /// Lines of the log; `None` for a variant without a log.
    pub(crate) log_lines: Option<u64>,
    /// Calls of the admission script; `None` without Redis.
    pub(crate) admissions: Option<u64>,
}

impl Counts {
    /// Each answer needs one log line and one upstream request. The script may run more often: a worker without cached
    /// state asks twice.
    pub(crate) fn agree(&self, variant: Variant) -> bool {
        let admitted = match self.admissions {
            Some(admissions) => admissions >= self.client,
            None => !variant.asks_redis(),
        };
        let logged = match self.log_lines {
            Some(lines) => lines == self.client,
            None => !variant.logs(),
        };
        self.upstream == self.client && logged && admitted
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        Self {
            client: self.client + other.client,
            upstream: self.upstream + other.upstream,
            log_lines: both(self.log_lines, other.log_lines),
            admissions: both(self.admissions, other.admissions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Counts =
        Counts { client: 5, upstream: 5, log_lines: Some(5), admissions: Some(5) };

    #[test]
    fn every_side_has_to_have_counted() {
        assert!(RIGHT.agree(Variant::Key));
        assert!(Counts { admissions: Some(6), ..RIGHT }.agree(Variant::Key));
        for wrong in [
            Counts { upstream: 4, ..RIGHT },
            Counts { log_lines: Some(6), ..RIGHT },
            Counts { log_lines: None, ..RIGHT },
            Counts { admissions: Some(4), ..RIGHT },
            Counts { admissions: None, ..RIGHT },
        ] {
            assert!(!wrong.agree(Variant::Key), "{wrong:?}");
        }
        assert!(Counts { log_lines: None, admissions: None, ..RIGHT }.agree(Variant::Plain));
    }

    #[test]
    fn counts_add_up() {
        let sum =
            RIGHT.plus(Counts { client: 1, upstream: 1, log_lines: None, admissions: Some(2) });
        let expected = Counts { client: 6, upstream: 6, log_lines: Some(5), admissions: Some(7) };
        assert_eq!(sum, expected);
    }
}
