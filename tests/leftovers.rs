//! Messages that are in a sender's ring when rtd stops, and what is sent while it stops: each
//! arrives, is refused, or is counted by the stop or by the next start.

use crate::util::book::End::{Delivered, Rejected};
use crate::util::lane_talk::endpoint;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, book, eventually, kernel, process, route};
use anyhow::ensure;
use nix::sys::signal::Signal;
use rtcore::message::Reject;
use rtcore::stats::reader::Reader;
use rtcore::stats::snapshot::Snapshot;

tests![
    what_is_sent_after_a_lane_has_stopped_is_refused_and_counted,
    what_a_sender_leaves_to_an_ended_lane_is_counted_by_the_stop,
    what_goes_with_a_sender_between_two_lives_is_counted_by_the_next,
    what_a_closed_session_had_is_counted_when_that_is_certain,
    a_flush_says_what_rtd_has_not_taken,
];

/// Messages that `a` sends; its ring has room for them.
const SENT: u64 = 60;

/// `a` sends to `b` and `c`, one message a second: the rest stays in its ring. Beside it a full
/// queue holds up each stop.
fn config(i: &Instance) -> String {
    i.head().replace("[daemon]", "[daemon]\ndrain = \"60s\"")
        + &process("a")
        + &process("b")
        + &process("c")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 64)
        + &endpoint("c.in", "c", 64)
        + &i.mqueue("in", "")
        + &i.mqueue("out", "maxmsg = 3")
        + &route(
            "a.out",
            &["b.in", "c.in"],
            "name = \"fan\"\nrate_hz = 1\nburst = 1",
        )
        + &route("in", &["out"], "")
}

/// The same with a lane that takes all at once, for the next start.
fn fast(i: &Instance) -> String {
    config(i)
        .replace("rate_hz = 1\nburst = 1", "")
        .replace("60s", "50ms")
}

struct Stage {
    i: Instance,
    daemon: Daemon,
    a: Peer,
    receivers: [Peer; 2],
}

/// `a` has sent its messages; most of them are in its ring.
fn stage() -> anyhow::Result<Stage> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let receivers = [Peer::with_inbox(&i, "b")?, Peer::with_inbox(&i, "c")?];
    let mut a = Peer::from_endpoint(&i, "a", "a.out")?;
    a.reach("a.out")?;
    ensure!(a.burst("a.out", 0, SENT)? == (SENT, 0));
    i.until("the first arrives", |page| {
        page.routes.iter().any(|route| route.ledger.delivered > 0)
    })?;
    Ok(Stage {
        i,
        daemon,
        a,
        receivers,
    })
}

/// Begins a stop that another lane thread holds up, and waits until the one of `a.out` has ended.
fn begin_stop(i: &Instance, daemon: &Daemon) -> anyhow::Result<()> {
    Peer::sender(&i.queue("in"))?.stream(0, 8)?;
    i.until("the queue is full", |page| {
        page.routes.iter().any(|route| route.ledger.queued == 5)
    })?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("SIGTERM: stopping")?;
    let threads = || kernel::threads(daemon.pid()).ok();
    let is_it = |&tid: &u32| kernel::thread(daemon.pid(), tid).is_ok_and(|t| t.name == "a.out");
    eventually(|| (!threads()?.iter().any(is_it)).then_some(()))
}

fn end_stop(daemon: Daemon) -> anyhow::Result<String> {
    daemon.signal(Signal::SIGTERM)?;
    let (status, log) = daemon.end()?;
    ensure!(status.success(), "{status}\n{log}");
    Ok(log)
}

/// Messages in the ring of `a` that no lane takes any more.
fn pending(a: &mut Peer) -> anyhow::Result<u64> {
    let count = a.tell(order::Send::Pending("a.out"))?.number()?;
    ensure!(0 < count && count < SENT, "{count}");
    Ok(count)
}

fn lost(page: &Snapshot) -> u64 {
    page.routes
        .iter()
        .find(|route| route.name == "fan")
        .map_or(u64::MAX, |route| route.lost_in_last_life)
}

/// A lane that has stopped takes nothing more: the sender learns that at once, and the next rtd
/// counts it.
fn what_is_sent_after_a_lane_has_stopped_is_refused_and_counted() -> anyhow::Result<()> {
    let Stage {
        i,
        daemon,
        mut a,
        mut receivers,
    } = stage()?;
    begin_stop(&i, &daemon)?;
    let left = pending(&mut a)?;
    for n in 0..5 {
        ensure!(
            a.lane_send("a.out", &[n; 8])? == Err(order::Refused::Disconnected),
            "message {n} was accepted"
        );
    }
    ensure!(pending(&mut a)? == left);
    let stopping = Reader::open(&i.name)?;
    let log = end_stop(daemon)?;
    ensure!(
        log.contains(&format!(
            "left in the ring of a.out, for the next rtd: {left} messages"
        )),
        "{log}"
    );
    let daemon = Daemon::start(&fast(&i))?;
    for receiver in &mut receivers {
        let all: Vec<u64> = (0..SENT).collect();
        ensure!(receiver.take_numbers(all.len())? == all);
    }
    let page = i.ledger_is("fan", 2 * left, &[(Delivered, 2 * left)])?;
    ensure!(lost(&page) == 0);
    let refused = |page: &Snapshot| {
        let a_out = page
            .endpoints
            .iter()
            .find(|endpoint| endpoint.name == "a.out");
        a_out.map_or(0, |endpoint| endpoint.refused.iter().sum())
    };
    // By this rtd, or by the one that was stopping.
    let before = refused(&stopping.snapshot()?);
    i.until("five are counted as refused", |page| {
        before + refused(page) == 5
    })?;
    ensure!(receivers[0].left()?.is_empty(), "what was refused arrives");
    daemon.stop()?;
    Ok(())
}

/// The sender ends while rtd waits for another lane: the stop accounts for its ring, in copies.
fn what_a_sender_leaves_to_an_ended_lane_is_counted_by_the_stop() -> anyhow::Result<()> {
    for in_order in [false, true] {
        let Stage {
            i,
            daemon,
            mut a,
            receivers: _receivers,
        } = stage()?;
        begin_stop(&i, &daemon)?;
        let (pid, left) = (a.pid(), pending(&mut a)?);
        if in_order {
            a.close_all()?;
            daemon.logged(&format!("a: pid {pid} closed its session"))?;
        } else {
            a.kill()?;
            daemon.logged(&format!("a: pid {pid} died"))?;
        }
        let page = Reader::open(&i.name)?;
        let log = end_stop(daemon)?;
        let ends = [
            (Delivered, 2 * (SENT - left)),
            (Rejected(Reject::Stopped), 2 * left),
        ];
        book::check(&page.snapshot()?, "fan", 2 * SENT, &ends)?;
        ensure!(
            log.contains(&format!("route fan: {} lost (stopped)", 2 * left)),
            "{log}"
        );
        ensure!(
            log.contains(&format!(
                "lane lane: accepted {} = delivered ",
                2 * SENT + 8
            )),
            "{log}"
        );
        let daemon = Daemon::start(&fast(&i))?;
        ensure!(lost(&i.snapshot()?) == 0, "counted twice");
        daemon.stop()?;
    }
    Ok(())
}

/// The sender ends when no rtd runs: the next start counts what it had, before it says READY.
fn what_goes_with_a_sender_between_two_lives_is_counted_by_the_next() -> anyhow::Result<()> {
    let Stage {
        i,
        daemon,
        mut a,
        receivers: _receivers,
    } = stage()?;
    begin_stop(&i, &daemon)?;
    end_stop(daemon)?;
    let (pid, left) = (a.pid(), pending(&mut a)?);
    a.kill()?;
    let daemon = Daemon::start(&fast(&i))?;
    ensure!(lost(&i.snapshot()?) == 2 * left);
    daemon.logged(&format!(
        "route fan: {} lost in the last life of this instance: pid {pid} sent them from a.out and ended before",
        2 * left
    ))?;
    daemon.stop()?;
    let daemon = Daemon::start(&fast(&i))?;
    ensure!(lost(&i.snapshot()?) == 0, "counted twice");
    daemon.stop()?;
    Ok(())
}

/// The program closes its session when no rtd runs, and lives: its messages are lost when it opens
/// another one, and when it ends. A start in between loses no count.
fn what_a_closed_session_had_is_counted_when_that_is_certain() -> anyhow::Result<()> {
    for opens in [true, false] {
        let Stage {
            i,
            daemon,
            mut a,
            receivers: _receivers,
        } = stage()?;
        begin_stop(&i, &daemon)?;
        end_stop(daemon)?;
        let left = pending(&mut a)?;
        a.close_all()?;
        let daemon = Daemon::start(&fast(&i))?;
        ensure!(lost(&i.snapshot()?) == 0);
        daemon.kill()?;
        let daemon = Daemon::start(&fast(&i))?;
        ensure!(lost(&i.snapshot()?) == 0);
        if opens {
            a.connect(&i, "a")?;
        } else {
            a.kill()?;
        }
        i.until("it is counted", |page| lost(page) == 2 * left)?;
        daemon.stop()?;
    }
    Ok(())
}

/// `flush` waits until rtd has taken all, also over a restart, or says how many are left and why.
fn a_flush_says_what_rtd_has_not_taken() -> anyhow::Result<()> {
    let Stage {
        i,
        daemon,
        mut a,
        mut receivers,
    } = stage()?;
    let flush = |a: &mut Peer| {
        a.tell(order::Send::Flush {
            endpoint: "a.out",
            ms: 50,
        })?
        .flushed()
    };
    ensure!(matches!(
        flush(&mut a)?,
        Err(order::Unflushed { why: None, .. })
    ));
    begin_stop(&i, &daemon)?;
    end_stop(daemon)?;
    let left = pending(&mut a)?;
    let why = Some(order::Refused::Disconnected);
    let messages = left;
    ensure!(flush(&mut a)? == Err(order::Unflushed { messages, why }));
    a.ask(order::Send::Flush {
        endpoint: "a.out",
        ms: 60_000,
    })?;
    let daemon = Daemon::start(&fast(&i))?;
    ensure!(a.answer()?.flushed()? == Ok(()));
    // Taken means that rtd answers for it, whatever becomes of the sender.
    a.kill()?;
    for receiver in &mut receivers {
        let all: Vec<u64> = (0..SENT).collect();
        ensure!(receiver.take_numbers(all.len())? == all);
    }
    daemon.stop()?;
    Ok(())
}
