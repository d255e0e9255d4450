//! The message of a refusal, the only part that every client shows: it names the reason and the remedy.
//!
//! Owns the text. A model reads it and acts on it: each message names the rule or the limit, and says whether and when
//! the call may be repeated. A hidden object has the same message as one that does not exist.

use std::fmt::Write as _;
use std::time::Duration;

use super::{ApprovalState, Denial};
use crate::limit::Quota;
use crate::policy::{Cost, Sessions};
use crate::route::Misrouted;
use crate::time::UnixTime;

/// The object of a refused request, as far as its message can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requested<'a> {
    /// The tool of a call.
    Tool(&'a str),
    /// A method.
    Method(&'a str),
    /// A message that could not be read.
    #[default]
    Unread,
}

/// The reason for a limit's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitCause {
    /// A short window is used up; its size: `5 calls a second`.
    Window(Box<str>),
    /// A window of a day or more is used up: waiting a moment does not help.
    Budget {
        /// Its size: `100 credits in 30 days`.
        allowed: Box<str>,
        /// The time from which the same call would be admitted, to the second: RFC 3339, UTC.
        until: Box<str>,
    },
    /// The caller does not back off.
    CoolOff,
    /// Too many credentials from this address were refused.
    Throttle,
    /// Too many streams are open.
    Streams,
    /// Too many unfinished bodies of unverified callers.
    Unproven,
    /// Too many unfinished bodies of verified callers (`split` mode).
    Bodies,
}

/// Longer names are cut in messages.
const MOST_NAME_CHARS: usize = 128;

impl LimitCause {
    /// `quota` is used up; the same call would be admitted at `until`.
    #[must_use]
    pub fn window(quota: &Quota, until: UnixTime) -> Self {
        let (limit, unit) = (quota.window.limit, unit(quota));
        let plural = if limit == 1 { "" } else { "s" };
        let allowed = format!("{limit} {unit}{plural} {}", per(quota.length)).into();
        if quota.length < DAY {
            return Self::Window(allowed);
        }
        // Rounded up.
        let until = until.after(Duration::from_micros(999_999)).rfc3339();
        let second = until.get(..19).unwrap_or(&until);
        Self::Budget { allowed, until: format!("{second}Z").into() }
    }

    /// Its name for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Window(_) => "rate",
            Self::Budget { .. } => "budget",
            Self::CoolOff => "cool_off",
            Self::Throttle => "throttle",
            Self::Streams => "streams",
            Self::Unproven | Self::Bodies => "unfinished_requests",
        }
    }
}

/// From this length on, a window is a budget.
const DAY: Duration = Duration::from_secs(86_400);

fn unit(quota: &Quota) -> &'static str {
    match quota.cost {
        Cost::Calls if quota.name == Sessions::OPENED => "session",
        Cost::Calls => "call",
        Cost::Credits => "credit",
        Cost::Bytes => "byte",
    }
}

/// `a second`, `in 90 s`.
fn per(length: Duration) -> String {
    match (length.as_secs(), length.subsec_nanos()) {
        (1, 0) => "a second".to_owned(),
        (60, 0) => "a minute".to_owned(),
        (3_600, 0) => "an hour".to_owned(),
        (86_400, 0) => "a day".to_owned(),
        (seconds, 0) if seconds.checked_rem(86_400) == Some(0) => {
            format!("in {} days", seconds.div_euclid(86_400))
        }
        _ => format!("in {}", wait(length)),
    }
}

/// A time to wait, rounded up: `0.8 s`, `90 s`, `3 min`, `2 h`.
pub(super) fn wait(duration: Duration) -> String {
    let tenths = duration.as_millis().div_ceil(100);
    let seconds = duration.as_millis().div_ceil(1_000);
    let minutes = seconds.div_ceil(60);
    match seconds {
        ..10 if tenths.checked_rem(10) == Some(0) => format!("{seconds} s"),
        ..10 => {
            let (whole, tenth) = (tenths.div_euclid(10), tenths.rem_euclid(10));
            format!("{whole}.{tenth} s")
        }
        10..=120 => format!("{seconds} s"),
        121..=7_200 => format!("{minutes} min"),
        _ => format!("{} h", minutes.div_ceil(60)),
    }
}

impl Requested<'_> {
    /// The name with its kind: `tool `create_note``.
    fn described(self) -> String {
        let (kind, name) = match self {
            Self::Tool(name) => ("tool", name),
            Self::Method(name) => ("method", name),
            Self::Unread => return "this request".to_owned(),
        };
        let name: String = name.chars().take(MOST_NAME_CHARS).collect();
        format!("{kind} `{name}`")
    }
}

impl Denial {
    /// The client's message.
    #[must_use]
    pub fn client_message(&self, requested: Requested<'_>) -> String {
        match self {
            Self::Unauthenticated(failure) => failure.told().to_owned(),
            Self::ForeignOrigin => "This origin or host is not served".to_owned(),
            Self::UnknownPath => "There is no MCP endpoint at this path".to_owned(),
            Self::Misrouted(Misrouted::Host) => {
                "There is no MCP endpoint at this path of this host".to_owned()
            }
            Self::MethodNotAllowed => "Use POST, GET or DELETE".to_owned(),
            Self::Unsupported(unsupported) => unsupported.told().to_owned(),
            Self::Host(fault) => fault.told().to_owned(),
            Self::ContentType => {
                "The body must be application/json in UTF-8, without content coding".to_owned()
            }
            Self::BodyTooLarge(limit) => format!("The body is larger than {limit} bytes"),
            Self::Unreadable(error) => capitalised(&error.to_string()),
            Self::NotOneMessage(detail) | Self::HeaderMismatch(detail) | Self::BadMeta(detail) => {
                (*detail).to_owned()
            }
            Self::Query => "The URL's query has a parameter that this gateway does not let through; its operator can \
                            allow the name"
                .to_owned(),
            Self::UnsupportedVersion(_) => "Unsupported protocol version".to_owned(),
            Self::UnknownMethod(method) => format!("Method not found: {method}"),
            Self::UnknownTool(tool) => format!("Unknown tool: {tool}"),
            Self::UnknownSession => "Session not found".to_owned(),
            Self::UnknownTask(task) => format!("Unknown task: {task}"),
            Self::UnknownPrompt(prompt) => format!("Unknown prompt: {prompt}"),
            Self::UnknownResource(uri) => format!("Resource not found: {uri}"),
            Self::InvalidArguments(unfit) => unfit.text.clone(),
            Self::InsufficientScope(scopes) => {
                format!("This takes the scopes {}", scopes.needed.join(" "))
            }
            Self::Forbidden { rule } => format!(
                "Policy rule `{rule}` refuses {} for this caller. Do not repeat it: it will be refused again. Ask the \
                 operator of this gateway if you need it.",
                requested.described()
            ),
            Self::Condition { rule, message: None } => format!(
                "Policy rule `{rule}` refuses {} under the present conditions. Ask the operator of this gateway if you \
                 need it.",
                requested.described()
            ),
            Self::Condition { rule, message: Some(message) } => {
                format!("{message} (policy rule `{rule}`)")
            }
            Self::Arguments { rule, detail } => format!("{detail} (rule {rule})"),
            Self::CredentialMissing(missing) => missing.text(),
            Self::Approval { rule, id, state } => approval(rule, id, *state, requested),
            Self::Limited { limit, cause, retry_after } => limited(limit, cause, *retry_after),
            Self::UpstreamGone => {
                "The MCP server broke off before it answered: the call may have been made"
                    .to_owned()
            }
            Self::UpstreamTimedOut => {
                "The MCP server did not answer in time: the call may still be running".to_owned()
            }
            Self::UpstreamAnswer(fault) => fault.told().to_owned(),
            Self::NoSession(_) => {
                "No session can be opened right now: try again in a moment".to_owned()
            }
            Self::Unavailable(..)
            | Self::PolicyUnusable
            | Self::Misrouted(Misrouted::Cluster | Misrouted::Unguarded)
            | Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::Internal(_) => "The gateway cannot serve this call right now".to_owned(),
        }
    }
}

fn limited(limit: &str, cause: &LimitCause, retry_after: Duration) -> String {
    let mut text = match cause {
        LimitCause::Window(allowed) => format!("Rate limit `{limit}` reached: {allowed}."),
        LimitCause::Budget { allowed, until } => {
            let (date, time) = (until.get(..10), until.get(11..16));
            let (date, time) = (date.unwrap_or(until), time.unwrap_or_default());
            return format!(
                "The budget `{limit}` is used up until {date} {time} UTC: it allows {allowed}. Do not repeat the call \
                 before."
            );
        }
        LimitCause::CoolOff => format!(
            "This caller is paused by rule `{limit}`, because it repeated calls without waiting."
        ),
        LimitCause::Streams => {
            format!("Too many streams are open (rule `{limit}`).")
        }
        LimitCause::Unproven => format!(
            "Too many unfinished requests of callers that are not identified yet (`{limit}`). Send the body at once."
        ),
        LimitCause::Bodies => {
            format!("Too many unfinished requests (`{limit}`). Send the body at once.")
        }
        LimitCause::Throttle => {
            format!("Too many refused credentials from this address (rule `{limit}`).")
        }
    };
    let _ = write!(text, " Try again in {}.", wait(retry_after));
    text
}

fn approval(rule: &str, id: &str, state: ApprovalState, requested: Requested<'_>) -> String {
    let call = requested.described();
    match state {
        ApprovalState::Pending => format!(
            "Policy rule `{rule}` needs a person to approve this call of {call}. Approval `{id}` is pending: repeat the \
             call unchanged once it is granted."
        ),
        ApprovalState::Denied => format!(
            "A person denied this call of {call} (approval `{id}`, policy rule `{rule}`). Do not repeat it."
        ),
        ApprovalState::CallerFull => format!(
            "Policy rule `{rule}` needs a person to approve this call of {call}, and too many of your calls wait for one. \
             Wait until some are decided, then try again."
        ),
        ApprovalState::Full => format!(
            "Policy rule `{rule}` needs a person to approve this call of {call}, and too many calls wait for one. Try \
             again later."
        ),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
