//! Resource URIs against the rules of a role.
//!
//! Owns the meaning of a URI. The literal text is one reading, the result of a WHATWG URL parser is another (JavaScript
//! and pydantic use one), and a server may decode it and open a file. When the readings name different resources, no
//! rule can be right, so the URI is refused. Opens nothing.

use url::Url;

use super::{Globs, Names};

/// Rules about resource URIs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Uris {
    /// As written.
    pub names: Names,
    /// `names.allow`, decoded.
    decoded_allow: Globs,
    /// `names.deny`, decoded and in lower case.
    folded_deny: Globs,
    /// Whether the rules restrict URIs at all.
    decides: bool,
}

/// The reason why a URI is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
    /// It has no single meaning, for this reason.
    Ambiguous(&'static str),
}

impl From<Names> for Uris {
    fn from(names: Names) -> Self {
        let each = |globs: &Globs, spelled: fn(&str) -> String| {
            let mut others = Globs::default();
            let all = globs.exact().into_iter().map(str::to_owned).chain(globs.patterns());
            all.for_each(|glob| others.insert(&spelled(&glob)));
            others
        };
        let decoded_allow = each(&names.allow, |glob| decoded(glob).text);
        let folded_deny = each(&names.deny, |glob| decoded(glob).text.to_lowercase());
        let everything = names.allow.patterns().iter().any(|pattern| pattern == "*");
        let decides = !everything || !names.deny.is_empty();
        Self { names, decoded_allow, folded_deny, decides }
    }
}

impl Uris {
    /// Checks whether `uri` is allowed.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn judge(&self, uri: &str) -> Result<(), Closed> {
        if uri.contains(char::is_control) {
            return Err(Closed::Ambiguous("the URI has a control character"));
        }
        let Decoded { text: decoded, plain, utf8 } = decoded(uri);
        if !plain {
            return Err(Closed::Ambiguous("the URI has escapes of escapes of escapes"));
        }
        if decoded.split(['/', '\\', '?', '#']).any(climbs) {
            return Err(Closed::Ambiguous("the URI climbs with `..`"));
        }
        if !self.decides {
            return Ok(());
        }
        if self.is_denied(uri, &decoded) {
            return Err(Closed::Denied);
        }
        if !utf8 {
            // `%C0%AE` is a dot to a lenient decoder.
            return Err(Closed::Ambiguous("the URI's escapes are not UTF-8"));
        }
        if let Some(why) = ambiguity(uri, &decoded) {
            return Err(Closed::Ambiguous(why));
        }
        match self.names.allow.matches(uri) && self.decoded_allow.matches(&decoded) {
            true => Ok(()),
            false => Err(Closed::NotAllowed),
        }
    }

    /// Whether `uri` is allowed.
    #[must_use]
    pub fn opens(&self, uri: &str) -> bool {
        self.judge(uri).is_ok()
    }

    /// Whether any reading is denied: file systems and hosts ignore case, and a server may drop parts that do not
    /// identify a resource.
    fn is_denied(&self, uri: &str, decoded: &str) -> bool {
        let deny = &self.names.deny;
        if deny.is_empty() {
            return false;
        }
        let denied = |reading: &str| {
            let folded = reading.to_lowercase();
            self.folded_deny.matches(&folded)
                || [Port::Kept, Port::Dropped].into_iter().any(|port| {
                    let reduced = reduced(&folded, port);
                    let named = reduced.split(['?', '#']).next().unwrap_or_default();
                    [&reduced, named, named.trim_end_matches('/')]
                        .into_iter()
                        .any(|reading| self.folded_deny.matches(reading))
                })
        };
        // The parts for a URL parser, without user information: that parser does not treat a backslash there as a
        // slash.
        let named = || {
            let Read::Url(url) = as_url(uri) else { return None };
            let slashes = if url.cannot_be_a_base() { "" } else { "//" };
            let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
            let path = if url.path().is_empty() { "/" } else { url.path() };
            Some(self::decoded(&format!("{scheme}:{slashes}{host}{path}")).text)
        };
        deny.matches(uri) || denied(decoded) || named().is_some_and(|named| denied(&named))
    }
}

/// The reason why `uri` has no single meaning, if any.
fn ambiguity(uri: &str, decoded: &str) -> Option<&'static str> {
    if decoded.contains(char::is_control) {
        return Some("the URI has an escaped control character");
    }
    match as_url(uri) {
        Read::Url(url) => {
            let (mut literal, read) = (unescaped(uri), unescaped(url.as_str()));
            let mut differs = literal != read;
            if differs && url.path() == "/" {
                // The only change without effect: an empty path is written as `/`.
                literal.push(b'/');
                differs = literal != read;
            }
            differs.then_some(OTHERWISE)
        }
        Read::Text => None,
        Read::Otherwise => Some(OTHERWISE),
    }
}

const OTHERWISE: &str = "a URL reader makes another URI of it, or none";

/// The result of a URL parser for a text.
enum Read {
    Url(Box<Url>),
    /// The text is no URL: it is the only reading.
    Text,
    /// The parser reads another URI.
    Otherwise,
}

/// Parses `uri`, which has no control characters. A host of a special scheme that the standard would convert
/// (upper-case letters or letters beyond ASCII, escapes, Punycode) is refused without parsing.
fn as_url(uri: &str) -> Read {
    if uri.starts_with(' ') || uri.ends_with(' ') {
        return Read::Otherwise;
    }
    let (scheme, rest) = uri.split_once(':').unwrap_or_default();
    let special = SPECIAL.iter().any(|special| special.eq_ignore_ascii_case(scheme));
    if special {
        let host = match (scheme, rest.split_at_checked(2)) {
            ("file", Some(("//", rest))) => rest,
            ("file", _) => "",
            (_, Some(("//", rest))) => rest,
            _ => return Read::Otherwise,
        };
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && byte != b'%';
        if rest.contains('\\') || !host.bytes().all(is_plain) || host.contains("xn--") {
            return Read::Otherwise;
        }
    }
    match Url::parse(uri) {
        Ok(url) => Read::Url(Box::new(url)),
        Err(_) if special => Read::Otherwise,
        Err(_) => Read::Text,
    }
}

/// Schemes with rules of their own in the URL standard, in any case: it writes them in lower case.
const SPECIAL: [&str; 6] = ["file", "http", "https", "ws", "wss", "ftp"];

/// `uri` without its escapes, decoded once.
fn unescaped(uri: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(uri.len()), uri.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let byte;
        (byte, rest) = match (*first, behind) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => ((high << 4) | low, after),
                _ => (b'%', behind),
            },
            (byte, behind) => (byte, behind),
        };
        bytes.push(byte);
    }
    bytes
}

fn digit(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// A URI without its escapes.
struct Decoded {
    text: String,
    /// Whether no escape is left.
    plain: bool,
    /// Whether the escapes were UTF-8.
    utf8: bool,
}

/// The most passes of [`decoded`]. One is enough for all that an encoder makes, also several times.
const MOST_PASSES: usize = 8;

/// `uri` decoded until no escape is left: a server may decode it any number of times.
fn decoded(uri: &str) -> Decoded {
    let mut bytes = uri.as_bytes().to_vec();
    let mut plain = false;
    for _ in 0..MOST_PASSES {
        let Some(next) = decoded_once(&bytes) else {
            plain = true;
            break;
        };
        bytes = next;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Decoded { text, plain, utf8: true },
        Err(invalid) => {
            let text = String::from_utf8_lossy(invalid.as_bytes()).into_owned();
            Decoded { text, plain, utf8: false }
        }
    }
}

/// `bytes` with each escape replaced by its byte, and each escaped percent sign of an escape by that escape's byte;
/// `None` without any escape.
fn decoded_once(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, mut rest, mut changed) = (Vec::with_capacity(bytes.len()), bytes, false);
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, escaped) = rest.split_at_checked(at)?;
        plain.extend_from_slice(before);
        // `%2525 2e` is `2e` after a percent sign that is not escaped any more.
        let mut code = escaped.get(1..).unwrap_or_default();
        while let Some(shorter) = code.strip_prefix(b"25") {
            (code, changed) = (shorter, true);
        }
        match code {
            [high, low, behind @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                plain.extend(digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4) | low));
                (rest, changed) = (behind, true);
            }
            _ => {
                plain.push(b'%');
                rest = code;
            }
        }
    }
    plain.extend_from_slice(rest);
    changed.then_some(plain)
}

/// Whether a server may read a segment as `..`: some drop parameters after a semicolon, or spaces at the end.
fn climbs(segment: &str) -> bool {
    segment.split(';').next().unwrap_or_default().trim_end_matches(' ') == ".."
}

#[derive(Clone, Copy)]
enum Port {
    Kept,
    Dropped,
}

/// A decoded URI without parts that do not identify a resource for every server: user information, a port, a redundant
/// slash or `.`, backslashes.
fn reduced(uri: &str, port: Port) -> String {
    let uri = uri.replace('\\', "/");
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", &uri));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
            (Some(host(authority, port)), path)
        }
        None => (None, rest),
    };
    let mut reduced = scheme.to_owned();
    if rest.len() < uri.len() {
        reduced.push(':');
    }
    reduced.extend(authority.into_iter().flat_map(|host| ["//", host]));
    // A slash at either end stays; repeated slashes, and segments that are only `.`, have no meaning.
    let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "."));
    let inner = segments.collect::<Vec<_>>().join("/");
    reduced.push_str(if path.starts_with('/') { "/" } else { "" });
    reduced.push_str(&inner);
    reduced.push_str(if path.ends_with('/') && !inner.is_empty() { "/" } else { "" });
    reduced
}

fn host(authority: &str, port: Port) -> &str {
    let host = authority.rsplit('@').next().unwrap_or_default();
    match (port, host.rsplit_once(':')) {
        (Port::Dropped, Some((host, port))) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Uris {
        let mut names = Names::default();
        allow.iter().for_each(|glob| names.allow.insert(glob));
        deny.iter().for_each(|glob| names.deny.insert(glob));
        names.into()
    }

    // Finding 4.1: the official TypeScript server reads /srv/secret/plan.
    // Proves: C3
    #[test]
    fn what_a_url_parser_reads_otherwise_is_not_inside_an_allowed_folder() {
        let rules = rules(&["file:///srv/public/*"], &[]);
        for uri in [
            "file:///srv/public/.\t./secret/plan",
            "file:///srv/public/.\n./secret/plan",
            "file:///srv/public/.\r./secret/plan",
            "file:///srv/public/%2e\t%2e/secret/plan",
            "file:///srv/public/%2e%2e/secret/plan",
            "file:///srv/public/%25%32%65%25%32%65/secret/plan",
            "file:///srv/public/%%32%65%%32%65/secret/plan",
            "file:///srv/public/..;/secret/plan",
            "file:///srv/public/..;a=b/secret/plan",
            "file:///srv/public/..%20/secret/plan",
            "file:///srv/public/%c0%ae%c0%ae/secret/plan",
            "file:///srv/public/..\\secret",
            "file:///srv/public/a\0b",
            "file:///srv/public/a%00b",
            "file:///srv/public/a%2500b",
            "file:///srv/public/./a",
            "file:///srv/public/a\\b",
            "file:///srv/public/a ",
        ] {
            assert!(matches!(rules.judge(uri), Err(Closed::Ambiguous(_))), "{uri:?}");
        }
        for uri in [
            " file:///srv/public/a",
            "FILE:///srv/public/a",
            "file:/srv/public/a",
            "file:///srv/publi%63",
            "note://x",
        ] {
            assert!(rules.judge(uri).is_err(), "{uri:?}");
        }
        for uri in [
            "file:///srv/public/plan",
            "file:///srv/public/a b/über.txt",
            "file:///srv/public/a%20b/%C3%BCber.txt",
            "file:///srv/public/a%2Fb?x=1#y",
            "file:///srv/public/{id}",
            "file:///srv/public/...",
        ] {
            assert_eq!(rules.judge(uri), Ok(()), "{uri:?}");
        }
    }

    // Finding 4.1.
    // Proves: C3
    #[test]
    fn what_is_denied_is_denied_under_every_spelling() {
        let rules = rules(&["*"], &["file:///srv/secret/*", "note://secret/*", "note://one/plan"]);
        for uri in [
            "file:///srv/secret/plan",
            "file:///srv/s\tecret/plan",
            " file:///srv/secret/plan",
            "file:/srv/secret/plan",
            "file:srv/secret/plan",
            "file://localhost/srv/secret/plan",
            "file:\\\\\\srv\\secret\\plan",
            "FILE:///srv/secret/plan",
            "file:///SRV/Secret/plan",
            "file:////srv//secret/plan",
            "file:///srv/./secret/plan",
            "file:///srv/%2573e%63ret%2Fplan",
            "file:///srv/%25%37%33ecret/plan",
            "file:///srv/%%37%33ecret/plan",
            "file:///srv/%25%32%35%25%33%37%25%33%33ecret/plan",
            "file:///srv/secret%00/plan",
            "note://me@secret/a",
            "note://me:pw@secret:80/a",
            "note://secret:/a",
            "note://Secret/a",
            "NOTE://secret/a",
            "note://%73ecret/a",
            "note://me\\:pw@secret:80/a",
            "note://one/plan?x",
            "note://one/plan#x",
            "note://one/plan/",
            "note://secret?x",
            "note://secret",
            "file:///srv//secret/plan",
            "file:///srv/%5csecret/plan",
        ] {
            assert!(rules.judge(uri).is_err(), "{uri:?}");
        }
        for uri in [
            "file:///srv/secrets",
            "note://one/plans",
            "note://public/a",
            "memo://insights",
            "plain",
        ] {
            assert_eq!(rules.judge(uri), Ok(()), "{uri:?}");
        }
    }

    // Proves: C3
    #[test]
    fn uris_of_ordinary_servers_mean_what_they_say() {
        for uri in [
            "demo://resource/static/document/a.md",
            "demo://resource/dynamic/text/1",
            "memo://insights",
            "postgres://user@db.example:5432/table/schema",
            "ui://widget/a.html",
            "ui://widget/{id}",
            "slack://C0123456/messages",
            "note:///a",
            "urn:isbn:0451450523",
            "repo://owner/name/contents/src%2Fmain.rs",
            "https://example.com",
            "https://example.com/a/b?q=ü&x=%20",
            "config.json",
            "file:///C:/x y.txt",
            "a://b:c/d",
            "mailto:a@b.example",
        ] {
            assert_eq!(rules(&[uri], &["other:*"]).judge(uri), Ok(()), "{uri:?}");
        }
        // Without a rule only ambiguity is checked.
        let open = rules(&["*"], &[]);
        for uri in ["FILE:/x", "file:///a/./b", "a b", " x"] {
            assert_eq!(open.judge(uri), Ok(()), "{uri:?}");
        }
        for uri in [
            "file:///a/../b",
            "note://a/%252e%252e/b",
            "note://a/%25%32%65%25%32%65/b",
            "note://a/..;/b",
            "a\tb",
            "..",
        ] {
            assert!(matches!(open.judge(uri), Err(Closed::Ambiguous(_))), "{uri:?}");
        }
    }
}
