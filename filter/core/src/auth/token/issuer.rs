//! Who may issue tokens, as the plugin configuration says.
//!
//! Owns the form of `issuers`, its defaults and bounds. Holds no secret: that of an HMAC is a
//! reference into Vault.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::jwks::KeySet;
use super::jws::Algorithm;
use crate::auth::Unmapped;
use crate::decode::settings::{cluster, milliseconds};
use crate::decode::{Faults, Fields, Node};
use crate::glob::Globs;
use crate::id::{OrgId, PolicyName};
use crate::vault::SecretRef;

/// Names an issuer: its exact `iss`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(Rc<str>);

impl IssuerId {
    /// The issuer that calls itself `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// The exact `iss`.
    pub id: IssuerId,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How it may sign.
    pub algorithms: Vec<Algorithm>,
    /// Audiences that are accepted besides the endpoint's own URI.
    pub audiences: Vec<String>,
    /// The organisations that it may speak for; any when there are none.
    pub organisations: Vec<OrgId>,
    /// The paths of the endpoints at which its tokens are accepted; all when there are none.
    pub paths: Option<Globs>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The longest a token may live.
    pub max_lifetime: Duration,
    /// What its claims mean.
    pub mapping: Mapping,
}

impl Issuer {
    /// Whether its tokens are accepted at `path`, and clients of that endpoint are sent to it.
    #[must_use]
    pub fn serves(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.matches(path))
    }
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A key set at the issuer's.
    Jwks(Jwks),
    /// This set.
    Inline(Rc<KeySet>),
    /// A shared secret in Vault, for HS256.
    Secret {
        /// Where.
        secret: SecretRef,
        /// When it is read again, and how long it is used without.
        refresh: Refresh,
    },
}

impl KeySource {
    /// When keys are fetched again; `None` for keys that are not fetched.
    #[must_use]
    pub fn refresh(&self) -> Option<Refresh> {
        match self {
            Self::Jwks(jwks) => Some(jwks.refresh),
            Self::Inline(_) => None,
            Self::Secret { refresh, .. } => Some(*refresh),
        }
    }

    /// The keys that are there without a fetch.
    #[must_use]
    pub fn inline(&self) -> Option<Rc<KeySet>> {
        match self {
            Self::Inline(keys) => Some(keys.clone()),
            Self::Jwks(_) | Self::Secret { .. } => None,
        }
    }
}

/// A key set that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// The Envoy cluster of its server.
    pub cluster: String,
    /// The `Host` to ask for.
    pub authority: String,
    /// The path.
    pub path: String,
    /// How long one fetch may take.
    pub timeout: Duration,
    /// When it is fetched again.
    pub refresh: Refresh,
}

/// How long keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// They are fetched again after this.
    pub every: Duration,
    /// They are used as long as this when that fails.
    pub stale: Duration,
    /// The least time between two fetches for keys that are not in the set.
    pub unknown: Duration,
}

/// What claims mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The organisation.
    pub org: Source,
    /// The role.
    pub role: Source,
    /// The tier.
    pub tier: Source,
    /// The path of the subject's name; `sub` when there is none.
    pub name: Option<String>,
    /// The path of the scopes; the usual claims when there is none.
    pub scopes: Option<String>,
    /// The path of the agent that acts; the usual claims when there is none.
    pub agent: Option<String>,
    /// External roles and what they are here; the first that a token has counts.
    pub roles: Vec<(String, PolicyName)>,
}

impl Mapping {
    /// The claim that should tell what a token does not.
    #[must_use]
    pub fn claim(&self, of: Unmapped) -> Option<&str> {
        let source = match of {
            Unmapped::Organisation => &self.org,
            Unmapped::Role => &self.role,
            Unmapped::Tier => &self.tier,
            Unmapped::Name => return self.name.as_deref(),
            Unmapped::Agent => return self.agent.as_deref(),
        };
        match source {
            Source::Fixed(_) => None,
            Source::Claim(path) => Some(path),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The same for every token.
    Fixed(String),
    /// The claim at this path.
    Claim(String),
}

const ISSUER: &str = "the exact `iss` of its tokens, such as https://idp.example/realms/acme, once";
const KEYS: &str = "an object with `issuer` and one of `jwks`, `jwks_inline`, `secret`";
const PATH: &str = "the path of a claim, such as org or realm_access.roles";

/// Reads the list of issuers; `None` when something in it is not as it must be.
pub fn read(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Issuer>> {
    let items = node.items(faults, "a list of issuers")?;
    let count = items.len();
    let mut issuers: Vec<Issuer> = Vec::new();
    for item in items {
        let fields = item.object(faults, KEYS);
        let Some(issuer) = fields.and_then(|fields| one(fields, &issuers, faults)) else {
            continue;
        };
        issuers.push(issuer);
    }
    (issuers.len() == count).then_some(issuers)
}

fn one(mut fields: Fields<'_>, others: &[Issuer], faults: &mut Faults) -> Option<Issuer> {
    let id = fields.required("issuer", faults, ISSUER).and_then(|node| {
        node.text(faults, ISSUER, |text| {
            let id = IssuerId::new(text);
            (!text.is_empty() && others.iter().all(|other| other.id != id)).then_some(id)
        })
    });
    let secret = fields.optional("secret");
    let algorithms = algorithms(&mut fields, secret.is_some(), faults);
    let keys = keys(&mut fields, secret, algorithms.as_deref().unwrap_or_default(), faults);
    let audiences = texts(&mut fields, "audiences", "an audience", faults);
    let organisations = organisations(&mut fields, faults);
    let paths = paths(&mut fields, faults);
    let leeway = seconds(&mut fields, "leeway_seconds", 0..=600, 30, faults);
    let max_lifetime =
        seconds(&mut fields, "max_lifetime_seconds", 60..=31_622_400, 86_400, faults);
    let mapping = mapping(&mut fields, faults);
    fields.finish(faults);
    Some(Issuer {
        id: id?,
        keys: keys?,
        algorithms: algorithms?,
        audiences: audiences?,
        organisations: organisations?,
        paths: paths?,
        leeway: leeway?,
        max_lifetime: max_lifetime?,
        mapping: mapping?,
    })
}

/// HS256 only with a secret, and with a secret nothing else: so a public key cannot become one.
fn algorithms(
    fields: &mut Fields<'_>,
    shared: bool,
    faults: &mut Faults,
) -> Option<Vec<Algorithm>> {
    let choices: &[Algorithm] = if shared { &[Algorithm::Hs256] } else { &Algorithm::PUBLIC };
    let names: Vec<&str> = choices.iter().map(|algorithm| algorithm.name()).collect();
    let expected = match shared {
        true => "HS256, the one that a `secret` serves".to_owned(),
        false => format!("one of {}", names.join(", ")),
    };
    let Some(node) = fields.optional("algorithms") else {
        return Some(choices.to_vec());
    };
    let whole = node.clone();
    let items = node.items(faults, "a list of algorithms")?;
    if items.is_empty() {
        whole.fault(faults, "at least one algorithm, or no such field");
    }
    let read = |item: Node<'_>| {
        item.text(faults, &expected, |text| {
            Algorithm::named(text).filter(|it| choices.contains(it))
        })
    };
    items.into_iter().map(read).collect()
}

fn keys(
    fields: &mut Fields<'_>,
    secret: Option<Node<'_>>,
    algorithms: &[Algorithm],
    faults: &mut Faults,
) -> Option<KeySource> {
    let (jwks, inline) = (fields.optional("jwks"), fields.optional("jwks_inline"));
    match (jwks, inline, secret) {
        (Some(node), None, None) => fetched(node, faults).map(KeySource::Jwks),
        (None, Some(node), None) => {
            const SET: &str = "a JWKS with a `keys` list, of which at least one verifies signatures by an \
                 allowed algorithm";
            let keys = node.json(|set| KeySet::read(set, algorithms));
            let keys = keys.filter(|keys| !keys.is_empty());
            if keys.is_none() {
                node.fault(faults, SET);
            }
            keys.map(|keys| KeySource::Inline(Rc::new(keys)))
        }
        (None, None, Some(node)) => {
            let secret = node.unseen_text(faults, SecretRef::EXPECTED, SecretRef::parse)?;
            Some(KeySource::Secret { secret, refresh: REFRESH })
        }
        _ => {
            fields.fault(faults, KEYS);
            None
        }
    }
}

const REFRESH: Refresh = Refresh {
    every: Duration::from_secs(300),
    stale: Duration::from_secs(86_400),
    unknown: Duration::from_secs(30),
};

fn fetched(node: Node<'_>, faults: &mut Faults) -> Option<Jwks> {
    const JWKS: &str = "an object with `cluster` and `path`";
    let mut fields = node.object(faults, JWKS)?;
    let cluster = cluster(&mut fields, faults);
    let authority = match fields.optional("authority") {
        None => cluster.clone(),
        Some(node) => node.text(faults, "a host, such as idp.example", |text| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
        }),
    };
    const PLACE: &str = "the path of the key set, such as /.well-known/jwks.json";
    let path = fields.required("path", faults, PLACE).and_then(|node| {
        node.text(faults, PLACE, |text| {
            let plain = text.bytes().all(|b| b.is_ascii_graphic());
            (text.starts_with('/') && plain).then(|| text.to_owned())
        })
    });
    let timeout = milliseconds(&mut fields, "timeout_ms", 2_000, faults);
    let every = seconds(&mut fields, "refresh_seconds", 5..=86_400, 300, faults);
    let stale = seconds(&mut fields, "stale_seconds", 0..=2_592_000, 86_400, faults);
    let unknown = seconds(&mut fields, "unknown_kid_seconds", 1..=3_600, 30, faults);
    fields.finish(faults);
    let every = every?;
    let refresh = Refresh { every, stale: stale?.max(every), unknown: unknown? };
    Some(Jwks { cluster: cluster?, authority: authority?, path: path?, timeout: timeout?, refresh })
}

fn mapping(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Mapping> {
    let fixed = [
        fixed(fields, "org", OrgId::EXPECTED, |text| OrgId::new(text).is_some(), faults),
        fixed(fields, "role", PolicyName::EXPECTED, |text| PolicyName::new(text).is_some(), faults),
        fixed(fields, "tier", PolicyName::EXPECTED, |text| PolicyName::new(text).is_some(), faults),
    ];
    let claims = fields.optional("claims");
    let mut claims = match claims {
        Some(node) => Some(node.object(faults, "an object with paths of claims")?),
        None => None,
    };
    let mut claim = |name: &'static str, faults: &mut Faults| {
        let node = claims.as_mut()?.optional(name)?;
        let path =
            |text: &str| text.split('.').all(|part| !part.is_empty()).then(|| text.to_owned());
        node.text(faults, PATH, path)
    };
    let paths = ["org", "role", "tier"].map(|name| claim(name, faults));
    let (name, scopes) = (claim("name", faults), claim("scopes", faults));
    let agent = claim("agent", faults);
    if let Some(claims) = claims {
        claims.finish(faults);
    }
    let mut sources = fixed.into_iter().zip(paths).zip(["org", "role", "tier"]);
    let mut source = || match sources.next() {
        Some(((Some(value), None), _)) => Some(Source::Fixed(value)),
        Some(((None, path), name)) => Some(Source::Claim(path.unwrap_or_else(|| name.to_owned()))),
        Some(((Some(_), Some(_)), name)) => {
            let found = format!("both {name} and claims.{name}");
            fields.fault_at(name, &found, "one of them", faults);
            None
        }
        None => None,
    };
    let (org, role, tier) = (source(), source(), source());
    let roles = roles(fields, faults)?;
    Some(Mapping { org: org?, role: role?, tier: tier?, name, scopes, agent, roles })
}

fn roles(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Vec<(String, PolicyName)>> {
    let Some(node) = fields.optional("roles") else {
        return Some(Vec::new());
    };
    let members = node.members(faults, "an object: external role to role")?;
    let read = |(external, node): (&str, Node<'_>)| {
        let internal = node.text(faults, PolicyName::EXPECTED, PolicyName::new)?;
        Some((external.to_owned(), internal))
    };
    members.into_iter().map(read).collect()
}

fn fixed(
    fields: &mut Fields<'_>,
    name: &'static str,
    expected: &str,
    valid: fn(&str) -> bool,
    faults: &mut Faults,
) -> Option<String> {
    let node = fields.optional(name)?;
    node.text(faults, expected, |text| valid(text).then(|| text.to_owned()))
}

fn paths(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Option<Globs>> {
    const PATH: &str = "a path or a pattern of paths, such as /acme/*";
    let Some(node) = fields.optional("paths") else {
        return Some(None);
    };
    let mut globs = Globs::default();
    for item in node.items(faults, "a list of paths")? {
        let path = |text: &str| text.starts_with(['/', '*']).then(|| text.to_owned());
        globs.insert(&item.text(faults, PATH, path)?);
    }
    Some(Some(globs))
}

fn organisations(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Vec<OrgId>> {
    let Some(node) = fields.optional("organisations") else {
        return Some(Vec::new());
    };
    let items = node.items(faults, "a list of organisations")?;
    items.into_iter().map(|item| item.text(faults, OrgId::EXPECTED, OrgId::new)).collect()
}

fn texts(
    fields: &mut Fields<'_>,
    name: &'static str,
    expected: &str,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let Some(node) = fields.optional(name) else {
        return Some(Vec::new());
    };
    let items = node.items(faults, "a list")?.into_iter();
    let read = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    items.map(|item| item.text(faults, expected, read)).collect()
}

fn seconds(
    fields: &mut Fields<'_>,
    name: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
    faults: &mut Faults,
) -> Option<Duration> {
    let seconds = match fields.optional(name) {
        Some(node) => node.integer(faults, range, "seconds"),
        None => Some(default),
    };
    seconds.map(Duration::from_secs)
}
