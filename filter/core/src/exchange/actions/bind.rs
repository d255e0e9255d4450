//! Sessions and tasks belong to who opened them (MCP: a session is not an authentication).
//!
//! Owns what is bound, to whom, and for how long. A binding is a guard of the admission, so that
//! checking it costs no round trip; making one costs two, when a session or a task is opened: across
//! organisations, which may share a server, and within the one. Nobody waits for one that is kept for
//! longer, or ended.

use std::time::Duration;

use portcullis_redis_lua::{Bind, BindReply, Keep};

use crate::driver::call::{CallFailure, CallId, DependencyCall, Reply};
use crate::exchange::grant::Grant;
use crate::exchange::session::{Owner, SessionRef, TASK_IDLE};
use crate::exchange::turn::Turn;

/// Each worker keeps what is used for longer once in this part of the time that it would be forgotten after.
const KEPT_IN: u32 = 12;

/// Something that is being bound. Nobody is told its id before that.
#[derive(Debug)]
pub(crate) struct Claim {
    bound: SessionRef,
    path: String,
    call: CallId,
    step: OwnerLookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerLookup {
    /// Whether another organisation has it.
    Organisation,
    /// Whether another caller of the same one has it.
    Caller,
}

/// What became of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is not settled yet.
    Open(Claim),
    /// It is the caller's.
    Bound,
    /// It is another caller's.
    Foreign(SessionRef),
    /// Redis did not say.
    Failed(SessionRef, CallFailure),
}

impl Claim {
    /// Asks Redis to bind it to `owner`, for requests to `path`. The binding within the organisation
    /// is only made once no other organisation has it: by that key alone the admission goes.
    pub(crate) fn start(bound: SessionRef, path: &str, owner: &Owner, turn: &mut Turn<'_>) -> Self {
        let (key, life) = (bound.owner(path), bound.idle(owner));
        let bind = Bind { key, holder: owner.org.to_string(), life };
        let call = turn.start(DependencyCall::Bind(bind.call()));
        Self { bound, path: path.to_owned(), call, step: OwnerLookup::Organisation }
    }

    /// Whether `id` is its call.
    pub(crate) fn awaits(&self, id: CallId) -> bool {
        self.call == id
    }

    /// Takes the outcome of its call.
    pub(crate) fn settle(
        mut self,
        outcome: Result<Reply, CallFailure>,
        owner: &Owner,
        turn: &mut Turn<'_>,
    ) -> Claimed {
        let reply = match outcome {
            Ok(Reply::Redis(value)) => Bind::decode(value).map_err(|_| CallFailure::Unreadable),
            Ok(Reply::Vault { .. } | Reply::Token { .. } | Reply::Keys | Reply::Policy) => {
                Err(CallFailure::Unreadable)
            }
            Err(why) => Err(why),
        };
        match (reply, self.step) {
            (Err(why), _) => Claimed::Failed(self.bound, why),
            (Ok(BindReply::Foreign), _) => Claimed::Foreign(self.bound),
            (Ok(BindReply::Bound), OwnerLookup::Caller) => Claimed::Bound,
            (Ok(BindReply::Bound), OwnerLookup::Organisation) => {
                let key = self.bound.key(&owner.org, &self.path);
                turn.worker.note_kept(key.clone(), turn.now);
                let life = self.bound.idle(owner);
                let bind = Bind { key, holder: owner.name.clone(), life };
                self.call = turn.start(DependencyCall::Bind(bind.call()));
                self.step = OwnerLookup::Caller;
                Claimed::Open(self)
            }
        }
    }
}

/// What a request that passes refers to is used: asks Redis to keep it for longer, unless this worker did a while
/// ago.
pub(crate) fn keep(bound: &[SessionRef], path: &str, grant: &Grant, turn: &mut Turn<'_>) {
    if bound.is_empty() || turn.worker.config.redis.is_none() {
        return;
    }
    let owner = grant.owner();
    for life in [owner.idle, TASK_IDLE] {
        let every = life.checked_div(KEPT_IN).unwrap_or_default();
        let alike = bound.iter().filter(|bound| bound.idle(&owner) == life);
        let keys = alike.map(|bound| (bound.key(&owner.org, path), bound.owner(path)));
        let keys = keys.filter(|(key, _)| turn.worker.keeps(key, every, turn.now));
        let (keys, others): (Vec<_>, Vec<_>) = keys.unzip();
        // Each lies in a slot of its own.
        for key in others {
            let (keys, holder) = (vec![key], owner.org.to_string());
            turn.start(DependencyCall::Bind(Keep { keys, holder, life }.call()));
        }
        if !keys.is_empty() {
            let keep = Keep { keys, holder: owner.name.clone(), life };
            turn.start(DependencyCall::Bind(keep.call()));
        }
    }
}

/// The server ended `bound`: asks Redis to forget it.
pub(crate) fn end(bound: &SessionRef, path: &str, owner: &Owner, turn: &mut Turn<'_>) {
    let (keys, name) = (vec![bound.key(&owner.org, path)], owner.name.clone());
    turn.start(DependencyCall::Bind(Keep { keys, holder: name, life: Duration::ZERO }.call()));
    let (keys, org) = (vec![bound.owner(path)], owner.org.to_string());
    turn.start(DependencyCall::Bind(Keep { keys, holder: org, life: Duration::ZERO }.call()));
}
