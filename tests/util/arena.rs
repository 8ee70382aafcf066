//! Honest processes around a liar: pairs that must not notice it, and a victim that it talks to.

use super::book::End::Delivered;
use super::lane_talk::endpoint;
use super::order;
use super::{Daemon, Instance, Peer, book, eventually, lane, process, route};
use anyhow::Context as _;
use rtcore::stats::reader::Snapshot;
use std::time::{Duration, Instant};

/// Messages that each honest pair passes.
const EACH: u64 = 1000;

/// A daemon with two honest pairs, a liar, and somebody it talks to by every way there is.
pub struct Arena {
    pub instance: Instance,
    pub daemon: Daemon,
    /// Senders and receivers of the same lane as the liar and of another.
    pairs: [(Peer, Peer); 2],
    pub victim: Peer,
    passed: u64,
    baseline: Held,
}

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub mappings: usize,
}

impl Held {
    /// No more of either than that.
    pub fn is_within(&self, other: &Held) -> bool {
        self.descriptors <= other.descriptors && self.mappings <= other.mappings
    }
}

/// What this one holds now.
pub fn held(pid: u32) -> anyhow::Result<Held> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    // Of anything that has a name: the heap of the control thread is one mapping or two, as it
    // grows.
    let mappings = maps.lines().filter(|line| line.contains(" /")).count();
    Ok(Held {
        descriptors,
        mappings,
    })
}

const PAIRS: [[&str; 2]; 2] = [["a", "b"], ["c", "d"]];

fn config(instance: &Instance) -> String {
    let mut config =
        instance.head() + &lane("other", 40, "") + &process("liar") + &process("victim");
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
    config += &endpoint("liar.many", "liar", 64);
    config += &endpoint("victim.many.in", "victim", 64);
    config += &route("liar.many", &["victim.many.in"], "");
    config
}

/// It receives everything in the inbox `i`, and sends by both ways.
fn victim(instance: &Instance) -> anyhow::Result<Peer> {
    let mut victim = Peer::with_inbox(instance, "victim")?;
    for endpoint in ["victim.routed", "victim.direct"] {
        victim.claim(endpoint)?;
    }
    Ok(victim)
}

impl Arena {
    /// Everybody stands, and one liar that meant no harm has come and gone.
    pub fn new() -> anyhow::Result<Arena> {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&config(&instance))?;
        let mut pairs = Vec::new();
        for [from, to] in PAIRS {
            let receiver = Peer::with_inbox(&instance, to)?;
            let mut sender = Peer::from_endpoint(&instance, from, &format!("{from}.out"))?;
            sender.reach(&format!("{from}.out"))?;
            pairs.push((sender, receiver));
        }
        let victim = victim(&instance)?;
        let pairs = <[_; 2]>::try_from(pairs).map_err(|_| anyhow::anyhow!("not two"))?;
        let baseline = held(daemon.pid())?;
        let mut arena = Arena {
            instance,
            daemon,
            pairs,
            victim,
            passed: 0,
            baseline,
        };
        // One that means no harm has come and gone: what is made once is made.
        arena.liar()?.kill()?;
        arena.settled()?;
        // As it is for half a second, in which the daemon looks five times.
        let (mut last, mut since) = (held(arena.daemon.pid())?, Instant::now());
        arena.baseline = eventually(|| {
            let now = held(arena.daemon.pid()).ok()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(500)).then(|| last.clone())
        })?;
        Ok(arena)
    }

    /// A liar with a session, whose rings are joined.
    pub fn liar(&mut self) -> anyhow::Result<Peer> {
        let mut liar = Peer::start()?;
        liar.liar(&format!("connect {}", self.instance.socket()))?;
        liar.liar("open liar")?;
        for endpoint in ["liar.direct", "liar.direct.in"] {
            liar.liar(&format!("join {endpoint}"))?;
        }
        Ok(liar)
    }

    /// Another life of the victim.
    pub fn renew_victim(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.victim, Peer::start()?).kill()?;
        self.victim = victim(&self.instance)?;
        Ok(())
    }

    /// Nobody is registered as `liar` any more.
    pub fn settled(&self) -> anyhow::Result<()> {
        use rtcore::lane::peer::PeerState::Alive;
        let gone = |p: &rtcore::stats::snapshot::Process| p.name == "liar" && p.state != Alive;
        self.instance
            .until("the liar has no session", |s| s.processes.iter().any(gone))?;
        Ok(())
    }

    /// Both pairs pass their messages, also while the liar is at it.
    pub fn pairs_pass(&mut self) -> anyhow::Result<()> {
        for ((sender, receiver), [from, _]) in self.pairs.iter_mut().zip(PAIRS) {
            receiver.ask_numbers(usize::try_from(EACH)?)?;
            sender.ask(order::Send::Stream {
                endpoint: &format!("{from}.out"),
                from: self.passed,
                count: EACH,
            })?;
        }
        let want: Vec<u64> = (self.passed..self.passed + EACH).collect();
        self.passed += EACH;
        for ((sender, receiver), [from, to]) in self.pairs.iter_mut().zip(PAIRS) {
            sender.answer()?;
            anyhow::ensure!(receiver.taken_numbers()? == want, "{from} -> {to}");
            let route = format!("{from}.out->{to}.in");
            self.instance
                .ledger_is(&route, self.passed, &[(Delivered, self.passed)])?;
        }
        Ok(())
    }

    /// The liar is gone: nothing of it is left, and nobody suffered; every ledger balances.
    pub fn unharmed(mut self) -> anyhow::Result<()> {
        self.settled()?;
        let mut last = None;
        eventually(|| {
            last = held(self.daemon.pid()).ok();
            last.as_ref()?.is_within(&self.baseline).then_some(())
        })
        .with_context(|| format!("holds {last:?}, held {:?}", self.baseline))?;
        self.pairs_pass()?;
        // The one it talked to is still there, and another by its name is heard.
        let mut next = self.liar()?;
        next.liar("put liar.routed 0102030405060708")?;
        let route = "liar.routed->victim.routed.in";
        // Behind what is left of the one before.
        eventually(|| {
            self.victim
                .take(1)
                .ok()?
                .iter()
                .any(|m| m.pid == next.pid())
                .then_some(())
        })?;
        next.kill()?;
        self.settled()?;
        // The victim can have the message before its lane has counted it as delivered.
        let is_counted = |s: &Snapshot| book::of(s, route).is_ok_and(|book| book.delivered > 0);
        self.instance
            .until("the books balance, with what it sent", |s| {
                s.routes.iter().all(|r| r.consistent && r.ledger.balances()) && is_counted(s)
            })?;
        let log = self.daemon.stop()?;
        anyhow::ensure!(!log.contains("a defect"), "{log}");
        Ok(())
    }

    /// The same for a liar that was cut off, with this in the log.
    pub fn cut_off(mut self, liar: Peer, says: &str) -> anyhow::Result<()> {
        self.settled()?;
        self.daemon
            .logged(&format!("liar: session of pid {} closed", liar.pid()))?;
        self.daemon.logged(says)?;
        // Nobody notices while it is there, and nothing is left when it has gone.
        self.pairs_pass()?;
        liar.kill()?;
        self.unharmed()
    }
}
