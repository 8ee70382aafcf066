//! Clients of the control socket that misbehave: the daemon stays well, and traffic flows
//! meanwhile.

use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, patience, process, route};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::{FRAME_BYTES, Name, Reply, Request, Status};

tests![
    half_and_oversized_frames_are_answered_and_closed,
    garbage_of_the_right_size_is_answered_and_closed,
    a_flood_that_reads_no_answers_is_cut_off,
    a_flood_of_good_requests_keeps_nobody_out,
    hundreds_of_idle_connections_keep_nobody_out,
    a_storm_of_connections_leaves_no_descriptor_behind,
];

/// A daemon with a stream of messages through it while somebody misbehaves.
struct Busy {
    instance: Instance,
    daemon: Daemon,
    sender: Peer,
    receiver: Peer,
    descriptors: usize,
}

const STREAM: u64 = 20_000;

impl Busy {
    fn start() -> anyhow::Result<Busy> {
        let instance = Instance::new()?;
        let config = instance.head()
            + &process("arm")
            + &instance.mqueue("in", "")
            + &instance.mqueue("out", "")
            // The sender waits for the receiver: nothing is to be lost in between.
            + &route("in", &["out"], "overflow = \"block:10000000\"");
        let daemon = Daemon::start(&config)?;
        let descriptors = open_descriptors(&daemon)?;
        let mut receiver = Peer::start()?;
        receiver.open_to_receive(&instance.queue("out"))?;
        receiver.ask(order::Queue::Receive {
            count: STREAM,
            quiet_ms: 10_000,
        })?;
        let mut sender = Peer::start()?;
        sender.open_to_send(&instance.queue("in"))?;
        sender.ask(order::Queue::Stream {
            from: 0,
            count: STREAM,
        })?;
        Ok(Busy {
            instance,
            daemon,
            sender,
            receiver,
            descriptors,
        })
    }

    fn connect(&self) -> anyhow::Result<Conn> {
        Ok(Conn::connect(self.instance.socket().as_ref(), patience())?)
    }

    /// Registration works, all of the stream went through, no descriptor is left over; the daemon's
    /// log.
    fn ensure_well(mut self) -> anyhow::Result<String> {
        let arm = Peer::run_as(&self.instance, "arm").context("registration does not work")?;
        ensure!(self.instance.snapshot()?.processes[0].state == PeerState::Alive);
        drop(arm);
        self.sender.answer()?;
        let got = self.receiver.answered_numbers()?;
        ensure!(
            got.len() as u64 == STREAM,
            "{} of {STREAM} arrived",
            got.len()
        );
        for (n, number) in (0..).zip(got) {
            ensure!(number == n, "message {n} is {number}");
        }
        let end = self.instance.snapshot()?.routes[0].ledger;
        ensure!(
            end.delivered == STREAM && end.accepted == STREAM && end.balances(),
            "{end:?}"
        );
        let back = || (open_descriptors(&self.daemon).ok()? <= self.descriptors).then_some(());
        eventually(back).with_context(|| {
            format!(
                "{:?} descriptors, {} at the start",
                open_descriptors(&self.daemon),
                self.descriptors
            )
        })?;
        self.daemon.stop()
    }
}

fn open_descriptors(daemon: &Daemon) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count())
}

/// The answer to one packet on a connection of its own, and whether the connection was closed then.
fn answer(busy: &Busy, packet: &[u8]) -> anyhow::Result<(Reply, bool)> {
    let conn = busy.connect()?;
    conn.send(packet)?;
    let mut frame = [0; FRAME_BYTES];
    let got = conn.receive_within(&mut frame, patience())?;
    ensure!(got == Received::Packet(FRAME_BYTES), "{got:?}");
    let closed = conn
        .receive_within(&mut [0; FRAME_BYTES], patience())
        .is_ok_and(|r| r == Received::Closed);
    Ok((Reply::decode(&frame)?, closed))
}

fn half_and_oversized_frames_are_answered_and_closed() -> anyhow::Result<()> {
    let busy = Busy::start()?;
    let whole = Request::Ping.encode();
    let mut packets: Vec<Vec<u8>> = (0..FRAME_BYTES)
        .step_by(17)
        .map(|n| whole[..n].to_vec())
        .collect();
    packets.extend([257, 512, 4096, 65_536].map(|n| vec![0x55; n]));
    for packet in &packets {
        let (reply, closed) = answer(&busy, packet)?;
        ensure!(
            reply.status == Status::BadFrame && closed,
            "{} bytes: {reply:?}",
            packet.len()
        );
        ensure!(
            reply.text.contains(&format!("this one {}", packet.len())),
            "{reply:?}"
        );
    }
    let log = busy.ensure_well()?;
    ensure!(
        log.contains(&format!(" bad_frames {} ", packets.len())),
        "{log}"
    );
    Ok(())
}

fn garbage_of_the_right_size_is_answered_and_closed() -> anyhow::Result<()> {
    const FRAMES: u64 = 500;
    let busy = Busy::start()?;
    let name = Name::new("arm")?;
    let good = Request::Register {
        name,
        pid: 0,
        tid: 0,
        exec_follows: false,
    }
    .encode();
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    for n in 0..FRAMES {
        let mut frame: [u8; FRAME_BYTES] = std::array::from_fn(|_| random());
        if n % 2 == 0 {
            // Magic, version and kind of a registration; the rest is nothing.
            frame[..8].copy_from_slice(&good[..8]);
        }
        let (reply, closed) = answer(&busy, &frame)?;
        ensure!(reply.status == Status::BadFrame && closed, "{reply:?}");
    }
    ensure!(busy.instance.snapshot()?.processes[0].state == PeerState::Unregistered);
    let log = busy.ensure_well()?;
    ensure!(log.contains(&format!(" bad_frames {FRAMES} ")), "{log}");
    Ok(())
}

/// One client asks without end and reads no answer: it is closed, others are served.
fn a_flood_that_reads_no_answers_is_cut_off() -> anyhow::Result<()> {
    let busy = Busy::start()?;
    let conn = busy.connect()?;
    let frame = Request::Ping.encode();
    // The daemon closes it once its answers have no room: then sending fails.
    eventually(|| (0..1000).any(|_| conn.send(&frame).is_err()).then_some(()))
        .context("it floods on")?;
    drop(conn);
    let log = busy.ensure_well()?;
    ensure!(log.contains(" unread 1 "), "{log}");
    Ok(())
}

/// Many clients ask and read, as fast as they can, from several threads.
fn a_flood_of_good_requests_keeps_nobody_out() -> anyhow::Result<()> {
    const THREADS: usize = 4;
    const REQUESTS: usize = 2_000;
    let busy = Busy::start()?;
    let socket = busy.instance.socket();
    let flood = || -> anyhow::Result<()> {
        let conn = Conn::connect(socket.as_ref(), patience())?;
        let mut frame = [0; FRAME_BYTES];
        for _ in 0..REQUESTS {
            ensure!(conn.send(&Request::Ping.encode())?);
            conn.receive_within(&mut frame, patience())?;
            ensure!(Reply::decode(&frame)?.status == Status::Ok);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(flood)).collect();
        let taken = Peer::run_as(&busy.instance, "arm").map(drop);
        threads
            .into_iter()
            .try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("panicked"))?)?;
        taken
    })?;
    busy.ensure_well()?;
    Ok(())
}

/// Three times as many as rtd keeps, and few enough for the usual 1024 open files of a process.
fn hundreds_of_idle_connections_keep_nobody_out() -> anyhow::Result<()> {
    let busy = Busy::start()?;
    let idle: Vec<Conn> = (0..400).map(|_| busy.connect()).collect::<Result<_, _>>()?;
    let many = open_descriptors(&busy.daemon)?;
    ensure!(
        many < busy.descriptors + 300,
        "a connection costs descriptors without bound: {many}"
    );
    let arm = Peer::run_as(&busy.instance, "arm").context("the idle keep others out")?;
    drop(arm);
    drop(idle);
    busy.ensure_well()?;
    Ok(())
}

/// Connections that come and go without a word.
fn a_storm_of_connections_leaves_no_descriptor_behind() -> anyhow::Result<()> {
    let busy = Busy::start()?;
    for _ in 0..3_000 {
        drop(busy.connect()?);
    }
    busy.ensure_well()?;
    Ok(())
}
