//! Checks twice a second which alerts fire, while causes start and end.
//!
//! Owns the two times in a row of the table. Knows nothing about the causes.

use super::prometheus::{Held, Prometheus};
use portcullis_stack::process;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(500);

/// An alert with some of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) alert: &'static str,
    pub(crate) labels: &'static [(&'static str, &'static str)],
}

/// The alerts that fire now.
#[derive(Default)]
pub(crate) struct Watch {
    firing: Mutex<Vec<BTreeMap<String, String>>>,
    /// Descriptions whose template failed.
    broken: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Watch {
    /// Polls until [`Watch::end`]. It repeats a failed query: Prometheus may be busy.
    pub(crate) fn look(&self, prometheus: &Prometheus) {
        while !self.over.load(Ordering::SeqCst) && !process::is_stopping() {
            if let Ok(held) = prometheus.alerts() {
                self.note(held);
            }
            thread::sleep(LOOK);
        }
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn note(&self, held: Vec<Held>) {
        let broken = held.iter().filter(|it| it.description.contains("error expanding"));
        let broken: Vec<String> = broken.map(|it| it.description.clone()).collect();
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).extend(broken);
        let firing = held.into_iter().filter(|it| it.is_firing).map(|it| it.labels).collect();
        *self.firing.lock().unwrap_or_else(PoisonError::into_inner) = firing;
    }

    /// Descriptions whose template Prometheus could not fill.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_firing(&self, expected: &Expected) -> bool {
        let firing = self.firing.lock().unwrap_or_else(PoisonError::into_inner);
        firing.iter().any(|labels| {
            let has = |name: &str, value: &str| labels.get(name).is_some_and(|it| it == value);
            has("alertname", expected.alert)
                && expected.labels.iter().all(|(name, value)| has(name, value))
        })
    }
}

/// The alerts of a running cause.
pub(crate) struct Pending<'a> {
    watch: &'a Watch,
    began: Instant,
    until: Instant,
    expected: &'a [Expected],
    /// When each began to fire.
    fired: Mutex<Vec<Option<Duration>>>,
}

impl<'a> Pending<'a> {
    pub(crate) fn new(watch: &'a Watch, expected: &'a [Expected], bound: Duration) -> Self {
        let began = Instant::now();
        let fired = Mutex::new(vec![None; expected.len()]);
        Self { watch, began, until: began + bound, expected, fired }
    }

    /// Whether one of its alerts has not fired yet and time is left.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on_for(|_| true)
    }

    /// As [`Pending::goes_on`], for one alert.
    pub(crate) fn awaits(&self, alert: &str) -> bool {
        self.goes_on_for(|it| it.alert == alert)
    }

    fn goes_on_for(&self, of: impl Fn(&Expected) -> bool) -> bool {
        let fired = self.note();
        let all = self.expected.iter().zip(&fired).filter(|(it, _)| of(it));
        let waits = all.into_iter().any(|(_, fired)| fired.is_none());
        waits && Instant::now() < self.until && !process::is_stopping()
    }

    /// When each alert began to fire, counted from the start of the cause.
    pub(crate) fn note(&self) -> Vec<Option<Duration>> {
        let mut fired = self.fired.lock().unwrap_or_else(PoisonError::into_inner);
        for (expected, fired) in self.expected.iter().zip(fired.iter_mut()) {
            if fired.is_none() && self.watch.is_firing(expected) {
                *fired = Some(self.began.elapsed());
            }
        }
        fired.clone()
    }
}

/// When each alert stopped, counted from this call; `None` for one that did not stop within `bound`.
pub(crate) fn cleared(
    watch: &Watch,
    expected: &[Expected],
    bound: Duration,
) -> Vec<Option<Duration>> {
    let began = Instant::now();
    let mut cleared = vec![None; expected.len()];
    while began.elapsed() < bound && !process::is_stopping() {
        for (expected, cleared) in expected.iter().zip(&mut cleared) {
            if cleared.is_none() && !watch.is_firing(expected) {
                *cleared = Some(began.elapsed());
            }
        }
        if cleared.iter().all(Option::is_some) {
            break;
        }
        thread::sleep(LOOK);
    }
    cleared
}
