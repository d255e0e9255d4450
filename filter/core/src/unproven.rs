//! Bytes of request bodies that Envoy holds for unverified callers.
//!
//! Owns the counts of one worker: per source and in total. A body is judged when it is complete, so a client without a
//! valid key could make the gateway hold as many unfinished ones as there are connections. Knows no exchange; the user
//! of a share returns it.

use std::collections::BTreeMap;

use crate::auth::throttle::Source;
use crate::decode::{Faults, Fields};

/// The limits on unfinished bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnprovenConfig {
    /// For one source: an IPv4 address or an IPv6 /64.
    pub per_source: usize,
    /// For all of them.
    pub total: usize,
}

impl Default for UnprovenConfig {
    fn default() -> Self {
        Self { per_source: 4 << 20, total: 64 << 20 }
    }
}

impl UnprovenConfig {
    /// Reads the two fields of `request`. A faulty one has its default here. One body of `most` bytes always has room.
    pub(crate) fn read(fields: &mut Fields<'_>, most: usize, faults: &mut Faults) -> Self {
        const MOST: u64 = 1 << 40;
        let default = Self::default();
        let mut bytes = |name, default| {
            let node = fields.optional(name);
            let given = node.and_then(|node| node.integer(faults, 0..=MOST, "bytes"));
            given.and_then(|given| usize::try_from(given).ok()).unwrap_or(default)
        };
        let per_source = bytes("unproven_bytes_per_address", default.per_source);
        let total = bytes("unproven_bytes", default.total);
        Self { per_source: per_source.max(most), total: total.max(most) }
    }
}

/// The bytes of one worker.
#[derive(Debug, Default)]
pub struct Unproven {
    total: usize,
    /// Only sources with held bytes, so there are no more than streams.
    sources: BTreeMap<Source, usize>,
}

/// The bytes of one exchange.
#[derive(Debug, Default)]
pub struct HeldBytes {
    source: Option<Source>,
    bytes: usize,
}

/// The bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The source's bound.
    Source,
    /// The bound for all.
    Total,
}

impl Full {
    /// The name of the bound, for refusals and the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "request.unproven_bytes_per_address",
            Self::Total => "request.unproven_bytes",
        }
    }
}

impl Unproven {
    /// A body from `address` has `bytes` now.
    ///
    /// # Errors
    /// That exceeds the bound. The share stays as it was.
    pub fn hold(
        &mut self,
        config: UnprovenConfig,
        address: &str,
        share: &mut HeldBytes,
        bytes: usize,
    ) -> Result<(), Full> {
        let source = *share.source.get_or_insert_with(|| Source::of(address));
        let more = bytes.saturating_sub(share.bytes);
        let of_source = self.sources.get(&source).copied().unwrap_or(0).saturating_add(more);
        let total = self.total.saturating_add(more);
        if of_source > config.per_source {
            return Err(Full::Source);
        }
        if total > config.total {
            return Err(Full::Total);
        }
        if more > 0 {
            self.sources.insert(source, of_source);
        }
        self.total = total;
        share.bytes = share.bytes.saturating_add(more);
        Ok(())
    }

    /// The body was judged or dropped.
    pub fn release(&mut self, share: &mut HeldBytes) {
        let HeldBytes { source, bytes } = std::mem::take(share);
        self.total = self.total.saturating_sub(bytes);
        let Some(source) = source else { return };
        let left = self.sources.get(&source).copied().unwrap_or(0).saturating_sub(bytes);
        match left {
            0 => _ = self.sources.remove(&source),
            left => _ = self.sources.insert(source, left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: UnprovenConfig = UnprovenConfig { per_source: 100, total: 250 };

    // Finding 2.2.
    // Proves: B2
    #[test]
    fn what_is_held_has_a_bound_for_each_source_and_in_all() {
        let mut unproven = Unproven::default();
        let mut shares: Vec<HeldBytes> = (0..4).map(|_| HeldBytes::default()).collect();
        let mut hold = |share: usize, address: &str, bytes| {
            unproven.hold(CONFIG, address, &mut shares[share], bytes)
        };
        assert_eq!(hold(0, "192.0.2.1", 60), Ok(()));
        assert_eq!(hold(0, "192.0.2.1", 90), Ok(()));
        assert_eq!(hold(1, "192.0.2.1", 11), Err(Full::Source));
        assert_eq!(hold(1, "192.0.2.1", 10), Ok(()));
        assert_eq!(hold(2, "2001:db8::1", 100), Ok(()));
        // One host has many addresses in its /64.
        assert_eq!(hold(3, "2001:db8::2", 1), Err(Full::Source));
        let mut other = HeldBytes::default();
        assert_eq!(unproven.hold(CONFIG, "192.0.2.2", &mut other, 51), Err(Full::Total));
        assert_eq!(unproven.hold(CONFIG, "192.0.2.2", &mut other, 50), Ok(()));
        shares.push(other);
        for share in &mut shares {
            unproven.release(share);
            unproven.release(share);
        }
        assert_eq!((unproven.total, unproven.sources.len()), (0, 0));
    }
}
