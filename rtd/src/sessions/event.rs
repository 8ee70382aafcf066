//! The events and the effects of the state machine of the sessions ([`super::state`]).

use crate::plan::{ProcessId, RouteId};
use rtcore::lane::peer::PeerState;
use rtcore::sys::pidfd::Ending;

/// The state of a process, as it is sent to its partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessStatus {
    /// Whether it is registered.
    pub state: PeerState,
    /// Its pid, or that of the process that ended.
    pub pid: i32,
    /// How it ended, if it did and the kernel reports it.
    pub ending: Option<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process without a session asked for one, and its rings are ready.
    Admitted { process: ProcessId },
    /// The client has mapped the rings with this number.
    Mapped {
        process: ProcessId,
        /// Number of a ring or of a Map.
        serial: u32,
    },
    /// A process got or lost its name.
    Changed {
        process: ProcessId,
        /// Its new state.
        status: ProcessStatus,
    },
    /// A session must end.
    Ended { process: ProcessId, end: End },
    /// The memory of a direct ring is ready, or cannot be made (`ok`).
    Made {
        route: RouteId,
        /// Whether the memory is ready.
        ok: bool,
    },
    /// The memory of a direct ring is sealed.
    Sealed { route: RouteId },
    /// A direct ring cannot be used, now or any more.
    Broken { route: RouteId },
    /// Some time has passed.
    Tick,
    /// The daemon stops.
    Stopped,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client announced it (Leave).
    Left,
    /// The connection was closed without an announcement.
    HungUp(Fate),
    /// A frame that no client sends.
    BadFrame(String),
    /// The process broke the protocol in shared memory.
    Violation(String),
    /// It does not read its frames.
    Unread,
    /// It did not map its rings in time.
    Unmapped(String),
    /// It could not be put into effect.
    Failed(String),
}

/// The fate of a process whose connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lives,
    /// It is about to end; the kernel closes its descriptors first.
    Dying,
    /// It has ended.
    Died,
}

/// An action of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sends the reply, the channels and the routed rings; the rings have the numbers before `map`.
    Introduce {
        /// The session that opens.
        process: ProcessId,
        /// Serial of the Map that follows.
        map: u32,
    },
    /// Sends a frame without descriptors.
    Send {
        /// The receiver of the frame.
        to: ProcessId,
        message: Message,
    },
    /// Seals the memory that the client writes, and gives lanes the rings that they write.
    Attach { process: ProcessId },
    /// Gives the process its name, and stores that for the next start.
    Grant { process: ProcessId },
    /// Shows the process to lanes as alive; `Changed` follows.
    Announce { process: ProcessId },
    /// The session is open: accounts for messages that its process had left in an earlier session.
    Opened { process: ProcessId },
    /// Lets lanes read the rings of the process.
    ReadFrom { process: ProcessId },
    /// Writes why a session ends to the log and the counters.
    Record {
        process: ProcessId,
        /// Why it ends.
        end: End,
    },
    /// Closes the connection and keeps the other data.
    Disconnect { process: ProcessId },
    /// Takes the name from a process that lives; `Changed` follows.
    Release { process: ProcessId },
    /// Takes the name from a process that has ended; `Changed` follows.
    CountDeath { process: ProcessId },
    /// Closes the connection, and takes the rings back.
    Close { process: ProcessId },
    /// Makes a direct ring and prepares its frames. `Broken` follows if it cannot be made.
    Create {
        route: RouteId,
        /// A number for each end.
        serials: [u32; 2],
    },
    /// Lets another thread make the memory of a direct ring; `Made` follows.
    Order { route: RouteId },
    /// Drops memory that no session waits for any more.
    Discard {
        /// The route.
        route: RouteId,
    },
    /// Makes a ring from the ordered memory and prepares its frames. `Broken` follows if this
    /// fails.
    Offer {
        route: RouteId,
        /// A number for each end.
        serials: [u32; 2],
    },
    /// Sends an end the memory that it writes, if there is a frame.
    SendRing {
        /// The route.
        route: RouteId,
        end: usize,
    },
    /// Seals both ends' memory against further writers, and prepares the frames for both; `Sealed`
    /// follows.
    Seal {
        /// The route.
        route: RouteId,
        /// The numbers of its ends.
        serials: [u32; 2],
    },
    /// Sends an end the memory that the other end writes.
    SendJoin {
        /// The route.
        route: RouteId,
        end: usize,
    },
    /// Leaves the messages that wait in direct rings to the next daemon.
    LeaveToNext,
}

/// A frame without descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The current state of a process.
    Peer {
        of: ProcessId,
        /// Its state.
        status: ProcessStatus,
    },
    /// All routed rings were sent.
    Map {
        /// Number to return in the answer.
        serial: u32,
    },
    /// The session is open.
    Ready,
    /// Whether a receiver can get messages of a channel.
    Reach {
        channel: u32,
        /// Whether there is one.
        reachable: bool,
    },
}
