//! A policy that is tried on some callers: those, and no others, on every worker of every gateway.

use std::path::PathBuf;

use portcullis_core::auth::{Identity, IdentityKind};
use portcullis_core::policy::{Canary, version_of};
use portcullis_stack::IssuedKey;
use portcullis_tests::organisation::Organisation;
use portcullis_tests::tokens::Mint;
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["policy":
        a_canary_decides_about_its_callers_until_it_is_promoted_or_dropped,
    ]
}

/// A caller, and whether the canary is to decide.
struct Caller {
    credential: String,
    identity: Identity,
}

/// The policy that is tried lets analysts write notes.
struct CanaryPolicies<'a> {
    org: &'a Organisation,
    file: PathBuf,
    versions: [String; 2],
}

impl<'a> CanaryPolicies<'a> {
    fn new(world: &World<'_>, org: &'a Organisation) -> Self {
        let first = org.standard_policy();
        let mut second = first.clone();
        second["roles"]["analyst"]["demo"]["allow"] =
            json!(["query_users", "search_contacts", "get_dashboard_metrics", "create_note"]);
        let file = world.stack().dir().join(format!("canary-{}.json", org.name));
        std::fs::write(&file, second.to_string()).expect("write a policy");
        let versions = [first, second].map(|policy| version_of(&policy).unwrap().to_string());
        Self { org, file, versions }
    }

    fn operate(&self, arguments: &[&str]) -> Value {
        let arguments = [&["policy"], arguments, &["--reason", "a trial"]].concat();
        self.org.operator.json(&arguments).unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn push(&self, more: &[&str]) -> Value {
        self.operate(&[&["push", self.file.to_str().expect("UTF-8")], more].concat())
    }

    /// Whether a share of so many takes them.
    fn takes(&self, percent: u8, identity: &Identity) -> bool {
        let version = serde_json::from_value(json!(self.versions[1])).expect("a version");
        Canary { version, percent, callers: [].into() }.takes(identity.holder())
    }

    /// What each of them meets is decided on the version that is due, and the entry says so.
    fn assert_decided(&self, callers: &[Caller], due: impl Fn(&Caller) -> bool) {
        for caller in callers {
            // Each on a connection of its own, so that either worker may get it.
            for _ in 0..2 {
                let arguments = json!({"title": "a note", "body": "of the trial"});
                let answer = self.org.call(&caller.credential, "create_note", arguments);
                let is_due = due(caller);
                match is_due {
                    true => drop(answer.result()),
                    false => answer.assert_refused(403, -31_403),
                }
                assert_eq!(answer.upstream().len(), usize::from(is_due));
                let entry = answer.audit();
                let version = &self.versions[usize::from(is_due)];
                assert_eq!(entry["policy_version"], json!(version), "{entry}");
            }
        }
    }
}

fn id_of(caller: &Caller) -> &str {
    match caller.identity.kind() {
        IdentityKind::Key(id) => id.as_str(),
        IdentityKind::Token { subject, .. } => subject,
        IdentityKind::Certificate(name) => name,
    }
}

// Proves: X4
fn a_canary_decides_about_its_callers_until_it_is_promoted_or_dropped(world: &World<'_>) {
    let org = world.organisation();
    let trial = CanaryPolicies::new(world, &org);
    let mint = Mint::of(world.stack());
    let by_key = |IssuedKey { id, key }: IssuedKey| Caller {
        credential: key,
        identity: IdentityKind::Key(serde_json::from_value(json!(id)).expect("an id")).into(),
    };
    let by_token = |subject: String| Caller {
        credential: mint.token(&org.name, json!({"sub": subject})),
        identity: IdentityKind::Token { issuer: mint.issuer().to_owned(), subject }.into(),
    };
    // Of each kind, two whom a share of 20 % takes, two whom one of 60 % takes first, and two besides.
    let class = |caller: &Caller| {
        [20, 60].into_iter().filter(|percent| !trial.takes(*percent, &caller.identity)).count()
    };
    let mut callers: Vec<Caller> = Vec::new();
    let mut add = |caller: Caller| {
        let alike = |other: &&Caller| {
            (other.identity.method(), class(other)) == (caller.identity.method(), class(&caller))
        };
        if callers.iter().filter(alike).count() < 2 {
            callers.push(caller);
        }
        callers.len()
    };
    while add(by_key(org.key("analyst"))) < 6 {}
    let mut subjects = (0..).map(|number| by_token(format!("agent-{number}")));
    while add(subjects.next().expect("another")) < 12 {}
    let besides = |method: &str| {
        let named =
            callers.iter().find(|caller| caller.identity.method() == method && class(caller) == 2);
        id_of(named.expect("somebody besides"))
    };
    let (key, subject) = (besides("api_key"), besides("jwt"));
    let named = |caller: &Caller| [key, subject].contains(&id_of(caller));
    let naming = ["--canary-caller", key, "--canary-subject", subject];
    let naming = [&naming[..], &["--canary-issuer", mint.issuer()]].concat();

    trial.assert_decided(&callers, |_| false);
    trial.push(&naming);
    trial.assert_decided(&callers, named);
    trial.push(&[&["--canary", "20%"], &naming[..]].concat());
    trial.assert_decided(&callers, |caller| named(caller) || class(caller) == 0);
    // The share grows: whoever was in stays in.
    trial.push(&["--canary", "60%"]);
    trial.assert_decided(&callers, |caller| class(caller) < 2);
    trial.operate(&["promote", "--org", &org.name]);
    trial.assert_decided(&callers, |_| true);
    // Back, another attempt, and that one is dropped.
    trial.operate(&["rollback", "--org", &org.name]);
    trial.push(&["--canary", "60%"]);
    trial.assert_decided(&callers, |caller| class(caller) < 2);
    let dropped = trial.operate(&["canary", "stop", "--org", &org.name]);
    assert_eq!(dropped["version"], json!(trial.versions[0]));
    trial.assert_decided(&callers, |_| false);
}
