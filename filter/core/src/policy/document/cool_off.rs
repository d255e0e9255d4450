//! The form of the rule about callers that do not back off.
//!
//! Owns its defaults and bounds. Observes no caller.

use std::time::Duration;

use super::limit::{DURATION, duration};
use crate::decode::{Faults, Fields, Node};
use crate::policy::CoolOff;

const RULE: &str = "an object with `refusals` or `repeats`, such as {refusals: 10, repeats: 100}";

pub(super) fn cool_off(node: Node<'_>, faults: &mut Faults) -> Option<CoolOff> {
    let mut fields = node.clone().object(faults, RULE)?;
    let refusals = count(&mut fields, "refusals", faults);
    let repeats = count(&mut fields, "repeats", faults);
    if (refusals, repeats) == (Some(None), Some(None)) {
        node.fault(faults, RULE);
    }
    let within = time(&mut fields, "within", Duration::from_secs(60), faults);
    let first = time(&mut fields, "first", Duration::from_secs(1), faults);
    let longest = time(&mut fields, "longest", Duration::from_secs(300), faults);
    fields.finish(faults);
    let (first, longest) = (first?, longest?);
    if longest < first {
        node.fault(faults, "`longest` to be at least `first`");
    }
    let (refusals, repeats, within) = (refusals?, repeats?, within?);
    Some(CoolOff { refusals, repeats, within, first, longest })
}

/// `None` for a fault; an absent field turns the count off.
fn count(fields: &mut Fields<'_>, name: &'static str, faults: &mut Faults) -> Option<Option<u32>> {
    let Some(node) = fields.optional(name) else { return Some(None) };
    let count = node.integer(faults, 1..=1_000_000, "calls")?;
    u32::try_from(count).ok().map(Some)
}

fn time(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: Duration,
    faults: &mut Faults,
) -> Option<Duration> {
    match fields.optional(name) {
        Some(node) => node.text(faults, DURATION, duration),
        None => Some(default),
    }
}
