//! Shares of a worker's capacity.
//!
//! Owns the rule by which many users share one bound, so that none takes all of it. Counts nothing itself.

/// Whether a user with `own` of the `taken` places may take one more, of `most` in all: each may have as many as are
/// free. A single user gets half of them, two get a third each. A user without any always finds room, unless there are
/// as many users as places.
#[must_use]
pub const fn lets_in(most: usize, taken: usize, own: usize) -> bool {
    own < most.saturating_sub(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_one_takes_what_others_need() {
        let most = 1_024;
        let (mut taken, mut shares) = (0, Vec::new());
        // One user after the other takes all that it can get, and returns nothing.
        for _ in 0..10 {
            let mut own = 0;
            while lets_in(most, taken, own) {
                (own, taken) = (own + 1, taken + 1);
            }
            shares.push(own);
        }
        assert_eq!(shares, [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]);
        assert!(!lets_in(most, most, 0));
    }
}
