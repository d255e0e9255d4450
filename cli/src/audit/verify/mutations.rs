//! The property of tamper evidence: every mutation that changes a log's meaning is detected.
//!
//! Owns the mutations, and the meaning of a log: an independent, lenient reader of the lines, without hashes. The log
//! is a real one, from two workers of the end-to-end tests.

use std::collections::BTreeMap;

use ed25519_compact::{KeyPair, Seed};
use portcullis_core::audit::{Anchor, Chain, hash_of};
use serde_json::{Map, Value};

use super::*;
use crate::audit::anchor_log;
use crate::audit::signature::Signer;

const LOG: &str = include_str!("../../../tests/cli/files/audit.jsonl");
/// The key that signs the anchors; a forger has another.
const KEEPER: u8 = 16;
/// In the test command; `PORTCULLIS_TEST_MUTATIONS=10000` makes it longer.
const ROUNDS: u64 = 120;

/// The entries of each chain.
type Chains = BTreeMap<String, Vec<String>>;

/// The meaning of a log: the entries of each chain, in order. Line ends, blanks, the order of members and lines of
/// other programs do not matter.
fn meaning(log: &[u8]) -> Chains {
    let mut chains: Chains = BTreeMap::new();
    for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let said = match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(members) => members,
            // An unreadable line differs from every entry.
            Err(_) => Map::from_iter([("damaged".into(), String::from_utf8_lossy(line).into())]),
        };
        let chain = said.get("chain").and_then(Value::as_str).unwrap_or_default().to_owned();
        chains.entry(chain).or_default().push(portcullis_core::json::canonical(&said));
    }
    chains
}

/// Whether `now` only lacks entries at the ends of chains, or whole chains: only an anchor detects that.
fn is_cut(was: &Chains, now: &Chains) -> bool {
    now.iter().all(|(chain, now)| was.get(chain).is_some_and(|was| was.starts_with(now)))
}

fn verified(log: &[u8], anchors: &[u8]) -> Verdict {
    let key = keys(KEEPER).pk;
    let mut signed = AnchorLog::new(Some(&key));
    anchors
        .split(|byte| *byte == b'\n')
        .zip(1..)
        .filter(|(line, _)| !line.is_empty())
        .for_each(|(line, number)| signed.take(number, line));
    let mut found = Log::new(ChainStart::Genesis, signed.anchors.clone());
    found.vouched.take("anchors", &mut signed);
    let mut lines = super::super::lines::Lines::new(log);
    while let Ok(Some(line)) = lines.next() {
        found.item(Place { file: "log", line: line.number }, &Item::of(&line));
    }
    found.verdict(&found.misses())
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let nth = (mixed ^ (mixed >> 31)).checked_rem(u64::try_from(bound).unwrap());
        usize::try_from(nth.expect("a bound above zero")).unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mutation {
    EditByte,
    InsertByte,
    RemoveByte,
    Drop,
    Swap,
    Duplicate,
    Move,
    TruncateBytes,
    TruncateLines,
    SpliceChains,
    RehashEntry,
    RehashFrom,
    ForgeAnchor,
}

const MUTATIONS: [Mutation; 13] = [
    Mutation::EditByte,
    Mutation::InsertByte,
    Mutation::RemoveByte,
    Mutation::Drop,
    Mutation::Swap,
    Mutation::Duplicate,
    Mutation::Move,
    Mutation::TruncateBytes,
    Mutation::TruncateLines,
    Mutation::SpliceChains,
    Mutation::RehashEntry,
    Mutation::RehashFrom,
    Mutation::ForgeAnchor,
];

fn lines() -> Vec<Vec<u8>> {
    LOG.lines().map(|line| line.as_bytes().to_vec()).collect()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

fn members(line: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(line).expect("an entry of the log")
}

/// The entry with another duration and its right hash.
fn forged(line: &[u8], prev_hash: Option<&str>) -> Vec<u8> {
    let mut entry = members(line);
    match prev_hash {
        Some(hash) => _ = entry.insert("prev_hash".into(), hash.into()),
        None => _ = entry.insert("latency_ms".into(), 86_400_000.into()),
    }
    entry.insert("hash".into(), hash_of(entry.clone()).into());
    portcullis_core::json::canonical(&entry).into_bytes()
}

/// The log and the anchors after the mutation.
fn mutated(mutation: Mutation, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    if mutation == Mutation::ForgeAnchor {
        return forged_anchor(random);
    }
    (mutated_log(mutation, random), anchors())
}

/// The last lines are removed, and the anchor that would show it names the last remaining entry.
fn forged_anchor(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let mut lines = lines();
    let cut = lines.len().saturating_sub(random.below(4).saturating_add(1));
    lines.truncate(cut);
    let signer = match random.below(2) {
        0 => KEEPER,
        _ => KEEPER.saturating_add(1),
    };
    let mut anchors = anchor_log(&lines, signer);
    if signer == KEEPER {
        // Without the key: the old signature, with forged content and its right hash.
        let signature = members(anchors.split(|byte| *byte == b'\n').nth(1).unwrap());
        let signed = anchor_log(&self::lines(), KEEPER);
        let theirs = members(signed.split(|byte| *byte == b'\n').nth(1).unwrap());
        let mut entry = signature;
        entry.insert("signature".into(), theirs["signature"].clone());
        if random.below(2) == 0 {
            entry.remove("signature");
        }
        entry.insert("hash".into(), hash_of(entry.clone()).into());
        let first = anchors.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        anchors = joined(&[first, portcullis_core::json::canonical(&entry).into_bytes()]);
    }
    (joined(&lines), anchors)
}

fn mutated_log(mutation: Mutation, random: &mut Random) -> Vec<u8> {
    let (mut log, mut lines) = (LOG.as_bytes().to_vec(), lines());
    let (at, byte) = (random.below(lines.len()), random.below(log.len()));
    match mutation {
        Mutation::EditByte => log[byte] = u8::try_from(random.below(256)).unwrap(),
        Mutation::InsertByte => log.insert(byte, u8::try_from(random.below(256)).unwrap()),
        Mutation::RemoveByte => _ = log.remove(byte),
        Mutation::TruncateBytes => log.truncate(byte),
        Mutation::Drop => _ = lines.remove(at),
        Mutation::Swap => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
        Mutation::Duplicate => {
            let to = random.below(lines.len());
            lines.insert(to, lines[at].clone());
        }
        Mutation::Move => {
            let line = lines.remove(at);
            let to = random.below(lines.len());
            lines.insert(to, line);
        }
        Mutation::TruncateLines => lines.truncate(at),
        // An entry of another chain replaces one of this chain, with its name and number, or unchanged.
        Mutation::SpliceChains => {
            let (mut other, mine) =
                (members(&lines[random.below(lines.len())]), members(&lines[at]));
            if random.below(2) == 0 {
                for name in ["chain", "seq"] {
                    other.insert(name.into(), mine[name].clone());
                }
                if random.below(2) == 0 {
                    other.insert("hash".into(), hash_of(other.clone()).into());
                }
            }
            lines[at] = portcullis_core::json::canonical(&other).into_bytes();
        }
        Mutation::RehashEntry => lines[at] = forged(&lines[at], None),
        // The chain is consistent from there to its end.
        Mutation::RehashFrom => {
            lines[at] = forged(&lines[at], None);
            let chain = members(&lines[at])["chain"].clone();
            let mut head = members(&lines[at])["hash"].as_str().unwrap().to_owned();
            for line in lines.iter_mut().skip(at.saturating_add(1)) {
                if members(line)["chain"] == chain {
                    *line = forged(line, Some(&head));
                    head = members(line)["hash"].as_str().unwrap().to_owned();
                }
            }
        }
        Mutation::ForgeAnchor => unreachable!("is no mutation of the log alone"),
    }
    match mutation {
        Mutation::EditByte
        | Mutation::InsertByte
        | Mutation::RemoveByte
        | Mutation::TruncateBytes => log,
        _ => joined(&lines),
    }
}

fn keys(seed: u8) -> KeyPair {
    KeyPair::from_seed(Seed::new([seed; 32]))
}

fn anchors() -> Vec<u8> {
    anchor_log(&lines(), KEEPER)
}

/// Two anchors of each chain, as `audit anchor` signs them: one from the middle of the log, one of its end.
fn anchor_log(lines: &[Vec<u8>], signer: u8) -> Vec<u8> {
    let (pair, mut log) = (keys(signer), Vec::new());
    let (key, signer) = (pair.pk, Signer::Key(Box::new(pair)));
    let mut chain = Chain::new("anchors:a".into());
    for until in [lines.len() / 2, lines.len()] {
        let mut last: BTreeMap<String, Anchor> = BTreeMap::new();
        for entry in lines.iter().take(until).map(|line| members(line)) {
            let [name, hash] = ["chain", "hash"].map(|it| entry[it].as_str().unwrap());
            let anchor = Anchor::new(name, entry["seq"].as_u64().unwrap(), hash, None).unwrap();
            last.insert(name.to_owned(), anchor);
        }
        let last: Vec<Anchor> = last.into_values().collect();
        let (timestamp, by) = ("2026-11-29T00:00:00Z".to_owned(), ("a".to_owned(), &key));
        let sign = |text: &str| signer.sign(text);
        let line = anchor_log::line(&mut chain, timestamp, by, &last, &[], sign);
        log.push(line.unwrap().into_bytes());
    }
    joined(&log)
}

// Issue 16. Proves: A17, A18, X1
#[test]
fn every_mutation_that_changes_what_a_log_says_is_found() {
    let rounds = std::env::var("PORTCULLIS_TEST_MUTATIONS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let (was, own) = (meaning(LOG.as_bytes()), anchors());
    assert_eq!(verified(LOG.as_bytes(), &own), Verdict::Good);
    // For each mutation: runs, changed meanings, detected by the chain alone, detected only by an anchor.
    let mut figures: BTreeMap<Mutation, [u64; 4]> = BTreeMap::new();
    let mut random = Random(16);
    for round in 0..rounds {
        let mutation = MUTATIONS[random.below(MUTATIONS.len())];
        let (log, anchors) = mutated(mutation, &mut random);
        let now = meaning(&log);
        let figures = figures.entry(mutation).or_default();
        figures[0] += 1;
        if now == was {
            assert_eq!(
                verified(&log, &anchors),
                Verdict::Good,
                "{round}: {mutation:?} says the same"
            );
            continue;
        }
        figures[1] += 1;
        let alone = verified(&log, &[]) == Verdict::Wanting;
        // A chain alone cannot show a cut end, or a rewritten end.
        let excused = || {
            is_cut(&was, &now) || mutation == Mutation::RehashFrom || is_last(mutation, &was, &now)
        };
        if !alone {
            assert!(excused(), "{round}: {mutation:?} was not found without anchors");
            assert_eq!(verified(&log, &anchors), Verdict::Wanting, "{round}: {mutation:?}");
        }
        figures[if alone { 2 } else { 3 }] += 1;
    }
    for (mutation, [all, changed, alone, anchored]) in figures {
        println!(
            "{mutation:?}: {all}, of which {changed} change what is said; found: {alone} by the chain, {anchored} by an anchor"
        );
    }
}

/// Whether the last entry of a chain was forged: no later entry names its hash.
fn is_last(mutation: Mutation, was: &Chains, now: &Chains) -> bool {
    [Mutation::RehashEntry, Mutation::SpliceChains].contains(&mutation)
        && was.iter().all(|(chain, was)| {
            let (_, before) = was.split_last().expect("an entry");
            now.get(chain).is_some_and(|now| now.starts_with(before) && now.len() == was.len())
        })
}
