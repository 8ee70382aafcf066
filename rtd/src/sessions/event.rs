//! The events and the effects of the state machine of the sessions ([`super::state`]).

use crate::plan::{ProcessId, RouteId};
use rtcore::lane::peer::PeerState;
use rtcore::sys::pidfd::Ending;

/// What partners are sent about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessStatus {
    /// Whether it is registered.
    pub state: PeerState,
    /// Its pid, or that of the process that ended.
    pub pid: i32,
    /// How it ended, if it did and the kernel says so.
    pub ending: Option<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process that has no session asked for one, and its rings are made.
    Admitted { process: ProcessId },
    /// The client has mapped the rings that this number means.
    Mapped {
        process: ProcessId,
        /// Number of a ring or of a Map.
        serial: u32,
    },
    /// A process got or lost its name.
    Changed {
        process: ProcessId,
        /// What it is now.
        status: ProcessStatus,
    },
    /// A session has to end.
    Ended { process: ProcessId, end: End },
    /// The memory of a direct ring is made, or it cannot be made (`ok`).
    Made {
        route: RouteId,
        /// Whether there is memory.
        ok: bool,
    },
    /// The memory of a direct ring is sealed.
    Sealed { route: RouteId },
    /// A direct ring cannot be used, or not any more.
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
    /// The connection was closed without a word.
    HungUp(Fate),
    /// A frame that no client sends.
    BadFrame(String),
    /// The process wrote what it must not into shared memory.
    Violation(String),
    /// It does not read what it is sent.
    Unread,
    /// It did not map its rings in time.
    Unmapped(String),
    /// It could not be put in force.
    Failed(String),
}

/// What becomes of a process whose connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lives,
    /// It is about to end; the kernel closes its descriptors first.
    Dying,
    /// It has ended.
    Died,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sends the reply, the channels and the routed rings; the rings have the numbers before `map`.
    Introduce {
        /// To whose client.
        process: ProcessId,
        /// Serial of the Map that follows.
        map: u32,
    },
    /// Sends a frame without descriptors.
    Send {
        /// To whose client.
        to: ProcessId,
        message: Message,
    },
    /// Seals what the client writes, and gives lanes the rings that they write.
    Attach { process: ProcessId },
    /// Gives the process its name, and stores that for the next start.
    Grant { process: ProcessId },
    /// Shows the process to lanes as alive; `Changed` follows.
    Announce { process: ProcessId },
    /// The session is open: accounts for what its process had left in an earlier session.
    Opened { process: ProcessId },
    /// Lets lanes read the rings of the process.
    ReadFrom { process: ProcessId },
    /// Writes why a session ends to the log and the counters.
    Record {
        process: ProcessId,
        /// Why it ends.
        end: End,
    },
    /// Closes the connection and keeps the rest.
    Disconnect { process: ProcessId },
    /// Takes the name from a process that lives; `Changed` follows.
    Release { process: ProcessId },
    /// Takes the name from a process that has ended; `Changed` follows.
    Bury { process: ProcessId },
    /// Closes the connection, and takes the rings back.
    Close { process: ProcessId },
    /// Makes a direct ring; its frames are ready then. `Broken` follows if it cannot be made.
    Create {
        route: RouteId,
        /// A number for each end.
        serials: [u32; 2],
    },
    /// Has the memory of a direct ring made on another thread; `Made` follows.
    Order { route: RouteId },
    /// Drops memory that nobody waits for any more.
    Discard {
        /// Of which route.
        route: RouteId,
    },
    /// Makes a ring of the memory that was ordered; its frames are ready then. `Broken` follows if
    /// that fails.
    Offer {
        route: RouteId,
        /// A number for each end.
        serials: [u32; 2],
    },
    /// Sends an end the memory that it writes, if there is a frame.
    SendRing {
        /// Of which route.
        route: RouteId,
        end: usize,
    },
    /// Seals both ends' memory against further writers; `Sealed` follows. The frames for both are
    /// ready then.
    Seal {
        /// Of which route.
        route: RouteId,
        /// The numbers of its ends.
        serials: [u32; 2],
    },
    /// Sends an end the memory that the other end writes.
    SendJoin {
        /// Of which route.
        route: RouteId,
        end: usize,
    },
    /// Leaves what waits in direct rings to the next daemon.
    LeaveToNext,
}

/// A frame without descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// What a process is now.
    Peer {
        of: ProcessId,
        /// What it is.
        status: ProcessStatus,
    },
    /// All routed rings were sent.
    Map {
        /// For the answer.
        serial: u32,
    },
    /// The session is open.
    Ready,
    /// Whether somebody receives from a channel.
    Reach {
        channel: u32,
        /// Whether somebody does.
        reachable: bool,
    },
}
