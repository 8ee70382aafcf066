//! rtd is killed at every system call that its control thread makes while sessions open, are
//! joined, end and are replaced. After a normal restart both processes must exchange messages
//! again, and a message that was accepted in between must arrive.

use crate::util::cobalt_bench::Bench;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::session::{lane_end, planner_and_arm, runs};
use crate::util::talk::patience_ms;
use crate::util::trace::Traced;
use crate::util::{Daemon, Instance, Peer, eventually, process, route};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use stand_in_cobalt::copies::Kind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

tests![
    killed_while_both_sessions_open,
    killed_while_a_first_session_opens,
    killed_while_a_session_on_cobalt_opens needs(ROOT),
    a_first_session_that_holds_messages_is_handed_out_at_the_time_limit,
    killed_while_the_receiver_replaces_its_session,
    killed_while_the_sender_replaces_its_session,
];

/// More system calls than any of these handshakes takes: a test that reaches this does not end.
const CALLS_MAX: u64 = 1000;
/// How long a process takes to answer that its session is up.
const UP_MAX: Duration = Duration::from_millis(200);

/// `planner` sends to `arm` through the daemon (`cmd`) and directly (`fast`).
struct Pair {
    instance: Instance,
    config: String,
    planner: Peer,
    arm: Peer,
    /// The last number that was sent.
    number: u64,
}

/// A handshake, begun by the clients while the daemon is traced. None of them waits for it.
type Begin = fn(&mut Pair) -> anyhow::Result<()>;
/// What the clients still have to do when it was begun, with a daemon that runs.
type End = fn(&mut Pair) -> anyhow::Result<()>;

/// How many system calls the daemon's control thread makes while its clients do this.
fn calls_during(
    daemon: &Daemon,
    clients: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<u64> {
    let done = AtomicBool::new(false);
    let mut traced = Traced::attach(daemon.pid())?;
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let result = clients();
            done.store(true, Ordering::Release);
            result
        });
        let mut calls = 0;
        while !done.load(Ordering::Acquire) {
            traced.next_call()?;
            calls += 1;
        }
        traced.detach()?;
        clients
            .join()
            .map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        ensure!(calls < CALLS_MAX, "{calls} system calls");
        Ok(calls)
    })
}

impl Pair {
    fn new() -> anyhow::Result<(Pair, Daemon)> {
        let instance = Instance::new()?;
        let config = planner_and_arm(&instance, "", "", "");
        let daemon = Daemon::start(&config)?;
        let arm = Peer::with_inbox(&instance, "arm")?;
        let mut planner = Peer::from_endpoint(&instance, "planner", "cmd")?;
        planner.claim("fast")?;
        let mut pair = Pair {
            instance,
            config,
            planner,
            arm,
            number: 0,
        };
        pair.exchange()?;
        Ok((pair, daemon))
    }

    /// One message each way, which has to arrive.
    fn exchange(&mut self) -> anyhow::Result<()> {
        for endpoint in ["cmd", "fast"] {
            self.send(endpoint)?;
            self.arm
                .got_until(&format!("number {}", self.number))
                .with_context(|| endpoint.to_owned())?;
        }
        Ok(())
    }

    /// Sends as soon as somebody receives. A receiver that has left may be noticed only by the send
    /// itself.
    fn send(&mut self, endpoint: &str) -> anyhow::Result<()> {
        self.number += 1;
        let (planner, number) = (&mut self.planner, self.number);
        eventually(|| {
            planner.reach(endpoint).ok()?;
            planner.number(endpoint, number).ok().map(drop)
        })
        .with_context(|| format!("{endpoint} takes nothing"))
    }

    /// A message into the direct ring while no daemon runs; its number if it was accepted.
    fn send_alone(&mut self) -> Option<u64> {
        self.number += 1;
        self.planner
            .number("fast", self.number)
            .is_ok()
            .then_some(self.number)
    }

    fn start(&self) -> anyhow::Result<Daemon> {
        Daemon::start(&self.config)
    }

    /// How many system calls the handshake takes, with the exchange of messages that shows its end.
    fn length(&mut self, daemon: &Daemon, begin: Begin, end: End) -> anyhow::Result<u64> {
        calls_during(daemon, || {
            begin(self)
                .and_then(|()| end(self))
                .and_then(|()| self.exchange())
        })
    }

    /// Kills the daemon before its `call`-th system call of the handshake, and starts another.
    ///
    /// `fresh`: the clients have no command to answer, so one of them sends while no daemon runs.
    fn kill_at(
        &mut self,
        daemon: Daemon,
        call: u64,
        fresh: bool,
        begin: Begin,
        end: End,
    ) -> anyhow::Result<Daemon> {
        let mut traced = Traced::attach(daemon.pid())?;
        begin(self)?;
        for _ in 0..call {
            traced.next_call()?;
        }
        daemon.kill()?;
        let alone = if fresh { self.send_alone() } else { None };
        let daemon = self.start()?;
        end(self)?;
        self.send("fast")?;
        let got = self.arm.got_until(&format!("number {}", self.number))?;
        if let Some(number) = alone {
            let came = runs(&got)
                .iter()
                .any(|run| (run.number..run.number + run.count).contains(&number));
            ensure!(came, "{number} was accepted and is lost: {got:?}");
        }
        self.exchange()?;
        Ok(daemon)
    }
}

/// `fresh`: a handshake that begins with the start of a daemon, before which the clients are
/// stopped.
fn killed_at_every_call(fresh: bool, begin: Begin, end: End) -> anyhow::Result<()> {
    let (mut pair, mut daemon) = Pair::new()?;
    let prepare = |pair: &mut Pair, daemon: Daemon| -> anyhow::Result<Daemon> {
        if !fresh {
            return Ok(daemon);
        }
        daemon.kill()?;
        pair.planner.freeze()?;
        pair.arm.freeze()?;
        pair.start()
    };
    daemon = prepare(&mut pair, daemon)?;
    let length = pair.length(&daemon, begin, end)?;
    for call in 1..=length {
        daemon = prepare(&mut pair, daemon)?;
        daemon = pair
            .kill_at(daemon, call, fresh, begin, end)
            .with_context(|| format!("killed before system call {call} of {length}"))?;
    }
    println!("{length} system calls");
    daemon.stop()?;
    Ok(())
}

fn nothing_more(_: &mut Pair) -> anyhow::Result<()> {
    Ok(())
}

/// Both sessions come back to a daemon that was restarted: open and join.
fn killed_while_both_sessions_open() -> anyhow::Result<()> {
    let begin = |pair: &mut Pair| {
        pair.planner.thaw()?;
        pair.arm.thaw()
    };
    killed_at_every_call(true, begin, nothing_more)
}

/// The commands that replace a session; their answers are fetched later.
fn replace(peer: &mut Peer, instance: &Instance, name: &str) -> anyhow::Result<()> {
    peer.ask(order::Session::Close)?;
    peer.ask(order::Session::Connect {
        socket: &instance.socket(),
        name,
    })
}

/// The answers. A session that found no daemon is opened again.
fn replaced(peer: &mut Peer, instance: &Instance, name: &str) -> anyhow::Result<()> {
    peer.answer()?;
    if peer.answer().is_err() {
        peer.connect(instance, name)?;
    }
    Ok(())
}

/// The receiver's session ends and the next one of the same process opens: leave, open, join.
fn killed_while_the_receiver_replaces_its_session() -> anyhow::Result<()> {
    let begin = |pair: &mut Pair| replace(&mut pair.arm, &pair.instance, "arm");
    let end = |pair: &mut Pair| {
        replaced(&mut pair.arm, &pair.instance, "arm")?;
        pair.arm.open_inbox()?;
        Ok(())
    };
    killed_at_every_call(false, begin, end)
}

/// The sender's.
fn killed_while_the_sender_replaces_its_session() -> anyhow::Result<()> {
    let begin = |pair: &mut Pair| replace(&mut pair.planner, &pair.instance, "planner");
    let end = |pair: &mut Pair| {
        replaced(&mut pair.planner, &pair.instance, "planner")?;
        pair.planner.claim("cmd")?;
        pair.planner.claim("fast")?;
        Ok(())
    };
    killed_at_every_call(false, begin, end)
}

/// What a daemon and its clients run on.
enum Skin {
    Posix(Instance),
    Cobalt(Bench),
}

impl Skin {
    fn instance(&self) -> &Instance {
        match self {
            Skin::Posix(instance) => instance,
            Skin::Cobalt(bench) => &bench.instance,
        }
    }

    fn head(&self) -> String {
        match self {
            Skin::Posix(instance) => instance.head(),
            Skin::Cobalt(bench) => bench.head(),
        }
    }

    fn daemon(&self, config: &str) -> anyhow::Result<Daemon> {
        match self {
            Skin::Posix(_) => Daemon::start(config),
            Skin::Cobalt(bench) => bench.daemon(config),
        }
    }

    fn peer(&self) -> anyhow::Result<Peer> {
        match self {
            Skin::Posix(_) => Peer::start(),
            Skin::Cobalt(bench) => bench.peer(),
        }
    }
}

/// `leg` receives from a queue.
struct Newcomer {
    skin: Skin,
    config: String,
    sender: Peer,
    /// The last number that was sent.
    number: u64,
}

impl Newcomer {
    fn new(skin: Skin) -> anyhow::Result<(Newcomer, Daemon)> {
        let instance = skin.instance();
        let config = skin.head()
            + &process("leg")
            + &instance.mqueue("in", "")
            + &lane_end("leg.cmd", "leg", "")
            + &route("in", &["leg.cmd"], "rejoin = \"60s\"");
        let daemon = skin.daemon(&config)?;
        let mut sender = skin.peer()?;
        sender.open_to_send(&instance.queue("in"))?;
        Ok((
            Newcomer {
                skin,
                config,
                sender,
                number: 0,
            },
            daemon,
        ))
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        self.sender.stream(self.number, 1).map(drop)
    }

    /// Sends a message while the control thread stands still; whether it counts as delivered.
    fn is_delivered(&mut self) -> anyhow::Result<bool> {
        let settled = |ledger: &rtcore::stats::Ledger| ledger.delivered + ledger.peer_dead;
        let before = self.skin.instance().snapshot()?.routes[0].ledger;
        self.send()?;
        let page = self.skin.instance().until("the lane takes it", |page| {
            settled(&page.routes[0].ledger) == settled(&before) + 1
        })?;
        Ok(page.routes[0].ledger.delivered > before.delivered)
    }

    fn ask(&mut self) -> anyhow::Result<Peer> {
        let mut leg = self.skin.peer()?;
        leg.ask(order::Session::Connect {
            socket: &self.skin.instance().socket(),
            name: "leg",
        })?;
        Ok(leg)
    }

    fn is_gone(&self) -> anyhow::Result<()> {
        let dead = PeerState::Dead;
        self.skin
            .instance()
            .until("leg is gone", |page| page.processes[0].state == dead)
            .map(drop)
    }

    /// How many system calls the daemon makes until a first session is open.
    fn length(&mut self, daemon: &Daemon) -> anyhow::Result<u64> {
        calls_during(daemon, || {
            self.ask().and_then(|mut leg| leg.answer()).map(drop)
        })
    }

    /// Stops the daemon's control thread between the first delivery to a session that opens and
    /// Ready. How many system calls come before the delivery varies from time to time.
    fn stop_behind_a_delivery(
        &mut self,
        daemon: &Daemon,
        length: u64,
    ) -> anyhow::Result<(Peer, Traced, u64)> {
        let limit_ms = patience_ms() / 4;
        let mut call = 0_u64;
        for _ in 0..3 * length {
            call += 1;
            let mut traced = Traced::attach(daemon.pid())?;
            let mut leg = self.skin.peer()?;
            leg.ask(order::Session::ConnectWithin {
                limit_ms,
                socket: &self.skin.instance().socket(),
                name: "leg",
            })?;
            for _ in 0..call {
                traced.next_call()?;
            }
            let is_delivered = self.is_delivered()?;
            let is_up = leg.answers_within(if is_delivered { UP_MAX } else { Duration::ZERO })?;
            if is_delivered && !is_up {
                return Ok((leg, traced, call));
            }
            traced.detach()?;
            // It may have run into its time limit.
            let _ = leg.answer();
            leg.kill()?;
            self.is_gone()?;
            if is_up {
                call = call.saturating_sub(5);
            }
        }
        anyhow::bail!("nothing was delivered before the session was up")
    }
}

/// A first session opens: what counts as delivered to it arrives, though rtd is killed before the
/// session is up.
fn killed_while_a_first_session_opens() -> anyhow::Result<()> {
    killed_while_it_opens(Skin::Posix(Instance::new()?))
}

/// The same for a session on Cobalt, whose ends have semaphores of the core.
fn killed_while_a_session_on_cobalt_opens() -> anyhow::Result<()> {
    killed_while_it_opens(Skin::Cobalt(Bench::new(Kind::Stock)?))
}

fn killed_while_it_opens(skin: Skin) -> anyhow::Result<()> {
    let (mut rig, mut daemon) = Newcomer::new(skin)?;
    let length = rig.length(&daemon)?;
    rig.is_gone()?;
    let mut delivered = 0;
    for call in 1..=length {
        let mut traced = Traced::attach(daemon.pid())?;
        let mut leg = rig.ask()?;
        for _ in 0..call {
            traced.next_call()?;
        }
        let (is_delivered, number) = (rig.is_delivered()?, rig.number + 1);
        daemon.kill()?;
        daemon = rig.skin.daemon(&rig.config)?;
        let opened = leg.answer();
        if let (Err(e), true) = (&opened, is_delivered) {
            anyhow::bail!(
                "killed before system call {call} of {length}: {} was delivered: {e}",
                number - 1
            );
        }
        if opened.is_err() {
            leg.connect(rig.skin.instance(), "leg")?;
        }
        leg.open_inbox()?;
        rig.send()?;
        let got = leg.got_until(&format!("number {number}"))?;
        let came = runs(&got)
            .iter()
            .any(|run| (run.number..run.number + run.count).contains(&(number - 1)));
        ensure!(
            came == is_delivered,
            "killed before system call {call} of {length}: {} delivered: {is_delivered}, received: {got:?}",
            number - 1
        );
        delivered += u64::from(is_delivered);
        leg.kill()?;
        rig.is_gone()?;
    }
    println!("{length} system calls, {delivered} messages delivered before the session was up");
    ensure!(delivered > 0, "no kill hit the time after the announcement");
    daemon.stop()?;
    Ok(())
}

/// The time limit of `connect` passes between the first delivery and Ready, after rtd was killed,
/// or while its control thread stands still and its lane delivers: what counts as delivered is
/// received from the session that `connect` returns.
fn a_first_session_that_holds_messages_is_handed_out_at_the_time_limit() -> anyhow::Result<()> {
    for is_killed in [true, false] {
        let (mut rig, daemon) = Newcomer::new(Skin::Posix(Instance::new()?))?;
        let length = rig.length(&daemon)?;
        rig.is_gone()?;
        let (mut leg, traced, call) = rig.stop_behind_a_delivery(&daemon, length)?;
        let first = rig.number;
        let mut running = Some(daemon);
        if is_killed {
            running.take().map(Daemon::kill).transpose()?;
        }
        leg.answer()
            .with_context(|| format!("{first} was delivered before system call {call}"))?;
        let state = leg.state()?;
        ensure!(state.starts_with("Down("), "{state:?}");
        if is_killed {
            running = Some(rig.skin.daemon(&rig.config)?);
        } else {
            // `connect` has returned, and the lane still has the ring.
            ensure!(rig.is_delivered()?, "the lane does not deliver");
            traced.detach()?;
        }
        leg.open_inbox()?;
        eventually(|| (leg.state().ok()? == "Up").then_some(())).context("never up")?;
        rig.send()?;
        let got = leg.got_until(&format!("number {}", rig.number))?;
        let received: u64 = runs(&got).iter().map(|run| run.count).sum();
        ensure!(
            received == rig.number + 1 - first,
            "killed: {is_killed}; {first}..={}: {got:?}",
            rig.number
        );
        println!(
            "killed: {is_killed}; system call {call} of {length}, {received} messages received"
        );
        running.context("no daemon")?.stop()?;
    }
    Ok(())
}
