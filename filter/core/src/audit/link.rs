//! The link between an entry and its chain: the chain's name, the position, the hash of the previous entry, its own
//! hash.
//!
//! Owns how an entry is hashed and how its link is parsed. Knows neither the writer nor the verifier.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{hex, json};

/// The previous hash of the first entry of a chain.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The link of an entry to its chain.
pub(super) struct Link {
    pub(super) chain: String,
    pub(super) seq: u64,
    pub(super) prev_hash: String,
    pub(super) hash: String,
    pub(super) computed: String,
    pub(super) timestamp: Option<String>,
}

impl Link {
    pub(super) fn read(line: &str) -> Result<Self, String> {
        let value = json::parse_strict(line.as_bytes()).map_err(|error| error.to_string())?;
        let Value::Object(members) = value else {
            return Err("not an object".to_owned());
        };
        let text = |name: &str| text(&members, name);
        let seq = members.get("seq").and_then(Value::as_u64);
        Ok(Self {
            chain: text("chain")?,
            seq: seq.ok_or("no whole number in the member seq")?,
            prev_hash: text("prev_hash")?,
            hash: text("hash")?,
            timestamp: text("timestamp").ok(),
            computed: hash_of(members),
        })
    }
}

fn text(members: &Map<String, Value>, name: &str) -> Result<String, String> {
    let text = members.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("no text in the member {name}"))
}

/// The hash of an entry: SHA-256, in hex, of its canonical JSON without the member `hash`.
#[must_use]
pub fn hash_of(mut members: Map<String, Value>) -> String {
    members.remove("hash");
    hash_text(&json::canonical(&members))
}

/// The signed text of an entry and the signature: the text is its canonical JSON without `hash` and `signature`. `None`
/// for an entry without a signature.
#[must_use]
pub fn signed(mut members: Map<String, Value>) -> Option<(String, String)> {
    members.remove("hash");
    let signature = members.remove("signature")?;
    Some((json::canonical(&members), signature.as_str()?.to_owned()))
}

/// SHA-256, in hex.
pub(super) fn hash_text(text: &str) -> String {
    hex::lower(&Sha256::digest(text.as_bytes()))
}
