//! What the kernel reports: the load of the machine, the usage of a process, and the hardware.
//!
//! Owns reading `/proc`. Knows nothing about the processes.

use portcullis_stack::failure::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::thread;
use std::time::Duration;

/// The hardware and the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
}

/// The load of the machine while the benchmark is idle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noise {
    /// The used share of all CPUs' time.
    pub(crate) busy: f64,
    /// The share that the hypervisor gave to other machines.
    pub(crate) steal: f64,
    pub(crate) load_1m: f64,
}

/// CPU time of the whole machine since it started, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    busy: f64,
    steal: f64,
    all: f64,
}

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) resident_peak: u64,
}

/// On Linux these counters have ticks of 10 ms, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let cpu = cpuinfo.lines().find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        });
        Ok(Self {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal")?,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

impl Noise {
    /// Observes the machine for `duration`.
    pub(crate) fn listen(duration: Duration) -> Result<Self> {
        let before = Clock::read()?;
        thread::sleep(duration);
        let after = Clock::read()?;
        let load = read("/proc/loadavg")?;
        let all = after.all_since(before);
        Ok(Self {
            busy: after.busy_since(before) / all,
            steal: (after.steal - before.steal) / all,
            load_1m: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN),
        })
    }
}

impl Clock {
    pub(crate) fn read() -> Result<Self> {
        Self::parse(&read("/proc/stat")?).ok_or_else(|| unreadable("/proc/stat"))
    }

    /// Seconds of CPU time that all processes used between two readings.
    pub(crate) fn busy_since(self, earlier: Self) -> f64 {
        self.busy - earlier.busy
    }

    /// Seconds of all CPUs between two readings, used or not.
    pub(crate) fn all_since(self, earlier: Self) -> f64 {
        self.all - earlier.all
    }

    /// `cpu user nice system idle iowait irq softirq steal …`
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<f64> = stat
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND))
            .collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields.as_slice() else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, steal: *steal, all: busy + idle + iowait + steal })
    }
}

/// CPU time of all threads of a process, user and system, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> Result<f64> {
    let tasks = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&tasks).map_err(|_| unreadable(&tasks))?;
    let mut total = 0.0;
    for entry in entries {
        let file = entry.map_err(|_| unreadable(&tasks))?.path().join("schedstat");
        // The time of a thread that has ended is lost; threads of a server do not end.
        let text = fs::read_to_string(&file).unwrap_or_default();
        let nanos = text.split(' ').next().and_then(|field| field.parse::<f64>().ok());
        total += nanos.unwrap_or_default() / 1_000.0;
    }
    if total > 0.0 {
        return Ok(total);
    }
    ticks_us(pid)
}

/// For kernels without `schedstat`: as `cpu_us`, to 10 ms.
fn ticks_us(pid: u32) -> Result<f64> {
    let used = Usage::of(pid)?;
    Ok(used.own_us)
}

/// A process and all processes that it started, directly or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tree {
    /// CPU time, user and system, in microseconds, to 10 ms. It has the time of threads that have ended, and of ended
    /// processes for which their parents have waited.
    pub(crate) cpu_us: f64,
    pub(crate) resident: u64,
    pub(crate) processes: usize,
}

/// What the kernel has counted for one process.
struct Usage {
    parent: u32,
    /// CPU time of all threads, also of those that have ended, in microseconds.
    own_us: f64,
    /// CPU time of children that have ended.
    waited_us: f64,
}

/// CPU time and memory of a process and its descendants.
pub(crate) fn tree(root: u32) -> Result<Tree> {
    let known = |name: String| name.parse::<u32>().ok();
    let entries = fs::read_dir("/proc").map_err(|_| unreadable("/proc"))?;
    let pids = entries.flatten().filter_map(|entry| known(entry.file_name().into_string().ok()?));
    // A process that has ended meanwhile has no file; its parent has its time.
    let all: Vec<(u32, Usage)> = pids.filter_map(|pid| Some((pid, Usage::of(pid).ok()?))).collect();
    let mut members = vec![root];
    let mut next = 0;
    while let Some(parent) = members.get(next).copied() {
        next += 1;
        let children = all.iter().filter(|(_, usage)| usage.parent == parent);
        members.extend(children.map(|(pid, _)| *pid));
    }
    let used = all.iter().filter(|(pid, _)| members.contains(pid));
    let cpu_us = used.map(|(_, usage)| usage.own_us + usage.waited_us).sum();
    let resident = members.iter().filter_map(|pid| memory(*pid).ok()).map(|memory| memory.resident);
    Ok(Tree { cpu_us, resident: resident.sum(), processes: members.len() })
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/stat");
        Self::parse(&read(&file)?).ok_or_else(|| unreadable(&file))
    }

    /// The second field is a name in parentheses with anything in it; after it come state, parent, …, utime (14th), stime,
    /// cutime, cstime.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let us = |nth: usize| {
            let ticks = fields.get(nth)?.parse::<f64>().ok()?;
            Some(ticks / TICKS_PER_SECOND * 1_000_000.0)
        };
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_us: us(11)? + us(12)?,
            waited_us: us(13)? + us(14)?,
        })
    }
}

/// The current and the highest memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let file = format!("/proc/{pid}/status");
    Ok(Memory { resident: kilobytes(&file, "VmRSS")?, resident_peak: kilobytes(&file, "VmHWM")? })
}

/// A line `Name:   123 kB`, in bytes.
fn kilobytes(file: &str, name: &str) -> Result<u64> {
    let text = read(file)?;
    let value = text.lines().find_map(|line| {
        line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    value.map(|kilobytes| kilobytes * 1_024).ok_or_else(|| unreadable(file))
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).map_err(|_| unreadable(file))
}

fn unreadable(file: &str) -> Failure {
    Failure::new(format!(
        "{file} does not say what the benchmark has to know; it runs on Linux only"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        let clock = Clock::parse("cpu  100 10 50 800 40 3 7 20 0 0\ncpu0 1 2\n").unwrap();
        let near = |found: f64, right: f64| (found - right).abs() < 1e-9;
        assert!(near(clock.busy, 1.7) && near(clock.steal, 0.2) && near(clock.all, 10.3));
        assert!(Clock::parse("cpu  1 2 3\n").is_none());
    }

    #[test]
    fn a_process_has_the_time_of_its_own_threads_and_of_its_ended_children() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194304 1 0 0 0 150 50 20 5 20 0 9 0 1 2 3";
        let usage = Usage::parse(stat).unwrap();
        assert_eq!((usage.parent, usage.own_us, usage.waited_us), (3, 2_000_000.0, 250_000.0));
        assert!(Usage::parse("7 (a) S 3").is_none());
    }

    #[test]
    fn a_tree_has_the_processes_that_this_one_started() {
        let before = tree(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let with_child = tree(std::process::id()).unwrap();
        let alone = tree(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Tests run side by side and start processes, too.
        assert!(with_child.processes > 1 && alone.processes == 1, "{with_child:?} {alone:?}");
        assert!(with_child.cpu_us >= before.cpu_us && with_child.resident > alone.resident);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0 && memory.resident_peak >= memory.resident);
        assert!(cpu_us(pid).unwrap() > 0.0);
        assert!(ticks_us(pid).unwrap() >= 0.0);
        assert!(Machine::read().unwrap().memory_bytes > memory.resident);
    }
}
