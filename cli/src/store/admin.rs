//! The admin chain of each organisation: lines in a list, oldest first. What they say is the core's
//! business; they are written together with what they tell of, by `put_record` and `activate`.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::Key;

use super::Store;
use crate::report::CliError;

/// So many lines are read at once.
const PAGE: usize = 1_000;

impl Store {
    /// The last line of an organisation's chain, whatever it is.
    pub(crate) fn last_entry(&mut self, org: &OrgId) -> Result<Option<Vec<u8>>, CliError> {
        let key = Key::admin(org.as_str());
        self.query(redis::cmd("LINDEX").arg(key.as_str()).arg(-1))
    }

    /// All lines of an organisation's chain, oldest first, page by page. Lines are only ever added.
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
