//! Signal endpoints with a ring beside them: payloads, few signals for many messages, and what
//! happens when the signal queue, the daemon or the receiver gives out.

use crate::util::book::End::{Delivered, PeerDead, Rejected};
use crate::util::halt::Halted;
use crate::util::needs::{PTRACE, ROOT};
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
    let mut peer = Peer::with_signals(|_| {})?;
    open(&mut peer, instance, name, signals)?;
    Ok(peer)
}

fn open(peer: &mut Peer, instance: &Instance, name: &str, signals: &[i32]) -> anyhow::Result<()> {
    for signo in signals {
        peer.tell(&format!("block {signo}"))?;
    }
    peer.tell(&format!("session {} {name}", instance.socket()))?;
    for signo in signals {
        peer.tell(&format!("handle {signo}"))?;
    }
    Ok(())
}

fn sender(instance: &Instance, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
    let mut peer = Peer::with_signals(|_| {})?;
    peer.tell(&format!("session {} {name}", instance.socket()))?;
    peer.tell(&format!("sender {endpoint}"))?;
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
    let line = peer.tell("counters")?.concat();
    line.split(' ').map(|word| Ok(word.parse()?)).collect()
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "-".to_owned()
    } else {
        rtd::ctl::payload::hex(bytes)
    }
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
    let mut drive = Peer::with_signals(|_| {})?;
    drive.tell(&format!("block {}", rt(3)))?;
    drive.tell(&format!("session {} drive", instance.socket()))?;
    drive.tell(&format!("handle {} controller", rt(3)))?;
    let mut controller = controller(&instance)?;
    let mut stranger = sender(&instance, "stranger", "stranger.out")?;
    let bytes: Vec<u8> = (1..=129).collect();
    let mut want = Vec::new();
    for (sequence, len) in [0, 1, 7, 8, 9, 64, 127, 128].into_iter().enumerate() {
        stranger.tell("send ff")?;
        controller.tell(&format!("send {}", hex(&bytes[..len])))?;
        let mut value = [0; 8];
        value[..len.min(8)].copy_from_slice(&bytes[..len.min(8)]);
        let (signo, pid, value) = (rt(3), controller.pid(), u64::from_ne_bytes(value));
        let payload = hex(&bytes[..len]);
        want.push(format!(
            "{signo} {value} {pid} 1 controller.out {} {payload}",
            sequence + 1
        ));
    }
    let refused = controller
        .tell(&format!("send {}", hex(&bytes)))
        .unwrap_err();
    ensure!(format!("{refused:#}").contains("129"), "{refused:#}");
    ensure!(
        drive.tell("notices 8")? == want,
        "{:#?}\n not {want:#?}",
        drive.tell("notices 8")?
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
    let mut drive = Peer::with_signals(|_| {})?;
    drive.tell(&format!("block {}", rt(3)))?;
    drive.tell(&format!("session {} drive", instance.socket()))?;
    drive.tell(&format!("handle {} controller", rt(3)))?;
    let is_session =
        |tid: &u32| kernel::thread(drive.pid(), *tid).is_ok_and(|t| t.name == "rtd-session");
    let session = kernel::threads(drive.pid())?
        .into_iter()
        .find(is_session)
        .context("no session thread")?;
    let halted = Halted::thread(session)?;
    let mut controller = controller(&instance)?;
    controller.tell("send 01")?;
    instance.ledger_is(ROUTE, 1, &[(Delivered, 1)])?;
    eventually(|| (counters(&mut drive).ok()?[0] == 1).then_some(()))?;
    sleeps(&drive)?;
    drop(halted);
    drive.tell("notices 1")?;
    ensure!(counters(&mut drive)?[..2] == [1, 0], "received, unhandled");
    Ok(())
}

fn a_burst_past_a_slow_handler_is_lossless_with_few_signals() -> anyhow::Result<()> {
    const MESSAGES: u64 = 10_000;
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 16384))?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    drive.tell("hold")?;
    controller.tell(&format!("stream 0 {MESSAGES} 100"))?;
    instance.ledger_is(ROUTE, MESSAGES, &[(Delivered, MESSAGES)])?;
    let held = counters(&mut drive)?;
    ensure!(
        held[2] <= 2,
        "{} signals for one handler that has not returned",
        held[2]
    );
    drive.tell("release")?;
    drive.tell(&format!("counted 0 {MESSAGES}"))?;
    // And past the ring: what finds no room waits in the daemon.
    drive.tell("hold")?;
    controller.ask(&format!("stream {MESSAGES} {} 8", 2 * MESSAGES))?;
    instance.until("the ring is full", |s| s.routes[0].ledger.queued > 0)?;
    drive.tell("release")?;
    controller.answer()?;
    drive.tell(&format!("counted 0 {}", 3 * MESSAGES))?;
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
    drive.tell("hold")?;
    drive.tell(&format!("queue {} 6", rt(6)))?;
    eventually(|| (counters(&mut drive).ok()?[0] == 1).then_some(()))?;
    controller.tell("stream 40 3 8")?;
    controller.tell("sender controller.low")?;
    controller.tell("stream 30 3 8")?;
    instance.ledger_is("controller.out->drive.four", 3, &[(Delivered, 3)])?;
    instance.ledger_is("controller.low->drive.three", 3, &[(Delivered, 3)])?;
    for n in [5, 2] {
        drive.tell(&format!("queue {} {n}", rt(n)))?;
    }
    drive.tell("release")?;
    let lines = drive.tell("notices 9")?;
    let values: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    ensure!(
        values == ["6", "2", "30", "31", "32", "40", "41", "42", "5"],
        "{values:?}"
    );
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
    let payload = hex(&value.to_ne_bytes());
    let want = format!("{} {value} {} 0 in 1 {payload}", rt(3), button.pid());
    ensure!(
        drive.tell("notices 1")? == [want.as_str()],
        "{:?}",
        drive.tell("notices 1")?
    );
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
        controller.tell(&format!("stream {n} 1 8"))?;
        drive.tell(&format!("counted 0 {}", n + 1))?;
    }
    Ok(())
}

fn a_full_signal_queue_delays_the_doorbell_and_loses_nothing() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    const LIMIT: u64 = 40;
    // A user that nobody else is.
    let uid = 500_000 + std::process::id() % 100_000;
    let start = || {
        let mut peer = Peer::with_signals(|command| {
            command.uid(uid);
        })?;
        peer.tell(&format!("sigpending {LIMIT}"))?;
        anyhow::Ok(peer)
    };
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = start()?;
    open(&mut drive, &instance, "drive", &[rt(3)])?;
    let mut hog = start()?;
    hog.tell(&format!("block {}", rt(9)))?;
    let mut controller = controller(&instance)?;
    let mut sent = 0;
    let mut owed = 0;
    for _ in 0..10 {
        ensure!(
            hog.tell(&format!("spend {}", rt(9)))?
                .concat()
                .parse::<u64>()?
                >= LIMIT - 2
        );
        sleeps(&drive)?;
        controller.tell(&format!("stream {sent} 5 64"))?;
        sent += 5;
        instance.ledger_is(ROUTE, sent, &[(Delivered, sent)])?;
        // One that slept for another reason than for want of signals looks once more by itself.
        owed += u32::from(counters(&mut drive)?[0] == sent - 5);
        hog.tell(&format!("take-all {}", rt(9)))?;
        drive.tell(&format!("counted 0 {sent}"))?;
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
        drive.tell(if life % 2 == 0 { "hold" } else { "release" })?;
        controller.ask(&format!("stream {} {MESSAGES} 32", life * MESSAGES))?;
        instance.until("some have passed", |s| {
            s.routes[0].ledger.delivered > MESSAGES / 4
        })?;
        daemon.kill()?;
        daemon = Daemon::start(&config)?;
        controller
            .answer()
            .with_context(|| format!("life {life}"))?;
    }
    drive.tell("release")?;
    drive.tell(&format!("counted 0 {}", 4 * MESSAGES))?;
    // A quiet ring after a restart wakes the dispatcher, too.
    drop(daemon);
    let _daemon = Daemon::start(&config)?;
    for n in 0..10 {
        controller.tell(&format!("stream {} 1 32", 4 * MESSAGES + n))?;
        drive.tell(&format!("counted 0 {}", 4 * MESSAGES + n + 1))?;
    }
    Ok(())
}

fn a_killed_receiver_is_accounted_and_its_successor_receives() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    let mut controller = controller(&instance)?;
    drive.tell("hold")?;
    controller.tell("stream 0 10 8")?;
    instance.ledger_is(ROUTE, 10, &[(Delivered, 10)])?;
    drive.kill()?;
    instance.until("its end was seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == "drive" && p.state == PeerState::Dead)
    })?;
    // Nobody can be told a number that nobody receives: the sender is refused, or the message is
    // peer-dead.
    let refused = controller.tell("send 01").map(drop);
    let dead = u64::from(refused.is_ok());
    instance.ledger_is(ROUTE, 10 + dead, &[(Delivered, 10), (PeerDead, dead)])?;
    let mut drive = receiver(&instance, "drive", &[rt(3)])?;
    controller.tell("stream 11 5 8")?;
    drive.tell("counted 11 5")?;
    instance.ledger_is(ROUTE, 15 + dead, &[(Delivered, 15), (PeerDead, dead)])?;
    Ok(())
}

fn a_receiver_without_a_session_gets_values_and_no_more() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::run_as(&instance, "drive")?;
    drive.tell(&format!("block {}", rt(3)))?;
    let mut controller = controller(&instance)?;
    for bytes in [&[1_u8; 8][..], &[1; 9], &[7; 2]] {
        controller.tell(&format!("send {}", hex(bytes)))?;
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
    let mut drive = Peer::with_signals(|_| {})?;
    drive.tell(&format!("block {}", rt(3)))?;
    drive.tell(&format!("register {} drive", instance.socket()))?;
    let mut controller = controller(&instance)?;
    controller.tell("stream 1 3 8")?;
    instance.ledger_is(ROUTE, 3, &[(Delivered, 3)])?;
    open(&mut drive, &instance, "drive", &[rt(3)])?;
    drive.tell("counted 1 3")?;
    controller.tell("stream 4 3 64")?;
    drive.tell("counted 1 6")?;
    let lines = drive.tell("notices 6")?;
    ensure!(
        lines[2].ends_with(" - 0 -") && lines[3].contains(" controller.out 4 "),
        "{lines:?}"
    );
    Ok(())
}

/// A session alone does not make a process one that expects signals.
fn nobody_is_signalled_before_a_handler_is_there() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::with_signals(|_| {})?;
    drive.tell(&format!("session {} drive", instance.socket()))?;
    let mut controller = controller(&instance)?;
    controller.tell("stream 0 20 64")?;
    instance.ledger_is(ROUTE, 20, &[(Delivered, 20)])?;
    ensure!(kernel::pending(drive.pid())? == 0);
    drive.tell(&format!("block {}", rt(3)))?;
    drive.tell(&format!("handle {}", rt(3)))?;
    drive.tell("counted 0 20")?;
    Ok(())
}

fn after_the_session_plain_signals_go_on_and_nothing_is_left() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&one_way(&instance, 64))?;
    let mut drive = Peer::with_signals(|_| {})?;
    let descriptors = |peer: &Peer| {
        Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{}/fd", peer.pid()))?.count())
    };
    let before = descriptors(&drive)?;
    for round in 0..5_usize {
        open(&mut drive, &instance, "drive", &[rt(3)])?;
        let mut controller = controller(&instance)?;
        let start = 4 * round;
        drive.tell("hold")?;
        controller.tell(&format!("stream {start} 3 64"))?;
        instance.until("all is in the ring", |s| {
            s.routes[0].ledger.delivered == 3 * (round as u64 + 1)
        })?;
        drive.tell("session-end")?;
        drive.tell("release")?;
        // What had come is handed out; and this one nobody but ourselves sends.
        drive.tell(&format!("counted 0 {}", start + 3))?;
        drive.tell(&format!("queue {} {}", rt(3), start + 3))?;
        drive.tell(&format!("counted 0 {}", start + 4))?;
        drive.tell("dispatcher-end")?;
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
