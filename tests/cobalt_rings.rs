//! Rings in lanes on Cobalt, on the stand-in for libcobalt: lane threads and control processes wake
//! each other by semaphores, and none of them makes a Linux call on the way.

use super::util::cobalt_bench::{Bench, balanced};
use super::util::session::{Got, lane_end, runs, unbroken};
use super::util::{Daemon, Peer, eventually, kernel, process, route, rt, signal};
use crate::util::needs::{FOLLOWING, ROOT};
use crate::util::order::{self, Dispatcher};
use crate::util::session::send_number;
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::Snapshot;
use stand_in_cobalt::copies::Kind;

tests![
    messages_go_from_ring_to_ring_while_everybody_sleeps_in_between needs(ROOT, FOLLOWING),
    several_rings_of_one_thread_ring_one_doorbell needs(ROOT, FOLLOWING),
    rings_and_queues_are_routed_into_each_other needs(ROOT, FOLLOWING),
    a_sender_waits_for_room_and_a_full_receiver_loses_by_the_policy needs(ROOT, FOLLOWING),
    a_signal_s_payloads_come_by_a_semaphore_and_no_signal needs(ROOT, FOLLOWING),
    a_receiver_that_dies_is_accounted_for_and_its_successor_is_rung needs(ROOT, FOLLOWING),
    a_killed_daemon_s_messages_reach_the_next_one_and_its_semaphores_do_not_stay needs(ROOT, FOLLOWING),
    a_session_on_another_skin_is_refused_with_the_fix needs(ROOT),
    a_thread_that_is_not_promoted_and_one_in_a_loop_of_its_own_get_their_messages needs(ROOT),
];

/// Linux calls of a client's thread in one order that it obeys: reading it, and answering.
const CALLS_OF_AN_ORDER: u32 = 4;

/// `plan` of the planner, `axis` of the arm.
fn ends(more: &str) -> String {
    process("planner")
        + &process("arm")
        + &lane_end("plan", "planner", more)
        + &lane_end("axis", "arm", more)
}

/// The sender and the receiver, which see each other.
fn pair(bench: &Bench) -> anyhow::Result<(Peer, Peer)> {
    let (mut planner, arm) = (bench.sender("planner", "plan")?, bench.inbox("arm")?);
    planner.reach("plan")?;
    Ok((planner, arm))
}

/// Number of the lane thread that reads this.
fn lane_thread(bench: &Bench, name: &str) -> anyhow::Result<u32> {
    let snapshot = bench.instance.snapshot()?;
    let worker = snapshot.workers.iter().find(|worker| worker.name == name);
    Ok(worker.with_context(|| format!("no thread {name}"))?.tid)
}

/// Linux calls of threads that were in real-time mode, from here to [`Quiet::is_kept`].
struct Quiet {
    thread: u32,
    calls: u32,
    allowed: u32,
}

impl Quiet {
    fn of(bench: &Bench, thread: u32, allowed: u32) -> anyhow::Result<Quiet> {
        Ok(Quiet {
            thread,
            calls: bench.linux_calls(thread)?.0,
            allowed,
        })
    }

    fn is_kept(&self, bench: &Bench) -> anyhow::Result<()> {
        let (calls, last) = bench.linux_calls(self.thread)?;
        let made = calls - self.calls;
        ensure!(
            made <= self.allowed,
            "thread {} made {made} Linux calls, at most {}: the last one number {last}",
            self.thread,
            self.allowed
        );
        Ok(())
    }
}

fn messages_go_from_ring_to_ring_while_everybody_sleeps_in_between() -> anyhow::Result<()> {
    for wait in ["", "wait = \"spin:100us\""] {
        let bench = Bench::new(Kind::Stock)?;
        let config =
            bench
                .head()
                .replacen("name = \"lane\"", &format!("name = \"lane\"\n{wait}"), 1)
                + &ends("")
                + &route("plan", &["axis"], "");
        let daemon = bench.followed(&config)?;
        let (mut planner, mut arm) = pair(&bench)?;
        planner.number("plan", 1)?;
        unbroken(&arm.got_until("number 1")?, 1, 1)?;
        let thread = lane_thread(&bench, if wait.is_empty() { "plan" } else { "lane" })?;
        let quiet = [
            Quiet::of(&bench, thread, 0)?,
            Quiet::of(&bench, planner.pid(), CALLS_OF_AN_ORDER)?,
            Quiet::of(&bench, arm.pid(), CALLS_OF_AN_ORDER)?,
        ];
        arm.ask(order::Receive::Runs {
            count: 300,
            quiet_ms: 10_000,
        })?;
        planner.pace("plan", 2, 300, 1000)?;
        let got = arm.answer()?.runs()?;
        unbroken(&got, 2, 300)?;
        ensure!(
            runs(&got)
                .iter()
                .all(|run| run.verified && run.pid == planner.pid()),
            "{got:?}"
        );
        for quiet in &quiet {
            quiet.is_kept(&bench).with_context(|| format!("{wait:?}"))?;
        }
        ensure!(
            bench.linux_calls(arm.pid())?.0 > quiet[2].calls,
            "reading an order is a Linux call"
        );
        let read = bench
            .instance
            .until("all delivered", |s| s.routes[0].ledger.delivered == 301)?;
        balanced(&read)?;
        ensure!(
            read.lanes[0].counters.mode_switches == 0 && read.workers[0].counters.allocations == 0
        );
        // A lane thread takes the signals by which the library changes its mode.
        let blocked = kernel::blocked(daemon.pid(), thread)?;
        ensure!(
            blocked & (1 << 27 | 1 << 23) == 0,
            "SIGWINCH or SIGXCPU blocked: {blocked:x}"
        );
        daemon.stop()?;
    }
    Ok(())
}

fn several_rings_of_one_thread_ring_one_doorbell() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let head = bench.head().replacen(
        "name = \"lane\"",
        "name = \"lane\"\nwait = \"spin:50us\"",
        1,
    );
    let config = head
        + &ends("maxmsg = 4")
        + &process("other")
        + &lane_end("more", "other", "maxmsg = 4")
        + &route("plan", &["axis"], "capacity = 4")
        + &route("more", &["axis"], "capacity = 4");
    let daemon = bench.followed(&config)?;
    let mut arm = bench.inbox("arm")?;
    let (mut planner, mut other) = (
        bench.sender("planner", "plan")?,
        bench.sender("other", "more")?,
    );
    planner.reach("plan")?;
    planner.number("plan", 1)?;
    unbroken(&arm.got_until("number 1")?, 1, 1)?;
    let quiet = Quiet::of(&bench, lane_thread(&bench, "lane")?, 0)?;
    // Each while the thread sleeps, and while the queue in front of the receiver of the one is
    // full.
    planner.pace("plan", 2, 8, 3000)?;
    bench
        .instance
        .until("four wait", |s| s.routes[0].ledger.queued == 4)?;
    other.pace("more", 1, 4, 3000)?;
    bench
        .instance
        .until("all came", |s| s.routes[1].ledger.delivered == 4)?;
    let got = arm.got_until("number 9")?;
    for (from, first, count) in [("more", 1, 4), ("plan", 2, 8)] {
        let of = |got: &Got| matches!(got, Got::Run(run) if run.from == from);
        let own: Vec<Got> = got.iter().filter(|got| of(got)).cloned().collect();
        unbroken(&own, first, count).with_context(|| format!("{from} of {got:?}"))?;
    }
    quiet.is_kept(&bench)?;
    balanced(&bench.instance.snapshot()?)?;
    daemon.stop()?;
    Ok(())
}

fn rings_and_queues_are_routed_into_each_other() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &ends("msgsize = 64")
        + &at.mqueue("in", "")
        + &at.mqueue("out", "")
        + &route("plan", &["out"], "capacity = 64")
        + &route("in", &["axis"], "capacity = 64");
    let daemon = bench.followed(&config)?;
    let (mut planner, mut arm) = pair(&bench)?;
    let (mut feed, mut drain) = (bench.sends_to("in")?, bench.receives_from("out")?);
    planner.number("plan", 0)?;
    feed.send(0, &0_u64.to_ne_bytes())?;
    ensure!(drain.receive_for(1, 5000)?.len() == 1);
    unbroken(&arm.got_until("number 0")?, 0, 1)?;
    let quiet = ["plan", "in"].map(|name| Quiet::of(&bench, lane_thread(&bench, name)?, 0));
    // More than the queue and the ring's receiver hold: both lanes wait for room and for messages.
    planner.pace("plan", 1, 40, 200)?;
    feed.stream(1, 100)?;
    at.until("some wait", |s| {
        s.routes[0].ledger.queued > 0 && s.routes[1].ledger.queued > 0
    })?;
    let got = drain.receive_for(40, 5000)?;
    ensure!(got.len() == 40 && got[39].1.contains(&40), "{got:?}");
    unbroken(&arm.got_until("number 100")?, 1, 100)?;
    // Receivers come and go while nothing is sent: the thread that sleeps in its queue takes their
    // rings.
    for _ in 0..6 {
        drop(arm);
        arm = eventually(|| bench.inbox("arm").ok())?;
    }
    feed.send(0, &7_u64.to_ne_bytes())?;
    unbroken(&arm.got_until("number 7")?, 7, 1)?;
    for quiet in quiet {
        quiet?.is_kept(&bench)?;
    }
    balanced(&at.until("all delivered", |s| {
        s.routes.iter().all(|r| r.ledger.queued == 0)
    })?)?;
    daemon.stop()?;
    Ok(())
}

fn a_sender_waits_for_room_and_a_full_receiver_loses_by_the_policy() -> anyhow::Result<()> {
    for (overflow, sent) in [("block:10s", 40), ("reject", 40)] {
        let bench = Bench::new(Kind::Stock)?;
        let more = format!("capacity = 4\noverflow = \"{overflow}\"");
        let config = bench.head() + &ends("maxmsg = 4") + &route("plan", &["axis"], &more);
        let daemon = bench.followed(&config)?;
        let (mut planner, mut arm) = pair(&bench)?;
        planner.number("plan", 0)?;
        unbroken(&arm.got_until("number 0")?, 0, 1)?;
        let quiet = Quiet::of(&bench, lane_thread(&bench, "plan")?, 0)?;
        planner.ask(order::Send::Pace {
            endpoint: "plan",
            from: 1,
            count: sent,
            pause_us: 100,
        })?;
        let kept = if overflow == "reject" {
            let full = |s: &Snapshot| s.routes[0].ledger.accepted == sent + 1;
            bench.instance.until("the rest is rejected", full)?;
            8
        } else {
            bench
                .instance
                .until("four wait", |s| s.routes[0].ledger.queued >= 4)?;
            sent
        };
        unbroken(&arm.got_until(&format!("number {kept}"))?, 1, kept)?;
        planner.answer()?;
        quiet.is_kept(&bench)?;
        let settled = |s: &Snapshot| {
            s.routes[0].ledger.accepted == sent + 1 && s.routes[0].ledger.queued == 0
        };
        let read = bench.instance.until("settled", settled)?;
        balanced(&read)?;
        ensure!(
            read.routes[0].ledger.delivered == kept + 1,
            "{:?}",
            read.routes[0].ledger
        );
        daemon.stop()?;
    }
    Ok(())
}

fn a_signal_s_payloads_come_by_a_semaphore_and_no_signal() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head()
        + &ends("msgsize = 128")
        + &signal("stop", "arm", "SIGRTMIN+3", "msgsize = 128")
        + &signal("hold", "arm", "SIGRTMIN+4", "msgsize = 128")
        + &route("plan", &["stop", "hold"], "overflow = \"block:10s\"");
    let daemon = bench.followed(&config)?;
    let mut arm = bench.peer()?;
    for signo in [rt(3), rt(4)] {
        arm.block_for_handlers(signo)?;
    }
    arm.connect(&bench.instance, "arm")?;
    for signo in [rt(3), rt(4)] {
        arm.handle(signo)?;
    }
    let mut planner = bench.sender("planner", "plan")?;
    planner.number("plan", 1)?;
    ensure!(arm.noticed(2)?.len() == 2);
    let quiet = Quiet::of(&bench, lane_thread(&bench, "plan")?, 0)?;
    planner.pace("plan", 2, 150, 500)?;
    let got = arm.noticed(302)?;
    for signo in [rt(3), rt(4)] {
        let own: Vec<u64> = got
            .iter()
            .filter(|notice| notice.signo == signo)
            .map(|notice| notice.value)
            .collect();
        ensure!(own == (1..=151).collect::<Vec<_>>(), "{signo}: {own:?}");
    }
    // No signal told of a message.
    let counters = arm.dispatched()?;
    let none = Dispatcher {
        received: 302,
        ..Dispatcher::default()
    };
    ensure!(counters == none, "{counters:?}");
    // A plain Linux signal of that number comes all the same.
    arm.queue_to_self(rt(3), 9)?;
    ensure!(arm.noticed(303)?.len() == 303);
    quiet.is_kept(&bench)?;
    balanced(&bench.instance.snapshot()?)?;
    arm.tell(order::Handlers::End)?;
    daemon.stop()?;
    Ok(())
}

fn a_receiver_that_dies_is_accounted_for_and_its_successor_is_rung() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head() + &ends("") + &route("plan", &["axis"], "");
    let daemon = bench.followed(&config)?;
    let mut planner = bench.sender("planner", "plan")?;
    for life in 0..3 {
        let mut arm = bench.inbox("arm")?;
        planner.reach("plan")?;
        arm.ask(order::Receive::RunsUntil {
            wanted: &format!("number {life}"),
            quiet_ms: 10_000,
        })?;
        planner.number("plan", life)?;
        unbroken(&arm.answer()?.runs()?, life, 1)?;
        // Two threads' semaphores: the lane's, and one for each end of a session.
        ensure!(bench.semaphores().len() == 3, "{:?}", bench.semaphores());
        // While it sleeps.
        arm.ask(order::Receive::Runs {
            count: 1,
            quiet_ms: 10_000,
        })?;
        arm.kill()?;
        bench
            .instance
            .until("seen dead", |s| s.processes[1].state == PeerState::Dead)?;
        eventually(|| (bench.semaphores().len() == 2).then_some(()))?;
    }
    // What it sends before it has learned of the death is accepted, and accounted by the daemon.
    eventually(|| planner.refused(send_number("plan", 9), &["PeerDead"]).ok())?;
    balanced(&bench.instance.snapshot()?)?;
    drop(planner);
    eventually(|| (bench.semaphores().len() == 1).then_some(()))?;
    daemon.stop()?;
    ensure!(bench.semaphores().is_empty(), "{:?}", bench.semaphores());
    Ok(())
}

fn a_killed_daemon_s_messages_reach_the_next_one_and_its_semaphores_do_not_stay()
-> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head() + &ends("") + &route("plan", &["axis"], "capacity = 128");
    let daemon = bench.followed(&config)?;
    let (mut planner, mut arm) = pair(&bench)?;
    planner.number("plan", 0)?;
    unbroken(&arm.got_until("number 0")?, 0, 1)?;
    daemon.freeze()?;
    // They lie in the ring that the daemon does not read any more.
    planner.pace("plan", 1, 20, 10)?;
    arm.ask_until("number 20")?;
    let left = bench.semaphores();
    ensure!(left.len() == 3, "{left:?}");
    daemon.kill()?;
    ensure!(
        bench.semaphores() == left,
        "nobody was there to remove them"
    );
    let daemon = bench.followed(&config)?;
    unbroken(&arm.answered_until("number 20")?, 1, 20)?;
    let quiet = Quiet::of(&bench, lane_thread(&bench, "plan")?, 0)?;
    arm.ask_until("number 120")?;
    planner.pace("plan", 21, 100, 300)?;
    unbroken(&arm.answered_until("number 120")?, 21, 100)?;
    quiet.is_kept(&bench)?;
    daemon.kill()?;
    drop((planner, arm));
    // One that has no use for so many.
    let at = &bench.instance;
    let queues =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let daemon = bench.daemon(&queues)?;
    ensure!(bench.semaphores().len() == 1, "{:?}", bench.semaphores());
    daemon.stop()?;
    ensure!(bench.semaphores().is_empty(), "{:?}", bench.semaphores());
    Ok(())
}

fn a_session_on_another_skin_is_refused_with_the_fix() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let direct = |name: &str| lane_end(name, "planner", "");
    let config = bench.head()
        + &ends("")
        + &process("panel")
        + &direct("talk")
        + &lane_end("listen", "panel", "")
        + &route("plan", &["axis"], "")
        + &route("talk", &["listen"], "path = \"direct\"");
    let daemon = bench.daemon(&config)?;
    let mut linux = Peer::start()?;
    let fixes = [
        "Denied",
        "axis",
        "lane lane",
        "semaphores",
        "Builder::skin",
        "path = \"direct\"",
        "xddp endpoint",
    ];
    linux.refused(
        order::Session::Connect {
            socket: &at.socket(),
            name: "arm",
        },
        &fixes,
    )?;
    ensure!(at.snapshot()?.processes[1].state == PeerState::Unregistered);
    // A direct ring is nobody's in a lane: its ends are rung by futex, whatever they run on.
    let mut panel = Peer::with_inbox(at, "panel")?;
    let mut planner = bench.sender("planner", "talk")?;
    planner.reach("talk")?;
    panel.ask_until("number 5")?;
    planner.number("talk", 5)?;
    unbroken(&panel.answered_until("number 5")?, 5, 1)?;
    daemon.stop()?;
    let posix = Daemon::start(&(at.head() + &ends("") + &route("plan", &["axis"], "")))?;
    let mut arm = bench.peer()?;
    let fixes = [
        "Denied",
        "runs on posix",
        "futexes",
        "rtd run --skin cobalt",
        "no Builder::skin",
    ];
    arm.refused(
        order::Session::Connect {
            socket: &at.socket(),
            name: "arm",
        },
        &fixes,
    )?;
    posix.stop()?;
    Ok(())
}

fn a_thread_that_is_not_promoted_and_one_in_a_loop_of_its_own_get_their_messages()
-> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head() + &ends("") + &route("plan", &["axis"], "");
    let daemon = bench.daemon(&config)?;
    let (mut planner, mut arm) = pair(&bench)?;
    arm.ask(order::Receive::Polled { quiet_ms: 10_000 })?;
    planner.number("plan", 7)?;
    ensure!(arm.answer()?.message()? == Some(7_u64.to_ne_bytes().to_vec()));
    // It goes on by the semaphore.
    arm.ask_until("number 8")?;
    planner.number("plan", 8)?;
    unbroken(&arm.answered_until("number 8")?, 8, 1)?;
    // A thread that Linux runs.
    planner.flood("plan", 500)?;
    let got = arm.got(50)?;
    ensure!(
        runs(&got).iter().map(|run| run.count).sum::<u64>() >= 50,
        "{got:?}"
    );
    planner.flooded()?;
    daemon.stop()?;
    Ok(())
}
