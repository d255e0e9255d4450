//! Names in a connector's `query` with which no request passes.
//!
//! Owns the warnings. [`query`] knows how a query is read, and [`credential`] which names are credentials.

use serde_json::Value;

use super::{Warning, WarningKind, members};
use crate::auth::credential;
use crate::http::query;

pub(super) fn warn(document: &Value, warnings: &mut Vec<Warning>) {
    for (name, connector) in members(document, "connectors") {
        let list = connector.get("query").and_then(Value::as_array).into_iter().flatten();
        for (at, named) in list.enumerate() {
            let Some((named, fault)) = named.as_str().and_then(|it| Some((it, fault(it)?))) else {
                continue;
            };
            warnings.push(Warning {
                path: format!("connectors.{name}.query[{at}]"),
                kind: WarningKind::NeverMatches,
                found: format!("{named:?}, {}", fault.found),
                expected: fault.expected,
            });
        }
    }
}

/// Why no request passes with a parameter of that name.
struct Fault {
    found: String,
    expected: String,
}

fn fault(name: &str) -> Option<Fault> {
    let of = |found: &str, expected: &str| {
        Some(Fault { found: found.to_owned(), expected: expected.to_owned() })
    };
    if let Some(end) = name.chars().find(|letter| ['=', '&', ';'].contains(letter)) {
        return Some(Fault {
            found: format!("which no parameter matches, since a name ends before {end:?}"),
            expected: alone(name),
        });
    }
    if name.contains(|letter: char| letter == '#' || letter.is_ascii_control() || letter == ' ') {
        return of(
            "which no parameter matches: no query has blanks, control characters or `#`",
            "the name as it is in the URL, such as toolsets, or tool%20sets for one with a blank",
        );
    }
    // A pattern matches other names, too.
    if name.contains(['*', '?']) {
        return None;
    }
    if credential::is_name(name.as_bytes()) {
        return of(
            "which is the name of a credential: every request with it is 401",
            "another name; the gateway's own key is `query` of the connector's `credential`",
        );
    }
    if query::is_misnamed_session(name.as_bytes()) {
        return of(
            "which servers may read as a session: every request with it is 400",
            "sessionId or session_id, which pass without being named here",
        );
    }
    None
}

/// The names of a query that was written whole.
fn alone(query: &str) -> String {
    let pairs = query.trim_start_matches('?').split(['&', ';']);
    let names: Vec<&str> = pairs
        .filter_map(|pair| pair.split('=').next())
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    match names.as_slice() {
        [] => "names of parameters, such as toolsets".to_owned(),
        [name] => format!("the name alone: {name}"),
        names => format!("each name alone: [{}]", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::event::Head;
    use crate::glob::Globs;

    /// Whether a request with this query passes where `name` is on the list.
    fn passes(name: &str, query: &str) -> bool {
        let head = Head::for_tests("POST", &format!("/crm/mcp?{query}"), &[]);
        let mut named = Globs::default();
        named.insert(name);
        query::is_named(head.query(), &named)
            && !credential::is_in(head.query())
            && !query::pairs(head.query()).any(|pair| query::is_misnamed_session(pair.name))
    }

    // A warning is certain: the name as it stands, with a value, after another one and escaped.
    // Proves: B2
    #[test]
    fn a_name_has_a_warning_if_and_only_if_no_request_passes_with_it() {
        let queries = |name: &str| {
            let plain = name.replace(['*', '?'], "x");
            [plain.clone(), format!("{plain}=1"), format!("sessionId=1&{plain}=1")]
        };
        for name in [
            "toolsets=all",
            "?toolsets=all",
            "a&b",
            "a;b",
            "=",
            "x_*=1",
            "api_key",
            "API-Key",
            "access_token",
            "x-api-key",
            "apikey[]",
            "%61pi_key",
            "sessionid",
            "Session-Id",
            "sessionId[]",
        ] {
            assert!(fault(name).is_some(), "{name}");
            assert!(!queries(name).iter().any(|query| passes(name, query)), "{name}");
        }
        for name in
            ["toolsets", "x_*", "*", "api_ke?", "keys", "tool%20sets", "a[]", "tool+sets", "é"]
        {
            assert!(fault(name).is_none(), "{name}");
            assert!(queries(name).iter().all(|query| passes(name, query)), "{name}");
        }
        for name in ["tool sets", "toolsets ", "a#b", "a\tb"] {
            assert!(fault(name).is_some(), "{name}");
        }
        // It passes without being named.
        assert!(["sessionId", "session_id"].iter().all(|name| fault(name).is_none()));
    }

    #[test]
    fn a_query_that_was_written_whole_has_its_names() {
        for (query, names) in [
            ("toolsets=all", "the name alone: toolsets"),
            ("?toolsets=all&read_only=1;x", "each name alone: [toolsets, read_only, x]"),
            ("=&;", "names of parameters, such as toolsets"),
        ] {
            assert_eq!(alone(query), names, "{query}");
        }
    }
}
