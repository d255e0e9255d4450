//! The policy: connectors, roles, tiers, limits; compiled once, then only looked up.
//!
//! Owns the document's meaning. [`document`] owns its form, and every fault in it. Decides nothing
//! about a request: that is [`crate::authz`] and [`crate::limit`].

mod activation;
pub mod arguments;
pub mod condition;
mod document;
pub(crate) mod enforcement;
mod pins;
mod review;
mod rule;
#[cfg(test)]
mod tests;
mod upstream;
mod uri;
mod warning;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::auth::Writes;
use crate::connector_credential::ConnectorCredential;
pub use crate::decode::{Fault as PolicyError, Faults as PolicyErrors};
pub use crate::glob::Globs;
use crate::id::{KeyId, OrgId, PolicyName, PolicyVersion};
use crate::json;
use crate::json_path::JsonPath;
use crate::pin::Definition;
pub use activation::{Activation, Canary};
pub use enforcement::Enforcement;
pub use pins::{Pins, Unpinned, Unverified};
pub use rule::{Approval, CallRules, Cap, Check, Names, OnExcess, Requirement, RoleRules};
pub use upstream::{Guard, UpstreamBinding};
pub use uri::{Closed, Uris};
pub use warning::{Warning, WarningKind};

/// A compiled policy document.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The organisations it is for.
    pub organisations: BTreeSet<OrgId>,
    /// The MCP servers it opens. In boxes, as is what a role may: a map has room for eleven members as soon as it has one,
    /// and most policies have few.
    pub connectors: BTreeMap<PolicyName, Box<Connector>>,
    /// Their names by each path that reaches them.
    pub paths: HashMap<String, PolicyName>,
    /// What each role may see and call.
    pub roles: BTreeMap<PolicyName, Role>,
    /// Windows per key, by tier.
    pub tiers: BTreeMap<PolicyName, Vec<Limit>>,
    /// Further windows.
    pub limits: Vec<Limit>,
    /// What is done about callers that do not back off.
    pub cool_off: Option<CoolOff>,
    /// What bounds sessions.
    pub sessions: Sessions,
    /// What bounds streams.
    pub streams: Streams,
    /// What single keys have in the place of their tier's windows of the same name, and beside them.
    pub keys: BTreeMap<KeyId, Vec<Limit>>,
    /// Argument names that the audit log redacts besides the built-in ones.
    pub redact: Vec<String>,
    /// Whether all of it is in shadow mode.
    pub enforcement: Enforcement,
    /// Checks that are in shadow mode.
    pub shadow: BTreeSet<Check>,
    /// About how many bytes of memory it takes; zero where it does not matter.
    pub weight: usize,
}

/// One MCP server behind the gateway.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The exact request path that reaches it.
    pub path: String,
    /// Where clients of HTTP+SSE (2024-11-05) post to; `path` is then their stream.
    pub messages: Option<String>,
    /// How a client learns that a message posted there is refused.
    pub refusals: StreamRefusals,
    /// Where its requests may go.
    pub upstream: UpstreamBinding,
    /// What the upstream gets instead of the client's credential.
    pub credential: Option<Rc<ConnectorCredential>>,
    /// Request headers, in lower case, that go to it besides those that go to every one.
    pub request_headers: Vec<String>,
    /// Response headers, in lower case, that clients get from it besides those of every answer.
    pub response_headers: Vec<String>,
    /// Parameters of the query, by name, that requests may have besides a session of HTTP+SSE.
    pub query: Globs,
    /// Methods beyond MCP's own that are open on it.
    pub methods: Globs,
    /// What a call of a tool without a price of its own costs, in credits.
    pub price: u64,
    /// Scopes that a credential which knows scopes must have for anything on it.
    pub scopes: Vec<String>,
    /// What is stated about single tools.
    pub tools: BTreeMap<String, Tool>,
    /// What every call of its tools must meet.
    pub conditions: Vec<Requirement>,
    /// What becomes of tools that are not as they were pinned.
    pub pins: Pins,
    /// Whether a call of one of its tools may go on with another argument than it came with.
    pub amends: bool,
}

/// How clients of HTTP+SSE learn that a message is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamRefusals {
    /// On their stream, as an answer: a message without content goes upstream in the place of the refused one.
    #[default]
    Stream,
    /// By the status of the POST; the upstream sees nothing.
    Status,
}

/// What the policy states about one tool. Of a tool that it does not name nothing is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tool {
    /// Whether calling it changes nothing; by its pinned hint where the policy does not say.
    pub read_only: bool,
    /// What a call costs, in credits.
    pub price: Option<u64>,
    /// What each row of the answer costs besides, in credits.
    pub row_price: u64,
    /// Scopes that a credential which knows scopes must have to call it, besides the connector's.
    pub scopes: Vec<String>,
    /// What its calls must meet, whoever makes them.
    pub rules: CallRules,
    /// Where in its arguments the audit log redacts.
    pub redact: Vec<JsonPath>,
    /// The definition that was reviewed.
    pub pin: Option<Rc<Definition>>,
}

/// What one call costs, in credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Drawn with the admission.
    pub call: u64,
    /// Per row of the answer; drawn once they are counted.
    pub row: u64,
}

impl Tool {
    /// Whether the policy vouches that calling it changes nothing. What a server says now of itself does not count.
    #[must_use]
    pub fn reads_only(&self) -> bool {
        self.read_only
    }
}

impl Connector {
    /// What its paths look like, for messages to people.
    pub const PATH: &str = "a path of letters, digits, `-`, `.`, `_` and `~`, without host, query, `//`, `..` or a slash \
         at its end, and not below /portcullis or /.well-known, such as /demo/mcp";

    /// Whether `text` can be one of its paths. Only paths that Envoy's normalisation leaves alone can be compared with
    /// what it routes. The gateway itself answers below `/portcullis`, and describes its resources below `/.well-known`
    /// (RFC 8615, RFC 9728).
    #[must_use]
    pub fn is_path(text: &str) -> bool {
        let first = text.split('/').nth(1).unwrap_or_default();
        Self::is_plain_path(text) && !matches!(first, "portcullis" | ".well-known")
    }

    /// The same, for a server's own path.
    #[must_use]
    pub fn is_plain_path(text: &str) -> bool {
        text.len() > 1
            && text
                .strip_prefix('/')
                .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
    }

    /// Whether the policy vouches that calling `tool` changes nothing; of an unknown tool it does not.
    #[must_use]
    pub fn reads_only(&self, tool: &str) -> bool {
        self.tools.get(tool).is_some_and(Tool::reads_only)
    }

    /// Whether a refusal of a message posted to `path` goes to a stream.
    #[must_use]
    pub fn relays_refusals(&self, path: &str) -> bool {
        self.messages.as_deref() == Some(path) && self.refusals == StreamRefusals::Stream
    }

    /// Every path that reaches it.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.messages.as_deref())
    }
}

/// What one role may do, by connector. A connector that is not named is not there for it.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// Grants by connector.
    pub connectors: BTreeMap<PolicyName, Box<Access>>,
    /// Whether it may call tools that change something.
    pub writes: Writes,
    /// What every call must meet.
    pub conditions: Vec<Requirement>,
}

/// What of one connector is open to one role.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Tools that are visible and callable.
    pub allow: Globs,
    /// Tools that are visible, but refused when called.
    pub show: Globs,
    /// Tools that are not there, whatever else is said.
    pub deny: Globs,
    /// Prompts, by name.
    pub prompts: Names,
    /// Resources and templates, by URI.
    pub resources: Uris,
    /// Whether tools that change something may be called.
    pub writes: Writes,
    /// What every call must meet.
    pub conditions: Vec<Requirement>,
    /// What calls of single tools must meet besides; most roles have no such rules.
    pub tools: Option<Box<RoleRules>>,
    /// Whether what it does not open is in shadow mode.
    pub enforcement: Enforcement,
}

impl Access {
    /// What it adds to the rules of `tool`.
    pub fn rules(&self, tool: &str) -> impl Iterator<Item = &CallRules> {
        self.tools.iter().flat_map(move |rules| rules.about(tool))
    }
}

/// One sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name in refusals, headers and keys: `tiers.free.calls`, `limits.storm`.
    pub name: String,
    /// The most units in any interval of `window`.
    pub limit: u64,
    /// The interval.
    pub window: Duration,
    /// For how much longer than `window` a unit may count. Zero: the window is exact.
    pub precision: Duration,
    /// What its units are.
    pub cost: Cost,
    /// How many units a worker draws in advance, if it may.
    pub lease: Option<u64>,
    /// From how many units in use on it says that it nears its end.
    pub alert: Option<u64>,
    /// What partitions the count.
    pub per: Vec<Dimension>,
    /// Which calls it counts.
    pub only: LimitMatch,
}

/// What a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// One unit per call.
    Calls,
    /// The price of the tool.
    Credits,
    /// The bytes of the request's body.
    Bytes,
}

impl Cost {
    /// The name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Credits => "credits",
            Self::Bytes => "bytes",
        }
    }

    /// The units of the limit `name`. The window of sessions has no `cost` in policies, and counts sessions.
    #[must_use]
    pub fn units_of(self, name: &str) -> &'static str {
        if name == Sessions::OPENED { "sessions" } else { self.name() }
    }
}

/// What a window's count may be kept apart by. The organisation always is, unless it is global. In the order in which a
/// window's name has them: first what is known of the caller, then what is called ([`Dimension::is_of_target`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// One count over all organisations.
    Global,
    /// One count for the organisation.
    Org,
    /// A count per caller: an API key, the subject of a token, or a certificate.
    Key,
    /// A count per role.
    Role,
    /// A count per tier.
    Tier,
    /// A count per connector.
    Connector,
    /// A count per tool.
    Tool,
}

impl Dimension {
    /// Whether it belongs to what is called, so that one caller has several windows. All of them come after those of the
    /// caller, since [`Limit::prefix`] is the name of a caller's windows as far as it is known without a call.
    #[must_use]
    pub const fn is_of_target(self) -> bool {
        match self {
            Self::Global | Self::Org | Self::Key | Self::Role | Self::Tier => false,
            Self::Connector | Self::Tool => true,
        }
    }
}

/// When a caller that does not back off is sent to cool off, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoolOff {
    /// After this many refusals in a row that came before the time that the one before named.
    pub refusals: Option<u32>,
    /// After the same call more often than this `within` the time below.
    pub repeats: Option<u32>,
    /// The time in which repetitions are counted.
    pub within: Duration,
    /// How long the first time. Each further one is twice as long.
    pub first: Duration,
    /// At most this long; and so long a caller has to behave to start anew.
    pub longest: Duration,
}

/// What bounds sessions of the legacy era.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// How many one caller may open in which time.
    pub opened: Option<Limit>,
    /// How long an unused one is remembered.
    pub idle: Duration,
}

/// What bounds streams that stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// How many one caller may have open on one worker.
    pub per_caller: u32,
    /// How many all callers of an organisation may.
    pub per_organisation: u32,
    /// How often it is checked again whether the caller may still listen.
    pub recheck: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        let (limit, window) = (6_000, Duration::from_secs(3_600));
        let opened = Some(Self::opened(limit, window));
        Self { opened, idle: Duration::from_secs(86_400) }
    }
}

impl Sessions {
    /// The name of the window of [`Sessions::opened`].
    pub const OPENED: &str = "sessions.per_caller";

    /// The window that the sessions of each caller draw from.
    #[must_use]
    pub fn opened(limit: u64, window: Duration) -> Limit {
        Limit {
            name: Self::OPENED.to_owned(),
            limit,
            window,
            precision: Duration::ZERO,
            cost: Cost::Calls,
            lease: None,
            alert: None,
            per: vec![Dimension::Key],
            only: LimitMatch::default(),
        }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self { per_caller: 64, per_organisation: 1_000, recheck: Duration::from_secs(30) }
    }
}

/// Which calls a window counts; an absent list counts all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitMatch {
    /// Methods; calls of tools only, if it is absent.
    pub methods: Option<Globs>,
    /// Connectors.
    pub connectors: Option<Globs>,
    /// Tools.
    pub tools: Option<Globs>,
    /// Roles.
    pub roles: Option<Globs>,
}

impl Connector {
    /// What a call of `tool` costs. Where rows cost something the call does too: an empty budget
    /// stops only what is not free.
    #[must_use]
    pub fn price(&self, tool: &str) -> Price {
        let tool = self.tools.get(tool);
        let row = tool.map_or(0, |tool| tool.row_price);
        let call = tool.and_then(|tool| tool.price).unwrap_or(self.price);
        Price { call: call.max(row.min(1)), row }
    }
}

impl Policy {
    /// The connector with the path `path`, exactly.
    #[must_use]
    pub fn connector_at(&self, path: &str) -> Option<(&PolicyName, &Connector)> {
        let (name, connector) = self.connectors.get_key_value(self.paths.get(path)?)?;
        Some((name, connector))
    }

    /// Where in the arguments of `tool` the audit log redacts, for calls of it at `path`.
    #[must_use]
    pub fn secret_places_at(&self, path: &str, tool: &str) -> &[JsonPath] {
        let connector = self.paths.get(path);
        connector.map(|name| self.secret_places(name, tool)).unwrap_or_default()
    }

    /// The same, of a connector by its name.
    #[must_use]
    pub fn secret_places(&self, connector: &PolicyName, tool: &str) -> &[JsonPath] {
        let tool = self.connectors.get(connector).and_then(|connector| connector.tools.get(tool));
        tool.map(|tool| &*tool.redact).unwrap_or_default()
    }

    /// The roles there are, and the one that a role which the policy does not have is probably a slip of; `None` where it
    /// has it.
    #[must_use]
    pub fn role_hint(&self, role: &PolicyName) -> Option<String> {
        let known = || self.roles.keys().map(PolicyName::as_str).collect::<Vec<_>>();
        (!self.roles.contains_key(role))
            .then(|| crate::nearest::one_of("; its roles are ", role.as_str(), &known()))
    }

    /// Every limit there is.
    pub fn every_limit(&self) -> impl Iterator<Item = &Limit> {
        let of_keys = self.tiers.values().chain(self.keys.values()).flatten();
        of_keys.chain(&self.limits)
    }

    /// Whether a tool of `connector` is named without wildcards: what it is, who may call it, or what counts it.
    #[must_use]
    pub fn names_tool(&self, connector: &PolicyName, tool: &str) -> bool {
        let stated =
            self.connectors.get(connector).is_some_and(|stated| stated.tools.contains_key(tool));
        let granted = |role: &Role| {
            let access = role.connectors.get(connector);
            access.is_some_and(|access| access.allow.names(tool) || access.show.names(tool))
        };
        let counted =
            |limit: &Limit| limit.only.tools.as_ref().is_some_and(|tools| tools.names(tool));
        stated || self.roles.values().any(granted) || self.limits.iter().any(counted)
    }

    /// A limit that counts over all organisations.
    #[must_use]
    pub fn global_limit(&self) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.per.contains(&Dimension::Global))
    }

    /// Whether a rule of a check is enforced.
    #[must_use]
    pub fn enforcement(&self, check: Check, rule: Enforcement) -> Enforcement {
        if self.shadow.contains(&check) {
            return Enforcement::Shadow;
        }
        self.enforcement.and(rule)
    }

    /// What `role` may do on `connector`.
    #[must_use]
    pub fn access(&self, role: &PolicyName, connector: &PolicyName) -> Option<&Access> {
        self.roles.get(role)?.connectors.get(connector).map(Box::as_ref)
    }
}

/// Compiles a policy document.
///
/// # Errors
/// Every fault of the document, in its order.
pub fn compile(document: &Value) -> Result<Policy, PolicyErrors> {
    document::read(document)
}

/// The longest document, in bytes of its canonical form: well below what a worker holds of an unfinished reply of
/// Redis ([`crate::redis::resp::MAX_REPLY_BYTES`]).
pub const LONGEST: usize = 12 * 1_048_576;

/// Reads the document that is stored under `version`; `None` when it is not that one, or cannot be used.
///
/// What is stored is the canonical form, so its digest is that of its bytes. Pinned schemas are not looked
/// into before a call needs them: whoever pushed the document had them checked.
#[must_use]
pub fn load(stored: &[u8], version: &PolicyVersion) -> Option<Policy> {
    let policy = if version_of_canonical(stored).as_ref() == Some(version) {
        document::read_stored(stored)?
    } else {
        let document = json::parse_strict(stored).ok()?;
        (version_of(&document).as_ref() == Some(version)).then(|| compile(&document).ok())??
    };
    Some(Policy { weight: weight_of(stored), ..policy })
}

/// What a compiled policy takes for each byte of its document, on the safe side.
const WEIGHT_OF_BYTE: usize = 3;
/// What a policy takes however short its document is, in pointers and lengths: a map has room for eleven members as soon
/// as it has one. A test compares both figures with what is allocated, `cargo xtask organisations` with a worker's memory.
const LEAST_WEIGHT: usize = 1_280 * size_of::<usize>();

/// About how many bytes a policy takes in memory once it is compiled.
fn weight_of(stored: &[u8]) -> usize {
    stored.len().saturating_mul(WEIGHT_OF_BYTE).saturating_add(LEAST_WEIGHT)
}

/// The content address of a policy document.
#[must_use]
pub fn version_of(document: &Value) -> Option<PolicyVersion> {
    version_of_canonical(json::canonical_exact(document).as_bytes())
}

/// The same of a document that is in its canonical form, which takes longer to write than to hash.
#[must_use]
pub fn version_of_canonical(text: &[u8]) -> Option<PolicyVersion> {
    /// In one piece a large document would be hashed by code that the host has not optimised yet.
    const PIECE: usize = 16_384;
    let mut hasher = Sha256::new();
    text.chunks(PIECE).for_each(|piece| hasher.update(piece));
    let digest = hasher.finalize();
    base16ct::lower::encode_string(&digest).get(..16).and_then(PolicyVersion::new)
}
