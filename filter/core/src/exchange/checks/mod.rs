//! Facts in, decision out: no turn, no effects, no events.

pub(crate) mod caller;
pub(crate) mod cors;
pub(crate) mod media_type;
pub(crate) mod pinned_tools;
pub(crate) mod protected_resource;
pub(crate) mod response_form;
pub(crate) mod snapshot;
pub(crate) mod token;
pub(crate) mod verdict;
