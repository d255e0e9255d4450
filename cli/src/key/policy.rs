//! Checks a key's role, tier and connectors against the active policy. Owns how a refusal lists the names that the
//! policy has.

use portcullis_core::auth::Principal;
use portcullis_core::auth::record::{KeyRecord, NameList};
use portcullis_core::id::{OrgId, PolicyName, PolicyVersion};
use portcullis_core::policy::{self, Policy};

use crate::report::CliError;
use crate::store::Store;

const PUSH: &str = "portcullis policy push FILE --reason …";

/// The policy that is active for an organisation.
pub(crate) struct Active {
    pub(crate) version: PolicyVersion,
    org: OrgId,
    policy: Policy,
}

impl Active {
    pub(crate) fn of(org: &OrgId, store: &mut Store) -> Result<Self, CliError> {
        let Some(version) = store.active(org)? else {
            return Err(unknown_organisation(org, store)?.next(PUSH));
        };
        Self::of_version(version, org, store)
    }

    /// The policy that decides about this caller now: the canary's, if it is one of its callers.
    pub(crate) fn of_caller(caller: &Principal, store: &mut Store) -> Result<Self, CliError> {
        let org = &caller.org;
        let Some(target) = store.active_policy(org)?.target else {
            return Err(unknown_organisation(org, store)?.next(PUSH));
        };
        let version = target.activation().version_for(caller.identity.holder()).clone();
        Self::of_version(version, org, store)
    }

    /// A version that is active for an organisation, or is its canary.
    pub(crate) fn of_version(
        version: PolicyVersion,
        org: &OrgId,
        store: &mut Store,
    ) -> Result<Self, CliError> {
        let place = format!("policy {version}, active for {org}");
        let document = store.policy(&version)?.ok_or_else(|| {
            CliError::new("the active policy document is missing", &place).next(PUSH)
        })?;
        let policy = policy::compile(&document).map_err(|faults| {
            CliError::new(format!("the active policy has {} faults", faults.len()), &place)
                .next(PUSH)
        })?;
        Ok(Self { version, org: org.clone(), policy })
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn knows_role(&self, role: &PolicyName) -> Result<(), CliError> {
        self.knows("role", role, self.policy.roles.keys())
    }

    pub(crate) fn knows_tier(&self, tier: &PolicyName) -> Result<(), CliError> {
        self.knows("tier", tier, self.policy.tiers.keys())
    }

    /// Refuses a name that matches no connector: the key could do nothing with it. (No policy lists the tools that
    /// exist.)
    pub(super) fn knows_connectors(&self, names: &NameList) -> Result<(), CliError> {
        let connectors = || self.policy.connectors.keys();
        for name in names {
            let list = NameList::from(vec![name.clone()]);
            if !connectors().any(|connector| list.globs().matches(connector.as_str())) {
                let found = format!("no connector of the policy is called {name}");
                return Err(self.unknown(found, "connectors", connectors()));
            }
        }
        Ok(())
    }

    fn knows<'a>(
        &self,
        what: &str,
        name: &PolicyName,
        mut known: impl Iterator<Item = &'a PolicyName> + Clone,
    ) -> Result<(), CliError> {
        if known.clone().any(|one| one == name) {
            return Ok(());
        }
        Err(self.unknown(format!("the policy has no {what} {name}"), what, &mut known))
    }

    fn unknown<'a>(
        &self,
        found: String,
        option: &str,
        known: impl Iterator<Item = &'a PolicyName>,
    ) -> CliError {
        let place = format!("policy {}, active for {}", self.version, self.org);
        CliError::new(found, place)
            .expected(one_of(&known.collect::<Vec<_>>()))
            .next(format!("--{option} with one of these, or {PUSH}"))
    }
}

/// The role and tier of a key that a policy lacks; calls of the key are refused. `role analyst`, `tier std`, or both.
pub(crate) fn lacks(record: &KeyRecord, policy: &Policy) -> Option<String> {
    let role = (!policy.roles.contains_key(&record.role)).then(|| format!("role {}", record.role));
    let tier = (!policy.tiers.contains_key(&record.tier)).then(|| format!("tier {}", record.tier));
    let lacks: Vec<String> = role.into_iter().chain(tier).collect();
    (!lacks.is_empty()).then(|| lacks.join(", "))
}

fn unknown_organisation(org: &OrgId, store: &mut Store) -> Result<CliError, CliError> {
    let mut known = Vec::new();
    for org in store.organisations()? {
        if store.active(&org)?.is_some() {
            known.push(org);
        }
    }
    if known.is_empty() {
        return Ok(CliError::new("there is no policy yet", "the active policy")
            .expected(format!("a policy that names the organisation {org}")));
    }
    let found = format!("no active policy knows the organisation {org}");
    Ok(CliError::new(found, "the active policies").expected(one_of(&known)))
}

pub(super) fn one_of(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    format!("one of {}", names.join(", "))
}
