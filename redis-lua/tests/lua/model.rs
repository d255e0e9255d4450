//! `admit` against a simple model of an exact sliding window, over random calls. The test cannot set Redis's clock, but
//! each reply contains its time: a window's `reset` is the distance to a moment that the model knows.

use std::time::Duration;

use portcullis_redis_lua::{AdmitReply, Window};

use crate::ledger::{Draw, draw_from, window};
use crate::valkey::{Valkey, run};

/// Every draw ever made, without any optimisation.
#[derive(Default)]
struct Model {
    /// The draws with the time at which they were made.
    made: Vec<Draw>,
    /// The draws with the date that the window gives them.
    dated: Vec<Draw>,
}

fn used(draws: &[Draw], length_us: u64, now: u64) -> u64 {
    draws.iter().filter(|draw| draw.at_us + length_us > now).map(|draw| draw.cost).sum()
}

impl Model {
    fn inside(&self, length_us: u64, now: u64) -> impl Iterator<Item = &Draw> {
        self.dated.iter().filter(move |draw| draw.at_us + length_us > now)
    }

    fn used(&self, asked: &Window, now: u64) -> u64 {
        used(&self.dated, asked.length_us, now)
    }

    /// The first moment, from `now` on, at which the cost fits.
    fn fits_at(&self, asked: &Window, now: u64) -> Option<u64> {
        let leaving = self.inside(asked.length_us, now).map(|draw| draw.at_us + asked.length_us);
        std::iter::once(now)
            .chain(leaving)
            .find(|moment| self.used(asked, *moment) + asked.cost <= asked.limit)
    }

    fn record(&mut self, asked: &Window, now: u64) {
        if asked.cost > 0 {
            let at_us = now.next_multiple_of(asked.grain_us);
            self.made.push(Draw { at_us: now, cost: asked.cost });
            self.dated.push(Draw { at_us, cost: asked.cost });
        }
    }

    /// Never over the limit, and never too strict for longer than a grain: this checks the guarantee, not the method.
    fn keeps_the_bound(&self, asked: &Window, now: u64, full: bool) {
        let (length, grain) = (asked.length_us, asked.grain_us);
        assert!(used(&self.made, length, now) <= asked.limit, "{asked:?}");
        let longer = used(&self.made, length + grain - 1, now);
        assert!(!full || longer + asked.cost > asked.limit, "{asked:?}: {longer}");
    }
}

/// Name, limit, length, grain, and the bound of costs.
const WINDOWS: [(&str, u64, u64, u64, u64); 5] = [
    ("a", 5, 2_000, 1, 3),
    ("b", 40, 9_000, 1, 42),
    ("c", 7, 700, 1, 3),
    ("d", 30, 8_000, 800, 4),
    ("e", 9, 3_000, 3_000, 3),
];

// Proves: A9
#[test]
fn agrees_with_the_model() {
    for server in Valkey::each() {
        agrees(&server);
    }
}

fn agrees(server: &Valkey) {
    let mut connection = server.connect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // A window that refuses nothing; each reply contains its time.
    let clock = window("clock", 1 << 50, 3_600_000_000, 1);
    let mut clock_oldest = None;
    let mut models: [Model; 5] = Default::default();
    let (mut admitted, mut refused, mut never) = (0, 0, 0);

    for _ in 0..6_000 {
        let asked: Vec<Window> = WINDOWS
            .into_iter()
            .map(|(name, limit, length_us, grain_us, costs)| Window {
                grain_us,
                ..window(name, limit, length_us, random.random_below(costs))
            })
            .collect();
        let mut windows = asked.clone();
        windows.push(clock.clone());
        let admit = draw_from(windows);
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();

        let (states, verdict) = match &reply {
            AdmitReply::Admitted(states) => (states, None),
            AdmitReply::Limited { retry_after, window, windows } => {
                (windows, Some((*retry_after, *window)))
            }
            AdmitReply::Stale(_) => panic!("no guards"),
        };
        let Some(oldest) = clock_oldest else {
            if verdict.is_none() {
                let oldest = crate::ledger::read(&mut connection, &clock.key)[0].at_us;
                models
                    .iter_mut()
                    .zip(&asked)
                    .for_each(|(model, asked)| model.record(asked, oldest));
                clock_oldest = Some(oldest);
            }
            continue;
        };
        let now = oldest + clock.length_us - states[5].reset.as_micros() as u64;

        let fits: Vec<Option<u64>> =
            models.iter().zip(&asked).map(|(model, asked)| model.fits_at(asked, now)).collect();
        match verdict {
            None => {
                admitted += 1;
                assert!(fits.iter().all(|moment| *moment == Some(now)), "{asked:?}: {fits:?}");
                models.iter_mut().zip(&asked).for_each(|(model, asked)| model.record(asked, now));
            }
            Some((None, index)) => {
                never += 1;
                assert_eq!(index, fits.iter().position(Option::is_none).expect("one never fits"));
            }
            Some((Some(wait), index)) => {
                refused += 1;
                let moments: Vec<u64> = fits.iter().map(|moment| moment.unwrap()).collect();
                assert_eq!(moments.iter().max(), Some(&moments[index]), "{asked:?}");
                assert_eq!(wait, Duration::from_micros(moments[index] - now), "{asked:?}");
                assert!(wait > Duration::ZERO);
            }
        }
        for (((model, asked), state), fits) in models.iter().zip(&asked).zip(states).zip(&fits) {
            let oldest = model.inside(asked.length_us, now).next();
            let reset = oldest.map_or(0, |draw| draw.at_us + asked.length_us - now);
            assert_eq!(state.remaining, asked.limit - model.used(asked, now));
            assert_eq!(state.reset, Duration::from_micros(reset));
            model.keeps_the_bound(asked, now, *fits != Some(now));
        }
    }
    assert!(admitted > 100 && refused > 100 && never > 20, "{admitted}, {refused}, {never}");
}

/// Xorshift: the same calls in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn random_below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
