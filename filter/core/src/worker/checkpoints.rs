//! The worker's part in checkpoints of its audit chain: they need Redis, and the log messages for the operator are
//! here.

use portcullis_redis_lua::{ScriptCall, Value};

use super::Worker;
use crate::time::UnixTime;

impl Worker {
    /// The call that records the end of the audit chain in Redis, when one is due.
    pub fn due_checkpoint(&mut self, now: UnixTime) -> Option<ScriptCall> {
        self.config.redis.as_ref()?;
        self.checkpoints.due(now, &self.chain, self.config.checkpoints)
    }

    /// The same when the VM ends, without waiting for the reply.
    pub fn last_checkpoint(&mut self, now: UnixTime) -> Option<ScriptCall> {
        self.config.redis.as_ref()?;
        self.checkpoints.last(now, &self.chain, self.config.checkpoints)
    }

    /// Takes the reply; `None` if there was none.
    pub fn checkpoint_answered(&mut self, reply: Option<Value>) {
        if let Some(alarm) = self.checkpoints.answered(reply, &self.chain) {
            self.alarm(alarm);
        }
    }
}
