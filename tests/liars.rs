//! Clients of the session protocol that mean harm, against the real daemon: who lies is cut off and named in the
//! log, and nobody else notices. After each of them an honest pair in the same lane and one in another pass a
//! thousand messages to the last one, and the daemon holds no descriptor and no mapping more than before.

use crate::util::book::End::Delivered;
use crate::util::lane_talk::endpoint;
use crate::util::{Daemon, Instance, Peer, book, eventually, lane, process, route};
use anyhow::Context as _;

/// Messages that each honest pair passes.
const EACH: u64 = 1000;
/// Offsets in a producer's memory: its tail, and in each slot the state and the lengths with flags.
const TAIL: usize = 0;
const SLOT: usize = 128;
/// From one slot of 64 bytes to the next.
const STRIDE: usize = 128;
/// Offset in a consumer's memory.
const HEAD: usize = 0;

/// A daemon with two honest pairs, a liar, and somebody it talks to by every way there is.
struct Arena {
    instance: Instance,
    daemon: Daemon,
    /// Senders and receivers of the same lane as the liar and of another.
    pairs: [(Peer, Peer); 2],
    victim: Peer,
    passed: u64,
    baseline: Held,
}

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mappings: usize,
}

fn held(pid: u32) -> anyhow::Result<Held> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let mappings = std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count();
    Ok(Held { descriptors, mappings })
}

const PAIRS: [[&str; 2]; 2] = [["a", "b"], ["c", "d"]];

fn config(instance: &Instance) -> String {
    let mut config = instance.head() + &lane("other", 40, "") + &process("liar") + &process("victim");
    for ([from, to], lane) in PAIRS.into_iter().zip(["lane", "other"]) {
        config += &(process(from) + &process(to));
        config += &endpoint(&format!("{from}.out"), from, 64);
        config += &endpoint(&format!("{to}.in"), to, 64);
        let more = format!("overflow = \"block:10s\"\nlane = \"{lane}\"");
        config += &route(&format!("{from}.out"), &[&format!("{to}.in")], &more);
    }
    for (from, to, way) in [
        ("liar", "victim", "routed"),
        ("victim", "liar", "routed"),
        ("liar", "victim", "direct"),
        ("victim", "liar", "direct"),
    ] {
        let (out, into) = (format!("{from}.{way}"), format!("{to}.{way}.in"));
        config += &endpoint(&out, from, 8);
        config += &endpoint(&into, to, 8);
        config += &route(&out, &[&into], &format!("path = \"{way}\""));
    }
    config
}

impl Arena {
    fn new() -> anyhow::Result<Arena> {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&config(&instance))?;
        let mut pairs = Vec::new();
        for [from, to] in PAIRS {
            let receiver = Peer::with_inbox(&instance, to)?;
            let mut sender = Peer::from_endpoint(&instance, from, &format!("{from}.out"))?;
            sender.reach(&format!("{from}.out"))?;
            pairs.push((sender, receiver));
        }
        let mut victim = Peer::with_inbox(&instance, "victim")?;
        for endpoint in ["victim.routed", "victim.direct"] {
            victim.tell(&format!("lane claim {endpoint}"))?;
        }
        let pairs = <[_; 2]>::try_from(pairs).map_err(|_| anyhow::anyhow!("not two"))?;
        let baseline = held(daemon.pid())?;
        let mut arena = Arena { instance, daemon, pairs, victim, passed: 0, baseline };
        // One that means no harm has come and gone: what is made once is made.
        arena.liar()?.kill()?;
        arena.settled()?;
        arena.baseline = eventually(|| {
            let first = held(arena.daemon.pid()).ok()?;
            std::thread::sleep(std::time::Duration::from_millis(250));
            (held(arena.daemon.pid()).ok()? == first).then_some(first)
        })?;
        Ok(arena)
    }

    /// A liar with a session, whose rings are joined.
    fn liar(&mut self) -> anyhow::Result<Peer> {
        let mut liar = Peer::start()?;
        liar.tell(&format!("liar connect {}", self.instance.socket()))?;
        liar.tell("liar open liar")?;
        for endpoint in ["liar.direct", "liar.direct.in"] {
            liar.tell(&format!("liar join {endpoint}"))?;
        }
        Ok(liar)
    }

    /// Nobody is registered as `liar` any more.
    fn settled(&self) -> anyhow::Result<()> {
        use rtcore::lane::peer::PeerState::Alive;
        let gone = |p: &rtcore::stats::snapshot::Process| p.name == "liar" && p.state != Alive;
        self.instance.until("the liar has no session", |s| s.processes.iter().any(gone))?;
        Ok(())
    }

    /// Both pairs pass their messages, also while the liar is at it.
    fn pairs_pass(&mut self) -> anyhow::Result<()> {
        for ((sender, receiver), [from, _]) in self.pairs.iter_mut().zip(PAIRS) {
            receiver.ask_numbers(usize::try_from(EACH)?)?;
            sender.ask(&format!("lane stream {from}.out {} {EACH}", self.passed))?;
        }
        let want: Vec<u64> = (self.passed..self.passed + EACH).collect();
        self.passed += EACH;
        for ((sender, receiver), [from, to]) in self.pairs.iter_mut().zip(PAIRS) {
            sender.answer()?;
            anyhow::ensure!(receiver.taken_numbers()? == want, "{from} -> {to}");
            let route = format!("{from}.out->{to}.in");
            self.instance.ledger_is(&route, self.passed, &[(Delivered, self.passed)])?;
        }
        Ok(())
    }

    /// The liar is gone: nothing of it is left, and nobody suffered; every ledger balances.
    fn unharmed(mut self) -> anyhow::Result<()> {
        self.settled()?;
        let mut last = None;
        eventually(|| {
            last = held(self.daemon.pid()).ok();
            (last.as_ref() == Some(&self.baseline)).then_some(())
        })
        .with_context(|| format!("holds {last:?}, held {:?}", self.baseline))?;
        self.pairs_pass()?;
        // The one it talked to is still there, and another by its name is heard.
        let mut next = self.liar()?;
        let _ = self.victim.left()?;
        next.tell("liar put liar.routed 0102030405060708")?;
        let route = "liar.routed->victim.routed.in";
        anyhow::ensure!(self.victim.take(1)?[0].pid == next.pid(), "somebody else's");
        next.kill()?;
        self.settled()?;
        let snapshot = self
            .instance
            .until("the books balance", |s| s.routes.iter().all(|r| r.consistent && r.ledger.balances()))?;
        anyhow::ensure!(book::of(&snapshot, route)?.delivered > 0, "nothing of it was ever counted");
        let log = self.daemon.stop()?;
        anyhow::ensure!(!log.contains("a defect"), "{log}");
        Ok(())
    }

    /// The same for a liar that was cut off, with this in the log.
    fn cut_off(self, says: &str) -> anyhow::Result<()> {
        self.settled()?;
        self.daemon.logged(says)?;
        self.daemon.logged("session of pid")?;
        self.unharmed()
    }
}

/// Messages of the liar into a routed ring, and then one lie; the daemon reads it, names it and ends the session.
fn lie_to_the_lane(lie: impl Fn(&mut Peer) -> anyhow::Result<()>, says: &str) -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    for _ in 0..3 {
        liar.tell("liar put liar.routed 0000000000000000")?;
    }
    arena.victim.take(3)?;
    lie(&mut liar)?;
    liar.tell("liar ring liar.routed")?;
    liar.tell("liar gone")?;
    arena.daemon.logged("broke the ring of endpoint liar.routed")?;
    arena.cut_off(says)
}

fn poke(liar: &mut Peer, endpoint: &str, offset: usize, value: impl std::fmt::Display) -> anyhow::Result<()> {
    liar.tell(&format!("liar poke {endpoint} {offset} {value}"))?;
    Ok(())
}

pub fn a_tail_beyond_the_slots_is_a_lie() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| poke(liar, "liar.routed", TAIL, 100), "indices are 100 and 3")
}

pub fn a_tail_that_goes_back_is_a_lie() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| poke(liar, "liar.routed", TAIL, 1), "indices are 1 and 3")
}

pub fn a_slot_announced_and_never_written_is_a_lie() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| poke(liar, "liar.routed", TAIL, 4), "slot 3 is announced, and its state is 0")
}

pub fn a_slot_announced_half_written_is_a_lie() -> anyhow::Result<()> {
    let lie = |liar: &mut Peer| {
        poke(liar, "liar.routed", SLOT + 3 * STRIDE, 7)?;
        poke(liar, "liar.routed", TAIL, 4)
    };
    lie_to_the_lane(lie, "slot 3 is announced, and its state is 7")
}

/// The next message, whole but for its length and flags.
fn alleged(liar: &mut Peer, len_and_flags: &str) -> anyhow::Result<()> {
    let slot = SLOT + 3 * STRIDE;
    poke(liar, "liar.routed", slot + 8, len_and_flags)?;
    poke(liar, "liar.routed", slot, 8)?;
    poke(liar, "liar.routed", TAIL, 4)
}

pub fn a_length_beyond_a_slot_is_a_lie() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| alleged(liar, "0xffffffff"), "slot 3 alleges 4294967295 bytes of at most 64")
}

pub fn flags_that_nobody_knows_are_a_lie() -> anyhow::Result<()> {
    lie_to_the_lane(|liar| alleged(liar, "0x8000000000000008"), "slot 3 has unknown flags 0x80000000")
}

/// Frames that were announced once are announced again: an old slot's state gives it away.
pub fn a_replayed_slot_is_a_lie() -> anyhow::Result<()> {
    // The ring's eight slots are full of old messages: the tail goes on over them.
    let lie = |liar: &mut Peer| {
        for _ in 0..5 {
            liar.tell("liar put liar.routed 00")?;
        }
        poke(liar, "liar.routed", TAIL, 12)
    };
    lie_to_the_lane(lie, "slot 8 is announced, and its state is 2")
}

/// A message with a number that it had before is the daemon's to pass on and the receiver's to drop.
pub fn a_replayed_number_is_dropped_by_the_receiver() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    for sequence in [1, 2, 2, 1, 2, 3] {
        liar.tell(&format!("liar put liar.routed 00 1 1 {sequence}"))?;
    }
    let got: Vec<_> = arena.victim.take(3)?.iter().map(|m| (m.sequence, m.pid == liar.pid())).collect();
    assert_eq!(got, [(1, true), (2, true), (3, true)]);
    assert_eq!(arena.victim.tell("lane counters i")?, ["3 3 0 0"]);
    arena.instance.ledger_is("liar.routed->victim.routed.in", 6, &[(Delivered, 6)])?;
    liar.kill()?;
    arena.unharmed()
}

/// It alleges to have taken what was never sent to it: its inbox ring ends, not the sender.
pub fn a_head_beyond_the_tail_is_a_lie() -> anyhow::Result<()> {
    for head in ["100", "max", "9223372036854775808"] {
        let mut arena = Arena::new()?;
        let mut liar = arena.liar()?;
        arena.victim.reach("victim.routed")?;
        poke(&mut liar, "liar.routed.in", HEAD, head)?;
        // The daemon looks at the head when the ring seems full.
        arena.victim.burst("victim.routed", 0, 8)?;
        arena.instance.until("they are in the ring", |s| {
            s.routes.iter().any(|r| r.name == "victim.routed->liar.routed.in" && r.ledger.delivered == 8)
        })?;
        arena.victim.burst("victim.routed", 8, 1)?;
        liar.tell("liar gone")?;
        arena.daemon.logged("broke the ring of endpoint liar.routed.in")?;
        arena.cut_off("which 8 slots cannot be")?;
    }
    Ok(())
}

/// Between processes: the receiver gives the ring up and says so; the daemon, which looks on, ends the session.
pub fn a_lie_in_a_direct_ring_is_found_by_its_receiver_and_by_the_daemon() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    poke(&mut liar, "liar.direct", TAIL, 100)?;
    liar.tell("liar ring liar.direct")?;
    arena.victim.event("corrupt the_ring's_indices_are_100_and_0")?;
    liar.tell("liar gone")?;
    arena.cut_off("session of pid")
}

/// What only the receiver can see is the receiver's: the event names it, and the liar may go on lying to itself.
pub fn a_slot_of_nonsense_in_a_direct_ring_harms_nobody() -> anyhow::Result<()> {
    let mut arena = Arena::new()?;
    let mut liar = arena.liar()?;
    poke(&mut liar, "liar.direct", TAIL, 1)?;
    liar.tell("liar ring liar.direct")?;
    arena.victim.event("corrupt slot_0_is_announced")?;
    // Its receiver cannot be made to believe in room, or in messages taken, that there are not.
    arena.victim.reach("victim.direct")?;
    assert_eq!(arena.victim.burst("victim.direct", 0, 9)?, (8, 1));
    poke(&mut liar, "liar.direct.in", HEAD, 9)?;
    assert_eq!(arena.victim.lane_send("victim.direct", b"x")?, Err("corrupt".to_owned()));
    liar.kill()?;
    arena.unharmed()
}
