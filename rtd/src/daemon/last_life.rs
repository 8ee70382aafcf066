//! The messages that the instance's last daemon had queued when it was killed: they are lost, and
//! its ledger cannot show this.
//!
//! Its page still exists and is treated like any other page: it must belong to root or this user,
//! and all of it is validated. A daemon that was stopped has accounted for everything and removed
//! its page.

use crate::log;
use crate::plan::{Plan, RouteId};
use rtcore::stats::place::may_order;
use rtcore::stats::reader::{DaemonState, ReadError, Reader, Snapshot};
use rtcore::stats::writer::Page;
use rtcore::sys::clock::nanos;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::procfs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

/// How long a start waits for the last daemon of its name to end after a kill: until then the
/// kernel holds its locks on the page and the queues, and its socket.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);
/// Between the moment at which a process takes SIGKILL and the one at which it is marked as
/// exiting, nothing shows that it dies.
const UNSEEN: Duration = Duration::from_millis(20);

/// Waits until the last daemon of this name has ended, if it is about to end. It does not wait for
/// a running one: the start is then refused because of its name.
pub fn await_exit(plan: &Plan) {
    let Ok(page) = Reader::open(&plan.daemon.name) else {
        return;
    };
    let (Ok(address), Ok(seen)) = (page.address(), page.snapshot()) else {
        return;
    };
    let Ok(pid) = i32::try_from(page.pid()) else {
        return;
    };
    // A pid of another pid namespace names another process here.
    if !may_order(address.uid) || seen.pid_namespace != procfs::own_namespace("pid") {
        return;
    }
    let Ok(process) = PidFd::open(pid) else {
        return;
    };
    let dies = || procfs::is_killed(pid).unwrap_or(true) || procfs::is_exiting(pid).unwrap_or(true);
    let gone_within = |time: Duration| {
        let limit_ns = nanos(time);
        // An error counts as "no": the start is then refused with a reason.
        poll::wait(
            &mut [Interest::readable(process.as_fd().as_raw_fd())],
            limit_ns,
        )
        .is_ok_and(|ready| ready > 0)
    };
    let give_up = Instant::now() + EXIT_PATIENCE;
    let waits = dies() || (address.state != DaemonState::Stopped && !gone_within(UNSEEN) && dies());
    if waits && !gone_within(give_up.saturating_duration_since(Instant::now())) {
        log::warning(format_args!(
            "the last rtd of this name (pid {pid}) was killed and has not ended within {} ms: a device or a debugger may hold it",
            EXIT_PATIENCE.as_millis()
        ));
    }
}

/// For each route of the last life: its name, its index in this plan if it has one, the number of
/// messages.
#[derive(Debug, Default)]
pub struct LastLife(Vec<(String, Option<RouteId>, u64)>);

impl LastLife {
    /// Reads the page that the last daemon left, before the next one replaces it.
    pub fn read(plan: &Plan) -> LastLife {
        let page = match Reader::open(&plan.daemon.name) {
            Ok(page) => page,
            Err(e @ ReadError::Version { .. }) => {
                log::info(format_args!("{e}; the losses of that life are not known"));
                return LastLife::default();
            }
            Err(_) => return LastLife::default(),
        };
        // A living daemon has lost nothing; the start is refused because of its name.
        let counts = page
            .address()
            .is_ok_and(|a| may_order(a.uid) && a.state == DaemonState::Stopped);
        page.snapshot()
            .ok()
            .filter(|_| counts)
            .map_or_else(LastLife::default, |left| LastLife::of(&left, plan))
    }

    /// The messages that a page shows as waiting.
    pub fn of(left: &Snapshot, plan: &Plan) -> LastLife {
        // A direct route's messages are in the memory of its two processes.
        let routed = left.routes.iter().filter(|route| !route.direct);
        // A message that is still in its sender's ring comes again. A start that ended before it
        // was ready has replaced the page of the life before it, and may not have reported that
        // life's losses.
        let was_ready = left.ready_ns.is_some();
        let lost = routed.map(|route| {
            let before = if was_ready {
                0
            } else {
                route.lost_in_last_life
            };
            (
                &route.name,
                route
                    .ledger
                    .queued
                    .saturating_sub(route.ledger.held)
                    .saturating_add(before),
            )
        });
        let now = |name: &str| plan.routes.iter().position(|route| route.name == name);
        LastLife(
            lost.filter(|(_, lost)| *lost > 0)
                .map(|(name, lost)| (name.clone(), now(name), lost))
                .collect(),
        )
    }

    /// Shows the numbers on the page and in the log.
    pub fn report(self, page: &Page) {
        for (name, route, lost) in self.0 {
            if let Some(route) = route {
                page.add_lost_in_last_life(route, lost);
            }
            log::warning(format_args!(
                "route {name}: {lost} lost in the last life of this instance: rtd was killed while they waited in the route's \
                 capacity"
            ));
        }
    }
}
