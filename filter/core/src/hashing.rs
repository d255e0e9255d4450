//! Maps with a cheap hash.
//!
//! Owns the choice. The standard library's hash withstands keys that somebody chose to collide, and costs more
//! than everything else about a look-up. These maps are for keys that nobody chooses (ids of the host, digests),
//! and for so few that it does not matter; everything else has the standard library's.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

/// A map of keys that nobody chooses, or of few.
pub type Map<K, V> = HashMap<K, V, FixedState>;
/// A set of such keys.
pub type Set<K> = HashSet<K, FixedState>;
