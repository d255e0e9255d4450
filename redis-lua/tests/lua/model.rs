//! `admit` against a model of an exact sliding window that is too simple to be wrong, over random
//! calls. Redis's clock cannot be set, but each reply tells the time it was made at: a window's
//! `reset` is the distance to a moment that the model knows.

use std::time::Duration;

use portcullis_redis_lua::{AdmitReply, Window};

use crate::ledger::{Draw, draw_from, window};
use crate::valkey::{Valkey, run};

/// Every draw ever made, and no cleverness.
#[derive(Default)]
struct Model(Vec<Draw>);

impl Model {
    fn inside(&self, length_us: u64, now: u64) -> impl Iterator<Item = &Draw> {
        self.0.iter().filter(move |draw| draw.at_us + length_us > now)
    }

    fn used(&self, length_us: u64, now: u64) -> u64 {
        self.inside(length_us, now).map(|draw| draw.cost).sum()
    }

    /// The first moment, from `now` on, at which `cost` fits.
    fn fits_at(&self, asked: &Window, now: u64) -> Option<u64> {
        let leaving = self.inside(asked.length_us, now).map(|draw| draw.at_us + asked.length_us);
        std::iter::once(now)
            .chain(leaving)
            .find(|moment| self.used(asked.length_us, *moment) + asked.cost <= asked.limit)
    }
}

// Proves: A9
#[test]
fn agrees_with_the_model() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // A window nothing is refused by; it brings the time with every reply.
    let clock = window("clock", 1 << 50, 3_600_000_000, 1);
    let mut clock_oldest = None;
    let mut models: [Model; 3] = Default::default();
    let (mut admitted, mut refused, mut never) = (0, 0, 0);

    for _ in 0..6_000 {
        let asked: Vec<Window> = [("a", 5, 2_000), ("b", 40, 9_000), ("c", 7, 700)]
            .into_iter()
            .map(|(name, limit, length_us)| {
                window(name, limit, length_us, random.below(if name == "b" { 42 } else { 3 }))
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
            AdmitReply::Moved(_) => panic!("no guards"),
        };
        let Some(oldest) = clock_oldest else {
            if verdict.is_none() {
                let key = &clock.key;
                clock_oldest = Some(crate::ledger::read(&mut connection, key)[0].at_us);
                record(&mut models, &asked, clock_oldest.unwrap());
            }
            continue;
        };
        let now = oldest + clock.length_us - states[3].reset.as_micros() as u64;

        let fits: Vec<Option<u64>> =
            models.iter().zip(&asked).map(|(model, asked)| model.fits_at(asked, now)).collect();
        match verdict {
            None => {
                admitted += 1;
                assert!(fits.iter().all(|moment| *moment == Some(now)), "{asked:?}: {fits:?}");
                record(&mut models, &asked, now);
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
        for ((model, asked), state) in models.iter().zip(&asked).zip(states) {
            let oldest = model.inside(asked.length_us, now).next();
            let reset = oldest.map_or(0, |draw| draw.at_us + asked.length_us - now);
            assert_eq!(state.remaining, asked.limit - model.used(asked.length_us, now));
            assert_eq!(state.reset, Duration::from_micros(reset));
        }
    }
    assert!(admitted > 100 && refused > 100 && never > 20, "{admitted}, {refused}, {never}");
}

fn record(models: &mut [Model], asked: &[Window], at_us: u64) {
    for (model, asked) in models.iter_mut().zip(asked) {
        if asked.cost > 0 {
            model.0.push(Draw { at_us, cost: asked.cost });
        }
    }
}

/// Xorshift: the same calls in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
