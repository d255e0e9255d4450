//! What a compiled policy takes in memory, against what a worker counts it with.
//!
//! Owns an allocator that counts. A test program of its own: no other test allocates beside it.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_core::{json, policy};
use serde_json::{Map, Value, json};

/// The system's allocator, and how many bytes of it are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Of one organisation: a connector, a role, two tiers, two limits of the organisation's own.
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

/// With `tools` pinned tools and `roles` roles.
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

/// With rules of their own for `tools` tools in each of `roles` roles.
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

/// The length of the document, the bytes that its compiled form takes, and the bytes that it counts with.
fn measured(document: &Value) -> (usize, usize, usize) {
    let text = json::canonical_exact(document);
    let version = policy::version_of(document).unwrap();
    let before = IN_USE.load(Ordering::Relaxed);
    let policy = policy::load(text.as_bytes(), &version).unwrap();
    let taken = IN_USE.load(Ordering::Relaxed) - before;
    (text.len(), taken, policy.weight)
}

// Finding 12.3: ten thousand small policies took twice the memory that a worker may use for them. The tolerance of an eighth is
// for pointers in strings and lists, which are twice as long here as in the module.
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
