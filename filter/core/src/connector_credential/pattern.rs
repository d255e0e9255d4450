//! The Vault reference of a connector's credential in the policy: a path that may depend on the caller.
//!
//! Owns how the caller's facts are written in a path. A value stays in its segment, two values never get the same path,
//! and no value selects the mount.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::id::{OrgId, PolicyName};
use crate::json::lookup;
use crate::vault::{SecretRef, is_plain};

/// `vault://mount/path#field`, with facts of the caller in the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPattern {
    segments: Vec<Segment>,
    /// How many of the first segments contain no fact.
    stated: usize,
    version: Option<u32>,
    field: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Stated(String),
    /// One fact: with two, different callers could have the same path.
    Of {
        before: String,
        fact: Fact,
        after: String,
    },
}

/// A fact about the caller that a path may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fact {
    Org,
    Connector,
    Key,
    Subject,
    Issuer,
    Certificate,
    Claim(String),
}

/// The facts from which a path is made.
#[derive(Clone, Copy, Debug)]
pub struct CallerFacts<'a> {
    /// The caller's organisation.
    pub org: &'a OrgId,
    /// The identifier that is unique for the caller within its organisation.
    pub holder: &'a str,
    /// The credential that proved the caller.
    pub proof: CallerProof<'a>,
    /// The claims of the caller's token.
    pub claims: &'a Map<String, Value>,
    /// The connector of the call.
    pub connector: &'a PolicyName,
    /// The digest of the caller's token, if there is one.
    pub token: Option<[u8; 32]>,
}

/// A caller's facts other than claims, by its kind of credential.
#[derive(Clone, Copy, Debug)]
pub enum CallerProof<'a> {
    /// The id of an API key.
    Key(&'a str),
    /// The `iss` and `sub` of a token.
    Token {
        /// `iss`.
        issuer: &'a str,
        /// `sub`.
        subject: &'a str,
    },
    /// The name of a client certificate's identity.
    Certificate(&'a str),
}

/// The reason why a caller has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The caller's credential does not have the fact.
    Absent,
    /// The fact is too long, or is no name: an object, a list, an empty text.
    NoName,
}

/// The longest value of a fact.
const MAX_FACT_BYTES: usize = 256;

impl SecretPattern {
    /// The form of a valid reference.
    pub const EXPECTED: &'static str = "a reference vault://mount/path#field, such as vault://secret/connectors/demo#api_key \
         or vault://secret/users/{org}/{sub}#token; never the secret itself";

    /// Reads a reference. The field may be left out where templates name fields.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("vault://")?;
        let (place, field) = match rest.split_once('#') {
            Some((place, field)) => (place, Some(field)),
            None => (rest, None),
        };
        let (place, version) = match place.split_once('?') {
            Some((place, query)) => {
                let version = query.strip_prefix("version=")?;
                let plain =
                    version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
                (place, Some(version.parse().ok().filter(|_| plain)?))
            }
            None => (place, None),
        };
        let segments: Vec<_> = place.split('/').map(Segment::parse).collect::<Option<_>>()?;
        let is_stated = |segment: &&Segment| matches!(segment, Segment::Stated(_));
        let stated = segments.iter().take_while(is_stated).count();
        let fits = stated > 0 && segments.len() > 1 && field.is_none_or(is_plain);
        fits.then(|| Self { segments, stated, version, field: field.map(str::to_owned) })
    }

    /// The field of `{secret}`, if there is one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Whether the path depends on the caller.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        let of_caller = |fact: &Fact| !matches!(fact, Fact::Org | Fact::Connector);
        self.segments.iter().any(|segment| match segment {
            Segment::Stated(_) => false,
            Segment::Of { fact, .. } => of_caller(fact),
        })
    }

    /// The common folder of all callers' secrets, when each caller has its own. Their circuit breaker has the same
    /// name.
    pub(crate) fn folder(&self) -> Option<String> {
        self.is_of_caller().then(|| {
            let stated = self.segments.iter().take(self.stated);
            let names = stated.filter_map(|segment| match segment {
                Segment::Stated(name) => Some(name.as_str()),
                Segment::Of { .. } => None,
            });
            SecretRef::folder(&names.collect::<Vec<_>>())
        })
    }

    /// Whether every caller has the same path.
    #[must_use]
    pub fn is_stated(&self) -> bool {
        self.stated == self.segments.len()
    }

    /// Whether the reference was copied from the API's path, which has `data` between mount and path; a reference has
    /// none.
    #[must_use]
    pub fn has_api_form(&self) -> bool {
        self.segments.get(1).is_some_and(|segment| segment.is("data"))
    }

    /// Whether it begins with the API's version.
    #[must_use]
    pub fn has_api_version(&self) -> bool {
        self.segments.first().is_some_and(|segment| segment.is("v1"))
    }

    /// The reference as text, for `org`: it is compared with the bounds of an organisation. Other facts stay as
    /// placeholders, because their values stay in their segments.
    #[must_use]
    pub fn text(&self, org: Option<&OrgId>) -> String {
        let mut text = "vault://".to_owned();
        for (at, segment) in self.segments.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            let _ = match (segment, org) {
                (Segment::Stated(name), _) => write!(text, "{slash}{name}"),
                (Segment::Of { before, fact: Fact::Org, after }, Some(org)) => {
                    write!(text, "{slash}{before}{org}{after}")
                }
                (Segment::Of { before, fact, after }, _) => {
                    write!(text, "{slash}{before}{{{}}}{after}", fact.name())
                }
            };
        }
        let _ = match self.version {
            Some(version) => write!(text, "?version={version}"),
            None => Ok(()),
        };
        let _ = match &self.field {
            Some(field) => write!(text, "#{field}"),
            None => Ok(()),
        };
        text
    }

    /// `fields` of the secret that all callers share.
    pub(super) fn stated_ref(&self, fields: &[String]) -> Option<SecretRef> {
        let names = self.segments.iter().map(|segment| match segment {
            Segment::Stated(name) => Some(name.as_str()),
            Segment::Of { .. } => None,
        });
        let place = names.collect::<Option<Vec<_>>>()?.join("/");
        Some(SecretRef::new((place, self.stated), self.version, fields.to_vec(), None))
    }

    /// `fields` of this caller's secret.
    ///
    /// # Errors
    /// The caller has no path.
    pub fn resolve(
        &self,
        facts: CallerFacts<'_>,
        fields: &[String],
    ) -> Result<SecretRef, Unresolved> {
        let mut place = String::new();
        for segment in &self.segments {
            if !place.is_empty() {
                place.push('/');
            }
            match segment {
                Segment::Stated(name) => place.push_str(name),
                Segment::Of { before, fact, after } => {
                    let start = place.len();
                    place.push_str(before);
                    escape(&fact.of(facts)?, &mut place);
                    place.push_str(after);
                    if matches!(place.get(start..), Some("." | "..")) {
                        return Err(Unresolved::NoName);
                    }
                }
            }
        }
        let owner = self.is_of_caller().then(|| owner(facts.org, facts.holder));
        Ok(SecretRef::new((place, self.stated), self.version, fields.to_vec(), owner))
    }
}

/// The owner of a secret.
pub(crate) fn owner(org: &OrgId, holder: &str) -> String {
    format!("{org}/{holder}")
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        let Some((before, rest)) = text.split_once('{') else {
            return is_plain(text).then(|| Self::Stated(text.to_owned()));
        };
        let (name, after) = rest.split_once('}')?;
        let plain =
            |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let fact = Fact::parse(name)?;
        let (before, after) = (before.to_owned(), after.to_owned());
        (plain(&before) && plain(&after)).then_some(Self::Of { before, fact, after })
    }

    fn is(&self, name: &str) -> bool {
        matches!(self, Self::Stated(stated) if stated == name)
    }
}

impl Fact {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "org" => Self::Org,
            "connector" => Self::Connector,
            "key" => Self::Key,
            "sub" => Self::Subject,
            "iss" => Self::Issuer,
            "cert" => Self::Certificate,
            other => {
                let claim = other.strip_prefix("claim:")?;
                let fits = (1..=128).contains(&claim.len())
                    && claim.bytes().all(|b| b.is_ascii_graphic() && !b"{}/#?".contains(&b));
                Self::Claim(fits.then(|| claim.to_owned())?)
            }
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Org => "org".to_owned(),
            Self::Connector => "connector".to_owned(),
            Self::Key => "key".to_owned(),
            Self::Subject => "sub".to_owned(),
            Self::Issuer => "iss".to_owned(),
            Self::Certificate => "cert".to_owned(),
            Self::Claim(name) => format!("claim:{name}"),
        }
    }

    fn of(&self, facts: CallerFacts<'_>) -> Result<String, Unresolved> {
        let value = match (self, facts.proof) {
            (Self::Org, _) => facts.org.to_string(),
            (Self::Connector, _) => facts.connector.to_string(),
            (Self::Key, CallerProof::Key(id)) => id.to_owned(),
            (Self::Subject, CallerProof::Token { subject, .. }) => subject.to_owned(),
            (Self::Issuer, CallerProof::Token { issuer, .. }) => issuer.to_owned(),
            (Self::Certificate, CallerProof::Certificate(name)) => name.to_owned(),
            (Self::Claim(path), _) => match lookup(facts.claims, path) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(_) => return Err(Unresolved::NoName),
                None => return Err(Unresolved::Absent),
            },
            (Self::Key | Self::Subject | Self::Issuer | Self::Certificate, _) => {
                return Err(Unresolved::Absent);
            }
        };
        let fits = (1..=MAX_FACT_BYTES).contains(&value.len());
        fits.then_some(value).ok_or(Unresolved::NoName)
    }
}

/// Writes a value as one segment that every reader splits alike: Vault decodes percent signs, so there are none.
/// Letters, digits and `-_.@` stay, as in hand-written paths; each other byte is `=` and two hex digits.
fn escape(value: &str, place: &mut String) {
    let dots = matches!(value, "." | "..");
    for byte in value.bytes() {
        match byte {
            b'.' if dots => place.push_str("=2E"),
            byte if byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte) => {
                place.push(char::from(byte));
            }
            byte => _ = write!(place, "={byte:02X}"),
        }
    }
}
