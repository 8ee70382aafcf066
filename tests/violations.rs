//! Hostile clients of the session protocol, against the real daemon: a client that breaks the
//! protocol is disconnected and named in the log, and no other client is affected. After each of
//! them an honest pair in the same lane and one in another pass a thousand messages to the last
//! one, and the daemon holds no descriptor and no mapping more than before.

use crate::util::arena::{Arena, held};
use crate::util::book::End::Delivered;
use crate::util::needs::ROOT;
use crate::util::order::{Counters, Refused};
use crate::util::{Peer, eventually, kernel};

tests![
    a_tail_beyond_the_slots_is_a_violation,
    a_tail_that_goes_back_is_a_violation,
    a_slot_announced_and_never_written_is_a_violation,
    a_slot_announced_half_written_is_a_violation,
    a_length_beyond_a_slot_is_a_violation,
    flags_that_nobody_knows_are_a_violation,
    a_replayed_slot_is_a_violation,
    a_replayed_number_is_dropped_by_the_receiver,
    a_head_beyond_the_tail_is_a_violation,
    a_violation_in_a_direct_ring_is_found_by_its_receiver_and_by_the_daemon,
    a_slot_of_nonsense_in_a_direct_ring_harms_nobody,
    sessions_opened_and_closed_in_a_loop_leave_nothing,
    descriptors_that_are_sent_are_not_kept,
    connections_that_say_nothing_are_bounded,
    a_session_that_never_reads_is_closed,
    frames_that_no_client_sends_end_the_session,
    nothing_makes_a_writer_of_a_reader,
    a_client_cannot_make_the_lane_fault,
    bells_that_are_rung_for_nothing_wake_and_harm_nobody,
    one_that_is_stopped_holds_up_nobody,
    one_that_changes_its_user_speaks_for_neither needs(ROOT),
];

/// Offsets in a producer's memory: its tail, and in each slot the state and the lengths with flags.
const TAIL: usize = 0;
const SLOT: usize = 128;
/// From one slot of 64 bytes to the next.
const STRIDE: usize = 128;
/// Offset in a consumer's memory.
const HEAD: usize = 0;

/// Messages of the liar into a routed ring, and then one lie; the daemon reads it, names it and
/// ends the session.
fn lie_to_the_lane(
    lie: impl Fn(&mut Peer) -> anyhow::Result<()>,
    says: &str,
) -> anyhow::Result<()> {
    lie_to_the_lane_after(3, lie, says)
}

/// The same, after so many messages that came.
fn lie_to_the_lane_after(
    messages: usize,
    lie: impl Fn(&mut Peer) -> anyhow::Result<()>,
    says: &str,
) -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    for _ in 0..messages {
        liar.liar("put liar.routed 0000000000000000")?;
    }
    assert_eq!(arena.victim.take(messages)?.len(), messages);
    lie(&mut liar)?;
    liar.liar("ring liar.routed")?;
    liar.liar("gone")?;
    arena
        .daemon
        .logged("broke the ring of endpoint liar.routed")?;
    arena.cut_off(liar, says)
}

fn poke(
    liar: &mut Peer,
    endpoint: &str,
    offset: usize,
    value: impl std::fmt::Display,
) -> anyhow::Result<()> {
    liar.liar(&format!("poke {endpoint} {offset} {value}"))?;
    Ok(())
}

fn a_tail_beyond_the_slots_is_a_violation() -> anyhow::Result<()> {
    lie_to_the_lane(
        |liar| poke(liar, "liar.routed", TAIL, 100),
        "tail 100, head 3,",
    )
}

fn a_tail_that_goes_back_is_a_violation() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| poke(liar, "liar.routed", TAIL, 1), "tail 1, head 3,")
}

fn a_slot_announced_and_never_written_is_a_violation() -> anyhow::Result<()> {
    lie_to_the_lane(
        |liar| poke(liar, "liar.routed", TAIL, 4),
        "slot 3 is announced, but its state is 0",
    )
}

fn a_slot_announced_half_written_is_a_violation() -> anyhow::Result<()> {
    let lie = |liar: &mut Peer| {
        poke(liar, "liar.routed", SLOT + 3 * STRIDE, 7)?;
        poke(liar, "liar.routed", TAIL, 4)
    };
    lie_to_the_lane(lie, "slot 3 is announced, but its state is 7")
}

/// The next message, whole but for its length and flags.
fn alleged(liar: &mut Peer, len_and_flags: &str) -> anyhow::Result<()> {
    let slot = SLOT + 3 * STRIDE;
    poke(liar, "liar.routed", slot + 8, len_and_flags)?;
    poke(liar, "liar.routed", slot, 8)?;
    poke(liar, "liar.routed", TAIL, 4)
}

fn a_length_beyond_a_slot_is_a_violation() -> anyhow::Result<()> {
    lie_to_the_lane(
        |liar| alleged(liar, "0xffffffff"),
        "slot 3 claims 4294967295 bytes, at most 64 are possible",
    )
}

fn flags_that_nobody_knows_are_a_violation() -> anyhow::Result<()> {
    lie_to_the_lane(
        |liar| alleged(liar, "0x8000000000000008"),
        "slot 3 has unknown flags 0x80000000",
    )
}

/// Frames that were announced once are announced again: an old slot's state gives it away.
fn a_replayed_slot_is_a_violation() -> anyhow::Result<()> {
    // The ring's eight slots are full of old messages, all of which were taken: the tail goes on
    // over them.
    let lie = |liar: &mut Peer| poke(liar, "liar.routed", TAIL, 12);
    lie_to_the_lane_after(8, lie, "slot 8 is announced, but its state is 2")
}

/// A message with a number that it had before is the daemon's to pass on and the receiver's to
/// drop.
fn a_replayed_number_is_dropped_by_the_receiver() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    for sequence in [1, 2, 2, 1, 2, 3] {
        liar.liar(&format!("put liar.routed 00 1 1 {sequence}"))?;
    }
    let got: Vec<_> = arena
        .victim
        .take(3)?
        .iter()
        .map(|m| (m.sequence, m.pid == liar.pid()))
        .collect();
    assert_eq!(got, [(1, true), (2, true), (3, true)]);
    let counters = arena.victim.counters()?;
    assert_eq!(
        counters,
        Counters {
            received: 3,
            duplicates: 3,
            ..Counters::default()
        }
    );
    arena
        .instance
        .ledger_is("liar.routed->victim.routed.in", 6, &[(Delivered, 6)])?;
    liar.kill()?;
    arena.unharmed()
}

/// It alleges to have taken what was never sent to it: its inbox ring ends, not the sender.
fn a_head_beyond_the_tail_is_a_violation() -> anyhow::Result<()> {
    for head in ["100", "max", "9223372036854775808"] {
        let mut arena = Arena::new()?;
        let mut liar = arena.liar()?;
        arena.victim.reach("victim.routed")?;
        poke(&mut liar, "liar.routed.in", HEAD, head)?;
        // The daemon looks at the head when the ring seems full.
        arena.victim.burst("victim.routed", 0, 8)?;
        arena.instance.until("they are in the ring", |s| {
            s.routes
                .iter()
                .any(|r| r.name == "victim.routed->liar.routed.in" && r.ledger.delivered == 8)
        })?;
        arena.victim.burst("victim.routed", 8, 1)?;
        liar.liar("gone")?;
        arena
            .daemon
            .logged("broke the ring of endpoint liar.routed.in")?;
        arena.cut_off(liar, ", 8 slots")?;
    }
    Ok(())
}

/// Between processes: the receiver gives the ring up and says so; the daemon, which looks on and
/// cannot tell who of the two it was, says so too and makes another.
fn a_violation_in_a_direct_ring_is_found_by_its_receiver_and_by_the_daemon() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    poke(&mut liar, "liar.direct", TAIL, 100)?;
    liar.liar("ring liar.direct")?;
    arena
        .victim
        .event("ring indices out of range: tail 100, head 0")?;
    arena
        .daemon
        .logged("route liar.direct->victim.direct.in: impossible indices in 1 ring(s)")?;
    liar.kill()?;
    arena.unharmed()
}

/// What only the receiver can see is the receiver's: the event names it, and the liar may go on
/// lying to itself.
fn a_slot_of_nonsense_in_a_direct_ring_harms_nobody() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    poke(&mut liar, "liar.direct", TAIL, 1)?;
    liar.liar("ring liar.direct")?;
    arena.victim.event("slot 0 is announced")?;
    // Its receiver cannot be made to believe in room, or in messages taken, that there are not.
    arena.victim.reach("victim.direct")?;
    assert_eq!(arena.victim.burst("victim.direct", 0, 9)?, (8, 1));
    poke(&mut liar, "liar.direct.in", HEAD, 9)?;
    // Who looks first: the sender, or the daemon, which takes the ring away.
    let refused = arena.victim.lane_send("victim.direct", b"x")?;
    assert!(
        refused == Err(Refused::Corrupt) || refused == Err(Refused::PeerDead),
        "{refused:?}"
    );
    liar.kill()?;
    // What was announced to it and it will never take stays in the books as queued until it is
    // there no more.
    arena.renew_victim()?;
    arena.unharmed()
}

/// Sessions opened and closed in a loop leave nothing behind.
fn sessions_opened_and_closed_in_a_loop_leave_nothing() -> anyhow::Result<()> {
    let arena = Arena::new()?;
    let mut liar = Peer::start()?;
    liar.liar(&format!("sessions {} liar 100", arena.instance.socket()))?;
    arena.unharmed()
}

/// Descriptors that come with frames are closed, and never answered; those it makes the daemon hold
/// are bounded.
fn descriptors_that_are_sent_are_not_kept() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    let before = held(arena.daemon.pid())?.descriptors;
    liar.ask_liar("hoard 2000")?;
    arena.pairs_pass()?;
    assert_eq!(liar.answer()?.lines()?, ["sent"]);
    arena.pairs_pass()?;
    eventually(|| (held(arena.daemon.pid()).ok()?.descriptors <= before).then_some(()))?;
    liar.kill()?;
    arena.unharmed()
}

/// More connections than the daemon accepts: the oldest are closed, and a client with a session
/// keeps its own.
fn connections_that_say_nothing_are_bounded() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = Peer::start()?;
    liar.liar(&format!("connections {} 500", arena.instance.socket()))?;
    arena.pairs_pass()?;
    liar.kill()?;
    arena.unharmed()
}

/// One that never reads what it is told is closed when its bound is full, and not waited for.
fn a_session_that_never_reads_is_closed() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    liar.ask_liar("deaf 100000")?;
    arena.pairs_pass()?;
    assert_eq!(liar.answer()?.lines()?, ["closed"]);
    arena.cut_off(liar, "it does not read")
}

/// Frames that no client sends: half, giant, of unknown kinds, of another version, a second Open.
fn frames_that_no_client_sends_end_the_session() -> anyhow::Result<()> {
    use rtcore::wire::{Name, Request};
    let hex = rtd::ctl::payload::hex;
    let mut unknown = Request::Ping.encode();
    unknown[6] = 99;
    let mut version = Request::Ping.encode();
    version[4] = 77;
    let mut hidden = Request::Ping.encode();
    hidden[200] = 1;
    let second = Request::Open {
        name: Name::new("a")?,
        tid: 0,
        semaphores: false,
        resumes: 0,
        program: 1,
        lane: None,
    }
    .encode();
    let frames = [
        &unknown[..],
        &version,
        &hidden,
        &second,
        &[0x72; 1],
        &Request::Ping.encode()[..255],
    ];
    let mut orders: Vec<String> = frames
        .iter()
        .map(|frame| format!("frame {}", hex(frame)))
        .collect();
    orders.extend(["giant 257", "giant 65536", "giant 150000"].map(str::to_owned));
    let mut arena = Arena::new()?;
    for order in orders {
        let mut liar = arena.liar()?;
        assert_eq!(liar.liar(&order)?, ["BadFrame"], "{order}");
        liar.liar("gone")?;
        arena.settled()?;
    }
    // The log has a budget for so many lines a second; the first is in it.
    arena.daemon.logged(&format!(
        "closed: version {} has no frame kind 99",
        rtcore::wire::VERSION
    ))?;
    arena.unharmed()
}

/// Whatever it tries with the descriptors it was given: sizes stay, and what is another's to write
/// stays so.
fn nothing_makes_a_writer_of_a_reader() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    for endpoint in [
        "liar.routed",
        "liar.routed.in",
        "liar.direct",
        "liar.direct.in",
    ] {
        let worked = liar.liar(&format!("attack {endpoint}"))?;
        assert!(worked.is_empty(), "{endpoint}: {worked:?}");
    }
    liar.kill()?;
    arena.unharmed()
}

/// The lane thread that reads its rings does not fault: it takes their pages away before it says
/// that it has mapped them, and cannot afterwards.
fn a_client_cannot_make_the_lane_fault() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    // 64 slots of 128 bytes: behind the first page there are slots that the lane reads in every
    // round.
    let first = liar.liar("holes liar.many")?;
    anyhow::ensure!(
        first.is_empty(),
        "taken away while the lane reads: {first:?}"
    );
    let worker = arena
        .instance
        .snapshot()?
        .workers
        .into_iter()
        .find(|w| w.name == "liar.many");
    let tid = worker
        .map(|w| w.tid)
        .ok_or_else(|| anyhow::anyhow!("no worker"))?;
    let faults = || Ok::<_, anyhow::Error>(kernel::thread(arena.daemon.pid(), tid)?.minor_faults);
    let mut round = |messages: usize| -> anyhow::Result<()> {
        for _ in 0..messages {
            liar.liar("put liar.many 0000000000000000")?;
            anyhow::ensure!(liar.liar("holes liar.many")?.is_empty(), "a hole");
            anyhow::ensure!(arena.victim.take(1)?.len() == 1);
        }
        Ok(())
    };
    let before = faults()?;
    round(320)?;
    let faulted = faults()? - before;
    anyhow::ensure!(faulted == 0, "{faulted} page faults");
    liar.kill()?;
    arena.unharmed()
}

/// It rings every bell it reaches, fills the eventfds, and swallows what others ring for.
fn bells_that_are_rung_for_nothing_wake_and_harm_nobody() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    arena.victim.reach("victim.direct")?;
    for round in 0..20_u64 {
        liar.ask_liar("scribble")?;
        // Into its full eventfd as well: nobody who rings waits.
        arena.victim.lane_send("victim.direct", b"x")?.ok();
        liar.liar("put liar.routed 0000000000000000").ok();
        liar.answer().ok();
        if round % 10 == 0 {
            arena.pairs_pass()?;
        }
    }
    liar.kill()?;
    arena.unharmed()
}

/// Stopped in the middle of everything, with its own ring full and its inbox unread; then going on;
/// then killed so.
fn one_that_is_stopped_holds_up_nobody() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    liar.freeze()?;
    for endpoint in ["victim.routed", "victim.direct"] {
        arena.victim.reach(endpoint)?;
        arena.victim.burst(endpoint, 0, 100)?;
    }
    arena.pairs_pass()?;
    liar.thaw()?;
    liar.liar("put liar.routed 00")?;
    liar.ask_liar("scribble")?;
    liar.freeze()?;
    arena.pairs_pass()?;
    liar.kill()?;
    arena.unharmed()
}

/// Who connected as one user and asks as another gets no more than the one it is.
fn one_that_changes_its_user_speaks_for_neither() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = Peer::start()?;
    liar.liar(&format!("connect {}", arena.instance.socket()))?;
    liar.liar("setuid 65534")?;
    // Anybody may be `liar` here: what it is now is what its messages say.
    liar.liar("open liar")?;
    liar.liar("put liar.routed 00 1 0 1")?;
    let got = arena.victim.take(1)?;
    assert_eq!(
        (got[0].pid, got[0].uid, got[0].verified),
        (liar.pid(), 65534, true)
    );
    liar.kill()?;
    arena.unharmed()
}
