//! The active policies of an organisation, with operators' names for callers. The core decides which policy a caller
//! has.

use std::collections::BTreeMap;

use portcullis_core::id::PolicyVersion;
use portcullis_core::policy::{Activation, Canary};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The state in Redis.
#[derive(Clone, Debug)]
pub(crate) struct ActivePolicy {
    /// The revision of the record, if there is one.
    pub(crate) rev: Option<String>,
    /// Its content, as far as it can be read.
    pub(crate) target: Option<Target>,
}

/// The intended state in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The active version.
    pub(crate) version: PolicyVersion,
    /// Another version for some callers.
    pub(crate) canary: Option<NamedCanary>,
}

/// A canary, and the operator's names for its callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedCanary {
    pub(crate) record: Canary,
    names: BTreeMap<String, String>,
}

/// The callers of a canary, in the history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CanaryScope {
    pub(crate) percent: u8,
    pub(crate) callers: Vec<String>,
}

/// The part of an activation record for operators.
#[derive(Default, Deserialize)]
struct CallerNames {
    #[serde(default)]
    callers: BTreeMap<String, String>,
}

impl ActivePolicy {
    pub(crate) fn read(rev: Option<String>, doc: Option<&[u8]>) -> Self {
        let doc = doc.unwrap_or_default();
        let active = rev.as_deref().and_then(|rev| Activation::parse(rev, doc));
        let told: CallerNames = serde_json::from_slice(doc).unwrap_or_default();
        let target = active.map(|Activation { version, canary, .. }| Target {
            version,
            canary: canary.map(|canary| NamedCanary { record: canary, names: told.callers }),
        });
        Self { rev, target }
    }

    pub(crate) fn version(&self) -> Option<&PolicyVersion> {
        self.target.as_ref().map(|target| &target.version)
    }

    pub(crate) fn canary(&self) -> Option<&NamedCanary> {
        self.target.as_ref().and_then(|target| target.canary.as_ref())
    }
}

impl Target {
    /// `version` for all callers.
    pub(crate) fn alone(version: PolicyVersion) -> Self {
        Self { version, canary: None }
    }

    pub(crate) fn rev(&self) -> String {
        Activation::revision(&self.version, self.canary.as_ref().map(|canary| &canary.record))
    }

    /// The record as the gateway reads it.
    pub(crate) fn activation(&self) -> Activation {
        let canary = self.canary.as_ref().map(|canary| canary.record.clone());
        Activation { rev: self.rev(), version: self.version.clone(), canary }
    }

    /// The record; `signed` has its operator, time and reason.
    pub(crate) fn document<const N: usize>(&self, signed: [(&str, Value); N]) -> String {
        let canary = self.canary.iter().flat_map(|NamedCanary { record, names }| {
            [("canary", json!(record)), ("callers", json!(names))]
        });
        let members = [("version", json!(self.version))].into_iter().chain(canary).chain(signed);
        members.collect::<Value>().to_string()
    }
}

impl NamedCanary {
    /// `callers` are named in addition to the share, with the operator's names for them.
    pub(crate) fn new(
        version: PolicyVersion,
        percent: u8,
        callers: BTreeMap<String, String>,
    ) -> Self {
        let record = Canary { version, percent, callers: callers.keys().cloned().collect() };
        Self { record, names: callers }
    }

    /// The same canary for more callers.
    pub(crate) fn widened(&self, percent: u8, callers: BTreeMap<String, String>) -> Self {
        let names = self.names.clone().into_iter().chain(callers).collect();
        Self::new(self.record.version.clone(), percent, names)
    }

    pub(crate) fn share(&self) -> CanaryScope {
        let name = |holder: &String| self.names.get(holder).unwrap_or(holder).clone();
        CanaryScope {
            percent: self.record.percent,
            callers: self.record.callers.iter().map(name).collect(),
        }
    }

    /// The output for scripts.
    pub(crate) fn view(&self) -> Value {
        let CanaryScope { percent, callers } = self.share();
        json!({ "version": self.record.version, "percent": percent, "callers": callers })
    }
}

impl std::fmt::Display for CanaryScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = (self.percent > 0).then(|| format!("{} %", self.percent));
        let parts: Vec<_> = share.iter().chain(&self.callers).map(String::as_str).collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_with_the_names_that_people_gave() {
        let version = |digit: &str| PolicyVersion::new(&digit.repeat(16)).unwrap();
        let callers = BTreeMap::from([("jwt:12".to_owned(), "subject a of i".to_owned())]);
        let target = Target {
            version: version("a"),
            canary: Some(NamedCanary::new(version("b"), 10, callers)),
        };
        let document = target.document([("actor", json!("ops"))]);
        let read = ActivePolicy::read(Some(target.rev()), Some(document.as_bytes()));
        assert_eq!(read.target.as_ref(), Some(&target));
        assert_eq!(read.canary().unwrap().share().to_string(), "10 %, subject a of i");
        let plain = Target::alone(version("a"));
        let document = plain.document([]);
        assert_eq!(document, format!(r#"{{"version":"{}"}}"#, version("a")));
        assert_eq!(ActivePolicy::read(Some(plain.rev()), Some(b"{}")).target, Some(plain));
        assert_eq!(ActivePolicy::read(Some(target.rev()), None).target, None);
    }
}
