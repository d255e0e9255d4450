//! Sorting with little code.
//!
//! Each of the standard library's sorts is five to ten kilobytes of code for each type of element (also when an ordered
//! map or set is collected), and every Envoy compiles them all. Here few elements are sorted in place, and many by one
//! sort of their positions, which all types share.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Up to this number in place and without memory, as in the standard library.
const FEW: usize = 20;

/// Sorts `items`; equal ones keep their order.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Sorts `items` by `compare`; equal ones keep their order.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let by_position = |one: usize, other: usize| match (items.get(one), items.get(other)) {
        (Some(one), Some(other)) => compare(one, other),
        _ => Ordering::Equal,
    };
    if items.len() > FEW {
        let mut targets = targets(items.len(), &by_position);
        for place in 0..items.len() {
            // Each swap moves one element to its final position.
            while let Some(target) = targets.get(place).copied().filter(|target| *target != place) {
                items.swap(place, target);
                targets.swap(place, target);
            }
        }
        return;
    }
    for end in 1..items.len() {
        for before in (0..end).rev() {
            let after = before.saturating_add(1);
            match items.get(before..=after) {
                Some([one, other]) if compare(one, other).is_gt() => items.swap(before, after),
                _ => break,
            }
        }
    }
}

/// The final position of each of `count` elements.
fn targets(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|one, other| compare(*one, *other));
    let mut targets = vec![0; count];
    for (target, position) in order.into_iter().enumerate() {
        targets.get_mut(position).into_iter().for_each(|place| *place = target);
    }
    targets
}

/// The map of `pairs`; of pairs with the same key the last counts.
pub fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(pairs);
    map
}

/// The set of `items`.
pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sorts_as_the_standard_library_does(items in prop::collection::vec((0..9_u8, any::<u8>()), 0..60)) {
            let (mut ours, mut theirs) = (items.clone(), items);
            sort_by(&mut ours, |(one, _), (other, _)| one.cmp(other));
            theirs.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(&ours, &theirs, "equal ones stay as they stood");
            sort(&mut ours);
            theirs.sort_unstable();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(map(ours.clone()), theirs.iter().copied().collect());
            prop_assert_eq!(set(ours), theirs.into_iter().collect());
        }
    }
}
