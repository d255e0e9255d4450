//! Binds sessions and tasks to the caller who opened them (MCP: a session is not an authentication).
//!
//! Owns what is bound, to which caller, and for how long. The admission script checks bindings, so a check costs no
//! round trip. A new binding costs two round trips, when a session or a task is opened: one across organisations, which
//! may share a server, and one within the organisation. The exchange does not wait when a binding is extended or ended.

use std::time::Duration;

use portcullis_redis_lua::{Bind, BindReply, Keep};

use crate::driver::call::{CallFailure, CallId, DependencyCall, Reply};
use crate::exchange::grant::Grant;
use crate::exchange::session::{Owner, SessionRef, TASK_IDLE};
use crate::exchange::turn::Turn;

/// Each worker extends a used binding once in this part of its lifetime.
const KEPT_IN: u32 = 12;

/// A binding in progress. The client does not get the id before it is bound.
#[derive(Debug)]
pub(crate) struct Claim {
    bound: SessionRef,
    path: String,
    call: CallId,
    step: OwnerLookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerLookup {
    /// Checks that no other organisation has the id.
    Organisation,
    /// Checks that no other caller of the organisation has the id.
    Caller,
}

/// The result of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Redis has not answered yet.
    Open(Claim),
    /// The id is bound to the caller.
    Bound,
    /// The id is bound to another caller.
    Foreign(SessionRef),
    /// Redis gave no usable answer.
    Failed(SessionRef, CallFailure),
}

impl Claim {
    /// Asks Redis to bind it to `owner`, for requests to `path`. The binding within the organisation is made only after
    /// no other organisation has the id: the admission checks that key alone.
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

/// Extends the bindings of a request that passes, unless this worker did so a while ago.
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
        // Each key may be in a different slot, so each needs its own call.
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

/// The server ended `bound`: asks Redis to delete the binding.
pub(crate) fn end(bound: &SessionRef, path: &str, owner: &Owner, turn: &mut Turn<'_>) {
    let (keys, name) = (vec![bound.key(&owner.org, path)], owner.name.clone());
    turn.start(DependencyCall::Bind(Keep { keys, holder: name, life: Duration::ZERO }.call()));
    let (keys, org) = (vec![bound.owner(path)], owner.org.to_string());
    turn.start(DependencyCall::Bind(Keep { keys, holder: org, life: Duration::ZERO }.call()));
}
