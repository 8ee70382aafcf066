//! The queues of the plan: created or adopted, locked, watched, and at the end kept or removed.
//!
//! Invariant: at most one rtd reads a queue, and no rtd removes a queue that another one uses, or a
//! queue other than the one that it opened.

use super::private::Private;
use crate::endpoint::EndpointKind;
use crate::endpoint::mqueue::MqueuePlan;
use crate::log;
use crate::plan::Plan;
use crate::words::counted;
use rtcore::endpoint::{Shown, mqueue};
use rtcore::skin::Skin;
use rtcore::stats::reader::{DaemonState, Reader, instances};
use rtcore::sys::ids::Account;
use rtcore::sys::mqueue::{Access, Attributes, Lock, Queue};
use rtcore::sys::procfs::effective_uid;
use std::ffi::CString;
use std::io;

/// Period of the check of the queues' names.
const CHECK_NS: u64 = 1_000_000_000;

/// The queues of the daemon. Dropping it removes those that are configured so.
#[derive(Debug, Default)]
pub struct Queues {
    held: Vec<Held>,
    /// Queues of a skin with its own namespace: then there are no others.
    private: Vec<Private>,
    check_at_ns: u64,
}

#[derive(Debug)]
struct Held {
    name: CString,
    /// Keeps the queue in existence, locked, and readable for `left`.
    queue: Queue,
    is_source: bool,
    created: bool,
    /// Its waiting messages are discarded after a complete start.
    flushes: bool,
    unlink: bool,
    last_reported: Option<Name>,
}

/// The state of a queue's name after somebody removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Free,
    /// Another queue has it; none if that one may not be opened.
    Taken(Option<u64>),
}

impl Queues {
    /// Creates or adopts every queue of the plan. If one cannot be opened, those created here are
    /// removed.
    pub fn open(plan: &Plan, skin: &'static Skin) -> io::Result<Queues> {
        let mut queues = Queues::default();
        for (id, endpoint) in plan.endpoints.iter().enumerate() {
            if let EndpointKind::Mqueue(MqueuePlan {
                queue: name,
                maxmsg,
                msgsize,
                mode,
                flush_at_start,
            }) = &endpoint.kind
            {
                let is_source = plan.sources.iter().any(|source| source.endpoint == id);
                if !skin.caps.shared_namespace {
                    let (own, sizes) = (&plan.daemon.name, (*maxmsg, *msgsize));
                    queues
                        .private
                        .push(Private::open(skin, own, name, sizes, is_source)?);
                    continue;
                }
                let (queue, found) = Queue::create(name, *maxmsg, *msgsize, *mode)?;
                let created = found.is_none();
                let held = Held {
                    name: name.clone(),
                    queue,
                    is_source,
                    created,
                    flushes: *flush_at_start && !created,
                    unlink: false,
                    last_reported: None,
                };
                held.lock()?;
                if let Some(found) = found.filter(|found| found.mode != *mode) {
                    held.change_mode(found.mode, *mode)?;
                }
                queues.held.push(Held {
                    unlink: created,
                    ..held
                });
            }
        }
        Ok(queues)
    }

    /// The daemon runs: from now on the configuration decides whether queues stay. No lane has read
    /// them yet, and a failed start has discarded no message.
    pub fn started(&mut self, keep: bool) {
        for held in &mut self.held {
            held.unlink = !keep;
            if held.flushes {
                held.flush();
            }
        }
        self.private
            .iter_mut()
            .for_each(|queue| queue.unlink = !keep);
    }

    /// Queues that hold messages, and their number.
    pub fn left(&self) -> impl Iterator<Item = (&str, usize)> {
        self.all(|_| true)
            .filter(|(_, found)| found.curmsgs > 0)
            .map(|(name, found)| (name, found.curmsgs))
    }

    /// Queues that existed before the daemon, and their attributes.
    pub fn adopted(&self) -> impl Iterator<Item = (&str, Attributes)> {
        self.all(|created| !created)
    }

    /// Names and fill of the queues that were created, or of those that were not.
    fn all(&self, which: fn(bool) -> bool) -> impl Iterator<Item = (&str, Attributes)> {
        let held = self
            .held
            .iter()
            .map(|h| (h.created, &h.name, h.queue.attributes()));
        let private = self
            .private
            .iter()
            .map(|q| (q.created, q.name(), q.attributes()));
        let chosen = held
            .chain(private)
            .filter(move |(created, ..)| which(*created));
        chosen.filter_map(|(_, name, found)| Some((name.to_str().unwrap_or("?"), found.ok()?)))
    }

    /// Checks, about once a second, whether every queue still has its name, and logs a lost one.
    pub fn check(&mut self, now_ns: u64) {
        if now_ns < self.check_at_ns {
            return;
        }
        self.check_at_ns = now_ns.saturating_add(CHECK_NS);
        self.held.iter_mut().for_each(Held::check);
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.held
            .iter()
            .filter(|held| held.unlink)
            .for_each(Held::remove);
    }
}

impl Held {
    fn lock(&self) -> io::Result<()> {
        let name = self.name.to_string_lossy();
        if self.is_source && !self.queue.lock(Lock::Reader)? {
            return Err(read_by_another(&name, &reader_of(&name)));
        }
        if !self.queue.lock(Lock::User)? {
            return Err(io::Error::other(format!(
                "message queue {name} is being removed by another rtd that stops: start again"
            )));
        }
        Ok(())
    }

    /// An open descriptor outlives a change of the mode.
    fn change_mode(&self, from: u32, to: u32) -> io::Result<()> {
        self.queue.set_mode(to)?;
        let name = self.name.to_string_lossy();
        log::info(format_args!(
            "message queue {name}: mode {from:04o} changed to {to:04o}"
        ));
        if from & !to & 0o066 != 0 {
            log::warning(format_args!(
                "message queue {name}: a program that opened it while its mode was {from:04o} keeps it open and is not \
                 shut out; to be sure, stop rtd and its users and remove it (rtctl queue rm {name})"
            ));
        }
        Ok(())
    }

    fn flush(&self) {
        let name = self.name.to_string_lossy();
        match self.queue.flush() {
            Ok(0) => {}
            Ok(flushed) => log::warning(format_args!(
                "message queue {name}: flushed {} that waited in it (flush_at_start = true)",
                counted(flushed, "message")
            )),
            Err(e) => log::error(format_args!("{e}")),
        }
    }

    fn check(&mut self) {
        if self.queue.status().is_ok_and(|status| status.named) {
            return;
        }
        let found = match Queue::open(&self.name, Access::Receive, true) {
            Ok(queue) => Name::Taken(queue.status().ok().map(|status| status.inode)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Name::Free,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Name::Taken(None),
            // Descriptors are short: the next check will find out.
            Err(_) => return,
        };
        if self.last_reported.replace(found) == Some(found) {
            return;
        }
        let name = self.name.to_string_lossy();
        let now = match found {
            Name::Free => "no program can open it any more",
            Name::Taken(_) => {
                "another queue has the name now, so programs that open it do not exchange \
                 messages with rtd"
            }
        };
        log::error(format_args!(
            "message queue {name} was removed (mq_unlink) while rtd uses it: {now}; restart \
             rtd, and let no program remove this queue"
        ));
    }

    /// Unlinks the name if it is still this queue's and nobody else uses it, and logs the lost
    /// messages.
    fn remove(&self) {
        let name = self.name.to_string_lossy();
        if self.queue.status().is_ok_and(|status| status.named) {
            if !self.queue.lock(Lock::LastUser).unwrap_or(false) {
                log::info(format_args!(
                    "message queue {name} stays: another rtd uses it"
                ));
                return;
            }
            if let Err(e) = Queue::unlink(&self.name) {
                log::error(format_args!("{e}"));
                return;
            }
        }
        let left = self
            .queue
            .attributes()
            .map_or(0, |attributes| attributes.curmsgs);
        if left == 0 {
            return;
        }
        if self.is_source {
            log::warning(format_args!(
                "removed message queue {name} with {} in it that no lane took: lost \
                 (keep_queues = true keeps them, a longer drain takes more of them)",
                counted(left, "message")
            ));
        } else {
            warn_of_removed(&name, left);
        }
    }
}

/// Gives the plan's queues that belong to this user, which is about to become another, to that
/// user: rtd adopts only its own queues and root's, and could not open, change or remove root's.
pub fn hand_over(plan: &Plan, account: Account) -> io::Result<()> {
    if !plan.daemon.skin.kind.caps().shared_namespace {
        return Ok(());
    }
    for endpoint in &plan.endpoints {
        let EndpointKind::Mqueue(MqueuePlan { queue: name, .. }) = &endpoint.kind else {
            continue;
        };
        let queue = match Queue::open(name, Access::Both, true) {
            // It does not exist or does not belong to this user: whether the next user may have it
            // shows at the open.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                continue;
            }
            queue => queue?,
        };
        if queue.status()?.uid == effective_uid() {
            queue.give_to(account)?;
            let name = name.to_string_lossy();
            log::info(format_args!(
                "message queue {name}: from uid {} to uid {}",
                effective_uid(),
                account.uid
            ));
        }
    }
    Ok(())
}

/// The refusal of a source whose queue already has a reader.
pub(super) fn read_by_another(queue: &str, reader: &str) -> io::Error {
    io::Error::other(format!(
        "message queue {queue} is read by {reader} already, and each message would reach only one \
         of the two: stop that one, or give this endpoint a queue of its own"
    ))
}

/// Logs the messages that were in the queue of a sink when rtd removed it.
pub(super) fn warn_of_removed(queue: &str, left: usize) {
    log::warning(format_args!(
        "removed message queue {queue} with {} in it: lost unless a receiver still has it open \
         (keep_queues = true keeps them)",
        counted(left, "message")
    ));
}

/// An instance that uses a queue, for an error text.
pub(super) fn instance(name: &str, pid: impl std::fmt::Display) -> String {
    format!("rtd instance `{name}` (pid {pid})")
}

/// The instance that reads a queue, by the statistics pages: for an error text.
pub fn reader_of(queue: &str) -> String {
    let reads = |name: &String| {
        let page = Reader::open(name).ok()?;
        let snapshot = page.snapshot().ok()?;
        let alive = page.daemon_state().ok()? != DaemonState::Stopped;
        let reads = snapshot.endpoints.iter().any(|endpoint| {
            endpoint.is_source
                && matches!(&endpoint.kind, Shown::Mqueue(mqueue::Shown { queue: q, .. }) if q == queue)
        });
        (alive && reads).then(|| instance(name, page.pid()))
    };
    instances()
        .iter()
        .find_map(reads)
        .unwrap_or_else(|| "another rtd".to_owned())
}
