//! The Redis rights of an operator: the rules of an ACL user, made from organisations and tasks.
//!
//! Owns which commands on which keys a task needs. Does not know names and passwords. Every rule is a selector of an ACL
//! (Redis 7): a command is allowed only on the keys in the same selector.

use std::collections::BTreeSet;
use std::fmt;

use crate::Key;

/// The organisations whose keys an operator may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm<'a> {
    /// One organisation.
    Org(&'a str),
    /// All organisations.
    All,
}

/// What an operator does. Each task includes reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Read keys, policies, limits, approvals and the admin chain.
    Read,
    /// Issue, change, rotate and revoke API keys.
    Keys,
    /// Push, promote and roll back policies.
    Policy,
    /// Grant and deny calls that wait for approval.
    Approve,
    /// Reset windows that callers have drawn from.
    Limits,
    /// Deny access tokens and allow them again.
    Tokens,
}

/// Keys of an organisation, and the commands that are allowed on them.
struct Grant {
    kinds: &'static [&'static str],
    commands: &'static str,
}

const SCRIPTS: &str = "+eval +evalsha";
/// Commands that use no key.
const KEYLESS: &str =
    "+ping +time +info +wait +multi +exec +discard +unwatch +acl|whoami +cluster|slots";
const READ: &str = "+hget +hmget +hgetall +smembers +lindex +lrange +zrange +xrange +pttl +exists +watch +eval_ro +evalsha_ro";
/// The keys of policy documents, which belong to no organisation.
const DOCUMENTS: &str = "portcullis:policy:doc:*";
/// Windows that callers of all organisations share; each caller sees them in `RateLimit`.
const SHARED_WINDOWS: &str = "portcullis:global:window:*";
const NOTE: Grant = Grant { kinds: &["admin"], commands: "+lindex +rpush" };
const COUNT: Grant = Grant { kinds: &["policy"], commands: "+hincrby" };

impl Task {
    /// Every task.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Keys, Self::Policy, Self::Approve, Self::Limits, Self::Tokens];

    /// The task's name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Keys => "keys",
            Self::Policy => "policy",
            Self::Approve => "approve",
            Self::Limits => "limits",
            Self::Tokens => "tokens",
        }
    }

    /// The write rights of the task. The first grant lists the keys that its scripts get.
    const fn grants(self) -> &'static [Grant] {
        match self {
            Self::Read => &[],
            Self::Keys => &[
                Grant { kinds: &["key:*", "keys", "admin", "policy"], commands: SCRIPTS },
                Grant { kinds: &["key:*"], commands: "+hget +hset" },
                Grant { kinds: &["keys"], commands: "+sadd" },
                NOTE,
                COUNT,
            ],
            Self::Policy => &[
                Grant { kinds: &["policy", "admin"], commands: SCRIPTS },
                Grant { kinds: &["policy"], commands: "+hget +hset +hincrby" },
                Grant { kinds: &["history"], commands: "+lpush" },
                NOTE,
            ],
            Self::Approve => &[
                Grant {
                    kinds: &["approval:*", "approvals", "approvals:*", "admin"],
                    commands: SCRIPTS,
                },
                Grant { kinds: &["approval:*"], commands: "+hget +hset +pexpire +pttl" },
                Grant { kinds: &["approvals", "approvals:*"], commands: "+zadd +pexpire +pttl" },
                NOTE,
            ],
            Self::Limits => &[
                Grant { kinds: &["admin", "window:*", "mark:*"], commands: SCRIPTS },
                Grant { kinds: &["window:*", "mark:*"], commands: "+del" },
                NOTE,
            ],
            Self::Tokens => &[
                Grant { kinds: &["denied:*", "denied", "admin", "policy"], commands: SCRIPTS },
                Grant { kinds: &["denied:*"], commands: "+hset +del" },
                Grant { kinds: &["denied"], commands: "+sadd +srem" },
                NOTE,
                COUNT,
            ],
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The ACL rules of a user for `tasks` in `realms`: the part of `ACL SETUSER` after name and password.
#[must_use]
pub fn rules(realms: &[Realm<'_>], tasks: &[Task]) -> Vec<String> {
    let mut rules = vec!["resetchannels".to_owned(), "-@all".to_owned()];
    rules.extend(KEYLESS.split(' ').map(str::to_owned));
    let everyone = realms.contains(&Realm::All);
    let realms: Vec<Option<&str>> = match everyone {
        true => vec![None],
        false => realms
            .iter()
            .filter_map(|realm| match realm {
                Realm::Org(org) => Some(Some(*org)),
                Realm::All => None,
            })
            .collect(),
    };
    let mut selectors = Vec::new();
    for org in realms {
        let own = pattern(org, "*");
        selectors.push(format!("(%R~{own} %R~{SHARED_WINDOWS} {READ})"));
        for Grant { kinds, commands } in tasks.iter().flat_map(|task| task.grants()) {
            let patterns = kinds.iter().map(|kind| format!("~{}", pattern(org, kind)));
            let patterns: Vec<String> = patterns.collect();
            selectors.push(format!("({} {commands})", patterns.join(" ")));
        }
    }
    selectors.push(format!("(%R~{DOCUMENTS} +get)"));
    if tasks.contains(&Task::Policy) {
        // SETNX instead of SET: a stored document never changes.
        selectors.push(format!("(~{DOCUMENTS} +setnx)"));
    }
    if everyone {
        selectors.push(format!("(%R~{} +smembers)", Key::organisations()));
        if tasks.iter().any(|task| matches!(task, Task::Keys | Task::Policy)) {
            selectors.push(format!("(~{} +sadd)", Key::organisations()));
        }
        selectors.push(format!("(%R~{} +lrange +watch)", Key::policy_history()));
        // Checkpoints of the gateways' audit chains: the index, and one key for each chain.
        selectors.push(format!("(%R~{}* +zrange +hmget)", Key::checkpoints()));
        rules.push("+scan".to_owned());
    }
    let mut seen = BTreeSet::new();
    selectors.retain(|selector| seen.insert(selector.clone()));
    rules.extend(selectors);
    rules
}

/// The rights of a Redis user, read from the user's line in `ACL LIST`: organisations (`None` is all) and tasks.
#[must_use]
pub fn tasks_of(line: &str) -> Vec<(Option<String>, Vec<Task>)> {
    let selectors: Vec<(Vec<&str>, Vec<&str>)> = line
        .split('(')
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(inside, _)| {
            let (keys, commands): (Vec<&str>, Vec<&str>) =
                inside.split_whitespace().partition(|word| word.contains('~'));
            (keys, commands)
        })
        .collect();
    let has = |pattern: &str, commands: &str| {
        selectors.iter().any(|(keys, granted)| {
            keys.iter().any(|key| key.split_once('~').is_some_and(|(_, it)| it == pattern))
                && commands.split(' ').all(|command| granted.contains(&command))
        })
    };
    let all = pattern(None, "*");
    let readable = selectors.iter().filter_map(|(keys, commands)| {
        let key = keys.iter().find(|key| key.ends_with("}:*"))?;
        let pattern = key.strip_prefix("%R~")?;
        let org = pattern.strip_prefix("portcullis:{")?.strip_suffix("}:*")?;
        commands.contains(&"+hgetall").then(|| (pattern != all).then(|| org.to_owned()))
    });
    let realms: BTreeSet<Option<String>> = readable.collect();
    let found = realms.into_iter().map(|org| {
        let may = |task: &Task| {
            task.grants().iter().all(|Grant { kinds, commands }| {
                kinds.iter().all(|kind| has(&pattern_as_listed(org.as_deref(), kind), commands))
            })
        };
        let tasks = Task::ALL.into_iter().filter(may).collect();
        (org, tasks)
    });
    found.collect()
}

/// The keys of `kind` of one organisation, or of all. `kind` may end with `*`.
fn pattern(org: Option<&str>, kind: &str) -> String {
    match org {
        Some(org) => format!("{}{kind}", Key::beginning(org)),
        None => format!("portcullis:{{*}}:{kind}"),
    }
}

/// A pattern for an organisation whose name is already encoded.
fn pattern_as_listed(org: Option<&str>, kind: &str) -> String {
    org.map_or_else(|| pattern(None, kind), |org| format!("portcullis:{{{org}}}:{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_grants_a_command_only_on_its_own_keys() {
        let rules = rules(&[Realm::Org("acme")], &[Task::Approve]);
        let [all, own] = ["~portcullis:{acme}:approvals", "~portcullis:{acme}:approvals:*"];
        assert!(rules.contains(&format!("({all} {own} +zadd +pexpire +pttl)")), "{rules:?}");
        let text = rules.join(" ");
        for foreign in ["+sadd", "+setnx", "+scan", "+hincrby", "+del", "portcullis:*", "+set "] {
            assert!(!text.contains(foreign), "{foreign}: {text}");
        }
        assert_eq!(text.matches("+rpush").count(), 1, "{text}");
    }

    #[test]
    fn rules_tell_what_they_are_for() {
        let realms = [Realm::Org("acme"), Realm::Org("globex")];
        let line =
            format!("user a on #0 {}", rules(&realms, &[Task::Keys, Task::Limits]).join(" "));
        let tasks = vec![Task::Read, Task::Keys, Task::Limits];
        let expected =
            vec![(Some("acme".to_owned()), tasks.clone()), (Some("globex".to_owned()), tasks)];
        assert_eq!(tasks_of(&line), expected);
        let line = format!("user a on {}", rules(&[Realm::All], &[Task::Read]).join(" "));
        assert_eq!(tasks_of(&line), [(None, vec![Task::Read])]);
        assert!(line.contains("(%R~portcullis:audit:{chains}* +zrange +hmget)"), "{line}");
        assert_eq!(tasks_of("user default on nopass ~* &* +@all"), []);
    }

    #[test]
    fn a_name_cannot_widen_a_pattern() {
        let text = rules(&[Realm::Org("a*}:x")], &[Task::Keys]).join(" ");
        assert!(text.contains("~portcullis:{a%2A%7D%3Ax}:key:*"), "{text}");
    }
}
