//! The effects of stages: through [`super::turn::Turn`], on the worker and as effects. They know no stage and no
//! handover.

pub(crate) mod bind;
pub(crate) mod charge_rows;
pub(crate) mod cool_off;
pub(crate) mod forward;
pub(crate) mod forwarded;
pub(crate) mod go_without;
pub(crate) mod hold_body;
pub(crate) mod identify_caller;
pub(crate) mod prove_token;
pub(crate) mod read_credential;
pub(crate) mod recheck;
pub(crate) mod watch_drift;
