//! Compares a compiled policy's memory with the worker's estimate of it, and measures the cost of a check.
//!
//! Owns an allocator that counts for each thread, and so for each test.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use portcullis_core::{json, policy};
use serde_json::{Map, Value, json};

/// The system's allocator, with this thread's bytes in use and number of allocations.
struct Counting;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.set(IN_USE.get().wrapping_add(layout.size()));
        ASKED.set(ASKED.get().wrapping_add(1));
        // SAFETY: the caller's contract is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A policy of one organisation: a connector, a role, two tiers, two limits of the organisation's own.
fn small() -> Value {
    json!({
        "version": 1,
        "organisations": ["acme"],
        "connectors": {"demo": {"path": "/demo/mcp"}},
        "roles": {"analyst": {"demo": {"allow": ["search_contacts", "query_users"]}}},
        "tiers": {
            "wide": {"limits": {"calls": {"limit": 100_000, "window": "1s"}}},
            "tight": {"limits": {"calls": {"limit": 3, "window": "1h"}}},
        },
        "limits": {
            "all": {"limit": 100_000, "window": "1s", "per": ["org"]},
            "each_tool": {"limit": 100_000, "window": "1s", "per": ["key", "tool"]},
        },
    })
}

/// A policy with `tools` pinned tools and `roles` roles.
fn large(tools: usize, roles: usize) -> Value {
    let mut document = small();
    let pinned = (0..tools).map(|number| {
        let property = json!({"type": "string", "maxLength": 200, "description": "Which records are looked for."});
        let properties: Map<_, _> =
            (0..8).map(|field| (format!("field_{field}"), property.clone())).collect();
        let schema = json!({"type": "object", "properties": properties, "required": ["field_0"]});
        let pin = json!({"description": "Looks for records of the archive.", "input_schema": schema});
        (format!("query_records_{number}"), pin)
    });
    document["connectors"]["demo"]["tools"] = Value::Object(pinned.collect());
    for number in 0..roles {
        document["roles"][format!("role-{number}")] = document["roles"]["analyst"].clone();
    }
    document
}

/// A policy with rules for `tools` tools in each of `roles` roles.
fn ruled(tools: usize, roles: usize) -> Value {
    let mut document = large(tools, roles);
    let rules = json!({
        "max_records": {"argument": "limit", "max": 50},
        "approval": "required",
        "arguments": {"field_0": {"pattern": "^[a-z]{1,40}$", "max_length": 40}, "field_1": {"enum": ["free", "pro"]}},
    });
    let each = (0..tools).map(|number| (format!("query_records_{number}"), rules.clone()));
    let each = Value::Object(each.collect());
    for number in 0..roles {
        document["roles"][format!("role-{number}")]["demo"]["tools"] = each.clone();
    }
    document
}

/// The length of the document, the bytes of its compiled form, and the estimate.
fn measured(document: &Value) -> (usize, usize, usize) {
    let text = json::canonical_exact(document);
    let version = policy::version_of(document).unwrap();
    let before = IN_USE.get();
    let policy = policy::load(text.as_bytes(), &version).unwrap();
    let taken = IN_USE.get() - before;
    (text.len(), taken, policy.weight)
}

// Finding 12.3: ten thousand small policies took twice the memory that a worker may use for them. The tolerance of an
// eighth is for pointers in strings and lists, which are twice as long here as in the module.
// Proves: X17
#[test]
fn policy_counts_with_about_what_it_takes() {
    for document in [small(), large(20, 5), large(500, 50), ruled(20, 5), ruled(50, 20)] {
        let (length, taken, weight) = measured(&document);
        let shown = format!("{length} bytes: takes {taken}, counts with {weight}");
        assert!(taken <= weight + weight / 8, "{shown}");
        assert!(weight <= 2 * taken, "{shown}");
    }
}

/// A policy with this many tools, and a tenth as many roles, with conditions and rules of their own.
fn checked(tools: usize) -> Value {
    let mut document = large(tools, tools / 10);
    let when = "arguments.field_1 != 'x' || time.hour < 8";
    for number in 0..tools {
        let tool = &mut document["connectors"]["demo"]["tools"][format!("query_records_{number}")];
        tool["conditions"] = json!([{"when": when}]);
        tool["arguments"] = json!({"field_0": {"max_length": 40}});
    }
    for number in 0..tools / 10 {
        let own = format!("query_records_{number}");
        document["roles"][format!("role-{number}")]["demo"] = json!({
            "allow": ["query_*", own], "deny": [format!("query_records_{}", number + 1)],
            "conditions": [{"when": "arguments.field_2.size() < 9", "tools": ["query_*"]}],
            "tools": {"query_records_*": {"arguments": {"field_0": {"max_length": 50}}}, own: {"approval": "required"}},
        });
    }
    document
}

/// The cost of `policy check` for a policy twice as large, as the number of allocations: if every tool were compared
/// with every role, it would be four times as much. `cargo run --release --example check` measures the time.
// Proves: X9
#[test]
fn a_check_of_a_policy_twice_as_large_costs_twice_as_much() {
    let cost = |tools: usize| {
        let policy = policy::compile(&checked(tools)).unwrap();
        let before = ASKED.get();
        std::hint::black_box(policy.warnings());
        ASKED.get() - before
    };
    let (one, two) = (cost(200), cost(400));
    assert!(two * 2 < one * 5, "{one} and {two} allocations");
}
