//! Sessions and tasks belong to who opened them (MCP: a session is not an authentication).
//!
//! Owns what is bound, to whom, and for how long. A binding is a guard of the admission, so that
//! checking it costs no round trip; making one costs two, when a session or a task is opened: across
//! organisations, which may share a server, and within the one. Nobody waits for one that is kept for
//! longer, or ended.

use std::time::Duration;

use portcullis_redis_lua::{Bind, BindReply, Expected, Guard, Keep, Key};
use sha2::{Digest as _, Sha256};

use super::Turn;
use super::verdict::Grant;
use crate::call::{Call, CallFailure, CallId, Reply};
use crate::denial::Denial;
use crate::event::Head;
use crate::id::OrgId;
use crate::mcp::{Message, Operation, headers};
use crate::query;

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

    /// What the admission must find for `holder` to be the holder, of a request to `path`.
    pub(super) fn guard(&self, org: &OrgId, path: &str, holder: &str) -> Guard {
        Guard { key: self.key(org, path), expected: Expected::Revision(holder.to_owned()) }
    }

    /// `session` or `task`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Task(_) => "task",
        }
    }

    /// How it is told that somebody is not the holder: as if it did not exist.
    pub(super) fn unknown(&self) -> Denial {
        match self {
            Self::Session(_) => Denial::UnknownSession,
            Self::Task(id) => Denial::UnknownTask(id.clone()),
        }
    }

    /// The server ended it: asks Redis to forget it.
    pub(super) fn end(&self, path: &str, holder: &Holder, turn: &mut Turn<'_>) {
        let (keys, name) = (vec![self.key(&holder.org, path)], holder.name.clone());
        turn.start(Call::Bind(Keep { keys, holder: name, life: Duration::ZERO }.call()));
        let (keys, org) = (vec![self.owner(path)], holder.org.to_string());
        turn.start(Call::Bind(Keep { keys, holder: org, life: Duration::ZERO }.call()));
    }

    fn idle(&self, holder: &Holder) -> Duration {
        match self {
            Self::Session(_) => holder.idle,
            Self::Task(_) => TASK_IDLE,
        }
    }

    fn owner(&self, path: &str) -> Key {
        Key::owner(self.kind(), &self.digest(path))
    }

    fn key(&self, org: &OrgId, path: &str) -> Key {
        Key::binding(org.as_str(), self.kind(), &self.digest(path))
    }

    /// Of the path that the id is used at, and of the id: another server may choose the same one.
    fn digest(&self, path: &str) -> String {
        let (Self::Session(id) | Self::Task(id)) = self;
        let digest = Sha256::new_with_prefix(path).chain_update([0]).chain_update(id);
        base16ct::lower::encode_string(&digest.finalize())
    }
}

/// Something that is being bound. Nobody is told its id before that.
#[derive(Debug)]
pub(super) struct Claim {
    bound: Bound,
    path: String,
    call: CallId,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Whether another organisation has it.
    Organisation,
    /// Whether another caller of the same one has it.
    Holder,
}

/// What became of a claim.
#[derive(Debug)]
pub(super) enum Claimed {
    /// It is not settled yet.
    Open(Claim),
    /// It is the caller's.
    Bound,
    /// It is another caller's.
    Foreign(Bound),
    /// Redis did not say.
    Failed(Bound, CallFailure),
}

impl Claim {
    /// Asks Redis to bind it to `holder`, for requests to `path`. The binding within the organisation
    /// is only made once no other organisation has it: by that key alone the admission goes.
    pub(super) fn start(bound: Bound, path: &str, holder: &Holder, turn: &mut Turn<'_>) -> Self {
        let (key, life) = (bound.owner(path), bound.idle(holder));
        let bind = Bind { key, holder: holder.org.to_string(), life };
        let call = turn.start(Call::Bind(bind.call()));
        Self { bound, path: path.to_owned(), call, step: Step::Organisation }
    }

    /// Whether `id` is its call.
    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.call == id
    }

    /// Takes the outcome of its call.
    pub(super) fn settle(
        mut self,
        outcome: Result<Reply, CallFailure>,
        holder: &Holder,
        turn: &mut Turn<'_>,
    ) -> Claimed {
        let reply = match outcome {
            Ok(Reply::Redis(value)) => Bind::decode(value).map_err(|_| CallFailure::Unreadable),
            Ok(Reply::Vault { .. } | Reply::Keys | Reply::Policy) => Err(CallFailure::Unreadable),
            Err(why) => Err(why),
        };
        match (reply, self.step) {
            (Err(why), _) => Claimed::Failed(self.bound, why),
            (Ok(BindReply::Foreign), _) => Claimed::Foreign(self.bound),
            (Ok(BindReply::Bound), Step::Holder) => Claimed::Bound,
            (Ok(BindReply::Bound), Step::Organisation) => {
                let key = self.bound.key(&holder.org, &self.path);
                turn.worker.note_kept(key.clone(), turn.now);
                let life = self.bound.idle(holder);
                let bind = Bind { key, holder: holder.name.clone(), life };
                self.call = turn.start(Call::Bind(bind.call()));
                self.step = Step::Holder;
                Claimed::Open(self)
            }
        }
    }
}

/// What a request that passes refers to is used: asks Redis to keep it for longer, unless this worker did a while
/// ago.
pub(super) fn keep(bound: &[Bound], path: &str, grant: &Grant, turn: &mut Turn<'_>) {
    if bound.is_empty() || turn.worker.config.redis.is_none() {
        return;
    }
    let holder = Holder::of(grant);
    for life in [holder.idle, TASK_IDLE] {
        let every = life.checked_div(KEPT_IN).unwrap_or_default();
        let alike = bound.iter().filter(|bound| bound.idle(&holder) == life);
        let keys = alike.map(|bound| (bound.key(&holder.org, path), bound.owner(path)));
        let keys = keys.filter(|(key, _)| turn.worker.keeps(key, every, turn.now));
        let (keys, owners): (Vec<_>, Vec<_>) = keys.unzip();
        // Each lies in a slot of its own.
        for owner in owners {
            let (keys, holder) = (vec![owner], holder.org.to_string());
            turn.start(Call::Bind(Keep { keys, holder, life }.call()));
        }
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
