//! The form of the bounds on sessions and streams.
//!
//! Owns their defaults and bounds. Counts neither.

use std::time::Duration;

use super::limit::duration;
use crate::decode::{Faults, Fields, Node};
use crate::policy::{Sessions, Streams};

const SESSIONS: &str = "an object such as {per_caller: {limit: 6000, window: 1h}, idle: 24h}";
const PER_CALLER: &str = "unlimited, or an object such as {limit: 6000, window: 1h}";
const STREAMS: &str = "an object such as {per_caller: 64, per_organisation: 1000, recheck: 30s}";

pub(super) fn sessions(node: Node<'_>, faults: &mut Faults) -> Option<Sessions> {
    const IDLE: &str = "a duration from 1m to 31d, such as 1h, 24h, 7d";
    let mut fields = node.object(faults, SESSIONS)?;
    let default = Sessions::default();
    let opened = match fields.optional("per_caller") {
        Some(node) if node.is_text("unlimited") => Some(None),
        Some(node) => opened(node, faults).map(Some),
        None => Some(default.opened),
    };
    let idle = match fields.optional("idle") {
        Some(node) => node.text(faults, IDLE, |text| {
            duration(text).filter(|idle| *idle >= Duration::from_secs(60))
        }),
        None => Some(default.idle),
    };
    fields.finish(faults);
    Some(Sessions { opened: opened?, idle: idle? })
}

fn opened(node: Node<'_>, faults: &mut Faults) -> Option<crate::policy::Limit> {
    const MOST: u64 = 100_000;
    const WINDOW: &str = "a duration from 1ms to 31d, such as 1m, 1h";
    let mut fields = node.object(faults, PER_CALLER)?;
    let limit = fields
        .required("limit", faults, "how many sessions one caller may open in the window")
        .and_then(|node| node.integer(faults, 1..=MOST, "sessions"));
    let window = fields
        .required("window", faults, WINDOW)
        .and_then(|node| node.text(faults, WINDOW, duration));
    fields.finish(faults);
    Some(Sessions::opened(limit?, window?))
}

pub(super) fn streams(node: Node<'_>, faults: &mut Faults) -> Option<Streams> {
    const RECHECK: &str = "a duration from 1s to 1h, such as 30s";
    let mut fields = node.object(faults, STREAMS)?;
    let default = Streams::default();
    let per_caller = count(&mut fields, "per_caller", default.per_caller, faults);
    let per_organisation = count(&mut fields, "per_organisation", default.per_organisation, faults);
    let recheck = match fields.optional("recheck") {
        Some(node) => node.text(faults, RECHECK, |text| {
            let bounds = Duration::from_secs(1)..=Duration::from_secs(3_600);
            duration(text).filter(|recheck| bounds.contains(recheck))
        }),
        None => Some(default.recheck),
    };
    fields.finish(faults);
    Some(Streams {
        per_caller: per_caller?,
        per_organisation: per_organisation?,
        recheck: recheck?,
    })
}

fn count(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: u32,
    faults: &mut Faults,
) -> Option<u32> {
    let Some(node) = fields.optional(name) else { return Some(default) };
    let count = node.integer(faults, 1..=1_000_000, "streams")?;
    u32::try_from(count).ok()
}
