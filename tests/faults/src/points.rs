//! Faults from inside: a named point of rtd or of a program at an end ([`rtcore::fault`]) is armed,
//! and then something brings a process there.

use crate::fault::{Done, Kind};
use crate::journal::Plain;
use crate::patience::Patience;
use crate::plan::{MAXMSG, Share};
use crate::world::World;
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use rtcore::fault::{Action, Order, Page, number};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The environment variable by which a process finds the page.
pub const VARIABLE: &str = "RTD_FAULT_POINTS";
/// A point that is not reached while the senders begin so many messages is given up.
const BEGUN_MAX: u64 = 60_000;
/// So are as many backlogs.
const BACKLOGS_MAX: usize = 400;

// SAFETY: 1. atomics only.
unsafe impl Plain for Page {}

/// Who reaches a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Rtd,
    /// A program that sends from a lane endpoint.
    Sender,
    /// A program that receives at a lane endpoint.
    Receiver,
    /// A program that opens a session.
    Client,
}

/// What brings a process to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// Messages.
    Traffic,
    /// Messages that waited for a receiver which was stopped.
    Backlog,
    /// The end of a program at a lane endpoint, and its next start.
    Session,
    /// The same at a direct route.
    DirectSession,
    /// SIGTERM of rtd.
    Stop,
    /// A start of rtd after kill -9.
    Start,
}

/// A point that can be brought about.
#[derive(Debug)]
struct Place {
    point: &'static str,
    who: Who,
    occasion: Occasion,
    /// A call fails there on request.
    fails: bool,
}

const fn place(point: &'static str, who: Who, occasion: Occasion) -> Place {
    Place {
        point,
        who,
        occasion,
        fails: false,
    }
}

const fn failing(point: &'static str, who: Who, occasion: Occasion) -> Place {
    Place {
        point,
        who,
        occasion,
        fails: true,
    }
}

const PLACES: [Place; 22] = [
    place("after_dequeue_before_dispatch", Who::Rtd, Occasion::Traffic),
    place("between_two_receivers", Who::Rtd, Occasion::Traffic),
    place("after_delivery_before_ledger", Who::Rtd, Occasion::Traffic),
    place(
        "after_queued_delivery_before_ledger",
        Who::Rtd,
        Occasion::Backlog,
    ),
    place("after_dispatch_before_release", Who::Rtd, Occasion::Traffic),
    place(
        "after_release_before_ledger_is_shown",
        Who::Rtd,
        Occasion::Traffic,
    ),
    place("before_stop_gives_up_on_queued", Who::Rtd, Occasion::Stop),
    place("after_stop_gave_up_on_queued", Who::Rtd, Occasion::Stop),
    place("after_rings_sent_before_map", Who::Rtd, Occasion::Session),
    failing("after_mapped_before_attach", Who::Rtd, Occasion::Session),
    place("after_attach_before_kept", Who::Rtd, Occasion::Session),
    place("after_announce_before_ready", Who::Rtd, Occasion::Session),
    place(
        "after_leave_before_partners_know",
        Who::Rtd,
        Occasion::Session,
    ),
    place(
        "between_frames_of_direct_ring",
        Who::Rtd,
        Occasion::DirectSession,
    ),
    failing("after_draft_before_rename", Who::Rtd, Occasion::Session),
    failing("after_page_filled_before_named", Who::Rtd, Occasion::Start),
    place("after_adoption_before_lanes", Who::Rtd, Occasion::Start),
    place("after_reserve_before_publish", Who::Rtd, Occasion::Traffic),
    place(
        "after_reserve_before_publish",
        Who::Sender,
        Occasion::Traffic,
    ),
    place("after_take_before_count", Who::Receiver, Occasion::Traffic),
    failing("after_map_before_mapped", Who::Client, Occasion::Session),
    failing(
        "after_map_before_mapped",
        Who::Client,
        Occasion::DirectSession,
    ),
];

/// Does a fault of these kinds, and says which.
pub fn perform(
    kind: Kind,
    world: &mut World,
    rng: &mut fastrand::Rng,
    done: &mut Done,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        cfg!(feature = "fault-points"),
        "this build has no fault points: start it by scripts/faults"
    );
    let (action, suits): (Action, fn(&Place) -> bool) = match kind {
        Kind::KillRtdAtPoint => (Action::Kill, |place| place.who == Who::Rtd),
        Kind::KillClientAtPoint => (Action::Kill, |place| place.who != Who::Rtd),
        Kind::FailAtPoint => (Action::Fail, |place| place.fails),
        _ => (Action::Delay, |_| true),
    };
    let places: Vec<&Place> = PLACES.iter().filter(|place| suits(place)).collect();
    let place = places[rng.usize(..places.len())];
    // What happens once is not left to chance.
    let rare = !matches!(place.occasion, Occasion::Traffic | Occasion::Backlog);
    let order = Order {
        point: number(place.point),
        action,
        pid: target(place.who, place.occasion, world, rng)?,
        times: if action == Action::Kill {
            1
        } else {
            rng.u32(1..4)
        },
        chance: if rare {
            u32::MAX
        } else {
            u32::MAX >> rng.u32(0..5)
        },
        delay_ns: rng.u64(1_000_000..15_000_000),
        seed: rng.u64(..),
    };
    done.what = format!("{action:?} at {}, {order:?}", place.point);
    if place.occasion == Occasion::Start {
        return start(&order, world, done);
    }
    world.points.arm(&order);
    let brought = bring_about(place.occasion, &order, world, rng, done);
    done.not_reached = world.points.disarm() == 0;
    brought.with_context(|| done.what.clone())?;
    // A stop has ended rtd in any case.
    let killed = action == Action::Kill && !done.not_reached;
    if place.occasion == Occasion::Stop || (killed && place.who == Who::Rtd) {
        done.rtd_killed |= killed;
        done.rtd_ended = true;
        await_end(world)?;
        world.end_daemon(Signal::SIGKILL)?;
        world.start_daemon()?;
    }
    Ok(())
}

/// The process that is meant; 0 where any that reaches the point will do.
fn target(
    who: Who,
    occasion: Occasion,
    world: &World,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<u32> {
    let receives = match who {
        Who::Rtd if occasion == Occasion::Start => return Ok(0),
        Who::Rtd => return Ok(u32::try_from(world.daemon_pid()?.as_raw())?),
        Who::Client => return Ok(0),
        Who::Sender => false,
        Who::Receiver => true,
    };
    let at = linked(world, rng, |at| {
        let end = &world.ends[at];
        let stream = &world.streams[end.stream];
        // Not all members of a group get messages.
        end.member.is_some() == receives && stream.share == Share::Each && stream.kin.is_none()
    });
    let pid = world.ends[at].pid().context("an end that does not run")?;
    Ok(u32::try_from(pid.as_raw())?)
}

/// One of the programs at lane endpoints.
fn linked(world: &World, rng: &mut fastrand::Rng, suits: impl Fn(usize) -> bool) -> usize {
    let is_lane = |at: &usize| {
        let end = &world.ends[*at];
        let stream = &world.streams[end.stream];
        !stream.innocent
            && end
                .member
                .map_or(stream.from, |member| stream.to[member])
                .is_lane()
    };
    let all: Vec<usize> = (0..world.ends.len())
        .filter(is_lane)
        .filter(|at| suits(*at))
        .collect();
    all[rng.usize(..all.len())]
}

fn bring_about(
    occasion: Occasion,
    order: &Order,
    world: &mut World,
    rng: &mut fastrand::Rng,
    done: &mut Done,
) -> anyhow::Result<()> {
    match occasion {
        Occasion::Traffic | Occasion::Start => {}
        Occasion::Backlog => {
            let receiver = linked(world, rng, |at| {
                let end = &world.ends[at];
                let stream = &world.streams[end.stream];
                end.member.is_some() && !stream.direct && stream.keys.is_empty()
            });
            let pid = world.ends[receiver].pid().context("no receiver")?;
            let sent = &world.sent[world.ends[receiver].stream];
            let mut patience = Patience::new();
            let mut goes_on = || world.points.struck() == 0 && !patience.is_over();
            // A backlog is a few messages, and the point strikes one of several.
            for _ in 0..BACKLOGS_MAX {
                for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
                    kill(pid, signal)?;
                    let last = sent.begun.load(Ordering::Acquire) + 2 * MAXMSG as u64;
                    while sent.begun.load(Ordering::Acquire) < last && goes_on() {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                }
                if !goes_on() {
                    break;
                }
            }
        }
        Occasion::Session | Occasion::DirectSession => {
            let direct = occasion == Occasion::DirectSession;
            let at = linked(world, rng, |at| {
                world.streams[world.ends[at].stream].direct == direct
            });
            world.end(at, Signal::SIGKILL)?;
            done.killed.push(at);
        }
        Occasion::Stop => {
            kill(world.daemon_pid()?, Signal::SIGTERM)?;
            return await_end(world);
        }
    }
    await_strike(order, world, done)
}

/// Waits until the point has struck and the process that it killed has ended, or until it is clear
/// that the point is not reached.
fn await_strike(order: &Order, world: &mut World, done: &mut Done) -> anyhow::Result<()> {
    let begun = |world: &World| -> u64 {
        world
            .sent
            .iter()
            .map(|s| s.begun.load(Ordering::Acquire))
            .sum()
    };
    let (first, mut patience) = (begun(world), Patience::new());
    let mut killed = 0;
    let dies =
        order.action == Action::Kill && world.daemon_pid()?.as_raw().unsigned_abs() != order.pid;
    loop {
        // What the kill ended starts again: the others do not notice, and the point is armed for
        // one.
        let ended = world.revive()?;
        killed += ended.len();
        done.killed.extend(ended);
        if world.points.struck() > 0 && (killed > 0 || !dies) {
            return Ok(());
        }
        // Disarming decides: a process that was about to strike has struck, or does not any more.
        let over = begun(world) - first > BEGUN_MAX || patience.is_over();
        if over && world.points.disarm() == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Waits until rtd has ended.
fn await_end(world: &mut World) -> anyhow::Result<()> {
    let mut patience = Patience::new();
    while world.daemon_ended()?.is_none() {
        anyhow::ensure!(!patience.is_over(), "rtd does not end");
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(())
}

/// A point on the way of a start. One that fails or is killed is followed by another.
fn start(order: &Order, world: &mut World, done: &mut Done) -> anyhow::Result<()> {
    world.end_daemon(Signal::SIGKILL)?;
    (done.rtd_killed, done.rtd_ended) = (true, true);
    world.points.arm(&Order { times: 1, ..*order });
    let started = world.try_start(|_| Ok(()))?.is_none();
    done.not_reached = world.points.disarm() == 0;
    if started {
        Ok(())
    } else {
        world.start_daemon()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::fault::POINTS;

    #[test]
    fn every_point_is_brought_about() {
        for point in POINTS {
            assert!(PLACES.iter().any(|place| place.point == point), "{point}");
        }
    }
}
