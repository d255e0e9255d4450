//! Windows: what is drawn, and forgetting it.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Admit, AdmitReply, Forget, Key, Note, Scope, Window, WindowState};

use super::Store;
use crate::report::CliError;

impl Store {
    /// The names of keys that start with `prefix`, sorted. Reads through all keys of the server that has
    /// them; a prefix with a hash tag is in one place in a Cluster, too.
    pub(crate) fn names_with(&mut self, prefix: &Key) -> Result<Vec<String>, CliError> {
        let (mut names, mut cursor) = (Vec::new(), 0_u64);
        loop {
            // No part of a key's name can hold a `*` or what else would be a pattern.
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

    /// How the windows stand, all at one moment. Draws nothing, whatever their cost is.
    pub(crate) fn look_at(&mut self, windows: &[Window]) -> Result<Vec<WindowState>, CliError> {
        let free = |window: &Window| Window { cost: 0, alert: None, ..window.clone() };
        let windows = windows.iter().map(free).collect();
        let admit = Admit { guards: Vec::new(), windows, used: None };
        let reply = self.run(&admit.call())?;
        match admit.decode(reply) {
            Ok(AdmitReply::Admitted(states) | AdmitReply::Limited { windows: states, .. }) => {
                Ok(states)
            }
            Ok(AdmitReply::Stale(_)) => {
                Err(CliError::new("an admission without guards moved", self.connection.address()))
            }
            Err(error) => Err(self.unscripted(&error)),
        }
    }

    /// Draws from a window of a reserved organisation, as a call does; Redis forgets it by itself.
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
        let admit = Admit { guards: Vec::new(), windows: vec![window], used: None };
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

    /// Removes `keys` and writes the entry that tells of it and follows `last_entry`, in one step; nothing, if
    /// somebody else wrote an entry meanwhile.
    pub(crate) fn forget(
        &mut self,
        keys: &[&Key],
        org: &OrgId,
        (last_entry, entry): (Option<&[u8]>, &str),
    ) -> Result<Option<()>, CliError> {
        let note = Note { last_entry, entry };
        let forget = Forget { org: org.as_str(), keys, note };
        Ok(self.noted(&forget.call())?.then_some(()))
    }
}
