//! Behaviour when Redis or Vault is unreachable: the fields next to their `cluster`.
//!
//! Owns the defaults. Refuses a number without effect, because the operator who writes it expects an effect.

use std::time::Duration;

use crate::decode::{Faults, Fields, Node};
use crate::resilience::failover::{Degraded, Limits, OnFailure, WorkerShare};

const STALE_SECONDS: u64 = 60;
/// A tenth: ten workers together stay within a limit.
const LOCAL_SHARE: u32 = 100_000;

/// `on_failure`, `stale_seconds` and `local_share` of Redis.
pub(super) fn redis(fields: &mut Fields<'_>, faults: &mut Faults) -> OnFailure {
    let choice = choice(fields, faults, &["deny", "local", "allow"]);
    let stale = stale(fields, faults, choice, "only with on_failure local or allow");
    let share = match fields.optional("local_share") {
        Some(node) if choice == Some("local") => share(node, faults),
        Some(node) => {
            node.fault(faults, "only with on_failure local");
            None
        }
        None => WorkerShare::new(LOCAL_SHARE),
    };
    match (choice, share) {
        (Some("local"), Some(share)) => {
            OnFailure::Degrade(Degraded { stale, limits: Limits::Local(share) })
        }
        (Some("allow"), _) => OnFailure::Degrade(Degraded { stale, limits: Limits::Waived }),
        _ => OnFailure::Deny,
    }
}

/// `on_failure` and `stale_seconds` of Vault: how long a credential is used after the end of its life.
pub(super) fn vault(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Duration> {
    let choice = choice(fields, faults, &["deny", "stale"]);
    let stale = stale(fields, faults, choice, "only with on_failure stale");
    (choice == Some("stale")).then_some(stale)
}

/// The value of `on_failure`: the first of `known` when it is absent, none when it is faulty.
fn choice(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
    known: &'static [&'static str],
) -> Option<&'static str> {
    let Some(node) = fields.optional("on_failure") else { return known.first().copied() };
    let expected = format!("one of {}", known.join(", "));
    node.text(faults, &expected, |text| known.iter().copied().find(|name| *name == text))
}

fn stale(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
    choice: Option<&'static str>,
    expected: &'static str,
) -> Duration {
    const DAY: u64 = 86_400;
    let seconds = match fields.optional("stale_seconds") {
        Some(node) if choice == Some("deny") => {
            node.fault(faults, expected);
            None
        }
        Some(node) => node.integer(faults, 1..=DAY, "seconds"),
        None => Some(STALE_SECONDS),
    };
    Duration::from_secs(seconds.unwrap_or(STALE_SECONDS))
}

fn share(node: Node<'_>, faults: &mut Faults) -> Option<WorkerShare> {
    let share = node.millionths().and_then(WorkerShare::new);
    if share.is_none() {
        node.fault(faults, "a share of every limit, above 0 and up to 1, such as 0.1");
    }
    share
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Config;
    use super::*;

    fn read(redis: Value) -> Result<OnFailure, String> {
        let mut document = json!({"redis": {"cluster": "r"}});
        let members = document["redis"].as_object_mut().unwrap();
        members.extend(redis.as_object().unwrap().clone());
        let config = Config::parse(&document).map_err(|faults| faults.to_string())?;
        Ok(config.redis.unwrap().on_failure)
    }

    #[test]
    fn nothing_passes_without_redis_unless_somebody_says_so() {
        let local = |seconds, millionths| {
            let share = WorkerShare::new(millionths).unwrap();
            let stale = Duration::from_secs(seconds);
            Ok(OnFailure::Degrade(Degraded { stale, limits: Limits::Local(share) }))
        };
        assert_eq!(read(json!({})), Ok(OnFailure::Deny));
        assert_eq!(read(json!({"on_failure": "deny"})), Ok(OnFailure::Deny));
        assert_eq!(read(json!({"on_failure": "local"})), local(60, 100_000));
        let written = json!({"on_failure": "local", "stale_seconds": 5, "local_share": 0.25});
        assert_eq!(read(written), local(5, 250_000));
        assert_eq!(read(json!({"on_failure": "local", "local_share": 1})), local(60, 1_000_000));
        let stale = Duration::from_secs(60);
        let allow = OnFailure::Degrade(Degraded { stale, limits: Limits::Waived });
        assert_eq!(read(json!({"on_failure": "allow"})), Ok(allow));
    }

    #[test]
    fn what_would_mean_nothing_is_a_fault() {
        let fault = |redis| read(redis).unwrap_err();
        assert_eq!(
            fault(json!({"on_failure": "open"})),
            "redis.on_failure: found \"open\", expected one of deny, local, allow"
        );
        assert_eq!(
            fault(json!({"stale_seconds": 5, "local_share": 0.5})),
            "redis.stale_seconds: found 5, expected only with on_failure local or allow\n\
             redis.local_share: found 0.5, expected only with on_failure local"
        );
        let share = "expected a share of every limit, above 0 and up to 1, such as 0.1";
        for (found, text) in [(json!(0), "0"), (json!(1.5), "1.5"), (json!("all"), "\"all\"")] {
            let redis = json!({"on_failure": "local", "local_share": found});
            assert_eq!(fault(redis), format!("redis.local_share: found {text}, {share}"));
        }
    }

    #[test]
    fn a_credential_outlives_its_life_only_where_that_is_stated() {
        let read = |vault| {
            let config = Config::parse(&json!({"redis": {"cluster": "r"}, "vault": vault}));
            config.map(|config| config.vault.unwrap().stale).map_err(|faults| faults.to_string())
        };
        assert_eq!(read(json!({"cluster": "v"})), Ok(None));
        let stale = json!({"cluster": "v", "on_failure": "stale", "stale_seconds": 900});
        assert_eq!(read(stale), Ok(Some(Duration::from_secs(900))));
        assert!(read(json!({"cluster": "v", "on_failure": "allow"})).is_err());
    }
}
