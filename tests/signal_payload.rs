//! Signal endpoints with a ring beside them: payloads, few signals for many messages, and what
//! happens when the signal queue, the daemon or the receiver gives out.

use crate::util::book::End::{Delivered, PeerDead, Rejected};
use crate::util::halt::Halted;
use crate::util::needs::{PTRACE, ROOT};
use crate::util::order::{self, Noticed};
use crate::util::{Daemon, Instance, Peer, eventually, kernel, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;

tests![
    payloads_of_every_size_come_with_their_verified_origin,
    a_handler_gets_what_its_sender_sends_as_soon_as_it_is_there needs(PTRACE),
    a_burst_past_a_slow_handler_is_lossless_with_few_signals,
    the_lowest_number_comes_first_between_rings_and_plain_signals,
    a_signal_that_is_passed_on_keeps_its_value,
    a_thread_as_target_reaches_the_dispatcher,
    a_full_signal_queue_delays_the_doorbell_and_loses_nothing needs(ROOT),
    a_killed_daemon_loses_and_repeats_nothing,
    a_killed_receiver_is_accounted_and_its_successor_receives,
    a_receiver_without_a_session_gets_values_and_no_more,
    plain_signals_from_before_the_session_are_no_doorbells,
    nobody_is_signalled_before_a_handler_is_there,
    after_the_session_plain_signals_go_on_and_nothing_is_left,
];

/// `controller.out`, from which the controller sends up to 128 bytes.
fn sending() -> String {
    process("controller") + &lane_endpoint("controller.out", "controller")
}

fn lane_endpoint(name: &str, owner: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\nmsgsize = 128\nmaxmsg = 256\n"
    )
}

/// The drive gets SIGRTMIN+3 with up to 128 bytes from the controller.
fn one_way(instance: &Instance, slots: u32) -> String {
    let ring = format!("msgsize = 128\nmaxmsg = {slots}");
    instance.head()
        + &sending()
        + &process("drive")
        + &signal("drive.go", "drive", "SIGRTMIN+3", &ring)
        + &route("controller.out", &["drive.go"], "overflow = \"block:5s\"")
}

const ROUTE: &str = "controller.out->drive.go";

/// With a session, and a handler for each of these.
fn receiver(instance: &Instance, name: &str, signals: &[i32]) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    open(&mut peer, instance, name, signals)?;
    Ok(peer)
}

fn open(peer: &mut Peer, instance: &Instance, name: &str, signals: &[i32]) -> anyhow::Result<()> {
    for signo in signals {
        peer.block_for_handlers(*signo)?;
    }
    peer.connect(instance, name)?;
    for signo in signals {
        peer.handle(*signo)?;
    }
    Ok(())
}

fn sender(instance: &Instance, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    peer.connect(instance, name)?;
    peer.claim(endpoint)?;
    Ok(peer)
}

fn controller(instance: &Instance) -> anyhow::Result<Peer> {
    sender(instance, "controller", "controller.out")
}

/// Waits for its dispatcher to sleep: what comes then needs a signal.
fn sleeps(peer: &Peer) -> anyhow::Result<()> {
    let asleep = |tid: u32| {
        let thread = kernel::thread(peer.pid(), tid).ok()?;
        (thread.name == "rtd-signals" && thread.state == 'S').then_some(())
    };
    eventually(|| {
        kernel::threads(peer.pid())
            .ok()?
            .into_iter()
            .find_map(asleep)
    })
}

/// Received, unhandled, doorbells, duplicates.
fn counters(peer: &mut Peer) -> anyhow::Result<Vec<u64>> {
    let c = peer.dispatched()?;
    Ok(vec![c.received, c.unhandled, c.doorbells, c.duplicates])
}

/// Nothing to a whole slot; each handler call says who sent it, verified, and only one sender is
/// listened to.
fn payloads_of_every_size_come_with_their_verified_origin() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = one_way(&instance, 64)
        + &process("stranger")
        + &lane_endpoint("stranger.out", "stranger")
        + &route("stranger.out", &["drive.go"], "");
    let _daemon = Daemon::start(&config)?;
    let mut drive = Peer::start()?;
    drive.block_for_handlers(rt(3))?;
    drive.connect(&instance, "drive")?;
    drive.tell(order::Handlers::Handle {
        signo: rt(3),
        from: Some("controller"),
    })?;
    let mut controller = controller(&instance)?;
    let mut stranger = sender(&instance, "stranger", "stranger.out")?;
    let bytes: Vec<u8> = (1..=129).collect();
    let mut want = Vec::new();
    for (sequence, len) in (1..).zip([0, 1, 7, 8, 9, 64, 127, 128]) {
        stranger.tell(order::Send::Bytes {
            endpoint: "stranger.out",
            bytes: vec![0xff],
        })?;
        controller.tell(order::Send::Bytes {
            endpoint: "controller.out",
            bytes: bytes[..len].to_vec(),
        })?;
        let mut value = [0; 8];
        value[..len.min(8)].copy_from_slice(&bytes[..len.min(8)]);
        let (signo, pid, value) = (rt(3), controller.pid(), u64::from_ne_bytes(value));
        want.push(Noticed {
            signo,
            value,
            pid,
            verified: true,
            head: Some(("controller.out".to_owned(), sequence)),
            payload: bytes[..len].to_vec(),
        });
    }
    let refused = controller
        .tell(order::Send::Bytes {
            endpoint: "controller.out",
            bytes: bytes.to_vec(),
        })
        .unwrap_err();
    ensure!(format!("{refused:#}").contains("129"), "{refused:#}");
    ensure!(
        drive.noticed(8)? == want,
        "{:#?}\n not {want:#?}",
        drive.noticed(8)?
    );
    instance.ledger_is(ROUTE, 8, &[(Delivered, 8)])?;
    instance.ledger_is("stranger.out->drive.go", 8, &[(Delivered, 8)])?;
    eventually(|| (counters(&mut drive).ok()?[..2] == [16, 8]).then_some(()))?;
    Ok(())
}

/// A message may come before the receiver's session thread has read that its sender is there.
fn a_handler_gets_what_its_sender_sends_as_soon_as_it_is_there() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::start()?;
    drive.block_for_handlers(rt(3))?;
    drive.connect(&instance, "drive")?;
    drive.tell(order::Handlers::Handle {
        signo: rt(3),
        from: Some("controller"),
    })?;
    let is_session =
        |tid: &u32| kernel::thread(drive.pid(), *tid).is_ok_and(|t| t.name == "rtd-session");
    let session = kernel::threads(drive.pid())?
        .into_iter()
        .find(is_session)
        .context("no session thread")?;
    let halted = Halted::thread(session)?;
    let mut controller = controller(&instance)?;
    controller.tell(order::Send::Bytes {
        endpoint: "controller.out",
        bytes: vec![0x01],
    })?;
    instance.ledger_is(ROUTE, 1, &[(Delivered, 1)])?;
    eventually(|| (counters(&mut drive).ok()?[0] == 1).then_some(()))?;
    sleeps(&drive)?;
    drop(halted);
    drive.noticed(1)?;
    ensure!(counters(&mut drive)?[..2] == [1, 0], "received, unhandled");
    Ok(())
}

fn a_burst_past_a_slow_handler_is_lossless_with_few_signals() -> anyhow::Result<()> {
    const MESSAGES: u64 = 10_000;
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 16384))?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    drive.hold()?;
    controller.press("controller.out", 0, MESSAGES, 100)?;
    instance.ledger_is(ROUTE, MESSAGES, &[(Delivered, MESSAGES)])?;
    let held = counters(&mut drive)?;
    ensure!(
        held[2] <= 2,
        "{} signals for one handler that has not returned",
        held[2]
    );
    drive.release()?;
    drive.counts_up(0, MESSAGES)?;
    // And past the ring: what finds no room waits in the daemon.
    drive.hold()?;
    controller.ask(order::Send::Press {
        endpoint: "controller.out",
        from: MESSAGES,
        count: 2 * MESSAGES,
        len: 8,
    })?;
    instance.until("the ring is full", |s| s.routes[0].ledger.queued > 0)?;
    drive.release()?;
    controller.answer()?;
    drive.counts_up(0, 3 * MESSAGES)?;
    instance.ledger_is(ROUTE, 3 * MESSAGES, &[(Delivered, 3 * MESSAGES)])?;
    let all = counters(&mut drive)?;
    ensure!(all[0] == 3 * MESSAGES && all[3] == 0, "{all:?}");
    Ok(())
}

fn the_lowest_number_comes_first_between_rings_and_plain_signals() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &sending()
        + &lane_endpoint("controller.low", "controller")
        + &process("drive")
        + &signal("drive.three", "drive", "SIGRTMIN+3", "msgsize = 8")
        + &signal("drive.four", "drive", "SIGRTMIN+4", "msgsize = 8")
        + &route("controller.out", &["drive.four"], "payload = 8")
        + &route("controller.low", &["drive.three"], "payload = 8");
    let _daemon = Daemon::start(&config)?;
    let mut drive = receiver(&instance, "drive", &[rt(2), rt(3), rt(4), rt(5), rt(6)])?;
    let mut controller = controller(&instance)?;
    drive.hold()?;
    drive.queue_to_self(rt(6), 6)?;
    eventually(|| (counters(&mut drive).ok()?[0] == 1).then_some(()))?;
    controller.press("controller.out", 40, 3, 8)?;
    controller.claim("controller.low")?;
    controller.press("controller.low", 30, 3, 8)?;
    instance.ledger_is("controller.out->drive.four", 3, &[(Delivered, 3)])?;
    instance.ledger_is("controller.low->drive.three", 3, &[(Delivered, 3)])?;
    for n in [5, 2] {
        drive.queue_to_self(rt(n), n.try_into()?)?;
    }
    drive.release()?;
    let noticed = drive.noticed(9)?;
    let values: Vec<u64> = noticed.iter().map(|notice| notice.value).collect();
    ensure!(values == [6, 2, 30, 31, 32, 40, 41, 42, 5], "{values:?}");
    Ok(())
}

fn a_signal_that_is_passed_on_keeps_its_value() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &signal("in", "", "SIGRTMIN+1", "")
        + &signal("drive.go", "drive", "SIGRTMIN+3", "msgsize = 16")
        + &route("in", &["drive.go"], "accept_claimed = true");
    let daemon = Daemon::start(&config)?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut button = Peer::start()?;
    let value = 0x1234_5678_9abc_def0_u64;
    button.ring(daemon.pid(), rt(1), value)?;
    let want = Noticed {
        signo: rt(3),
        value,
        pid: button.pid(),
        verified: false,
        head: Some(("in".to_owned(), 1)),
        payload: value.to_ne_bytes().to_vec(),
    };
    let noticed = drive.noticed(1)?;
    ensure!(noticed == [want], "{noticed:?}");
    Ok(())
}

/// The ring is the session's, whose dispatcher is a thread of its own.
fn a_thread_as_target_reaches_the_dispatcher() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = one_way(&instance, 64).replace("maxmsg = 64", "maxmsg = 64\ntarget = \"thread\"");
    let _daemon = Daemon::start(&config)?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    for n in 0..20 {
        // Each is waited for, so that each needs its signal.
        controller.press("controller.out", n, 1, 8)?;
        drive.counts_up(0, n + 1)?;
    }
    Ok(())
}

fn a_full_signal_queue_delays_the_doorbell_and_loses_nothing() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    const LIMIT: u64 = 40;
    // A user that nobody else is.
    let uid = 500_000 + std::process::id() % 100_000;
    let start = || {
        let mut peer = Peer::start_with(|command| {
            command.uid(uid);
        })?;
        peer.tell(order::Process::LimitSigpending(LIMIT))?;
        anyhow::Ok(peer)
    };
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = start()?;
    open(&mut drive, &instance, "drive", &[rt(3)])?;
    let mut hog = start()?;
    hog.block_for_handlers(rt(9))?;
    let mut controller = controller(&instance)?;
    let mut sent = 0;
    let mut owed = 0;
    for _ in 0..10 {
        ensure!(hog.tell(order::Signal::Spend(rt(9)))?.number()? >= LIMIT - 2);
        sleeps(&drive)?;
        controller.press("controller.out", sent, 5, 64)?;
        sent += 5;
        instance.ledger_is(ROUTE, sent, &[(Delivered, sent)])?;
        // One that slept for another reason than for want of signals looks once more by itself.
        owed += u32::from(counters(&mut drive)?[0] == sent - 5);
        hog.tell(order::Signal::TakeAll(rt(9)))?;
        drive.counts_up(0, sent)?;
    }
    ensure!(owed >= 5, "{owed} of 10 times it waited for its signal");
    Ok(())
}

fn a_killed_daemon_loses_and_repeats_nothing() -> anyhow::Result<()> {
    const MESSAGES: u64 = 4000;
    let instance = Instance::new()?;
    let config = one_way(&instance, 16384);
    let mut daemon = Daemon::start(&config)?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    for life in 0..4 {
        // In some of its lives the dispatcher is busy with the ring of the one before.
        if life % 2 == 0 {
            drive.hold()?;
        } else {
            drive.release()?;
        }
        controller.ask(order::Send::Press {
            endpoint: "controller.out",
            from: life * MESSAGES,
            count: MESSAGES,
            len: 32,
        })?;
        instance.until("some have passed", |s| {
            s.routes[0].ledger.delivered > MESSAGES / 4
        })?;
        daemon.kill()?;
        daemon = Daemon::start(&config)?;
        controller
            .answer()
            .with_context(|| format!("life {life}"))?;
    }
    drive.release()?;
    drive.counts_up(0, 4 * MESSAGES)?;
    // A quiet ring after a restart wakes the dispatcher, too.
    drop(daemon);
    let _daemon = Daemon::start(&config)?;
    for n in 0..10 {
        controller.press("controller.out", 4 * MESSAGES + n, 1, 32)?;
        drive.counts_up(0, 4 * MESSAGES + n + 1)?;
    }
    Ok(())
}

fn a_killed_receiver_is_accounted_and_its_successor_receives() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    drive.hold()?;
    controller.press("controller.out", 0, 10, 8)?;
    instance.ledger_is(ROUTE, 10, &[(Delivered, 10)])?;
    drive.kill()?;
    instance.until("its end was seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == "drive" && p.state == PeerState::Dead)
    })?;
    // Nobody can be told a number that nobody receives: the sender is refused, or the message is
    // peer-dead.
    let refused = controller
        .tell(order::Send::Bytes {
            endpoint: "controller.out",
            bytes: vec![0x01],
        })
        .map(drop);
    let dead = u64::from(refused.is_ok());
    instance.ledger_is(ROUTE, 10 + dead, &[(Delivered, 10), (PeerDead, dead)])?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    controller.press("controller.out", 11, 5, 8)?;
    drive.counts_up(11, 5)?;
    instance.ledger_is(ROUTE, 15 + dead, &[(Delivered, 15), (PeerDead, dead)])?;
    Ok(())
}

fn a_receiver_without_a_session_gets_values_and_no_more() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::run_as(&instance, "drive")?;
    drive.block(rt(3))?;
    let mut controller = controller(&instance)?;
    for bytes in [&[1_u8; 8][..], &[1; 9], &[7; 2]] {
        controller.tell(order::Send::Bytes {
            endpoint: "controller.out",
            bytes: bytes.to_vec(),
        })?;
    }
    let got = drive.signals(rt(3), 2)?;
    let values: Vec<u64> = got.iter().map(|rang| rang.value).collect();
    let two = u64::from_ne_bytes([7, 7, 0, 0, 0, 0, 0, 0]);
    ensure!(values == [u64::from_ne_bytes([1; 8]), two], "{values:?}");
    ensure!(
        got.iter().all(|rang| rang.pid == controller.pid()),
        "{got:?}"
    );
    instance.ledger_is(ROUTE, 3, &[(Delivered, 2), (Rejected(Reject::TooLarge), 1)])?;
    Ok(())
}

/// What a process got as values before it opened its session is pending still, and is no
/// announcement.
fn plain_signals_from_before_the_session_are_no_doorbells() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::start()?;
    drive.block_for_handlers(rt(3))?;
    drive.register(&instance, "drive")?;
    let mut controller = controller(&instance)?;
    controller.press("controller.out", 1, 3, 8)?;
    instance.ledger_is(ROUTE, 3, &[(Delivered, 3)])?;
    open(&mut drive, &instance, "drive", &[rt(3)])?;
    drive.counts_up(1, 3)?;
    controller.press("controller.out", 4, 3, 64)?;
    drive.counts_up(1, 6)?;
    let noticed = drive.noticed(6)?;
    ensure!(
        noticed[2].head.is_none() && noticed[2].payload.is_empty(),
        "{noticed:?}"
    );
    ensure!(
        noticed[3].head == Some(("controller.out".to_owned(), 4)),
        "{noticed:?}"
    );
    Ok(())
}

/// A session alone does not make a process one that expects signals.
fn nobody_is_signalled_before_a_handler_is_there() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::start()?;
    drive.connect(&instance, "drive")?;
    let mut controller = controller(&instance)?;
    controller.press("controller.out", 0, 20, 64)?;
    instance.ledger_is(ROUTE, 20, &[(Delivered, 20)])?;
    ensure!(kernel::pending(drive.pid())? == 0);
    drive.block_for_handlers(rt(3))?;
    drive.handle(rt(3))?;
    drive.counts_up(0, 20)?;
    Ok(())
}

fn after_the_session_plain_signals_go_on_and_nothing_is_left() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::start()?;
    let descriptors = |peer: &Peer| {
        Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{}/fd", peer.pid()))?.count())
    };
    let before = descriptors(&drive)?;
    for round in 0..5_u64 {
        open(&mut drive, &instance, "drive", &[rt(3)])?;
        let mut controller = controller(&instance)?;
        let start = 4 * round;
        drive.hold()?;
        controller.press("controller.out", start, 3, 64)?;
        instance.until("all is in the ring", |s| {
            s.routes[0].ledger.delivered == 3 * (round + 1)
        })?;
        drive.close()?;
        drive.release()?;
        // What had come is handed out; and this one nobody but ourselves sends.
        drive.counts_up(0, start + 3)?;
        drive.queue_to_self(rt(3), start + 3)?;
        drive.counts_up(0, start + 4)?;
        drive.tell(order::Handlers::End)?;
        // A thread that was joined may take a moment to be gone in the kernel.
        eventually(|| (kernel::threads(drive.pid()).ok()?.len() == 1).then_some(()))
            .with_context(|| format!("threads are left in round {round}"))?;
        ensure!(
            descriptors(&drive)? == before,
            "descriptors are left in round {round}"
        );
    }
    Ok(())
}
