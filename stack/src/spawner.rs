//! The one thread that starts child processes, and the one unsafe call that binds them to this process and forbids them
//! core files.
//!
//! Linux can send a child a signal when its parent dies. "Parent" means the *thread* that forked it, so every child is
//! started from a thread that lives as long as this process: nothing survives even a `kill -9` of the demo or a test.
//! Knows nothing about what is started.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Mutex<Option<Sender<Job>>>> = LazyLock::new(|| Mutex::new(launch().ok()));

fn launch() -> io::Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    thread::Builder::new().name("spawner".into()).spawn(move || {
        for mut job in jobs {
            // A receiver that is gone does not need the child; after the drop here, the death signal still stops it.
            let _ = job.answer.send(job.command.spawn());
        }
    })?;
    Ok(sender)
}

/// Starts `command` as the leader of its own process group, to be killed when this process dies.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    bind(&mut command);
    let gone = || io::Error::other("the spawner thread is gone");
    let (answer, child) = channel();
    {
        let spawner = SPAWNER.lock().map_err(|_| gone())?;
        spawner.as_ref().ok_or_else(gone)?.send(Job { command, answer }).map_err(|_| gone())?;
    }
    child.recv().map_err(|_| gone())?
}

/// Asks the kernel to kill the child when the spawner thread, hence this process, ends, and to write no core file of it:
/// Envoy, Vault and the servers have credentials in memory.
#[cfg(target_os = "linux")]
fn bind(command: &mut Command) {
    use rustix::process::{
        Resource, Rlimit, Signal, getpid, getppid, set_parent_process_death_signal, setrlimit,
    };
    let parent = getpid();
    let bind = move || {
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between fork and the line above; then the signal would never come.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: the closure runs in the forked child before exec. It makes three system calls, touches no lock and no heap
    // (`io::Error` from an errno or a kind does not allocate), so it is async-signal-safe as `pre_exec` demands.
    #[expect(
        unsafe_code,
        reason = "pre_exec is the only way to run these calls in the child, and it is unsafe to call"
    )]
    unsafe {
        command.pre_exec(bind);
    }
}

/// Other systems have no parent-death signal: `Drop` and the signal handler stop children, but a `kill -9` of this
/// process leaves them running. Of core files they have the limit of this process.
#[cfg(not(target_os = "linux"))]
fn bind(_command: &mut Command) {}
