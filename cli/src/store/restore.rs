//! Generations: the number of an organisation's changes that Redis has seen.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{AcceptRestore, Note};

use super::Store;
use crate::report::CliError;

impl Store {
    /// Makes gateways serve `org` although they saw a later state of it. `entry` makes the next line of the admin
    /// chain.
    pub(crate) fn accept_restore(
        &mut self,
        org: &OrgId,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<(), CliError> {
        self.may_change(org.as_str())?;
        self.until_done("gateways go on refusing", |store| {
            let last = store.last_entry(org)?;
            let entry = entry(last.as_deref());
            let note = Note { last_entry: last.as_deref(), entry: &entry };
            let accept = AcceptRestore { org: org.as_str(), note };
            Ok(store.noted(&accept.call())?.then_some(()))
        })
    }
}
