//! A log of signed anchors: the ends of chains at certain times, kept where gateways cannot write.
//!
//! Owns the form of its entries. Each entry is signed as a whole, with its position in the log; only valid entries
//! count.

use std::collections::BTreeMap;

use ed25519_compact::PublicKey;
use portcullis_core::audit::{Anchor, Anchors, Chain, Start, Verifier, signed};
use serde_json::{Map, Value, json};

use super::log::is_cut;
use super::signature;
use crate::report::CliError;

/// The member of an entry with the lengths of the cut lines before it.
const CUT_LINES: &str = "cut_lines";

/// The contents of a log of anchors.
pub(super) struct AnchorLog<'k> {
    key: Option<&'k PublicKey>,
    verifier: Verifier,
    /// All anchors of valid entries.
    pub(super) anchors: Anchors,
    /// The last anchor of each chain.
    pub(super) last: BTreeMap<String, Anchor>,
    /// The invalid lines, with the reasons.
    pub(super) faults: Vec<(u64, String)>,
    pub(super) entries: u64,
    /// The time of the newest valid entry.
    pub(super) newest: Option<String>,
    /// The chain that the next entry continues.
    pub(super) chain: Option<Chain>,
    /// The lines after the last entry that are cut off. They are no anchors; the next entry names them.
    pub(super) cut_lines: Vec<CutLine>,
    /// The numbers of the cut lines that the entries name.
    pub(super) named_cut_lines: Vec<u64>,
}

/// A line that stops in the middle of an entry: the disk was full, or the machine stopped.
pub(super) struct CutLine {
    pub(super) number: u64,
    pub(super) bytes: usize,
}

impl<'k> AnchorLog<'k> {
    /// An empty log, whose entries are signed with `key`; without one, signatures are not checked.
    pub(super) fn new(key: Option<&'k PublicKey>) -> Self {
        Self {
            key,
            verifier: Verifier::new(Start::Genesis),
            anchors: Anchors::default(),
            last: BTreeMap::new(),
            faults: Vec::new(),
            entries: 0,
            newest: None,
            chain: None,
            cut_lines: Vec::new(),
            named_cut_lines: Vec::new(),
        }
    }

    /// Reads the next line.
    pub(super) fn take(&mut self, number: u64, line: &[u8]) {
        if is_cut(line) {
            self.cut_lines.push(CutLine { number, bytes: line.len() });
            return;
        }
        self.entries = self.entries.saturating_add(1);
        let cut_lines = std::mem::take(&mut self.cut_lines);
        let fault = match self.judge(line) {
            Ok(named) if named == lengths(&cut_lines) => None,
            Ok(_) => Some("the entry names other cut lines before it than there are".to_owned()),
            Err(fault) => Some(fault),
        };
        match fault {
            Some(fault) => self.faults.push((number, fault)),
            None => self.named_cut_lines.extend(cut_lines.iter().map(|line| line.number)),
        }
    }

    /// Judges a line; returns what the entry says of the cut lines before it.
    fn judge(&mut self, line: &[u8]) -> Result<Value, String> {
        let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        self.verifier.line(text).map_err(|fault| fault.to_string())?;
        let entry: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (time, anchors) = (entry.get("timestamp").cloned(), entry.get("anchors").cloned());
        let cut_lines = entry.get(CUT_LINES).cloned().unwrap_or_else(|| json!([]));
        if let Some(key) = self.key {
            let (text, signature) = signed(entry).ok_or("an entry without a signature")?;
            if !signature::is_signed(&text, &signature, key) {
                return Err("the signature is not of this entry by this key: the anchor is forged, or another key \
                     signed it"
                    .to_owned());
            }
        }
        let anchors = anchors.as_ref().and_then(Value::as_array);
        let anchors = anchors.ok_or("an entry without anchors: is this a log of anchors?")?;
        self.newest =
            time.as_ref().and_then(Value::as_str).map(str::to_owned).or(self.newest.take());
        self.chain = Chain::after(text);
        for anchor in anchors {
            let anchor = read(anchor).ok_or("an anchor without chain, seq and hash")?;
            self.last.insert(anchor.chain.clone(), anchor.clone());
            self.anchors.extend([anchor]);
        }
        Ok(cut_lines)
    }
}

/// The lengths of cut lines, as an entry names them.
fn lengths(cut_lines: &[CutLine]) -> Value {
    cut_lines.iter().map(|line| line.bytes).collect()
}

fn read(anchor: &Value) -> Option<Anchor> {
    let text = |name: &str| anchor.get(name).and_then(Value::as_str);
    let at = text("at").map(str::to_owned);
    Anchor::new(text("chain")?, anchor.get("seq")?.as_u64()?, text("hash")?, at)
}

/// The next line of a log of anchors, with these anchors, signed. It names the cut lines before it.
pub(super) fn line(
    chain: &mut Chain,
    timestamp: String,
    (actor, key): (String, &PublicKey),
    anchors: &[Anchor],
    cut_lines: &[CutLine],
    sign: impl FnOnce(&str) -> Result<String, CliError>,
) -> Result<String, CliError> {
    let shown = anchors.iter().map(|anchor| {
        let mut shown = json!({ "chain": anchor.chain, "seq": anchor.seq, "hash": anchor.hash });
        if let (Some(at), Some(shown)) = (&anchor.at, shown.as_object_mut()) {
            shown.insert("at".into(), at.clone().into());
        }
        shown
    });
    let members = [
        ("timestamp", timestamp.into()),
        ("action", "audit.anchor".into()),
        ("actor", actor.into()),
        ("public_key", signature::shown(key).into()),
        ("anchors", shown.collect::<Vec<_>>().into()),
    ];
    let cut_lines = (!cut_lines.is_empty()).then(|| (CUT_LINES, lengths(cut_lines)));
    let members = members.into_iter().chain(cut_lines);
    let members = members.map(|(name, value): (_, Value)| (name.to_owned(), value));
    chain.append_signed(Map::from_iter(members), sign)
}
