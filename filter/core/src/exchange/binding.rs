//! Sessions and tasks belong to who opened them (MCP: a session is not an authentication).
//!
//! Owns what is bound, to whom, and for how long. A binding is a guard of the admission, so that
//! checking it costs no round trip; making one costs one, when a session or a task is opened. Nobody waits
//! for one that is kept for longer, or ended.

use std::time::Duration;

use portcullis_redis_lua::{Bind, BindReply, Expected, Guard, Keep, Key};
use sha2::{Digest as _, Sha256};

use super::response::Upstream;
use super::verdict::Grant;
use super::{Next, Stage, Turn};
use crate::call::{Call, CallFailure, CallId, Reply};
use crate::denial::Denial;
use crate::event::{Event, Head, ResponseHead};
use crate::id::OrgId;
use crate::mcp::{Message, Operation, headers};
use crate::query;
use crate::step::Gate;

/// A task is answered as unknown when nobody used it for so long. Of a session, the policy says how long that is:
/// clients open a new one.
const TASK_IDLE: Duration = Duration::from_secs(7 * 86_400);
/// Each worker keeps what is used for longer once in this part of the time that it would be forgotten after.
const KEPT_IN: u32 = 12;

/// Something that a server handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// A session of the legacy era, by `Mcp-Session-Id` or by the query of HTTP+SSE.
    Session(String),
    /// A task.
    Task(String),
}

/// Whose it is.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) org: OrgId,
    /// [`crate::auth::Identity::holder`].
    pub(super) name: String,
    /// After which time without use its sessions are forgotten.
    pub(super) idle: Duration,
}

impl Holder {
    pub(super) fn of(grant: &Grant) -> Self {
        Self {
            org: grant.principal.org.clone(),
            name: grant.principal.identity.holder().to_owned(),
            idle: grant.policy.sessions.idle,
        }
    }
}

impl Bound {
    /// Everything bound that a request refers to.
    pub(super) fn named_by(head: &Head, message: &Message) -> Result<Vec<Self>, Denial> {
        let mut bound = Vec::new();
        // A modern request has no session: the header means nothing there and does not go upstream.
        if !headers::is_modern(head) {
            match head.values("mcp-session-id").as_slice() {
                [] => {}
                [id] => bound.push(Self::Session(String::from_utf8_lossy(id).into_owned())),
                _ => return Err(Denial::NotOneMessage("Mcp-Session-Id occurs more than once")),
            }
        }
        let asked = session_of(head.query())?.map(Self::Session);
        bound.extend(asked.filter(|session| !bound.contains(session)));
        match &message.operation {
            Operation::Task(id) => bound.push(Self::Task(id.clone())),
            Operation::Subscriptions { tasks, .. } => {
                bound.extend(tasks.iter().cloned().map(Self::Task));
            }
            _ => {}
        }
        Ok(bound)
    }

    /// What the admission must find for `holder` to be the holder.
    pub(super) fn guard(&self, org: &OrgId, holder: &str) -> Guard {
        Guard { key: self.key(org), expected: Expected::Revision(holder.to_owned()) }
    }

    /// How it is told that somebody is not the holder: as if it did not exist.
    pub(super) fn unknown(&self) -> Denial {
        match self {
            Self::Session(_) => Denial::UnknownSession,
            Self::Task(id) => Denial::UnknownTask(id.clone()),
        }
    }

    /// Asks Redis to bind it.
    pub(super) fn claim(&self, holder: &Holder, turn: &mut Turn<'_>) -> CallId {
        let key = self.key(&holder.org);
        turn.worker.note_kept(key.clone(), turn.now);
        let bind = Bind { key, holder: holder.name.clone(), life: self.idle(holder) };
        turn.start(Call::Bind(bind.call()))
    }

    /// The server ended it: asks Redis to forget it.
    pub(super) fn end(&self, holder: &Holder, turn: &mut Turn<'_>) {
        let (keys, holder) = (vec![self.key(&holder.org)], holder.name.clone());
        turn.start(Call::Bind(Keep { keys, holder, life: Duration::ZERO }.call()));
    }

    fn idle(&self, holder: &Holder) -> Duration {
        match self {
            Self::Session(_) => holder.idle,
            Self::Task(_) => TASK_IDLE,
        }
    }

    fn key(&self, org: &OrgId) -> Key {
        let (kind, id) = match self {
            Self::Session(id) => ("session", id),
            Self::Task(id) => ("task", id),
        };
        let digest = Sha256::digest(id.as_bytes());
        Key::binding(org.as_str(), kind, &base16ct::lower::encode_string(&digest))
    }
}

/// What a request that passes refers to is used: asks Redis to keep it for longer, unless this worker did a while
/// ago.
pub(super) fn keep(bound: &[Bound], grant: &Grant, turn: &mut Turn<'_>) {
    if bound.is_empty() || turn.worker.config.redis.is_none() {
        return;
    }
    let holder = Holder::of(grant);
    for life in [holder.idle, TASK_IDLE] {
        let every = life.checked_div(KEPT_IN).unwrap_or_default();
        let alike = bound.iter().filter(|bound| bound.idle(&holder) == life);
        let keys = alike.map(|bound| bound.key(&holder.org));
        let keys: Vec<_> = keys.filter(|key| turn.worker.keeps(key, every, turn.now)).collect();
        if !keys.is_empty() {
            let keep = Keep { keys, holder: holder.name.clone(), life };
            turn.start(Call::Bind(keep.call()));
        }
    }
}

/// The session id in the query of a POST to an HTTP+SSE server; SDKs use either name.
///
/// # Errors
/// [`Denial::NotOneMessage`] for a second one, and for a name that only some servers would read as one of these: what
/// is checked must be what the upstream finds.
pub(super) fn session_of(query: &[u8]) -> Result<Option<String>, Denial> {
    const FAULT: Denial = Denial::NotOneMessage("The query must name a session plainly and once");
    const NAMES: [&[u8]; 2] = [b"sessionId", b"session_id"];
    let mut session = None;
    for pair in query::pairs(query).filter(|pair| pair.letters == b"sessionid") {
        let plain = NAMES.contains(&pair.name) && session.is_none();
        let value = pair.value.filter(|_| plain).ok_or(FAULT)?;
        session = Some(String::from_utf8_lossy(value).into_owned());
    }
    Ok(session)
}

/// A session was opened; its id waits until it is bound.
#[derive(Debug)]
pub(super) struct Claiming {
    upstream: Box<Upstream>,
    head: ResponseHead,
    call: CallId,
}

impl Claiming {
    /// Holds the response that opens a session.
    pub(super) fn start(upstream: Box<Upstream>, head: ResponseHead, turn: &mut Turn<'_>) -> Next {
        let id = String::from_utf8_lossy(&head.session_id).into_owned();
        let call = Bound::Session(id).claim(upstream.holder(), turn);
        (Stage::Claiming(Box::new(Self { upstream, head, call })), Gate::Suspend)
    }

    pub(super) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::CallDone { id, reply: Reply::Redis(value) } if id == self.call => {
                match Bind::decode(value) {
                    Ok(BindReply::Bound) => self.upstream.answer(&self.head, turn),
                    // Two clients cannot have one session: this one gets none.
                    Ok(BindReply::Foreign) | Err(_) => unbound(CallFailure::Unreadable, turn),
                }
            }
            Event::CallDone { id, .. } if id == self.call => unbound(CallFailure::Unreadable, turn),
            Event::CallFailed { id, why } if id == self.call => unbound(why, turn),
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::CallDone { .. }
            | Event::CallFailed { .. }
            | Event::ResponseHead(_)
            | Event::ResponseBody { .. }
            | Event::ResponseTooLarge
            | Event::Closed(_) => (Stage::Claiming(self), Gate::Suspend),
        }
    }
}

fn unbound(why: CallFailure, turn: &mut Turn<'_>) -> Next {
    let denial = Denial::NoSession(why);
    turn.note(&denial);
    (Stage::Ended, Gate::Replace(denial))
}
