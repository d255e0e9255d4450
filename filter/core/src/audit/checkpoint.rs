//! When it is noted outside of the log how far the chain has come.
//!
//! Owns what Redis has of this VM's chain, as far as the worker knows. The script refuses what goes back or forks. A
//! checkpoint without an answer is sent again before any later one, so that a lost answer is no fork.

use std::time::Duration;

use portcullis_redis_lua::{ChainEnd, Checkpoint, CheckpointReply, ScriptCall, Value};

use super::Chain;
use crate::time::UnixTime;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// This long after the last one, if there are new entries. `None` turns checkpoints off.
    pub every: Option<Duration>,
    /// After so many new entries, if that is earlier.
    pub entries: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(10)), entries: 1_000 }
    }
}

/// The checkpoints of one chain.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// What Redis noted.
    noted: ChainEnd,
    /// What Redis was asked to note, without an answer that settles it.
    pending: Option<ChainEnd>,
    waiting: bool,
    asked: Option<UnixTime>,
    /// A refusal is reported once.
    refused: bool,
}

impl Checkpoints {
    /// The call that is due now, if there is one. [`Checkpoints::answered`] gets its reply.
    pub fn due(
        &mut self,
        now: UnixTime,
        chain: &Chain,
        config: CheckpointConfig,
    ) -> Option<ScriptCall> {
        let every = config.every?;
        let new = chain.seq().saturating_sub(self.noted.seq);
        let late = self.asked.is_none_or(|asked| now.since(asked) >= every);
        // What was refused is asked again at its time, not with every tick.
        let many = new >= config.entries && self.pending.is_none() && !self.refused;
        let due = !self.waiting && new > 0 && (late || many);
        due.then(|| self.call(now, chain))
    }

    /// The last call: the VM ends in order. Its reply is not awaited. Where an earlier one is under way, it follows that
    /// one: Redis takes calls in order, and lets a chain go on too whose checkpoint it did not get.
    pub fn last(
        &mut self,
        now: UnixTime,
        chain: &Chain,
        config: CheckpointConfig,
    ) -> Option<ScriptCall> {
        if let Some(asked) = self.pending.take_if(|asked| asked.seq < chain.seq()) {
            (self.noted, self.waiting) = (asked, false);
        }
        let new = config.every.is_some() && chain.seq() > self.noted.seq;
        (new && !self.waiting).then(|| self.call(now, chain))
    }

    fn call(&mut self, now: UnixTime, chain: &Chain) -> ScriptCall {
        let end = self.pending.get_or_insert_with(|| chain.end()).clone();
        self.waiting = true;
        self.asked = Some(now);
        let (chain, build) = (chain.name().to_owned(), chain.build());
        Checkpoint { chain, last: self.noted.clone(), end, build }.call()
    }

    /// Takes the reply; `None` if there was none. What the operator should read, if anything.
    pub fn answered(&mut self, reply: Option<Value>, chain: &Chain) -> Option<String> {
        self.waiting = false;
        match reply.map(Checkpoint::decode) {
            // Redis may have noted it all the same.
            None | Some(Err(_)) => None,
            Some(Ok(CheckpointReply::Noted)) => {
                self.noted = self.pending.take().unwrap_or_default();
                self.refused = false;
                None
            }
            Some(Ok(CheckpointReply::Recovered)) => {
                let lost = std::mem::take(&mut self.noted).seq;
                self.noted = self.pending.take().unwrap_or_default();
                self.refused = false;
                Some(format!(
                    "Redis had lost the checkpoint of audit chain {} at entry {lost}: expected after a restored backup \
                     only; compare with the signed anchors (portcullis audit verify --anchors)",
                    chain.name()
                ))
            }
            Some(Ok(CheckpointReply::Refused(noted))) => {
                self.pending = None;
                let first = !std::mem::replace(&mut self.refused, true);
                first.then(|| {
                    format!(
                        "Redis refuses the checkpoint of audit chain {} at entry {}: it has entry {} with hash {}, which \
                         this chain does not follow; somebody else wrote it. Keep the log and Redis's data, and see \
                         docs/explanation/audit-chain.md",
                        chain.name(),
                        chain.seq(),
                        noted.seq,
                        noted.hash
                    )
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    const CONFIG: CheckpointConfig =
        CheckpointConfig { every: Some(Duration::from_secs(10)), entries: 5 };

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds.saturating_mul(1_000_000))
    }

    fn append(chain: &mut Chain, entries: usize) {
        (0..entries).for_each(|_| _ = chain.append(&Entry::default()));
    }

    fn argument(call: &ScriptCall, nth: usize) -> String {
        String::from_utf8(call.args[nth].clone()).unwrap()
    }

    // Proves: A17
    #[test]
    fn a_checkpoint_is_due_by_time_and_by_number() {
        let (mut chain, mut checkpoints) = (Chain::new("c".into()), Checkpoints::default());
        assert!(checkpoints.due(at(100), &chain, CONFIG).is_none(), "nothing to note");
        append(&mut chain, 1);
        let call = checkpoints.due(at(100), &chain, CONFIG).unwrap();
        assert_eq!((argument(&call, 1), argument(&call, 3)), ("0".into(), "1".into()));
        append(&mut chain, 9);
        assert!(checkpoints.due(at(200), &chain, CONFIG).is_none(), "one at a time");
        checkpoints.answered(Some(Value::Array(vec![Value::Int(1)])), &chain);
        let call = checkpoints.due(at(101), &chain, CONFIG).unwrap();
        assert_eq!((argument(&call, 1), argument(&call, 3)), ("1".into(), "10".into()));
        checkpoints.answered(Some(Value::Array(vec![Value::Int(1)])), &chain);
        append(&mut chain, 1);
        assert!(checkpoints.due(at(105), &chain, CONFIG).is_none());
        assert!(checkpoints.last(at(105), &chain, CONFIG).is_some(), "the VM ends");
        assert!(checkpoints.last(at(105), &chain, CONFIG).is_none(), "all of it is asked for");
        let off = CheckpointConfig { every: None, ..CONFIG };
        assert!(Checkpoints::default().due(at(105), &chain, off).is_none());
    }

    // Proves: A17
    #[test]
    fn a_vm_that_ends_notes_its_end_behind_a_checkpoint_under_way() {
        let (mut chain, mut checkpoints) = (Chain::new("c".into()), Checkpoints::default());
        append(&mut chain, 2);
        let first = checkpoints.due(at(100), &chain, CONFIG).unwrap();
        append(&mut chain, 3);
        let last = checkpoints.last(at(101), &chain, CONFIG).unwrap();
        assert_eq!((argument(&last, 1), argument(&last, 3)), ("2".into(), "5".into()));
        assert_eq!(argument(&last, 2), argument(&first, 4), "it follows the one under way");
        // One that got no answer is asked again, since Redis may have it.
        let mut checkpoints = Checkpoints::default();
        let first = checkpoints.due(at(100), &chain, CONFIG).unwrap();
        checkpoints.answered(None, &chain);
        assert_eq!(checkpoints.last(at(101), &chain, CONFIG).unwrap().args, first.args);
    }

    // Proves: A17
    #[test]
    fn what_was_not_answered_is_asked_again_and_a_refusal_is_reported_once() {
        let (mut chain, mut checkpoints) = (Chain::new("c".into()), Checkpoints::default());
        append(&mut chain, 2);
        let _ = checkpoints.due(at(100), &chain, CONFIG).unwrap();
        append(&mut chain, 7);
        assert_eq!(checkpoints.answered(None, &chain), None);
        assert!(checkpoints.due(at(101), &chain, CONFIG).is_none(), "not at once");
        let call = checkpoints.due(at(110), &chain, CONFIG).unwrap();
        assert_eq!(argument(&call, 3), "2", "the same entry as before");
        let refused =
            || Value::Array(vec![Value::Int(0), Value::Int(4), Value::Bulk(b"ff".into())]);
        assert!(checkpoints.answered(Some(refused()), &chain).unwrap().contains("entry 4"));
        assert!(chain.seq() >= CONFIG.entries, "many are new");
        assert!(checkpoints.due(at(111), &chain, CONFIG).is_none(), "no tick asks again at once");
        let _ = checkpoints.due(at(120), &chain, CONFIG).unwrap();
        assert_eq!(checkpoints.answered(Some(refused()), &chain), None);
    }
}
