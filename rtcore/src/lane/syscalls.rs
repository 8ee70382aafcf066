//! The system calls that a lane thread makes after the seal: the written list, each with its
//! reason.
//!
//! A thread's list contains exactly the calls that its own sources and routes need; the kernel
//! enforces it ([`crate::seal::confine`]). Constraint: a call that is made for every message has no
//! condition on an argument (see [`crate::sys::seccomp`]). Invariant: no call on this list opens,
//! maps, starts or replaces an object.

use super::worker::Input;
use crate::skin::Skin;
use crate::sys::seccomp::{Allowed, Call, Program, allow};
use std::io;

/// Calls of every lane thread.
const EVERY: &[Allowed] = &[
    allow(
        Call::PPOLL,
        "waits for room in a full receiver and for its source at once",
    ),
    allow(
        Call::SCHED_YIELD,
        "lets the lane's other threads run between bursts of a flooded source",
    ),
    allow(
        Call::CLOCK_NANOSLEEP,
        "the pause after a receive that failed",
    ),
    allow(
        Call::CLOCK_GETTIME,
        "the time, where the machine's clock has no vDSO",
    ),
    allow(
        Call::SIGRETURN,
        "the end of a signal handler: of the wake-up, and of the one that counts refused calls",
    ),
    allow(
        Call::RESTART,
        "continues a wait that SIGSTOP and SIGCONT interrupted",
    ),
    allow(
        Call::GETRUSAGE,
        "its faults and switches since the seal, when it has drained",
    ),
];

/// Reads a message queue.
pub(crate) const MQ_SOURCE: &[Allowed] = &[allow(Call::MQ_RECEIVE, "takes a message")];

/// Reads a signal.
pub(crate) const SIGNAL_SOURCE: &[Allowed] = &[allow(Call::SIGTIMEDWAIT, "takes a signal")];

/// Reads the ring of a session.
pub(crate) const RING_SOURCE: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "sleeps at the bell of an empty ring, and wakes a sender that waits for room in it",
    ),
    allow(Call::FUTEX_WAITV, "sleeps at the bells of several rings"),
    allow(
        Call::EPOLL_PWAIT,
        "clears the descriptor of a ring that it waited for beside others",
    ),
];

/// Writes a message queue.
pub(crate) const MQ_SINK: &[Allowed] = &[allow(Call::MQ_SEND, "hands a message on")];

/// Sends a signal.
pub(crate) const SIGNAL_SINK: &[Allowed] = &[
    allow(
        Call::PIDFD_SEND_SIGNAL,
        "signals a process, or a thread that has a descriptor (Linux 6.9)",
    ),
    allow(
        Call::SIGQUEUE_TO_THREAD,
        "signals a thread by its number before that",
    ),
    allow(
        Call::PREAD,
        "how many signals wait for the receiver, from its open status file",
    ),
];

/// Writes the ring of a session.
pub(crate) const RING_SINK: &[Allowed] = &[
    allow(Call::FUTEX, "wakes the thread that sleeps at its bell"),
    allow(Call::FUTEX_WAITV, "sleeps until a full ring has room"),
    allow(
        Call::WRITE,
        "rings the eventfd of a receiver that waits for it; its number changes with the session",
    ),
];

/// Calls of a thread that ends, as made by the standard library and the C library.
pub const WAY_OUT: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "wakes the thread that joins it; the lock of the heap",
    ),
    allow(
        Call::MUNMAP,
        "its alternate stack, and objects of which it is the last user",
    ),
    allow(
        Call::CLOSE,
        "descriptors whose last holder it is, where the daemon ended without waiting for it",
    ),
    allow(Call::SIGALTSTACK, "takes its alternate stack away"),
    allow(Call::SIGPROCMASK, "no signal any more"),
    allow(Call::MADVISE, "gives the pages of its stack back"),
    allow(Call::EXIT, "ends the thread"),
];

/// Calls after a defect: the thread writes a message and ends the process, or continues.
pub const LAST_WORDS: &[Allowed] = &[
    allow(
        Call::WRITE_STDERR,
        "the line of a panic, or of the guard in tests",
    ),
    allow(Call::GETPID, "abort(3)"),
    allow(Call::GETTID, "abort(3)"),
    allow(Call::SIGPROCMASK, "abort(3)"),
    allow(Call::ABORT, "abort(3)"),
    allow(
        Call::ACTION_OF_SEGV,
        "a fault ends the process: the standard library's handler sets the default and returns into the fault, and would \
         come back for ever",
    ),
    allow(
        Call::ACTION_OF_BUS,
        "the same for a mapping whose memory is gone",
    ),
    allow(
        Call::BRK,
        "a heap call after the seal is counted as such; refused memory would end the daemon instead",
    ),
    #[cfg(feature = "fault-points")]
    allow(Call::KILL, "a fault point ends the process"),
];

/// The filter for a thread over these inputs, ready to be installed. None if the skin's calls are
/// not Linux's: a filter of Linux calls would not see the path, and each refused call would cost
/// the thread its real-time mode.
///
/// Errors as [`Program::compile`].
pub fn program(skin: &Skin, inputs: &[Input]) -> io::Result<Option<Program>> {
    if !skin.caps.linux_calls {
        return Ok(None);
    }
    Program::compile(list(inputs)).map(Some)
}

fn list(inputs: &[Input]) -> impl Iterator<Item = &'static Allowed> {
    let sources = inputs.iter().map(|input| input.source.calls());
    let sinks = inputs
        .iter()
        .flat_map(|input| &input.routes)
        .flat_map(|route| route.sinks());
    let own: Vec<&[Allowed]> = sources.chain(sinks.flat_map(|sink| sink.calls())).collect();
    [EVERY, WAY_OUT, LAST_WORDS]
        .into_iter()
        .chain(own)
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_a_list_opens_or_starts_anything_and_each_has_its_reason() {
        let lists = [
            EVERY,
            MQ_SOURCE,
            SIGNAL_SOURCE,
            RING_SOURCE,
            MQ_SINK,
            SIGNAL_SINK,
            RING_SINK,
            WAY_OUT,
            LAST_WORDS,
        ];
        for Allowed { call, why } in lists.into_iter().flatten() {
            let name = call.name();
            assert!(
                !["open", "exec", "clone", "mmap", "socket", "ioctl", "?"]
                    .iter()
                    .any(|bad| name.contains(bad))
            );
            assert!(why.len() > 5, "{name}");
        }
        // The frequent calls of a path are allowed with any arguments.
        for Allowed { call, .. } in [MQ_SOURCE, MQ_SINK, RING_SOURCE, RING_SINK, SIGNAL_SINK]
            .into_iter()
            .flatten()
        {
            assert!(!call.has_condition(), "{}", call.name());
        }
    }
}
