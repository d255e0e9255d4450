//! The callers of a canary on the command line.
//!
//! Owns how a name becomes the identity by which the gateway selects a policy.

use std::collections::BTreeMap;

use portcullis_core::auth::{Identity, IdentityKind};
use portcullis_core::id::{OrgId, PolicyVersion};

use super::listed;
use crate::args::CanaryArgs;
use crate::report::CliError;
use crate::store::{NamedCanary, Store};

/// The canary of the arguments, if any.
pub(super) fn canary(
    args: &CanaryArgs,
    version: &PolicyVersion,
) -> Result<Option<NamedCanary>, CliError> {
    let callers = callers(args);
    match args.percent {
        None if callers.is_empty() => Ok(None),
        Some(0) if callers.is_empty() => Err(CliError::usage("a canary without callers")
            .expected("--canary 1% to 99%, or callers by name, such as --canary-caller ID")),
        percent => {
            Ok(Some(NamedCanary::new(version.clone(), percent.unwrap_or_default(), callers)))
        }
    }
}

/// The named callers, by the gateway's identity, with the operator's name.
pub(super) fn callers(args: &CanaryArgs) -> BTreeMap<String, String> {
    let keys = args.keys.iter().map(|id| (IdentityKind::Key(id.clone()), format!("key {id}")));
    let subjects = args.subjects.iter().zip(args.issuer.iter().cycle()).map(|(subject, issuer)| {
        let (issuer, subject) = (issuer.clone(), subject.clone());
        let name = format!("subject {subject} of {issuer}");
        (IdentityKind::Token { issuer, subject }, name)
    });
    let certificates = args
        .certificates
        .iter()
        .map(|name| (IdentityKind::Certificate(name.clone()), format!("certificate {name}")));
    let all = keys.chain(subjects).chain(certificates);
    all.map(|(kind, name)| (Identity::from(kind).holder().to_owned(), name)).collect()
}

/// Checks that the named keys exist, because a canary for a missing key would reach no caller. (Holders of tokens and
/// certificates are not stored.)
pub(super) fn knows_keys(
    store: &mut Store,
    args: &CanaryArgs,
    organisations: &[OrgId],
) -> Result<(), CliError> {
    for id in &args.keys {
        let mut known = false;
        for org in organisations {
            known |= store.record(org, id)?.is_some();
        }
        if !known {
            let place = format!("the keys of {}", listed(organisations));
            return Err(CliError::new(format!("there is no key {id}"), place)
                .expected("the id of a key of the document's organisations; nothing was changed")
                .next("portcullis key list"));
        }
    }
    Ok(())
}
