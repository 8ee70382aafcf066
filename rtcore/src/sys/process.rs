//! Own children: ending with the parent, being ended by it (prctl(2), kill(2), pidfd_open(2)).

use super::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The calling process gets SIGTERM when its parent dies (prctl(2) PR_SET_PDEATHSIG); ESRCH if
/// `parent` has died already, because the kernel then sends no signal.
///
/// Kept through exec, but not through that of a file with capabilities or set-user-id: such a
/// program has to call this itself.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    signal_with_parent(parent, rustix::process::Signal::TERM)
}

/// The same with SIGKILL: for a process that blocks SIGTERM, or is stopped, and has nothing to
/// clean up.
pub fn be_killed_with_parent(parent: u32) -> io::Result<()> {
    signal_with_parent(parent, rustix::process::Signal::KILL)
}

fn signal_with_parent(parent: u32, signal: rustix::process::Signal) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    // None: the parent lives in an outer pid namespace, and so does every process that could report
    // its number.
    if now.is_some_and(|now| now != parent) {
        Err(Errno::SRCH.into())
    } else {
        Ok(())
    }
}

/// The child of this command gets SIGTERM when the thread that spawns it dies, and starts with no
/// signal blocked: a mask is inherited through fork and exec.
pub fn die_with_parent_at_exec(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        die_with_parent(parent)?;
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: the closure makes three system calls and touches neither heap nor locks between fork
    // and exec.
    unsafe { command.pre_exec(prepare) };
}

/// Asks a child to end. One that is gone already is no error.
pub fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Ends the process here and now: no destructor runs, nothing is flushed (_exit(2)). For a watchdog
/// that nobody hears.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: takes an integer, does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Ends the process by SIGKILL. Two system calls that no signal handler can see, and no way back.
pub fn kill_this() -> ! {
    loop {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // It may be delivered to another thread first.
        std::hint::spin_loop();
    }
}

/// Whether this program has more rights than the user that started it: set-user-id, or capabilities
/// of its file (getauxval(3), AT_SECURE). The starting user must then not control the code that it
/// loads.
pub fn has_rights_of_its_file() -> bool {
    // SAFETY: takes an integer and returns one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Stops a child (SIGSTOP), until SIGCONT or its end.
pub fn suspend(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
    Ok(rustix::process::kill_process(
        pid,
        rustix::process::Signal::STOP,
    )?)
}

/// A descriptor that is readable when the process has ended.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
    super::pidfd::pidfd_open(pid)
}
