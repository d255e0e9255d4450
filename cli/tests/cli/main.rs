//! The command line as people and scripts meet it: the built `portcullis` against a real Valkey.

mod admin;
mod audit;
mod audit_anchor;
mod audit_export;
mod audit_report;
mod audit_search;
mod audit_size;
mod bad;
mod causes;
mod discover;
mod doctor;
mod explain;
mod explain_token;
mod harness;
mod keys;
mod keys_bulk;
mod keys_life;
mod keys_lost;
mod limits;
mod operators;
mod organisation;
mod page_commands;
mod pages;
mod policy;
mod policy_canary;
mod policy_diff;
mod policy_folder;
mod policy_review;
mod policy_test;
mod policy_trial;
mod render;
mod restore;
mod schema;
mod several;
mod tokens;
mod top;
mod usage;
#[allow(dead_code, reason = "the tests of redis-lua use the rest")]
#[path = "../../../redis-lua/tests/lua/valkey.rs"]
mod valkey;
mod watch;
