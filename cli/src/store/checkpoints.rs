//! Checkpoints of audit chains, as gateways recorded them. The core owns the form of entries.

use portcullis_core::audit::Anchor;
use portcullis_redis_lua::Key;

use super::Store;
use crate::report::CliError;
use crate::time::Seconds;

impl Store {
    /// The last known entry of each gateway's chain in Redis.
    pub(crate) fn checkpoints(&mut self) -> Result<Vec<Anchor>, CliError> {
        let index = Key::checkpoints();
        let names: Vec<String> =
            self.query(redis::cmd("ZRANGE").arg(index.as_str()).arg(0).arg(-1))?;
        let mut checkpoints = Vec::new();
        for name in names {
            let key = Key::checkpoint(&name);
            let fields: (Option<u64>, Option<String>, Option<u64>) = self
                .query(redis::cmd("HMGET").arg(key.as_str()).arg("seq").arg("hash").arg("time"))?;
            // Expired a moment ago, or no checkpoint: it proves nothing.
            if let (Some(seq), Some(hash), time) = fields {
                let at = time.map(|time| Seconds(time).rfc3339());
                checkpoints.extend(Anchor::new(&name, seq, &hash, at));
            }
        }
        Ok(checkpoints)
    }
}
