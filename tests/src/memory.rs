//! The memory of the modules in a process that runs: what a core file of it would hold of them.
//!
//! Owns which memory is a module's own. V8 maps the linear memory of a module into a reservation of several gigabytes, the
//! rest of which no code may touch; nothing else in Envoy looks like that.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use memchr::memmem;

/// What V8 reserves behind a linear memory, at the least.
const RESERVED: u64 = 1 << 31;

/// How often each of `texts` stands in the linear memories of `pid`.
///
/// # Errors
/// The memory cannot be read: the process is gone, or is no child of this one.
pub fn copies_in_modules<const N: usize>(pid: u32, texts: [&str; N]) -> io::Result<[usize; N]> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mappings: Vec<_> = maps.lines().filter_map(Mapping::read).collect();
    let mut copies = [0; N];
    for pair in mappings.windows(2) {
        let [mapping, behind] = pair else { continue };
        let is_reserved = behind.rights.starts_with("---") && behind.length() >= RESERVED;
        if mapping.rights.starts_with("rw") && is_reserved && behind.from == mapping.to {
            let mut bytes = vec![0; mapping.length() as usize];
            memory.read_exact_at(&mut bytes, mapping.from)?;
            for (copies, text) in copies.iter_mut().zip(texts) {
                *copies += memmem::find_iter(&bytes, text.as_bytes()).count();
            }
        }
    }
    Ok(copies)
}

struct Mapping<'a> {
    from: u64,
    to: u64,
    rights: &'a str,
}

impl<'a> Mapping<'a> {
    /// A line of `/proc/PID/maps`.
    fn read(line: &'a str) -> Option<Self> {
        let (range, rights) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { from: number(from)?, to: number(to)?, rights })
    }

    fn length(&self) -> u64 {
        self.to - self.from
    }
}
