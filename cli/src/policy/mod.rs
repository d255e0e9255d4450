//! `portcullis policy`: check, test, push, promote, diff, history, show, rollback.
//!
//! Owns the life of a version: written once under its digest, tried on some callers or made active by
//! flipping one pointer per organisation, noted in the history. What a document means is the core's business.

mod canary;
mod canary_callers;
mod cases;
mod change;
mod check;
mod coverage;
mod diff;
mod difference;
mod findings;
mod history;
mod junit;
mod misspelt;
mod orphans;
mod push;
mod replay;
mod review;
mod rollback;
mod test;
pub(crate) mod unknown_keys;

use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::policy::{self, Policy};
use serde_json::Value;

pub(crate) use canary::{promote, start, stop, widen};
pub(crate) use check::check;
pub(crate) use diff::diff;
pub(crate) use history::{history, show};
pub(crate) use push::push;
pub(crate) use rollback::rollback;
pub(crate) use test::test;

use crate::report::{CliError, LocatedFault, progress};
use crate::session::beyond;
use crate::store::{ActivePolicy, Store, Topology};

const NOT_ACTIVATED: &str = "no policy was activated";

/// Refuses what the gateways could not use with this Redis: they would go on with the policy before, or serve none.
fn fits(policy: &Policy, place: &str, store: &Store) -> Result<(), CliError> {
    let global = match store.topology() {
        Topology::Server => None,
        Topology::Cluster => policy.global_limit(),
    };
    global.map_or(Ok(()), |limit| {
        let found = format!("{} counts over all organisations", limit.name);
        Err(CliError::new(found, place)
            .expected(
                "no limit per global in a Redis Cluster: what organisations share is in another place than what is \
                 theirs, and no step can draw from both or neither; nothing was changed",
            )
            .next("per: [org], with a share for each; or one Redis server for all. docs/explanation/exact-limits.md says why"))
    })
}

/// A stored version, as far as this program still accepts it, and the gateways could use it.
fn compiled(version: &PolicyVersion, store: &mut Store) -> Result<Policy, CliError> {
    let document = stored_document(store, version)?;
    let place = format!("policy {version}");
    let policy = policy::compile(&document).map_err(|faults| {
        let faults = faults.iter().map(|fault| LocatedFault {
            file: None,
            line: None,
            path: fault.path.clone(),
            found: fault.found.clone(),
            expected: fault.expected.clone(),
        });
        CliError::new("this version of portcullis does not accept that document any more", &place)
            .next("portcullis policy show VERSION, repair it, and push it")
            .faults(faults.collect())
    })?;
    fits(&policy, &place, store)?;
    Ok(policy)
}

/// A stored version; with `--organisation`, one that names that organisation, also beside others.
fn stored_document(store: &mut Store, version: &PolicyVersion) -> Result<Value, CliError> {
    const PLACE: &str = "the stored policies";
    let document = store.policy(version)?.ok_or_else(|| {
        CliError::new(format!("there is no policy {version}"), PLACE)
            .expected("a version that was pushed")
            .next("portcullis policy history")
    })?;
    let named = document.get("organisations").and_then(Value::as_array);
    let named: Vec<&str> = named.into_iter().flatten().filter_map(Value::as_str).collect();
    match store.organisation() {
        Some(only) if !named.contains(&only.as_str()) => {
            let what = format!("policy {version} names {}", named.join(", "));
            Err(beyond(only, &what, PLACE))
        }
        _ => Ok(document),
    }
}

/// What is active for every organisation that is known, as far as this Redis user may see it.
fn active_policies(store: &mut Store) -> Result<Vec<(OrgId, ActivePolicy)>, CliError> {
    let (mut active_policies, mut unseen, mut refused) = (Vec::new(), Vec::new(), None);
    for org in store.organisations()? {
        match store.active_policy(&org) {
            Ok(active_policy) => active_policies.push((org, active_policy)),
            Err(refusal) => {
                unseen.push(org);
                refused = Some(refusal);
            }
        }
    }
    match refused {
        Some(refusal) if active_policies.is_empty() => Err(refusal),
        Some(refusal) => {
            progress(&format!("not shown: {} ({})", listed(&unseen), refusal.found()));
            Ok(active_policies)
        }
        None => Ok(active_policies),
    }
}

fn no_policy() -> CliError {
    CliError::new("there is no policy yet", "the policy history")
        .expected("a policy that was pushed")
        .next("portcullis policy push FILE --reason …")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn listed(organisations: &[OrgId]) -> String {
    organisations.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_no_worker_could_hold_is_refused_with_what_to_do() {
        let text = findings::too_long(policy::LONGEST + 1).text("p.yaml");
        assert!(text.starts_with("p.yaml:1: the document: found a document of 12582913 bytes, "));
        assert!(text.contains("leave out output schemas"), "{text}");
        // Room for what else is in the reply, and on its way behind it.
        const { assert!(policy::LONGEST < portcullis_core::redis::resp::MAX_REPLY_BYTES / 4 * 3 + 1) };
    }
}
