//! Ordinary children of a real-time process: they inherit nothing of what makes it one, and end
//! with it (fork(2), execve(2), prctl(2), setpgid(2)).
//!
//! What fork passes on is taken back between fork and exec: SCHED_FIFO, the CPU mask, blocked and
//! ignored signals. Locked memory (mlockall(2)) ends with fork and exec by themselves.

use nix::sched::CpuSet;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use rtcore::sys::{process, sched};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The child of this command runs at SCHED_OTHER, at nice 0 as far as the caller may give that, on
/// every CPU that its control group allows, in a process group of its own (which no terminal
/// signals), with no signal blocked.
///
/// It gets SIGTERM when the *thread* that spawns it ends, so that thread has to last as long as the
/// child is wanted. A program with file capabilities loses that at exec and has to call
/// [`process::die_with_parent`] itself.
pub fn make_ordinary(command: &mut Command) -> io::Result<()> {
    let mut every_cpu = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        every_cpu.set(cpu)?;
    }
    let parent = std::process::id();
    let prepare = move || {
        process::die_with_parent(parent)?;
        // SAFETY: the default disposition is no function that could be called.
        unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigDfl) }?;
        SigSet::empty().thread_set_mask()?;
        sched::set_ordinary()?;
        // The kernel removes the CPUs that the control group does not allow, and isolated CPUs are
        // in it although the scheduler moves nothing there by itself.
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &every_cpu)?;
        // EACCES for the unprivileged child of a niced process, which then stays niced.
        let _ = rustix::process::setpriority_process(None, 0);
        Ok(())
    };
    command.process_group(0);
    // SAFETY: the closure makes system calls on values made before the fork; it touches neither
    // heap nor locks.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Kills every process of the group that `leader` leads (kill(2) SIGKILL). To be called before the
/// leader is reaped: its number, and with it the group's, may be somebody else's afterwards. A
/// group that is gone is no error.
pub fn kill_group(leader: u32) {
    if let Some(leader) = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// On a thread of its own, whose mask and signals may be spoilt.
    fn spawned_by_a_spoilt_thread(script: &str) -> String {
        let script = script.to_owned();
        let spawn = move || {
            let mut one_cpu = CpuSet::new();
            let allowed = rtcore::sys::cpus::allowed().unwrap();
            one_cpu.set(allowed[0]).unwrap();
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one_cpu).unwrap();
            SigSet::all().thread_block().unwrap();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &script]).stdout(Stdio::piped());
            make_ordinary(&mut command).unwrap();
            let output = command.spawn().unwrap().wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        std::thread::spawn(spawn).join().unwrap()
    }

    #[test]
    fn a_child_has_every_cpu_no_blocked_signal_and_a_group_of_its_own() {
        let list = spawned_by_a_spoilt_thread(
            "sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status",
        );
        let mut cpus = rtcore::sys::cpus::parse_list(&list).unwrap();
        cpus.sort_unstable();
        assert_eq!(cpus, rtcore::sys::cpus::allowed().unwrap());
        let blocked =
            spawned_by_a_spoilt_thread("sed -n 's/^SigBlk:[^0-9a-f]*//p' /proc/self/status");
        assert_eq!(u64::from_str_radix(&blocked, 16).unwrap(), 0);
        // Pid, then (past the name) state, parent, group.
        let own = spawned_by_a_spoilt_thread(
            "read -r pid _ _ _ group _ </proc/$$/stat; test $pid = $group; echo $?",
        );
        assert_eq!(own, "0");
    }

    #[test]
    fn killing_a_group_reaches_the_children_of_its_leader() {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped());
        make_ordinary(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        let mut grandchild = String::new();
        let mut output = io::BufReader::new(child.stdout.take().unwrap());
        io::BufRead::read_line(&mut output, &mut grandchild).unwrap();
        kill_group(child.id());
        child.wait().unwrap();
        // Its end of the pipe was the last.
        assert_eq!(
            io::Read::read(&mut output, &mut [0]).unwrap(),
            0,
            "pid {grandchild}"
        );
        kill_group(u32::MAX);
    }
}
