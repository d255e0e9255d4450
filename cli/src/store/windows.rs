//! Windows: reading and resetting them.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{
    Admit, AdmitReply, Forget, Key, Look, Note, Scope, Window, WindowStanding,
};

use super::Store;
use crate::report::CliError;

impl Store {
    /// The names of keys that start with `prefix`, sorted. Reads all keys of the server that has them; a prefix with a
    /// hash tag is in one place in a Cluster, too. Nothing for a user without permission for `SCAN`: an operator of one
    /// organisation, because Redis cannot limit `SCAN` to its names.
    pub(crate) fn names_with(&mut self, prefix: &Key) -> Result<Option<Vec<String>>, CliError> {
        match self.scanned(prefix) {
            Err(refusal) if refusal.is_for_want_of_rights() => Ok(None),
            names => names.map(Some),
        }
    }

    fn scanned(&mut self, prefix: &Key) -> Result<Vec<String>, CliError> {
        let (mut names, mut cursor) = (Vec::new(), 0_u64);
        loop {
            // A key's name never contains `*` or other pattern characters.
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1_000);
            let (next, mut found): (u64, Vec<String>) =
                self.connection.query_beside(prefix.as_str(), &scan)?;
            names.append(&mut found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The states of the windows at one moment. Draws nothing and writes nothing.
    pub(crate) fn look_at(&mut self, windows: &[Window]) -> Result<Vec<WindowStanding>, CliError> {
        let look = Look { windows: windows.to_vec() };
        let reply = self.run_ro(&look.call())?;
        look.decode(reply).map_err(|error| self.unscripted(&error))
    }

    /// Draws from a window of a reserved organisation, like a call; the window expires by itself.
    pub(crate) fn probe(&mut self) -> Result<(), CliError> {
        const ORG: &str = "portcullis-doctor";
        let window = Window {
            key: Key::window(Scope::Org(ORG), "doctor.probe", &[]),
            limit: u64::from(u32::MAX),
            length_us: 1_000_000,
            grain_us: 1,
            cost: 1,
            alert: None,
        };
        let admit = Admit { guards: Vec::new(), windows: vec![window], used: None, intent: None };
        let reply = self.run(&admit.call())?;
        match admit.decode(reply) {
            Ok(AdmitReply::Admitted(_)) => Ok(()),
            Ok(AdmitReply::Limited { .. } | AdmitReply::Stale(_)) => Err(CliError::new(
                "the admission script refuses a call that nothing limits",
                self.connection.address(),
            )
            .next("look for other scripts or users that write portcullis:{portcullis-doctor}:*")),
            Err(error) => Err(self.unscripted(&error)),
        }
    }

    /// Removes `keys` and writes the entry after `last_entry`, in one step; does nothing if another operator wrote an
    /// entry meanwhile.
    pub(crate) fn forget(
        &mut self,
        keys: &[&Key],
        org: &OrgId,
        (last_entry, entry): (Option<&[u8]>, &str),
    ) -> Result<Option<()>, CliError> {
        self.may_change(org.as_str())?;
        let note = Note { last_entry, entry };
        let forget = Forget { org: org.as_str(), keys, note };
        Ok(self.noted(&forget.call())?.then_some(()))
    }
}
