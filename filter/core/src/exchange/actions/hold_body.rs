//! Bodies in memory.
//!
//! Owns how much a worker holds: bodies of unverified senders, and bodies that the filter itself keeps.

use std::time::Duration;

use crate::denial::{Denial, LimitCause};
use crate::driver::event::Head;
use crate::exchange::turn::Turn;

/// The wait for a client whose body a full worker cannot take.
const FULL_FOR: Duration = Duration::from_secs(1);

/// In `split` mode, the headers wait for an answer and Envoy holds the body meanwhile, invisible to the filter. The
/// memory is reserved before: the announced length, or the maximum of a body.
///
/// # Errors
/// There is no memory left.
pub(crate) fn reserve_unseen(head: &Head, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let announced = head
        .single("content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
    let config = &turn.worker.config;
    let bytes = announced.unwrap_or(config.max_body_bytes);
    // One body always has room.
    hold(bytes.min(config.unproven.per_source).min(config.unproven.total), turn)
}

/// How many bytes of unfinished bodies of verified callers a worker keeps in its own memory (`split` mode). That memory
/// never shrinks and is 1 GiB at most.
const MOST_KEPT: usize = 256 << 20;

/// Records that the filter keeps the body in `split` mode, which has `bytes` now.
pub(crate) fn keep(bytes: usize, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let more = bytes.saturating_sub(turn.context.kept);
    let kept = turn.worker.kept_bytes.saturating_add(more);
    if kept > MOST_KEPT {
        let (limit, cause) = ("request.unfinished_bytes".into(), Box::new(LimitCause::Bodies));
        return Err(Denial::Limited { limit, cause, retry_after: FULL_FOR });
    }
    turn.worker.kept_bytes = kept;
    turn.context.kept = turn.context.kept.saturating_add(more);
    Ok(())
}

pub(crate) fn hold(bytes: usize, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let (config, address) = (turn.worker.config.unproven, &turn.context.entry.client_address);
    turn.worker.unproven.hold(config, address, &mut turn.context.share, bytes).map_err(|full| {
        let (limit, cause) = (full.name().into(), Box::new(LimitCause::Unproven));
        Denial::Limited { limit, cause, retry_after: FULL_FOR }
    })
}
