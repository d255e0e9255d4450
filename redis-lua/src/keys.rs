//! The names of all Redis keys. Owns the layout; does not know what the names stand for.
//!
//! All keys of one organisation carry the hash tag `{org}`, so a script that uses several of them works in Redis
//! Cluster. Every variable part is percent-encoded: a tool called `x}:key:admin` stays inside its own segment and can
//! forge neither another key nor another tag.

use std::fmt::{self, Write as _};

/// The name of a Redis key; can only be built by the constructors here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The callers whose calls a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Those of one organisation.
    Org(&'a str),
    /// All organisations together. Such a key has no hash tag: in Redis Cluster, no script can use it together with an
    /// organisation's.
    Global,
}

impl Key {
    /// HASH: the record of one API key; `rev` (decimal, from 1) and `doc` (JSON).
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

    /// LIST: the policies that were activated for an organisation: when, by whom and why; newest first.
    pub fn history(org: &str) -> Self {
        Self::of_org(org, "history", &[])
    }

    /// LIST: the same for all organisations together, as earlier versions wrote it; nothing is added.
    pub fn policy_history() -> Self {
        Self("portcullis:policy:history".to_owned())
    }

    /// SET: the names of all organisations that ever had a policy or a key.
    pub fn organisations() -> Self {
        Self("portcullis:organisations".to_owned())
    }

    /// LIST: one sliding window of the limit called `limit`. `partition` names each dimension that has windows of its
    /// own, with its value, such as `[("key", "a1"), ("tool", "create_note")]`.
    pub fn window(scope: Scope<'_>, limit: &str, partition: &[(&str, &str)]) -> Self {
        Self::partitioned(scope, "window", limit, partition)
    }

    /// HASH: the alert of the window of the same name was raised within the window's length.
    pub fn mark(scope: Scope<'_>, limit: &str, partition: &[(&str, &str)]) -> Self {
        Self::partitioned(scope, "mark", limit, partition)
    }

    /// The dimensions and values in the name of a window or mark: the reverse of its constructor.
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

    /// HASH: the organisation that a session or task belongs to; `rev` (organisation) and an empty `doc`. Organisations
    /// that share a server cannot see each other's [bindings](Self::binding), so this key belongs to no organisation
    /// and carries no hash tag.
    pub fn owner(kind: &str, digest: &str) -> Self {
        Self::of_all("owner", &[kind, digest])
    }

    /// HASH: the caller that a session or task belongs to; `rev` (holder) and an empty `doc`. `kind` says which of the
    /// two it is. `digest` is of the connector's path and the id: the server chooses the id, so it is not put into a
    /// key name, and two servers may choose the same one.
    pub fn binding(org: &str, kind: &str, digest: &str) -> Self {
        Self::of_org(org, "bound", &[kind, digest])
    }

    /// HASH: the state of a pinned tool in the last `tools/list`; `rev` (`same`, or the class of its drift) and an
    /// empty `doc`. `digest` is of the connector's path, the tool and its pin.
    pub fn observed(org: &str, digest: &str) -> Self {
        Self::of_org(org, "tool", &[digest])
    }

    /// HASH: a token, a subject or a certificate that is denied although its credential is valid; `rev` and `doc`
    /// (JSON). `digest` is of the denied value and its issuer.
    pub fn denied(org: &str, kind: &str, digest: &str) -> Self {
        Self::of_org(org, "denied", &[kind, digest])
    }

    /// SET: the names of the entries in an organisation's deny list.
    pub fn denied_index(org: &str) -> Self {
        Self::of_org(org, "denied", &[])
    }

    /// HASH: a call that waits for a person, or was decided and not made yet; `rev` (`pending`, `granted` or `denied`)
    /// and `doc` (JSON). `digest` is of the caller, the tool and the arguments.
    pub fn approval(org: &str, digest: &str) -> Self {
        Self::of_org(org, "approval", &[digest])
    }

    /// ZSET: the digests of an organisation's approvals, scored by their expiry.
    pub fn approvals(org: &str) -> Self {
        Self::of_org(org, "approvals", &[])
    }

    /// ZSET: the digests of one caller's approvals, scored by their expiry.
    pub fn approvals_of(org: &str, holder: &str) -> Self {
        Self::of_org(org, "approvals", &[holder])
    }

    /// STREAM: the calls that an organisation's gateways were about to forward, appended with their admission
    /// (`intent`, JSON), and the places of their audit entries (`done`, `chain`, `seq`, `hash`); bounded to the last
    /// ones.
    pub fn intents(org: &str) -> Self {
        Self::of_org(org, "intents", &[])
    }

    /// HASH: how far the audit chain of a gateway's VM has come: `seq`, `hash`, `time` and `build`. All of them share
    /// one slot of a Cluster and belong to no organisation: a chain has entries of every organisation.
    pub fn checkpoint(chain: &str) -> Self {
        Self::of_all("audit:{chains}", &[chain])
    }

    /// ZSET: the names of the audit chains that have a [checkpoint](Self::checkpoint), scored by its time.
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

    /// A name without a hash tag.
    fn of_all(kind: &str, parts: &[&str]) -> Self {
        let mut name = String::with_capacity(ROOM);
        name.push_str("portcullis:");
        name.push_str(kind);
        Self(with_parts(name, parts))
    }

    /// The prefix of all keys of an organisation.
    pub(crate) fn beginning(org: &str) -> String {
        let Self(mut name) = Self::admin(org);
        name.truncate(name.rfind(':').map_or(0, |end| end.saturating_add(1)));
        name
    }

    /// The name that Redis gets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Most names fit into this many bytes. Every request writes several names.
const ROOM: usize = 96;

fn with_parts(mut name: String, parts: &[&str]) -> String {
    for part in parts {
        name.push(':');
        encode(part, &mut name);
    }
    name
}

/// Percent-encodes all but RFC 3986's unreserved characters, so that none of `{}:,=%*?` remains.
fn encode(part: &str, name: &mut String) {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // Nearly every name needs no encoding.
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

/// The reverse of [`encode`]; `None` for text that [`encode`] cannot have written.
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
