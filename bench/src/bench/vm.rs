//! What a call costs in crossings between Envoy and the module: counts, which do not depend on the machine.
//!
//! Owns counting them in Envoy's log, where the level `trace` of `wasm` has a line for each. Both modules count.

use super::contender::Contender;
use super::rig::Rig;
use super::traffic::ANSWER;
use super::variant::Variant;
use portcullis_load::{LoadPlan, Shape};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::http;
use portcullis_stack::ready;
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// The crossings of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Crossings {
    /// How often Envoy called into a VM, apart from `allocations`.
    pub(crate) entries: u64,
    /// How often a module called Envoy.
    pub(crate) host_calls: u64,
    /// How often Envoy had a module allocate memory for what it passes.
    pub(crate) allocations: u64,
}

/// The first calls define metrics and fill caches.
const WARM_UP: u64 = 10;
/// How many calls are counted.
const CALLS: u64 = 21;
const WITHIN: Duration = Duration::from_secs(10);
/// The first and the last crossing of each call.
const BEGINS: &str = "[host->vm] proxy_on_context_create(";
const ENDS: &str = "[host->vm] proxy_on_delete(";

/// What a call may have at most, with one reading of the clock to spare. A change of the filter that needs more changes this, and says why.
fn most(variant: Variant) -> Option<Crossings> {
    let [entries, host_calls, allocations] = match variant {
        Variant::Token => [9, 30, 7],
        Variant::TokenUnguarded => [9, 29, 8],
        Variant::Key => [12, 44, 9],
        Variant::KeyUnguarded => [12, 43, 10],
        Variant::KeySplit => [14, 56, 11],
        Variant::Plain | Variant::Native | Variant::NativeUnlimited | Variant::NativeHeaders => {
            return None;
        }
    };
    Some(Crossings { entries, host_calls, allocations })
}

/// The crossings of a warm call; `None` for a variant without a module. Fails when there are more than [`most`].
pub(crate) fn count(rig: &Rig, contender: &Contender) -> Result<Option<Crossings>> {
    let Some(most) = most(contender.variant) else { return Ok(None) };
    let level = |level: &str| {
        let url = format!("{}/logging?wasm={level}", contender.envoy.admin_url());
        http::send("POST", &url, &[], b"")
    };
    let read = || fs::read_to_string(contender.envoy.process().log()).unwrap_or_default();
    calls(rig, contender, WARM_UP)?;
    let before = read().len();
    level("trace")?;
    let called = calls(rig, contender, CALLS).and_then(|()| {
        // The last crossing of a call follows its answer.
        let traced = ready::eventually("the crossings of all calls", WITHIN, || {
            let trace = read().get(before..)?.to_owned();
            (trace.matches(ENDS).count() as u64 >= CALLS).then_some(trace)
        });
        Ok(traced?)
    });
    level("info")?;
    let counted = least(&called?).ok_or_else(|| {
        Failure::new(format!("{}: its calls have no crossings", contender.name()))
    })?;
    if counted.within(most) {
        return Ok(Some(counted));
    }
    let text = format!("a call has {counted:?}, expected at most {most:?}");
    Err(Failure::new(format!("{}: {text}", contender.name())))
}

/// Makes so many calls one after the other, each in one packet: a body that arrives later is one crossing more.
fn calls(rig: &Rig, contender: &Contender, count: u64) -> Result<()> {
    let outcome = rig.drive(&LoadPlan {
        address: contender.envoy.address(),
        request: contender.request.clone(),
        sessions: Vec::new(),
        first_serial: rig.serials(count),
        expected: ANSWER.to_owned(),
        connections: 1,
        shape: Shape::Saturation,
        seconds: WITHIN.as_secs_f64(),
        most: count,
        cpus: rig.cpus.others.clone(),
    })?;
    if outcome.requests == count {
        return Ok(());
    }
    let fault = outcome.first_fault.unwrap_or_default();
    Err(Failure::new(format!("{}: a counted call went wrong: {fault}", contender.name())))
}

impl Crossings {
    fn within(self, most: Self) -> bool {
        self.entries <= most.entries
            && self.host_calls <= most.host_calls
            && self.allocations <= most.allocations
    }
}

/// The least counts of the calls of a log: in a slow call the module reads the clock once more, and a timer of the module
/// or a part of an answer can be an entry of its own.
fn least(trace: &str) -> Option<Crossings> {
    let (mut calls, mut current): (Vec<Crossings>, Option<Crossings>) = (Vec::new(), None);
    for line in trace.lines() {
        if line.contains(BEGINS) {
            current = Some(Crossings::default());
        }
        let Some(call) = &mut current else { continue };
        if line.contains("[vm->host] ") {
            call.host_calls += 1;
        } else if line.contains("[host->vm] proxy_on_memory_allocate(") {
            call.allocations += 1;
        } else if line.contains("[host->vm] ") {
            call.entries += 1;
        }
        if line.contains(ENDS) {
            calls.extend(current.take());
        }
    }
    let least = |count: fn(&Crossings) -> u64| calls.iter().map(count).min();
    Some(Crossings {
        entries: least(|call| call.entries)?,
        host_calls: least(|call| call.host_calls)?,
        allocations: least(|call| call.allocations)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_a_bound() {
        let most = most(Variant::Token).unwrap();
        assert!(most.within(most));
        assert!(!Crossings { entries: most.entries + 1, ..most }.within(most));
        assert!(!Crossings { host_calls: most.host_calls + 1, ..most }.within(most));
        assert!(!Crossings { allocations: most.allocations + 1, ..most }.within(most));
    }

    #[test]
    fn a_call_has_its_own_crossings_and_a_timer_does_not_count() {
        let call = [
            "[t][wasm] [host->vm] proxy_on_context_create(2, 1)",
            "[t][wasm] [host->vm] proxy_on_request_headers(2, 12, 0)",
            "[t][wasm] [vm->host] env.proxy_get_header_map_pairs(0, 1, 2)",
            "[t][wasm] [host->vm] proxy_on_memory_allocate(384)",
            "[t][wasm] [vm->host] env.proxy_set_property(1, 2, 3, 4)",
            "[t][wasm] [host->vm] proxy_on_delete(2)",
        ]
        .join("\n");
        let tick = "[t][wasm] [host->vm] proxy_on_tick(1)\n[t][wasm] [vm->host] env.x()";
        let cut = "[t][wasm] [host->vm] proxy_on_context_create(2, 1)";
        let trace = format!("{tick}\n{call}\n{call}\n{tick}\n{call}\nanother line\n{cut}");
        let expected = Crossings { entries: 3, host_calls: 2, allocations: 1 };
        assert_eq!(least(&trace), Some(expected));
        assert_eq!((least(tick), least(cut)), (None, None));
    }
}
