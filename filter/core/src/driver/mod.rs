//! The interface between the core and its driver: events in, steps out, and the calls that a step starts.
//!
//! Owns the types. Decides nothing.

pub mod call;
pub mod event;
pub mod step;
