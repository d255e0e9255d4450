//! Shares of what a worker can do at once.
//!
//! Owns the rule by which many share one bound, so that none of them takes all of it. Counts nothing itself.

/// Whether one more may be had by whom has `own` of the `taken`, where there are `most` in all: each may have as many as are
/// left free. Alone that is half of them, of two a third each; there is always room for one who has none, unless there are
/// as many who share as there is room.
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
        // One after the other takes all that it gets, and gives nothing back.
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
