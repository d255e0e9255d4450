//! The suffixes that make names of routes out of a connector's name.
//!
//! Owns that no connector has the name of another one's route.

pub(super) const LISTEN: &str = "-listen";
pub(super) const MESSAGES: &str = "-messages";
pub(super) const UNJUDGED: &str = "-unjudged";
/// All suffixes.
pub(super) const SUFFIXES: [&str; 4] = [LISTEN, MESSAGES, UNJUDGED, "-messages-unjudged"];
