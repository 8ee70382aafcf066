//! The system calls that the ends of a path make between the seal and their end: what a control
//! process needs to send and to receive, and what this harness adds. The daemon's side is
//! `rtcore::lane::syscalls`.

#![forbid(unsafe_code)]

use super::super::board::Role;
use super::super::route::Way;
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
        "the sender rests, so that the kernel's real-time budget lasts",
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
        "a wait goes on that SIGSTOP and SIGCONT interrupted",
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
    allow(Call::FUTEX, "rings for who sleeps at the ring's bell"),
    allow(
        Call::WRITE,
        "rings the eventfd of a lane that waits for descriptors as well",
    ),
];
const LANE_RECEIVER: &[Allowed] = &[
    allow(
        Call::FUTEX,
        "sleeps at the bell, rings for who waits for room",
    ),
    allow(Call::FUTEX_WAITV, "sleeps at the bells of several rings"),
    allow(
        Call::WRITE,
        "tells the session's thread that it has taken up or left a partner's ring, once per partner",
    ),
];

/// What one end of a path may call, compiled.
pub fn program(way: Way, role: Role) -> std::io::Result<Program> {
    let own = match (way, role) {
        (Way::MqMq | Way::MqSignal, Role::Sender) => MQ_SENDER,
        (Way::MqMq, Role::Receiver) => MQ_RECEIVER,
        (Way::SignalSignal, Role::Sender) => SIGNAL_SENDER,
        (Way::MqSignal | Way::SignalSignal, Role::Receiver) => SIGNAL_RECEIVER,
        (Way::Lane | Way::Direct, Role::Sender) => LANE_SENDER,
        (Way::Lane | Way::Direct, Role::Receiver) => LANE_RECEIVER,
    };
    Program::compile([own, HARNESS, WAY_OUT, LAST_WORDS].into_iter().flatten())
}
