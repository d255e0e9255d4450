//! The names of all Redis keys. Owns the layout; refuses to know what the names stand for.
//!
//! Everything of one organisation carries the hash tag `{org}`, so a script that touches several of
//! its keys works in Redis Cluster. Every variable part is percent-encoded: a tool called
//! `x}:key:admin` stays inside its own segment and can forge neither another key nor another tag.

use std::fmt::{self, Write as _};

/// The name of a Redis key; can only be built by the constructors here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Whose calls a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Those of one organisation.
    Org(&'a str),
    /// Those of all organisations together. Such a key has no hash tag: in Redis Cluster, no script
    /// can touch it together with an organisation's.
    Global,
}

impl Key {
    /// HASH: one API key's record; `rev` (decimal, from 1) and `doc` (JSON).
    pub fn record(org: &str, id: &str) -> Self {
        Self::of_org(org, "key", &[id])
    }

    /// SET: the ids of an organisation's records.
    pub fn record_index(org: &str) -> Self {
        Self::of_org(org, "keys", &[])
    }

    /// HASH: when each secret of an API key was last used; seconds since 1970, by the secret's name.
    pub fn used(org: &str, id: &str) -> Self {
        Self::of_org(org, "used", &[id])
    }

    /// LIST: the admin chain of an organisation: who changed a key or the policy, when and why; one
    /// audit entry (JSON) each, oldest first.
    pub fn admin(org: &str) -> Self {
        Self::of_org(org, "admin", &[])
    }

    /// HASH: which policy is active for an organisation; `rev` (version), `doc` (JSON), and `generation`
    /// (decimal), which every change of a key, a policy or the deny list of the organisation increases.
    pub fn policy(org: &str) -> Self {
        Self::of_org(org, "policy", &[])
    }

    /// Whether this is [`Key::policy`] of some organisation: in other names, colons are encoded.
    pub(crate) fn is_policy(&self) -> bool {
        self.0.ends_with("}:policy")
    }

    /// STRING: a policy document by its version; immutable.
    pub fn policy_document(version: &str) -> Self {
        Self::of_all("policy:doc", &[version])
    }

    /// LIST: what was activated for an organisation when, by whom and why; newest first.
    pub fn history(org: &str) -> Self {
        Self::of_org(org, "history", &[])
    }

    /// LIST: the same of all organisations together, as versions before wrote it; nothing is added.
    pub fn policy_history() -> Self {
        Self("portcullis:policy:history".to_owned())
    }

    /// SET: the names of all organisations that a policy or a key was ever written for.
    pub fn organisations() -> Self {
        Self("portcullis:organisations".to_owned())
    }

    /// LIST: one sliding window of the limit called `limit`. `partition` says whose: the dimensions
    /// it is kept per, each with its value, such as `[("key", "a1"), ("tool", "create_note")]`.
    pub fn window(scope: Scope<'_>, limit: &str, partition: &[(&str, &str)]) -> Self {
        Self::partitioned(scope, "window", limit, partition)
    }

    /// HASH: the alert of the window of the same name was raised not long ago.
    pub fn mark(scope: Scope<'_>, limit: &str, partition: &[(&str, &str)]) -> Self {
        Self::partitioned(scope, "mark", limit, partition)
    }

    /// What the window or mark called `name` is kept per: the reverse of what its constructor took.
    pub fn partition(name: &str) -> Option<Vec<(String, String)>> {
        let (_, text) = name.rsplit_once(':')?;
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (dimension, value) = pair.split_once('=')?;
                Some((decoded(dimension)?, decoded(value)?))
            })
            .collect()
    }

    fn partitioned(scope: Scope<'_>, kind: &str, limit: &str, partition: &[(&str, &str)]) -> Self {
        let Self(mut name) = match scope {
            Scope::Org(org) => Self::of_org(org, kind, &[limit, ""]),
            Scope::Global => Self::of_all("global", &[kind, limit, ""]),
        };
        for (nth, (dimension, value)) in partition.iter().enumerate() {
            if nth > 0 {
                name.push(',');
            }
            encode(dimension, &mut name);
            name.push('=');
            encode(value, &mut name);
        }
        Self(name)
    }

    /// HASH: which organisation a session or task belongs to; `rev` (organisation) and an empty `doc`.
    /// Organisations that share a server cannot see each other's [bindings](Self::binding), so this key
    /// is of none of them and carries no hash tag.
    pub fn owner(kind: &str, digest: &str) -> Self {
        Self::of_all("owner", &[kind, digest])
    }

    /// HASH: whose session or task it is; `rev` (holder) and an empty `doc`. `kind` says which of
    /// them, `digest` which one, of the connector's path and the id: ids that servers choose are not put
    /// into key names, and two servers may choose the same one.
    pub fn binding(org: &str, kind: &str, digest: &str) -> Self {
        Self::of_org(org, "bound", &[kind, digest])
    }

    /// HASH: what the last list showed of a pinned tool; `rev` (`same`, or the class of its drift) and an empty
    /// `doc`. `digest` is of the connector's path, the tool and its pin.
    pub fn observed(org: &str, digest: &str) -> Self {
        Self::of_org(org, "tool", &[digest])
    }

    /// HASH: a token, a subject or a certificate that is denied although it proves itself; `rev` and
    /// `doc` (JSON). `digest` is of what is denied, and of who issued it.
    pub fn denied(org: &str, kind: &str, digest: &str) -> Self {
        Self::of_org(org, "denied", &[kind, digest])
    }

    /// SET: the names of an organisation's deny list.
    pub fn denied_index(org: &str) -> Self {
        Self::of_org(org, "denied", &[])
    }

    /// HASH: a call that waits for a person, or was decided on and not made yet; `rev` (`pending`,
    /// `granted` or `denied`) and `doc` (JSON). `digest` is of the caller, the tool and the arguments.
    pub fn approval(org: &str, digest: &str) -> Self {
        Self::of_org(org, "approval", &[digest])
    }

    /// ZSET: the digests of an organisation's approvals, by when they expire.
    pub fn approvals(org: &str) -> Self {
        Self::of_org(org, "approvals", &[])
    }

    /// ZSET: the digests of one caller's approvals, by when they expire.
    pub fn approvals_of(org: &str, holder: &str) -> Self {
        Self::of_org(org, "approvals", &[holder])
    }

    /// STREAM: what calls of an organisation were about to do, appended with their admission (`intent`, JSON), and where
    /// their audit entries are (`done`, `chain`, `seq`, `hash`); the last ones.
    pub fn intents(org: &str) -> Self {
        Self::of_org(org, "intents", &[])
    }

    /// HASH: how far the audit chain of a gateway's VM has come: `seq`, `hash`, `time` and `build`. All of them are in
    /// one slot of a Cluster, and of no organisation: a chain has entries of all.
    pub fn checkpoint(chain: &str) -> Self {
        Self::of_all("audit:{chains}", &[chain])
    }

    /// ZSET: the names of the audit chains that have a [checkpoint](Self::checkpoint), by its time.
    pub fn checkpoints() -> Self {
        Self::of_all("audit:{chains}", &[])
    }

    /// A name that carries the hash tag of an organisation.
    fn of_org(org: &str, kind: &str, parts: &[&str]) -> Self {
        let mut name = String::with_capacity(ROOM);
        name.push_str("portcullis:{");
        encode(org, &mut name);
        name.push_str("}:");
        name.push_str(kind);
        Self(with_parts(name, parts))
    }

    /// A name that carries none.
    fn of_all(kind: &str, parts: &[&str]) -> Self {
        let mut name = String::with_capacity(ROOM);
        name.push_str("portcullis:");
        name.push_str(kind);
        Self(with_parts(name, parts))
    }

    /// What the names of everything of an organisation begin with.
    pub(crate) fn beginning(org: &str) -> String {
        let Self(mut name) = Self::admin(org);
        name.truncate(name.rfind(':').map_or(0, |end| end.saturating_add(1)));
        name
    }

    /// The name as Redis sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Most names have room in so many bytes. Every request writes several.
const ROOM: usize = 96;

fn with_parts(mut name: String, parts: &[&str]) -> String {
    for part in parts {
        name.push(':');
        encode(part, &mut name);
    }
    name
}

/// Percent-encodes all but RFC 3986's unreserved characters, so that none of `{}:,=%*?` gets through.
fn encode(part: &str, name: &mut String) {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // Of nearly every name, nothing has to be encoded.
    if part.bytes().all(plain) {
        return name.push_str(part);
    }
    for byte in part.bytes() {
        match plain(byte) {
            true => name.push(char::from(byte)),
            false => _ = write!(name, "%{byte:02X}"),
        }
    }
}

/// The reverse of [`encode`]; nothing for what that did not write.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let (digits, tail) = escaped.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        let names = [
            Key::record("acme", "a1"),
            Key::record_index("acme"),
            Key::used("acme", "a1"),
            Key::admin("acme"),
            Key::policy("acme"),
            Key::policy_document("0123456789abcdef"),
            Key::history("acme"),
            Key::policy_history(),
            Key::organisations(),
            Key::window(Scope::Org("acme"), "calls", &[]),
            Key::window(
                Scope::Org("acme"),
                "note-storm",
                &[("key", "a1"), ("tool", "create_note")],
            ),
            Key::mark(Scope::Org("acme"), "calls", &[("key", "a1")]),
            Key::window(Scope::Global, "calls", &[]),
        ];
        let expected = [
            "portcullis:{acme}:key:a1",
            "portcullis:{acme}:keys",
            "portcullis:{acme}:used:a1",
            "portcullis:{acme}:admin",
            "portcullis:{acme}:policy",
            "portcullis:policy:doc:0123456789abcdef",
            "portcullis:{acme}:history",
            "portcullis:policy:history",
            "portcullis:organisations",
            "portcullis:{acme}:window:calls:",
            "portcullis:{acme}:window:note-storm:key=a1,tool=create_note",
            "portcullis:{acme}:mark:calls:key=a1",
            "portcullis:global:window:calls:",
        ];
        assert_eq!(names.map(|key| key.to_string()), expected);
    }

    #[test]
    fn hostile_values_stay_inside_their_segment() {
        let forged = Key::window(Scope::Org("a}{b"), "c:d", &[("tool", "x,key=admin}:é%")]);
        assert_eq!(
            forged.as_str(),
            "portcullis:{a%7D%7Bb}:window:c%3Ad:tool=x%2Ckey%3Dadmin%7D%3A%C3%A9%25"
        );
    }

    #[test]
    fn a_name_tells_what_the_window_is_kept_per() {
        let partition = [("key", "a1"), ("tool", "x,key=admin}:é%")];
        let window = Key::window(Scope::Org("acme"), "calls", &partition);
        let expected = partition.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Key::partition(window.as_str()), Some(expected.into()));
        assert_eq!(Key::partition("portcullis:global:window:calls:"), Some(vec![]));
        for other in ["x", "a:key", "a:key=%4", "a:key=%GG"] {
            assert_eq!(Key::partition(other), None, "{other}");
        }
    }

    #[test]
    fn different_values_never_share_a_key() {
        let one = Key::window(Scope::Org("acme"), "calls", &[("key", "a"), ("tool", "b")]);
        for other in [
            Key::window(Scope::Org("acme"), "calls", &[("key", "a,tool=b")]),
            Key::window(Scope::Org("acme"), "calls", &[("key", "a%2Ctool%3Db")]),
            Key::window(Scope::Org("acme"), "calls:key=a,tool=b", &[]),
            Key::window(Scope::Org("acme"), "calls", &[("tool", "b"), ("key", "a")]),
        ] {
            assert_ne!(one, other);
        }
    }
}
