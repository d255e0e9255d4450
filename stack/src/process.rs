//! A child process that always stops: by request, on drop, on a signal, and by the kernel if this process is killed.
//!
//! Owns starting, watching and stopping, always by process id. Knows nothing about what the program does, nor when it
//! is ready (see `ready`).

use crate::error::{During, Result, StackError};
use crate::spawner;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How often the process is checked for its end.
const POLL: Duration = Duration::from_millis(10);

static LIVE: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Stops every process that still runs, and refuses to start more. For signal handlers.
pub fn stop_everything() {
    STOPPING.store(true, Ordering::SeqCst);
    let live: Vec<Arc<Shared>> = locked(&LIVE).iter().filter_map(Weak::upgrade).collect();
    for process in &live {
        process.signal_group(Signal::TERM);
    }
    for process in &live {
        process.stop();
    }
}

/// Whether [`stop_everything`] was called: failures from then on are its consequence.
pub fn is_stopping() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// A running program whose output goes to a log file. Dropping it stops it (see `Shared`).
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let attempted = || format!("open the log {}", log.display());
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent).during(attempted)?;
        }
        let out = OpenOptions::new().create(true).append(true).open(log).during(attempted)?;
        let err = out.try_clone().during(attempted)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(Self { name: name.to_owned(), log: log.to_owned(), shared: start(name, command)? })
    }

    /// The name given at the start, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// The log file of its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.status().is_none()
    }

    /// The exit status, once it has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        locked(&self.shared.child).try_wait().ok().flatten()
    }

    /// SIGKILL, which other processes see as a crash; returns when the process is gone.
    pub fn kill_9(&self) {
        self.shared.signal(Signal::KILL);
        self.shared.wait(GRACE);
    }

    /// SIGSTOP: the process keeps its connections and stands still until [`Process::resume`].
    pub fn pause(&self) {
        self.shared.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.shared.signal(Signal::CONT);
    }

    /// SIGTERM, then SIGKILL if it exceeds the bound; returns when the process is gone.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The last lines of the log, for messages.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log, 20)
    }
}

/// Runs a program until it ends, with our own input and outputs.
pub fn run(name: &str, command: Command) -> Result<ExitStatus> {
    let shared = start(name, command)?;
    Ok(shared.wait_for_ever())
}

/// Runs a program until it ends, and returns its output.
pub fn output(name: &str, mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shared = start(name, command)?;
    let (stdout, stderr) = {
        let mut child = locked(&shared.child);
        (child.stdout.take(), child.stderr.take())
    };
    let stderr = thread::spawn(move || drain(stderr));
    let stdout = drain(stdout);
    let status = shared.wait_for_ever();
    Ok(Output { status, stdout, stderr: stderr.join().unwrap_or_default() })
}

/// A command that does not end within this time has failed.
const LONGEST_CONVERSATION: Duration = Duration::from_secs(150);

/// Runs a command that asks on its standard output: `answer` gets each line, and may return a line for its standard
/// input. Returns the last line and the standard error.
pub fn converse(
    name: &str,
    mut command: Command,
    answer: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<(String, String)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shared = start(name, command)?;
    let (stdin, stdout, stderr) = {
        let mut child = locked(&shared.child);
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    };
    let stderr = thread::spawn(move || drain(stderr));
    let watched = Arc::downgrade(&shared);
    thread::spawn(move || {
        thread::sleep(LONGEST_CONVERSATION);
        if let Some(process) = watched.upgrade() {
            process.stop();
        }
    });
    let mut stdin = stdin;
    let mut last = String::new();
    for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let Ok(line) = line else { break };
        if let (Some(reply), Some(stdin)) = (answer(&line), stdin.as_mut()) {
            // A program that no longer reads has ended, and the code below notices that.
            let _ = writeln!(stdin, "{reply}");
        }
        last = line;
    }
    drop(stdin);
    shared.wait_for_ever();
    let stderr = stderr.join().unwrap_or_default();
    Ok((last, String::from_utf8_lossy(&stderr).into_owned()))
}

/// The last `lines` lines of a log file; empty when there is none.
pub fn log_tail(log: &Path, lines: usize) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

fn start(name: &str, command: Command) -> Result<Arc<Shared>> {
    if is_stopping() {
        return Err(StackError::Stopping);
    }
    let child = spawner::spawn(command).during(|| format!("start {name}"))?;
    let shared = Arc::new(Shared { pid: child.id(), child: Mutex::new(child) });
    let mut live = locked(&LIVE);
    live.retain(|process| process.strong_count() > 0);
    live.push(Arc::downgrade(&shared));
    drop(live);
    // A signal may have come between the check above and the registration; this child must not survive it.
    if is_stopping() {
        shared.stop();
        return Err(StackError::Stopping);
    }
    Ok(shared)
}

impl Shared {
    fn stop(&self) {
        if self.ended().is_some() {
            return;
        }
        self.signal_group(Signal::TERM);
        if self.wait(GRACE).is_none() {
            self.signal_group(Signal::KILL);
            self.wait(GRACE);
        }
    }

    fn ended(&self) -> Option<ExitStatus> {
        locked(&self.child).try_wait().ok().flatten()
    }

    /// Signals the process alone. The lock prevents reaping, so no other process can have the id.
    fn signal(&self, signal: Signal) {
        let mut child = locked(&self.child);
        if let (Ok(None), Some(pid)) = (child.try_wait(), self.rustix_pid()) {
            // The process may just have ended, which is the goal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Signals the process and its children (cargo's compilers, a shell's children): it leads its own group.
    fn signal_group(&self, signal: Signal) {
        let mut child = locked(&self.child);
        if let (Ok(None), Some(pid)) = (child.try_wait(), self.rustix_pid()) {
            // As above.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn rustix_pid(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    fn wait(&self, bound: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if started.elapsed() >= bound {
                return None;
            }
            thread::sleep(POLL);
        }
    }

    fn wait_for_ever(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A broken pipe ends the output; the part before it is still useful.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// A panic elsewhere must not prevent the stop of children.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
