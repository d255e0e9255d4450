//! The scripts on a real Valkey: their replies, the state that they leave, and that many connections at once cannot
//! draw more from a window than its limit.

mod acl;
mod admit;
mod approval;
mod bind;
mod budget;
mod checkpoint;
mod concurrency;
mod cost;
mod generation;
mod intents;
mod ledger;
mod look;
mod model;
mod noted;
mod observe;
mod put_policy;
mod put_record;
mod scripts;
mod used;
#[allow(dead_code, reason = "the CLI's tests use this file too, and more of it")]
mod valkey;
