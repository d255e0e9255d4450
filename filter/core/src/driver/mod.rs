//! What the core and its driver say to each other: events in, steps out, and the calls that a step starts.
//!
//! Owns the vocabulary. Decides nothing.

pub mod call;
pub mod event;
pub mod step;
