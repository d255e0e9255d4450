//! Exact sliding windows in the memory of one worker, for the time without Redis.
//!
//! Owns the arithmetic of a share, and the bound on memory. Like the script in Redis, it never admits more units than
//! the limit in a half-open interval of a window's length, and it draws from all windows of a call, or from none. Does
//! not know the windows' purpose.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use portcullis_redis_lua::{Key, Window};

use crate::id::OrgId;
use crate::time::UnixTime;

/// The most windows in use; beyond it calls are refused, because no window may be forgotten.
const MAX_WINDOWS: usize = 10_000;
/// The most windows of one organisation; when its callers fill them, only they are refused.
const MAX_OF_ORG: usize = 2_000;
/// The windows that every organisation can have, regardless of the others.
const FLOOR_OF_ORG: usize = 200;
/// The most separate draws in one window. Beyond it neighbouring draws get the later one's time: they count a little
/// longer, never shorter.
const MAX_DRAWS: u64 = 1_024;
/// The wait for a call when there is no room for another window.
const CROWDED: Duration = Duration::from_secs(1);

/// A part of the whole, in millionths; more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerShare(u32);

impl WorkerShare {
    const WHOLE: u32 = 1_000_000;

    /// The share `millionths`, from 1 to 1,000,000.
    #[must_use]
    pub fn new(millionths: u32) -> Option<Self> {
        (1..=Self::WHOLE).contains(&millionths).then_some(Self(millionths))
    }
}

/// A local window that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLimit {
    /// Its index in the call's windows.
    pub window: usize,
    /// When the call would fit without other draws; `None`: never.
    pub retry_after: Option<Duration>,
}

/// All windows of one worker.
#[derive(Debug, Default)]
pub(super) struct LocalWindows {
    ledgers: BTreeMap<Key, Ledger>,
    /// How many of them the callers of each organisation created.
    of_org: BTreeMap<OrgId, usize>,
    /// The latest time so far: a clock that goes back does not move here, so draws count longer.
    clock: Option<UnixTime>,
    swept: BTreeMap<OrgId, UnixTime>,
}

/// The draws of one window, oldest first: time and units.
#[derive(Debug)]
struct Ledger {
    /// The organisation of the caller who created it.
    org: OrgId,
    draws: VecDeque<(UnixTime, u64)>,
    used: u64,
    /// When the last draw expires.
    empty_at: Option<UnixTime>,
}

/// The part of a window that a worker admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WorkerWindow {
    limit: u64,
    length: Duration,
}

impl WorkerWindow {
    /// The share of `window`. A share of less than one unit becomes one unit in a longer time.
    fn of(window: &Window, share: WorkerShare) -> Self {
        let whole = u128::from(WorkerShare::WHOLE);
        let millionths = u128::from(window.limit).saturating_mul(u128::from(share.0)).max(1);
        let length = u128::from(window.length_us.max(1));
        let (limit, length) = match millionths.checked_div(whole).unwrap_or(0) {
            0 => (1, length.saturating_mul(whole).div_ceil(millionths)),
            limit => (limit, length),
        };
        Self {
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            length: Duration::from_micros(u64::try_from(length).unwrap_or(u64::MAX)),
        }
    }

    /// Draws closer than this to the previous one get the same time.
    fn grain(self) -> Duration {
        let apart = if self.limit > MAX_DRAWS { MAX_DRAWS } else { u64::MAX };
        let micros = u64::try_from(self.length.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros.checked_div(apart).unwrap_or(0))
    }
}

impl LocalWindows {
    /// Draws `cost` units from every window, or from none.
    pub(super) fn draw(
        &mut self,
        (org, now): (&OrgId, UnixTime),
        windows: &[Window],
        share: WorkerShare,
    ) -> Result<(), LocalLimit> {
        let now = self.clock.map_or(now, |latest| latest.max(now));
        self.clock = Some(now);
        let mut longest: Option<LocalLimit> = None;
        for (index, window) in windows.iter().enumerate() {
            let wait = match self.ledgers.get_mut(&window.key) {
                Some(ledger) => ledger.wait(now, WorkerWindow::of(window, share), window.cost),
                None if WorkerWindow::of(window, share).limit < window.cost => Wait::Never,
                None => Wait::None,
            };
            let retry_after = match wait {
                Wait::None => continue,
                Wait::For(time) => Some(time),
                Wait::Never => None,
            };
            let limit = LocalLimit { window: index, retry_after };
            // Reports a window that the call never fits; otherwise the one with the longest wait.
            let rank = |limit: &LocalLimit| limit.retry_after.unwrap_or(Duration::MAX);
            if longest.is_none_or(|found| rank(&limit) > rank(&found)) {
                longest = Some(limit);
            }
        }
        match longest {
            Some(limit) => Err(limit),
            None => self.settle((org, now), windows, share),
        }
    }

    /// Draws from every window, which all have room.
    fn settle(
        &mut self,
        (org, now): (&OrgId, UnixTime),
        windows: &[Window],
        share: WorkerShare,
    ) -> Result<(), LocalLimit> {
        let drawn = || windows.iter().enumerate().filter(|(_, window)| window.cost > 0);
        let new = drawn().filter(|(_, window)| !self.ledgers.contains_key(&window.key));
        let new: Vec<_> = new.map(|(index, _)| index).collect();
        if let Some(first) = new.first()
            && !self.make_room((org, now), new.len())
        {
            return Err(LocalLimit { window: *first, retry_after: Some(CROWDED) });
        }
        for (_, window) in drawn() {
            if !self.ledgers.contains_key(&window.key) {
                let begun = self.of_org.entry(org.clone()).or_default();
                *begun = begun.saturating_add(1);
                self.ledgers.insert(window.key.clone(), Ledger::of(org.clone()));
            }
            if let Some(ledger) = self.ledgers.get_mut(&window.key) {
                ledger.draw(now, WorkerWindow::of(window, share), window.cost);
            }
        }
        Ok(())
    }

    /// Whether `org` may create this many more windows. If not, removes empty windows, at most once in a while for each
    /// organisation.
    fn make_room(&mut self, (org, now): (&OrgId, UnixTime), wanted: usize) -> bool {
        let swept = self.swept.get(org).copied();
        if !self.has_room(org, wanted) && swept.is_none_or(|swept| now.since(swept) >= CROWDED) {
            self.swept.insert(org.clone(), now);
            self.ledgers.retain(|_, ledger| ledger.empty_at.is_some_and(|empty| empty > now));
            self.of_org.clear();
            for ledger in self.ledgers.values() {
                let begun = self.of_org.entry(ledger.org.clone()).or_default();
                *begun = begun.saturating_add(1);
            }
            let of_org = &self.of_org;
            self.swept.retain(|org, _| of_org.contains_key(org));
        }
        self.has_room(org, wanted)
    }

    fn has_room(&self, org: &OrgId, wanted: usize) -> bool {
        let own = self.of_org.get(org).copied().unwrap_or(0).saturating_add(wanted);
        let all = self.ledgers.len().saturating_add(wanted);
        own <= FLOOR_OF_ORG || (own <= MAX_OF_ORG && all <= MAX_WINDOWS)
    }
}

enum Wait {
    None,
    For(Duration),
    Never,
}

impl Ledger {
    fn of(org: OrgId) -> Self {
        Self { org, draws: VecDeque::new(), used: 0, empty_at: None }
    }

    fn wait(&mut self, now: UnixTime, part: WorkerWindow, cost: u64) -> Wait {
        while let Some((at, units)) = self.draws.front()
            && at.after(part.length) <= now
        {
            self.used = self.used.saturating_sub(*units);
            self.draws.pop_front();
        }
        if cost > part.limit {
            return Wait::Never;
        }
        let mut excess = self.used.saturating_add(cost).saturating_sub(part.limit);
        for (at, units) in &self.draws {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(*units);
            if excess == 0 {
                return Wait::For(at.after(part.length).since(now));
            }
        }
        Wait::None
    }

    fn draw(&mut self, now: UnixTime, part: WorkerWindow, cost: u64) {
        self.used = self.used.saturating_add(cost);
        self.empty_at = Some(now.after(part.length));
        match self.draws.len().checked_sub(2).and_then(|before| self.draws.get(before)) {
            // The newest draw and this one are within a grain of the previous one: they are merged.
            Some((before, _)) if now.since(*before) < part.grain() => {
                if let Some(last) = self.draws.back_mut() {
                    *last = (now, last.1.saturating_add(cost));
                }
            }
            _ => self.draws.push_back((now, cost)),
        }
    }
}

#[cfg(test)]
mod tests;
