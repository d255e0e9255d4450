//! Policies at work: globs compared with a plain matcher, windows with what partitions them.
//!
//! Owns a matcher too simple to be wrong. The form of documents is tried in `documents`.

use std::time::Duration;

use portcullis_core::auth::{IdentityKind, Principal, Restrictions, Scopes};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use portcullis_core::limit::Called;
use portcullis_core::policy::{Cost, Dimension, Globs, Limit, LimitMatch, Policy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::cases;

fn matches(glob: &[char], name: &[char]) -> bool {
    match (glob, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, tail)| matches(glob, tail))
        }
        (['?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([letter, rest @ ..], [first, tail @ ..]) => letter == first && matches(rest, tail),
        _ => false,
    }
}

const DIMENSIONS: [Dimension; 7] = [
    Dimension::Global,
    Dimension::Org,
    Dimension::Key,
    Dimension::Role,
    Dimension::Tier,
    Dimension::Connector,
    Dimension::Tool,
];

/// A caller, a connector and a tool, of which often some are equal to another's.
#[derive(Clone, Debug)]
struct Caller {
    principal: Principal,
    holder: String,
    connector: PolicyName,
    tool: String,
}

impl Caller {
    fn along(&self, dimension: Dimension) -> String {
        match dimension {
            // The same for everybody.
            Dimension::Global => String::new(),
            Dimension::Org => self.principal.org.to_string(),
            Dimension::Key => self.holder.clone(),
            Dimension::Role => self.principal.role.to_string(),
            Dimension::Tier => self.principal.tier.to_string(),
            Dimension::Connector => self.connector.to_string(),
            // The policy names no tool: those share 256 windows, by a checksum of their names.
            Dimension::Tool => (crc32fast::hash(self.tool.as_bytes()) % 256).to_string(),
        }
    }
}

prop_compose! {
    fn caller()(
        names in vec(select(vec!["a1b2", "b1", "a"]), 4),
        key in select(vec!["k1a2", "k1a3"]),
        tool in prop_oneof![select(vec!["a", "b", "a,tool=b", "a:b", "{b}"]).prop_map(str::to_owned), ".{1,4}"],
    ) -> Caller {
        let name = |at: usize| PolicyName::new(names[at]).unwrap();
        let (org, key) = (OrgId::new(names[0]).unwrap(), KeyId::new(key).unwrap());
        let principal = Principal {
            org,
            identity: IdentityKind::Key(key).into(),
            name: "x".into(),
            role: name(1),
            tier: name(2),
            scopes: Scopes::Unknown,
            agent: None,
            restrictions: Restrictions::default(),
        };
        let holder = principal.identity.holder().to_owned();
        Caller { principal, holder, connector: name(3), tool }
    }
}

fn policy(limit: Limit) -> Policy {
    Policy { limits: vec![limit], ..Policy::default() }
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: C3
    #[test]
    fn globs_match_what_a_plain_matcher_matches(
        globs in vec("[ab*?\u{e9}]{1,6}", 0..4),
        name in "[ab*?\u{e9}]{0,6}",
    ) {
        let mut set = Globs::default();
        globs.iter().for_each(|glob| set.insert(glob));
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = globs.iter().any(|glob| matches(&chars(glob), &chars(&name)));
        prop_assert_eq!(set.matches(&name), expected);
    }

    // Proves: A8, A14, B11
    #[test]
    fn two_calls_share_a_window_exactly_when_its_dimensions_agree(
        per in subsequence(DIMENSIONS.to_vec(), 1..=7),
        one in caller(),
        other in caller(),
    ) {
        let policy = policy(Limit {
            name: "limits.x".into(),
            limit: 1,
            window: Duration::from_secs(1),
            precision: Duration::ZERO,
            cost: Cost::Calls,
            lease: None,
            alert: None,
            per: per.clone(),
            only: LimitMatch::default(),
        });
        let key = |caller: &Caller| {
            let called = Called { connector: &caller.connector, method: "tools/call", tool: &caller.tool, opens: false, bytes: 1 };
            let drawn = called.quotas(&policy, &caller.principal);
            assert_eq!(drawn.len(), 1);
            drawn[0].window.key.clone()
        };
        let mut per = per;
        // An organisation's own, unless it says otherwise.
        if !per.contains(&Dimension::Global) {
            per.push(Dimension::Org);
        }
        let agree = per.iter().all(|dimension| one.along(*dimension) == other.along(*dimension));
        prop_assert_eq!(key(&one) == key(&other), agree);
    }
}
