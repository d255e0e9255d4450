//! `audit anchor`: signs the ends of chains, for a log that is kept elsewhere.
//!
//! Owns the refusals: a chain that went back, or that has another entry where one was signed before.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use portcullis_core::audit::{Anchor, Chain};
use serde_json::json;

use super::anchor_log::{self, AnchorLog};
use super::lines::{End, Lines};
use super::organisations;
use super::signature::Signer;
use crate::args::{AnchorArgs, Session};
use crate::report::{CliError, Report, Verdict, progress};
use crate::store::Store;
use crate::{escape, random, time};

pub(crate) fn anchor(session: &Session, args: &AnchorArgs) -> Result<Report, CliError> {
    let signer = Signer::of(&args.signer)?;
    let key = signer.public_key()?;
    let mut log = AnchorLog::new(Some(&key));
    // Another writer waits: two entries with one number would be a fork.
    let mut file = opened(&args.log)?;
    let end = read(&args.log, &mut log)?;
    if let Some((line, fault)) = log.faults.first() {
        let place = format!("{}:{line}", args.log.display());
        return Err(CliError::new(fault.clone(), place)
            .expected("a log of anchors that is intact and signed with this key")
            .next("keep the file as it is and find out who changed it; go on with a new file, also for a new key")
            .into_answer());
    }
    let (mut new, mut unchanged, mut refused) = (Vec::new(), 0_u64, Vec::new());
    let ends = ends(session)?;
    // The chain of a gateway ends with it, and its checkpoint expires; those of an organisation do neither.
    let gone = |chain: &&String| {
        let of = organisation(chain);
        of.is_some() && !ends.iter().any(|end| organisation(&end.chain) == of)
    };
    for chain in log.last.keys().filter(gone) {
        refused.push(format!("chain {chain}: it was anchored, and Redis has none: it was removed"));
    }
    for now in ends {
        match log.last.get(&now.chain) {
            Some(last) if last.seq == now.seq && last.hash == now.hash => {
                unchanged = unchanged.saturating_add(1);
            }
            Some(last) if last.seq >= now.seq => refused.push(format!(
                "chain {}: entry {} with hash {} was anchored, and Redis now has entry {} with hash {}: it went back \
                 or was replaced",
                now.chain, last.seq, last.hash, now.seq, now.hash
            )),
            Some(_) | None => new.push(now),
        }
    }
    let name = format!("anchors:{}", random::base62(16)?);
    let mut chain = log.chain.take().unwrap_or_else(|| Chain::new(name));
    let actor = session.actor_name()?;
    let (now, cut_lines) = (time::timestamp(), &log.cut_lines);
    let line = anchor_log::line(&mut chain, now, (actor, &key), &new, cut_lines, |text| {
        signer.sign(text)
    })?;
    let before = if end == End::OfInput { "\n" } else { "" };
    let written = file.write_all(format!("{before}{line}\n").as_bytes());
    written.and_then(|()| file.sync_all()).map_err(|error| {
        unwritable(&args.log, &error)
            .next("make room and run it again: it goes on after a line that is cut off")
    })?;
    for cut in cut_lines {
        progress(&format!(
            "warning: {}:{}: the line is cut off: the disk was full, the machine stopped, or it was changed. It stays, it \
             is no anchor, and entry {} names it",
            args.log.display(),
            cut.number,
            chain.seq()
        ));
    }
    let json = json!({
        "anchored": new.iter().map(|it| json!({"chain": it.chain, "seq": it.seq, "hash": it.hash}))
            .collect::<Vec<_>>(),
        "unchanged": unchanged,
        "refused": refused,
        "cut_lines": cut_lines.iter().map(|cut| cut.number).collect::<Vec<_>>(),
        "log": { "chain": chain.name(), "last": chain.seq(), "head": chain.end().hash },
    });
    let mut text: Vec<String> = refused.iter().map(|it| escape::line(it)).collect();
    text.push(format!(
        "{} chains anchored, {unchanged} unchanged, {} refused; entry {} of {}",
        new.len(),
        refused.len(),
        chain.seq(),
        args.log.display()
    ));
    let verdict = if refused.is_empty() { Verdict::Good } else { Verdict::Wanting };
    Ok(Report::judged(verdict, text.join("\n"), json))
}

/// The organisation whose operators write a chain; `None` for that of a gateway.
fn organisation(chain: &str) -> Option<&str> {
    let name = chain.strip_prefix("admin:")?;
    Some(name.split_once(':').map_or(name, |(organisation, _)| organisation))
}

/// The end of each chain of a gateway and of an organisation, from Redis.
fn ends(session: &Session) -> Result<Vec<Anchor>, CliError> {
    let mut store = Store::open(session)?;
    let mut ends = store.checkpoints()?;
    let now = time::timestamp();
    for org in organisations(None, &mut store)? {
        let last = store.last_entry(&org)?;
        let chain = last.and_then(|line| Chain::after(std::str::from_utf8(&line).ok()?));
        ends.extend(chain.and_then(|chain| {
            let end = chain.end();
            Anchor::new(chain.name(), end.seq, &end.hash, Some(now.clone()))
        }));
    }
    Ok(ends)
}

fn opened(path: &Path) -> Result<File, CliError> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(|error| unwritable(path, &error))?;
    match file.lock() {
        // The file system has no locks.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
        locked => locked.map(|()| file).map_err(|error| unwritable(path, &error)),
    }
}

/// Reads a log of anchors; returns how its last line ends.
pub(super) fn read(path: &Path, log: &mut AnchorLog<'_>) -> Result<End, CliError> {
    let place = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        CliError::new(error.to_string(), place.clone()).expected("a log of anchors")
    };
    let mut lines = Lines::new(std::io::BufReader::new(File::open(path).map_err(unreadable)?));
    let mut end = End::Newline;
    while let Some(line) = lines.next().map_err(unreadable)? {
        log.take(line.number, line.text);
        end = line.end;
    }
    Ok(end)
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(error.to_string(), path.display().to_string())
        .expected("a file that this user may append to")
}
