//! Patterns: regular expressions of ECMA-262, as JSON Schema has them, with bounded cost.
//!
//! Owns the translation into the engine's dialect: `\d` and `\w` are ASCII, a bracket inside a class is a bracket.
//! Look-around is supported, `\p{…}` is not: its tables would be larger than all the rest. The patterns of a policy's
//! own rules are compiled at their first use and cached by their text, a bounded number of them.

use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

use fancy_regex::{Expr, Regex, RegexBuilder};
use lru::LruCache;

use crate::id::OrgId;

const MAX_PATTERN_BYTES: usize = 1_000;
const MAX_COMPILED_BYTES: usize = 262_144;
/// Enough for nearly every text in practice.
const FEW_BACKTRACKS: usize = 200;
const MAX_BACKTRACKS: usize = 10_000;
/// Longer texts are not matched with a pattern that looks around or back, because each step may read to the end.
const MAX_LOOKED_AROUND: usize = 4_096;
const SPACE: &str = r"\t\n\x0B\x0C\r \u{A0}\u{1680}\u{2000}-\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}";
const WORD: &str = "0-9A-Za-z_";

/// The longest text for a policy's own pattern.
pub(crate) const LONGEST_TEXT: usize = 65_536;
/// The most compiled patterns in one worker's cache; each has at most half a megabyte, and usually a tenth of that.
const MOST_COMPILED: usize = 128;
/// The most steps for all matches of one rule; one step reads 64 bytes of a text.
const MOST_STEPS: u32 = 100_000;

thread_local! {
    /// A cache only: it does not change what a pattern matches.
    static COMPILED: RefCell<Compiled> = RefCell::default();
}

/// Compiled patterns by organisation and text; `None` for unusable ones.
#[derive(Default)]
struct Compiled {
    by_owner: BTreeMap<Option<OrgId>, Share>,
    count: usize,
    /// The number of uses so far.
    uses: u64,
}

/// The cached patterns of one organisation.
struct Share {
    patterns: LruCache<String, Option<Rc<Pattern>>>,
    /// The last use of any of them.
    used: u64,
}

impl Compiled {
    fn get(&mut self, owner: &Option<OrgId>, source: &str) -> Option<Option<Rc<Pattern>>> {
        self.uses = self.uses.saturating_add(1);
        let own = self.by_owner.get_mut(owner)?;
        own.used = self.uses;
        own.patterns.get(source).cloned()
    }

    /// Adds a pattern. When the cache is full, the organisation with the most patterns loses one; among equals, the one
    /// that was idle longest. So an organisation with many patterns displaces none of another's, and an idle one makes
    /// room for an active one.
    fn put(&mut self, owner: &Option<OrgId>, source: &str, pattern: Option<Rc<Pattern>>) {
        self.uses = self.uses.saturating_add(1);
        let none = || Share { patterns: LruCache::unbounded(), used: 0 };
        let own = self.by_owner.entry(owner.clone()).or_insert_with(none);
        own.used = self.uses;
        if own.patterns.put(source.to_owned(), pattern).is_none() {
            self.count = self.count.saturating_add(1);
        }
        while self.count > MOST_COMPILED {
            let all = self.by_owner.iter_mut();
            let most = all.max_by_key(|(_, own)| (own.patterns.len(), Reverse(own.used)));
            let Some((owner, own)) = most else { return };
            let (owner, emptied) = (owner.clone(), own.patterns.len() <= 1);
            own.patterns.pop_lru();
            self.count = self.count.saturating_sub(1);
            if emptied {
                self.by_owner.remove(&owner);
            }
        }
    }
}

/// The remaining cost of matching with a policy's patterns.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u32,
    /// The owner of the patterns: each organisation has a share of the cache.
    owner: Option<OrgId>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: MOST_STEPS, owner: None }
    }
}

impl Budget {
    /// The budget for patterns of an organisation's policy.
    pub(crate) fn of(org: &OrgId) -> Self {
        Self { steps: MOST_STEPS, owner: Some(org.clone()) }
    }

    /// Whether `text` matches the pattern `source`.
    pub(crate) fn matches(&mut self, source: &str, text: &str) -> Result<bool, TooCostly> {
        if text.len() > LONGEST_TEXT {
            return Err(TooCostly);
        }
        let pattern = compiled(&self.owner, source);
        // `policy push` refuses unusable patterns; one that is in Redis anyway matches nothing.
        let pattern = pattern.ok_or(TooCostly)?;
        self.spend(pattern.cost(text))?;
        pattern.matches(text, Effort::Little).or_else(|TooCostly| {
            self.spend(Effort::Much.cost())?;
            pattern.matches(text, Effort::Much)
        })
    }

    /// Whether the budget allows comparing a value with this many others.
    pub(crate) fn compares(&mut self, values: usize) -> bool {
        const VALUES_PER_STEP: usize = 16;
        let steps = u32::try_from(values.div_ceil(VALUES_PER_STEP)).unwrap_or(u32::MAX);
        self.spend(steps).is_ok()
    }

    fn spend(&mut self, steps: u32) -> Result<(), TooCostly> {
        self.steps = self.steps.checked_sub(steps).ok_or(TooCostly)?;
        Ok(())
    }
}

fn compiled(owner: &Option<OrgId>, source: &str) -> Option<Rc<Pattern>> {
    if let Some(known) = COMPILED.with_borrow_mut(|compiled| compiled.get(owner, source)) {
        return known;
    }
    let pattern = Pattern::new(source).ok().map(Rc::new);
    COMPILED.with_borrow_mut(|compiled| compiled.put(owner, source, pattern.clone()));
    pattern
}

/// Whether `source` compiles within its bounds. A policy may have one pattern in hundreds of places.
pub(crate) fn compiles(source: &str) -> bool {
    compiled(&None, source).is_some()
}

/// Why the text of `source` is no pattern; does not check whether it compiles within its bounds.
pub(crate) fn mistake(source: &str) -> Option<String> {
    if source.len() > MAX_PATTERN_BYTES {
        return Some(format!("a pattern of {} bytes", source.len()));
    }
    match translate(source) {
        Ok(translated) => {
            Expr::parse_tree(&translated).err().map(|_| format!("the pattern {source:?}"))
        }
        Err(why) => Some(why),
    }
}

/// The form of a pattern, for error messages.
pub(crate) const EXPECTED: &str =
    "a regular expression of ECMA-262 of at most 1000 bytes, without \\p, such as ^[a-z]+$";

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// The same with [`Effort::Much`], compiled when a text first needs it.
    thorough: OnceCell<Option<Regex>>,
    translated: String,
    pub(crate) source: String,
    looks_around: bool,
}

/// How much effort a match may take. Only patterns that look around or back need more than one pass over the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// [`FEW_BACKTRACKS`].
    Little,
    /// [`MAX_BACKTRACKS`].
    Much,
}

impl Effort {
    /// The cost in steps of a check: one check may use all of [`MAX_BACKTRACKS`] some ten times.
    pub(crate) fn cost(self) -> u32 {
        match self {
            Self::Little => 0,
            Self::Much => 8_000,
        }
    }
}

/// Matching would cost too much.
#[derive(Debug)]
pub(crate) struct TooCostly;

impl Pattern {
    /// The error when it cannot be used.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        if source.len() > MAX_PATTERN_BYTES {
            return Err(format!("a pattern of {} bytes", source.len()));
        }
        let translated = translate(source)?;
        let regex = built(&translated, FEW_BACKTRACKS);
        let regex = regex.ok_or_else(|| format!("the pattern {source:?}"))?;
        let backward = source
            .as_bytes()
            .windows(2)
            .any(|pair| matches!(pair, [b'\\', digit] if digit.is_ascii_digit()) || pair == b"\\k");
        // The translation of `\b` contains look-around as well.
        let around = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|group| translated.contains(group));
        let (thorough, source) = (OnceCell::new(), source.to_owned());
        Ok(Self { regex, thorough, translated, source, looks_around: backward || around })
    }

    /// The cost of a match with little effort, in steps of a check.
    pub(crate) fn cost(&self, text: &str) -> u32 {
        // At each position where it looks around it may read further.
        let bytes_per_step = if self.looks_around { 2 } else { 64 };
        let steps = text.len().checked_div(bytes_per_step);
        steps.and_then(|steps| u32::try_from(steps).ok()).unwrap_or(u32::MAX)
    }

    pub(crate) fn matches(&self, text: &str, effort: Effort) -> Result<bool, TooCostly> {
        if self.looks_around && text.len() > MAX_LOOKED_AROUND {
            return Err(TooCostly);
        }
        let regex = match effort {
            Effort::Little => &self.regex,
            Effort::Much => {
                let thorough =
                    self.thorough.get_or_init(|| built(&self.translated, MAX_BACKTRACKS));
                thorough.as_ref().ok_or(TooCostly)?
            }
        };
        regex.is_match(text).map_err(|_| TooCostly)
    }
}

fn built(translated: &str, backtracks: usize) -> Option<Regex> {
    let mut builder = RegexBuilder::new(translated);
    builder
        .backtrack_limit(backtracks)
        .delegate_size_limit(MAX_COMPILED_BYTES)
        .delegate_dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .ok()
}

/// The pattern in the engine's dialect.
fn translate(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let mut letters = source.chars().peekable();
    let mut class = false;
    while let Some(letter) = letters.next() {
        match (letter, class) {
            ('\\', _) => {
                let escaped = letters.next().ok_or("a pattern that ends in a backslash")?;
                escape(escaped, class, &mut letters, &mut out)?;
            }
            ('[', false) => {
                let negated = letters.next_if_eq(&'^').is_some();
                // ECMA-262: `[]` matches nothing, `[^]` everything; the engine continues the class.
                class = letters.next_if_eq(&']').is_none();
                out.push_str(match (class, negated) {
                    (true, false) => "[",
                    (true, true) => "[^",
                    (false, false) => r"[^\x00-\u{10FFFF}]",
                    (false, true) => r"[\x00-\u{10FFFF}]",
                });
            }
            (']', true) => {
                class = false;
                out.push(']');
            }
            // ECMA-262 and the engine read different sets here.
            ('-', true) if letters.peek() == Some(&'-') => {
                return Err(r"two hyphens in a class; escape one: \-".to_owned());
            }
            ('-', true) if !out.ends_with(['[', '^', ']']) && begins_shorthand(&letters) => {
                return Err(r"a hyphen before a shorthand in a class; escape it: \-".to_owned());
            }
            ('(', false) if ignores_case(&letters) => {
                return Err("a group with the flag i; write both cases, as in [Kk]".to_owned());
            }
            // Class operators that ECMA-262 does not have without its flag `v`.
            ('[' | '&' | '~', true) => out.extend(['\\', letter]),
            ('.', false) => out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
            _ => out.push(letter),
        }
    }
    Ok(out)
}

/// Whether `\d`, `\w`, `\s` or its opposite follows.
fn begins_shorthand(letters: &std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let mut next = letters.clone();
    next.next() == Some('\\') && next.next().is_some_and(|letter| "dDwWsS".contains(letter))
}

/// Whether a group begins that ignores case. The engine does so with tables that the module does not have, and that a build
/// for tests may have.
fn ignores_case(letters: &std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let mut next = letters.clone();
    next.next() == Some('?')
        && next.take_while(|letter| !":)<=!".contains(*letter)).any(|letter| letter == 'i')
}

fn escape(
    escaped: char,
    class: bool,
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
) -> Result<(), String> {
    let set = |positive: &str, negated: bool| match (class, negated) {
        // Nested, so that a hyphen after it begins no range.
        (true, false) => format!("[{positive}]"),
        (_, true) => format!("[^{positive}]"),
        (false, false) => format!("[{positive}]"),
    };
    match escaped {
        'd' => out.push_str(&set("0-9", false)),
        'D' => out.push_str(&set("0-9", true)),
        'w' => out.push_str(&set(WORD, false)),
        'W' => out.push_str(&set(WORD, true)),
        's' => out.push_str(&set(SPACE, false)),
        'S' => out.push_str(&set(SPACE, true)),
        'b' if class => out.push_str(r"\x08"),
        'b' => out.push_str(&format!("(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))")),
        'B' => out.push_str(&format!("(?:(?<=[{WORD}])(?=[{WORD}])|(?<![{WORD}])(?![{WORD}]))")),
        '0' => out.push_str(r"\x00"),
        'c' => {
            let control = letters.next().filter(char::is_ascii_alphabetic);
            let control = control.ok_or(r"a \c without a letter")?;
            let code = u32::from(control.to_ascii_uppercase()).saturating_sub(64);
            out.push_str(&format!("\\x{code:02X}"));
        }
        'p' | 'P' => return Err(r"a pattern with \p{…}".to_owned()),
        'u' | 'x' | 'n' | 'r' | 't' | 'f' | 'v' | 'k' | '1'..='9' => out.extend(['\\', escaped]),
        letter if letter.is_ascii_alphabetic() => {
            return Err(format!("a pattern with the unknown escape \\{letter}"));
        }
        letter if letter.is_ascii_punctuation() => out.extend(['\\', letter]),
        letter => out.push(letter),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text, Effort::Much).unwrap()
    }

    #[test]
    fn patterns_mean_what_ecma_262_says() {
        assert!(matches(r"^\d+$", "42") && !matches(r"^\d+$", "٤٢"));
        assert!(!matches(r"^\w$", "é") && matches(r"^\W$", "é"));
        assert!(matches(r"^\s$", "\u{a0}") && matches(r"^\s$", "\u{feff}"));
        assert!(matches(r"^[\d-]+$", "1-2") && matches(r"[[]", "[") && matches(r"^[&&a]$", "&"));
        // A hyphen after a shorthand is literal; a class with two readings is refused.
        assert!(matches(r"^[\w-~]+$", "a-~") && !matches(r"^[\w-~]+$", "`{|}"));
        assert!(matches(r"^[\w-.]+$", "a-.") && matches(r"^[-\w]+$", "-a"));
        for unclear in [r"[+--/]", r"[a--]", r"[+-\w]"] {
            assert!(Pattern::new(unclear).is_err(), "{unclear}");
        }
        assert!(!matches("^.$", "\r") && !matches("^.$", "\u{2028}") && matches("^.$", "é"));
        assert!(matches(r"^\/a\.b\-c$", "/a.b-c") && matches(r"^\cA$", "\u{1}"));
        assert!(matches("a.c", "xxabcxx") && !matches("^a$", "a\n"));
        assert!(matches(r"^[^]$", "x") && !matches("[]", "x"));
        // The anchor before such a class stays.
        assert!(!matches(r"^[^]$", "xy") && !matches(r"^[^]{1,3}$", "aaaaa"));
        assert!(matches(r"^[^]{2}$", "x\n") && matches(r"\[[^]", "[x") && !matches(r"^[]", "x"));
        for flagged in ["(?i)k", "^(?i:k)$", "(?si)k", "(?s-i:k)"] {
            assert!(Pattern::new(flagged).is_err(), "{flagged}");
        }
        assert!(matches("^(?<id>i)(?:i)(?=i)i$", "iii") && matches("^(?s:i)[(?i]$", "i?"));
        assert!(matches(r"^\u00e9$", "é") && matches(r"\bfoo\b", "a foo b"));
        let email = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$";
        assert!(matches(email, "a.b@example.com") && !matches(email, "a..b@example.com"));
    }

    #[test]
    fn costly_patterns_are_refused_or_cut_short() {
        assert!(Pattern::new(r"^\p{Letter}+$").is_err() && Pattern::new("(").is_err());
        assert!(Pattern::new(&"a".repeat(1_001)).is_err());
        assert!(Pattern::new("((a{100}){100}){100}").is_err());
        let backtracking = Pattern::new(r"^(a|a)*\1b$").unwrap();
        for effort in [Effort::Little, Effort::Much] {
            assert!(backtracking.matches(&"a".repeat(3_000), effort).is_err());
            assert!(backtracking.matches(&"a".repeat(5_000), effort).is_err());
        }
        assert!(
            !Pattern::new("^(a+)+$")
                .unwrap()
                .matches(&format!("{}!", "a".repeat(100_000)), Effort::Little)
                .unwrap()
        );
    }

    /// One organisation's patterns displaced those of all others.
    #[test]
    fn an_organisation_with_many_patterns_takes_no_room_of_another_one() {
        let (acme, globex) = (OrgId::new("acme"), OrgId::new("globex"));
        let mut compiled = Compiled::default();
        (0..10).for_each(|at| compiled.put(&acme, &format!("a{at}"), None));
        (0..1_000).for_each(|at| compiled.put(&globex, &format!("g{at}"), None));
        assert_eq!(compiled.count, MOST_COMPILED);
        assert!((0..10).all(|at| compiled.get(&acme, &format!("a{at}")).is_some()));
        assert!(compiled.get(&globex, "g999").is_some() && compiled.get(&globex, "g0").is_none());
        // One organisation does not find the patterns of another.
        assert!(compiled.get(&acme, "g999").is_none());
    }

    /// Organisations at the end of the alphabet compiled their patterns for each call.
    #[test]
    fn an_organisation_without_calls_makes_room_for_one_that_has_some() {
        let mut compiled = Compiled::default();
        let owners: Vec<_> = (0..200).map(|at| OrgId::new(&format!("org{at:03}"))).collect();
        for owner in &owners {
            compiled.put(owner, "a", None);
            assert!(compiled.get(owner, "a").is_some(), "{owner:?}");
        }
        assert_eq!(compiled.count, MOST_COMPILED);
        let kept = |compiled: &mut Compiled, at: usize| compiled.get(&owners[at], "a").is_some();
        assert!(!kept(&mut compiled, 0) && kept(&mut compiled, 150));
    }
}
