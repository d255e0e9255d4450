//! The wait before a failed operation is repeated.
//!
//! Owns the bounds and the jitter. Many workers lose Redis or Vault at the same moment; they must not all retry at the
//! same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// The waits of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    jitter: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { jitter: seed | 1 }
    }

    /// The wait after this many `failures` in a row, from 1. It doubles from [`FIRST`] to [`LONGEST`], minus up to half
    /// of it at random.
    pub(crate) fn wait(&mut self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let longest = FIRST.saturating_mul(factor).min(LONGEST);
        // xorshift64: not for secrets, only to spread the retries of workers.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let half = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).div_ceil(2);
        longest.saturating_sub(Duration::from_micros(self.jitter.checked_rem(half).unwrap_or(0)))
    }
}
