//! Windows: what is drawn, and forgetting it.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Admit, AdmitReply, Key, Window, WindowState};

use super::Store;
use crate::report::Refusal;

impl Store {
    /// The names of keys that start with `prefix`, sorted. Reads through all keys there are.
    pub(crate) fn names_with(&mut self, prefix: &str) -> Result<Vec<String>, Refusal> {
        let (mut names, mut cursor) = (Vec::new(), 0_u64);
        loop {
            // No part of a key's name can hold a `*` or what else would be a pattern.
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1_000);
            let (next, mut found): (u64, Vec<String>) = self.query(&scan)?;
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
    pub(crate) fn look_at(&mut self, windows: &[Window]) -> Result<Vec<WindowState>, Refusal> {
        let free = |window: &Window| Window { cost: 0, alert: None, ..window.clone() };
        let windows = windows.iter().map(free).collect();
        let admit = Admit { guards: Vec::new(), windows, used: None };
        let reply = self.run(&admit.call())?;
        match admit.decode(reply) {
            Ok(AdmitReply::Admitted(states) | AdmitReply::Limited { windows: states, .. }) => {
                Ok(states)
            }
            Ok(AdmitReply::Moved(_)) => {
                Err(Refusal::new("an admission without guards moved", self.link.place()))
            }
            Err(error) => Err(Refusal::new(error.to_string(), self.link.place())
                .expected("Redis 7 or Valkey, and a user who may run scripts")),
        }
    }

    /// From here on, another entry in the organisation's admin chain makes [`Store::forget`] come to
    /// nothing.
    pub(crate) fn watch_chain(&mut self, org: &OrgId) -> Result<(), Refusal> {
        self.query(redis::cmd("WATCH").arg(Key::admin(org.as_str()).as_str()))
    }

    /// Removes `keys` and writes the entry that tells of it, in one step; nothing, if somebody else
    /// wrote an entry meanwhile.
    pub(crate) fn forget(
        &mut self,
        keys: &[&Key],
        org: &OrgId,
        entry: &str,
    ) -> Result<Option<()>, Refusal> {
        let mut change = redis::pipe();
        change.atomic();
        let names: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        change.cmd("DEL").arg(names).ignore();
        change.cmd("RPUSH").arg(Key::admin(org.as_str()).as_str()).arg(entry).ignore();
        self.pipeline(&change)
    }
}
