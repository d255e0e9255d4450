//! Sessions and tasks that a request refers to, and their owners.
//!
//! Owns their names: in a request, and in Redis. The admission script checks bindings, so a check costs no round trip.

use std::time::Duration;

use portcullis_redis_lua::{Expected, Guard, Key};
use sha2::{Digest as _, Sha256};

use crate::denial::Denial;
use crate::driver::event::Head;
use crate::http::query;
use crate::id::OrgId;
use crate::mcp::{Message, Operation, headers};

/// A task counts as unknown when it was not used for this time. The policy has that time for sessions, because clients
/// open a new one.
pub(crate) const TASK_IDLE: Duration = Duration::from_secs(7 * 86_400);

/// A reference to an object that a server created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionRef {
    /// A session of the legacy era, by `Mcp-Session-Id` or by the query of HTTP+SSE.
    Session(String),
    /// A task.
    Task(String),
}

/// The owner.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) org: OrgId,
    /// [`crate::auth::Identity::holder`].
    pub(crate) name: String,
    /// The time without use after which its sessions are forgotten.
    pub(crate) idle: Duration,
}

impl SessionRef {
    /// All sessions and tasks that a request refers to.
    pub(crate) fn named_by(head: &Head, message: &Message) -> Result<Vec<Self>, Denial> {
        let mut bound = Vec::new();
        // A modern request has no session: the header has no meaning and is not forwarded.
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

    /// The guard which confirms that `owner` owns it, for a request to `path`.
    pub(crate) fn guard(&self, org: &OrgId, path: &str, owner: &str) -> Guard {
        Guard { key: self.key(org, path), expected: Expected::Revision(owner.to_owned()) }
    }

    /// `session` or `task`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Task(_) => "task",
        }
    }

    /// The refusal of a caller who is not the owner: the same as for an id that does not exist.
    pub(crate) fn unknown(&self) -> Denial {
        match self {
            Self::Session(_) => Denial::UnknownSession,
            Self::Task(id) => Denial::UnknownTask(id.clone()),
        }
    }

    pub(crate) fn idle(&self, owner: &Owner) -> Duration {
        match self {
            Self::Session(_) => owner.idle,
            Self::Task(_) => TASK_IDLE,
        }
    }

    pub(crate) fn owner(&self, path: &str) -> Key {
        Key::owner(self.kind(), &self.digest(path))
    }

    pub(crate) fn key(&self, org: &OrgId, path: &str) -> Key {
        Key::binding(org.as_str(), self.kind(), &self.digest(path))
    }

    /// A digest of the path and of the id: another server may create the same id.
    fn digest(&self, path: &str) -> String {
        let (Self::Session(id) | Self::Task(id)) = self;
        let digest = Sha256::new_with_prefix(path).chain_update([0]).chain_update(id);
        base16ct::lower::encode_string(&digest.finalize())
    }
}

/// The session id in the query of a POST to an HTTP+SSE server; SDKs use either name.
///
/// # Errors
/// [`Denial::NotOneMessage`] for a second one, and for a name that only some servers would read as one of these:
/// Portcullis and the upstream must use the same id.
pub(crate) fn session_of(query: &[u8]) -> Result<Option<String>, Denial> {
    const FAULT: Denial = Denial::NotOneMessage("The query must name a session plainly and once");
    let mut session = None;
    for pair in query::pairs(query).filter(|pair| pair.letters == b"sessionid") {
        let plain = query::SESSION.contains(&pair.name) && session.is_none();
        let value = pair.value.filter(|_| plain).ok_or(FAULT)?;
        session = Some(String::from_utf8_lossy(value).into_owned());
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::session_of;
    use crate::http::query::is_misnamed_session;

    // `policy check` warns of such a name in a connector's `query`.
    // Proves: B2
    #[test]
    fn a_session_under_another_name_is_refused() {
        for name in ["sessionId", "session_id", "toolsets", "session"] {
            assert!(session_of(format!("{name}=1").as_bytes()).is_ok(), "{name}");
            assert!(!is_misnamed_session(name.as_bytes()), "{name}");
        }
        for name in ["sessionid", "Session-Id", "sessionId[]", "session%49d"] {
            assert!(session_of(format!("{name}=1").as_bytes()).is_err(), "{name}");
            assert!(is_misnamed_session(name.as_bytes()), "{name}");
        }
    }
}
