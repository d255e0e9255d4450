//! The admin chain of each organisation: lines in a list, oldest first. The core owns their content; `put_record` and
//! `activate` write them together with the change that they describe.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::Key;

use super::Store;
use crate::report::CliError;

/// How many lines are read at once.
const PAGE: usize = 1_000;

impl Store {
    /// The last line of an organisation's chain, in any form.
    pub(crate) fn last_entry(&mut self, org: &OrgId) -> Result<Option<Vec<u8>>, CliError> {
        let key = Key::admin(org.as_str());
        self.query(redis::cmd("LINDEX").arg(key.as_str()).arg(-1))
    }

    /// All lines of an organisation's chain, oldest first, page by page. Lines are only appended.
    pub(crate) fn each_entry(
        &mut self,
        org: &OrgId,
        mut read: impl FnMut(&[u8]),
    ) -> Result<(), CliError> {
        let key = Key::admin(org.as_str());
        for start in (0_usize..).step_by(PAGE) {
            let end = start.saturating_add(PAGE).saturating_sub(1);
            let lines: Vec<Vec<u8>> =
                self.query(redis::cmd("LRANGE").arg(key.as_str()).arg(start).arg(end))?;
            lines.iter().for_each(|line| read(line));
            if lines.len() < PAGE {
                break;
            }
        }
        Ok(())
    }
}
