//! What is put behind a connector's name to name its routes. Owns that no connector may have such a name.

pub(super) const LISTEN: &str = "-listen";
pub(super) const MESSAGES: &str = "-messages";
pub(super) const UNJUDGED: &str = "-unjudged";
/// All of them.
pub(super) const SUFFIXES: [&str; 4] = [LISTEN, MESSAGES, UNJUDGED, "-messages-unjudged"];
