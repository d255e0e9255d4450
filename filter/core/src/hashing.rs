//! Maps with a cheap hash.
//!
//! Owns the choice of hash. The standard library's hash resists keys that an attacker chose to collide, and costs more
//! than the rest of a look-up. These maps are for keys that no client chooses (ids of the host, digests), and for maps
//! so small that collisions do not matter; all others use the standard library's hash.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

/// A map for keys that no client chooses, or for few keys.
pub type Map<K, V> = HashMap<K, V, FixedState>;
/// A set for such keys.
pub type Set<K> = HashSet<K, FixedState>;
