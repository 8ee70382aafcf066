//! Messages that a stop left in the rings of senders. Their sessions bring them to the next rtd. If
//! a sender ends before that, its messages are gone, and the next rtd counts them as lost.
//!
//! The stop writes their number beside the registrations ([`super::kept`]). The number is exact:
//! from the moment at which a lane stops, the library refuses further messages
//! ([`rtcore::ring::Consumer::stop`]).

use super::kept::Kept;
use super::{Control, Lanes};
use crate::log;
use crate::plan::{EndpointId, Plan, ProcessId};
use crate::words::counted;
use rtcore::sys::procfs;
use rtcore::sys::seqpacket::is_shortage;

/// The messages in one sender's ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub endpoint: String,
    pub pid: i32,
    /// Together with the pid, identifies one process ([`procfs::start_ticks`]).
    pub start_ticks: u64,
    pub messages: u64,
}

impl Leftover {
    fn has_ended(&self) -> bool {
        let exiting = || procfs::is_exiting(self.pid).unwrap_or(true);
        match procfs::start_ticks(self.pid) {
            Ok(ticks) => ticks != self.start_ticks || exiting(),
            // Without a free descriptor the process cannot be checked; the next tick checks again.
            Err(e) => !is_shortage(&e),
        }
    }
}

/// The messages that the last rtd left.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// By endpoint: its name and its owner.
    endpoints: Vec<(String, Option<ProcessId>)>,
    waiting: Vec<Leftover>,
    unkept: bool,
}

impl Leftovers {
    pub fn new(plan: &Plan) -> Leftovers {
        let endpoints = plan
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.name.clone(), endpoint.owner));
        Leftovers {
            endpoints: endpoints.collect(),
            waiting: Vec::new(),
            unkept: false,
        }
    }

    /// The entries whose sender may still bring its messages.
    pub fn waiting(&self) -> &[Leftover] {
        &self.waiting
    }

    /// Whether these entries have changed since the last call.
    pub fn take_unkept(&mut self) -> bool {
        std::mem::take(&mut self.unkept)
    }

    fn find(&self, name: &str) -> Option<EndpointId> {
        self.endpoints.iter().position(|(known, _)| known == name)
    }

    fn take(&mut self, is_over: impl Fn(&Leftovers, &Leftover) -> bool) -> Vec<Leftover> {
        let (over, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|leftover| is_over(self, leftover));
        self.waiting = waiting;
        let over: Vec<Leftover> = over;
        self.unkept |= !over.is_empty();
        over
    }

    fn of_ended(&mut self) -> Vec<Leftover> {
        self.take(|_, leftover| leftover.has_ended())
    }

    fn of_process(&mut self, process: ProcessId, pid: i32) -> Vec<Leftover> {
        self.take(|all, leftover| {
            let owner = all
                .find(&leftover.endpoint)
                .and_then(|id| all.endpoints[id].1);
            owner == Some(process) && leftover.pid == pid
        })
    }
}

impl<L: Lanes> Control<L> {
    /// Takes over the entries of the last rtd's file.
    pub(super) fn adopt_leftovers(&mut self, leftovers: Vec<Leftover>) {
        self.leftovers.unkept |= !leftovers.is_empty();
        self.leftovers.waiting = leftovers;
        self.count_leftovers();
    }

    /// Counts the messages of senders that have ended.
    pub(super) fn count_leftovers(&mut self) {
        for leftover in self.leftovers.of_ended() {
            self.lose(&leftover);
        }
    }

    /// A session is open. If it continues the earlier session, it brings that one's messages. The
    /// first session of another program in the same process, after an exec(2) or after the earlier
    /// session was dropped, does not.
    pub(super) fn settle_leftovers(&mut self, process: ProcessId, pid: i32, continues: bool) {
        for leftover in self.leftovers.of_process(process, pid) {
            if !continues {
                self.lose(&leftover);
            }
        }
    }

    fn lose(&mut self, leftover: &Leftover) {
        let Leftover {
            endpoint,
            pid,
            messages,
            ..
        } = leftover;
        match self.leftovers.find(endpoint) {
            Some(id) => self.lanes.lost_with_sender(id, *pid, *messages),
            None => log::warning(format_args!(
                "{endpoint}: lost {}: pid {pid} had sent them before rtd was restarted, and has ended; the configuration has no \
                 such endpoint any more",
                counted(*messages, "message")
            )),
        }
    }

    /// The daemon ends: stores, for the next start, the number of messages that stay in the ring of
    /// each of these endpoints' owners.
    pub fn keep_leftovers(&mut self, left: &[(EndpointId, u64)]) {
        for &(endpoint, messages) in left {
            let (name, owner) = &self.leftovers.endpoints[endpoint];
            log::info(format_args!(
                "left in the ring of {name}, for the next rtd: {}",
                counted(messages, "message")
            ));
            let Some((pid, start_ticks)) = owner.and_then(|owner| self.registry.identity(owner))
            else {
                continue;
            };
            let leftover = Leftover {
                endpoint: name.clone(),
                pid,
                start_ticks,
                messages,
            };
            self.leftovers.waiting.push(leftover);
            self.leftovers.unkept = true;
        }
        // No further tick would write the file again.
        if self.kept.as_mut().is_some_and(Kept::is_missing) {
            self.registry.keep_again();
        }
        self.keep();
    }
}
