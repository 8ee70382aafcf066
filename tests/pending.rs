//! Receivers at RROOM_SIGPENDING, or at their share of it: the kernel says EAGAIN or rtd does not
//! ask, and the route's queue is what stands behind it.
//!
//! The kernel counts pending signals per user, so the receivers here are users of their own: root
//! only.

use crate::util::book::End::{Delivered, Expired, PeerDead, Queued, Rejected};
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::stranger::Stranger;
use crate::util::{Daemon, Instance, Peer, kernel, process, route, rt, signal};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;

tests![
    a_full_process_loses_nothing_within_the_capacity needs(ROOT),
    a_full_thread_loses_nothing_within_the_capacity needs(ROOT),
    a_used_up_share_loses_nothing_within_the_capacity needs(ROOT),
    what_is_queued_expires needs(ROOT),
    what_is_queued_dies_with_its_receiver needs(ROOT),
    a_stuck_receiver_holds_up_nobody needs(ROOT),
];

/// Signals that a receiver here has pending at most.
pub const ROOM: u64 = 4;

/// What bounds a receiver's pending signals.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The kernel: its limit is lowered after it registered.
    Kernel,
    /// Its share of the limit: of two, when it is the only one.
    Share,
}

/// A registered receiver of SIGRTMIN+1 with room for [`ROOM`].
fn receiver(
    instance: &Instance,
    user: &Stranger,
    name: &str,
    bound: Bound,
) -> anyhow::Result<Peer> {
    let mut peer = user.peer()?;
    if let Bound::Share = bound {
        peer.tell(order::Process::LimitSigpending(ROOM * 2))?;
    }
    peer.expect(instance, name, &[rt(1)])?;
    if let Bound::Kernel = bound {
        peer.tell(order::Process::LimitSigpending(ROOM))?;
    }
    Ok(peer)
}

/// The only receiver.
pub fn drive(instance: &Instance, bound: Bound) -> anyhow::Result<Peer> {
    receiver(instance, &Stranger::new(instance)?, "drive", bound)
}

/// `in` goes to the signals of these processes in one route.
pub fn config(instance: &Instance, receivers: &[&str], target: &str, more: &str) -> String {
    let mut config = instance.head() + &instance.mqueue("in", "msgsize = 8");
    for name in receivers {
        config += &process(name);
        config += &signal(&format!("{name}.sig"), name, "SIGRTMIN+1", target);
    }
    let to: Vec<String> = receivers.iter().map(|name| format!("{name}.sig")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    config + &route("in", &to, more)
}

fn values(peer: &mut Peer, count: usize) -> anyhow::Result<Vec<u64>> {
    Ok(peer
        .signals(rt(1), count)?
        .iter()
        .map(|s| s.value)
        .collect())
}

/// Within the capacity nothing is lost, and the order is the sender's.
fn nothing_is_lost(target: &str, bound: Bound) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, &["drive"], target, "capacity = 60"))?;
    let mut drive = drive(&instance, bound)?;
    Peer::sender(&instance.queue("in"))?.stream(0, 64)?;
    instance.ledger_is("in->drive.sig", 64, &[(Delivered, ROOM), (Queued, 60)])?;
    let queued = kernel::status(drive.pid(), "SigQ")?;
    assert_eq!(
        queued.split('/').next(),
        Some(ROOM.to_string().as_str()),
        "{queued}"
    );
    assert_eq!(values(&mut drive, 64)?, (0..64).collect::<Vec<_>>());
    instance.ledger_is("in->drive.sig", 64, &[(Delivered, 64)])?;
    assert_eq!(drive.pending(rt(1))?, []);
    daemon.stop()?;
    Ok(())
}

fn a_full_process_loses_nothing_within_the_capacity() -> anyhow::Result<()> {
    nothing_is_lost("", Bound::Kernel)
}

fn a_full_thread_loses_nothing_within_the_capacity() -> anyhow::Result<()> {
    nothing_is_lost("target = \"thread\"", Bound::Kernel)
}

fn a_used_up_share_loses_nothing_within_the_capacity() -> anyhow::Result<()> {
    nothing_is_lost("", Bound::Share)
}

/// What is queued for a full receiver expires.
fn what_is_queued_expires() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&config(&instance, &["drive"], "", "ttl = \"20ms\""))?;
    let mut drive = drive(&instance, Bound::Kernel)?;
    Peer::sender(&instance.queue("in"))?.stream(0, 10)?;
    instance.ledger_is("in->drive.sig", 10, &[(Delivered, ROOM), (Expired, 6)])?;
    assert_eq!(values(&mut drive, 4)?, [0, 1, 2, 3]);
    Ok(())
}

/// A full receiver dies: nothing stays queued for it, what comes later is peer-dead, and who takes
/// the name over gets what comes from then on.
///
/// While a process is dying the kernel takes signals for it and drops them, with success for the
/// sender: how many of the queued ones end so, and not as peer-dead, depends on when the lane
/// looks.
fn what_is_queued_dies_with_its_receiver() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&config(&instance, &["drive"], "", ""))?;
    let dying = drive(&instance, Bound::Kernel)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 10)?;
    instance.ledger_is("in->drive.sig", 10, &[(Delivered, ROOM), (Queued, 6)])?;
    dying.kill()?;
    let seen = instance.until("the death is seen", |s| {
        s.processes[0].state == PeerState::Dead && s.routes[0].ledger.queued == 0
    })?;
    let before = seen.routes[0].ledger;
    assert_eq!(
        (before.delivered + before.peer_dead, before.balances()),
        (10, true),
        "{before:?}"
    );
    sender.stream(10, 3)?;
    let ends = [
        (Delivered, before.delivered),
        (PeerDead, before.peer_dead + 3),
    ];
    instance.ledger_is("in->drive.sig", 13, &ends)?;
    let mut next = drive(&instance, Bound::Kernel)?;
    sender.stream(13, 1)?;
    assert_eq!(values(&mut next, 1)?, [13]);
    let ends = [
        (Delivered, before.delivered + 1),
        (PeerDead, before.peer_dead + 3),
    ];
    instance.ledger_is("in->drive.sig", 14, &ends)?;
    Ok(())
}

/// A stuck receiver does not hold up another of the same route, nor another route of the same lane.
fn a_stuck_receiver_holds_up_nobody() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = config(&instance, &["stuck", "fine"], "", "capacity = 2")
        + &instance.mqueue("in2", "")
        + &instance.mqueue("out2", "")
        + &route("in2", &["out2"], "");
    let _daemon = Daemon::start(&config)?;
    let mut stuck = receiver(
        &instance,
        &Stranger::new(&instance)?,
        "stuck",
        Bound::Kernel,
    )?;
    let mut fine = receiver(&instance, &Stranger::new(&instance)?, "fine", Bound::Kernel)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for n in 0..20 {
        sender.stream(n, 1)?;
        assert_eq!(values(&mut fine, 1)?, [n]);
    }
    Peer::sender(&instance.queue("in2"))?.stream(0, 10)?;
    instance.ledger_is("in2->out2", 10, &[(Delivered, 10)])?;
    let ends = [
        (Delivered, ROOM + 20),
        (Queued, 2),
        (Rejected(Reject::Full), 14),
    ];
    instance.ledger_is("in->stuck.sig", 40, &ends)?;
    assert_eq!(values(&mut stuck, 6)?, [0, 1, 2, 3, 4, 5]);
    let ends = [(Delivered, 26), (Rejected(Reject::Full), 14)];
    instance.ledger_is("in->stuck.sig", 40, &ends)?;
    Ok(())
}
