//! Names that operators search for, and the pages that have to explain them.
//!
//! Owns where the code defines such names and which page lists them. Reads the code as text: an enum may be in any file
//! of a folder. A list that is shorter than ever before fails, so that a moved enum does not disable a check.

use crate::source::Source;
use portcullis_markdown::{prose, spans};
use std::collections::BTreeMap;

/// One family of names.
struct Family {
    what: &'static str,
    /// Each of these pages has to contain every name.
    pages: &'static [&'static str],
    /// With fewer names than this, the check has misread the code.
    least: usize,
    names: fn(&[Source]) -> Vec<String>,
}

const TROUBLESHOOTING: &str = "docs/troubleshooting.md";
const METRICS: &str = "docs/reference/metrics.md";
const KEYS: &str = "docs/reference/redis-keys.md";

const FAMILIES: &[Family] = &[
    Family { what: "metric", pages: &[METRICS, TROUBLESHOOTING], least: 20, names: metrics },
    Family {
        what: "event",
        pages: &["docs/reference/audit.md", TROUBLESHOOTING],
        least: 20,
        names: events,
    },
    Family { what: "rule", pages: &[TROUBLESHOOTING], least: 70, names: rules },
    Family {
        what: "error code",
        pages: &["docs/reference/errors.md", TROUBLESHOOTING],
        least: 10,
        names: codes,
    },
    Family { what: "field", pages: &["docs/reference/audit.md"], least: 34, names: fields },
    Family { what: "action", pages: &["docs/reference/audit.md"], least: 13, names: admin_actions },
];

/// Names of the code that no page explains, and metrics and Redis keys of pages that do not exist in the code.
pub(super) fn explained(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Family { what, pages, least, names } in FAMILIES {
        let names = names(sources);
        if names.len() < *least {
            complaints.push(format!(
                "xtask/src/tidy/names.rs:0: only {} names of kind {what} are found in the code, expected {least}",
                names.len()
            ));
        }
        for page in *pages {
            let text = page_text(sources, page);
            let missing = names.iter().filter(|name| !has_word(text, name));
            complaints.extend(missing.map(|name| format!("{page}:0: {what} `{name}` is missing")));
        }
    }
    complaints.extend(unknown_metrics(sources));
    complaints.extend(redis_keys(sources));
    complaints
}

/// Metrics of the table that the filter does not have.
fn unknown_metrics(sources: &[Source]) -> Vec<String> {
    let known = metrics(sources);
    let rows = page_text(sources, METRICS).lines().filter_map(|line| line.strip_prefix("| `"));
    let named = rows.filter_map(|row| row.split('`').next());
    named
        .filter(|name| name.starts_with("portcullis_") && !known.iter().any(|it| it == name))
        .map(|name| format!("{METRICS}:0: no metric `{name}` is in the code"))
        .collect()
}

/// Redis keys that are only in the code or only on the page.
fn redis_keys(sources: &[Source]) -> Vec<String> {
    let code = key_shapes(sources);
    let page: Vec<_> = prose(page_text(sources, KEYS))
        .flat_map(|(_, line)| spans(line))
        .filter(|it| it.starts_with("portcullis:") && it.len() > "portcullis:".len())
        .map(shape)
        .collect();
    let mut complaints = Vec::new();
    if code.len() < 15 {
        complaints
            .push("xtask/src/tidy/names.rs:0: the Redis keys of the code are not found".to_owned());
    }
    let missing = code.iter().filter(|key| !page.contains(key));
    complaints.extend(missing.map(|key| format!("{KEYS}:0: the key `{key}` is missing")));
    let unknown = page.iter().filter(|key| !code.contains(key));
    complaints.extend(unknown.map(|key| format!("{KEYS}:0: the code has no key `{key}`")));
    complaints
}

/// Arguments of `named(…)`, which makes the names of metrics.
fn metrics(sources: &[Source]) -> Vec<String> {
    let file = sources.iter().find(|it| in_filter(it) && it.text.contains("pub enum Metric {"));
    let calls = file.map(code_of).into_iter().flat_map(|text| text.split("named(").skip(1));
    let names = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    sorted(names.map(|name| format!("portcullis_{name}")))
}

/// The labels of each metric, as passed to `named(…)`.
pub(super) fn labels(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let file = sources.iter().find(|it| in_filter(it) && it.text.contains("pub enum Metric {"));
    let calls = file.map(code_of).into_iter().flat_map(|text| text.split("named(").skip(1));
    calls
        .filter_map(|rest| {
            let (name, rest) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            let list = rest.split(']').next()?;
            let labels = list.split("(\"").skip(1).filter_map(|it| it.split('"').next());
            Some((format!("portcullis_{name}"), labels.map(str::to_owned).collect()))
        })
        .collect()
}

/// Variants of `AuditEvent`, as the audit log spells them.
fn events(sources: &[Source]) -> Vec<String> {
    let block = sources.iter().filter(|it| in_filter(it)).find_map(|source| {
        let (_, rest) = source.text.split_once("pub enum AuditEvent {")?;
        Some(rest.split("\n}").next().unwrap_or(rest))
    });
    let variants = block.into_iter().flat_map(str::lines).filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
        name.starts_with(|c: char| c.is_ascii_uppercase()).then(|| snake(name))
    });
    sorted(variants)
}

/// Members of `Entry`, which is a line of the audit log.
fn fields(sources: &[Source]) -> Vec<String> {
    let files = sources.iter().filter(|it| it.path.starts_with("filter/core/src/audit"));
    let block = files.filter_map(|source| source.text.split_once("pub struct Entry {")).next();
    let lines =
        block.into_iter().flat_map(|(_, rest)| rest.split("\n}").next().unwrap_or(rest).lines());
    let names = lines.filter_map(|line| line.trim_start().strip_prefix("pub ")?.split(':').next());
    sorted(names.map(str::to_owned))
}

/// Names of refusals: literals in the form of a rule, and the codes at the end of one.
fn rules(sources: &[Source]) -> Vec<String> {
    const PREFIXES: [&str; 13] = [
        "auth",
        "credential",
        "cool_off",
        "host",
        "prompt",
        "proxy",
        "request",
        "resource",
        "session",
        "sessions",
        "streams",
        "task",
        "upstream",
    ];
    // Enums whose arms end a rule.
    const ENUMS: [(&str, &str); 4] = [
        ("pub enum AuthFailure {", "auth."),
        ("pub enum CertificateFailure {", "auth."),
        ("pub enum UpstreamFault {", "upstream."),
        ("pub enum Misrouted {", "upstream."),
    ];
    let mut names = vec!["policy.unusable".to_owned(), "tool.not_visible".to_owned()];
    let files = || sources.iter().filter(|it| in_filter(it) && !it.path.contains("/config/"));
    for literal in files().flat_map(|it| literals(code_of(it))) {
        let parts = literal.split_once('.');
        let is_rule = parts.is_some_and(|(prefix, rest)| {
            PREFIXES.contains(&prefix) && !rest.is_empty() && is_word(rest)
        });
        if is_rule {
            names.push(literal.to_owned());
        }
    }
    for (declaration, prefix) in ENUMS {
        for file in files().filter(|it| it.text.contains(declaration)) {
            let arms = code_of(file).split("=> \"").skip(1);
            let codes = arms.filter_map(|rest| rest.split('"').next()).filter(|it| is_word(it));
            names.extend(codes.map(|code| format!("{prefix}{code}")));
        }
    }
    for file in files().filter(|it| it.text.contains("pub enum CallFailure {")) {
        let ends = code_of(file).split("write_str(\"").skip(1);
        let words = ends.filter_map(|rest| rest.split('"').next()).filter(|it| is_word(it));
        names.extend(words.map(str::to_owned));
    }
    sorted(names.into_iter())
}

/// Codes of JSON-RPC errors.
fn codes(sources: &[Source]) -> Vec<String> {
    let files = sources.iter().filter(|it| in_filter(it) && it.path.contains("/denial"));
    let found =
        files.flat_map(|it| code_of(it).match_indices("-3").map(|(at, _)| (code_of(it), at)));
    let numbers = found.filter_map(|(text, at)| {
        let digits: String =
            text.get(at..)?.chars().take(7).filter(|c| c.is_ascii_digit() || *c == '-').collect();
        (digits.len() == 6).then_some(digits)
    });
    sorted(numbers)
}

/// The admin chain's names of changes.
fn admin_actions(sources: &[Source]) -> Vec<String> {
    let file = sources.iter().find(|it| it.path == "filter/core/src/audit/admin.rs");
    let words = file.into_iter().flat_map(|it| literals(code_of(it)));
    let actions = words
        .filter(|it| it.split_once('.').is_some_and(|(what, done)| is_word(what) && is_word(done)));
    sorted(actions.map(str::to_owned))
}

/// The keys that `redis-lua/src/keys.rs` makes, with `*` for each variable part.
fn key_shapes(sources: &[Source]) -> Vec<String> {
    let file = sources.iter().find(|it| it.path == "redis-lua/src/keys.rs");
    let text = file.map(code_of).unwrap_or_default();
    let whole = literals(text)
        .filter(|it| it.starts_with("portcullis:") && it.ends_with(char::is_alphabetic));
    let mut shapes: Vec<String> = whole.map(str::to_owned).collect();
    // Each constructor passes the prefix, the kind of key, and the variable parts.
    for (call, before) in [("of_org(org, ", "portcullis:{*}:"), ("of_all(", "portcullis:")] {
        for rest in text.split(call).skip(1) {
            // Windows and marks get their kind from the caller: see below.
            let kind = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
            let kind = kind.filter(|kind| *kind != "global");
            let parts = rest.split_once("&[").and_then(|(_, rest)| rest.split(']').next());
            let parts = parts.unwrap_or_default().split(',').filter(|it| !it.trim().is_empty());
            let parts = ":*".repeat(parts.count());
            // Pages are read without the braces of a constant tag.
            let kind = kind.map(|kind| kind.replace(['{', '}'], ""));
            shapes.extend(kind.map(|kind| format!("{before}{kind}{parts}")));
        }
    }
    for rest in text.split("partitioned(scope, \"").skip(1) {
        let kind = rest.split('"').next().unwrap_or_default();
        shapes.push(format!("portcullis:{{*}}:{kind}:*:*"));
        shapes.push(format!("portcullis:global:{kind}:*:*"));
    }
    sorted(shapes.into_iter())
}

/// A key's name with `*` for each variable part: `{}` in code, `<org>` in pages; the last part of a window may be
/// empty.
fn shape(name: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for (nth, part) in name.split(':').enumerate() {
        let part = part.trim_start_matches(['(', '{']).trim_end_matches([')', '}']);
        let varies = part.is_empty() || part.contains(['<', '{', '=']);
        // Keeps a hash tag.
        let tag = nth == 1 && name.split(':').nth(1).is_some_and(|it| it.contains(['{', '(']));
        let shown = match (tag, varies) {
            (true, _) => "{*}",
            (false, true) => "*",
            (false, false) => part,
        };
        if inside {
            out.push(':');
        }
        out.push_str(shown);
        inside = true;
    }
    out
}

fn in_filter(source: &Source) -> bool {
    source.path.starts_with("filter/")
        && source.path.contains("src/")
        && source.extension() == "rs"
        && !source.path.ends_with("tests.rs")
        && !source.path.contains("/tests/")
}

/// The code without the unit tests, which are at the end.
fn code_of(source: &Source) -> &str {
    source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

fn literals(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Whether `word` occurs in `text` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let before = text.get(..at).and_then(|it| it.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|it| it.chars().next());
        !before.is_some_and(|c| part(c) || c == '.') && !after.is_some_and(part)
    })
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn page_text<'a>(sources: &'a [Source], path: &str) -> &'a str {
    sources.iter().find(|it| it.path == path).map(|it| it.text.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn metrics_are_found_and_looked_for() {
        let code =
            "pub enum Metric {}\nX => named(\n  \"new_total\", &[]),\nnamed(\"old_total\", &[])";
        let sources = [
            source("filter/core/src/metric.rs", code),
            source(METRICS, "| `portcullis_old_total` | |\n| `portcullis_gone_total` | |\n"),
        ];
        assert_eq!(metrics(&sources), ["portcullis_new_total", "portcullis_old_total"]);
        let said = explained(&sources);
        let about = |text: &str| said.iter().any(|it| it.contains(text));
        assert!(about("metrics.md:0: metric `portcullis_new_total` is missing"), "{said:?}");
        assert!(!about("metrics.md:0: metric `portcullis_old_total`"), "{said:?}");
        assert!(about("no metric `portcullis_gone_total`"), "{said:?}");
        assert!(about("only 2 names of kind metric"), "{said:?}");
    }

    #[test]
    fn events_are_the_variants_in_the_logs_spelling() {
        let code = "pub enum AuditEvent {\n    /// X.\n    AuthFailed {\n        reason: u8,\n    },\n    Retried,\n}\n";
        let sources = [source("filter/core/src/audit/event.rs", code)];
        assert_eq!(events(&sources), ["auth_failed", "retried"]);
    }

    #[test]
    fn fields_are_the_members_of_an_entry() {
        let code = "pub struct Entry {\n    /// X.\n    pub request_id: String,\n}\npub struct B {\n    pub no: u8,\n}\n";
        assert_eq!(fields(&[source("filter/core/src/audit/entry.rs", code)]), ["request_id"]);
    }

    #[test]
    fn rules_are_literals_and_codes_of_enums_outside_of_tests() {
        let code = "pub enum AuthFailure {\n}\n Self::A => \"no_credential\", Self::B => \"A text\",\n\
                    \"request.json\" // \"request.not\"\n#[cfg(test)]\nmod tests { \"request.test\" }";
        let sources = [source("filter/core/src/auth/mod.rs", code)];
        let found = rules(&sources);
        assert!(found.contains(&"auth.no_credential".to_owned()), "{found:?}");
        assert!(found.contains(&"request.json".to_owned()), "{found:?}");
        assert!(!found.contains(&"request.test".to_owned()), "{found:?}");
    }

    #[test]
    fn codes_lose_their_underscore() {
        let sources = [source("filter/core/src/denial.rs", "=> -31_403, => -32_600, -3")];
        assert_eq!(codes(&sources), ["-31403", "-32600"]);
    }

    #[test]
    fn actions_are_found() {
        let code = "Self::A => \"key.issue\",\nlet x = \"a sentence.\";";
        let sources = [source("filter/core/src/audit/admin.rs", code)];
        assert_eq!(admin_actions(&sources), ["key.issue"]);
    }

    #[test]
    fn redis_keys_are_compared_both_ways() {
        let code = "Self::of_org(org, \"key\", &[id])\nSelf::partitioned(scope, \"window\", limit)\n\
                    Self::of_org(org, kind, &[limit])\nSelf::of_all(\"global\", &[kind, limit])\n\
                    Self(\"portcullis:organisations\".to_owned())";
        let page = "`portcullis:{<org>}:key:<id>` `portcullis:{<org>}:gone:<id>`";
        let sources = [source("redis-lua/src/keys.rs", code), source(KEYS, page)];
        let expected = [
            "portcullis:global:window:*:*",
            "portcullis:organisations",
            "portcullis:{*}:key:*",
            "portcullis:{*}:window:*:*",
        ];
        assert_eq!(key_shapes(&sources), expected);
        let said = redis_keys(&sources).join("\n");
        assert!(said.contains("key `portcullis:{*}:window:*:*` is missing"), "{said}");
        assert!(said.contains("the code has no key `portcullis:{*}:gone:*`"), "{said}");
        assert!(!said.contains(":key:"), "{said}");
    }

    #[test]
    fn a_word_stands_alone() {
        assert!(has_word("see `auth.denied`.", "auth.denied"));
        assert!(!has_word("auth.denied_index", "auth.denied"));
        assert!(!has_word("x.auth.denied", "auth.denied"));
    }
}
