//! Alert rules and the dashboard, as data and on the real stack.

pub(crate) mod rules;
