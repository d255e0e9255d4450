//! Compiled policies of one worker, limited by bytes.
//!
//! Owns which of them stay in memory. Each organisation holds the versions that decided on its calls: the active one,
//! its canary, the last good one. When memory is short, an organisation above its share first drops its own oldest
//! version. Then the organisation that was idle for the longest time drops all of its own. An organisation in use loses
//! no version to another, as long as all versions in use fit. Compiles nothing.

use std::collections::VecDeque;
use std::rc::Rc;

use lru::LruCache;

use crate::hashing::Map;
use crate::id::{OrgId, PolicyVersion};
use crate::policy::Policy;

/// The most versions of one organisation: the active one, its canary, the last good one, and one for a call that was
/// judged during a change.
const MOST_HELD: usize = 4;
/// The most policies that wait for the first call they decide on; its client may have disconnected.
const MOST_FRESH: usize = 16;

/// Compiled policies and their holders.
#[derive(Debug)]
pub(super) struct Policies {
    most_bytes: usize,
    bytes: usize,
    compiled: Map<PolicyVersion, Compiled>,
    /// Policies without a holder, oldest first.
    fresh: VecDeque<PolicyVersion>,
    /// The versions of each organisation, the last used one at the end.
    holders: LruCache<OrgId, Vec<PolicyVersion>>,
}

#[derive(Debug)]
struct Compiled {
    policy: Rc<Policy>,
    holders: usize,
}

impl Policies {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            bytes: 0,
            compiled: Map::default(),
            fresh: VecDeque::new(),
            holders: LruCache::unbounded(),
        }
    }

    /// Changes the limit.
    pub(super) fn resize(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes;
        while self.bytes > self.most_bytes && self.forget_oldest_holder(None) {}
    }

    /// A compiled policy. Its user reports a decision with [`Policies::used`].
    pub(super) fn peek(&self, version: &PolicyVersion) -> Option<&Rc<Policy>> {
        self.compiled.get(version).map(|compiled| &compiled.policy)
    }

    /// Adds a compiled policy without a holder.
    pub(super) fn insert(&mut self, version: PolicyVersion, policy: Rc<Policy>) {
        if self.compiled.contains_key(&version) {
            return;
        }
        self.bytes = self.bytes.saturating_add(policy.weight);
        self.compiled.insert(version.clone(), Compiled { policy, holders: 0 });
        self.fresh.push_back(version);
        if self.fresh.len() > MOST_FRESH {
            self.forget_fresh();
        }
    }

    /// `version` decides on a call of `org`.
    pub(super) fn used(&mut self, org: &OrgId, version: &PolicyVersion) {
        if let Some(held) = self.holders.get_mut(org) {
            if held.last() == Some(version) {
                return;
            }
            if let Some(at) = held.iter().position(|it| it == version) {
                let version = held.remove(at);
                held.push(version);
                return;
            }
        }
        let Some(compiled) = self.compiled.get_mut(version) else { return };
        compiled.holders = compiled.holders.saturating_add(1);
        self.fresh.retain(|fresh| fresh != version);
        let held = self.holders.get_or_insert_mut(org.clone(), Vec::new);
        held.push(version.clone());
        if held.len() > MOST_HELD {
            self.forget_own(org);
        }
        self.make_room(org);
    }

    /// The estimated bytes of all compiled policies.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops policies so that `org` can hold the ones it uses; its last used one stays.
    fn make_room(&mut self, org: &OrgId) {
        while self.bytes > self.most_bytes {
            let gone = (self.is_above_share(org) && self.forget_own(org))
                || self.forget_fresh()
                || self.forget_oldest_holder(Some(org))
                || self.forget_own(org);
            if !gone {
                return;
            }
        }
    }

    fn is_above_share(&self, org: &OrgId) -> bool {
        let held = self.holders.peek(org).into_iter().flatten();
        let weights = held.filter_map(|version| self.compiled.get(version));
        let weight = weights.fold(0_usize, |sum, it| sum.saturating_add(it.policy.weight));
        weight > self.most_bytes.checked_div(self.holders.len()).unwrap_or(self.most_bytes)
    }

    /// Drops the version of `org` that was unused for the longest time, unless it is the only one.
    fn forget_own(&mut self, org: &OrgId) -> bool {
        let held = self.holders.peek_mut(org).filter(|held| held.len() > 1);
        let Some(oldest) = held.map(|held| held.remove(0)) else { return false };
        self.release(&oldest);
        true
    }

    /// Drops all versions of the organisation that was idle for the longest time.
    fn forget_oldest_holder(&mut self, except: Option<&OrgId>) -> bool {
        if self.holders.peek_lru().is_none_or(|(oldest, _)| Some(oldest) == except) {
            return false;
        }
        let Some((_, held)) = self.holders.pop_lru() else { return false };
        held.iter().for_each(|version| self.release(version));
        true
    }

    fn forget_fresh(&mut self) -> bool {
        let Some(version) = self.fresh.pop_front() else { return false };
        self.remove(&version);
        true
    }

    fn release(&mut self, version: &PolicyVersion) {
        let Some(compiled) = self.compiled.get_mut(version) else { return };
        compiled.holders = compiled.holders.saturating_sub(1);
        if compiled.holders == 0 {
            self.remove(version);
        }
    }

    fn remove(&mut self, version: &PolicyVersion) {
        if let Some(compiled) = self.compiled.remove(version) {
            self.bytes = self.bytes.saturating_sub(compiled.policy.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1_048_576;

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    fn version(number: usize) -> PolicyVersion {
        PolicyVersion::new(&format!("{number:016x}")).unwrap()
    }

    fn policy(weight: usize) -> Rc<Policy> {
        Rc::new(Policy { weight, ..Policy::default() })
    }

    /// Whether `version` had to be compiled for this call.
    fn call(policies: &mut Policies, org: &OrgId, version: &PolicyVersion, weight: usize) -> bool {
        let missing = policies.peek(version).is_none();
        if missing {
            policies.insert(version.clone(), policy(weight));
        }
        policies.used(org, version);
        missing
    }

    /// Findings 3.2 and 12.3: sixteen policies were all that a worker kept.
    // Proves: X28
    #[test]
    fn thousands_of_small_policies_and_seventeen_large_ones_are_compiled_once() {
        for (organisations, weight) in [(10_000, 6_000), (17, 3 * MB)] {
            let mut policies = Policies::new(64 * MB);
            let mut compiled = 0;
            for _ in 0..3 {
                for number in 0..organisations {
                    let org = org(&format!("org{number}"));
                    compiled += usize::from(call(&mut policies, &org, &version(number), weight));
                }
            }
            assert_eq!(compiled, organisations);
            assert!(policies.bytes() <= 64 * MB);
        }
    }

    #[test]
    fn an_organisation_that_pushes_again_and_again_takes_nothing_from_others() {
        let mut policies = Policies::new(64 * MB);
        let (quiet, busy) = (org("quiet"), org("busy"));
        for number in 0..40 {
            call(&mut policies, &quiet, &version(number % 2), MB);
            call(&mut policies, &busy, &version(100 + number), 20 * MB);
            assert!(policies.bytes() <= 64 * MB, "{}", policies.bytes());
        }
        assert!(policies.peek(&version(0)).is_some() && policies.peek(&version(1)).is_some());
        assert!(policies.peek(&version(139)).is_some());
    }

    #[test]
    fn the_organisation_that_is_idle_the_longest_goes_first_and_as_a_whole() {
        let mut policies = Policies::new(10 * MB);
        call(&mut policies, &org("idle"), &version(1), 2 * MB);
        call(&mut policies, &org("idle"), &version(2), 2 * MB);
        call(&mut policies, &org("busy"), &version(3), 4 * MB);
        call(&mut policies, &org("new"), &version(4), 4 * MB);
        let left = [1, 2, 3, 4].map(|number| policies.peek(&version(number)).is_some());
        assert_eq!(left, [false, false, true, true]);
    }

    #[test]
    fn a_policy_of_many_organisations_counts_once_and_stays_while_one_holds_it() {
        let mut policies = Policies::new(10 * MB);
        for number in 0..500 {
            call(&mut policies, &org(&format!("org{number}")), &version(7), 3 * MB);
        }
        assert_eq!(policies.bytes(), 3 * MB);
        for number in 0..8 {
            call(&mut policies, &org(&format!("other{number}")), &version(100 + number), 3 * MB);
            assert!(policies.bytes() <= 10 * MB);
        }
    }

    #[test]
    fn a_policy_above_the_bound_decides_all_the_same_and_alone() {
        let mut policies = Policies::new(MB);
        call(&mut policies, &org("small"), &version(1), MB / 2);
        call(&mut policies, &org("huge"), &version(2), 30 * MB);
        assert!(policies.peek(&version(2)).is_some());
        assert!(policies.peek(&version(1)).is_none());
        call(&mut policies, &org("small"), &version(1), MB / 2);
        assert_eq!(policies.bytes(), MB / 2);
    }

    #[test]
    fn policies_that_nobody_came_back_for_do_not_pile_up() {
        let mut policies = Policies::new(64 * MB);
        for number in 0..1_000 {
            policies.insert(version(number), policy(1));
        }
        assert_eq!(policies.bytes(), MOST_FRESH);
    }
}
