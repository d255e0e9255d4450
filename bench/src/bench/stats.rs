//! Combines the figures of several rounds. Pure; knows nothing about the measurement.

use serde::{Deserialize, Serialize};

/// A figure of every round, and the summary of all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of the rounds.
    pub(crate) rounds: Vec<f64>,
}

impl Spread {
    /// `None` unless every round has a finite figure: a partial result is no result.
    pub(crate) fn of(rounds: Vec<f64>) -> Option<Self> {
        if !rounds.iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: median(&sorted)?, min: *sorted.first()?, max: *sorted.last()?, rounds })
    }

    /// Combines two figures round by round: noise that lasts longer than a round affects both sides of each pair.
    pub(crate) fn paired(&self, other: &Self, with: impl Fn(f64, f64) -> f64) -> Option<Self> {
        if self.rounds.len() != other.rounds.len() {
            return None;
        }
        Self::of(self.rounds.iter().zip(&other.rounds).map(|(a, b)| with(*a, *b)).collect())
    }

    /// The first quartile, the median and the third one.
    pub(crate) fn quartiles(&self) -> [f64; 3] {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let of = |rank: usize| sorted.get(rank).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        [of(last / 4), self.median, of(last.saturating_mul(3).div_ceil(4))]
    }

    /// The distance between the rounds, as a share of the median.
    pub(crate) fn width(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

/// The median; of an even number, the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(rounds: &[f64]) -> Spread {
        Spread::of(rounds.to_vec()).unwrap()
    }

    #[test]
    fn the_median_is_the_one_in_the_middle_or_between_two() {
        assert_eq!(spread(&[9.0, 1.0, 5.0]).median, 5.0);
        assert_eq!(spread(&[9.0, 1.0, 5.0, 6.0]).median, 5.5);
        assert_eq!(spread(&[7.0]).median, 7.0);
    }

    #[test]
    fn the_rounds_keep_their_order_and_the_extremes_are_told() {
        let spread = spread(&[9.0, 1.0, 5.0]);
        assert_eq!(
            (spread.min, spread.max, spread.rounds.as_slice()),
            (1.0, 9.0, [9.0, 1.0, 5.0].as_slice())
        );
        assert_eq!(spread.width(), 1.6);
    }

    #[test]
    fn no_rounds_and_no_numbers_give_nothing() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![1.0, f64::NAN]), None);
        assert_eq!(spread(&[1.0]).paired(&spread(&[0.0]), |a, b| a / b), None);
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        // The third round was disturbed, for both alike: the ratio does not change.
        let (ours, theirs) = (spread(&[20.0, 22.0, 60.0]), spread(&[10.0, 11.0, 30.0]));
        let ratio = ours.paired(&theirs, |a, b| a / b).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.0));
        assert_eq!(ours.paired(&spread(&[1.0]), |a, b| a / b), None);
    }
}
