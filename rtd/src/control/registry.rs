//! The registry of names: one entry per `[[process]]`, with its holder and the state that the lanes
//! see.
//!
//! A holder is *pending* from the grant until its exec(2) was seen, if its executable is checked,
//! and *active* after. Only active holders are announced.
//!
//! Invariant: the pidfd of every holder is in the readiness set, and [`Peer::take`], [`Peer::died`]
//! and [`Peer::left`] are called from nowhere else. Each call returns its consequences as a list of
//! [`Consequence`]s.

mod adopt;
mod grant;
mod group_filter;
mod readiness;

pub(super) use adopt::Adopted;
use adopt::Expected;
pub(super) use grant::{Candidate, Claim};

use super::conns::{Client, ExecOf};
use super::kept::{Identity, Record};
use super::policy::{self, Ceiling, Exe, Refusal};
use crate::endpoint::EndpointKind;
use crate::plan::{Plan, ProcessId, ProcessPlan, TargetPlan, needs};
use crate::sessions::event::Fate;
use group_filter::{GroupFilter, filters_of};
use readiness::{Observations, Sent};
use rtcore::lane::peer::{Peer, PeerState};
use rtcore::sys::epoll::Epoll;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::pidfd::{Ending, PidFd};
use rtcore::sys::procfs::{self, Groups};
use rtcore::sys::seqpacket::is_shortage;
use rtcore::wire::{Name, Reply, Status};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The process that has the name.
#[derive(Debug)]
struct Holder {
    pidfd: PidFd,
    who: Identity,
    /// Real user: the one whose limit of pending signals counts.
    ruid: u32,
    active: bool,
    /// Number of further ticks at which it is checked again, see [`Registry::tick`].
    checks_left: u8,
    /// It has announced its exec(2) and made it: no client waits for an answer.
    is_after_exec: bool,
    /// Its readiness for the signals that routes send to it.
    observations: Observations,
}

impl Holder {
    fn new(pidfd: PidFd, who: Identity, ruid: u32) -> Holder {
        let observations = Observations::new(who.session);
        Holder {
            pidfd,
            who,
            ruid,
            active: false,
            checks_left: 0,
            is_after_exec: false,
            observations,
        }
    }

    /// Records, after an exec(2), the program that it runs now, as far as rtd may see it.
    fn note_program(&mut self) {
        self.who.exe = program(self.who.pid);
    }
}

/// Checks after the one at the end of the connection.
const CHECKS_AFTER_EXEC: u8 = 2;

#[derive(Debug)]
struct Entry {
    plan: ProcessPlan,
    peer: Arc<Peer>,
    /// Signals that routes will send; bit n-1 is signal n.
    signals: u64,
    /// The same signals, one by one.
    sent: Vec<Sent>,
    /// Names of the message queues that it owns.
    queues: Vec<String>,
    /// Whether the signals are Linux's, for which the kernel checks the permission.
    signalled: bool,
    /// The filters of groups that compare its process group or session.
    filters: Vec<GroupFilter>,
    /// Process group and session of the holder as last read.
    groups: Option<Groups>,
    generation: u64,
    holder: Option<Holder>,
    /// A process that had a session with the last rtd and has not reconnected.
    expected: Option<Expected>,
    /// The lanes of its endpoints.
    ceiling: Option<Ceiling>,
}

impl Entry {
    /// Reads the POSIX process group and session of the holder, if a filter compares them, and
    /// returns a warning for each filter that excludes the holder because the kernel shows rtd no
    /// number. If they cannot be read, the known values stay: either the holder is about to end,
    /// which its pidfd shows, or descriptors are short for a moment.
    fn read_groups(&mut self) -> Vec<Consequence> {
        let Some(holder) = self.holder.as_ref().filter(|_| !self.filters.is_empty()) else {
            return Vec::new();
        };
        let pid = holder.who.pid;
        let Ok(now) = policy::observe(&holder.pidfd, pid, || procfs::groups(pid)) else {
            return Vec::new();
        };
        self.peer.set_groups(now.pgid, now.sid);
        let before = self.groups.replace(now);
        let unknown = |filter: &&GroupFilter| {
            filter.number(now) == 0 && before.is_none_or(|before| filter.number(before) != 0)
        };
        let unknown = self.filters.iter().filter(unknown);
        let warning =
            |filter: &GroupFilter| Consequence::warning(filter.unknown(&self.plan.name, pid));
        unknown.map(warning).collect()
    }
}

#[derive(Debug)]
pub(super) struct Registry {
    entries: Vec<Entry>,
    own_pid: i32,
    /// Number of pid namespaces in which rtd is, as its /proc shows them.
    own_depth: usize,
    deaths: u64,
    /// The holders have changed since [`Registry::take_unkept`].
    unkept: bool,
    /// Entries of the last life whose processes could not be examined at this start.
    undecided: Vec<Record>,
    /// For each process, how long routes wait for it after a start.
    rejoin: Vec<Duration>,
    started: Instant,
}

/// A process registered or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub process: ProcessId,
    pub state: PeerState,
    pub pid: i32,
    /// How it ended, if it did and the kernel reports it.
    pub ending: Option<Ending>,
}

/// A consequence of a change of the registry. The consequences of a list must be carried out in
/// order.
#[derive(Debug)]
pub(super) enum Consequence {
    /// The process's [`Peer`] has this state now.
    Shown {
        process: ProcessId,
        state: PeerState,
        pid: i32,
        uid: u32,
    },
    /// The receptions of signals to a process changed, and its [`Peer`] shows this already.
    Receptions(ProcessId),
    /// A line for the log.
    Logged { is_warning: bool, text: String },
    /// A registration has ended, because its process may not have the name.
    Refused(Refusal),
    /// A change that concerns sessions and partners.
    Changed(Change),
}

impl Consequence {
    pub fn info(text: String) -> Consequence {
        Consequence::Logged {
            is_warning: false,
            text,
        }
    }

    pub fn warning(text: String) -> Consequence {
        Consequence::Logged {
            is_warning: true,
            text,
        }
    }
}

impl Registry {
    /// Makes a registry; `peers` in plan order.
    pub fn new(plan: &Plan, peers: Vec<Arc<Peer>>) -> io::Result<Registry> {
        if peers.len() != plan.processes.len() {
            let text = format!(
                "{} peers for {} processes",
                peers.len(),
                plan.processes.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let entry = |(process, (plan_of, peer)): (usize, (&ProcessPlan, Arc<Peer>))| Entry {
            plan: plan_of.clone(),
            peer,
            signals: signals_to(plan, process),
            sent: readiness::sent_to(plan, process),
            queues: queues_of(plan, process),
            signalled: needs::signalled(plan).any(|(_, signalled)| signalled.name == plan_of.name),
            filters: filters_of(plan, process),
            groups: None,
            generation: 0,
            holder: None,
            expected: None,
            ceiling: Ceiling::of(plan, process),
        };
        Ok(Registry {
            entries: plan
                .processes
                .iter()
                .zip(peers)
                .enumerate()
                .map(entry)
                .collect(),
            own_pid: rtcore::sys::sched::getpid(),
            own_depth: procfs::namespace_pids(rtcore::sys::sched::getpid())
                .map_or(1, |numbers| numbers.len()),
            deaths: 0,
            unkept: false,
            undecided: Vec::new(),
            rejoin: (0..plan.processes.len())
                .map(|process| adopt::rejoin(plan, process))
                .collect(),
            started: Instant::now(),
        })
    }

    /// Number of holders that have ended.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Whether [`Registry::records`] has changed since the last call.
    pub fn take_unkept(&mut self) -> bool {
        std::mem::take(&mut self.unkept)
    }

    /// The records to store for the next start.
    pub fn records(&self) -> Vec<Record> {
        let held = |entry: &Entry| {
            let holder = entry.holder.as_ref().map(|holder| &holder.who);
            let who = holder
                .or(entry.expected.as_ref().map(|expected| &expected.who))?
                .clone();
            Some(Record {
                name: entry.plan.name.clone(),
                who,
            })
        };
        self.entries
            .iter()
            .filter_map(held)
            .chain(self.undecided.iter().cloned())
            .collect()
    }

    /// Pid and start time of the holder of a name.
    pub fn identity(&self, process: ProcessId) -> Option<(i32, u64)> {
        let holder = self.entries[process].holder.as_ref()?;
        Some((holder.who.pid, holder.who.start_ticks))
    }

    /// The stored records are gone: stores them again.
    pub fn keep_again(&mut self) {
        self.unkept = true;
    }

    /// Name of a process, and the pid of its holder; 0 if there is none.
    pub fn holder(&self, process: ProcessId) -> (String, i32) {
        let entry = &self.entries[process];
        (
            entry.plan.name.clone(),
            entry.holder.as_ref().map_or(0, |holder| holder.who.pid),
        )
    }

    /// The state of a holder whose session ended. The kernel closes the descriptors of a dying
    /// process before it reports its death, and only the death has a cause.
    pub fn fate(&self, process: ProcessId) -> Fate {
        let holder = self.entries[process].holder.as_ref();
        let pid = holder.map_or(0, |holder| holder.who.pid);
        let is_exiting =
            holder.map(|holder| policy::observe(&holder.pidfd, pid, || procfs::is_exiting(pid)));
        // Read afterwards: a process that was ending may have ended meanwhile.
        match is_exiting {
            _ if self.has_ended(process) => Fate::Died,
            Some(Ok(true)) => Fate::Dying,
            _ => Fate::Lives,
        }
    }

    /// Frees a name whose holder lives.
    pub fn unregister(
        &mut self,
        epoll: &Epoll,
        client: &Client,
        name: Name,
    ) -> Result<(Reply, Vec<Consequence>), Refusal> {
        let process = self.find(name)?;
        let entry = &self.entries[process];
        let Some(holder) = entry.holder.as_ref() else {
            return Err(Refusal::new(
                Status::NoProcess,
                format!("nobody is registered as {name}"),
            ));
        };
        let uid = client.cred.uid;
        if uid != 0 && uid != holder.who.euid {
            let text = format!(
                "uid {uid} may not unregister {name}, which pid {} of uid {} holds: only that user and root may",
                holder.who.pid, holder.who.euid
            );
            return Err(Refusal::new(Status::Denied, text));
        }
        let text = format!("pid {} is no longer {name}", holder.who.pid);
        let released = self.release(epoll, process, Some(text.clone()));
        Ok((Reply::plain(Status::Ok, text), released))
    }

    /// Whether the holder of a name has ended, and this was not handled yet.
    pub fn has_ended(&self, process: ProcessId) -> bool {
        let holder = self
            .entries
            .get(process)
            .and_then(|entry| entry.holder.as_ref());
        holder.is_some_and(|holder| !holder.pidfd.is_alive())
    }

    /// Handles a readable pidfd. There are no consequences if that holder was replaced.
    pub fn ended(&mut self, epoll: &Epoll, process: ProcessId) -> Vec<Consequence> {
        let Some(entry) = self.entries.get_mut(process) else {
            return Vec::new();
        };
        let Some(holder) = entry.holder.take_if(|holder| !holder.pidfd.is_alive()) else {
            return Vec::new();
        };
        // The peer's slot duplicates the descriptor, so closing this one alone would leave it in
        // the set, always readable.
        let _ = epoll.remove(&holder.pidfd);
        self.unkept = true;
        self.deaths += 1;
        let ending = holder.pidfd.ending(holder.who.pid);
        let cause = ending.map(|e| format!(" ({e})")).unwrap_or_default();
        let (pid, uid, state) = (holder.who.pid, holder.ruid, PeerState::Dead);
        let line = Consequence::info(format!("{}: pid {pid} died{cause}", entry.plan.name));
        // Not `holder.active`: a process that registers again for an exec(2) is pending, but still
        // announced.
        if entry.peer.state() != PeerState::Alive {
            return vec![line];
        }
        entry.peer.died();
        entry.forget();
        vec![
            Consequence::Receptions(process),
            Consequence::Shown {
                process,
                state,
                pid,
                uid,
            },
            line,
            Consequence::Changed(Change {
                process,
                state,
                pid,
                ending,
            }),
        ]
    }

    /// The connection that announced an exec(2) is closed: examines the program that runs now.
    pub fn exec_done(&mut self, epoll: &Epoll, exec_of: ExecOf) -> Vec<Consequence> {
        let Some(entry) = self.entries.get_mut(exec_of.process) else {
            return Vec::new();
        };
        let Some(holder) = entry
            .holder
            .as_mut()
            .filter(|_| entry.generation == exec_of.generation)
        else {
            return Vec::new();
        };
        (holder.checks_left, holder.is_after_exec) = (CHECKS_AFTER_EXEC, true);
        holder.observations.exec_seen();
        let mut all = self.recheck(epoll, exec_of.process);
        all.extend(self.observe(exec_of.process));
        all
    }

    /// Reads the process groups and sessions that a filter needs again, and checks again the
    /// holders that called exec(2) recently.
    ///
    /// The kernel closes close-on-exec descriptors before it installs the credentials of a
    /// set-user-id program, so rtd, which detects the exec by the end of file, may still read the
    /// old ones. Waiting for the new ones would mean waiting for the process, without a limit. rtd
    /// therefore checks again at the next ticks.
    pub fn tick(&mut self, epoll: &Epoll) -> Vec<Consequence> {
        // setpgid(2) and setsid(2) cause no notification.
        let entries = self.entries.iter_mut();
        let mut all: Vec<Consequence> = entries.flat_map(Entry::read_groups).collect();
        all.extend(self.observe_due());
        for process in 0..self.entries.len() {
            let holder = self.entries[process]
                .holder
                .as_mut()
                .filter(|holder| holder.checks_left > 0);
            let Some(holder) = holder else { continue };
            holder.checks_left -= 1;
            all.extend(self.recheck(epoll, process));
        }
        all
    }

    /// Checks a holder that may have become another program. Never waits for it.
    fn recheck(&mut self, epoll: &Epoll, process: ProcessId) -> Vec<Consequence> {
        let entry = &self.entries[process];
        let Some(holder) = entry.holder.as_ref() else {
            return Vec::new();
        };
        let pid = holder.who.pid;
        let verdict =
            policy::observe(&holder.pidfd, pid, || procfs::status(pid)).and_then(|status| {
                policy::may_speak_for(holder.who.requester, pid, &status, true)?;
                policy::check(&entry.plan, &holder.pidfd, pid, &status, Exe::Now)
            });
        match verdict {
            // rtd cannot check now; the state of the process stays until it can.
            Err(refusal) if refusal.status == Status::Busy => {
                self.recheck_later(process);
                Vec::new()
            }
            // A process has no executable for a moment if another thread than the main thread
            // called exec(2).
            Err(refusal) if refusal.status == Status::Failed && holder.checks_left > 0 => {
                Vec::new()
            }
            Err(refusal) => {
                // It died before or between the checks: this is a death, not a refusal.
                if self.has_ended(process) {
                    return self.ended(epoll, process);
                }
                let mut all = self.release(epoll, process, None);
                all.push(Consequence::Refused(refusal));
                all
            }
            Ok(()) => {
                self.entries[process]
                    .holder
                    .as_mut()
                    .into_iter()
                    .for_each(Holder::note_program);
                self.unkept = true;
                self.runs(epoll, process)
            }
        }
    }

    /// One more check of a holder that rtd cannot check now.
    fn recheck_later(&mut self, process: ProcessId) {
        if let Some(holder) = &mut self.entries[process].holder {
            holder.checks_left += 1;
        }
    }

    /// A holder runs a permitted program: from now on it is active.
    fn runs(&mut self, epoll: &Epoll, process: ProcessId) -> Vec<Consequence> {
        let entry = &self.entries[process];
        let Some(holder) = entry.holder.as_ref().filter(|holder| !holder.active) else {
            return Vec::new();
        };
        let pid = holder.who.pid;
        let line = format!(
            "{}: pid {pid} runs the required executable: active",
            entry.plan.name
        );
        let (mut all, announced) = self.announce(epoll, process);
        match announced {
            Ok(()) => all.push(Consequence::info(line)),
            Err(refusal) if refusal.status == Status::Busy => self.recheck_later(process),
            Err(refusal) => all.push(Consequence::Refused(refusal)),
        }
        all
    }

    fn find(&self, name: Name) -> Result<ProcessId, Refusal> {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.plan.name == name.as_str());
        found.ok_or_else(|| {
            let known: Vec<&str> = self
                .entries
                .iter()
                .map(|entry| entry.plan.name.as_str())
                .collect();
            let others = match known.as_slice() {
                [] => "; the configuration has no [[process]]".to_owned(),
                known => format!(", or use one of: {}", known.join(", ")),
            };
            let text =
                format!("no process is named {name}: add [[process]] name = \"{name}\"{others}");
            Refusal::new(Status::UnknownName, text)
        })
    }

    /// Shows the holder to lanes as alive. The consequences must be carried out even if this fails.
    pub fn announce(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
    ) -> (Vec<Consequence>, Result<(), Refusal>) {
        let entry = &mut self.entries[process];
        // Never the numbers of the earlier holder; unknown ones come with the next tick.
        entry.groups = None;
        entry.peer.set_groups(0, 0);
        let mut all = entry.read_groups();
        entry.find_out();
        let Some(holder) = entry.holder.as_mut() else {
            return (all, Ok(()));
        };
        let (pid, uid, state) = (holder.who.pid, holder.ruid, PeerState::Alive);
        if let Err(e) = entry
            .peer
            .take(holder.pidfd.as_fd(), pid, holder.who.tid, uid)
        {
            let name = &entry.plan.name;
            let text = format!(
                "{name}: the pidfd of pid {pid} cannot be duplicated: {e}{}",
                shortage_hint(&e)
            );
            if is_shortage(&e) && holder.is_after_exec {
                // The next check tries again.
                return (Vec::new(), Err(Refusal::new(Status::Busy, text)));
            }
            // An expected process is not waited for any more.
            if entry.peer.state() != PeerState::Alive {
                entry.peer.left();
            }
            return (
                self.release(epoll, process, None),
                Err(Refusal::new(Status::Failed, text)),
            );
        }
        holder.active = true;
        all.extend([
            Consequence::Receptions(process),
            Consequence::Shown {
                process,
                state,
                pid,
                uid,
            },
            Consequence::Changed(Change {
                process,
                state,
                pid,
                ending: None,
            }),
        ]);
        (all, Ok(()))
    }

    /// The holder loses the name and lives on; with a line for the log.
    pub fn release(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        line: Option<String>,
    ) -> Vec<Consequence> {
        let line = line.map(Consequence::info);
        let entry = &mut self.entries[process];
        let Some(holder) = entry.holder.take() else {
            return line.into_iter().collect();
        };
        self.unkept = true;
        let _ = epoll.remove(&holder.pidfd);
        if entry.peer.state() != PeerState::Alive {
            return line.into_iter().collect();
        }
        entry.peer.left();
        entry.forget();
        let (pid, uid, state) = (holder.who.pid, holder.ruid, PeerState::Unregistered);
        let mut all = vec![
            Consequence::Receptions(process),
            Consequence::Shown {
                process,
                state,
                pid,
                uid,
            },
        ];
        all.extend(line);
        all.push(Consequence::Changed(Change {
            process,
            state,
            pid,
            ending: None,
        }));
        all
    }
}

/// The program of a process, as far as rtd may see it.
fn program(pid: i32) -> String {
    procfs::exe(pid).map_or("?".to_owned(), |path| path.display().to_string())
}

/// Names of the message queues that the process owns; none if they are a skin's own.
fn queues_of(plan: &Plan, process: ProcessId) -> Vec<String> {
    let linux = plan.daemon.skin.kind.caps().shared_namespace;
    let own = plan
        .endpoints
        .iter()
        .filter(|e| linux && e.owner == Some(process));
    own.filter(|e| matches!(e.kind, EndpointKind::Mqueue(_)))
        .map(|e| e.name.clone())
        .collect()
}

/// Signals of endpoints that `process` owns and some route writes.
fn signals_to(plan: &Plan, process: ProcessId) -> u64 {
    let targets = plan
        .routes
        .iter()
        .flat_map(|route| &route.to)
        .flat_map(|target| match target {
            TargetPlan::Endpoint(endpoint) => std::slice::from_ref(endpoint),
            TargetPlan::Group { members, .. } => members.as_slice(),
        });
    let owned = targets
        .map(|endpoint| &plan.endpoints[*endpoint])
        .filter(|e| e.owner == Some(process));
    owned.fold(0, |bits, endpoint| match &endpoint.kind {
        EndpointKind::Signal(signal) if (1..=64).contains(&signal.signo) => {
            bits | 1 << (signal.signo - 1)
        }
        _ => bits,
    })
}
