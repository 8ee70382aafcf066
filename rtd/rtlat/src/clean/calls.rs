//! The system calls that the ends of a path make between the seal and their end: those that a
//! control process needs to send and to receive, and those that this harness adds. The daemon's
//! side is `rtcore::lane::syscalls`.

#![forbid(unsafe_code)]

use super::super::control_block::Role;
use super::super::route::RoutePath;
use rtcore::lane::syscalls::{LAST_WORDS, WAY_OUT};
use rtcore::sys::seccomp::{Allowed, Call, Program, allow};

/// The harness' own, in both ends.
const HARNESS: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "the sender waits until its message has arrived, and for the order to start",
    ),
    allow(
        Call::CLOCK_NANOSLEEP,
        "the sender pauses, so that the kernel's real-time budget lasts",
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
    allow(Call::GETRUSAGE, "faults and switches since the seal"),
];

const MQ_SENDER: &[Allowed] = &[allow(Call::MQ_SEND, "sends a message")];
const MQ_RECEIVER: &[Allowed] = &[allow(Call::MQ_RECEIVE, "takes a message")];

const SIGNAL_SENDER: &[Allowed] = &[
    allow(Call::SIGQUEUE, "sends a signal"),
    allow(Call::GETPID, "the origin that sigqueue(3) writes into it"),
    allow(Call::GETUID, "the same"),
];
const SIGNAL_RECEIVER: &[Allowed] = &[allow(Call::SIGTIMEDWAIT, "takes a signal")];

const LANE_SENDER: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "wakes the thread that sleeps at the ring's bell",
    ),
    allow(
        Call::WRITE,
        "rings the eventfd of a lane that waits for descriptors as well",
    ),
];
const LANE_RECEIVER: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "sleeps at the bell, wakes a sender that waits for room",
    ),
    allow(Call::FUTEX_WAITV, "sleeps at the bells of several rings"),
    allow(
        Call::WRITE,
        "notifies the session's thread that it has taken or left a partner's ring, once per \
         partner",
    ),
];

/// The compiled list of the system calls that one end of a path may make.
pub fn program(path: RoutePath, role: Role) -> std::io::Result<Program> {
    let own = match (path, role) {
        (RoutePath::MqMq | RoutePath::MqSignal, Role::Sender) => MQ_SENDER,
        (RoutePath::MqMq, Role::Receiver) => MQ_RECEIVER,
        (RoutePath::SignalSignal, Role::Sender) => SIGNAL_SENDER,
        (RoutePath::MqSignal | RoutePath::SignalSignal, Role::Receiver) => SIGNAL_RECEIVER,
        (RoutePath::Lane | RoutePath::Direct, Role::Sender) => LANE_SENDER,
        (RoutePath::Lane | RoutePath::Direct, Role::Receiver) => LANE_RECEIVER,
    };
    Program::compile([own, HARNESS, WAY_OUT, LAST_WORDS].into_iter().flatten())
}
