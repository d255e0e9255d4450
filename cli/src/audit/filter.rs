//! Which entries are meant by the options of `search`, `tail`, `export` and `report`.
//!
//! Owns what each option is compared with.

use jiff::Timestamp;
use portcullis_core::id::OrgId;
use wildmatch::WildMatch;

use super::entry::Entry;
use crate::args::{FilterArgs, Session};
use crate::report::CliError;
use crate::session::beyond;
use crate::time::{Seconds, Time};

pub(super) struct Filter {
    /// The only organisation of an operator who is limited to one.
    only: Option<OrgId>,
    org: Patterns,
    key: Patterns,
    secret: Patterns,
    request: Patterns,
    client: Patterns,
    agent: Patterns,
    tool: Patterns,
    resource: Patterns,
    method: Patterns,
    status: Patterns,
    rule: Patterns,
    event: Patterns,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    texts: Vec<Needle>,
}

impl Filter {
    /// Refuses an `--org` that leaves nothing of the organisation of `--organisation`.
    pub(super) fn of(session: &Session, args: &FilterArgs, now: Seconds) -> Result<Self, CliError> {
        let filter = Self { only: session.organisation.clone(), ..Self::new(args, now) };
        match &filter.only {
            Some(only) if !filter.org.any([only.as_str()]) => {
                let what = format!("--org names {}", args.org.join(", "));
                Err(beyond(only, &what, "the command line")
                    .next("leave --org out; or --organisation and PORTCULLIS_ORG"))
            }
            _ => Ok(filter),
        }
    }

    fn new(args: &FilterArgs, now: Seconds) -> Self {
        let time = |time: Option<Time>| {
            let seconds = i64::try_from(time?.ago(now).0).ok()?;
            Timestamp::from_second(seconds).ok()
        };
        Self {
            only: None,
            org: Patterns::new(&args.org),
            key: Patterns::new(&args.key),
            secret: Patterns::new(&args.secret),
            request: Patterns::new(&args.request),
            client: Patterns::new(&args.client),
            agent: Patterns::new(&args.agent),
            tool: Patterns::new(&args.tool),
            resource: Patterns::new(&args.resource),
            method: Patterns::new(&args.method),
            status: Patterns::new(&args.status),
            rule: Patterns::new(&args.rule),
            event: Patterns::new(&args.event),
            since: time(args.since),
            until: time(args.until),
            texts: args.text.iter().map(|text| Needle::new(text)).collect(),
        }
    }

    /// Whether an entry is meant; `line` is what it was read from.
    pub(super) fn matches(&self, entry: &Entry<'_>, line: &str) -> bool {
        let events = || entry.notable_events();
        let resources = || entry.resource_uris.iter().map(|uri| &**uri);
        self.only.as_ref().is_none_or(|only| only.as_str() == &*entry.org_id)
            && self.org.any([&*entry.org_id])
            && self.status.any([&*entry.status])
            && self.key.any([&*entry.api_key_id])
            && self.secret.any([&*entry.secret])
            && self.request.any([&*entry.request_id])
            && self.client.any([&*entry.client_id, &*entry.principal])
            && self.agent.any([&*entry.agent_id])
            && self.tool.any([&*entry.tool_name])
            && self.resource.any([&*entry.resource_uri].into_iter().chain(resources()))
            && self.method.any([&*entry.mcp_method, &*entry.action])
            && self.rule.any([&*entry.decision.rule])
            && self.is_in_time(entry)
            && self.texts.iter().all(|text| text.is_in(line.as_bytes()))
            && (self.event.is_empty() || self.has_event(entry, &events()))
    }

    /// The start of the time that is meant.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    fn has_event(&self, entry: &Entry<'_>, notable: &[String]) -> bool {
        let authenticated = entry.events.is_some_and(|all| all.get().contains("\"auth_success\""));
        let names = notable.iter().map(String::as_str);
        self.event.any(names.chain(authenticated.then_some("auth_success")))
    }

    fn is_in_time(&self, entry: &Entry<'_>) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        entry.time().is_some_and(|time| {
            self.since.is_none_or(|since| time >= since)
                && self.until.is_none_or(|until| time < until)
        })
    }
}

/// Any of which has to match; none means everything.
struct Patterns(Vec<WildMatch>);

impl Patterns {
    fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| WildMatch::new(pattern)).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn any<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> bool {
        self.is_empty()
            || values
                .into_iter()
                .any(|value| !value.is_empty() && self.0.iter().any(|it| it.matches(value)))
    }
}

/// A text as a line of JSON has it, found in any case of its ASCII letters.
struct Needle {
    text: Vec<u8>,
    first: [u8; 2],
}

impl Needle {
    fn new(text: &str) -> Self {
        let quoted = serde_json::Value::from(text).to_string();
        let text = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        let first = text.as_bytes().first().copied().unwrap_or_default();
        let first = [first.to_ascii_lowercase(), first.to_ascii_uppercase()];
        Self { text: text.as_bytes().to_vec(), first }
    }

    fn is_in(&self, line: &[u8]) -> bool {
        let [lower, upper] = self.first;
        self.text.is_empty()
            || memchr::memchr2_iter(lower, upper, line).any(|at| {
                let found = line.get(at..at.saturating_add(self.text.len()));
                found.is_some_and(|found| found.eq_ignore_ascii_case(&self.text))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"agent_id":"bot-7","api_key_id":"k1","secret":"b6f6a1b2c3d4","chain":"c","decision":{"effect":"deny","rule":"tool.blocked"},"events":[{"client_id":"k1","event":"auth_success"},{"client_id":"k1","event":"tool_access_denied","tool":"Pay"}],"input":{"note":"Grüße an \"Bob\""},"mcp_method":"tools/call","org_id":"acme","principal":"cursor","request_id":"639da463-54a7","resource_uris":["a:b","c:d"],"seq":1,"status":"denied","timestamp":"2026-11-28T10:00:00.500000Z","tool_name":"Pay"}"#;

    fn matches(change: impl FnOnce(&mut FilterArgs)) -> bool {
        let mut args = FilterArgs::default();
        change(&mut args);
        let (entry, line) = Entry::read(LINE.as_bytes()).unwrap();
        // 2026-11-28T12:00:00Z
        Filter::new(&args, Seconds(1_795_867_200)).matches(&entry, line)
    }

    // Proves: A20
    #[test]
    fn each_option_is_compared_with_its_member() {
        let some = |text: &str| vec![text.to_owned()];
        assert!(matches(|_| {}));
        assert!(matches(|args| args.org = some("ac*")) && !matches(|args| args.org = some("ac")));
        assert!(matches(|args| args.key = vec!["x".into(), "k?".into()]));
        assert!(matches(|args| args.secret = some("b6f6*")));
        assert!(!matches(|args| args.secret = some("a0*")));
        assert!(matches(|args| args.request = some("639da463*")));
        assert!(!matches(|args| args.request = some("639da464*")));
        assert!(matches(|args| args.client = some("cursor")));
        assert!(matches(|args| args.agent = some("bot-*")));
        assert!(!matches(|args| args.agent = some("cursor")));
        assert!(
            matches(|args| args.tool = some("Pay")) && !matches(|args| args.tool = some("pay"))
        );
        assert!(matches(|args| args.resource = some("c:*")));
        assert!(matches(|args| args.method = some("tools/*")));
        assert!(matches(|args| args.status = some("denied")));
        assert!(matches(|args| args.rule = some("tool.*")));
        assert!(matches(|args| args.event = some("tool_access_denied")));
        assert!(matches(|args| args.event = some("auth_success")));
        assert!(!matches(|args| args.event = some("auth_failed")));
        assert!(!matches(|args| (args.org, args.tool) = (some("acme"), some("x"))));
        // What an entry does not have matches no pattern.
        assert!(
            !matches(|args| args.resource = some("x*")) && !matches(|args| args.client = some(""))
        );
    }

    // Proves: A20
    #[test]
    fn times_are_durations_before_now_or_absolute() {
        let since = |text: &str| matches(|args| args.since = text.parse().ok());
        let until = |text: &str| matches(|args| args.until = text.parse().ok());
        assert!(since("2h") && !since("1h") && since("2026-11-28T10:00:00Z"));
        assert!(since("2026-11-28T11:00:00+01:00") && !since("2026-11-28T10:00:01Z"));
        assert!(until("1h") && !until("2h") && !until("2026-11-28T10:00:00Z"));
    }

    #[test]
    fn free_text_is_found_in_any_case_and_with_its_quotes() {
        let text = |text: &str| matches(|args| args.text = vec![text.to_owned()]);
        assert!(text("BOB") && text("\"bob\"") && text("Grüße") && text("tool_access") && text(""));
        assert!(!text("alice"));
        assert!(!matches(|args| args.text = vec!["bob".into(), "alice".into()]));
    }
}
