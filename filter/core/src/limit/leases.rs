//! Units of windows that a worker drew in advance (`lease` in the policy).
//!
//! Owns when a unit may be used. A lease is one draw from a window that is longer by [`Quota::lasts`], and its units
//! are used within that time, up to Redis's answer. Each unit counts from before its use until at least the window's
//! length after it, so no interval ever has more units than the limit. Unused units expire and recover with the rest.

use std::num::NonZeroUsize;

use lru::LruCache;
use portcullis_redis_lua::{Key, Window, WindowState};

use super::Quota;
use crate::time::UnixTime;

const MOST_LEASES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// The leases of one worker.
#[derive(Debug)]
pub struct Leases {
    held: LruCache<Key, Lease>,
    /// The latest time seen. If the clock is set back, the age of a lease is unknown.
    latest: UnixTime,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    left: u64,
    /// Until when calls may take its units: half of their lifetime. The other half is for Redis to answer.
    taken_until: UnixTime,
    /// Until when its units may be used.
    until: UnixTime,
    /// Until when single units are drawn: a lease is being drawn, or the window is nearly empty.
    single_until: UnixTime,
    /// The window's state when it was drawn.
    state: WindowState,
}

/// How one admission draws from the windows of a call, in their order.
#[derive(Debug)]
pub struct DrawPlan {
    draws: Vec<Draw>,
    /// The earliest time at which Redis was asked.
    at: UnixTime,
}

#[derive(Debug)]
enum Draw {
    /// Asks Redis for the call's own cost.
    Cost,
    /// Asks Redis for this many units: one for this call.
    Lease(u64),
    /// Uses a unit of the worker, which is valid until then.
    Held(WindowState, UnixTime),
    /// Redis drew for this call before.
    Drawn(WindowState),
}

/// The result of an admission's draws.
#[derive(Debug)]
pub enum DrawResult {
    /// The states of the windows, in the order of the call's.
    For(Vec<WindowState>),
    /// A lease did not fit, and nothing was drawn: Redis must be asked again.
    Again,
    /// Held units expired while the others were drawn: only these windows are asked again.
    Rest(DrawPlan, Vec<Window>),
}

impl Default for Leases {
    fn default() -> Self {
        Self { held: LruCache::new(MOST_LEASES), latest: UnixTime::from_micros(0) }
    }
}

impl Leases {
    /// Plans the draws of a call from `quotas`: takes held units, and returns the windows for Redis.
    pub fn draw(&mut self, quotas: &[Quota], now: UnixTime) -> (DrawPlan, Vec<Window>) {
        if now < self.latest {
            self.held.clear();
        }
        self.latest = now;
        let draws = quotas.iter().map(|quota| self.draw_one(quota, now)).collect();
        let plan = DrawPlan { draws, at: now };
        let windows = plan.windows(quotas);
        (plan, windows)
    }

    fn draw_one(&mut self, quota: &Quota, now: UnixTime) -> Draw {
        let Some(units) = quota.lease else {
            return Draw::Cost;
        };
        let nothing = Lease {
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
        let lease = self.held.get_or_insert_mut(quota.window.key.clone(), || nothing);
        match lease.left.checked_sub(1) {
            Some(left) if now < lease.taken_until => {
                lease.left = left;
                let remaining = lease.state.remaining.saturating_add(left);
                Draw::Held(WindowState { remaining, ..lease.state }, lease.until)
            }
            _ if now < lease.single_until => Draw::Cost,
            _ => {
                lease.left = 0;
                lease.single_until = now.after(quota.lasts);
                Draw::Lease(units)
            }
        }
    }

    /// Redis drew from every window that it was asked for.
    pub fn admitted(
        &mut self,
        plan: DrawPlan,
        quotas: &[Quota],
        states: Vec<WindowState>,
        now: UnixTime,
    ) -> DrawResult {
        let settled = window_states(quotas, &plan.draws, states, |quota, units, state| {
            let left = self.put(quota, units, state, plan.at);
            WindowState { remaining: state.remaining.saturating_add(left), ..state }
        });
        let late = |draw: &Draw| matches!(draw, Draw::Held(_, until) if now >= *until);
        if !plan.draws.iter().any(late) {
            return DrawResult::For(settled);
        }
        // Redis's draws stay: a new draw from all windows would count one call twice.
        let stand = quotas.iter().zip(plan.draws).zip(settled);
        let draws = stand.map(|((quota, draw), state)| match draw {
            Draw::Held(..) if late(&draw) => self.draw_one(quota, now),
            Draw::Held(..) => draw,
            Draw::Cost | Draw::Lease(_) | Draw::Drawn(_) => Draw::Drawn(state),
        });
        let plan = DrawPlan { draws: draws.collect(), at: now };
        let windows = plan.windows(quotas);
        DrawResult::Rest(plan, windows)
    }

    /// Keeps the units of a lease that this call does not use; returns their number.
    fn put(&mut self, quota: &Quota, units: u64, state: WindowState, at: UnixTime) -> u64 {
        let left = units.saturating_sub(1);
        let lease = Lease {
            left,
            taken_until: at.after(quota.lasts.checked_div(2).unwrap_or_default()),
            until: at.after(quota.lasts),
            single_until: at,
            state: WindowState { raised: false, redated: false, ..state },
        };
        self.held.put(quota.window.key.clone(), lease);
        left
    }

    /// Redis drew nothing: a window is full.
    pub fn limited(
        &mut self,
        plan: DrawPlan,
        quotas: &[Quota],
        states: Vec<WindowState>,
        now: UnixTime,
    ) -> DrawResult {
        let mut too_much = false;
        let settled = window_states(quotas, &plan.draws, states, |quota, units, state| {
            if units > state.remaining {
                too_much = true;
                self.singly(quota, now);
            }
            state
        });
        self.give_back(plan, quotas);
        if too_much { DrawResult::Again } else { DrawResult::For(settled) }
    }

    /// Draws single units for a while.
    fn singly(&mut self, quota: &Quota, now: UnixTime) {
        if let Some(lease) = self.held.get_mut(&quota.window.key) {
            lease.single_until = now.after(quota.lasts);
        }
    }

    /// The call is not made, or not yet: returns its held units for other calls.
    pub fn give_back(&mut self, plan: DrawPlan, quotas: &[Quota]) {
        for (quota, draw) in quotas.iter().zip(plan.draws) {
            let Some(lease) = self.held.get_mut(&quota.window.key) else { continue };
            match draw {
                Draw::Held(_, until) if until == lease.until => {
                    lease.left = lease.left.saturating_add(1);
                }
                Draw::Held(..) | Draw::Drawn(_) | Draw::Cost | Draw::Lease(_) => {}
            }
        }
    }
}

/// The states of a call's windows, in its order: windows that Redis was asked for have its answer, with leases as in
/// `sliced`; the others have the state of the time when their units were drawn.
fn window_states(
    quotas: &[Quota],
    draws: &[Draw],
    states: Vec<WindowState>,
    mut sliced: impl FnMut(&Quota, u64, WindowState) -> WindowState,
) -> Vec<WindowState> {
    let mut states = states.into_iter();
    let stands = |(quota, draw): (&Quota, &Draw)| match draw {
        Draw::Cost => states.next(),
        Draw::Lease(units) => states.next().map(|state| sliced(quota, *units, state)),
        Draw::Held(state, _) | Draw::Drawn(state) => Some(*state),
    };
    quotas.iter().zip(draws).filter_map(stands).collect()
}

impl DrawPlan {
    /// The windows for Redis.
    fn windows(&self, quotas: &[Quota]) -> Vec<Window> {
        let asked = quotas.iter().zip(&self.draws).filter_map(|(quota, draw)| match draw {
            Draw::Cost => Some(quota.window.clone()),
            Draw::Lease(cost) => Some(Window { cost: *cost, ..quota.window.clone() }),
            Draw::Held(..) | Draw::Drawn(_) => None,
        });
        asked.collect()
    }

    /// The index of the call's window that was the `index`-th in the question to Redis.
    #[must_use]
    pub fn asked(&self, index: usize) -> Option<usize> {
        let asked = self.draws.iter().enumerate();
        asked
            .filter(|(_, draw)| matches!(draw, Draw::Cost | Draw::Lease(_)))
            .map(|(at, _)| at)
            .nth(index)
    }
}

#[cfg(test)]
mod tests;
