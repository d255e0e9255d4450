//! The form of `enforcement`, which rules of every kind have.

use crate::decode::{Faults, Fields};
use crate::policy::Enforcement;

/// The field `enforcement`; enforced by default.
pub(super) fn enforcement(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Enforcement> {
    match fields.optional("enforcement") {
        Some(node) => node.text(faults, "enforce or shadow", |text| match text {
            "enforce" => Some(Enforcement::Enforce),
            "shadow" => Some(Enforcement::Shadow),
            _ => None,
        }),
        None => Some(Enforcement::Enforce),
    }
}
