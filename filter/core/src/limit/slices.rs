//! Units of windows that a worker drew in advance (`lease` in the policy).
//!
//! Owns when a unit may still be used. A slice is drawn as one draw of a window that is longer by
//! [`Quota::lasts`], and its units are used, to Redis's answer, within that time: each counts from before it is used
//! until at least the window's length after it, so no interval ever holds more than the limit. What is
//! not used in time is lost, and comes back with the rest.

use std::num::NonZeroUsize;

use lru::LruCache;
use portcullis_redis_lua::{Key, Window, WindowState};

use super::Quota;
use crate::time::UnixTime;

const MOST_SLICES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// What one worker holds.
#[derive(Debug)]
pub struct Slices {
    held: LruCache<Key, Slice>,
    /// The newest time seen. Should the clock be set back, nobody could tell how old a slice is.
    latest: UnixTime,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    left: u64,
    /// Until when calls may take its units: half of the time that they may be used in. The other half
    /// is for Redis to answer.
    taken_until: UnixTime,
    /// Until when its units may be used.
    until: UnixTime,
    /// Until when single units are drawn: a slice is on its way, or there is hardly anything left.
    single_until: UnixTime,
    /// What Redis said when it was drawn.
    state: WindowState,
}

/// How one admission draws from the windows of a call, in their order.
#[derive(Debug)]
pub struct Draws {
    parts: Vec<Part>,
    /// When Redis was asked, at the earliest.
    at: UnixTime,
}

#[derive(Debug)]
enum Part {
    /// Redis is asked for the call's own cost.
    Cost,
    /// Redis is asked for so many units: one for this call.
    Slice(u64),
    /// The worker has a unit, which may be used until then.
    Held(WindowState, UnixTime),
    /// Redis drew for this call before.
    Drawn(WindowState),
}

/// What an admission comes to.
#[derive(Debug)]
pub enum Settled {
    /// This is how the windows stand, in the order of the call's.
    For(Vec<WindowState>),
    /// A slice was too much, and nothing was drawn: to be asked again.
    Again,
    /// Held units were too old when the others had been drawn: only these are asked for, in these windows.
    Rest(Draws, Vec<Window>),
}

impl Default for Slices {
    fn default() -> Self {
        Self { held: LruCache::new(MOST_SLICES), latest: UnixTime::from_micros(0) }
    }
}

impl Slices {
    /// What to ask Redis for, so that a call draws from `quotas`; units that are held are taken.
    pub fn draw(&mut self, quotas: &[Quota], now: UnixTime) -> (Draws, Vec<Window>) {
        if now < self.latest {
            self.held.clear();
        }
        self.latest = now;
        let parts = quotas.iter().map(|quota| self.part(quota, now)).collect();
        let draws = Draws { parts, at: now };
        let windows = draws.windows(quotas);
        (draws, windows)
    }

    fn part(&mut self, quota: &Quota, now: UnixTime) -> Part {
        let Some(units) = quota.lease else {
            return Part::Cost;
        };
        let nothing = Slice {
            left: 0,
            taken_until: now,
            until: now,
            single_until: now,
            state: WindowState {
                remaining: 0,
                reset: std::time::Duration::ZERO,
                raised: false,
                redated: false,
            },
        };
        let slice = self.held.get_or_insert_mut(quota.window.key.clone(), || nothing);
        match slice.left.checked_sub(1) {
            Some(left) if now < slice.taken_until => {
                slice.left = left;
                let remaining = slice.state.remaining.saturating_add(left);
                Part::Held(WindowState { remaining, ..slice.state }, slice.until)
            }
            _ if now < slice.single_until => Part::Cost,
            _ => {
                slice.left = 0;
                slice.single_until = now.after(quota.lasts);
                Part::Slice(units)
            }
        }
    }

    /// Redis drew from every window that it was asked for.
    pub fn admitted(
        &mut self,
        draws: Draws,
        quotas: &[Quota],
        states: Vec<WindowState>,
        now: UnixTime,
    ) -> Settled {
        let settled = window_states(quotas, &draws.parts, states, |quota, units, state| {
            let left = self.put(quota, units, state, draws.at);
            WindowState { remaining: state.remaining.saturating_add(left), ..state }
        });
        let late = |part: &Part| matches!(part, Part::Held(_, until) if now >= *until);
        if !draws.parts.iter().any(late) {
            return Settled::For(settled);
        }
        // What Redis drew stays drawn: asking for all again would draw twice for one call.
        let stand = quotas.iter().zip(draws.parts).zip(settled);
        let parts = stand.map(|((quota, part), state)| match part {
            Part::Held(..) if late(&part) => self.part(quota, now),
            Part::Held(..) => part,
            Part::Cost | Part::Slice(_) | Part::Drawn(_) => Part::Drawn(state),
        });
        let draws = Draws { parts: parts.collect(), at: now };
        let windows = draws.windows(quotas);
        Settled::Rest(draws, windows)
    }

    /// Keeps what of a slice this call does not use; says how much that is.
    fn put(&mut self, quota: &Quota, units: u64, state: WindowState, at: UnixTime) -> u64 {
        let left = units.saturating_sub(1);
        let slice = Slice {
            left,
            taken_until: at.after(quota.lasts.checked_div(2).unwrap_or_default()),
            until: at.after(quota.lasts),
            single_until: at,
            state: WindowState { raised: false, redated: false, ..state },
        };
        self.held.put(quota.window.key.clone(), slice);
        left
    }

    /// Redis drew nothing: a window is full.
    pub fn limited(
        &mut self,
        draws: Draws,
        quotas: &[Quota],
        states: Vec<WindowState>,
        now: UnixTime,
    ) -> Settled {
        let mut too_much = false;
        let settled = window_states(quotas, &draws.parts, states, |quota, units, state| {
            if units > state.remaining {
                too_much = true;
                self.singly(quota, now);
            }
            state
        });
        self.give_back(draws, quotas);
        if too_much { Settled::Again } else { Settled::For(settled) }
    }

    /// For a while, single units are drawn.
    fn singly(&mut self, quota: &Quota, now: UnixTime) {
        if let Some(slice) = self.held.get_mut(&quota.window.key) {
            slice.single_until = now.after(quota.lasts);
        }
    }

    /// The call is not made, or not yet: what it took is there for others.
    pub fn give_back(&mut self, draws: Draws, quotas: &[Quota]) {
        for (quota, part) in quotas.iter().zip(draws.parts) {
            let Some(slice) = self.held.get_mut(&quota.window.key) else { continue };
            match part {
                Part::Held(_, until) if until == slice.until => {
                    slice.left = slice.left.saturating_add(1);
                }
                Part::Held(..) | Part::Drawn(_) | Part::Cost | Part::Slice(_) => {}
            }
        }
    }
}

/// How the windows of a call stand, in its order: those that Redis was asked for as it says, with slices
/// as `sliced` sees them; the others as they did when their units were drawn.
fn window_states(
    quotas: &[Quota],
    parts: &[Part],
    states: Vec<WindowState>,
    mut sliced: impl FnMut(&Quota, u64, WindowState) -> WindowState,
) -> Vec<WindowState> {
    let mut states = states.into_iter();
    let stands = |(quota, part): (&Quota, &Part)| match part {
        Part::Cost => states.next(),
        Part::Slice(units) => states.next().map(|state| sliced(quota, *units, state)),
        Part::Held(state, _) | Part::Drawn(state) => Some(*state),
    };
    quotas.iter().zip(parts).filter_map(stands).collect()
}

impl Draws {
    /// What Redis is asked for.
    fn windows(&self, quotas: &[Quota]) -> Vec<Window> {
        let asked = quotas.iter().zip(&self.parts).filter_map(|(quota, part)| match part {
            Part::Cost => Some(quota.window.clone()),
            Part::Slice(cost) => Some(Window { cost: *cost, ..quota.window.clone() }),
            Part::Held(..) | Part::Drawn(_) => None,
        });
        asked.collect()
    }

    /// Which of the call's windows was the `index`-th that Redis was asked for.
    #[must_use]
    pub fn asked(&self, index: usize) -> Option<usize> {
        let asked = self.parts.iter().enumerate();
        asked
            .filter(|(_, part)| matches!(part, Part::Cost | Part::Slice(_)))
            .map(|(at, _)| at)
            .nth(index)
    }
}

#[cfg(test)]
mod tests;
