//! Calls from outside: a gateway's responses to unauthenticated clients.
//!
//! Owns the requests and which responses are refusals. Needs no access to Envoy, so it sees what clients see, through
//! any proxy. Asks for lists only, and names no caller.

use std::time::Duration;

use portcullis_core::guard;
use serde_json::json;
use ureq::http::uri::Authority;

use super::Finding;
use crate::http;

const BOUND: Duration = Duration::from_secs(10);

/// The kind of client in a call.
#[derive(Clone, Copy)]
enum Stranger {
    /// Without a credential.
    Anonymous,
    /// Without a credential, and with a forged guard.
    Forger,
}

impl Stranger {
    const ALL: [Self; 2] = [Self::Anonymous, Self::Forger];

    const fn described(self) -> &'static str {
        match self {
            Self::Anonymous => "without a credential",
            Self::Forger => "with a forged guard",
        }
    }
}

/// Calls `url`, the whole URL of an MCP endpoint, as each kind of client; at `address`, if there is one.
pub(super) fn look(url: &str, address: Option<&Authority>) -> Vec<Finding> {
    let agent = match address {
        Some(address) => http::agent_at(BOUND, address.clone()),
        None => http::agent(BOUND),
    };
    Stranger::ALL.iter().map(|stranger| finding(&agent, url, *stranger)).collect()
}

fn finding(agent: &ureq::Agent, url: &str, stranger: Stranger) -> Finding {
    let check = format!("probe {url}");
    let what = stranger.described();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let request = agent
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    let request = match stranger {
        Stranger::Anonymous => request,
        Stranger::Forger => request.header(guard::HEADER, "0123456789abcdef"),
    };
    let answer = match request.send(&body) {
        Ok(answer) => answer,
        Err(error) => return Finding::unknown(&check, format!("{what}: {error}"), "check --probe"),
    };
    let status = answer.status().as_u16();
    // Every response of the filter has it.
    let is_ours = answer.headers().contains_key("x-portcullis-request-id");
    verdict(&check, what, status, is_ours)
}

fn verdict(check: &str, what: &str, status: u16, is_ours: bool) -> Finding {
    let found = format!("{what}: {status}");
    match (status, is_ours) {
        (401, true) => Finding::good(check, found),
        (400..=499, true) => Finding::warning(
            check,
            found,
            "it is refused for another reason than its credential: check the URL",
        ),
        (503, _) => {
            let found = format!("{found}: it is refused, and Portcullis does not judge calls here");
            Finding::warning(check, found, "see that the filter is loaded: doctor --envoy-admin")
        }
        (401 | 403, false) => {
            let found = format!("{found}, not from Portcullis");
            Finding::warning(
                check,
                found,
                "see what refuses it: the filter does not run on this listener or host",
            )
        }
        (404, false) => Finding::bad(
            check,
            format!("{found}: no such route, every call gets this"),
            "check the path and the host, or add a guarded route; see docs/guides/guarded-routes.md",
        ),
        _ => {
            let found = format!("{found}: a server answered a call that Portcullis did not judge");
            Finding::bad(check, found, "guard the route; see docs/guides/guarded-routes.md")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn where_a_judge_is_required_anything_but_its_refusal_is_bad() {
        let state = |status, is_ours| {
            verdict("probe", "without a credential", status, is_ours).good_or_bad().state
        };
        assert_eq!(state(401, true), State::Good);
        for (status, is_ours) in [(503, false), (401, false), (404, false), (200, true)] {
            assert_eq!(state(status, is_ours), State::Bad, "{status}");
        }
        assert_eq!(Finding::unknown("probe", "no answer", "").good_or_bad().state, State::Bad);
    }

    // Finding 11.8.
    // Proves: X16, X29
    #[test]
    fn only_a_refusal_of_ours_is_good() {
        let state =
            |status, is_ours| verdict("probe", "without a credential", status, is_ours).state;
        assert_eq!(state(401, true), State::Good);
        for (status, is_ours) in
            [(503, true), (503, false), (401, false), (403, false), (429, true)]
        {
            assert_eq!(state(status, is_ours), State::Warning, "{status}");
        }
        for (status, is_ours) in [
            (200, true),
            (200, false),
            (202, false),
            (400, false),
            (406, false),
            (404, false),
            (500, false),
            (302, false),
        ] {
            assert_eq!(state(status, is_ours), State::Bad, "{status}");
        }
    }
}
