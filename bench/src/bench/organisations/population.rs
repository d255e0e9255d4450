//! Many organisations in one Redis: each with its own policy document and one key.
//!
//! Owns the form of these documents, and writes them as the operator's tool does. Ten thousand runs of that tool would
//! take longer than the measurement. So there are no entries in an admin chain, which no filter reads.

use super::super::configuration;
use super::super::rig::Rig;
use super::super::scale::document::{self, Size};
use portcullis_core::auth::api_key::{KeyDigest, mint};
use portcullis_core::auth::record::{KeyRecord, StoredSecret};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::{json, policy};
use portcullis_redis_lua::Key;
use portcullis_stack::failure::{Failure, Result};
use serde_json::{Value, json};

/// The size of the policies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Population {
    /// One connector and two roles.
    Small,
    /// 500 pinned tools, and 50 roles.
    Large,
}

/// One organisation, as its caller uses it.
pub(super) struct Tenant {
    pub(super) org: String,
    pub(super) credential: String,
}

/// All of them.
pub(super) struct Tenants {
    pub(super) all: Vec<Tenant>,
    /// The length of each document, and a worker's estimate of its memory.
    pub(super) bytes: usize,
    pub(super) weight: usize,
}

/// How many organisations are written at once.
const BATCH: usize = 100;
/// The role that may call the tool of the load.
const ROLE: &str = "analyst";
const TIER: &str = "wide";
/// One secret for all keys: their prefixes differ.
pub(crate) const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

impl Population {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    /// Writes `count` of them into the rig's Redis.
    pub(super) fn settle(self, rig: &Rig, count: u32) -> Result<Tenants> {
        let base = configuration::document(&rig.tools, &rig.root.join("envoy/bench/policy.yaml"))?;
        let mut document = match self {
            Self::Small => base,
            Self::Large => document::policy(base, Size { tools: 500, roles: 50 }),
        };
        let (mut all, mut bytes, mut weight) = (Vec::new(), 0, 0);
        let numbers: Vec<u32> = (0..count).collect();
        for batch in numbers.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for number in batch {
                let org = OrgId::new(&format!("{}{number}", self.name())).ok_or_else(unfit)?;
                document["organisations"] = json!([org.as_str()]);
                let text = activate(&org, &document, &mut pipeline)?;
                if weight == 0 {
                    let version = policy::version_of(&document).ok_or_else(unfit)?;
                    let compiled = policy::load(text.as_bytes(), &version);
                    (bytes, weight) = (text.len(), compiled.ok_or_else(unfit)?.weight);
                }
                let id = KeyId::new("key1").ok_or_else(unfit)?;
                let credential = issue(&org, &id, &mut pipeline)?;
                all.push(Tenant { org: org.to_string(), credential });
            }
            rig.write(&pipeline)?;
        }
        Ok(Tenants { all, bytes, weight })
    }
}

/// Makes `document` the policy of `org`; returns the stored text.
fn activate(org: &OrgId, document: &Value, pipeline: &mut redis::Pipeline) -> Result<String> {
    let version = policy::version_of(document).ok_or_else(unfit)?;
    let text = json::canonical_exact(document);
    pipeline.cmd("SET").arg(Key::policy_document(version.as_str()).as_str()).arg(&text).ignore();
    let active = Key::policy(org.as_str());
    let active = pipeline.cmd("HSET").arg(active.as_str()).arg(&["doc", "{}", "generation", "1"]);
    active.arg("rev").arg(version.as_str()).ignore();
    Ok(text)
}

/// Issues a key for `org`.
pub(crate) fn issue(org: &OrgId, id: &KeyId, pipeline: &mut redis::Pipeline) -> Result<String> {
    let key = mint(org, id, SECRET).ok_or_else(unfit)?;
    let sha256 = KeyDigest::of(key.expose().as_bytes()).to_hex();
    let name = |name| PolicyName::new(name).ok_or_else(unfit);
    let record = KeyRecord {
        id: id.clone(),
        org: org.clone(),
        name: "bench".to_owned(),
        role: name(ROLE)?,
        tier: name(TIER)?,
        connectors: None,
        tools: None,
        read_only: false,
        sources: None,
        certificate: None,
        secrets: vec![StoredSecret { sha256, issued_at: None, not_after: None }],
        created_at: 0,
        created_by: "bench".to_owned(),
        not_before: None,
        expires_at: None,
        rotated: None,
        revoked: None,
    };
    let doc = serde_json::to_string(&record).map_err(|error| Failure::new(error.to_string()))?;
    let place = Key::record(org.as_str(), id.as_str());
    pipeline.cmd("HSET").arg(place.as_str()).arg(&["rev", "1", "doc", &doc]).ignore();
    Ok(format!("Bearer {}", key.expose()))
}

fn unfit() -> Failure {
    Failure::new(
        "an organisation of the benchmark is none for the core; adapt xtask/src/bench/organisations/population.rs",
    )
}
