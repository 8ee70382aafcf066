//! The posix skin: Linux system calls as they are.

use super::{Caps, SignalAddress, Skin};
use crate::sys::{Errno, clock, mqueue, poll, rtsignal};

pub(super) static SKIN: Skin = Skin {
    name: "posix",
    caps: Caps { pollable_mq: true, reports_signal_overflow: true, shared_namespace: true },
    now_ns: clock::monotonic_ns,
    mq_receive: mqueue::receive,
    mq_send: mqueue::send,
    signal_wait: rtsignal::wait,
    signal_try_wait: rtsignal::try_wait,
    signal_send,
    signal_announce: |to, signo, ticket| rtsignal::announce_to_pidfd(to.pidfd, signo, ticket),
    wait_ready: poll::wait,
};

fn signal_send(to: SignalAddress, signo: i32, value: u64, pid: u32, uid: u32) -> Result<(), Errno> {
    if to.tid == 0 {
        return rtsignal::queue_to_pidfd(to.pidfd, signo, value, pid, uid);
    }
    // Before Linux 6.9 a thread is addressed by number. That its process was alive a moment ago leaves the
    // smallest window in which the numbers can have become a stranger's.
    rtsignal::probe(to.pidfd)?;
    rtsignal::queue_to_thread(to.pid, to.tid, signo, value, pid, uid)
}
