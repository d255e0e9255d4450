//! The CPUs on which a process may run.
//!
//! Owns the one Linux call. Other systems pin nothing.

use std::io;

/// Binds every thread that process `pid` has now; later threads inherit it. Without CPUs it changes nothing.
#[cfg(target_os = "linux")]
pub fn bind(pid: u32, cpus: &[usize]) -> io::Result<()> {
    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let id = task?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = id.and_then(Pid::from_raw) {
            sched_setaffinity(Some(thread), &set)?;
        }
    }
    Ok(())
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
pub fn bind(_pid: u32, _cpus: &[usize]) -> io::Result<()> {
    Ok(())
}
