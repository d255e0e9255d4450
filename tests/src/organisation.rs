//! An organisation of one test: its policy and its keys affect no other test.
//!
//! The real CLI sets up everything. Owns the policy that most tests start from.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use portcullis_stack::{CREDENTIAL_FIELD, CREDENTIAL_PATH, IssuedKey, KeySpec, Operator, Stack};
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway};
use crate::mcp;
use crate::wire::Request;

pub const DEMO: &str = "/demo/mcp";
pub const PYTHON: &str = "/python/mcp";

/// Headers with which a test selects the answer of a fake that replaces the Python server.
const FOR_FAKES: [&str; 6] = ["x-case", "x-form", "x-opens", "x-piece", "x-streamed", "x-ttl"];

/// Parameters of the query by which routes of tests and filters behind ours decide.
const OF_ROUTES: [&str; 3] = ["late", "redirect", "way"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A tenant with an active policy.
#[derive(Clone, Debug)]
pub struct Organisation {
    pub name: String,
    pub gateway: Gateway,
    pub operator: Operator,
    dir: PathBuf,
}

impl Organisation {
    /// An organisation with [`Organisation::standard_policy`], as changed by `change`.
    pub fn with_policy(stack: &Stack, change: impl FnOnce(&mut Value)) -> Self {
        let organisation = Self {
            name: format!("org{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            gateway: Gateway::of(stack),
            operator: stack.operator.clone(),
            dir: stack.dir().to_owned(),
        };
        let mut policy = organisation.standard_policy();
        change(&mut policy);
        organisation.push(&policy);
        organisation
    }

    pub fn new(stack: &Stack) -> Self {
        Self::with_policy(stack, |_| {})
    }

    /// The same organisation, through another Envoy.
    pub fn through(&self, gateway: &Gateway) -> Self {
        Self { gateway: gateway.clone(), ..self.clone() }
    }

    /// Roles `analyst` (three tools to call, `create_note` to see) and `admin` (everything); tiers `wide` and `narrow`
    /// (three calls an hour).
    pub fn standard_policy(&self) -> Value {
        json!({
            "version": 1,
            "organisations": [self.name],
            "connectors": {
                "demo": {"path": DEMO, "query": OF_ROUTES, "credential": {
                    "secret": format!("vault://secret/{CREDENTIAL_PATH}#{CREDENTIAL_FIELD}"),
                    "header": "authorization",
                    "template": "Bearer {secret}",
                }},
                "python": {"path": PYTHON, "request_headers": FOR_FAKES},
            },
            "roles": {
                "analyst": {
                    "demo": {
                        "allow": ["query_users", "search_contacts", "get_dashboard_metrics"],
                        "show": ["create_note"],
                    },
                    "python": {"allow": ["echo", "add"]},
                },
                "admin": {"demo": {"allow": ["*"]}, "python": {"allow": ["*"]}},
            },
            "tiers": {
                "wide": {"limits": {"calls": {"limit": 100_000, "window": "1s"}}},
                "narrow": {"limits": {"calls": {"limit": 3, "window": "1h"}}},
            },
        })
    }

    /// Activates `policy`, for the next request on; returns the CLI's output.
    pub fn push(&self, policy: &Value) -> Value {
        let file = self.file(policy);
        self.operator
            .push_policy(&file, "a test wants it")
            .unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The CLI's output for a policy that it refuses.
    pub fn push_refused(&self, policy: &Value) -> Value {
        let file = self.file(policy);
        let push = ["policy", "push", &file.to_string_lossy(), "--reason", "r", "--output", "json"];
        let output = self.operator.run(&push).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let refusal: Value = serde_json::from_slice(&output.stderr).expect("one JSON document");
        refusal["error"].clone()
    }

    fn file(&self, policy: &Value) -> PathBuf {
        let file = self.dir.join(format!("policy-{}.json", self.name));
        fs::write(&file, policy.to_string()).expect("write the policy");
        file
    }

    /// A key of that role in tier `wide`.
    pub fn key(&self, role: &str) -> IssuedKey {
        self.key_in(role, "wide")
    }

    pub fn key_in(&self, role: &str, tier: &str) -> IssuedKey {
        let spec = KeySpec { org: &self.name, name: role, role, tier };
        self.operator.issue_key(&spec).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Sends a message to the demo connector with that key.
    pub fn post(&self, key: &str, message: &Value) -> Answer {
        self.gateway.send(&Request::post(DEMO, message.to_string()).bearer(key))
    }

    /// Calls a tool of the demo connector.
    pub fn call(&self, key: &str, tool: &str, arguments: Value) -> Answer {
        self.post(key, &mcp::call(tool, arguments))
    }
}
